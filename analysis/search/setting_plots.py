"""Draws the searched settings: the objective against each parameter, and all of them together.

Each function takes data and an `Axes` and returns the `Axes`. Pruned trials are drawn apart, hollow
and muted where they were stopped; diverged and failed ones are marks without a value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import (
    DARK,
    MSE_UNIT,
    MUTED,
    PADDING,
    WIDTH_INCHES,
    log_axis,
    log_ticks,
    plain,
)
from analysis.search.plots import STATE_MARKERS
from analysis.search.results import LOG_PARAMETERS
from analysis.words import digits, factor_value, parameter_label
from study.folder.schema import COMPLETED, DIVERGED, FAILED, PRUNED

NO_VALUE: Final = (DIVERGED, FAILED)
HOLLOW: Final[dict[str, Any]] = {
    "marker": "o",
    "markerfacecolor": "none",
    "markeredgecolor": MUTED,
    "linestyle": "none",
}
# Around trials that stand out; of two around one trial both are seen.
BEST, AT_REFERENCE = "best", "the reference's setting"
RINGS: Final[Mapping[str, dict[str, Any]]] = {
    BEST: {"markeredgecolor": "#000000", "markersize": 8, "markeredgewidth": 1.3},
    AT_REFERENCE: {"markeredgecolor": "#c2185b", "markersize": 11.5, "markeredgewidth": 1.3},
}
TINY_POINTS: Final = 6.5  # nine axes side by side have no room for more
PANEL_POINTS: Final = 8
PANEL_INCHES: Final = 1.65  # the height of a panel
COLUMNS: Final = 2
GOLDEN: Final = 0.618034  # multiples of it, modulo 1, are spread evenly: a jitter without chance


def new_panels(n: int) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with n panels that share the y axis, two a row."""
    rows = math.ceil(n / COLUMNS)
    figure = Figure(figsize=(WIDTH_INCHES, PANEL_INCHES * rows + 0.8))
    figure.set_layout_engine("constrained", **PADDING)
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).ravel().tolist()
    for ax in axes[n:]:
        ax.remove()
    return figure, axes[:n]


def plot_slice(
    data: pd.DataFrame,
    ax: Axes,
    parameter: str,
    color: str = DARK,
    marked: Mapping[str, str] | None = None,
) -> Axes:
    """The objective against one parameter, log axis, a mark a trial.

    Args:
        data: of `analysis.search.results.parameter_table`.
        ax: where to draw.
        parameter: a column of the data.
        color: of the completed trials.
        marked: ids of trials to ring, by a key of `RINGS`.
    """
    places, labels = _places(data[parameter])
    if labels:
        places = places + 0.5 * ((np.arange(len(data)) * GOLDEN) % 1 - 0.5)
    state = data["state"].to_numpy()
    value = data["value"].to_numpy(dtype=float)
    pruned, completed = state == PRUNED, state == COMPLETED
    ax.plot(places[pruned], value[pruned], markersize=3.6, markeredgewidth=0.8, **HOLLOW)
    ax.plot(places[completed], value[completed], "o", color=color, alpha=0.75, markersize=4.2)
    for label, trial_id in (marked or {}).items():
        found = (data["trial_id"] == trial_id).to_numpy()
        ax.plot(
            places[found],
            value[found],
            **HOLLOW | RINGS[label],
            zorder=4,
        )
    low, high = np.nanmin(value), np.nanmax(value)
    margin = (high / low) ** 0.08 * 1.02
    without_value = np.isin(state, NO_VALUE).any()
    room = (high / low) ** 0.15 if without_value else 1.0  # for the marks at the bottom
    ax.set(yscale="log", ylim=(low / margin / room, high * margin))
    for name in NO_VALUE:
        ax.plot(
            places[state == name],
            np.full((state == name).sum(), 0.06),
            STATE_MARKERS[name],
            color="#444444",
            markersize=3.6,
            transform=ax.get_xaxis_transform(),
        )
    if labels:
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_xticks(range(len(labels)), labels)
        ax.grid(visible=False, axis="x")
    else:
        ax.margins(x=0.1)
        ax.set_xscale("log")
        log_axis(ax.xaxis, 5)
    log_axis(ax.yaxis, 6)
    ax.minorticks_off()
    ax.tick_params(labelsize=PANEL_POINTS)
    ax.set_ylabel(f"Validation MSE,\n{MSE_UNIT}", fontsize=PANEL_POINTS)
    ax.set_xlabel(parameter_label(parameter), labelpad=2)
    return ax


def slice_legend(data: pd.DataFrame, color: str, marked: Iterable[str]) -> list[Line2D]:
    """What the marks of `plot_slice` mean.

    Args:
        data: of `analysis.search.results.parameter_table`.
        color: of the completed trials.
        marked: keys of `RINGS`.
    """
    states = set(data["state"])
    handles = [Line2D([], [], color=color, marker="o", linestyle="none", label=COMPLETED)]
    if PRUNED in states:
        handles.append(Line2D([], [], **HOLLOW, label=pruned_label(data)))
    handles += [Line2D([], [], **HOLLOW | RINGS[label], label=label) for label in marked]
    handles += [
        Line2D(
            [],
            [],
            color="#444444",
            marker=STATE_MARKERS[state],
            linestyle="none",
            label=f"{state}: no value",
        )
        for state in NO_VALUE
        if state in states
    ]
    return handles


def pruned_label(data: pd.DataFrame) -> str:
    """What a pruned trial's mark stands for, with the epochs that these had."""
    epochs = data.loc[data["state"] == PRUNED, "epochs_completed"].dropna()
    if epochs.empty:
        return "pruned: where it stopped"
    low, high = epochs.min(), epochs.max()
    when = f"epoch {low}" if low == high else f"epochs {low} to {high}"
    return f"pruned: value at {when}"


def plot_parallel(
    data: pd.DataFrame, ax: Axes, parameters: Sequence[str], color_map: str = "Blues"
) -> Axes:
    """A line a trial through its parameters to its objective; darker completed ones are better.

    Pruned trials are thin, dashed and muted, and end on an axis of their own at the value they were
    stopped at; diverged and failed ones are dotted and end before the objective: they have none.

    Args:
        data: of `analysis.search.results.parameter_table`.
        ax: where to draw.
        parameters: columns of the data.
        color_map: matplotlib's name of a sequential one.
    """
    coordinates = []
    for number, name in enumerate(parameters):
        places, labels = _places(data[name])
        if labels:
            scale = _unit(np.arange(len(labels)).astype(float), 0, len(labels) - 1)
            ticks = list(zip(scale, labels, strict=True))
            # Lines of a category fan out a little, evenly and without chance.
            jitter = 0.05 * ((np.arange(len(data)) * GOLDEN) % 1 - 0.5)
            coordinates.append(_unit(places, 0, len(labels) - 1) + jitter)
        else:
            coordinates.append(_log_unit(places))
            ticks = _log_labels(places)
        _coordinate(ax, number, ticks)
    value = data["value"].to_numpy(dtype=float)
    state = data["state"].to_numpy()
    completed = np.flatnonzero((state == COMPLETED) & np.isfinite(value))
    pruned = np.flatnonzero((state == PRUNED) & np.isfinite(value))
    stack = np.column_stack(coordinates)
    x = np.arange(len(parameters))
    titles = [parameter_label(name).replace(" ", "\n").replace("1\n", "1 ") for name in parameters]
    titles.append("Val.\nMSE")
    _coordinate(ax, len(x), _log_labels(value[completed]))
    if len(pruned):
        titles.append("the same,\npruned")
        _coordinate(ax, len(x) + 1, _log_labels(value[pruned]), MUTED)
    look: dict[str, Any] = {"color": MUTED, "linewidth": 0.6, "alpha": 0.6}
    stopped_at = _log_unit(value[pruned])
    for row, height in zip(pruned, stopped_at, strict=True):
        ends = [*x, len(x) + 1], [*stack[row], height]
        ax.plot(*ends, linestyle=(0, (4, 3)), **look)
        ax.plot(ends[0][-1:], ends[1][-1:], markersize=3.2, markeredgewidth=0.7, **HOLLOW)
    for row in np.flatnonzero(np.isin(state, NO_VALUE)):
        ax.plot(x, stack[row], linestyle=":", **look)
        marker = STATE_MARKERS[state[row]]
        ax.plot(x[-1:], stack[row, -1:], marker, color="#444444", markersize=3.6, zorder=4)
    colors = matplotlib.colormaps[color_map](np.linspace(0.3, 1, max(len(completed), 2)))
    heights = _log_unit(value[completed])
    for rank, place in enumerate(np.argsort(-heights, kind="stable"), start=1):  # the best on top
        best = rank == len(completed)
        ax.plot(
            [*x, len(x)],
            [*stack[completed[place]], heights[place]],
            color=colors[-1] if best else colors[rank - 1],
            linewidth=2.2 if best else 0.9,
            zorder=3,
        )
    ax.set_xticks(range(len(titles)), titles, fontsize=TINY_POINTS)
    ax.set_xlim(-0.15, len(titles) - 0.4)
    ax.set_ylim(-0.06, 1.06)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    handles = [Line2D([], [], color=colors[-1], linewidth=2.2, label="best")]
    if len(completed) > 1:
        label = "completed, darker is better"
        handles.append(Line2D([], [], color=colors[len(colors) // 2], linewidth=0.9, label=label))
    if len(pruned):
        look = HOLLOW | {"linestyle": (0, (4, 3)), "color": MUTED, "linewidth": 0.8}
        handles.append(Line2D([], [], **look, markersize=3.2, label=pruned_label(data)))
    handles += [
        Line2D(
            [],
            [],
            color="#444444",
            linestyle=":",
            linewidth=0.8,
            marker=STATE_MARKERS[name],
            markersize=3.6,
            label=f"{name}: no value",
        )
        for name in NO_VALUE
        if (state == name).any()
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax


def _places(column: pd.Series) -> tuple[npt.NDArray[np.float64], list[str]]:
    """A parameter's values on an axis, and the labels of its categories; none on a log axis."""
    if column.name in LOG_PARAMETERS:
        return column.to_numpy(dtype=float), []
    values = sorted(column.unique())
    number = {value: place for place, value in enumerate(values)}
    return column.map(number).to_numpy(dtype=float), [factor_value(value) for value in values]


def _unit(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def _log_unit(
    values: npt.NDArray[np.float64], of: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Values between 0 and 1, from the least to the greatest of some, on a log scale."""
    logs, ends = np.log(values), np.log(values if of is None else of)
    return _unit(logs, ends.min(), ends.max()) if len(logs) else logs


def _log_labels(values: npt.NDArray[np.float64]) -> list[tuple[float, str]]:
    if np.ptp(values) == 0:
        return [(0.5, digits(values[0]))]
    ticks = np.array(log_ticks(values.min(), values.max(), 5))
    return [
        (float(height), plain(tick))
        for tick, height in zip(ticks, _log_unit(ticks, values), strict=True)
    ]


def _coordinate(
    ax: Axes, x: int, ticks: Sequence[tuple[float, str]], color: str = "#444444"
) -> None:
    """A vertical axis of a parallel-coordinate plot with its ticks."""
    ax.plot([x, x], [0, 1], color=color, linewidth=0.8, zorder=2)
    for height, label in ticks:
        ax.plot([x - 0.03, x + 0.03], [height, height], color=color, linewidth=0.8, zorder=2)
        ax.text(
            x + 0.06,
            height,
            label,
            fontsize=TINY_POINTS,
            color="black" if color == "#444444" else color,
            va="center",
            zorder=5,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )
