"""How sensitive the reference setting is: neighbours that differ from it in one factor.

They train on the search's images and are judged by the validation images, several seeds each, so
that an effect can be told from the spread over seeds.
"""

from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import plots
from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    digits,
    interval,
    label_of,
    mean_and_sd,
    share,
    state_words,
    value_words,
)
from analysis.plots import Drawing
from analysis.settings import Estimate, Setting
from study.folder import schema

SENSITIVITY: Final = "figure-sensitivity"
ROW_INCHES: Final = 0.24


def factor(one: Setting) -> tuple[str, Any]:
    """What a neighbour changes: a hyperparameter and its value; ("", None) for the reference."""
    if one.is_reference:
        return "", None
    return next(iter(one.differs.items()), ("hidden_units", one.value("hidden_units")))


def factor_words(one: Setting) -> str:
    """What a neighbour changes, in words: "learning rate 2"."""
    name, value = factor(one)
    return f"{label_of(name).lower()} {value_words(value)}" if name else "the reference"


def neighbours(run: Run, model: str) -> list[Setting]:
    """A model's neighbours on the search's images, by factor and value, the reference first."""
    found = [s for s in run.of(schema.NEIGHBOUR, model) if s.split == schema.SEARCH_SPLIT]
    names = ["", *(p.name for p in schema.hyperparameters_of(model))]
    return sorted(found, key=lambda one: (names.index(factor(one)[0]), factor(one)[1]))


def spread_of(run: Run, model: str) -> float | None:
    """The relative sd of a model's reference over seeds, on the search's images.

    None if fewer than two seeds of it completed among the neighbours, or all with an MSE of 0.
    """
    mean = next((one.mean() for one in neighbours(run, model) if one.is_reference), None)
    return None if mean is None or mean.sd is None or not mean.mean else mean.sd / mean.mean


def exceeds(ratio: Estimate | None, spread: float | None) -> bool | None:
    """Whether an effect exceeds the reference's spread over seeds; None for too few seeds."""
    if ratio is None or spread is None or ratio.low is None:
        return None
    return ratio.excludes(1) and not 1 / (1 + spread) <= ratio.mean <= 1 + spread


def _lost(one: Setting) -> list[str]:
    """How many trials have no value: "3 diverged"."""
    return [f"{n} {state_words(s)}" for s, n in one.states.items() if s != schema.COMPLETED]


def rows(run: Run, model: str) -> list[list[str]]:
    """The reference and each neighbour of a model."""
    spread, rows = spread_of(run, model), []
    for one in neighbours(run, model):
        value = interval(one.ratio())
        beyond = value_words(exceeds(one.ratio(), spread))
        if one.is_reference:
            value = f"1: {mean_and_sd(one.mean())} (n = {len(one.by_seed())})"
            beyond = NO_VALUE if spread is None else f"sd ÷ mean {share(spread)}"
        rows.append([factor_words(one), value, beyond, ", ".join(_lost(one)) or NO_VALUE])
    return rows


def drawing(run: Run, model: str) -> Drawing | None:
    """The ratio of each neighbour's validation MSE to the reference's; None if none has one."""
    found = [one for one in neighbours(run, model) if not one.is_reference]
    ratios = [one.ratio() or Estimate(np.nan, 0) for one in found]
    if not sum(ratio.n for ratio in ratios):
        return None
    labels = {"label": list(map(factor_words, found)), "kind": "neighbours"}
    data = pd.DataFrame([vars(ratio) for ratio in ratios]).assign(**labels)
    beside = [
        ", ".join([f"n = {ratio.n}"] * (ratio.n > 0 or not _lost(one)) + _lost(one))
        for one, ratio in zip(found, ratios, strict=True)
    ]
    factors, spread = [factor(one)[0] for one in found], spread_of(run, model)
    breaks = [n for n in range(1, len(found)) if factors[n] != factors[n - 1]]
    ends = [1 + spread, 1 / (1 + spread)] if spread else []
    figure, ax = plots.new_figure(1.3 + ROW_INCHES * len(found))
    look = {"neighbours": plots.looks_of(run.models)[model]}
    always = (1.0, *ends)
    points = plots.forest(ax, data, look, always=always, beside=beside, breaks=breaks)
    if ends:
        band = ax.axvspan(*ends, color="#c4c4c4", alpha=0.8, linewidth=0, zorder=0.5)
        band.set_label("the reference's spread over seeds (sd)")
    ax.set_xlabel("Validation MSE ÷ the reference's, log axis")
    plots.legend_above(ax, 1)
    return Drawing(f"{SENSITIVITY}-{model}", figure, points, by="point")


def chapter(run: Run) -> dict[str, Any]:
    """What changing one factor of the reference does, for each architecture."""
    group, models = run.trials[run.trials["group"] == schema.NEIGHBOUR], []
    for model in run.models:
        found = neighbours(run, model)
        ratios = [(ratio.mean, factor_words(one)) for one in found if (ratio := one.ratio())]
        ends = [*dict.fromkeys((min(ratios), max(ratios)))] if ratios else []
        models.append(
            {
                "name": model,
                "rows": rows(run, model),
                "drawing": drawing(run, model),
                "n": sum(len(one.by_seed()) for one in found if one.is_reference),
                "n_neighbours": sum(not one.is_reference for one in found),
                "spread": spread_of(run, model),
                "n_epochs": max((one.epochs for one in found), default=0),
                "ends": " and ".join(f"{words} ({digits(mean)})" for mean, words in ends),
            }
        )
    n_other = int((group["split"] != schema.SEARCH_SPLIT).sum())
    return {"models": models, "any": len(group) > 0, "n_other": n_other}
