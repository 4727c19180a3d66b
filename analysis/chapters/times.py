"""Training times, and whether they may be compared at all."""

from collections.abc import Mapping
from typing import Any, Final

from analysis import plots
from analysis.claims import concerns_paper
from analysis.load import Run
from analysis.phrases import count, digits, seeds
from analysis.plots import Drawing, Marks
from analysis.settings import Setting
from study.folder import schema
from study.folder.schema import SECONDS

TIMES: Final = "figure-times"


def sharing(run: Run) -> str:
    """Whose times these are, as far as the run says; "" if no trial shared its device."""
    known = run.reference_trials["n_sharing"].dropna()
    if len(known):
        n_alone = int((known <= 1).sum())
        alone = f"These are the times of {count(n_alone, 'reference trial')} with the device alone"
        n = len(known) - n_alone
        return f"{alone}; {n} shared it, so that their times compare with none." if n else ""
    resources = run.manifest["resources"]
    n = resources["max_concurrent"]
    if n == 1 or resources["gpus_per_trial"] >= 1:
        return ""
    where = "cluster" if resources.get("address") else "machine"
    what = "a GPU" if resources["gpus_per_trial"] else f"this {where}"
    return f"Up to {n} trials trained at once and shared {what}: these are not times alone."


def fallbacks(run: Run) -> str:
    """Which programs the plain trainer had the place of, and why; "" if none."""
    return " ".join(
        f"{program} did not work on this device ({reason}): the plain trainer trained its trials, "
        "one at a time, and theirs are its times."
        for program, reason in (run.manifest["resources"].get("fallbacks") or {}).items()
    )


def timed(run: Run) -> list[Setting]:
    """The reference settings with times: those that are compared, and the custom models'."""
    shown = [s for s in run.reference if len(s.by_seed(SECONDS))]
    return [s for s in shown if s.label in run.pair or s.model != schema.DENSE]


def drawing(run: Run, found: list[Setting], stated: Mapping[str, float], paper: str) -> Drawing:
    """A row a model: a dot a seed, their mean, and the seconds that a paper states; log axis."""
    looks, labels, some = plots.looks_of(run.models), [], []
    for row, one in enumerate(found):
        look, values = looks[one.model], one.by_seed(SECONDS)
        some += plots.seeds_and_mean(look, values, row, one.label, " s")
        if one.label in stated:
            text = f"{one.label}, {paper}: {stated[one.label]:.3g} s"
            some.append(Marks(look | plots.HOLLOW, [stated[one.label]], [row], texts=[text]))
        labels.append(f"{one.label}, {digits(values.mean())} s")
    key = ("a seed of this run", *[paper] * bool(stated))
    return plots.rows_drawing(TIMES, some, labels, "Training time (s)", key)


def chapter(run: Run) -> dict[str, Any]:
    """Training times beside the paper's."""
    found, paper = timed(run), run.paper if concerns_paper(run) else None
    claim = next((c for c in (paper.claims if paper else ()) if c.measure == SECONDS), None)
    of_paper = dict(zip(claim.pair, claim.values, strict=False)) if claim else {}
    stated = {one.label: of_paper[one.label] for one in found if one.label in of_paper}
    called = paper.called if paper else ""
    here = {one.label: one.by_seed(SECONDS).mean() for one in found}
    said = [f"this run, {name}: {seconds:.3g} s" for name, seconds in here.items()]
    said += [f"{called}, {name}: {seconds:.3g} s" for name, seconds in stated.items()]
    return {
        "found": found,
        "paper": paper,
        "ratio": run.pair_ratio(SECONDS),
        "stated": stated,
        "claim": claim,
        "sharing": sharing(run),
        "fallbacks": fallbacks(run),
        "drawing": drawing(run, found, stated, called) if found else None,
        "values": "; ".join(said),
        "seeds": seeds(len(one.by_seed(SECONDS)) for one in found) if found else "",
    }
