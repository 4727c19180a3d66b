"""Accuracy against training time: the Pareto fronts of a search with two objectives."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.parts import Chapter, Figures, Table, Text
from analysis.chapters.search import OBJECTIVE_LABEL, n_trials
from analysis.chapters.settings import completed_search, setting_words
from analysis.figures import Points
from analysis.load import Run
from analysis.statistics import models_of, with_names
from analysis.words import count, digits, rests_on
from study.folder.schema import MSE_ALONE, MSE_AND_TIME, OBJECTIVE, TIME_OBJECTIVE

PARETO: Final = "figure-pareto"


def pareto_front(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates, all coordinates being minimised.

    A point dominates another if it is nowhere larger and somewhere smaller; of equal points none
    dominates the other.

    Args:
        points: shape (n, objectives), finite.

    Returns:
        Shape (n,).
    """
    nowhere_larger = (points[:, None] <= points[None]).all(axis=2)
    somewhere_smaller = (points[:, None] < points[None]).any(axis=2)
    dominates = nowhere_larger & somewhere_smaller  # the first index the second
    return np.array(~dominates.any(axis=0))


def pareto_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed search trials by validation MSE and training time, and which are on a front.

    Times are compared on one device only: the one with the most of these trials.

    Returns:
        Rows of `trials`, the quickest first, with the columns `name`, `comparable` (same device),
        `on_own_front` (of its architecture) and `on_joint_front` (of all together).
    """
    done = completed_search(trials).dropna(subset=TIME_OBJECTIVE)
    done = done.sort_values([TIME_OBJECTIVE, OBJECTIVE], kind="stable").reset_index(drop=True)
    common = done["device"].mode()
    comparable = done["device"].isin(common.head(1))

    def front(rows: pd.Series) -> pd.Series:
        points = done.loc[rows, [OBJECTIVE, TIME_OBJECTIVE]].to_numpy(dtype=float)
        kept = pd.Series(False, index=done.index)
        kept[rows] = pareto_front(points)
        return kept

    custom = pd.Series(False, index=done.index)
    for model in models_of(done):
        custom |= front(comparable & (done["model"] == model))
    return with_names(done).assign(
        comparable=comparable,
        on_own_front=custom,
        on_joint_front=front(comparable),
    )


def plot_pareto(
    data: pd.DataFrame, ax: Axes, looks: Mapping[str, Mapping[str, Any]] | None = None
) -> Axes:
    """Validation MSE against training time, both on log axes, with the fronts as step lines.

    Args:
        data: of `pareto_trials`; trials that are not comparable are left out.
        ax: where to draw.
        looks: of the models, as elsewhere on the page.
    """
    shown = data[data["comparable"]]
    looks = looks or figures.looks_of(models_of(shown))
    joint = shown[shown["on_joint_front"]]
    ax.step(
        joint[TIME_OBJECTIVE],
        joint[OBJECTIVE],
        where="post",
        color="#d0d0d0",
        linewidth=6,
        solid_capstyle="round",
        label=f"front of {_all(data)} together",
    )
    for model, rows in shown.groupby("model"):
        look = looks[str(model)]
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
    figures.log_axis(ax.xaxis, 6)
    figures.log_axis(ax.yaxis)
    ax.set_xlabel("Training time (s), log axis")
    ax.set_ylabel(OBJECTIVE_LABEL)
    figures.legend_above(ax)
    return ax


def pareto_table(data: pd.DataFrame) -> Table:
    """The trials on a front, the quickest first.

    `data` is of `pareto_trials`.
    """
    header = ("Trial", "Model", "Training time (s)", "Validation MSE", "Front", "Setting")
    rows = [
        (
            trial["trial_id"],
            trial["name"],
            digits(trial[TIME_OBJECTIVE]),
            digits(trial[OBJECTIVE]),
            f"{trial['model']} and {_all(data)}" if trial["on_joint_front"] else trial["model"],
            setting_words(trial),
        )
        for _, trial in data[data["on_own_front"]].iterrows()
    ]
    return Table(header, rows, right=(2, 3))


def _all(data: pd.DataFrame) -> str:
    return "both" if data["model"].nunique() <= 2 else "all"


def chapter(run: Run) -> Chapter:
    """The fronts; nothing of a search that minimised the MSE alone."""
    title = "Accuracy against training time"
    if run.manifest["spec"].get("objective", MSE_ALONE) != MSE_AND_TIME:
        return Chapter("pareto", title)
    data = pareto_trials(run.trials)
    shown, others = data[data["comparable"]], data[~data["comparable"]]
    if shown.empty:
        gap = "No completed search trial with a known device: no Pareto front."
        return Chapter("pareto", title, gaps=[gap])
    note = (
        "Trials that no other beats in validation MSE and training time at once. Each had its"
        f" device to itself, so that times compare; {count(len(shown), 'trial')} on"
        f" {shown['device'].iloc[0]}."
    )
    if len(others):
        note += f" On another device or an unknown one: {', '.join(others['trial_id'])}."
    with figures.style():
        figure = _draw(run, shown)
    return Chapter("pareto", title, [Text(note), Figures([figure]), pareto_table(data)])


def _draw(run: Run, shown: pd.DataFrame) -> parts.Figure:
    figure, ax = figures.new_figure(4.0)
    plot_pareto(shown, ax, figures.looks_of(models_of(run.trials)))
    front = ", ".join(
        f"{row['name']} {row['train_seconds']:.3g} s and {digits(row['val_mse'])}"
        for _, row in shown[shown["on_joint_front"]].iterrows()
    )
    said = [
        f"{row['trial_id']}: {digits(row[OBJECTIVE])} in {digits(row[TIME_OBJECTIVE])} s;"
        f" {setting_words(row)}"
        for _, row in shown.iterrows()
    ]
    return figures.finish(
        figure,
        PARETO,
        "Validation MSE against training time, and the Pareto fronts",
        f"Not dominated, {_all(shown)} architectures together: {front}.",
        f"{n_trials(shown, run.manifest)}. Filled: no other trial of its architecture dominates"
        " it. Training time is weight updates only.",
        rests_on(run),
        by="point",
        points=[(ax, Points(0, shown[TIME_OBJECTIVE], shown[OBJECTIVE], said))],
    )
