"""What matters in the search: parameter importances, and the objective against each parameter."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from analysis import importance, plots
from analysis.chapters.search import n_trials, strip
from analysis.importance import BESIDE, axis_of, parameter_table, varied_parameters
from analysis.load import Run
from analysis.phrases import digits, label_of, share, value_words, values_words
from analysis.plots import Drawing, Look, Marks, Points
from analysis.settings import models_of
from study.folder import schema

IMPORTANCES: Final = "figure-importances"
SLICES: Final = "figure-slices"
SMALL: Final[Look] = {"marker": "o", "markersize": 4.2}
HOLLOW: Final[Look] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": plots.MUTED}
# Around trials that stand out; of two around one trial both are seen.
RINGS: Final[Mapping[str, Look]] = {
    "best": {"markeredgecolor": "black", "markersize": 8, "markeredgewidth": 1.3},
    "the reference's setting": {"markeredgecolor": "#c2185b", "markersize": 11.5},
}
PANEL_POINTS: Final = 8
PANEL_INCHES: Final = 1.65  # the height of a panel
COLUMNS: Final = 2
GOLDEN: Final = 0.618034  # multiples of it, modulo 1, are spread evenly: a jitter without chance


def draw_importances(ax: Axes, data: pd.DataFrame, color: str) -> list[Points]:
    """A row a parameter: its share, hollow where it does not exceed what chance gives, and that.

    `data` is of `analysis.importance.importances`.
    """
    given, chance, rows = data["share"], data["chance"], np.arange(len(data))
    beyond, off = given > chance, chance > 1
    dot: Look = {"marker": "o", "color": color, "markersize": 6.5}
    arrow: Look = {"marker": ">", "color": "black", "markersize": 5, "clip_on": False}
    ax.hlines(rows, 0, given, color=color, linewidth=1.2)
    some = [
        Marks(dot, given[beyond], rows[beyond], "more than chance"),
        Marks(dot | {"markerfacecolor": "white"}, given[~beyond], rows[~beyond], "not more"),
        Marks(plots.TICK | {"color": "black"}, chance[~off], rows[~off], "one in twenty by chance"),
    ]
    if off.any():  # chance alone would give it more than all have together
        some.append(Marks(arrow, np.ones(off.sum()), rows[off], "the same, beyond the axis"))
    points = plots.marks(ax, some)
    plots.rows_axis(ax, list(map(label_of, data["parameter"])))
    ax.set(xlim=(0, 1), xlabel="Share of the importance")
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    plots.legend_above(ax, 1)
    return points


def draw_slice(
    ax: Axes, data: pd.DataFrame, parameter: str, color: str, ringed: Mapping[str, str]
) -> list[Points]:
    """The objective against one parameter of a `parameter_table`, log axis, a mark a trial.

    `color` is of the completed trials; `ringed` are ids of trials to ring, by a key of `RINGS`.
    """
    data = data.assign(x=places_of(data, parameter), label="")
    known, varied, some = data.dropna(subset="value"), varied_parameters(data), []
    looks = {schema.PRUNED: HOLLOW | {"markersize": 3.6}}
    looks |= {schema.COMPLETED: SMALL | {"color": color, "alpha": 0.75}}
    for state, look in looks.items():
        its, texts = known[known["state"] == state], []
        for _, row in its.iterrows():
            words = values_words({name: row[name] for name in varied})
            stopped = f"; pruned at epoch {row['epochs_completed']}" * (state == schema.PRUNED)
            texts.append(f"{row['trial_id']}: {digits(row['value'])}; {words}{stopped}")
        label = pruned_label(its) if state == schema.PRUNED and len(its) else state
        some.append(Marks(look, its["x"], its["value"], label if len(its) else "", texts))
    for name, trial_id in ringed.items():
        its = known[known["trial_id"] == trial_id]
        some.append(Marks(HOLLOW | RINGS[name] | {"zorder": 4}, its["x"], its["value"], name))
    points = plots.marks(ax, some)
    plots.log_scale(ax.yaxis)
    ax.margins(0.1)
    strip(ax, data[data["state"].isin((schema.DIVERGED, schema.FAILED))], {"": "#444444"})
    if (axis := axis_of(data[parameter])) == "categories":
        labels = [value_words(value) for value in sorted(data[parameter].dropna().unique())]
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_xticks(range(len(labels)), labels)
        ax.grid(visible=False, axis="x")
    elif axis == "log":
        plots.log_axis(ax.xaxis)
    plots.log_axis(ax.yaxis)
    ax.minorticks_off()
    ax.tick_params(labelsize=PANEL_POINTS)
    ax.set_ylabel(f"Validation MSE,\n{plots.MSE_UNIT}", fontsize=PANEL_POINTS)
    ax.set_xlabel(label_of(parameter), labelpad=2)
    return points


def pruned_label(pruned: pd.DataFrame) -> str:
    """What a pruned trial's mark stands for, with the epochs that these had."""
    low, high = pruned["epochs_completed"].min(), pruned["epochs_completed"].max()
    return f"pruned: value at {f'epoch {low}' if low == high else f'epochs {low} to {high}'}"


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
    """The objective against each parameter that was varied, a panel each; None without values."""
    parameters = varied_parameters(data)
    if not parameters or data["value"].isna().all():
        return None
    done = run.completed_search.query("model == @model")
    of_rings = zip(RINGS, (done, done[done["base"] == ""]), strict=True)
    ringed = {name: rows["trial_id"].iloc[0] for name, rows in of_rings if len(rows)}
    n_rows, points = math.ceil(len(parameters) / COLUMNS), []
    figure = plots.empty_figure(PANEL_INCHES * n_rows + 0.8)
    axes = figure.subplots(n_rows, COLUMNS, sharey=True, squeeze=False).ravel().tolist()
    for ax in axes[len(parameters) :]:
        ax.remove()
    for place, (ax, parameter) in enumerate(zip(axes, parameters, strict=False)):
        points += draw_slice(ax, data, parameter, color, ringed)
        if place % COLUMNS:
            ax.set_ylabel("")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
    return Drawing(f"{SLICES}-{model}", figure, points, by="point")


def bars(run: Run, model: str, color: str) -> dict[str, Any]:
    """The figure of a model's importances and what it shows in words; empty without any."""
    found = importance.importances(run.trials, model)
    if found is None:
        return {}
    figure, ax = plots.new_figure(1.1 + 0.34 * len(found))
    points = draw_importances(ax, found, color)
    said = [
        f"{label_of(name)} {share(its)} (chance: {share(chance) if chance <= 1 else 'over 100 %'})"
        for name, its, chance in found.itertuples(index=False)
    ]
    drawing = Drawing(f"{IMPORTANCES}-{model}", figure, points, by="point")
    return {"importances": drawing, "shares": ", ".join(said)}


def chapter(run: Run) -> dict[str, Any]:
    """Importances and slices of each searched architecture."""
    models = []
    for model in models_of(run.searched):
        data, color = parameter_table(run.trials, model), plots.looks_of(run.models)[model]["color"]
        parameters = varied_parameters(data)
        done = data[data["state"] == schema.COMPLETED].dropna(subset="value")
        same = [str(name) for name in data if name not in (*BESIDE, *parameters)]
        one = {
            "name": model,
            "n": len(done),
            "n_trials": n_trials(run, model),
            "slices": slices(run, model, data, color),
            "parameters": ", ".join(map(label_of, parameters)),
            "best": [
                (row["value"], values_words({n: row[n] for n in parameters}))
                for row in done.nsmallest(1, "value").to_dict("records")
            ],
            "pruned": schema.PRUNED in set(data["state"]),
            "fanned": any(axis_of(data[name]) == "categories" for name in parameters),
            "same": values_words({n: data[n].iloc[0] for n in same}) if len(data) else "",
        }
        models.append({"importances": None} | one | bars(run, model, color))
    return {"models": models, "by": importance}
