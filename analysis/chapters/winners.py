"""The winners: each model's chosen setting, trained again on all training images and tested."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.chapters import parts
from analysis.chapters.finalists import finalists
from analysis.chapters.settings import completed_search, key_of, setting_words, with_keys
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    Estimate,
    mean_over_seeds,
    models_of,
    ratio_over_seeds,
    with_names,
)
from analysis.words import digits, mean_and_sd, seeds, setting_value, short
from study.folder import schema

CHOSEN_BY: Final = ("chosen_by_val_mse", "chosen_by_sd", "chosen_by_n", "chosen_last")


def winner_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials of the searches' winning settings, trained on the full split and tested.

    Returns:
        Rows of `trials` with the columns `name`, `key` (of the setting), `chosen_by_val_mse` (the
        finalist's mean over fresh seeds, or else the objective of the completed search trial, with
        the same setting; missing if there is neither), `chosen_by_sd` and `chosen_by_n` (of the
        fresh seeds; n is 0 without) and `chosen_last`: true of what a finalist would come before.
    """
    done = with_names(trials[trials["state"] == schema.COMPLETED])
    winners = with_keys(
        done[
            (done["group"] == schema.WINNER)
            & (done["split"] == schema.FULL_SPLIT)
            & done[schema.TEST_MSE].notna()
        ]
    )
    searched = with_keys(completed_search(trials)).groupby("key")[schema.OBJECTIVE].min()
    # The reference's batch size is of no account here.
    fresh = {key_of(one.trial): one for one in finalists(trials, None)}
    rows: list[tuple[Any, ...]] = []
    for key in winners["key"]:
        one = fresh.get(key)
        if one is not None and one.mean is not None:
            rows.append((one.mean.mean, one.mean.sd, one.mean.n, bool(one.lost)))
        else:
            rows.append((searched.get(key), None, 0, True))
    chosen = pd.DataFrame(rows, index=winners.index, columns=list(CHOSEN_BY))
    numbers = {"chosen_by_val_mse": "float64", "chosen_by_sd": "float64"}
    return winners.join(chosen.astype(numbers)).sort_values(["name", "seed"])


def winner_of(winners: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rows of `winner_trials` of a model's one winning setting, indexed by seed.

    Should the run hold several, it is the one that was chosen by the least validation MSE, a
    finalist before one that was none.
    """
    rows = winners[winners["model"] == model]
    rows = rows.sort_values(["chosen_last", "chosen_by_val_mse"], kind="stable")
    if len(rows):
        first = rows["key"].iloc[0]
        rows = rows[[key == first for key in rows["key"]]]
    return rows.drop_duplicates("seed").set_index("seed").sort_index()


def winners_ratio(
    winners: pd.DataFrame, top: str = schema.CONV, bottom: str = schema.DENSE
) -> Estimate | None:
    """Test MSE of one model's winner ÷ another's, paired by seed; None without a pair."""
    its, others = (winner_of(winners, model)[schema.TEST_MSE] for model in (top, bottom))
    return ratio_over_seeds(its, others)


def winner_table(winners: pd.DataFrame, reference: pd.DataFrame) -> parts.Table:
    """A row a winning setting, beside the untuned reference.

    The reference is that of the same architecture or, where the run has none of its size, that of
    the model's own reference setting; its cell names it.
    """
    rows = []
    for _, of_setting in winners.groupby("key", sort=False):
        trial = of_setting.iloc[0]
        beside = _untuned(trial, reference)
        estimate = statistics.mean_of(reference, beside, schema.TEST_MSE)
        means = [
            mean_and_sd(mean_over_seeds(of_setting[m])) for m in (schema.TRAIN_MSE, schema.TEST_MSE)
        ]
        chosen = setting_value(trial["chosen_by_val_mse"])
        if n := int(trial["chosen_by_n"]):
            sd = None if np.isnan(trial["chosen_by_sd"]) else trial["chosen_by_sd"]
            of_seeds = Estimate(trial["chosen_by_val_mse"], n, sd)
            chosen = f"{mean_and_sd(of_seeds)} ({seeds([n]).replace('seed', 'fresh seed')})"
        rows.append(
            (
                trial["name"],
                setting_words(trial),
                str(len(of_setting)),
                chosen,
                *means,
                f"{beside}: {mean_and_sd(estimate)} (n = {estimate.n})"
                if estimate
                else parts.NO_VALUE,
            )
        )
    header = ("Model", "Setting", "Seeds", "Its validation MSE", "Training MSE", "Test MSE")
    return parts.Table((*header, "Untuned test MSE"), rows, right=(2, 3, 4, 5, 6))


def _untuned(trial: pd.Series, reference: pd.DataFrame) -> str:
    """The name of the reference that a winner is put beside."""
    model = trial["model"]
    if model not in schema.MODELS:
        its = reference[reference["model"] == model]
        same = its[its["arguments"] == trial["arguments"]]
        found = same if len(same) else its
        return str(found["name"].iloc[0]) if len(found) else ""
    if trial["name"] in statistics.names(reference):
        return str(trial["name"])
    return CONV_NAME if model == schema.CONV else DENSE_NAME


def winner_note(winners: pd.DataFrame, reference: pd.DataFrame) -> str:
    """What may, and what may not, be read from `winner_table`."""
    fresh = winners["chosen_by_n"] > 0
    chosen = "The setting with the least validation MSE of each model's search"
    flatters = (
        " That validation MSE is the least of several trials, with one seed: it flatters its"
        " setting."
    )
    if fresh.all():
        chosen, flatters = "The finalist with the least mean validation MSE of each model", ""
    elif fresh.any():
        chosen = "The finalist with the least mean validation MSE, or else the best search trial"
        flatters = " Where it is not of fresh seeds, one lucky seed flatters its setting."
    note = f"{chosen}, trained again on all training images and only then tested.{flatters}"
    if reference.empty:
        return note + " This run has no completed reference trial to compare with."
    n_least = min(
        winners.groupby("key").size().min(),
        reference.groupby("name").size().min(),
    )
    if n_least == 1:
        return f"{note} One seed has no spread: a difference may be chance."
    return f"{note} A difference that is not much larger than the spreads may be chance."


def who_is_ahead(ratio: Estimate | None, top: str = schema.CONV, bottom: str = schema.DENSE) -> str:
    """A sentence on `winners_ratio`; "" for none."""
    if ratio is None:
        return ""
    ahead = bottom if ratio.mean > 1 else top
    value = f"{top}'s winner has {short(ratio.mean)} times the {bottom} one's test MSE"
    if ratio.low is None:
        return f"Tuned, {value} (n = 1 seed): {ahead} is ahead, unless by chance."
    its_seeds = f"95 % interval {short(ratio.lowest)} to {short(ratio.highest)}, {seeds([ratio.n])}"
    if not ratio.excludes(1):
        return f"Tuned, {value} ({its_seeds}): who is ahead is undecided."
    return f"Tuned, {value} ({its_seeds}): {ahead} is ahead."


def tuned_pairs(winners: pd.DataFrame, models: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of models to compare tuned: all of up to three, or else each beside the best."""
    if len(models) <= 3:
        return list(combinations(models, 2))
    means = {model: winner_of(winners, model)[schema.TEST_MSE].mean() for model in models}
    best = min(models, key=lambda model: (bool(np.isnan(means[model])), means[model]))
    return [(model, best) for model in models if model != best]


def tuned_sentence(winners: pd.DataFrame) -> str:
    """Which model's winner is ahead: of conv and dense, or the best beside the next of others."""
    models = models_of(winners)
    if set(models) <= set(schema.MODELS):
        return who_is_ahead(winners_ratio(winners))
    means = {model: winner_of(winners, model)[schema.TEST_MSE].mean() for model in models}
    best, *others = sorted(models, key=lambda model: means[model])
    if not others:
        n = len(winner_of(winners, best))
        return f"Tuned, {best} has a test MSE of {digits(means[best])} ({seeds([n])})."
    return who_is_ahead(winners_ratio(winners, best, others[0]), best, others[0])
