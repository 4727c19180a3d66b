"""Whether a search repeats itself, and by which lag: what its proposals know of earlier trials."""

from collections.abc import Mapping

from study.plan.spec import StudySpec


def lags_of(
    spec: StudySpec, n_places: int, places_of: Mapping[str, int] | None = None
) -> dict[str, int] | None:
    """The lag of each model's search, see `study.plan.search`; None for those that do not repeat.

    Args:
        spec: the study.
        n_places: trials at once.
        places_of: of each model that cannot have all of them.
    """
    if not spec.share or not spec.repeatable or spec.timed:
        return None
    by_places = {m: min(n_places, (places_of or {}).get(m, n_places)) for m in spec.models}
    return {model: spec.search_lag or n for model, n in by_places.items()}


def describe_repeat(spec: StudySpec, lags: Mapping[str, int] | None) -> list[str]:
    """A line that says so, of a study that has a search."""
    if not spec.share:
        return []
    if lags is None:
        why = "--no-repeatable" if not spec.timed else f"--objective {spec.objective} goes by times"
        return [f"the search does not repeat itself: {why}"]
    numbers = " and ".join(f"{n} ({model})" for model, n in lags.items())
    numbers = str(max(lags.values())) if len(set(lags.values())) == 1 else numbers
    line = f"the search repeats itself with this seed and --search-lag {numbers}"
    return [f"{line}, but for where --time-budget ends it" if spec.time_budget_seconds else line]
