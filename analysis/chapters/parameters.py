"""What matters in the search: parameter importances, and the objective against each parameter."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis import plots
from analysis.chapters import finalists
from analysis.chapters.search import n_trials, strip
from analysis.importance import (
    BESIDE,
    BEST_SHARE,
    EVALUATOR,
    MIN_COMPLETED,
    N_PERMUTATIONS,
    axis_of,
    importances,
    parameter_table,
    varied_parameters,
)
from analysis.load import Run
from analysis.phrases import digits, label_of, share, value_words, values_words
from analysis.plots import Drawing, Marks, Points
from analysis.settings import models_of
from study.folder import schema

IMPORTANCES: Final = "figure-importances"
SLICES: Final = "figure-slices"
HOLLOW: Final[dict[str, Any]] = {
    "marker": "o",
    "markerfacecolor": "none",
    "markeredgecolor": plots.MUTED,
    "linestyle": "none",
}
# Around trials that stand out; of two around one trial both are seen.
RINGS: Final[Mapping[str, dict[str, Any]]] = {
    "best": {"markeredgecolor": "#000000", "markersize": 8, "markeredgewidth": 1.3},
    "the reference's setting": {
        "markeredgecolor": "#c2185b",
        "markersize": 11.5,
        "markeredgewidth": 1.3,
    },
}
PANEL_POINTS: Final = 8
PANEL_INCHES: Final = 1.65  # the height of a panel
COLUMNS: Final = 2
GOLDEN: Final = 0.618034  # multiples of it, modulo 1, are spread evenly: a jitter without chance


def draw_importances(ax: Axes, data: pd.DataFrame, color: str) -> list[Points]:
    """A row a parameter: its share, hollow where it does not exceed what chance gives, and that.

    Args:
        ax: where to draw.
        data: of `analysis.importance.importances`.
        color: of the model.
    """
    rows = np.arange(len(data))
    beyond, off = data["share"] > data["chance"], data["chance"] > 1
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": color, "markersize": 6.5}
    mark: dict[str, Any] = {"color": "black", "linestyle": "none", "clip_on": False}
    bar = mark | {"marker": "|", "markersize": 15, "markeredgewidth": 1.6}
    ax.hlines(rows, 0, data["share"], color=color, linewidth=1.2)
    some = [
        Marks(dot, data["share"][beyond], rows[beyond], "more than chance"),
        Marks(
            dot | {"markerfacecolor": "white"}, data["share"][~beyond], rows[~beyond], "not more"
        ),
        Marks(bar, data["chance"][~off], rows[~off], "one in twenty exceeds this by chance"),
    ]
    if off.any():  # chance alone would give it more than all have together
        arrow = mark | {"marker": ">", "markersize": 5}
        some.append(Marks(arrow, np.ones(off.sum()), rows[off], "the same, beyond the axis"))
    points = plots.marks(ax, some)
    plots.rows_axis(ax, list(map(label_of, data["parameter"])))
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.set_xlabel("Share of the importance")
    plots.legend_above(ax, 1)
    return points


def draw_slice(
    ax: Axes, data: pd.DataFrame, parameter: str, color: str, ringed: Mapping[str, str]
) -> list[Points]:
    """The objective against one parameter, log axis, a mark a trial.

    Args:
        ax: where to draw.
        data: of `analysis.importance.parameter_table`.
        parameter: a column of the data.
        color: of the completed trials.
        ringed: ids of trials to ring, by a key of `RINGS`.
    """
    axis = axis_of(data[parameter])
    data = data.assign(x=places_of(data, parameter))
    known = data.dropna(subset="value")
    some = []
    for state, look in (
        (schema.PRUNED, HOLLOW | {"markersize": 3.6, "markeredgewidth": 0.8}),
        (
            schema.COMPLETED,
            {"marker": "o", "linestyle": "none", "color": color, "alpha": 0.75, "markersize": 4.2},
        ),
    ):
        its = known[known["state"] == state]
        label = state if len(its) or state == schema.COMPLETED else ""
        label = pruned_label(data) if label == schema.PRUNED else label
        texts = [_said(row, data) for _, row in its.iterrows()]
        some.append(Marks(look, its["x"], its["value"], label, texts))
    for name, trial_id in ringed.items():
        its = known[known["trial_id"] == trial_id]
        some.append(Marks(HOLLOW | RINGS[name] | {"zorder": 4}, its["x"], its["value"], name))
    points = plots.marks(ax, some)
    ax.set_yscale("log")
    ax.margins(0.1)
    lost = data[data["state"].isin((schema.DIVERGED, schema.FAILED))]
    strip(ax, lost.assign(label=""), {"": "#444444"})
    if axis == "categories":
        labels = [value_words(value) for value in sorted(data[parameter].dropna().unique())]
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_xticks(range(len(labels)), labels)
        ax.grid(visible=False, axis="x")
    elif axis == "log":
        plots.log_axis(ax.xaxis, 5)
    plots.log_axis(ax.yaxis, 6)
    ax.minorticks_off()
    ax.tick_params(labelsize=PANEL_POINTS)
    ax.set_ylabel(f"Validation MSE,\n{plots.MSE_UNIT}", fontsize=PANEL_POINTS)
    ax.set_xlabel(label_of(parameter), labelpad=2)
    return points


def _said(row: pd.Series, data: pd.DataFrame) -> str:
    """What is read at a trial's mark."""
    setting = values_words({name: row[name] for name in varied_parameters(data)})
    pruned = f"; pruned at epoch {row['epochs_completed']}" * (row["state"] == schema.PRUNED)
    return f"{row['trial_id']}: {digits(row['value'])}; {setting}{pruned}"


def pruned_label(data: pd.DataFrame) -> str:
    """What a pruned trial's mark stands for, with the epochs that these had."""
    epochs = data.loc[data["state"] == schema.PRUNED, "epochs_completed"].dropna()
    if epochs.empty:
        return "pruned: where it stopped"
    low, high = epochs.min(), epochs.max()
    when = f"epoch {low}" if low == high else f"epochs {low} to {high}"
    return f"pruned: value at {when}"


def places_of(data: pd.DataFrame, parameter: str) -> npt.NDArray[np.float64]:
    """Where each row of a `parameter_table` lies on the parameter's axis; categories fan out."""
    column = data[parameter]
    if axis_of(column) != "categories":
        return column.to_numpy(dtype=float, na_value=np.nan)
    number = {value: place for place, value in enumerate(sorted(column.dropna().unique()))}
    fan = 0.5 * ((np.arange(len(data)) * GOLDEN) % 1 - 0.5)
    places = column.map(number, na_action="ignore").astype("float64")
    return np.asarray(places.to_numpy(dtype=float) + fan)


def slices(run: Run, model: str, data: pd.DataFrame, color: str) -> Drawing | None:
    """The objective against each parameter that a model's search varied, a panel a parameter.

    None if nothing was varied, or no trial has a value.
    """
    parameters = varied_parameters(data)
    if not parameters or data["value"].isna().all():
        return None
    done = finalists.completed_search(run)
    done = done[done["model"] == model]
    ringed = {
        name: rows["trial_id"].iloc[0]
        for name, rows in zip(RINGS, (done, done[done["base"] == ""]), strict=True)
        if len(rows)
    }
    n_rows = math.ceil(len(parameters) / COLUMNS)
    points = []
    with plots.style():
        figure = plots.empty_figure(PANEL_INCHES * n_rows + 0.8)
        axes = figure.subplots(n_rows, COLUMNS, sharey=True, squeeze=False).ravel().tolist()
        for place, ax in enumerate(axes):
            if place >= len(parameters):
                ax.remove()
                continue
            points += draw_slice(ax, data, parameters[place], color, ringed)
            if place % COLUMNS:
                ax.set_ylabel("")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return Drawing(f"{SLICES}-{model}", figure, points, [], "point")


def chapter(run: Run) -> dict[str, Any]:
    """Importances and slices of each searched architecture."""
    models = []
    for model in models_of(run.trials[run.trials["group"] == schema.SEARCH]):
        data, found = parameter_table(run.trials, model), importances(run.trials, model)
        color = plots.looks_of(run.models)[model]["color"]
        one: dict[str, Any] = {"name": model, "n_trials": n_trials(run, model), "importances": None}
        if found is not None:
            with plots.style():
                figure, ax = plots.new_figure(1.1 + 0.34 * len(found))
                points = draw_importances(ax, found, color)
            one["importances"] = Drawing(f"{IMPORTANCES}-{model}", figure, points, [], "point")
            one["shares"] = ", ".join(
                f"{label_of(row['parameter'])} {share(row['share'])}"
                f" (chance: {share(row['chance']) if row['chance'] <= 1 else 'over 100 %'})"
                for _, row in found.iterrows()
            )
        parameters = varied_parameters(data)
        done = data[data["state"] == schema.COMPLETED].dropna(subset="value")
        best = done.nsmallest(1, "value").to_dict("records")
        same = [str(name) for name in data if name not in (*BESIDE, *parameters)]
        models.append(
            one
            | {
                "n": len(done),
                "slices": slices(run, model, data, color),
                "parameters": ", ".join(map(label_of, parameters)),
                "best": best[0]["value"] if best else None,
                "setting": values_words({n: best[0][n] for n in parameters}) if best else "",
                "pruned": schema.PRUNED in set(data["state"]),
                "fanned": any(axis_of(data[name]) == "categories" for name in parameters),
                "same": values_words({n: data[n].iloc[0] for n in same}) if len(data) else "",
            }
        )
    return {
        "models": models,
        "evaluator": EVALUATOR,
        "min_completed": MIN_COMPLETED,
        "n_permutations": N_PERMUTATIONS,
        "best_share": BEST_SHARE,
    }
