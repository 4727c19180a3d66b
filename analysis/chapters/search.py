"""The search: its progress, whether tuning beat the report's setting, and which model wins tuned.

A trial has an objective only if it completed, and the test set is the winners' alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures, statistics
from analysis.chapters import parts
from analysis.chapters.times import sharing
from analysis.figures import LOOKS, MSE_UNIT, Points
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    NAMED_SETTING,
    RATIO_NAME,
    Estimate,
    mean_over_seeds,
    ratio_of,
    ratio_over_seeds,
    with_names,
)
from analysis.words import (
    count,
    digits,
    interval,
    mean_and_sd,
    rests_on,
    setting,
    setting_value,
    share,
    short,
)
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
# The report's setting, apart from the batch size, which it does not state.
REPORT_SETTING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        model: {
            p.name: p.default for p in schema.hyperparameters_of(model) if p.name != "batch_size"
        }
        for model in schema.MODELS
    }
)

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


def searched_models(trials: pd.DataFrame) -> list[str]:
    """The architectures that have search trials, conv first."""
    found = set(trials.loc[trials["group"] == schema.SEARCH, "model"])
    return [model for model in schema.MODELS if model in found]


def completed_search(trials: pd.DataFrame) -> pd.DataFrame:
    """The search trials that have an objective."""
    done = (trials["group"] == schema.SEARCH) & (trials["state"] == schema.COMPLETED)
    return trials[done & trials[schema.OBJECTIVE].notna()]


def best_search_trials(trials: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n completed search trials of each model with the least objective, best first."""
    done = completed_search(trials).sort_values(["model", schema.OBJECTIVE], kind="stable")
    return done.groupby("model").head(n).reset_index(drop=True)


def has_setting(trials: pd.DataFrame, setting: Mapping[str, Any]) -> pd.Series:
    """Which rows have these values."""
    found = pd.Series(True, index=trials.index)
    for name, value in setting.items():
        column = trials[name]
        equal = np.isclose(column, value) if isinstance(value, float) else column == value
        found &= pd.Series(equal, index=trials.index).fillna(False).astype(bool)
    return found


def reference_in_search(trials: pd.DataFrame, model: str, batch_size: int | None) -> pd.DataFrame:
    """The search trials of a model that have the reference's setting.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.
        batch_size: of the reference setting; None if the run does not say, then no trial has it.
    """
    if batch_size is None:
        return trials.iloc[:0]
    setting = {"group": schema.SEARCH, "model": model, "batch_size": batch_size}
    return trials[has_setting(trials, setting | dict(REPORT_SETTING[model]))]


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


def winner_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials of the searches' winning settings, trained on the full split and tested.

    Returns:
        Rows of `trials` with the columns `name` and `chosen_by_val_mse`: the objective of the
        completed search trial with the same setting, missing if there is none.
    """
    done = with_names(trials[trials["state"] == schema.COMPLETED])
    winners = done[
        (done["group"] == schema.WINNER)
        & (done["split"] == schema.FULL_SPLIT)
        & done[schema.TEST_MSE].notna()
    ]
    searched = done[done["group"] == schema.SEARCH].groupby(list(NAMED_SETTING), dropna=False)[
        schema.OBJECTIVE
    ]
    chosen_by = searched.min().rename("chosen_by_val_mse").reset_index()
    return winners.merge(chosen_by, "left", list(NAMED_SETTING)).sort_values(["name", "seed"])


def winner_of(winners: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rows of `winner_trials` of a model's one winning setting, indexed by seed.

    Should the run hold several, it is the one that was chosen by the least objective.
    """
    rows = winners[winners["model"] == model].sort_values("chosen_by_val_mse", kind="stable")
    if len(rows):
        groups = rows.groupby(list(NAMED_SETTING), dropna=False).ngroup()
        rows = rows[groups == groups.iloc[0]]
    return rows.drop_duplicates("seed").set_index("seed").sort_index()


def winners_ratio(winners: pd.DataFrame) -> Estimate | None:
    """Test MSE of the conv winner ÷ the dense winner's, paired by seed; None without a pair."""
    conv, dense = (winner_of(winners, model)[schema.TEST_MSE] for model in schema.MODELS)
    return ratio_over_seeds(conv, dense)


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
    data: pd.DataFrame, ax: Axes, by: Literal["number", "seconds"] = "number"
) -> Axes:
    """Best objective so far against the trials or the device seconds, a line a model, log axis.

    Trials without a final value are marks at the bottom, one row a model: they have no height.

    Args:
        data: of `search_progress`.
        ax: where to draw.
        by: the column of the x axis; seconds have a log axis.
    """
    groups = {str(model): rows for model, rows in data.groupby("model")}
    for place, (model, rows) in enumerate(groups.items()):
        look = LOOKS[model]
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
                color=LOOKS[model]["color"],
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


def winner_table(winners: pd.DataFrame, reference: pd.DataFrame) -> parts.Table:
    """A row a winning setting, beside the untuned reference.

    The reference is that of the same architecture or, where the run has none of its size, the
    report's model of the same kind; its cell names it.
    """
    rows = []
    for _, of_setting in winners.groupby(list(NAMED_SETTING), dropna=False):
        trial = of_setting.iloc[0]
        untuned = CONV_NAME if trial["model"] == schema.CONV else DENSE_NAME
        beside = trial["name"] if trial["name"] in statistics.names(reference) else untuned
        estimate = statistics.mean_of(reference, beside, schema.TEST_MSE)
        means = [
            mean_and_sd(mean_over_seeds(of_setting[m])) for m in (schema.TRAIN_MSE, schema.TEST_MSE)
        ]
        rows.append(
            (
                trial["name"],
                setting_words(trial),
                str(len(of_setting)),
                setting_value(trial["chosen_by_val_mse"]),
                *means,
                f"{beside}: {mean_and_sd(estimate)} (n = {estimate.n})"
                if estimate
                else parts.NO_VALUE,
            )
        )
    header = ("Model", "Setting", "Seeds", "Its validation MSE", "Training MSE", "Test MSE")
    return parts.Table((*header, "Untuned test MSE"), rows, right=(2, 3, 4, 5, 6))


def setting_words(trial: pd.Series) -> str:
    """A trial's setting beside its architecture's name."""
    columns = [p.name for p in schema.hyperparameters_of(trial["model"]) if not p.of_architecture]
    precision = ["precision"] * (trial["precision"] != "float32")  # which goes without saying
    return setting(trial, [*columns, *precision])


def winner_note(winners: pd.DataFrame, reference: pd.DataFrame) -> str:
    """What may, and what may not, be read from `winner_table`."""
    note = (
        "The setting with the least validation MSE of each model's search, trained again on all"
        " 60,000 images and only then tested. That validation MSE is the least of several trials,"
        " with one seed: it flatters its setting."
    )
    if reference.empty:
        return note + " This run has no completed reference trial to compare with."
    n_least = min(
        winners.groupby(list(NAMED_SETTING), dropna=False).size().min(),
        reference.groupby("name").size().min(),
    )
    if n_least == 1:
        return f"{note} One seed has no spread: a difference may be chance."
    return f"{note} A difference that is not much larger than the spreads may be chance."


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
    if len(cost) > 1:
        seconds, ratio = cost["seconds"], winners_ratio(winners)
        times = (
            digits(seconds[schema.CONV] / seconds[schema.DENSE])
            if seconds[schema.DENSE]
            else parts.NO_VALUE
        )
        n = str(ratio.n if ratio else 0)
        rows.append(("conv ÷ dense", parts.NO_VALUE, times, parts.NO_VALUE, n, interval(ratio)))
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
    budget = f"Equal budgets: {count(trained.iloc[0], 'search trial')} each."
    if trained.nunique() > 1:
        each = " and ".join(f"{n} of {model}" for model, n in trained.items())
        budget = f"The budgets were not equal: {each} search trials."
    ahead = who_is_ahead(winners_ratio(winners)) or "The run has no winners of both to compare."
    return f"{budget}{untimed} {ahead}"


def who_is_ahead(ratio: Estimate | None) -> str:
    """A sentence on `winners_ratio`; "" for none."""
    if ratio is None:
        return ""
    ahead = schema.DENSE if ratio.mean > 1 else schema.CONV
    value = f"conv's winner has {short(ratio.mean)} times the dense one's test MSE"
    if ratio.low is None:
        return f"Tuned, {value} (n = 1 seed): {ahead} is ahead, unless by chance."
    seeds = f"95 % interval {short(ratio.lowest)} to {short(ratio.highest)}, n = {ratio.n} seeds"
    if not ratio.excludes(1):
        return f"Tuned, {value} ({seeds}): who is ahead is undecided."
    return f"Tuned, {value} ({seeds}): {ahead} is ahead."


def tuning_sentences(trials: pd.DataFrame, batch_size: int | None, spread: Spread) -> list[str]:
    """Whether tuning beat the reference's setting, a sentence or two an architecture.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference's setting; None if the run does not say.
        spread: the relative standard deviation of each model's reference over seeds.
    """
    if batch_size is None:
        return ["The run does not record the batch size of the reference's setting: not compared."]
    return [_tuning_sentence(tuned, spread) for tuned in tuning(trials, batch_size)]


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
                parts.Heading("Conv against dense, both tuned"),
                parts.Text(budget_note(trials, winners)),
                budget_table(trials, winners, reference),
                *(
                    [parts.Text(f"Device times: {shared}", soft=True)]
                    if (shared := sharing(run))
                    else []
                ),
                parts.Figures([f for f in (_draw(run, "number"), _draw(run, "seconds")) if f]),
            ]
    if not completed_search(trials).empty:
        size = run.manifest["spec"].get("batch_size")
        content += [
            parts.Heading("Did tuning beat the report's setting?"),
            parts.Items(tuning_sentences(trials, size, spread)),
        ]
    if not winners.empty:
        content += [
            parts.Heading("Winners"),
            winner_table(winners, reference),
            parts.Text(winner_note(winners, reference), soft=True),
        ]
    shown = [part for part in content if not isinstance(part, parts.Figures) or part.figures]
    return parts.Chapter("search", "Search", shown, _gaps(trials, models, winners))


def _gaps(trials: pd.DataFrame, models: list[str], winners: pd.DataFrame) -> list[str]:
    if not models:
        return ["No search trials in this run."]
    gaps = [
        f"The search has no trials of {model}: nothing compares tuned architectures."
        for model in schema.MODELS
        if model not in models
    ]
    n_completed = spent(trials)["n_completed"]
    for model in models:
        n = n_completed[model]
        if n == 0:
            gaps.append(f"No search trial of {model} completed: it has no best setting.")
        elif n == 1:
            gaps.append(f"One search trial of {model} completed: the best for want of others.")
        if n and winner_of(winners, model).empty:
            gaps.append(f"No completed winner of {model}: its tuned test MSE is not known.")
    return gaps


def _draw(run: Run, by: Literal["number", "seconds"]) -> parts.Figure | None:
    data = search_progress(run.trials)
    if by == "seconds":
        data = data[data["seconds"] > 0]  # a log axis has no place for trials before any time
    if data["value"].notna().sum() == 0:
        return None
    figure, ax = figures.new_figure(4.0)
    plot_progress(data, ax, by)
    found = data.dropna(subset="value").groupby("model")["value"].min()
    best = ", ".join(f"{model} {digits(value)}" for model, value in found.items())
    caption = f"{n_trials(run.trials)}."
    if by == "seconds":
        caption += " Training, evaluation and compilation of all trials so far."
    lost = [f"{mark} {state}" for state, mark in MARKS.items() if (data["state"] == state).any()]
    if lost:
        caption += f" At the bottom, without a value: {', '.join(lost)}."
    models = list(dict.fromkeys(sorted(data["model"])))
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
        series=[figures.series_of(model, LOOKS[model]) for model in models],
        by="point",
        points=[
            (ax, Points(models.index(model), rows[by], rows["value"], list(rows["said"])))
            for model, rows in known.groupby("model")
        ],
    )


def n_trials(trials: pd.DataFrame, model: str | None = None) -> str:
    """How many search trials there are, and how they were trained."""
    found = trials[trials["group"] == schema.SEARCH]
    if model is not None:
        found = found[found["model"] == model]
    counts = ", ".join(
        f"{count(n, 'trial')} ({name})" for name, n in found.groupby("model").size().items()
    )
    return (
        f"{counts}, one seed each, at most {count(found['epochs'].max(), 'epoch')}; trained on"
        " 50,000 images, validated on 10,000"
    )
