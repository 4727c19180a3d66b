"""The neighbours: which setting is the reference, and ratios paired by seed."""

import math

import pandas as pd
import pytest
from synthetic_runs import neighbour_trials, tables, trial

from analysis.chapters import sensitivity as neighbours
from study.folder import schema

RATIOS = {
    "learning_rate": {2.0: 0.5, 4.0: None},
    "batch_size": {64: 1.005},
    "nesterov": {False: 1.0},
}


def row_of(data: pd.DataFrame, factor: str, value) -> pd.Series:
    (row,) = [row for _, row in data.iterrows() if (row["factor"], row["value"]) == (factor, value)]
    return row


def test_the_reference_is_recognised_by_its_setting():
    trials, _ = tables(*neighbour_trials("conv", RATIOS))
    trials["trial_id"] = [f"t{number}" for number in range(len(trials))]
    setting = neighbours.reference_setting(neighbours.neighbour_trials(trials, "conv"), "conv")
    assert setting == {
        "learning_rate": 1.0,
        "momentum": 0.5,
        "nesterov": True,
        "batch_size": 256,
        "latent_filters": 8,
    }


def test_a_reference_with_another_batch_size_is_recognised():
    pairs = neighbour_trials("dense", {"dropout": {0.1: 1.2}, "learning_rate": {2.0: 0.9}})
    trials, _ = tables(*((row | {"batch_size": 64}, history) for row, history in pairs))
    setting = neighbours.reference_setting(neighbours.neighbour_trials(trials, "dense"), "dense")
    assert (setting["batch_size"], setting["hidden_units"], setting["dropout"]) == (64, 512, 0.0)


def test_of_settings_along_one_factor_the_reports_is_the_reference():
    trials, _ = tables(*neighbour_trials("conv", {"learning_rate": {2.0: 0.9, 4.0: 0.8}}))
    table = neighbours.neighbour_trials(trials, "conv")
    assert neighbours.reference_setting(table, "conv")["learning_rate"] == 1.0
    others = table[table["learning_rate"] != 1.0]
    assert neighbours.reference_setting(others, "conv") is None


def test_settings_without_a_centre_have_no_reference():
    odd = trial("conv", 8, group=schema.NEIGHBOUR, learning_rate=0.1, momentum=0.9)
    trials, _ = tables(*neighbour_trials("conv", RATIOS), odd)
    table = neighbours.neighbour_trials(trials, "conv")
    assert neighbours.reference_setting(table, "conv") is None
    assert neighbours.sensitivity(trials, "conv").empty


def test_ratios_are_paired_by_seed():
    trials, _ = tables(*neighbour_trials("conv", RATIOS, n_seeds=2))
    value = trials["trial_id"].map(
        {
            "neighbour-conv-reference-s0": 0.01,
            "neighbour-conv-reference-s1": 0.02,
            "neighbour-conv-batch_size=64-s0": 0.02,
            "neighbour-conv-batch_size=64-s1": 0.16,
        }
    )
    trials[schema.VAL_MSE] = value.fillna(trials[schema.VAL_MSE])
    row = row_of(neighbours.sensitivity(trials, "conv"), "batch_size", 64)
    # Ratios 2 and 8: logs ln 2 and 3 ln 2, sd √2 ln 2; t(0.975, 1) = 12.7062.
    assert row["mean"] == pytest.approx(4)
    assert row["n"] == 2
    assert row["high"] / row["mean"] == pytest.approx(math.exp(12.7062 * math.log(2)), rel=1e-4)
    # Reference 0.01 and 0.02: sd 0.005 √2, mean 0.015.
    spread = neighbours.relative_spread(neighbours.reference_spread(trials, "conv"))
    assert spread == pytest.approx(math.sqrt(2) / 3)


@pytest.mark.parametrize("state", [schema.DIVERGED, schema.FAILED, schema.RUNNING])
def test_trials_that_did_not_complete_are_counted_and_never_numbers(state):
    trials, _ = tables(*neighbour_trials("conv", RATIOS, n_seeds=3))
    bad = trials["trial_id"].isin(
        ["neighbour-conv-learning_rate=2.0-s1", "neighbour-conv-reference-s2"]
    )
    trials.loc[bad, ["state", schema.VAL_MSE]] = [state, 1e9]
    data = neighbours.sensitivity(trials, "conv")
    halved = row_of(data, "learning_rate", 2.0)
    assert halved["n"] == 1  # seed 1 lacks the neighbour, seed 2 the reference
    assert halved["mean"] == pytest.approx(0.5)
    assert (halved[state], halved[schema.COMPLETED]) == (1, 2)
    diverged = row_of(data, "learning_rate", 4.0)
    assert (diverged["n"], diverged[schema.DIVERGED]) == (0, 3)
    assert pd.isna(diverged["mean"])
    assert pd.isna(diverged["exceeds"])
    assert neighbours.reference_spread(trials, "conv").n == 2


def test_an_effect_must_exceed_the_seed_spread():
    trials, _ = tables(*neighbour_trials("conv", RATIOS, n_seeds=3))
    data = neighbours.sensitivity(trials, "conv")
    assert row_of(data, "learning_rate", 2.0)["exceeds"]
    # Exactly 1.005 times for every seed: its interval excludes 1, but seeds differ by 1 %.
    assert row_of(data, "batch_size", 64)["low"] > 1
    assert not row_of(data, "batch_size", 64)["exceeds"]
    one_seed, _ = tables(*neighbour_trials("conv", RATIOS, n_seeds=1))
    assert neighbours.sensitivity(one_seed, "conv")["exceeds"].isna().all()


def test_an_effect_whose_interval_holds_1_does_not_exceed_it():
    trials, _ = tables(*neighbour_trials("conv", RATIOS, n_seeds=2))
    noisy = trials["trial_id"] == "neighbour-conv-learning_rate=2.0-s1"
    trials.loc[noisy, schema.VAL_MSE] *= 1.9
    row = row_of(neighbours.sensitivity(trials, "conv"), "learning_rate", 2.0)
    assert row["low"] < row["mean"] < 0.8
    assert row["high"] > 1
    assert not row["exceeds"]


def test_neighbours_on_all_images_are_another_matter():
    trials, _ = tables(*neighbour_trials("conv", RATIOS))
    trials["split"] = schema.FULL_SPLIT
    assert neighbours.neighbour_trials(trials, "conv").empty
    assert neighbours.sensitivity(trials, "conv").empty
    assert neighbours.reference_spread(trials, "conv") is None
