"""Whether a search repeats itself, and by which lag: what its proposals know of earlier trials."""

from collections.abc import Mapping

from study.plan.spec import StudySpec

# With more places than two, a lag of the places leaves a tenth of them free in a search that is so
# many times as large; twice the lag leaves none free (benchmarks/results/waiting-cpu.json).
FEW_PLACES, LARGE_SEARCH = 2, 6


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
    lags = {}
    for model in spec.models:
        n = min(n_places, (places_of or {}).get(model, n_places))
        is_large = n > FEW_PLACES and spec.share >= LARGE_SEARCH * n
        lags[model] = spec.search_lag or (2 * n if is_large else n)
    return lags


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
