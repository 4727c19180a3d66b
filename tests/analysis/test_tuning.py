"""Tuning curves: what they are, when bands tell models apart, and which searches have none."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
from opda.nonparametric import EmpiricalDistribution
from pages import run_of_trials, screen, text_of
from rows import Trial, without_value
from scipy import stats
from synthetic_runs import MANIFEST, searched, winner

from analysis.answer import answer
from analysis.chapters import tuning
from study.folder import schema

RANDOM = {"sampler": "random", "given_trials": False, "scheduler": "none"}


def spec_of(**changes: object) -> dict:
    return {"spec": MANIFEST["spec"] | RANDOM | changes}


def search(model: str, values: list[float]) -> list[Trial]:
    """Search trials of different settings that end at these values, infinite for diverged ones."""
    rows = []
    for number, value in enumerate(values):
        lost = without_value(schema.DIVERGED) if math.isinf(value) else {}
        setting = {"learning_rate": 0.1 + number / 100}
        rows.append(searched(model, number, min(value, 0.1), **setting, **lost))
    return rows


def test_curves_and_bands_are_opdas():
    values = np.random.default_rng(1).lognormal(-4, 0.7, 48)
    found, ks = tuning.tuning_curve(list(values)), np.arange(1, 49)
    settings = {"a": 0.0, "method": "ld_equal_tailed", "generator": np.random.default_rng(48)}
    bands = EmpiricalDistribution.confidence_bands(values, 0.95, n_jobs=1, **settings)
    for name, cdf in zip(("high", "median", "low"), bands, strict=True):
        curve = cdf.quantile_tuning_curve(ks, minimize=True)
        np.testing.assert_allclose(found[name], curve, rtol=0, atol=1e-9)
    mean = bands[1].average_tuning_curve(ks, minimize=True)
    np.testing.assert_allclose(found["mean"], mean, rtol=0, atol=1e-9)
    assert found["k"].tolist() == ks.tolist()
    # By hand: the chance that the i-th least of n values is the least of k draws.
    chances = np.array([[1 - i / 48 for i in range(49)]]) ** ks[:, None]
    np.testing.assert_allclose(found["mean"], -np.diff(chances) @ np.sort(values), atol=1e-9)


def test_a_band_covers_the_true_curve_in_95_of_100_studies():
    """1,000 studies of 60 trials, and 1,000 more to see how often equal models are told apart."""
    rng, ks = np.random.default_rng(2), np.arange(1, 61)
    truth = np.exp(0.7 * stats.norm.ppf(1 - 0.5 ** (1 / ks)))
    curves = [tuning.tuning_curve(list(rng.lognormal(0, 0.7, 60))) for _ in range(1000)]
    covered = [((c["low"] <= truth) & (truth <= c["high"])).all() for c in curves]
    assert np.mean(covered) >= 0.93
    apart = [((a["high"] < b["low"]) | (b["high"] < a["low"])).any() for a, b in pairwise(curves)]
    assert np.mean(apart) <= 0.05


def test_a_diverged_trial_is_worse_than_any_and_never_a_number():
    values = [0.01, 0.02, 0.03, 0.04, math.inf, math.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = tuning.tuning_curve(values)
    assert curve["median"].tolist() == [0.03, 0.02, 0.02, 0.01, 0.01, 0.01]
    # Of one setting that did not diverge; and of two, of which one did not.
    assert curve["mean"].iloc[0] == pytest.approx(0.025)
    both = [min(a, b) for a in values for b in values]
    assert curve["mean"].iloc[1] == pytest.approx(np.mean([v for v in both if v < 1]))
    assert math.isinf(curve["high"].iloc[0])


def test_bands_that_are_apart_say_who_leads_and_from_how_many_trials_on():
    def curve(low: list[float], high: list[float]):
        values = {"k": range(1, 6), "mean": low, "median": low, "low": low, "high": high}
        return tuning.pd.DataFrame(values)

    conv, dense = curve([3.0, 3, 3, 3, 0], [9.0] * 5), curve([1.0] * 5, [4.0, 2, 2, 2, 2])
    said = tuning.comparison({"conv": conv, "dense": dense})
    assert said == [
        "With random settings, up to 1 trial conv and dense cannot be told apart; from 2 to 4"
        " trials dense leads; from 5 trials on conv and dense cannot be told apart (5 trials each)."
    ]
    assert "for any number up to 5 conv and" in tuning.comparison({"conv": conv, "b": conv})[0]


def trials_of(n: int = 12) -> list[Trial]:
    rng = np.random.default_rng(3)
    conv, dense = (list(rng.lognormal(mean, 0.1, n)) for mean in (-4, -7))
    winners = [winner(m, 0, 0.01) for m in schema.MODELS]
    return [*search("conv", [*conv[1:], math.inf]), *search("dense", dense), *winners]


def test_a_run_of_random_settings_has_curves_and_says_who_leads_on_its_first_screen():
    text = text_of(run_of_trials(*trials_of(), **spec_of()), "tuning")
    assert "# Tuning curves\n- With random settings, " in text
    assert "dense leads" in text
    assert "12 of conv and 12 of dense settings" in text
    assert "Diverged, and worse than any: 1 of conv" in text
    assert "gap:" not in text
    asked = spec_of()["spec"] | {"question": "Who leads?"}
    assert "dense leads" in screen(*trials_of(), **spec_of(), question="Who leads?")
    assert answer(run_of_trials(*trials_of(), spec=asked))["figure"] == tuning.FIGURES["k"]


@pytest.mark.parametrize(
    ("changes", "pruned", "said"),
    [
        ({"sampler": "tpe"}, False, "as the sampler tpe proposed its trials: they need"),
        ({"samplers": ["random", "tpe"]}, False, "as the sampler tpe proposed its trials"),
        ({"given_trials": True}, False, "as some of its trials were given"),
        ({}, True, "as some of its trials were pruned"),
    ],
)
def test_searches_of_other_trials_are_refused_in_a_sentence(changes, pruned, said):
    rows = trials_of()
    if pruned:
        rows[0] = rows[0][0] | without_value(schema.PRUNED), rows[0][1]
    text = text_of(run_of_trials(*rows, **spec_of(**changes)), "tuning")
    assert f"gap: No tuning curves of the search, {said}" in text
    assert "dense leads" not in text
    assert "dense leads" not in screen(*rows, **spec_of(**changes), question="Who leads?")
