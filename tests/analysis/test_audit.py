"""The audit: verdicts over the readings, what they depend on, the likely reading, and gaps."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from golden import agrees
from pages import chapter_of, run_of_trials, screen, text_of
from rows import Trial, trial
from scipy import stats
from synthetic_runs import MANIFEST, REPORT, audit_trials, write_run

from analysis.audit import Audit, AuditedClaim
from analysis.chapters import readings
from analysis.load import read_run
from analysis.page.text import lines
from analysis.report import write_report
from analysis.specifications import SEEDS, shares
from study.folder import schema

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "audit-cpu"
HALF = "half of dense-512's MSE on the test set"
SIZES = "512 hidden units are the best dense size."


def audit_of(*pairs: Trial) -> Audit:
    return Audit(run_of_trials(*pairs))


def audited(*pairs: Trial) -> dict[str, AuditedClaim]:
    """The audit of some trials, by claim."""
    return {claim.claim.says: claim for claim in audit_of(*pairs).claims}


def claim_about(words: str, *pairs: Trial) -> AuditedClaim:
    (found,) = [claim for name, claim in audited(*pairs).items() if words in name]
    return found


def factors(**of_dense: float) -> dict[str, dict]:
    """Factors that make dense-512 ÷ conv 0.467 times those of dense, and no more."""
    return {schema.CONV: {}, schema.DENSE: dict(of_dense)}


def test_a_claim_is_judged_under_every_reading_that_concerns_it():
    claims = audited(*audit_trials(sizes=(256, 512)))
    assert [len(claim.judged) for claim in claims.values()] == [12, 12, 12, 6, 6, 6]
    assert {claim.verdict for claim in claims.values()} <= {
        "reproduced",
        "not reproduced",
        "not comparable",
    }


@pytest.mark.parametrize(
    ("of", "verdict", "depends_on"),
    [
        (factors(sigmoid=6.0), "depends", (("hidden_activation",),)),
        (  # 0.467 · 2.6 / 0.5 > 2
            {schema.CONV: {16: 0.5}, schema.DENSE: {"sigmoid": 2.6}},
            "depends",
            (("latent_filters", "hidden_activation"),),
        ),
        (factors(relu=6.0, sigmoid=6.0), "reproduced", ()),
    ],
)
def test_a_claim_depends_on_what_tells_its_verdicts_apart(of: dict, verdict: str, depends_on):
    found = claim_about(HALF, *audit_trials(factors=of))
    assert (found.verdict, found.depends_on) == (verdict, depends_on)


def test_untested_readings_leave_a_claim_undecided():
    pairs = [pair for pair in audit_trials() if pair[0]["batch_size"] != 1000]
    found = claim_about(HALF, *pairs)
    assert found.verdict == "undecided"
    assert len(found.under("not tested")) == 4


def test_a_missing_size_leaves_the_best_size_undecided():
    pairs = [
        pair
        for pair in audit_trials(sizes=(128, 256, 512))
        if (pair[0]["hidden_units"], pair[0]["batch_size"]) != (128, 1000)
    ]
    found = claim_about(SIZES, *pairs)
    assert found.verdict == "undecided"
    assert "Not compared: dense-128." in found.judged[-1][1].reason


def test_what_is_said_of_an_audit():
    agrees("readings", text_of(run_of_trials(*audit_trials(sizes=(64, 256, 512))), "readings"))


def test_a_reading_whose_training_mse_is_0_has_no_ratio_there_and_is_drawn_without():
    pairs = audit_trials()
    for row, epochs in pairs:
        if (row["model"], row["batch_size"], row["hidden_activation"]) == ("dense", 128, "sigmoid"):
            row["train_mse"] = epochs[-1]["train_mse"] = 0.0
    run = run_of_trials(*pairs)
    assert sum("train_mse" not in one.ratios for one in Audit(run).curve) == 2
    drawn = readings.draw(Audit(run), run.ratio_name).points
    assert sorted(len(points.x) for points in drawn) == [10, 12]
    assert "nan" not in text_of(run, "readings").lower().split()


def test_the_curve_is_sorted_and_its_weights_are_shares_of_the_likelihood():
    audit = audit_of(*audit_trials(factors=FITS))
    curve = audit.curve
    ratios = [one.ratios[schema.TEST_MSE].mean for one in curve]
    assert len(curve) == 12
    assert ratios == sorted(ratios)
    assert sum(one.weight for one in curve) == pytest.approx(1)
    best = max(curve, key=lambda one: one.weight)
    assert best.reading == {
        "batch_size": 128,
        "latent_filters": 8,
        "hidden_activation": "sigmoid",
    }
    assert best.weight > 0.9
    # An interval that holds with 11 others is that of 1 − 0.05 / 12.
    levels, ratios = audit.cells()[0]
    logs = np.log(ratios)
    (first,) = [one for one in curve if one.reading == levels]
    half = stats.t.ppf(1 - 0.025 / 12, 2) * logs.std() / np.sqrt(3)
    assert first.together.high == pytest.approx(np.exp(logs.mean() + half))


# Ratios of 0.5 under one reading alone, and far from it under the others.
FITS = {schema.CONV: {16: 0.4}, schema.DENSE: {256: 0.2, 1000: 8.0, "sigmoid": 4.29}}


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (audit_trials(factors=FITS), "The report most likely used batch size 128, latent filters"),
        (audit_trials(factors=factors(sigmoid=4.29)), "The report may have used batch size"),
        (
            audit_trials(factors=factors(sigmoid=40.0)),
            "Under none of 12 readings is the report's 0.5 to be expected: the nearest is batch",
        ),
        (audit_trials(n_seeds=1), "Which reading the report used cannot be said"),
        (audit_trials(n_epochs=3), "Which reading the report used cannot be said"),
        (
            [p for p in audit_trials(factors=FITS) if p[0]["batch_size"] != 1000],
            "4 readings without a pair of trials cannot be judged.",
        ),
    ],
)
def test_what_is_said_of_the_likely_reading(pairs: list[Trial], words: str):
    assert words in text_of(run_of_trials(*pairs), "readings")


def test_shares_of_the_published_audit_are_as_computed_by_hand():
    """On the test set, by sums of squares of a 3 × 2 × 2 table with the first 3 seeds a cell."""
    run = read_run(PUBLISHED)
    audit = Audit(replace(run, trials=run.trials[run.trials["seed"] < 3]))
    found = shares(audit.cells())
    told = {
        ("batch_size",): 0.2624,
        ("latent_filters",): 0.0116,
        ("hidden_activation",): 0.6887,
        ("batch_size", "hidden_activation"): 0.0311,
        SEEDS: 0.0050,
    }
    assert {name: found[name] for name in told} == pytest.approx(told, abs=1e-3)
    assert sum(found.values()) == pytest.approx(1)
    curve = [one.ratios[schema.TEST_MSE].mean for one in audit.curve]
    assert sum(ratio < 1 for ratio in curve) == 8
    assert np.median(curve) == pytest.approx(0.78, abs=0.005)


def test_an_audit_has_its_file():
    content = readings.files(run_of_trials(*audit_trials()))[readings.CSV_FILE]
    rows = pd.read_csv(io.BytesIO(content))
    assert len(rows) == 3 * 12 + 3 * 6
    assert set(rows["n"]) == {3}
    content = readings.files(run_of_trials(*audit_trials()))[readings.CURVE_FILE]
    assert len(pd.read_csv(io.BytesIO(content))) == 12


def test_a_paper_that_measured_no_ratio_has_no_likely_reading():
    claims = [replace(c, judged="whole", value=1) for c in REPORT.claims if c.value == 0.5]
    paper = replace(REPORT, called="the blog", claims=tuple(claims[:2]))
    spec = MANIFEST["spec"] | {"paper": paper.to_dict()}
    pairs = audit_trials(factors=factors(sigmoid=6.0))
    text = text_of(run_of_trials(*pairs, spec=spec), "readings")
    assert "What the blog leaves open" in text
    assert "likely" not in text
    words = " ".join(lines(screen(*pairs, spec=spec)))
    assert "It depends on what the blog leaves open." in words
    assert "conv has at most 1 times dense-512's test MSE under 6, and not under 6" in words


WHOLE = audit_trials()


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (audit_trials(n_seeds=1), "Every reading has one seed: no interval."),
        (
            [p for p in WHOLE if p[0]["model"] == schema.CONV],
            "dense-512: no completed trial under any reading.",
        ),
        (
            [p for p in WHOLE if p[0]["batch_size"] != 1000],
            "conv: no completed trial with batch size 1000, latent filters 8; no completed trial",
        ),
        (
            [p for p in WHOLE if (p[0]["seed"], p[0]["batch_size"]) != (2, 1000)],
            "conv: n = 2 of 3 with batch size 1000, latent filters 8;",
        ),
        (
            [(row | {"state": schema.DIVERGED}, history) for row, history in WHOLE],
            "any reading; 18 diverged, in no number",
        ),
    ],
)
def test_gaps_of_the_audit_are_said(pairs: list[Trial], sentence: str):
    run = run_of_trials(*pairs)
    (gap,) = chapter_of(run, "readings")[0].gaps
    assert gap.startswith("The audit is not whole")
    assert sentence in gap


def test_a_run_without_readings_says_so_and_has_no_older_audit(tmp_path: Path):
    old = tmp_path / "report" / readings.CSV_FILE
    old.parent.mkdir()
    old.touch()
    write_report(write_run(tmp_path, trial("conv", 8)))
    assert not old.exists()
    text = text_of(run_of_trials(trial("conv", 8)), "readings")
    assert "gap: No trials under other readings" in text
    assert "The claims under every reading" not in text
