"""The audit: verdicts over the readings, what they depend on, the likely reading, and gaps."""

import io
from pathlib import Path

import pandas as pd
import pytest
from pages import run_of_trials, text_of
from synthetic_runs import READING_FACTORS, audit_trials, trial, write_run
from synthetic_runs import tables as run_tables

from analysis.chapters import audit, likely, readings
from analysis.chapters.audit import AuditedClaim
from analysis.report import write_report
from study.folder import schema
from study.plan.study_file import PRESETS
from study.plan.trials import reading_trials

HALF = "half of dense-512's MSE on the test set"
SIZES = "512 hidden units are the best dense size."


def audited(*pairs) -> dict[str, AuditedClaim]:
    """The audit of some trials, by claim."""
    trials, epochs = run_tables(*pairs)
    claims = audit.audit_claims(audit.audited_trials(trials), epochs)
    return {claim.claim.claim: claim for claim in claims}


def claim_about(words: str, *pairs) -> AuditedClaim:
    (found,) = [claim for name, claim in audited(*pairs).items() if words in name]
    return found


def factors(**of_dense: float) -> dict[str, dict]:
    """Factors that make dense-512 ÷ conv 0.467 times those of dense, and no more."""
    return {schema.CONV: {}, schema.DENSE: dict(of_dense)}


def found_likely(pairs) -> likely.LikelyReading:
    return likely.likely_reading(audit.audited_trials(run_tables(*pairs)[0]))


def test_the_open_values_are_those_that_the_preset_trains():
    configs = [point.config for point in reading_trials(PRESETS["audit"])]
    for name, values in schema.OPEN_VALUES.items():
        seen = {getattr(config, name) for config in configs} - {None}
        assert seen | {audit.DEFAULT[name]} == set(values)


def test_a_claim_is_judged_under_every_reading_that_concerns_it():
    claims = audited(*audit_trials(sizes=(256, 512)))
    assert [len(claim.judged) for claim in claims.values()] == [12, 12, 12, 6, 6, 6]
    assert {claim.verdict for claim in claims.values()} <= {
        "reproduced",
        "not reproduced",
        "not comparable",
    }


def test_estimates_are_paired_by_seed():
    (reading, claim) = claim_about(HALF, *audit_trials()).judged[0]
    assert reading == {"batch_size": 128, "latent_filters": 8, "hidden_activation": "relu"}
    assert claim.estimate is not None
    assert claim.estimate.n == 3
    expected = 0.009 * 0.8 / (0.0042 * 0.9)
    assert claim.estimate.mean == pytest.approx(expected, rel=0.03)


def test_a_claim_depends_on_what_tells_its_verdicts_apart():
    found = claim_about(HALF, *audit_trials(factors=factors(sigmoid=6.0)))
    assert found.verdict == "depends"
    assert found.depends_on == (("hidden_activation",),)
    why = audit.overall_table([found]).rows[0][-1]
    assert (
        "Depends on the dense hidden activation: reproduced with dense hidden activation sigmoid"
        in why
    )
    assert why.endswith("; not reproduced with the others.")


def test_a_claim_may_depend_on_two_values_together():
    together = {schema.CONV: {16: 0.5}, schema.DENSE: {"sigmoid": 2.6}}  # 0.467 · 2.6 / 0.5 > 2
    found = claim_about(HALF, *audit_trials(factors=together))
    assert found.verdict == "depends"
    assert found.depends_on == (("latent_filters", "hidden_activation"),)


def test_a_claim_that_holds_everywhere_is_reproduced():
    found = claim_about(HALF, *audit_trials(factors=factors(relu=6.0, sigmoid=6.0)))
    assert found.verdict == "reproduced"
    assert found.depends_on == ()


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


@pytest.mark.parametrize("state", [schema.DIVERGED, schema.FAILED, schema.RUNNING, schema.PRUNED])
def test_only_completed_trials_enter(state: str):
    whole = audit_trials()
    bad = [
        (row | {"state": state}, history) if row["seed"] == 2 else (row, history)
        for row, history in whole
    ]
    fewer = [pair for pair in whole if pair[0]["seed"] != 2]
    assert audited(*bad) == audited(*fewer)
    trials, _ = run_tables(*bad)
    coverage = audit.coverage(trials, audit.audited_trials(trials))
    assert set(coverage["n"]) == {2}
    assert all(states == {state: 1} for states in coverage["states"])


def test_the_likely_reading_is_the_one_that_has_the_reports_ratio():
    # 0.467 times 4.3 is 2.0 with sigmoid; other batch sizes and filters move it far away.
    apart = {schema.CONV: {16: 0.4}, schema.DENSE: {128: 0.2, 1000: 8.0, "sigmoid": 4.3}}
    found = found_likely(audit_trials(factors=apart))
    assert found.n_judged == 12
    assert found.nearest == {
        "batch_size": 256,
        "latent_filters": 8,
        "hidden_activation": "sigmoid",
    }
    assert found.factor < 1.05
    assert set(map(str, found.compatible)) <= {str(found.nearest)}


def test_the_likely_reading_needs_intervals_and_the_reports_epochs():
    assert found_likely(audit_trials(n_seeds=1)).nearest is None
    assert found_likely(audit_trials(n_epochs=3)).nearest is None
    assert found_likely([]).nearest is None


def sentences_of(pairs) -> list[str]:
    trials, epochs = run_tables(*pairs)
    its = audit.audited_trials(trials)
    claims = audit.audit_claims(its, epochs)
    return likely.likely_sentences(likely.likely_reading(its), its, claims)


def test_the_one_reading_that_fits_is_named():
    apart = {schema.CONV: {16: 0.4}, schema.DENSE: {256: 0.2, 1000: 8.0, "sigmoid": 4.29}}
    first, second = sentences_of(audit_trials(factors=apart))
    assert first.startswith(
        "The report most likely used batch size 128, latent filters 8, dense hidden activation sig"
    )
    assert second.startswith("That rests on the ratio alone")


def test_readings_that_all_fit_are_not_decided_among():
    first, second = sentences_of(audit_trials(factors=factors(sigmoid=4.29)))
    assert first.startswith("The report may have used any of 4 of the 12 readings, whose")
    assert second.startswith("The evidence does not decide among them")


def test_a_partial_audit_decides_nothing_and_names_the_nearest_value():
    apart = {schema.CONV: {16: 0.4}, schema.DENSE: {128: 0.2, 1000: 8.0, "sigmoid": 4.3}}
    pairs = [
        (row, history)
        for row, history in audit_trials(factors=apart)
        if row["seed"] == 0 or (row["batch_size"], row["hidden_activation"]) == (128, "relu")
    ]
    first, second = sentences_of(pairs)
    assert "cannot be said yet" in first
    assert "under 0 of 12 readings" in first  # conv has one seed throughout
    nearest = "batch size 256, latent filters 8, dense hidden activation sigmoid"
    assert second.startswith(f"By the value alone the nearest to the report's 0.5 is {nearest}")


def test_a_short_audit_says_nothing_of_the_reading():
    assert "completed 50 epochs" in sentences_of(audit_trials(n_epochs=3))[0]


def test_where_nothing_fits_the_evidence_does_not_decide():
    pairs = audit_trials()
    trials, epochs = run_tables(*pairs)
    its = audit.audited_trials(trials)
    found = likely.likely_reading(its)
    assert found.compatible == ()
    sentences = likely.likely_sentences(found, its, audit.audit_claims(its, epochs))
    assert len(sentences) == 2
    assert "the evidence does not decide" in sentences[1]


def test_effects_are_ratios_to_the_default_reading():
    found = likely.effects(audit.audited_trials(run_tables(*audit_trials())[0]))
    by_value = {(effect.name, effect.value, effect.metric): effect for effect in found}
    assert len(by_value) == 8
    effect = by_value["hidden_activation", "sigmoid", schema.TEST_MSE]
    assert effect.conv is None
    assert effect.dense is not None
    assert effect.ratio is not None
    assert effect.dense.mean == pytest.approx(READING_FACTORS[schema.DENSE]["sigmoid"])
    assert effect.ratio.mean == pytest.approx(1 / effect.dense.mean)
    filters = by_value["latent_filters", 16, schema.TEST_MSE]
    assert filters.conv is not None
    assert filters.ratio is not None
    assert filters.ratio.mean == pytest.approx(filters.conv.mean)


def test_an_audit_has_its_chapter_and_file():
    chapter = readings.chapter(run_of_trials(*audit_trials()))
    text = text_of(chapter)
    assert "|Under all 12 readings." in text
    assert "The ratio of the two models under every reading" in text
    assert "What the audit lacks" not in text
    assert "dense hidden activation sigmoid, not relu|test|does not apply|2.50 (" in text
    rows = pd.read_csv(io.BytesIO(chapter.files[readings.CSV_FILE]))
    assert len(rows) == 3 * 12 + 3 * 6
    assert set(rows["n"]) == {3}


@pytest.mark.parametrize(
    ("pairs", "sentences"),
    [
        (audit_trials(n_seeds=1), ["Every reading has one seed: no interval."]),
        (
            [pair for pair in audit_trials() if pair[0]["model"] == schema.CONV],
            ["dense-512: no completed trial under any reading.", "not tested"],
        ),
        (
            [pair for pair in audit_trials() if pair[0]["batch_size"] != 1000],
            ["conv: no completed trial with batch size 1000, latent filters 8 / batch size 1000"],
        ),
        (
            [
                pair
                for pair in audit_trials()
                if (pair[0]["seed"], pair[0]["batch_size"]) != (2, 1000)
            ],
            ["fewer than 3 seeds with batch size 1000, latent filters 8 (n = 2)"],
        ),
        (
            [(row | {"state": schema.DIVERGED}, history) for row, history in audit_trials()],
            ["any reading; in no number, its trials 18 diverged"],
        ),
    ],
)
def test_gaps_of_the_audit_are_said(pairs, sentences):
    chapter = readings.chapter(run_of_trials(*pairs))
    for sentence in sentences:
        assert sentence in text_of(chapter)
    assert chapter.gaps[0].startswith("The audit is not whole")


def test_a_run_without_readings_says_so_and_has_no_older_audit(tmp_path: Path):
    old = tmp_path / "report" / readings.CSV_FILE
    old.parent.mkdir()
    old.touch()
    write_report(write_run(tmp_path, trial("conv", 8)))
    assert not old.exists()
    chapter = readings.chapter(run_of_trials(trial("conv", 8)))
    assert "No trials under other readings" in chapter.gaps[0]
    assert "The claims under every reading" not in text_of(chapter)
