"""The search: its progress, whether tuning beat the report's setting, and which model wins tuned.

A trial has an objective only if it completed, and the test set is the winners' alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import finalists, parts
from analysis.chapters.settings import (
    completed_search,
    key_of,
    reference_in_search,
    reference_setting,
    searched_models,
    setting_words,
)
from analysis.chapters.times import sharing
from analysis.chapters.winners import (
    tuned_pairs,
    tuned_sentence,
    winner_note,
    winner_of,
    winner_table,
    winner_trials,
    winners_ratio,
)
from analysis.figures import MSE_UNIT, Points
from analysis.load import Run
from analysis.statistics import (
    RATIO_NAME,
    mean_over_seeds,
    models_of,
    ratio_of,
)
from analysis.words import (
    N_MNIST,
    count,
    digits,
    interval,
    listed,
    mean_and_sd,
    rests_on,
    sentence_case,
    share,
)
from convae.config import n_fitted
from study.folder import schema

PROGRESS: Final = "figure-search"
PROGRESS_SECONDS: Final = "figure-search-seconds"
STATE_MARKERS: Final = {schema.PRUNED: "x", schema.DIVERGED: "v", schema.FAILED: "P"}
OBJECTIVE_LABEL: Final = f"Validation MSE, {MSE_UNIT}, log axis"
SMALL_POINTS: Final = 7
MARKS: Final = {
    schema.PRUNED: "×",
    schema.DIVERGED: "▼",
    schema.FAILED: "✚",
}  # as STATE_MARKERS draws them

Spread = Mapping[str, float | None]
# What a trial kept its device busy with.
DEVICE_SECONDS: Final = ("train_seconds", "eval_seconds", "compile_seconds")


@dataclass(frozen=True)
class Tuning:
    """What a search found for an architecture, beside the reference setting in the same search.

    Attributes:
        model: the architecture.
        n_completed: search trials that completed, the reference setting's included.
        best: their least objective.
        reference: the objective of the completed trial with the reference setting; None if there
            is none.
        reference_state: how that trial ended; None if the search has no such trial.
    """

    model: str
    n_completed: int
    best: float
    reference: float | None
    reference_state: str | None


def search_progress(trials: pd.DataFrame) -> pd.DataFrame:
    """The search's trials in the order of the table, numbered from 1 for each model.

    Returns:
        Columns trial_id, model, number, seconds (what the model's trials have kept devices busy
        with so far, this one included; what was not recorded counts nothing), state, value (the
        objective of a completed trial, otherwise missing) and best (the least value so far,
        missing before the first).
    """
    search = trials[trials["group"] == schema.SEARCH]
    value = search[schema.OBJECTIVE].where(search["state"] == schema.COMPLETED)
    by_model = search["model"]
    best = value.groupby(by_model).cummin().groupby(by_model).ffill()
    return pd.DataFrame(
        {
            "trial_id": search["trial_id"],
            "model": by_model,
            "number": search.groupby("model").cumcount() + 1,
            "seconds": search[list(DEVICE_SECONDS)].sum(axis=1).groupby(by_model).cumsum(),
            "state": search["state"],
            "value": value,
            "best": best,
        }
    ).reset_index(drop=True)


def tuning(trials: pd.DataFrame, batch_size: int | None) -> list[Tuning]:
    """What tuning gained over the reference setting, in validation MSE, for each architecture.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference setting; None if the run does not say.

    Returns:
        One for each architecture that has a completed search trial.
    """
    done = completed_search(trials)
    found = []
    for model in searched_models(trials):
        objective = done.loc[done["model"] == model, schema.OBJECTIVE]
        if objective.empty:
            continue
        rows = reference_in_search(trials, model, batch_size)
        ended = rows.loc[rows.index.isin(done.index), schema.OBJECTIVE]
        states = list(rows["state"])
        found.append(
            Tuning(
                model=model,
                n_completed=len(objective),
                best=float(objective.min()),
                reference=float(ended.iloc[0]) if len(ended) else None,
                reference_state=schema.COMPLETED if len(ended) else states[0] if states else None,
            )
        )
    return found


def spent(trials: pd.DataFrame) -> pd.DataFrame:
    """What each architecture's search took, whatever became of its trials.

    Returns:
        Columns n_trials, n_completed, n_untimed (trials without recorded training time, which
        count nothing) and seconds, indexed by model, conv first.
    """
    rows = {}
    for model in searched_models(trials):
        search = trials[(trials["group"] == schema.SEARCH) & (trials["model"] == model)]
        rows[model] = {
            "n_trials": len(search),
            "n_completed": int((search["state"] == schema.COMPLETED).sum()),
            "n_untimed": int(search["train_seconds"].isna().sum()),
            "seconds": float(search[list(DEVICE_SECONDS)].sum(axis=1).sum()),
        }
    columns = ["n_trials", "n_completed", "n_untimed", "seconds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def plot_progress(
    data: pd.DataFrame,
    ax: Axes,
    by: Literal["number", "seconds"] = "number",
    looks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Axes:
    """Best objective so far against the trials or the device seconds, a line a model, log axis.

    Trials without a final value are marks at the bottom, one row a model: they have no height.

    Args:
        data: of `search_progress`.
        ax: where to draw.
        by: the column of the x axis; seconds have a log axis.
        looks: of the models, as elsewhere on the page.
    """
    models = models_of(data)
    looks = looks or figures.looks_of(models)
    groups = {model: data[data["model"] == model] for model in models}
    for place, (model, rows) in enumerate(groups.items()):
        look = looks[model]
        found = rows.dropna(subset="best")
        lines = ax.step(
            [*found[by], rows[by].max()],
            [*found["best"], *found["best"].tail(1)] if len(found) else [math.nan],
            where="post",
            color=look["color"],
            linestyle=look["linestyle"],
            label=f"{model}, best so far",
        )
        lines += ax.plot(
            rows[by].astype(float),
            rows["value"],
            look["marker"],
            color=look["color"],
            alpha=0.75,
            label=f"{model}, completed",
        )
        for line in lines:
            figures.tag(line, place)
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low / (high / low) ** 0.2, high)  # room for the marks
    labelled: set[str] = set()
    for place, (model, rows) in enumerate(groups.items()):
        height = 0.04 + 0.06 * place
        ax.text(1.01, height, model, transform=ax.transAxes, fontsize=SMALL_POINTS, va="center")
        for state, marker in STATE_MARKERS.items():
            places = rows.loc[rows["state"] == state, by].astype(float)
            (marks,) = ax.plot(
                places,
                [height] * len(places),
                marker,
                color=looks[model]["color"],
                transform=ax.get_xaxis_transform(),
                zorder=4,
            )
            figures.tag(marks, place)
            if len(places) and state not in labelled:
                labelled.add(state)
                label = f"{state}: no value"
                ax.plot([], [], marker, color="#444444", linestyle="none", label=label)
    ax.set_ylabel(OBJECTIVE_LABEL)
    if by == "number":
        figures.epoch_axis(ax, data["number"].max())
        ax.set_xlabel("Search trial of the model")
    else:
        ax.set_xscale("log")
        figures.log_axis(ax.xaxis, 6)
        ax.set_xlabel("Device time of the model's search (s), log axis")
    figures.log_axis(ax.yaxis)
    figures.legend_above(ax)
    return ax


def budget_table(
    trials: pd.DataFrame, winners: pd.DataFrame, reference: pd.DataFrame
) -> parts.Table:
    """What each architecture's search took and what its winner is worth, then the ratios."""
    rows = []
    cost = spent(trials)
    for model, row in cost.iterrows():
        winner = winner_of(winners, str(model))
        rows.append(
            (
                str(model),
                f"{row['n_trials']:.0f}, {row['n_completed']:.0f} completed",
                f"{row['seconds']:,.0f}",
                winner["name"].iloc[0] if len(winner) else parts.NO_VALUE,
                str(len(winner)),
                mean_and_sd(mean_over_seeds(winner[schema.TEST_MSE])),
            )
        )
    seconds = cost["seconds"]
    for top, bottom in tuned_pairs(winners, list(cost.index)):
        ratio = winners_ratio(winners, top, bottom)
        times = digits(seconds[top] / seconds[bottom]) if seconds[bottom] else parts.NO_VALUE
        n = str(ratio.n if ratio else 0)
        name = f"{top} ÷ {bottom}"
        rows.append((name, parts.NO_VALUE, times, parts.NO_VALUE, n, interval(ratio)))
    untuned = ratio_of(reference, schema.TEST_MSE)
    if untuned is not None:
        dashes = (parts.NO_VALUE,) * 3
        rows.append((f"untuned: {RATIO_NAME}", *dashes, str(untuned.n), interval(untuned)))
    header = ("Model", "Search trials", "Device time (s)", "Winner", "Seeds", "Winner's test MSE")
    return parts.Table(header, rows, right=(2, 4, 5))


def budget_note(trials: pd.DataFrame, winners: pd.DataFrame) -> str:
    """Whether the budgets were equal, and which architecture's winner is ahead."""
    cost = spent(trials)
    trained, n_untimed = cost["n_trials"], int(cost["n_untimed"].sum())
    untimed = ""
    if n_untimed:
        untimed = f" {count(n_untimed, 'search trial')} without recorded time count nothing."
    if len(cost) == 1:
        return f"Only {cost.index[0]} was searched: nothing compares tuned architectures.{untimed}"
    budget = (
        f"Equal budgets: {count(trained.iloc[0], 'search trial')} each, in each model's own space."
    )
    if trained.nunique() > 1:
        each = listed(f"{n} of {model}" for model, n in trained.items())
        budget = f"The budgets were not equal: {each} search trials."
    ahead = tuned_sentence(winners) or "The run has no winners of both to compare."
    return f"{budget}{untimed} {ahead}"


def _time_note(run: Run) -> str:
    """What the searches' times are worth; "" if they had the device alone."""
    searched = run.trials[run.trials["group"] == schema.SEARCH]
    known = searched["n_sharing"].dropna()
    if known.empty:  # runs of before the trials told
        return f"Device times: {shared}" if (shared := sharing(run)) else ""
    if not (n_shared := int((known > 1).sum())):
        return ""
    return (
        "Device time: the sum over the search trials of training, evaluation and compilation;"
        f" {n_shared} of {len(searched)} shared the device with others, so that the ratio is rough."
    )


def tuning_sentences(trials: pd.DataFrame, batch_size: int | None, spread: Spread) -> list[str]:
    """Whether tuning beat the reference's setting, a sentence or two an architecture.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference's setting; None if the run does not say.
        spread: the relative standard deviation of each model's reference over seeds.
    """
    sentences = [
        _tuning_sentence(tuned, spread)
        for tuned in tuning(trials, batch_size)
        if reference_setting(trials, tuned.model, batch_size) is not None
    ]
    if batch_size is None and set(searched_models(trials)) & set(schema.MODELS):
        unknown = "The run does not record the batch size of the reference's setting: not compared."
        sentences.insert(0, unknown)
    return sentences


def _tuning_sentence(tuned: Tuning, spread: Spread) -> str:
    best = f"the best of {count(tuned.n_completed, 'completed trial')}, {digits(tuned.best)}"
    if tuned.reference is None:
        why = (
            "no search trial has the reference's setting"
            if tuned.reference_state is None
            else f"the search trial with the reference's setting is {tuned.reference_state}"
        )
        return f"{tuned.model}: whether tuning beat the reference is not known, as {why}; {best}."
    reference = f"validation MSE {digits(tuned.reference)}"
    if tuned.best >= tuned.reference:
        others = "no other search trial completed"
        if tuned.n_completed > 1:
            others = f"none of {count(tuned.n_completed - 1, 'other completed trial')} is better"
        return (
            f"{tuned.model}: tuning did not beat the reference's setting ({reference}): {others}."
        )
    sentence = (
        f"{tuned.model}: tuning beat the reference's setting in the search: {best}, is"
        f" {digits(tuned.best / tuned.reference)} times its {reference}. One seed each"
    )
    if (known := spread.get(tuned.model)) is None:
        return f"{sentence}: how much of it is chance is not known."
    return f"{sentence}; the reference's varies by {share(known)} over seeds (sd)."


def chapter(run: Run, spread: Spread = MappingProxyType({})) -> parts.Chapter:
    """What the search found, and who is ahead when both architectures are tuned.

    Args:
        run: a run.
        spread: the relative standard deviation of each model's reference over seeds.
    """
    trials, reference = run.trials, run.reference
    models = searched_models(trials)
    winners = winner_trials(trials)
    content: list[parts.Part] = []
    if models:
        with figures.style():
            content += [
                parts.Heading(_heading(models)),
                parts.Text(budget_note(trials, winners)),
                budget_table(trials, winners, reference),
                *([parts.Text(note, soft=True)] if (note := _time_note(run)) else []),
                parts.Figures([f for f in (_draw(run, "number"), _draw(run, "seconds")) if f]),
            ]
    over_seeds = finalists.content(run)
    content += over_seeds
    size = run.manifest["spec"].get("batch_size")
    rest = trials[~trials["model"].isin(models_of(trials[trials["group"] == schema.FINALIST]))]
    if said := tuning_sentences(rest, size, spread) if len(completed_search(rest)) else []:
        title = "Did tuning beat the report's setting?"
        if over_seeds or not set(searched_models(rest)) <= set(schema.MODELS):
            title = "Did tuning beat the reference setting, with one seed?"
        content += [parts.Heading(title), parts.Items(said)]
    if not winners.empty:
        content += [
            parts.Heading("Winners"),
            winner_table(winners, reference),
            parts.Text(winner_note(winners, reference), soft=True),
        ]
    shown = [part for part in content if not isinstance(part, parts.Figures) or part.figures]
    gaps = [*_gaps(trials, models, winners), *finalists.gaps(run)]
    return parts.Chapter("search", "Search", shown, gaps)


def _heading(models: list[str]) -> str:
    if len(models) == 1:
        return f"What the search of {models[0]} took and found"
    if set(models) <= set(schema.MODELS):
        return "Conv against dense, both tuned"
    return sentence_case(f"{listed(models)}, each tuned")


def _gaps(trials: pd.DataFrame, models: list[str], winners: pd.DataFrame) -> list[str]:
    if not models:
        return ["No search trials in this run."]
    alone = ": nothing compares tuned architectures" if len(models) == 1 else ""
    others = schema.MODELS if set(models) <= set(schema.MODELS) else models_of(trials)
    gaps = [f"The search has no trials of {m}{alone}." for m in others if m not in models]
    n_completed = spent(trials)["n_completed"]
    over_seeds = finalists.by_model(finalists.finalists(trials, None))
    for model in models:
        n = n_completed[model]
        if n == 0:
            gaps.append(f"No search trial of {model} completed: it has no best setting.")
        elif n == 1:
            gaps.append(f"One search trial of {model} completed: the best for want of others.")
        winner = winner_of(winners, model)
        if n and winner.empty:
            gaps.append(f"No completed winner of {model}: its tuned test MSE is not known.")
        best = finalists.winner_among(over_seeds.get(model, []))
        if len(winner) and best and winner["key"].iloc[0] != key_of(best.trial):
            gaps.append(
                f"The winner of {model} that was tested is not the best finalist's setting."
            )
    return gaps


def _draw(run: Run, by: Literal["number", "seconds"]) -> parts.Figure | None:
    data = search_progress(run.trials)
    if by == "seconds":
        data = data[data["seconds"] > 0]  # a log axis has no place for trials before any time
    if data["value"].notna().sum() == 0:
        return None
    figure, ax = figures.new_figure(4.0)
    looks = figures.looks_of(models_of(run.trials))
    plot_progress(data, ax, by, looks)
    found = data.dropna(subset="value").groupby("model")["value"].min()
    best = ", ".join(f"{model} {digits(value)}" for model, value in found.items())
    caption = f"{n_trials(run.trials, run.manifest)}."
    if by == "seconds":
        caption += " Training, evaluation and compilation of all trials so far."
    lost = [f"{mark} {state}" for state, mark in MARKS.items() if (data["state"] == state).any()]
    if lost:
        caption += f" At the bottom, without a value: {', '.join(lost)}."
    models = models_of(data)
    known = data.dropna(subset="value")
    settings = run.trials.set_index("trial_id").loc[known["trial_id"]]
    said = [
        f"{trial_id}: {digits(value)}; {setting_words(trial)}"
        for (trial_id, trial), value in zip(settings.iterrows(), known["value"], strict=True)
    ]
    known = known.assign(said=said)
    return figures.finish(
        figure,
        PROGRESS if by == "number" else PROGRESS_SECONDS,
        f"Best validation MSE so far, by {'trial' if by == 'number' else 'device time'}",
        f"Best validation MSE of the search: {best}.",
        caption,
        f"{sharing(run)} {rests_on(run)}".strip(),
        series=[figures.series_of(model, looks[model]) for model in models],
        by="point",
        points=[
            (ax, Points(models.index(str(model)), rows[by], rows["value"], list(rows["said"])))
            for model, rows in known.groupby("model")
        ],
    )


def n_trials(trials: pd.DataFrame, manifest: Mapping[str, Any], model: str | None = None) -> str:
    """How many search trials there are, and how they were trained."""
    found = trials[trials["group"] == schema.SEARCH]
    if model is not None:
        found = found[found["model"] == model]
    counts = ", ".join(
        f"{count(n, 'trial')} ({name})" for name, n in found.groupby("model").size().items()
    )
    n_images = manifest["data"].get("n_train", N_MNIST)  # older runs, all of MNIST, do not say
    n = n_fitted(n_images)
    return (
        f"{counts}, one seed each, at most {count(found['epochs'].max(), 'epoch')}; trained on"
        f" {n:,} images, validated on {n_images - n:,}"
    )
