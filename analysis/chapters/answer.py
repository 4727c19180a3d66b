"""The first screen: the report's question, and the answer that the run at hand can give."""

from dataclasses import dataclass
from typing import Final, Literal

from analysis.chapters import curves, readings, search
from analysis.chapters.claims import (
    REPORT_EPOCHS,
    REPORT_MSE_RATIO,
    half_verdict,
)
from analysis.chapters.parts import NO_VALUE, Answer, Fact
from analysis.load import Run
from analysis.statistics import CONV_NAME, DENSE_NAME, RATIO_NAME, Estimate, mean_of, names, ratio_of
from analysis.words import count, digits, mean_and_sd, open_label, open_values, seeds, sentence_case
from study.folder.schema import BY_NAME, SEARCH, TEST_MSE

QUESTION: Final = "Does a convolutional autoencoder have half the error of a dense one?"
ASKED_BY: Final = (
    "A 2021 course report (L. Biedma, Redes Neuronales, Práctico 3) says so of MNIST: after"
    f" {REPORT_EPOCHS} epochs the convolutional autoencoder (conv) has half the mean squared error"
    " (MSE) of a dense one with 512 hidden units (dense-512)."
)
FINISHED: Final = "finished"


@dataclass(frozen=True)
class Outcome:
    """How far a run can answer the question, and with what.

    Attributes:
        kind: "empty" without a ratio, "short" below the report's epochs, "one seed", "measured",
            or "audit" for the answer under several readings.
        n_epochs: of the reference trials; 0 for none.
        ratio: conv ÷ dense-512, test MSE; None if a model is missing or they share no seed.
        missing: the models without a completed reference trial.
    """

    kind: Literal["empty", "short", "one seed", "measured", "audit"]
    n_epochs: int
    ratio: Estimate | None
    missing: tuple[str, ...]


def outcome(run: Run) -> Outcome:
    """How far a run can answer the question."""
    reference = run.reference
    missing = tuple(name for name in (CONV_NAME, DENSE_NAME) if name not in names(reference))
    ratio = ratio_of(reference, TEST_MSE)
    n_epochs = 0 if reference.empty else int(reference["epochs"].iloc[0])
    kind: Literal["empty", "short", "one seed", "measured", "audit"] = "measured"
    if ratio is None:
        kind = "empty"
    elif n_epochs < REPORT_EPOCHS:
        kind = "short"
    elif ratio.low is None:
        kind = "one seed"
    elif readings.is_audited(run.manifest, run.trials):
        kind = "audit"
    return Outcome(kind, n_epochs, ratio, missing)


def answer(run: Run) -> Answer:
    """The question, the answer in two or three sentences, and how sure it is."""
    found = outcome(run)
    if found.kind == "audit":
        short, sentences, sure = _of_readings(run)
        figure = readings.FIGURE
    else:
        short, sentences, sure = _of_setting(run, found)
        figure = curves.TEST
    tuned = search.who_is_ahead(search.winners_ratio(search.winner_trials(run.trials)))
    if tuned and found.kind == "short":
        tuned = ""  # winners of a short run say as little
    status = run.manifest["status"]
    unfinished = ""
    if status != FINISHED:
        unfinished = f"The study is not finished ({status}): numbers may change."
    return Answer(
        QUESTION,
        ASKED_BY,
        short,
        [sentence for sentence in (*sentences, tuned, unfinished) if sentence],
        sure,
        [] if found.kind == "empty" else _facts(run, found),
        figure,
    )


def times_as_much(ratio: Estimate, epochs: int) -> str:
    """What the ratio says, with its n: "conv has 2.2 times dense-512's test MSE (…)"."""
    certainty = f"n = {count(ratio.n, 'seed')}"
    if ratio.low is not None:
        bounds = f"{digits(ratio.lowest)} to {digits(ratio.highest)}"
        certainty = f"95 % interval {bounds}, {certainty}"
    return (
        f"After {count(epochs, 'epoch')} {CONV_NAME} has {digits(ratio.mean)} times"
        f" {DENSE_NAME}'s test MSE ({certainty})"
    )


def _of_setting(run: Run, found: Outcome) -> tuple[str, list[str], str]:
    """The answer of a run that trained the report's models in one setting."""
    ratio, reference = found.ratio, run.reference
    if ratio is None:
        why = f"no completed reference trial of {' or of '.join(found.missing)}"
        if not found.missing:
            why = "the two models share no seed"
        said = f"It has {why}." if found.missing else f"In it {why}."
        if (run.trials["group"] == SEARCH).any():
            said += " What its search found is below."
        return "This run cannot say.", [said], "Nothing here compares the report's two models."
    setting = f"{open_values(reference)}."
    said = times_as_much(ratio, found.n_epochs)
    if found.kind == "short":
        ahead = CONV_NAME if ratio.mean < 1 else DENSE_NAME
        return (
            "Too short to test it.",
            [
                f"This run trained for {count(found.n_epochs, 'epoch')}, the report's claim is"
                f" about {REPORT_EPOCHS}.",
                f"What it shows so far: {ahead} is ahead. {said}.",
            ],
            f"{_seeds(ratio)} Who is ahead early may be behind at {REPORT_EPOCHS} epochs.",
        )
    crossing = curves.ratio_curve(reference, run.epochs, TEST_MSE)
    when = f"{curves.overtaking(crossing)}." if len(crossing) else ""
    sure = f"{_seeds(ratio)} It holds for one reading of what the report leaves open: {setting}"
    if found.kind == "one seed":
        return "One seed cannot tell.", [f"{said}; the report has half.", when], sure
    verdict, _ = half_verdict(ratio)
    short = {
        "reproduced": "Yes, at this setting.",
        "undecided": "Undecided: too few seeds.",
    }.get(verdict, "Not at this setting.")
    if ratio.lowest > 1:
        short = "No: at this setting it has more."
    return short, [f"{said}; the report has half.", when], sure


def _of_readings(run: Run) -> tuple[str, list[str], str]:
    """The answer of an audit, on the test set."""
    audited = readings.audited_trials(run.trials)
    claims = readings.audit_claims(audited, run.epochs)
    claim = next(c for c in claims if c.claim.quantity.startswith("test MSE, conv"))
    total, holds = len(claim.judged), len(claim.under("reproduced"))
    fails = len(claim.under("not reproduced"))
    estimates = [c.estimate for _, c in claim.judged if c.estimate is not None]
    short = {
        "reproduced": f"Yes, under every one of {total} readings.",
        "not reproduced": f"No, under none of {total} readings.",
        "depends": "It depends on what the report leaves open.",
    }.get(claim.verdict, "Not decided yet.")
    least, most = (digits(pick(e.mean for e in estimates)) for pick in (min, max))
    first = (
        f"Of {total} readings of it, {CONV_NAME} has half or less of {DENSE_NAME}'s test MSE under"
        f" {holds}, and not under {fails}: {least} to {most} times as much after"
        f" {count(int(audited['epochs'].max()), 'epoch')}."
    )
    effects = [e for e in readings.effects(audited) if e.metric == TEST_MSE and e.ratio]
    second = ""
    if effects:
        strongest = max(effects, key=lambda e: readings.distance(e.ratio, 1))
        default = BY_NAME[strongest.name].default
        ratios = [
            ratio_of(readings.trials_under(audited, reading), TEST_MSE)
            for reading in (
                readings.DEFAULT,
                {**readings.DEFAULT, strongest.name: strongest.value},
            )
        ]
        before, after = (digits(r.mean) if r else NO_VALUE for r in ratios)
        second = (
            f"Most of all on the {open_label(strongest.name)}: {strongest.value} in place of"
            f" {default} alone turns {before} into {after} times."
        )
    likely = readings.likely_sentences(readings.likely_reading(audited), audited, claims)
    n = seeds(e.n for e in estimates)
    sure = (
        f"{sentence_case(n)} a reading; a verdict needs a 95 % interval on one side. Seeds are"
        " chance in initial weights and order; other readings than these were not tried."
    )
    return short, [first, second, likely[0]], sure


def _seeds(ratio: Estimate) -> str:
    if ratio.low is None:
        return "One seed: no interval, so it may be chance."
    return f"{count(ratio.n, 'seed')}; the interval is over the chance in weights and order."


def _facts(run: Run, found: Outcome) -> list[Fact]:
    """The numbers under the answer; at the reference setting."""
    ratio = found.ratio
    assert ratio is not None
    means = {name: mean_of(run.reference, name, TEST_MSE) for name in (CONV_NAME, DENSE_NAME)}
    note = "one seed" if ratio.low is None else f"{digits(ratio.lowest)} to {digits(ratio.highest)}"
    setting = "at the default reading, " if found.kind == "audit" else ""
    facts = [
        Fact(f"{name}, test MSE", mean_and_sd(mean), f"n = {mean.n}" if mean else "")
        for name, mean in means.items()
    ]
    report = f"{setting}the report: {REPORT_MSE_RATIO:g}"
    return [*facts, Fact(RATIO_NAME, f"{digits(ratio.mean)} ×", f"{note}; {report}")]

