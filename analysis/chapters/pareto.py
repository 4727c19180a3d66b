"""Accuracy against training time: the Pareto fronts of a search with two objectives."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import plots
from analysis.chapters.search import OBJECTIVE_LABEL, n_trials, trial_words
from analysis.load import Run
from analysis.phrases import digits
from analysis.plots import Drawing, Marks
from analysis.settings import models_of
from study.folder.schema import MSE_AND_TIME, OBJECTIVE, SEARCH, SECONDS

PARETO: Final = "figure-pareto"


def pareto_front(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which of some points, shape (n, objectives), no other dominates; all are minimised.

    A point dominates another if it is nowhere larger and somewhere smaller: of equal points none.
    """
    nowhere_larger = (points[:, None] <= points[None]).all(axis=2)
    somewhere_smaller = (points[:, None] < points[None]).any(axis=2)
    return np.array(~(nowhere_larger & somewhere_smaller).any(axis=0))


def pareto_trials(run: Run) -> pd.DataFrame:
    """The completed search trials, the quickest first, and which are on a front.

    Times are compared on one device only: the one with the most of these trials. Added columns:
    `comparable` (same device), `on_own_front` (of its model) and `on_joint_front` (of all).
    """
    done = run.completed_search.dropna(subset=SECONDS)
    done = done.sort_values([SECONDS, OBJECTIVE], kind="stable").reset_index(drop=True)
    done = done.assign(comparable=done["device"].isin(done["device"].mode().head(1)))
    done[["on_own_front", "on_joint_front"]] = False
    known = done[done["comparable"]]
    for name, by in (("on_own_front", known["model"]), ("on_joint_front", known["comparable"])):
        for _, its in known.groupby(by):
            points = its[[OBJECTIVE, SECONDS]].to_numpy(dtype=float)
            done.loc[its.index, name] = pareto_front(points)
    return done


def drawing(run: Run, shown: pd.DataFrame, together: str) -> Drawing:
    """Validation MSE against training time, both on log axes, with the fronts as step lines."""
    words, joint = trial_words(run), shown[shown["on_joint_front"]]
    wide = {"color": "#d0d0d0", "linewidth": 6, "linestyle": "-", "drawstyle": "steps-post"}
    label = f"front of {together} together"
    some = [Marks(wide, joint[SECONDS], joint[OBJECTIVE], label)]
    for model in models_of(shown):
        look = plots.looks_of(run.models)[model]
        hollow = look | {"linestyle": "none", "markerfacecolor": "none", "alpha": 0.7}
        step = look | {"drawstyle": "steps-post"}
        for name, on, drawn in (("front", True, step), ("dominated", False, hollow)):
            rows = shown[(shown["model"] == model) & (shown["on_own_front"] == on)]
            x, y = rows[SECONDS], rows[OBJECTIVE]
            times = zip(rows["trial_id"], x, strict=True)
            texts = [f"{words[trial_id]}; {digits(seconds)} s" for trial_id, seconds in times]
            some.append(Marks(drawn, x, y, f"{model}, {name}", texts))
    figure, ax = plots.new_figure(4.0)
    points = plots.marks(ax, some)
    plots.log_axis(ax.xaxis, "Training time (s)")
    plots.log_axis(ax.yaxis, OBJECTIVE_LABEL)
    plots.legend_above(ax)
    return Drawing(PARETO, figure, points, by="point")


def chapter(run: Run) -> dict[str, Any]:
    """The fronts; nothing of a search that minimised the MSE alone."""
    if run.manifest["spec"]["objective"] != MSE_AND_TIME:
        return {"timed": False}
    data, searched = pareto_trials(run), {one.label: one for one in run.of(SEARCH)}
    shown, others = data[data["comparable"]], data[~data["comparable"]]
    together, rows, joint = "both" if shown["model"].nunique() <= 2 else "all", [], []
    for _, row in shown[shown["on_own_front"]].iterrows():
        one, seconds, mse = searched[row["setting"]], row[SECONDS], digits(row[OBJECTIVE])
        front = one.model
        if row["on_joint_front"]:
            front += f" and {together}"
            joint.append(f"{one.architecture} {seconds:.3g} s and {mse}")
        rows.append([row["trial_id"], one.architecture, digits(seconds), mse, front, one.whole])
    return {
        "timed": True,
        "n": len(shown),
        "device": shown["device"].head(1).sum(),
        "others": ", ".join(others["trial_id"]),
        "together": together,
        "drawing": drawing(run, shown, together) if len(shown) else None,
        "joint": ", ".join(joint),
        "n_trials": n_trials(run) if len(shown) else "",
        "rows": rows,
    }
