"""The search: its progress, whether tuning beat the reference, and which model wins tuned.

A trial has an objective only if it completed, and the test set is the winners' alone.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import pandas as pd
from matplotlib.axes import Axes

from analysis import plots, settings
from analysis.chapters import finalists, sensitivity, winners
from analysis.chapters.times import sharing
from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    count,
    digits,
    interval,
    listed,
    mean_and_sd,
    sentence_case,
    share,
)
from analysis.plots import Drawing, Marks
from analysis.settings import RATIO_NAME
from convae.config import n_fitted
from study.folder import schema

PROGRESS: Final = "figure-search"
PROGRESS_SECONDS: Final = "figure-search-seconds"
N_MNIST: Final = 60_000  # training images
OBJECTIVE_LABEL: Final = f"Validation MSE, {plots.MSE_UNIT}, log axis"
STATE_MARKERS: Final = {schema.PRUNED: "x", schema.DIVERGED: "v", schema.FAILED: "P"}
MARKS: Final = {schema.PRUNED: "×", schema.DIVERGED: "▼", schema.FAILED: "✚"}  # as they are drawn
# What a trial kept its device busy with.
DEVICE_SECONDS: Final = ["train_seconds", "eval_seconds", "compile_seconds"]


def search_progress(trials: pd.DataFrame) -> pd.DataFrame:
    """The search's trials in the order of the table, numbered from 1 for each model.

    Returns:
        Their rows with the columns number, seconds (what the model's trials have kept devices busy
        with so far, this one included; what was not recorded counts nothing), value (the objective
        of a completed trial, otherwise missing) and best (the least value so far, missing before
        the first).
    """
    search = trials[trials["group"] == schema.SEARCH].reset_index(drop=True)
    value = search[schema.OBJECTIVE].where(search["state"] == schema.COMPLETED)
    by_model = search["model"]
    return search.assign(
        number=search.groupby("model").cumcount() + 1,
        seconds=search[DEVICE_SECONDS].sum(axis=1).groupby(by_model).cumsum(),
        value=value,
        best=value.groupby(by_model).cummin().groupby(by_model).ffill(),
    )


def spent(trials: pd.DataFrame) -> pd.DataFrame:
    """What each architecture's search took, whatever became of its trials.

    Returns:
        Columns n_trials, n_completed, n_untimed (trials without recorded training time, which
        count nothing) and seconds, indexed by model, conv first.
    """
    search = trials[trials["group"] == schema.SEARCH]
    found = search.assign(
        done=search["state"] == schema.COMPLETED,
        untimed=search["train_seconds"].isna(),
        total=search[DEVICE_SECONDS].sum(axis=1),
    ).groupby("model")
    table = found.agg(
        n_trials=("done", "size"),
        n_completed=("done", "sum"),
        n_untimed=("untimed", "sum"),
        seconds=("total", "sum"),
    )
    return table.loc[settings.models_of(search)]


def budget_rows(run: Run) -> list[list[str]]:
    """What each architecture's search took and what its winner is worth, then the ratios."""
    cost, its, rows = spent(run.trials), winners.by_model(run), []
    seconds = cost["seconds"].to_dict()
    for model, row in cost.iterrows():
        winner = its.get(str(model))
        rows.append(
            [
                str(model),
                f"{row['n_trials']:.0f}, {row['n_completed']:.0f} completed",
                f"{row['seconds']:,.0f}",
                winner.architecture if winner else NO_VALUE,
                str(len(winner.by_seed()) if winner else 0),
                mean_and_sd(winner.mean() if winner else None),
            ]
        )
    for top, bottom in winners.pairs(run, [str(model) for model in cost.index]):
        ratio = settings.ratio(its.get(top), its.get(bottom))
        times = digits(seconds[top] / seconds[bottom]) if seconds[bottom] else NO_VALUE
        n = str(ratio.n if ratio else 0)
        rows.append([f"{top} ÷ {bottom}", NO_VALUE, times, NO_VALUE, n, interval(ratio)])
    if untuned := winners.untuned_ratio(run):
        name = f"untuned: {RATIO_NAME}"
        rows.append([name, *[NO_VALUE] * 3, str(untuned.n), interval(untuned)])
    return rows


def tuning_sentences(run: Run, models: list[str]) -> list[str]:
    """Whether tuning beat the reference's setting, with one seed, of some architectures."""
    done = finalists.completed_search(run)
    said = []
    for model in models:
        values = done.loc[done["model"] == model, schema.OBJECTIVE]
        if values.empty:
            continue
        best = f"the best of {count(len(values), 'completed trial')}, {digits(values.min())}"
        states = [s for one in run.of(schema.SEARCH, model) if one.is_reference for s in one.states]
        reference = done[(done["model"] == model) & (done["base"] == "")]
        if reference.empty:
            why = f"the search trial with the reference's setting is {states[0]}" if states else ""
            why = why or "no search trial has the reference's setting"
            said.append(
                f"{model}: whether tuning beat the reference is not known, as {why}; {best}."
            )
            continue
        value, others = float(reference[schema.OBJECTIVE].iloc[0]), len(values) - 1
        if values.min() >= value:
            none = f"none of {count(others, 'other completed trial')} is better"
            none = none if others else "no other search trial completed"
            begin = f"{model}: tuning did not beat the reference's setting"
            said.append(f"{begin} (validation MSE {digits(value)}): {none}.")
            continue
        spread = sensitivity.spread_of(run, model)
        chance = f"the reference's varies by {share(spread or 0)} over seeds (sd)"
        chance = chance if spread else "how much of it is chance is not known"
        said.append(
            f"{model}: tuning beat the reference's setting in the search: {best}, is"
            f" {digits(values.min() / value)} times its validation MSE {digits(value)}. One seed"
            f" each; {chance}."
        )
    return said


def strip(ax: Axes, lost: pd.DataFrame, colors: Mapping[str, str]) -> None:
    """Marks at the bottom of a log axis: trials without a value have no height.

    Args:
        ax: with its data.
        lost: columns x, state (of `STATE_MARKERS`) and label: which row it is in.
        colors: of the rows, by label; the rows are named if they are several.
    """
    if lost.empty:
        return
    low, high = ax.get_ylim()
    ax.set_ylim(low / (high / low) ** (0.08 + 0.06 * len(colors)), high)
    for row, (label, color) in enumerate(colors.items()):
        height, its = 0.04 + 0.06 * row, lost[lost["label"] == label]
        if len(colors) > 1:
            ax.text(1.01, height, label, transform=ax.transAxes, fontsize=7, va="center")
        for state, rows in its.groupby("state"):
            look = {"marker": STATE_MARKERS[str(state)], "color": color, "zorder": 4}
            x, y = rows["x"].astype(float), [height] * len(rows)
            plots.marks(
                ax, [Marks(look | {"transform": ax.get_xaxis_transform()}, x, y, series=row)]
            )
    for state in lost["state"].unique():
        look = {"marker": STATE_MARKERS[state], "color": "#444444"}
        plots.marks(ax, [Marks(look, [], [], f"{state}: no value")])


def whole_by_label(run: Run) -> dict[str, str]:
    """The whole setting of each search trial in words, by its label."""
    return {one.label: f"{one.architecture}, {one.whole}" for one in run.of(schema.SEARCH)}


def n_trials(run: Run, model: str | None = None) -> str:
    """How many search trials there are, and how they were trained."""
    found = run.trials[run.trials["group"] == schema.SEARCH]
    found = found if model is None else found[found["model"] == model]
    counts = found.groupby("model").size().items()
    each = ", ".join(f"{count(n, 'trial')} ({name})" for name, n in counts)
    n_images = run.manifest["data"].get("n_train", N_MNIST)
    n = n_fitted(n_images)
    return (
        f"{each}, one seed each, at most {count(found['epochs'].max(), 'epoch')}; trained on {n:,}"
        f" images, validated on {n_images - n:,}"
    )


def drawing(run: Run, by: Literal["number", "seconds"]) -> Drawing | None:
    """Best objective so far against the trials or the device seconds, a step line a model.

    Trials without a final value are marks at the bottom, a row a model: they have no height.

    None if no trial has a value.
    """
    data = search_progress(run.trials)
    if by == "seconds":
        data = data[data["seconds"] > 0]  # a log axis has no place for trials before any time
    if data["value"].notna().sum() == 0:
        return None
    models, looks = settings.models_of(data), plots.looks_of(run.models)
    labelled = whole_by_label(run)
    some = []
    for place, model in enumerate(models):
        its = data[data["model"] == model]
        found, known = its.dropna(subset="best"), its.dropna(subset="value")
        step = looks[model] | {"drawstyle": "steps-post", "marker": ""}
        ends = [*found[by], its[by].max()], [*found["best"], *found["best"].tail(1)]
        if len(found):
            some.append(Marks(step, *ends, f"{model}, best so far", series=place))
        dots = looks[model] | {"linestyle": "none", "alpha": 0.75}
        texts = [
            f"{row['trial_id']}: {digits(row['value'])}; {labelled[row['setting']]}"
            for _, row in known.iterrows()
        ]
        label = f"{model}, completed"
        some.append(Marks(dots, known[by], known["value"], label, texts, place))
    with plots.style():
        figure, ax = plots.new_figure(4.0)
        points = plots.marks(ax, some)
        ax.set_yscale("log")
        lost = data["state"].isin(STATE_MARKERS)
        strip(
            ax,
            data.assign(label=data["model"], x=data[by])[lost],
            {model: looks[model]["color"] for model in models},
        )
        ax.set_ylabel(OBJECTIVE_LABEL)
        if by == "number":
            plots.epoch_axis(ax, data["number"].max())
            ax.set_xlabel("Search trial of the model")
        else:
            plots.log_axis(ax.xaxis, 6)
            ax.set_xlabel("Device time of the model's search (s), log axis")
        plots.log_axis(ax.yaxis)
        plots.legend_above(ax)
    series = [plots.series_of(model, looks[model]) for model in models]
    name = PROGRESS if by == "number" else PROGRESS_SECONDS
    return Drawing(name, figure, points, series, "point")


def chapter(run: Run) -> dict[str, Any]:
    """What the search found, and who is ahead when the architectures are tuned."""
    trials = run.trials
    searched = trials[trials["group"] == schema.SEARCH]
    models, with_finalists = settings.models_of(searched), finalists.by_model(run)
    cost = spent(trials)
    lost = {state: (searched["state"] == state).any() for state in STATE_MARKERS}
    best = finalists.completed_search(run).drop_duplicates("model")
    rest = [model for model in models if model not in with_finalists]
    tested = winners.by_model(run)
    return {
        "models": models,
        "heading": _heading(models),
        "cost": cost,
        "each": [f"{n} of {model}" for model, n in cost["n_trials"].items()],
        "sharing_known": bool(searched["n_sharing"].notna().any()),
        "n_shared": int((searched["n_sharing"] > 1).sum()),
        "tuned": winners.tuned_sentence(run),
        "budget": budget_rows(run),
        "drawings": [one for by in ("number", "seconds") if (one := drawing(run, by))],
        "best": listed(f"{r['model']} {digits(r[schema.OBJECTIVE])}" for _, r in best.iterrows()),
        "n_trials": n_trials(run) if models else "",
        "lost": ", ".join(f"{mark} {state}" for state, mark in MARKS.items() if lost[state]),
        "sharing": sharing(run),
        "one_seed": tuning_sentences(run, rest),
        "finalists": finalists.values(run),
        "winners": winners.values(run),
        "missing": [m for m in run.models if m not in models],
        "no_finalists": rest if run.manifest["spec"]["n_finalists"] else [],
        "untested": [m for m in models if cost.loc[m, "n_completed"] and m not in tested],
        "other_winners": [
            model
            for model, its in with_finalists.items()
            if model in tested
            and (best_one := finalists.winner_among(its))
            and best_one.label != tested[model].label
        ],
    }


def _heading(models: list[str]) -> str:
    if len(models) == 1:
        return f"What the search of {models[0]} took and found"
    return sentence_case(f"{listed(models)}, each tuned")
