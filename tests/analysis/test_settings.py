"""The frame: intervals, pairing by seed, bases, and what enters a mean."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pages import run_of_trials
from rows import trial, without_value
from scipy import stats
from synthetic_runs import custom_trials

from analysis.settings import (
    Chance,
    Estimate,
    curve,
    frame,
    mean_over_seeds,
    ratio,
    ratio_curve,
    ratio_over_seeds,
    welch_ratio,
)
from study.folder import schema

# Not all but equal, of which SciPy warns.
samples = st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=8).filter(
    lambda sample: max(sample) > 1.001 * min(sample)
)


@settings(deadline=None)
@given(sample=samples)
def test_the_mean_is_scipys(sample: list[float]):
    found = mean_over_seeds(pd.Series([*sample, np.nan]))
    interval = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(sample))
    assert (found.sd, found.n) == (pytest.approx(np.std(sample, ddof=1)), len(sample))
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=1e-12)


@settings(deadline=None)
@given(top=samples, bottom=samples)
def test_the_paired_ratio_is_scipys(top: list[float], bottom: list[float]):
    found = ratio_over_seeds(pd.Series(top), pd.Series(bottom))
    n = min(len(top), len(bottom))
    logs = np.log(top[:n]) - np.log(bottom[:n])
    assume(np.ptp(logs) > 1e-3)
    interval = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert (found.mean, found.n) == (pytest.approx(stats.gmean(np.exp(logs))), n)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


@settings(deadline=None)
@given(top=samples, bottom=samples)
def test_the_ratio_of_independent_samples_is_welchs(top: list[float], bottom: list[float]):
    # By the formulas of B. L. Welch, Biometrika 34, 1947.
    found = welch_ratio(pd.Series(top), pd.Series(bottom))
    of = [np.var(np.log(sample), ddof=1) / len(sample) for sample in (top, bottom)]
    freedom = sum(of) ** 2 / (of[0] ** 2 / (len(top) - 1) + of[1] ** 2 / (len(bottom) - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(of))
    assert (found.mean, found.n) == (
        pytest.approx(stats.gmean(top) / stats.gmean(bottom)),
        len(top) + len(bottom),
    )
    assert (np.log(found.high / found.mean), np.log(found.mean / found.low)) == pytest.approx(
        (half, half), rel=1e-6
    )


def test_few_or_equal_values():
    one, none = pd.Series([5.0, np.nan]), pd.Series([np.nan])
    assert (mean_over_seeds(one), mean_over_seeds(none)) == (Estimate(5.0, 1), None)
    assert ratio_over_seeds(pd.Series({0: 4.0}), pd.Series({0: 2.0, 1: 1.0})) == Estimate(2.0, 1)
    assert ratio_over_seeds(pd.Series({0: 4.0}), pd.Series({1: 2.0})) is None
    assert welch_ratio(one, pd.Series([2.5, 2.5])) == Estimate(pytest.approx(2.0), 3)
    assert welch_ratio(one, none) is None
    same = pd.Series([3.0, 3.0, 3.0])
    for found in (ratio_over_seeds(same, same), welch_ratio(same, same)):
        assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


@settings(deadline=None)
@given(top=samples, bottom=samples)
def test_a_ratio_the_other_way_round_is_its_inverse(top: list[float], bottom: list[float]):
    assume(np.ptp(np.log(top[:2]) - np.log(bottom[:2])) > 1e-3)
    a, b = pd.Series(top), pd.Series(bottom)
    found, other = ratio_over_seeds(a, b).inverse(), ratio_over_seeds(b, a)
    assert (found.mean, found.low, found.high) == pytest.approx((other.mean, other.low, other.high))


@settings(deadline=None)
@given(n=st.integers(1, 40), data=st.data())
def test_the_interval_of_a_chance_is_clopper_and_pearsons(n: int, data: st.DataObject):
    n_times = data.draw(st.integers(0, n))
    low, high = Chance(n_times, n).ends
    # What was seen, or more, has a chance of 2.5 % at the lower end; likewise at the upper end.
    assert low == 0 if n_times == 0 else stats.binom.sf(n_times - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if n_times == n else stats.binom.cdf(n_times, n, high) == pytest.approx(0.025)


def test_a_diverged_run_is_behind_any_other_and_each_run_is_in_one_pair():
    ends = {"conv": [0.010, 0.012, None, None, 0.011], "dense": [0.011, 0.011, 0.011, None]}
    lost = {"n_epochs": 2, **without_value(schema.DIVERGED)}
    conv, dense = run_of_trials(
        *(
            trial(model, seed=seed, **({"mse": [0.06, end]} if end else lost))
            for model, its in ends.items()
            for seed, end in enumerate(its)
        )
    ).of(schema.REFERENCE)
    assert (ratio(conv, dense).n, ratio(conv, dense).ahead) == (2, Chance(1, 4))
    assert ratio(dense, conv).ahead == Chance(2, 4)
    assert ratio(conv, dense, "train_seconds").ahead is None
    assert (conv.collapse, dense.collapse) == (Chance(2, 5), Chance(1, 4))


def test_collapsed_seeds_are_counted_and_left_out_of_the_mean_beside():
    ends = [0.010, 0.012, 0.067]
    (conv,) = run_of_trials(
        *(trial(seed=seed, mse=[0.06, end]) for seed, end in enumerate(ends)),
        trial(seed=3, **without_value(schema.FAILED)),
    ).reference
    assert (conv.collapse, conv.mean_of_others.n) == (Chance(1, 3), 2)
    assert conv.mean_of_others.mean == pytest.approx(0.011)


@pytest.mark.parametrize(
    "changes",
    [
        *({"state": s} for s in (schema.DIVERGED, schema.FAILED, schema.PRUNED, schema.RUNNING)),
        {"split": schema.SEARCH_SPLIT},
        {"group": schema.NEIGHBOUR},
        {"group": schema.SEARCH},
        {"epochs": 2},
    ],
)
def test_only_completed_reference_trials_of_the_longest_training_enter(changes: dict):
    run = run_of_trials(
        trial(seed=2, trial_id="bad", **changes), *(trial(seed=seed) for seed in range(2))
    )
    (conv,) = run.reference
    assert conv.by_seed().index.tolist() == [0, 1]
    assert run.reference_trials["seed"].tolist()[:2] == [0, 1]
    data = curve(conv, run.epochs, schema.TEST_MSE)
    assert data["n"].unique().tolist() == [2]


def test_the_frame_has_means_ratios_states_and_collapsed_seeds():
    rates = {2.0: [0.008, 0.0082, None], 4.0: [0.010, 0.0101, 0.09]}
    references = [trial(seed=seed, mse=[0.06, 0.03, 0.010]) for seed in range(3)]
    run = run_of_trials(
        *references,
        trial("dense", 64),
        trial("dense"),
        *custom_trials("conv", "learning_rate", rates),
    )
    rows = frame(run.settings)
    assert list(rows["setting"].unique()) == [
        "conv",
        "conv learning_rate=2.0",
        "conv learning_rate=4.0",
        "dense-64",
        "dense-512",
    ]
    tested = rows[rows["metric"] == schema.TEST_MSE].set_index("setting")
    fast = tested.loc["conv learning_rate=2.0"]
    assert (fast["base"], fast["n"], fast["ratio_n"]) == ("conv", 2, 2)
    assert fast["mean"] == pytest.approx(0.0081)
    assert fast["ratio"] == pytest.approx(np.sqrt(0.8 * 0.82))
    assert (fast["completed"], fast["failed"], fast["collapsed"]) == (2, 1, 0)
    assert tested.loc["conv learning_rate=4.0", "collapsed"] == 1
    # The reference's architectures are judged beside dense-512, which is beside nothing.
    assert tested.loc["conv", "ratio"] == pytest.approx(0.010 / 0.0042)
    assert pd.isna(tested.loc["conv", "ratio_low"])
    assert tested.loc["dense-512", "ratio_n"] == 0
    assert tested.loc["dense-64", "n_parameters"] == 64_000


def test_a_base_is_looked_up_in_the_same_group_first():
    beside = [trial(seed=s, group=schema.NEIGHBOUR, mse=[0.06, 0.02]) for s in (0, 1)]
    one = [trial(seed=s, group=schema.NEIGHBOUR, mse=[0.06, 0.01], momentum=0.9) for s in (0, 1)]
    run = run_of_trials(trial(n_epochs=2), *beside, *one)
    found = run.of(schema.NEIGHBOUR)[-1]
    assert found.base.group == schema.NEIGHBOUR
    assert (found.metric, found.ratio().mean) == (schema.VAL_MSE, pytest.approx(0.5))
    alone = run_of_trials(trial(n_epochs=2), *one).of(schema.NEIGHBOUR)[-1]
    assert (alone.base, alone.ratio()) == (None, None)  # the reference has other images
    assert alone.differs == {"momentum": 0.9}  # and still tells what was changed


def test_a_setting_without_its_base_in_the_run_is_told_whole():
    (one,) = run_of_trials(trial(group=schema.CUSTOM, momentum=0.9)).of(schema.CUSTOM)
    assert one.name == "conv momentum=0.9"
    assert one.words.endswith("learning rate 1, momentum 0.9, nesterov yes")


def test_settings_are_in_the_order_of_model_and_size():
    sizes = [("unet", 2), ("dense", 512), ("dense", 64), ("attic", 2), ("conv", 8), ("unet", 3)]
    run = run_of_trials(*(trial(*size) for size in sizes))
    assert list(run.named) == ["conv", "dense-64", "dense-512", "attic", "unet", "unet depth=3"]


def test_times_of_trials_that_shared_their_device_are_left_out():
    run = run_of_trials(trial(n_sharing=1.0), trial(seed=1, n_sharing=3.5))
    assert run.reference[0].by_seed("train_seconds").index.tolist() == [0]


def test_curves_are_mean_and_range_and_ratios_are_paired_at_every_epoch():
    run = run_of_trials(
        trial(seed=0, mse=[1, 1]),
        trial(seed=1, mse=[2, 3]),
        trial("dense", seed=0, mse=[2, 4]),
        trial("dense", seed=1, mse=[4, 12]),
    )
    conv, dense = run.reference
    found = curve(conv, run.epochs, schema.TEST_MSE)
    assert found[["mean", "low", "high"]].to_numpy().tolist() == [[1.5, 1, 2], [2, 1, 3]]
    pairs = ratio_curve(conv, dense, run.epochs, schema.TEST_MSE)
    assert pairs[["epoch", "n"]].to_numpy().tolist() == [[1, 2], [2, 2]]
    assert pairs["mean"].tolist() == pytest.approx([1 / 2, 1 / 4])
    assert ratio_curve(conv, None, run.epochs, schema.TEST_MSE).empty


def test_a_ratio_by_epoch_is_that_of_the_seeds_and_there_is_none_to_0():
    """Of seeds that are not the same for both, with an MSE of exactly 0 in the third epoch."""
    conv = [[0.3, 0.2, 0.0, 0.1], [0.5, 0.1, 0.1, 0.2], [0.9, 0.9, 0.9, 0.9]]
    dense = [[0.4, 0.3, 0.1, 0.3], [0.2, 0.3, 0.1, 0.1]]
    trials = [trial(seed=seed, mse=mse) for seed, mse in enumerate(conv)]
    run = run_of_trials(*trials, *(trial("dense", seed=s, mse=mse) for s, mse in enumerate(dense)))
    found = ratio_curve(*run.reference, run.epochs, schema.TEST_MSE)
    assert list(found["epoch"]) == [1, 2, 4]
    for epoch, *values in found.itertuples(index=False):
        tops, bottoms = (pd.Series([mse[epoch - 1] for mse in of]) for of in (conv, dense))
        expected = ratio_over_seeds(tops, bottoms)
        assert values == pytest.approx([expected.mean, expected.low, expected.high, expected.n])
    assert ratio_over_seeds(pd.Series([0.0, 0.1]), pd.Series([0.1, 0.1])) is None
    assert welch_ratio(pd.Series([0.1, 0.1]), pd.Series([0.0])) is None
