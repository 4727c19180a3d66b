"""How sensitive the reference setting is: neighbours that differ from it in one factor.

They train on the search's images and are judged by the validation images, several seeds each, so
that an effect can be told from the spread over seeds.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.parts import NO_VALUE, Chapter, Figures, Heading, Part, Table, Text
from analysis.chapters.search import SMALL_POINTS
from analysis.chapters.settings import REPORT_SETTING, has_setting
from analysis.figures import DARK, LOOKS
from analysis.load import Run
from analysis.statistics import Estimate, mean_over_seeds, ratio_over_seeds
from analysis.words import (
    count,
    digits,
    factor_value,
    interval,
    mean_and_sd,
    parameter_label,
    rests_on,
    setting_value,
    share,
)
from study.folder import schema

SENSITIVITY: Final = "figure-sensitivity"
ROW_INCHES: Final = 0.24
COLUMNS: Final = ("factor", "value", "mean", "low", "high", "n", *schema.STATES, "exceeds")
# What distinguishes one setting of an architecture from another, as columns of the tables.
FACTORS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {model: tuple(p.name for p in schema.hyperparameters_of(model)) for model in schema.MODELS}
)
NOTE: Final = (
    "Neighbour trials change one factor of the reference and are judged, like it, by the validation"
    " MSE of the search's images; the test set is not used. One exceeds the seed spread if its"
    " ratio lies outside a factor of 1 + the reference's relative standard deviation and its"
    " interval excludes 1. Trials that diverged or failed have no value: a mean beside them is of"
    " the seeds that did not."
)


def neighbour_trials(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """A model's neighbour trials on the search's images, one a setting and seed."""
    kept = trials[
        (trials["group"] == schema.NEIGHBOUR)
        & (trials["model"] == model)
        & (trials["split"] == schema.SEARCH_SPLIT)
    ]
    return kept.drop_duplicates([*FACTORS[model], "seed"])


def reference_setting(neighbours: pd.DataFrame, model: str) -> dict[str, Any] | None:
    """The setting from which every other one of the model's neighbours differs in one factor.

    Where few neighbours leave several such settings, it is the report's.

    Returns:
        Values by column of `FACTORS`; None if there is no such setting, or no telling.
    """
    factors = list(FACTORS[model])
    settings = neighbours[factors].drop_duplicates().astype(object)
    values = settings.to_numpy()
    n_differing = (values[:, None] != values[None]).sum(axis=2)
    centres = settings[(n_differing <= 1).all(axis=1)]
    if len(centres) > 1:
        centres = centres[has_setting(neighbours.loc[centres.index], REPORT_SETTING[model])]
    if len(centres) != 1:
        return None
    return {str(name): value for name, value in centres.iloc[0].items()}


def reference_spread(trials: pd.DataFrame, model: str) -> Estimate | None:
    """The validation MSE of a model's reference among the neighbours; None if none completed."""
    neighbours = neighbour_trials(trials, model)
    setting = reference_setting(neighbours, model)
    if setting is None:
        return None
    return mean_over_seeds(_objective_by_seed(neighbours[has_setting(neighbours, setting)]))


def relative_spread(reference: Estimate | None) -> float | None:
    """Sample standard deviation ÷ mean; None for fewer than two seeds."""
    return None if reference is None or reference.sd is None else reference.sd / reference.mean


def relative_spreads(trials: pd.DataFrame) -> dict[str, float | None]:
    """`relative_spread` of each model's reference among the neighbours."""
    return {model: relative_spread(reference_spread(trials, model)) for model in schema.MODELS}


def sensitivity(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """What changing one factor does to the validation MSE of an architecture's reference.

    Returns:
        A row a changed value, with the columns factor (of `FACTORS`), value, mean, low, high and n
        (the geometric mean of the ratios to the reference's validation MSE, paired by seed, with
        its 95 % t-interval; missing if no pair completed), the number of trials in each state, and
        exceeds: whether the ratio lies outside a factor of 1 + the reference's relative spread
        over seeds and its interval excludes 1; missing for fewer than two seeds.
    """
    neighbours = neighbour_trials(trials, model)
    setting = reference_setting(neighbours, model)
    rows = []
    if setting is not None:
        differs = {name: neighbours[name] != value for name, value in setting.items()}
        reference = _objective_by_seed(neighbours[~pd.DataFrame(differs).any(axis=1)])
        spread = relative_spread(mean_over_seeds(reference))
        for factor, differing in differs.items():
            for value, changed in neighbours[differing].groupby(factor):
                states = changed["state"].value_counts()
                ratio = ratio_over_seeds(_objective_by_seed(changed), reference)
                row = {"factor": factor, "value": value, "n": 0}
                row |= {state: int(states.get(state, 0)) for state in schema.STATES}
                if ratio is not None:
                    row |= {"mean": ratio.mean, "low": ratio.low, "high": ratio.high, "n": ratio.n}
                    row["exceeds"] = _exceeds(ratio, spread)
                rows.append(row)
    numbers = dict.fromkeys(("mean", "low", "high"), "float64")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"value": "object", "exceeds": "boolean", **numbers})


def _objective_by_seed(of_setting: pd.DataFrame) -> pd.Series:
    return of_setting[of_setting["state"] == schema.COMPLETED].set_index("seed")[schema.OBJECTIVE]


def _exceeds(ratio: Estimate, spread: float | None) -> bool | None:
    if spread is None or ratio.low is None:
        return None
    outside = not 1 / (1 + spread) <= ratio.mean <= 1 + spread
    return outside and not ratio.lowest <= 1 <= ratio.highest


def plot_sensitivity(
    data: pd.DataFrame, ax: Axes, spread: float | None = None, color: str = DARK
) -> Axes:
    """The ratio of each neighbour's validation MSE to the reference's, with its interval, log axis.

    Args:
        data: of `sensitivity`.
        ax: where to draw.
        spread: of the reference over seeds, relative; drawn as a band around 1.
        color: of the marks.
    """
    factors, values = data["factor"].tolist(), data["value"].tolist()
    labels = [
        f"{parameter_label(f)} {factor_value(v)}" for f, v in zip(factors, values, strict=True)
    ]
    ends = [1 + spread, 1 / (1 + spread)] if spread else []
    look = {"neighbours": {"color": color, "marker": "o", "markersize": 5}}
    figures.plot_forest(ax, data.assign(label=labels, kind="neighbours"), look, [1.0, *ends])
    if spread:
        band = ax.axvspan(ends[1], ends[0], color="#c4c4c4", alpha=0.8, linewidth=0, zorder=0.5)
        band.set_label("the reference's spread over seeds (sd)")
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(range(len(data)), [counts_beside(row) for _, row in data.iterrows()])
    beside.tick_params(length=0, labelsize=SMALL_POINTS)
    beside.spines[:].set_visible(False)
    for last in range(1, len(factors)):
        if factors[last] != factors[last - 1]:
            ax.axhline(last - 0.5, color="#d2d2d2", linewidth=0.6)
    ax.set_xlabel("Validation MSE ÷ the reference's, log axis")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    return ax


def counts_beside(row: pd.Series) -> str:
    """The pairs and the trials without a value of a row of `sensitivity`."""
    rest = [
        f"{row[state]} {state}"
        for state in (schema.DIVERGED, schema.FAILED, schema.PRUNED)
        if row[state]
    ]
    return ", ".join([*([f"n = {row['n']}"] if row["n"] or not rest else []), *rest])


def sensitivity_table(trials: pd.DataFrame, model: str) -> Table:
    """The reference and each neighbour of a model."""
    rows = []
    reference = reference_spread(trials, model)
    spread = relative_spread(reference)
    if reference is not None:
        value = f"1: {mean_and_sd(reference)} (n = {reference.n})"
        by_seed = NO_VALUE if spread is None else f"sd ÷ mean {share(spread)}"
        rows.append(("the reference", value, by_seed, NO_VALUE))
    for _, row in sensitivity(trials, model).iterrows():
        ratio = None
        if row["n"]:
            ends = (None if pd.isna(row[end]) else row[end] for end in ("low", "high"))
            ratio = Estimate(row["mean"], row["n"], None, *ends)
        without = [
            f"{row[state]} {'not ended' if state == schema.RUNNING else state}"
            for state in schema.STATES
            if state != schema.COMPLETED and row[state]
        ]
        rows.append(
            (
                f"{parameter_label(row['factor']).lower()} {factor_value(row['value'])}",
                interval(ratio),
                setting_value(row["exceeds"]),
                ", ".join(without) or NO_VALUE,
            )
        )
    header = ("Setting", "Validation MSE ÷ the reference's", "Exceeds the seed spread")
    return Table((*header, "Without a value"), rows)


def chapter(run: Run) -> Chapter:
    """What changing one factor of the reference does, for each architecture."""
    tables = {model: sensitivity_table(run.trials, model) for model in schema.MODELS}
    tables = {model: table for model, table in tables.items() if table.rows}
    content: list[Part] = []
    if tables:
        with figures.style():
            drawn = [figure for model in schema.MODELS if (figure := _draw(run, model))]
        content = [Text(NOTE, soft=True), Figures(drawn)]
        for model, table in tables.items():
            content += [Heading(f"Neighbours of the {model} reference"), table]
    title = "Sensitivity: one factor changed at a time"
    return Chapter("sensitivity", title, content, _gaps(run.trials))


def _draw(run: Run, model: str) -> parts.Figure | None:
    data = sensitivity(run.trials, model)
    if data["n"].sum() == 0:
        return None
    reference = reference_spread(run.trials, model)
    spread = relative_spread(reference)
    figure, ax = figures.new_figure(1.3 + ROW_INCHES * len(data))
    plot_sensitivity(data, ax, spread, LOOKS[model]["color"])
    rows = data.dropna(subset="mean").sort_values("mean")
    ends = " and ".join(
        f"{parameter_label(row['factor']).lower()} {factor_value(row['value'])}"
        f" ({digits(row['mean'])})"
        for _, row in rows.iloc[[0, -1] if len(rows) > 1 else [0]].iterrows()
    )
    n = count(reference.n, "seed") if reference else "no seed"
    band = f"Grey band: its relative sd, {share(spread)}." if spread else "Its spread is not known."
    return figures.finish(
        figure,
        f"{SENSITIVITY}-{model}",
        f"{model}: one factor of the reference changed at a time",
        f"Validation MSE of {count(len(data), 'neighbour')} of the {model} reference ÷ its own;"
        f" least and greatest: {ends}.",
        f"Reference: n = {n}. {band} Arrows: an interval goes on."
        f" {count(neighbour_trials(run.trials, model)['epochs'].max(), 'epoch')} at most.",
        rests_on(run),
    )


def _gaps(trials: pd.DataFrame) -> list[str]:
    group = trials[trials["group"] == schema.NEIGHBOUR]
    if group.empty:
        return ["No neighbour trials: how sensitive the reference is to each factor is not known."]
    gaps = []
    n_other = int((group["split"] != schema.SEARCH_SPLIT).sum())
    if n_other:
        gaps.append(
            f"{count(n_other, 'neighbour trial')} trained on all images, without validation MSE:"
            " not compared."
        )
    for model in schema.MODELS:
        rows = neighbour_trials(trials, model)
        if rows.empty and (trials["model"] == model).any():
            gaps.append(f"No neighbour trials of {model} on the search's images.")
        elif rows.empty:
            continue  # no part of the study
        elif reference_setting(rows, model) is None:
            gaps.append(
                f"The neighbours of {model} have no setting in common from which each differs in"
                " one factor: not compared."
            )
        elif reference_spread(trials, model) is None:
            gaps.append(
                f"The unchanged reference among the neighbours of {model} has not completed: there"
                " is nothing to compare them with."
            )
    return gaps
