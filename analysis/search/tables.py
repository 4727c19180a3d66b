"""The search's tables as rows of words, and the sentences that say what they show.

In rows, the first is the header and the first cell of each names it, as in `analysis.page.tables`.
"""

from typing import Final

import pandas as pd

from analysis import statistics
from analysis.page.tables import Rows
from analysis.search import importances, neighbours, results
from analysis.statistics import CONV_NAME, DENSE_NAME, Estimate
from analysis.words import (
    count,
    digits,
    factor_value,
    interval,
    mean_and_sd,
    open_values,
    parameter_label,
    setting_value,
    share,
)
from study.folder import schema

NO_CELL: Final = "–"


def search_rows(best: pd.DataFrame) -> Rows:
    """A row a trial of `analysis.search.results.best_search_trials`."""
    columns = [p.name for p in schema.HYPERPARAMETERS if not p.of_architecture] + ["epochs"]
    return [["Trial", "Model", "Validation MSE", *map(parameter_label, columns)]] + [
        [
            trial["trial_id"],
            statistics.architecture(trial),
            digits(trial[schema.OBJECTIVE]),
            *(setting_value(trial[column]) for column in columns),
        ]
        for _, trial in best.iterrows()
    ]


def winner_rows(winners: pd.DataFrame, reference: pd.DataFrame) -> Rows:
    """A row a winning setting, beside the untuned reference.

    The reference is that of the same architecture or, where the run has none of its size, the
    report's model of the same kind; its cell names it.

    Args:
        winners: of `analysis.search.results.winner_trials`.
        reference: of `analysis.statistics.reference_trials`.
    """
    rows = [
        [
            "Model",
            "Setting",
            "Seeds",
            "Search's validation MSE",
            "Training MSE",
            "Test MSE",
            "Reference's test MSE",
        ]
    ]
    for _, of_setting in winners.groupby(list(statistics.NAMED_SETTING), dropna=False):
        trial = of_setting.iloc[0]
        beside = _reference_of(trial, reference)
        estimate = statistics.mean_of(reference, beside, schema.TEST_MSE)
        rows.append(
            [
                trial["name"],
                _setting(trial),
                str(len(of_setting)),
                setting_value(trial["chosen_by_val_mse"]),
                *(
                    mean_and_sd(statistics.mean_over_seeds(of_setting[metric]))
                    for metric in (schema.TRAIN_MSE, schema.TEST_MSE)
                ),
                f"{beside}: {mean_and_sd(estimate)} (n = {estimate.n})" if estimate else "–",
            ]
        )
    return rows


def winner_note(winners: pd.DataFrame, reference: pd.DataFrame) -> str:
    """What may, and what may not, be read from `winner_rows`."""
    note = (
        "The setting with the least validation MSE in each model's search, trained again on all"
        " 60,000 images and only then tested; mean ± sample standard deviation over seeds. That"
        " validation MSE is the least of several trials, with one seed: it flatters its setting."
    )
    if reference.empty:
        return note + " This run has no completed reference trial to compare with."
    n_least = min(
        winners.groupby(list(statistics.NAMED_SETTING), dropna=False).size().min(),
        reference.groupby("name").size().min(),
    )
    if n_least == 1:
        note += (
            " One seed has no spread: whether a winner is better than the reference, or differs by"
            " chance, this run cannot say."
        )
    else:
        note += " A difference that is not much larger than the spreads may be chance."
    return f"{note} The reference was not tuned; it has {open_values(reference)}."


def _reference_of(trial: pd.Series, reference: pd.DataFrame) -> str:
    if trial["name"] in statistics.names(reference):
        return str(trial["name"])
    return CONV_NAME if trial["model"] == schema.CONV else DENSE_NAME


def _setting(trial: pd.Series) -> str:
    columns = [*statistics.SETTING]
    if trial["model"] == schema.DENSE:
        columns += statistics.DENSE_SETTING
    if trial["precision"] == "float32":  # which goes without saying
        columns.remove("precision")
    return ", ".join(f"{name.replace('_', ' ')} {setting_value(trial[name])}" for name in columns)


def budget_rows(trials: pd.DataFrame, winners: pd.DataFrame, reference: pd.DataFrame) -> Rows:
    """What each architecture's search took and what its winner is worth, then the ratios.

    Args:
        trials: of `analysis.load.load_run`.
        winners: of `analysis.search.results.winner_trials`.
        reference: of `analysis.statistics.reference_trials`.
    """
    rows = [["Model", "Search trials", "Device time (s)", "Winner", "Seeds", "Winner's test MSE"]]
    spent = results.spent(trials)
    for model, row in spent.iterrows():
        winner = results.winner_of(winners, str(model))
        estimate = statistics.mean_over_seeds(winner[schema.TEST_MSE])
        rows.append(
            [
                str(model),
                f"{row['n_trials']:.0f}, {row['n_completed']:.0f} completed",
                f"{row['seconds']:,.0f}",
                winner["name"].iloc[0] if len(winner) else NO_CELL,
                str(len(winner)),
                mean_and_sd(estimate),
            ]
        )
    ratio = results.winners_ratio(winners)
    if len(spent) > 1:
        seconds = spent["seconds"]
        rows.append(
            [
                "dense ÷ conv",
                NO_CELL,
                digits(seconds[schema.DENSE] / seconds[schema.CONV])
                if seconds[schema.CONV]
                else NO_CELL,
                NO_CELL,
                str(ratio.n if ratio else 0),
                interval(ratio),
            ]
        )
    untuned = statistics.ratio_of(reference, schema.TEST_MSE, DENSE_NAME, CONV_NAME)
    if untuned is not None:
        label = f"untuned reference: {DENSE_NAME} ÷ {CONV_NAME}"
        rows.append([label, NO_CELL, NO_CELL, NO_CELL, str(untuned.n), interval(untuned)])
    return rows


def budget_note(trials: pd.DataFrame, winners: pd.DataFrame) -> str:
    """Whether the budgets were equal, and which architecture's winner is ahead."""
    spent = results.spent(trials)
    trained = spent["n_trials"]
    if len(spent) == 1:
        return (
            f"Only {spent.index[0]} was searched: nothing here compares tuned architectures."
            f"{_untimed(spent)}"
        )
    if trained.nunique() == 1:
        budget = (
            f"Equal budgets: {count(trained.iloc[0], 'search trial')} each, whatever became of"
            " them; their device times differ with the models."
        )
    else:
        each = " and ".join(f"{n} of {model}" for model, n in trained.items())
        budget = f"The budgets were not equal: {each} search trials."
    return f"{budget}{_untimed(spent)} {_ahead(results.winners_ratio(winners))}"


def _untimed(spent: pd.DataFrame) -> str:
    n = int(spent["n_untimed"].sum())
    return f" {count(n, 'search trial')} without recorded time count nothing." if n else ""


def _ahead(ratio: Estimate | None) -> str:
    if ratio is None:
        return "The run has no winners of both to compare."
    if ratio.low is None:
        ahead = schema.DENSE if ratio.mean < 1 else schema.CONV
        return (
            f"With one seed {ahead}'s winner has the lower test MSE; whether that is chance, this"
            " run cannot say."
        )
    if ratio.lowest <= 1 <= ratio.highest:
        return "Which of the tuned architectures is ahead is undecided: the interval contains 1."
    ahead = schema.DENSE if ratio.highest < 1 else schema.CONV
    return f"Tuned, {ahead} is ahead on the test set: the interval of the ratio excludes 1."


def tuning_sentences(trials: pd.DataFrame, batch_size: int | None) -> list[str]:
    """Whether tuning beat the reference's setting, a sentence or two an architecture.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference's setting; None if the run does not say.
    """
    if batch_size is None:
        return ["The run does not record the batch size of the reference's setting: not compared."]
    return [_tuning_sentence(tuned, trials) for tuned in results.tuning(trials, batch_size)]


def _tuning_sentence(tuned: results.Tuning, trials: pd.DataFrame) -> str:
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
        f" {digits(tuned.best / tuned.reference)} times its {reference}."
    )
    spread = neighbours.relative_spread(neighbours.reference_spread(trials, tuned.model))
    if spread is None:
        return f"{sentence} One seed each: how much of it is chance is not known."
    return (
        f"{sentence} One seed each; over the seeds of the neighbour trials the reference's varies"
        f" by {share(spread)} (standard deviation)."
    )


def importance_gap(trials: pd.DataFrame, model: str) -> str:
    """Why a model has no parameter importances."""
    n = int((results.completed_search(trials)["model"] == model).sum())
    if n >= importances.MIN_COMPLETED:
        return f"No parameter importances of {model}: its completed trials do not differ."
    return (
        f"No parameter importances of {model}: {count(n, 'completed search trial')}, of at least"
        f" {importances.MIN_COMPLETED}. They compare the best {share(importances.BEST_SHARE)} with"
        f" all, and Optuna advises {importances.MIN_BEST} trials among the best; below that, what"
        " they show is mostly chance."
    )


def sensitivity_rows(trials: pd.DataFrame, model: str) -> Rows:
    """The reference and each neighbour of a model.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.
    """
    ratio_label = "Validation MSE ÷ the reference's"
    rows = [["Setting", ratio_label, "Exceeds the seed spread", "Without a value"]]
    reference = neighbours.reference_spread(trials, model)
    spread = neighbours.relative_spread(reference)
    if reference is not None:
        value = f"1: {mean_and_sd(reference)} (n = {reference.n})"
        by_seed = NO_CELL if spread is None else f"sd ÷ mean {share(spread)}"
        rows.append(["the reference", value, by_seed, NO_CELL])
    for _, row in neighbours.sensitivity(trials, model).iterrows():
        ratio = None
        if row["n"]:
            ends = (None if pd.isna(row[end]) else row[end] for end in ("low", "high"))
            ratio = Estimate(row["mean"], row["n"], None, *ends)
        without = [
            f"{row[state]} {'not ended' if state == schema.RUNNING else state}"
            for state in schema.STATES
            if state != schema.COMPLETED and row[state]
        ]
        rows.append(
            [
                f"{parameter_label(row['factor']).lower()} {factor_value(row['value'])}",
                interval(ratio),
                setting_value(row["exceeds"]),
                ", ".join(without) or NO_CELL,
            ]
        )
    return rows


SENSITIVITY_NOTE: Final = (
    "Neighbour trials change one factor of the reference and are judged, like it, by the validation"
    " MSE of the search's images; the test set is not used. Ratios are geometric means paired by"
    " seed. One exceeds the seed spread if it lies outside a factor of 1 + the reference's relative"
    " standard deviation and its interval excludes 1. Trials that diverged or failed have no value:"
    " a mean beside them is of the seeds that did not."
)


def pareto_rows(data: pd.DataFrame) -> Rows:
    """The trials on a front, the quickest first.

    Args:
        data: of `analysis.search.results.pareto_trials`.
    """
    header = ["Trial", "Model", "Training time (s)", "Validation MSE", "Front", "Setting"]
    return [header] + [
        [
            trial["trial_id"],
            trial["name"],
            digits(trial[schema.TIME_OBJECTIVE]),
            digits(trial[schema.OBJECTIVE]),
            f"{trial['model']} and both" if trial["on_joint_front"] else trial["model"],
            _setting(trial),
        ]
        for _, trial in data[data["on_own_front"]].iterrows()
    ]


def pareto_note(data: pd.DataFrame) -> str:
    """What the fronts are, and the trials whose times are not comparable."""
    shown, others = data[data["comparable"]], data[~data["comparable"]]
    note = (
        "Trials that no other completed search trial of their architecture, or of both, beats in"
        " validation MSE and training time at once. Trials ran one at a time on a device, so that"
        f" times compare; {count(len(shown), 'trial')} on {shown['device'].iloc[0]}."
    )
    if len(others):
        listed = ", ".join(others["trial_id"])
        note += f" Not comparable, as on another device or an unknown one: {listed}."
    return note
