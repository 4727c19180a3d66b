"""The winners: each model's chosen setting, trained again on all training images and tested."""

from itertools import combinations
from typing import Any

import numpy as np

from analysis.chapters import finalists
from analysis.load import Run
from analysis.phrases import NO_VALUE, count, digits, mean_and_sd, seeds
from analysis.settings import CONV_NAME, DENSE_NAME, Estimate, Setting, ratio
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

    It is the finalist's mean over fresh seeds, or else that of the search trial with the same
    setting; None if the run has neither.
    """
    fresh = next((one for one in run.of(schema.FINALIST) if one.label == winner.label), None)
    if fresh is not None and (mean := fresh.mean()):
        return mean, fresh
    found = finalists.promised(run).get(winner.label)
    return Estimate(found.value, 1) if found else None, None


def rows(run: Run) -> list[list[str]]:
    """A row a winning setting, beside the untuned reference of its architecture or its model."""
    rows = []
    for one in winners(run):
        (value, fresh), n_seeds = chosen_by(run, one), str(len(one.by_seed()))
        names = (one.architecture, str(one.value("base")), one.label)
        beside = next((run.named[name] for name in names if name in run.named), None)
        mean = beside.mean() if beside else None
        untuned = (
            f"{beside.label}: {mean_and_sd(mean)} (n = {mean.n})" if beside and mean else NO_VALUE
        )
        of_seeds = f" (n = {count(value.n, 'fresh seed')})" if value and fresh else ""
        means = [mean_and_sd(one.mean(metric)) for metric in (schema.TRAIN_MSE, schema.TEST_MSE)]
        chosen = f"{mean_and_sd(value)}{of_seeds}"
        rows.append([one.architecture, one.whole, n_seeds, chosen, *means, untuned])
    return rows


def pairs(run: Run, models: list[str]) -> list[tuple[str, str]]:
    """The models to compare tuned: all pairs of up to three, or else each beside the best."""
    if len(models) <= 3:
        return list(combinations(models, 2))
    best = min(models, key=lambda model: _test_mse(run, model))
    return [(model, best) for model in models if model != best]


def _test_mse(run: Run, model: str) -> float:
    found = by_model(run)
    return float(found[model].by_seed().mean()) if model in found else np.inf


def tuned_sentence(run: Run) -> str:
    """Which model's winner is ahead: of conv and dense, or the best beside the next of others.

    "" if conv and dense have no winners of the same seeds.
    """
    found = by_model(run)
    top, bottom = schema.MODELS
    if not set(found) <= set(schema.MODELS):
        top, *others = sorted(found, key=lambda model: _test_mse(run, model))
        if not others:
            n = seeds([len(found[top].by_seed())])
            return f"Tuned, {top} has a test MSE of {digits(_test_mse(run, top))} ({n})."
        bottom = others[0]
    beside = ratio(found.get(top), found.get(bottom))
    return f"Tuned, {compared(top, beside, bottom)}." if beside else ""


def untuned_ratio(run: Run) -> Estimate | None:
    """The test MSE of the reference settings of conv and dense-512, paired by seed."""
    return ratio(run.named.get(CONV_NAME), run.named.get(DENSE_NAME))


def values(run: Run) -> dict[str, Any]:
    """What the template of the search says of the winners."""
    fresh = {chosen_by(run, one)[1] is not None for one in winners(run)}
    counts = [len(one.by_seed()) for one in (*winners(run), *run.reference)]
    how = "some" if len(fresh) > 1 else "all" if True in fresh else "none"
    return {"rows": rows(run), "fresh": how, "n_least": min(counts, default=0)}
