"""The report's claims: verdicts, their reasons, and what cannot be tested."""

import numpy as np
import pytest
from pages import run_of_trials, text_of
from rows import Trial, trial
from synthetic_runs import MANIFEST, ending_at

from analysis import claims
from analysis.claims import Judged
from study.folder.paper import Claim, Paper


def judged(*pairs: Trial) -> list[Judged]:
    return claims.claims_of(run_of_trials(*pairs))


def claim_about(words: str, pairs: list[Trial]) -> Judged:
    (found,) = [claim for claim in judged(*pairs) if words in claim.claim.says]
    return found


STEPS = (1, 1.001, 1.002)  # from a seed to the next one


def sizes(ends: dict[int, list[float]]) -> list[Trial]:
    """Dense models whose MSE ends at the values, a seed each, by size."""
    return [
        trial("dense", size, seed, mse=np.geomspace(0.05, last, 50))
        for size, its in ends.items()
        for seed, last in enumerate(its)
    ]


@pytest.mark.parametrize(
    ("conv", "dense", "verdict", "words"),
    [
        ([0.004, 0.004, 0.004], [0.0081, 0.0078, 0.0080], "reproduced", "within the interval"),
        ([0.004, 0.004, 0.004], [0.0120, 0.0121, 0.0119], "reproduced", "or below"),
        ([0.004, 0.004, 0.004], [0.0060, 0.0061, 0.0059], "not reproduced", "above 0.5"),
        ([0.009, 0.009, 0.009], [0.0040, 0.0041, 0.0039], "not reproduced", "dense-512 has the"),
        ([0.004, 0.004], [0.0040, 0.0080], "undecided", "too few seeds"),
        ([0.004], [0.0400], "undecided", "One seed has no interval"),
        ([0.004], [0.0004], "undecided", "One seed has no interval"),
    ],
)
@pytest.mark.parametrize("images", ["training", "test"])
def test_half(conv, dense, verdict, words, images):
    claim = claim_about(f"{images} set", ending_at(conv, dense))
    assert claim.verdict == verdict
    assert words in claim.reason
    assert claim.estimate.n == len(conv)


def test_a_short_run_tests_nothing_and_says_why():
    found = judged(*ending_at([0.004], [0.009], n_epochs=3))
    assert {claim.verdict for claim in found} == {"not tested", "not comparable"}
    assert found[0].reason == "Trained for 3 epochs, the claim is about 50."
    assert found[0].estimate.mean == pytest.approx(0.004 / 0.009)
    slower = claim_about("longer to train", ending_at([0.004], [0.009], n_epochs=3))
    assert "Trained for 3 epochs, the report for 50." in slower.reason


@pytest.mark.parametrize(
    ("model", "size", "missing"), [("conv", 8, "dense-512"), ("dense", 512, "conv")]
)
def test_a_missing_model_is_named(model, size, missing):
    for claim in judged(trial(model, size, n_epochs=50))[:2]:
        assert claim.verdict == "not tested"
        assert claim.estimate is None
        assert claim.reason == f"No completed trial of {missing} at this setting."


def test_claims_of_an_empty_run():
    assert {claim.verdict for claim in judged()} == {"not tested"}


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (np.geomspace(0.06, 0.001, 50), "reproduced"),
        (np.linspace(0.06, 0.001, 50), "not reproduced"),
    ],
)
def test_steep_then_slow(curve, verdict):
    claim = claim_about("steeply", [trial(seed=s, mse=curve) for s in range(2)])
    assert claim.verdict == verdict
    assert claim.estimate.n == 2


def test_times_are_never_comparable():
    claim = claim_about("longer to train", ending_at([0.009] * 2, [0.004] * 2))
    assert claim.verdict == "not comparable"
    assert claim.estimate.mean == pytest.approx(3.5)
    assert claim.reason.startswith("Conv was slower here, but hardware and versions differ")
    faster = claim_about("longer to train", ending_at([0.009] * 2, [0.004] * 2, train_seconds=1.0))
    assert faster.reason.startswith("Conv was not clearly slower or faster here")


@pytest.mark.parametrize(
    ("other", "best", "null"),
    [
        (0.0041, "reproduced", "reproduced"),
        (0.0039, "not reproduced", "reproduced"),
        (0.0050, "reproduced", "not reproduced"),
        (0.0030, "not reproduced", "not reproduced"),
    ],
)
def test_dense_sizes(other, best, null):
    run = sizes({512: [0.004 * step for step in STEPS], 256: [other * step for step in STEPS]})
    assert claim_about("best dense size", run).verdict == best
    assert claim_about("almost not at all", run).verdict == null


def test_one_dense_size_cannot_be_the_best():
    claim = claim_about("best dense size", ending_at([0.009], [0.004]))
    assert claim.verdict == "not tested"
    assert "No other dense size" in claim.reason


def test_a_difference_within_the_seeds_decides_nothing():
    run = sizes({512: [0.004, 0.005, 0.006], 256: [0.0052, 0.0048, 0.0059]})
    assert claim_about("best dense size", run).verdict == "undecided"
    assert claim_about("almost not at all", run).verdict == "undecided"


def test_one_seed_has_values_and_no_verdict():
    found = judged(*ending_at([0.009], [0.004]))
    assert {claim.verdict for claim in found} == {"undecided", "not tested", "not comparable"}
    assert claims.tally(found) == "3 undecided, 3 not tested, 1 not comparable"


def test_models_that_share_no_seed_are_not_compared():
    pairs = [trial("conv", 8, seed, 50) for seed in (0, 1)]
    found = judged(*pairs, *(trial("dense", 512, seed, 50) for seed in (2, 3)))
    alone = [claim for claim in found if "models share no seed" in claim.reason]
    assert len(alone) == 3  # the error on both sets, and the time
    assert {claim.verdict for claim in alone} == {"not tested"}


def test_a_curve_without_epochs_is_not_judged():
    conv, dense = trial(n_epochs=50), trial("dense", n_epochs=50)
    claim = claim_about("steeply", [(conv[0], []), dense])
    assert claim.verdict == "not tested"
    assert claim.reason == "The conv trials have no epoch history."


OTHERS = {"others": "hidden_units", "beside": "dense-512", "measure": "test_mse"}
RATIO = {"of": "conv", "beside": "dense-512", "measure": "test_mse"}
VALUE = {"of": "conv", "measure": "test_mse"}


@pytest.mark.parametrize(
    ("fields", "verdict", "reason"),
    [
        (RATIO | {"relation": "at most", "value": 1}, "reproduced", "The ratio is below 1."),
        (RATIO | {"relation": "at least", "value": 1}, "not reproduced", "The ratio is below 1."),
        (RATIO | {"relation": "at most", "value": 0.5}, "undecided", "The threshold lies within"),
        (RATIO | {"relation": "within a factor of", "value": 3}, "reproduced", "Counts as equal"),
        (
            RATIO | {"relation": "at least", "value": 2, "judged": "reaches"},
            "not reproduced",
            "The ratio is below 1: dense-512 has the higher MSE.",
        ),
        (VALUE | {"relation": "at most", "value": 0.01}, "reproduced", "It is below 0.01."),
        (VALUE | {"relation": "at least", "value": 0.01}, "not reproduced", "It is below 0.01."),
        (
            VALUE | {"relation": "at least", "value": 1, "of": "net"},
            "not tested",
            "No completed trial of net at this setting.",
        ),
        (
            OTHERS | {"relation": "at most", "value": 1},
            "not reproduced",
            "dense-256 has the greatest mean test MSE; compared with dense-256.",
        ),
    ],
)
def test_another_papers_claims_are_judged_by_the_same_rules(fields, verdict, reason):
    conv, dense = [0.0040, 0.0041, 0.0039], [0.0080, 0.0079, 0.0081]
    smaller = sizes({256: [0.02, 0.021, 0.022]})
    claim = Claim(says="It is so.", models=("dense",), **fields)
    spec = MANIFEST["spec"] | {"paper": Paper(claims=(claim,)).to_dict()}
    (found,) = claims.claims_of(run_of_trials(*ending_at(conv, dense), *smaller, spec=spec))
    assert found.verdict == verdict
    assert reason in found.reason


def test_a_study_without_a_paper_judges_nothing_and_compares_its_references():
    spec = MANIFEST["spec"] | {"paper": None}
    run = run_of_trials(*ending_at([0.009] * 2, [0.004] * 2), spec=spec, readings=[])
    assert claims.claims_of(run) == []
    assert not claims.concerns_paper(run)
    assert run.ratio_name == "conv ÷ dense-512"
    assert "claims" not in text_of(run, "claims")
    assert text_of(run, "readings") == "# What is left open\n"


def test_times_of_different_devices_say_so():
    pairs = [trial("conv", 8, 0, 50), trial("dense", 512, 0, 50, device="an H200")]
    assert "The trials ran on different devices." in claim_about("28 s", pairs).reason
