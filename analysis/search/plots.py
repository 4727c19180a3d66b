"""Draws a search: progress, importances, Pareto fronts, and the neighbours of the reference.

Each function takes data and an `Axes` and returns the `Axes`, in the style of `analysis.figures`.
A trial without an objective has no height: it is a mark at the edge.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from analysis.figures import (
    DARK,
    MODEL_STYLES,
    MSE_UNIT,
    MUTED,
    epoch_axis,
    interval_limits,
    legend_above,
    log_axis,
    plot_intervals,
)
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import factor_value, parameter_label
from study.folder.schema import (
    CONV,
    DENSE,
    DIVERGED,
    FAILED,
    OBJECTIVE,
    PRUNED,
    TIME_OBJECTIVE,
)

LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    CONV: MODEL_STYLES[CONV_NAME],
    DENSE: MODEL_STYLES[DENSE_NAME],
}
STATE_MARKERS: Final = {PRUNED: "x", DIVERGED: "v", FAILED: "P"}
OBJECTIVE_LABEL: Final = f"Validation MSE, {MSE_UNIT}, log axis"
SMALL_POINTS: Final = 7


def plot_progress(data: pd.DataFrame, ax: Axes, by: str = "number") -> Axes:
    """Best objective so far against the trials or the device seconds, a line a model, log axis.

    Trials without a final value are marks at the bottom, one row a model: they have no height.

    Args:
        data: of `analysis.search.results.search_progress`.
        ax: where to draw.
        by: the column of the x axis, "number" or "seconds"; seconds have a log axis.
    """
    groups = {str(model): rows for model, rows in data.groupby("model")}
    for model, rows in groups.items():
        look = LOOKS[model]
        found = rows.dropna(subset="best")
        ax.step(
            [*found[by], rows[by].max()],
            [*found["best"], *found["best"].tail(1)] if len(found) else [math.nan],
            where="post",
            color=look["color"],
            linestyle=look["linestyle"],
            label=f"{model}, best so far",
        )
        ax.plot(
            rows[by].astype(float),
            rows["value"],
            look["marker"],
            color=look["color"],
            alpha=0.75,
            label=f"{model}, completed",
        )
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / (high / low) ** 0.2, high)  # room for the marks
    labelled: set[str] = set()
    for row_number, (model, rows) in enumerate(groups.items()):
        height = 0.04 + 0.06 * row_number
        ax.text(1.01, height, model, transform=ax.transAxes, fontsize=SMALL_POINTS, va="center")
        for state, marker in STATE_MARKERS.items():
            places = rows.loc[rows["state"] == state, by].astype(float)
            ax.plot(
                places,
                [height] * len(places),
                marker,
                color=LOOKS[model]["color"],
                transform=ax.get_xaxis_transform(),
                zorder=4,
            )
            if len(places) and state not in labelled:
                labelled.add(state)
                label = f"{state}: no value"
                ax.plot([], [], marker, color="#444444", linestyle="none", label=label)
    ax.set_ylabel(OBJECTIVE_LABEL)
    if by == "number":
        epoch_axis(ax, data["number"].max())
        ax.set_xlabel("Search trial of the model")
    else:
        ax.set_xscale("log")
        log_axis(ax.xaxis, 6)
        ax.set_xlabel("Device time of the model's search (s), log axis")
    log_axis(ax.yaxis)
    legend_above(ax)
    return ax


def plot_importances(data: pd.DataFrame, ax: Axes, color: str = DARK) -> Axes:
    """A bar a parameter, hollow where it does not exceed what chance gives, and a mark for that.

    Args:
        data: of `analysis.search.importances.importances`.
        ax: where to draw.
        color: of the bars.
    """
    beyond = data["share"] > data["chance"]
    places = np.arange(len(data))
    ax.barh(
        places,
        data["share"],
        0.6,
        color=[color if found else "white" for found in beyond],
        edgecolor=[color if found else MUTED for found in beyond],
    )
    off = data["chance"] > 1  # chance alone would give it more than all have together
    mark: dict[str, Any] = {"color": "black", "linestyle": "none", "clip_on": False}
    label = "one in twenty exceeds this by chance"
    bar = mark | {"marker": "|", "markersize": 15, "markeredgewidth": 1.6}
    ax.plot(data["chance"].where(~off), places, **bar, label=label)
    if off.any():
        label = "the same, beyond the axis"
        ax.plot(np.ones(off.sum()), places[off], **mark, marker=">", markersize=5, label=label)
    ax.set_yticks(places, [parameter_label(name) for name in data["parameter"]])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Share of the importance")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def plot_sensitivity(
    data: pd.DataFrame, ax: Axes, spread: float | None = None, color: str = DARK
) -> Axes:
    """The ratio of each neighbour's validation MSE to the reference's, with its interval, log axis.

    Args:
        data: of `analysis.search.neighbours.sensitivity`.
        ax: where to draw.
        spread: of the reference over seeds, relative; drawn as a band around 1.
        color: of the marks.
    """
    data = data.reset_index(drop=True)
    mean = data["mean"].to_numpy()
    always = [1.0, *([1 + spread, 1 / (1 + spread)] if spread else [])]
    left, right = interval_limits(data, always)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    if spread:
        band = ax.axvspan(1 / (1 + spread), 1 + spread, color="#d9d9d9", alpha=0.8, linewidth=0)
        band.set_label("the reference's spread over seeds (sd)")
    ax.axvline(1, color="#444444", linewidth=1, label="the reference")
    plot_intervals(data, ax, np.arange(len(data)), (left, right), color)
    ax.plot(mean, np.arange(len(data)), "o", color=color, markersize=5)
    labels = [
        f"{parameter_label(factor)} {factor_value(value)}"
        for factor, value in zip(data["factor"], data["value"], strict=True)
    ]
    ax.set_yticks(range(len(data)), labels, fontsize=8)
    beside = ax.secondary_yaxis("right")
    beside.set_yticks(range(len(data)), [counts_beside(row) for _, row in data.iterrows()])
    beside.tick_params(length=0, labelsize=SMALL_POINTS)
    beside.spines[:].set_visible(False)
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    factors = data["factor"].to_numpy()
    for last in np.flatnonzero(factors[1:] != factors[:-1]):
        ax.axhline(last + 0.5, color="#e4e4e4", linewidth=0.6)
    ax.grid(visible=False, axis="y")
    log_axis(ax.xaxis, 6)
    ax.set_xlabel("Validation MSE ÷ the reference's, log axis")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1)
    return ax


def counts_beside(row: pd.Series) -> str:
    """The pairs and the trials without a value of a row of `neighbours.sensitivity`."""
    rest = [f"{row[state]} {state}" for state in (DIVERGED, FAILED, PRUNED) if row[state]]
    return ", ".join([*([f"n = {row['n']}"] if row["n"] or not rest else []), *rest])


def plot_pareto(data: pd.DataFrame, ax: Axes) -> Axes:
    """Validation MSE against training time, both on log axes, with the fronts as step lines.

    Args:
        data: of `results.pareto_trials`; trials that are not comparable are left out.
        ax: where to draw.
    """
    shown = data[data["comparable"]]
    joint = shown[shown["on_joint_front"]]
    ax.step(
        joint[TIME_OBJECTIVE],
        joint[OBJECTIVE],
        where="post",
        color="#d0d0d0",
        linewidth=6,
        solid_capstyle="round",
        label="front of both together",
    )
    for model, rows in shown.groupby("model"):
        look = LOOKS[str(model)]
        front = rows["on_own_front"].to_numpy()
        points = rows[TIME_OBJECTIVE].to_numpy(), rows[OBJECTIVE].to_numpy()
        ax.step(
            points[0][front],
            points[1][front],
            where="post",
            color=look["color"],
            linestyle=look["linestyle"],
            marker=look["marker"],
            label=f"{model}, front",
            zorder=look["zorder"],
        )
        ax.plot(
            points[0][~front],
            points[1][~front],
            look["marker"],
            markerfacecolor="none",
            markeredgecolor=look["color"],
            alpha=0.7,
            label=f"{model}, dominated",
        )
    ax.set(xscale="log", yscale="log")
    log_axis(ax.xaxis, 6)
    log_axis(ax.yaxis)
    ax.set_xlabel("Training time (s), log axis")
    ax.set_ylabel(OBJECTIVE_LABEL)
    legend_above(ax)
    return ax
