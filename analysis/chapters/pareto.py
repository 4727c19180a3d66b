"""Accuracy against training time: the Pareto fronts of a search with two objectives."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis import plots
from analysis.chapters.finalists import completed_search
from analysis.chapters.search import OBJECTIVE_LABEL, n_trials, whole_by_label
from analysis.load import Run
from analysis.phrases import digits
from analysis.plots import Drawing, Marks
from analysis.settings import models_of
from study.folder.schema import MSE_AND_TIME, OBJECTIVE, SEARCH, TIME_OBJECTIVE

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


def pareto_trials(run: Run) -> pd.DataFrame:
    """The completed search trials by validation MSE and training time, and which are on a front.

    Times are compared on one device only: the one with the most of these trials.

    Returns:
        Rows of the trials, the quickest first, with the columns `comparable` (same device),
        `on_own_front` (of its model) and `on_joint_front` (of all together).
    """
    done = completed_search(run).dropna(subset=TIME_OBJECTIVE)
    done = done.sort_values([TIME_OBJECTIVE, OBJECTIVE], kind="stable").reset_index(drop=True)
    comparable = done["device"].isin(done["device"].mode().head(1))

    def front(rows: pd.Series) -> pd.Series:
        points = done.loc[rows, [OBJECTIVE, TIME_OBJECTIVE]].to_numpy(dtype=float)
        return pd.Series(pareto_front(points), index=done.index[rows]).reindex(
            done.index, fill_value=False
        )

    own = [front(comparable & (done["model"] == model)) for model in models_of(done)]
    joint = front(comparable)
    return done.assign(
        comparable=comparable,
        on_own_front=pd.concat(own, axis=1).any(axis=1) if own else joint,
        on_joint_front=joint,
    )


def drawing(run: Run, shown: pd.DataFrame, together: str) -> Drawing:
    """Validation MSE against training time, both on log axes, with the fronts as step lines."""
    looks, some, labelled = plots.looks_of(run.models), [], whole_by_label(run)
    joint = shown[shown["on_joint_front"]]
    wide = {"color": "#d0d0d0", "linewidth": 6, "solid_capstyle": "round", "marker": ""}
    steps = {"drawstyle": "steps-post"}
    wide["linestyle"] = "-"
    label = f"front of {together} together"
    some.append(Marks(wide | steps, joint[TIME_OBJECTIVE], joint[OBJECTIVE], label))
    for model in models_of(shown):
        its, look = shown[shown["model"] == model], looks[model]
        hollow = look | {"linestyle": "none", "markerfacecolor": "none", "alpha": 0.7}
        for name, on, drawn in (("front", True, look | steps), ("dominated", False, hollow)):
            rows = its[its["on_own_front"] == on]
            texts = [
                f"{row['trial_id']}: {digits(row[OBJECTIVE])} in {digits(row[TIME_OBJECTIVE])} s;"
                f" {labelled[row['setting']]}"
                for _, row in rows.iterrows()
            ]
            x, y = rows[TIME_OBJECTIVE], rows[OBJECTIVE]
            some.append(Marks(drawn, x, y, f"{model}, {name}", texts))
    with plots.style():
        figure, ax = plots.new_figure(4.0)
        points = plots.marks(ax, some)
        plots.log_axis(ax.xaxis, 6)
        plots.log_axis(ax.yaxis)
        ax.set_xlabel("Training time (s), log axis")
        ax.set_ylabel(OBJECTIVE_LABEL)
        plots.legend_above(ax)
    return Drawing(PARETO, figure, points, [], "point")


def chapter(run: Run) -> dict[str, Any]:
    """The fronts; nothing of a search that minimised the MSE alone."""
    if run.manifest["spec"]["objective"] != MSE_AND_TIME:
        return {"timed": False}
    data = pareto_trials(run)
    shown, others = data[data["comparable"]], data[~data["comparable"]]
    together = "both" if shown["model"].nunique() <= 2 else "all"
    searched = {one.label: one for one in run.of(SEARCH)}
    shown = shown.assign(of=shown["setting"].map(searched))
    rows = [
        [
            row["trial_id"],
            row["of"].architecture,
            digits(row[TIME_OBJECTIVE]),
            digits(row[OBJECTIVE]),
            f"{row['model']} and {together}" if row["on_joint_front"] else row["model"],
            row["of"].whole,
        ]
        for _, row in shown[shown["on_own_front"]].iterrows()
    ]
    front = ", ".join(
        f"{row['of'].architecture} {row[TIME_OBJECTIVE]:.3g} s and {digits(row[OBJECTIVE])}"
        for _, row in shown[shown["on_joint_front"]].iterrows()
    )
    return {
        "timed": True,
        "n": len(shown),
        "device": shown["device"].iloc[0] if len(shown) else "",
        "others": ", ".join(others["trial_id"]),
        "together": together,
        "drawing": drawing(run, shown, together) if len(shown) else None,
        "front": front,
        "n_trials": n_trials(run) if len(shown) else "",
        "rows": rows,
    }
