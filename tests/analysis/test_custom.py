"""Own trials: each setting beside the reference of its model."""

from typing import Any

import numpy as np
import pytest
from pages import run_of_trials, text_of
from scipy import stats
from synthetic_runs import custom_trials, tables, trial

from analysis.chapters import custom
from study.folder import schema

REFERENCE = [trial("conv", 8, seed, mse=[0.06, 0.03, 0.010]) for seed in range(3)]
RATES = {0.1: [0.030, 0.031, 0.029], 2.0: [0.008, 0.0082, None]}


def settings(*pairs: Any) -> list[custom.CustomSetting]:
    return custom.custom_settings(tables(*pairs)[0], None)


def test_a_setting_is_told_by_what_differs_and_paired_with_the_reference():
    slow, fast = settings(*REFERENCE, *custom_trials("conv", "learning_rate", RATES))
    assert (slow.label, fast.label) == ("conv, learning rate 0.1", "conv, learning rate 2")
    assert slow.mean.mean == pytest.approx(0.030)
    assert slow.mean.sd == pytest.approx(0.001)
    logs = np.log([3.0, 3.1, 2.9])
    low, high = np.exp(stats.ttest_1samp(logs, 0).confidence_interval(0.95))
    assert slow.ratio.mean == pytest.approx(np.exp(logs.mean()))
    assert (slow.ratio.low, slow.ratio.high) == pytest.approx((low, high))
    assert (fast.ratio.n, fast.mean.n) == (2, 2)


def test_the_chapter_has_a_table_and_both_figures():
    run = run_of_trials(*REFERENCE, *custom_trials("conv", "learning_rate", RATES))
    chapter = custom.chapter(run)
    text = text_of(chapter)
    # √(0.008 · 0.0082) ÷ 0.01
    best = "Of 2 own settings the best is conv, learning rate 2: test MSE 0.00810 ± 0.00014 (n = 2"
    assert f"{best} seeds), 0.81 times the conv reference's (95 % interval 0." in text
    assert "\nconv|learning rate 0.1|3|0.0306 ± 0.0010|0.0300 ± 0.0010|3.00 (2.7" in text
    assert "\nconv|learning rate 2|2|" in text
    assert "|seed 2 failed" in text
    # The reference is one of the three rates.
    assert [figure.name for figure in chapter.figures] == [custom.FACTOR, custom.CURVES]
    assert "conv least at 2, 0.00810." in text


def test_the_factor_has_the_references_value_among_its_own():
    found = settings(*REFERENCE, *custom_trials("conv", "learning_rate", RATES))
    assert custom.factor_of(found) == "learning_rate"
    rows = custom.factor_rows(found, "learning_rate")
    means = rows.groupby("value")["mse"].mean()
    assert means.to_dict() == pytest.approx({0.1: 0.030, 1.0: 0.010, 2.0: 0.0081})
    assert rows.loc[~rows["custom"], "value"].tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "pairs",
    [
        custom_trials("dense", "hidden_activation", {"sigmoid": [0.01], "relu": [0.02]}),
        custom_trials("dense", "hidden_units", {64: [0.01], 128: [0.02]}),
        [
            *custom_trials("dense", "hidden_units", {64: [0.01], 128: [0.02], 256: [0.03]}),
            *custom_trials("dense", "dropout", {0.1: [0.01]}),
        ],
    ],
)
def test_without_one_number_of_three_values_there_is_no_such_figure(pairs):
    assert custom.factor_of(settings(*pairs)) is None
    figures = custom.chapter(run_of_trials(*pairs)).figures
    assert [figure.name for figure in figures] == [custom.CURVES]


def test_custom_trials_on_the_searchs_images_are_validated():
    pairs = custom_trials("conv", "momentum", {0.9: [0.02, 0.03]}, split=schema.SEARCH_SPLIT)
    beside = [trial("conv", 8, s, mse=[0.06, 0.03, 0.01], group=schema.NEIGHBOUR) for s in range(2)]
    (one,) = settings(*pairs, *beside, *REFERENCE)
    assert one.metric == schema.VAL_MSE
    assert one.ratio.mean == pytest.approx(np.sqrt(2 * 3))
    chapter = custom.chapter(run_of_trials(*pairs, *beside))
    assert [figure.name for figure in chapter.figures] == [f"{custom.CURVES}-validation"]
    assert "Validation MSE" in text_of(chapter)


def test_without_a_reference_there_is_no_ratio_but_a_gap():
    chapter = custom.chapter(run_of_trials(*custom_trials("conv", "learning_rate", {2.0: [0.01]})))
    assert "\nconv|learning rate 2|1|0.0102|0.0100|–|–" in text_of(chapter)
    assert "without a ratio" in chapter.gaps[0]
    longer = custom_trials("conv", "learning_rate", {2.0: [0.01]}, n_epochs=5)
    (one,) = settings(*REFERENCE, *longer)
    assert (one.label, one.ratio) == ("conv, learning rate 2, epochs 5", None)


def test_of_many_settings_the_best_and_the_worst_are_drawn():
    ends = {round(0.1 * n, 1): [0.01 * n] for n in range(1, 13)}
    found = settings(*custom_trials("conv", "learning_rate", ends))
    drawn = [one.mean.mean for one in custom.drawn_settings(found)]
    assert drawn == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.10, 0.11, 0.12])
    assert len(custom.drawn_settings(found[:10])) == 10
    looks = [custom.look_of(place) for place in range(10)]
    kinds = {(look["color"], str(look.get("linestyle", "-")), look["marker"]) for look in looks}
    assert len(kinds) == 10


def test_a_run_without_custom_trials_has_no_such_chapter():
    assert custom.chapter(run_of_trials(*REFERENCE)).parts == ()


def test_custom_trials_that_all_failed_are_gaps():
    chapter = custom.chapter(run_of_trials(*custom_trials("conv", "learning_rate", {2.0: [None]})))
    assert chapter.gaps == ["No completed trial of the own setting conv, learning rate 2."]
    assert chapter.figures == []


def test_seeds_that_collapsed_are_told_of_and_a_setting_that_is_just_worse_is_not():
    rates = {0.01: [0.05, 0.05, 0.05], 2.0: [0.009, 0.011, 0.114], 4.0: [0.114, 0.009, 0.114]}
    pairs = [*REFERENCE, *custom_trials("conv", "learning_rate", rates)]
    assert [one.collapsed for one in settings(*pairs)] == [[], [2], [0, 2]]
    text = text_of(custom.chapter(run_of_trials(*pairs)))
    assert "with conv, learning rate 2 (1 of 3) and conv, learning rate 4 (2 of 3): " in text
    assert "|seed 0 collapsed, seed 2 collapsed" in text
    assert (
        custom.collapses(settings(*REFERENCE, *custom_trials("conv", "learning_rate", RATES))) == ""
    )
