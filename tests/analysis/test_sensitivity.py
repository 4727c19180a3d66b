"""The neighbours: ratios paired by seed, and whether they exceed the reference's spread."""

import math

import pytest
from pages import run_of_trials, text_of
from synthetic_runs import neighbour_trials

from analysis.chapters import sensitivity
from analysis.load import Run
from analysis.settings import Setting
from study.folder import schema

RATIOS = {
    "learning_rate": {2.0: 0.5, 4.0: None},
    "batch_size": {64: 1.005},
    "nesterov": {False: 1.0},
}


def run_of(n_seeds: int = 3, **changed: dict) -> Run:
    """A run of conv's neighbours; `changed` are new values in the rows of some trials, by id."""
    pairs = neighbour_trials("conv", RATIOS, n_seeds)
    by_id = {f"neighbour-conv-{name}": row for name, row in changed.items()}
    return run_of_trials(
        *((row | by_id.get(row["trial_id"], {}), history) for row, history in pairs)
    )


def neighbour(run: Run, words: str) -> Setting:
    (one,) = (
        s for s in sensitivity.neighbours(run, "conv") if sensitivity.factor_words(s) == words
    )
    return one


def test_neighbours_are_in_the_tables_order_by_factor_and_value():
    pairs = neighbour_trials("dense", {"hidden_units": {256: 1.2, 64: 1.5}, "dropout": {0.1: 2.0}})
    found = sensitivity.neighbours(run_of_trials(*pairs), "dense")
    words = ["the reference", "dropout 0.1", "hidden units 64", "hidden units 256"]
    assert list(map(sensitivity.factor_words, found)) == words
    assert [one.ratio() and round(one.ratio().mean, 3) for one in found] == [None, 2, 1.5, 1.2]


def test_the_spread_is_the_references_relative_sd():
    values = {f"reference=-s{seed}": {schema.VAL_MSE: 0.01 * (1 + seed)} for seed in range(2)}
    # 0.01 and 0.02: sd 0.005 √2, mean 0.015.
    assert sensitivity.spread_of(run_of(2, **values), "conv") == pytest.approx(math.sqrt(2) / 3)


def test_an_effect_must_exceed_the_seed_spread():
    run = run_of(3)
    spread = sensitivity.spread_of(run, "conv")
    assert sensitivity.exceeds(neighbour(run, "learning rate 2").ratio(), spread)
    # Exactly 1.005 times for every seed: its interval excludes 1, but seeds differ by 1 %.
    small = neighbour(run, "batch size 64").ratio()
    assert small.low > 1
    assert sensitivity.exceeds(small, spread) is False
    alone = run_of(1)
    assert sensitivity.spread_of(alone, "conv") is None
    assert sensitivity.exceeds(neighbour(alone, "learning rate 2").ratio(), None) is None


def test_an_effect_whose_interval_holds_1_does_not_exceed_it():
    run = run_of(2, **{"learning_rate=2.0-s1": {schema.VAL_MSE: 0.009 * 1.01 * 0.95}})
    ratio = neighbour(run, "learning rate 2").ratio()
    assert ratio.low < ratio.mean < 0.8
    assert ratio.high > 1
    assert sensitivity.exceeds(ratio, sensitivity.spread_of(run, "conv")) is False


@pytest.mark.parametrize(
    ("changes", "gaps"),
    [
        (None, ["No neighbour trials: how sensitive"]),
        (
            {"split": schema.FULL_SPLIT},
            ["8 neighbour trials trained on all images", "No neighbour trials of conv on the"],
        ),
        ({"state": schema.FAILED}, ["The unchanged reference among the neighbours of conv has"]),
    ],
)
def test_gaps_of_the_neighbours_are_said(changes, gaps):
    pairs = [] if changes is None else neighbour_trials("conv", RATIOS, 2, **changes)
    text = text_of(run_of_trials(*pairs[:8]), "sensitivity")
    for gap in gaps:
        assert f"gap: {gap}" in text
