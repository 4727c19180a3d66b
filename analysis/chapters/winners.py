"""The winners: each model's chosen setting, trained again on all training images and tested."""

from itertools import combinations
from typing import Any

import numpy as np

from analysis.chapters import finalists
from analysis.load import Run
from analysis.phrases import count, listed
from analysis.settings import Estimate, Setting, ratio
from analysis.verdicts import compared
from study.folder import schema


def winners(run: Run) -> list[Setting]:
    """The winning settings that were tested, each model's own first: the one that was chosen.

    Should the run hold several of a model, a finalist comes before a setting that was none, and a
    lesser validation MSE before a greater.
    """

    def standing(one: Setting) -> tuple[int, bool, float]:
        value, fresh = chosen_by(run, one)
        last = fresh is None or bool(fresh.lost)
        return run.models.index(one.model), last, value.mean if value else np.inf

    found = [one for one in run.of(schema.WINNER) if one.split == schema.FULL_SPLIT and one.mean()]
    return sorted(found, key=standing)


def by_model(run: Run) -> dict[str, Setting]:
    """The one winning setting of each model."""
    return {one.model: one for one in reversed(winners(run))}


def chosen_by(run: Run, winner: Setting) -> tuple[Estimate | None, Setting | None]:
    """The validation MSE by which a winner was chosen, and the finalist that it was, if any.

    It is the finalist's mean over fresh seeds, or else that of the search trial of the setting.
    """
    fresh = next((one for one in run.of(schema.FINALIST) if one.label == winner.label), None)
    if fresh is not None and (mean := fresh.mean()):
        return mean, fresh
    found = finalists.promised(run).get(winner.label)
    return Estimate(found.value, 1) if found else None, None


def untuned(run: Run, one: Setting) -> Setting | None:
    """The reference of a winner's architecture, or else of its model."""
    names = (one.architecture, str(one.value("base")), one.label)
    return next((run.named[name] for name in names if name in run.named), None)


def pairs(run: Run, models: list[str]) -> list[tuple[str, str]]:
    """The models to compare tuned: all pairs of up to three, or else each beside the best."""
    if len(models) <= 3:
        return list(combinations(models, 2))
    best = min(models, key=lambda model: _test_mse(run, model))
    return [(model, best) for model in models if model != best]


def _test_mse(run: Run, model: str) -> float:
    found = by_model(run)
    return float(found[model].by_seed().mean()) if model in found else np.inf


def how_tuned(run: Run) -> str:
    """By what and with how much: "Tuned by tpe with 6 trials of each model"."""
    trials = run.searched
    if trials.empty:
        return "Tuned"
    sizes = trials.groupby(["model", "seed"]).size()
    least, most = int(sizes.min()), int(sizes.max())
    n = count(most, "trial") if least == most else f"{least} to {most} trials"
    n_searches = trials["seed"].nunique()
    each = f" in each of {n_searches} searches" if n_searches > 1 else ""
    by = listed(f"{s} search" if s in ("random", "grid") else s for s in run.samplers)
    return f"Tuned by {by} with {n} of each model{each}"


def tuned_sentence(run: Run) -> str:
    """Which model's winner is ahead: of conv and dense, or the best beside the next of others."""
    found = by_model(run)
    models = [schema.CONV, schema.DENSE]
    if not set(found) <= set(models):
        models = [*sorted(found, key=lambda model: _test_mse(run, model)), ""]
    first, second = models[:2]
    beside = ratio(found.get(first), found.get(second))
    if not beside:
        return ""
    said = f"{how_tuned(run)}, {compared(first, beside, second)}."
    fresh = ratio(chosen_by(run, found[first])[1], chosen_by(run, found[second])[1])
    what = compared(first, fresh, second, "validation MSE") if fresh else ""
    return f"{said} Over fresh seeds of the chosen settings {what}." if what else said


def values(run: Run) -> dict[str, Any]:
    """What the template of the search says of the winners."""
    found = [(one, *chosen_by(run, one), untuned(run, one)) for one in winners(run)]
    fresh = {finalist is not None for _, _, finalist, _ in found}
    counts = [len(one.by_seed()) for one in (*winners(run), *run.reference)]
    how = "some" if len(fresh) > 1 else "all" if True in fresh else "none"
    return {"rows": found, "fresh": how, "n_least": min(counts, default=0)}
