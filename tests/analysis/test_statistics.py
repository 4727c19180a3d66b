"""Statistics: intervals, pairing by seed, and what enters an average."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_runs import run_of, tables, trial

from analysis import statistics
from analysis.statistics import mean_over_seeds, ratio_over_seeds, welch_ratio
from study.folder import schema

METRICS = (schema.TRAIN_MSE, schema.TEST_MSE)


def test_mean_has_the_t_interval():
    # t(0.975, 2 degrees of freedom) = 4.30265; sd of 1, 2, 3 is 1.
    estimate = statistics.mean_over_seeds(pd.Series([1.0, 2.0, 3.0]))
    assert (estimate.mean, estimate.sd, estimate.n) == (2, 1, 3)
    assert estimate.high - 2 == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert 2 - estimate.low == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert statistics.mean_over_seeds(pd.Series([5.0, np.nan])) == statistics.Estimate(5.0, 1)
    assert statistics.mean_over_seeds(pd.Series([np.nan])) is None


def test_ratio_is_paired_by_seed():
    top = pd.Series([4.0, 18.0, 7.0], index=[0, 1, 2])
    bottom = pd.Series([9.0, 1.0, 1.0], index=[1, 0, 9])
    ratio = statistics.ratio_over_seeds(top, bottom)
    assert ratio.n == 2
    assert ratio.mean == pytest.approx(math.sqrt(4 * 2))
    # Logs 2 ln 2 and ln 2: sd = ln 2 / √2; t(0.975, 1) = 12.7062.
    assert ratio.high / ratio.mean == pytest.approx(math.exp(12.7062 * math.log(2) / 2), rel=1e-4)
    assert ratio.mean / ratio.low == pytest.approx(ratio.high / ratio.mean)


def test_ratio_of_one_seed_has_no_interval_and_of_none_is_none():
    one = statistics.ratio_over_seeds(pd.Series({0: 4.0}), pd.Series({0: 2.0}))
    assert (one.n, one.low, one.high) == (1, None, None)
    assert one.mean == pytest.approx(2)
    assert statistics.ratio_over_seeds(pd.Series({0: 4.0}), pd.Series({1: 2.0})) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"state": schema.DIVERGED},
        {"state": schema.FAILED},
        {"state": schema.PRUNED},
        {"state": schema.RUNNING},
        {"split": "search"},
        {"test_mse": None},
        {"group": schema.NEIGHBOUR},
        {"group": schema.SEARCH},
        {"epochs": 2},
        {"batch_size": 64},
    ],
)
def test_only_completed_reference_trials_of_one_setting_enter(changes):
    good = [trial("conv", 8, seed) for seed in range(2)]
    bad = trial("conv", 8, 2, trial_id="bad", **changes)
    trials, epochs = tables(bad, *good)
    reference = statistics.reference_trials(trials)
    assert reference["trial_id"].tolist() == ["reference-conv-8-0", "reference-conv-8-1"]
    assert statistics.curves(reference, epochs, schema.TRAIN_MSE)["n"].unique().tolist() == [2]


def test_the_longest_training_is_the_reference():
    trials, _ = tables(
        trial("conv", 8, 0, n_epochs=3), trial("conv", 8, 1, 3), trial("conv", 8, 2, n_epochs=50)
    )
    assert statistics.reference_trials(trials)["seed"].tolist() == [2]


def test_one_activation_of_the_dense_model_is_kept():
    relu = [trial("dense", 512, seed) for seed in range(2)]
    sigmoid = trial("dense", 512, 2, hidden_activation="sigmoid")
    trials, _ = tables(sigmoid, trial("conv", 8), *relu)
    reference = statistics.reference_trials(trials)
    assert reference["name"].tolist() == ["conv", "dense-512", "dense-512"]
    assert reference["hidden_activation"].dropna().unique().tolist() == ["relu"]


def test_names_are_in_the_order_of_size():
    sizes = [("dense", 512), ("dense", 64), ("dense", 128), ("conv", 8)]
    trials, epochs = tables(*(trial(*size) for size in sizes))
    reference = statistics.reference_trials(trials)
    expected = ["conv", "dense-64", "dense-128", "dense-512"]
    assert statistics.names(reference) == expected
    curves = statistics.curves(reference, epochs, schema.TEST_MSE)
    assert curves["name"].unique().tolist() == expected


def test_conv_with_16_latent_filters_is_another_model():
    row, history = trial("conv", 8)
    trials, _ = tables((row | {"latent_filters": 16}, history))
    assert statistics.names(statistics.reference_trials(trials)) == ["conv, 16 latent filters"]


def test_curves_are_mean_and_range():
    run = tables(trial("conv", 8, 0, mse=[4, 2]), trial("conv", 8, 1, mse=[6, 1]))
    curve = statistics.curves(statistics.reference_trials(run[0]), run[1], schema.TEST_MSE)
    assert curve["epoch"].tolist() == [1, 2]
    assert curve["mean"].tolist() == [5, 1.5]
    assert curve["low"].tolist() == [4, 1]
    assert curve["high"].tolist() == [6, 2]


def test_ratio_curve_is_paired_at_every_epoch():
    run = tables(
        trial("conv", 8, 0, mse=[1, 1]),
        trial("conv", 8, 1, mse=[2, 2]),
        trial("dense", 512, 0, mse=[2, 4]),
        trial("dense", 512, 1, mse=[4, 8]),
    )
    curve = statistics.ratio_curve(statistics.reference_trials(run[0]), run[1], schema.TEST_MSE)
    assert curve["epoch"].tolist() == [1, 2]
    assert curve["mean"].tolist() == pytest.approx([1 / 2, 1 / 4])
    assert curve["n"].tolist() == [2, 2]
    assert curve["low"].tolist() == pytest.approx([1 / 2, 1 / 4])


def test_summary_has_a_row_a_model_and_the_ratios():
    run = run_of([0.01, 0.01], [0.004, 0.004])
    table = statistics.summary(statistics.reference_trials(run[0])).set_index("model")
    assert list(table.index) == ["conv", "dense-512", "conv ÷ dense-512"]
    assert table.loc["conv", "n_parameters"] == 4385
    assert table.loc["conv ÷ dense-512", "test_mse_mean"] == pytest.approx(2.5)
    assert table.loc["conv ÷ dense-512", "train_seconds_mean"] == pytest.approx(3.5)
    assert table["n_seeds"].tolist() == [2, 2, 2]


def test_summary_of_nothing_is_empty():
    trials, _ = tables()
    assert statistics.summary(statistics.reference_trials(trials)).empty


# Not all but equal, of which SciPy warns.
samples = st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=8).filter(
    lambda sample: max(sample) > 1.001 * min(sample)
)


@settings(deadline=None, max_examples=200)
@given(sample=samples)
def test_the_mean_is_scipys(sample):
    found = mean_over_seeds(pd.Series(sample))
    interval = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(sample))
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(top=samples, bottom=samples)
def test_the_paired_ratio_is_scipys(top, bottom):
    found = ratio_over_seeds(pd.Series(top), pd.Series(bottom))
    n = min(len(top), len(bottom))
    logs = np.log(top[:n]) - np.log(bottom[:n])
    assume(np.ptp(logs) > 1e-3)
    interval = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert (found.mean, found.n) == (pytest.approx(stats.gmean(np.exp(logs))), n)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


@settings(deadline=None, max_examples=200)
@given(top=samples, bottom=samples)
def test_the_ratio_of_independent_samples_is_scipys(top, bottom):
    found = welch_ratio(pd.Series(top), pd.Series(bottom))
    welch = stats.ttest_ind(np.log(top), np.log(bottom), equal_var=False)
    interval = np.exp(welch.confidence_interval(0.95))
    assert found.mean == pytest.approx(stats.gmean(top) / stats.gmean(bottom))
    assert (found.low, found.high) == pytest.approx(tuple(interval))
