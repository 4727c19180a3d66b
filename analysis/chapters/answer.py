"""The first screen: the report's question, and the answer that the run at hand can give."""

from dataclasses import dataclass
from typing import Final, Literal

from analysis.chapters import audit, curves, likely, search
from analysis.chapters.claims import (
    REPORT_EPOCHS,
    REPORT_MSE_RATIO,
    half_verdict,
)
from analysis.chapters.parts import NO_VALUE, Answer, Fact
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    RATIO_NAME,
    Estimate,
    mean_of,
    names,
    ratio_curve,
    ratio_of,
)
from analysis.words import count, digits, mean_and_sd, open_label, open_values, seeds, short
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
    elif audit.is_audited(run.manifest, run.trials):
        kind = "audit"
    return Outcome(kind, n_epochs, ratio, missing)


def answer(run: Run) -> Answer:
    """The question, the answer in two or three sentences, and how sure it is."""
    found = outcome(run)
    if found.kind == "audit":
        said, sentences, sure = _of_readings(run)
        figure = likely.FIGURE
    else:
        said, sentences, sure = _of_setting(run, found)
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
        said,
        [sentence for sentence in (*sentences, tuned, unfinished) if sentence],
        sure,
        [] if found.kind == "empty" else _facts(run, found),
        figure,
    )


def times_as_much(ratio: Estimate, epochs: int) -> str:
    """What the ratio says, with its n: "conv has 2.2 times dense-512's test MSE (…)"."""
    certainty = f"n = {count(ratio.n, 'seed')}"
    if ratio.low is not None:
        bounds = f"{short(ratio.lowest)} to {short(ratio.highest)}"
        certainty = f"95 % interval {bounds}, {certainty}"
    return (
        f"After {count(epochs, 'epoch')} {CONV_NAME} has {short(ratio.mean)} times"
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
    crossing = ratio_curve(reference, run.epochs, TEST_MSE)
    when = f"{curves.overtaking(crossing)}." if len(crossing) and ratio.n > 1 else ""
    sure = f"{_seeds(ratio)} It holds for one reading of what the report leaves open: {setting}"
    if found.kind == "one seed":
        return "One seed cannot tell.", [f"{said}; the report has half.", when], sure
    verdict, _ = half_verdict(ratio)
    said_shortly = {
        "reproduced": "Yes, at this setting.",
        "undecided": "Undecided: too few seeds.",
    }.get(verdict, "Not at this setting.")
    if ratio.lowest > 1:
        said_shortly = "No: at this setting it has more."
    return said_shortly, [f"{said}; the report has half.", when], sure


def _of_readings(run: Run) -> tuple[str, list[str], str]:
    """The answer of an audit, on the test set."""
    audited = audit.audited_trials(run.trials)
    claims = audit.audit_claims(audited, run.epochs)
    claim = next(c for c in claims if c.claim.quantity.startswith("test MSE, conv"))
    total, holds = len(claim.judged), len(claim.under("reproduced"))
    fails = len(claim.under("not reproduced"))
    estimates = [c.estimate for _, c in claim.judged if c.estimate is not None]
    said_shortly = {
        "reproduced": f"Yes, under every one of {total} readings.",
        "not reproduced": f"No, under none of {total} readings.",
        "depends": "It depends on what the report leaves open.",
    }.get(claim.verdict, "Not decided yet.")
    least, most = (short(pick(e.mean for e in estimates)) for pick in (min, max))
    first = (
        f"Of {total} readings of it, {CONV_NAME} has half or less of {DENSE_NAME}'s test MSE under"
        f" {holds}, and not under {fails}: {least} to {most} times as much after"
        f" {count(int(audited['epochs'].max()), 'epoch')}."
    )
    effects = [
        (likely.distance(effect.ratio, 1), effect)
        for effect in likely.effects(audited)
        if effect.metric == TEST_MSE and effect.ratio is not None
    ]
    second = ""
    if effects:
        _, strongest = max(effects, key=lambda item: item[0])
        default = BY_NAME[strongest.name].default
        ratios = [
            ratio_of(audit.trials_under(audited, reading), TEST_MSE)
            for reading in (
                audit.DEFAULT,
                {**audit.DEFAULT, strongest.name: strongest.value},
            )
        ]
        before, after = (short(r.mean) if r else NO_VALUE for r in ratios)
        second = (
            f"Most of all on the {open_label(strongest.name)}: {strongest.value} in place of"
            f" {default} alone turns {before} into {after} times."
        )
    on_report = likely.likely_sentences(likely.likely_reading(audited), audited, claims)
    n = seeds(e.n for e in estimates)
    sure = (
        f"A reading has {n}, and a verdict needs a 95 % interval over them on one side. Readings"
        " other than these were not tried."
    )
    return said_shortly, [first, second, on_report[0]], sure


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
        Fact(
            f"{name}, test MSE",
            mean_and_sd(mean).partition(" ± ")[0],
            ", ".join([*(f"± {sd}" for sd in mean_and_sd(mean).split(" ± ")[1:]), f"n = {mean.n}"]),
        )
        for name, mean in means.items()
        if mean
    ]
    report = f"{setting}the report: {REPORT_MSE_RATIO:g}"
    return [*facts, Fact(RATIO_NAME, f"{digits(ratio.mean)} ×", f"{note}; {report}")]
