"""The first screen: the report's question, and the answer that the run at hand can give."""

from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from analysis.chapters import audit, curves, custom, finalists, likely, search, winners
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
    mean_over_seeds,
    models_of,
    names,
    ratio_curve,
    ratio_of,
)
from analysis.words import (
    MNIST,
    count,
    custom_question,
    digits,
    ends,
    image_set,
    listed,
    mean_and_sd,
    open_label,
    open_values,
    seeds,
    sentence_case,
    short,
)
from study.folder.schema import BY_NAME, GROUPS, MODELS, READING, REFERENCE, SEARCH, TEST_MSE

QUESTION: Final = "Does a convolutional autoencoder have half the error of a dense one?"
ASKED_BY: Final = (
    "A 2021 course report (L. Biedma, Redes Neuronales, Práctico 3) says so of MNIST: after"
    f" {REPORT_EPOCHS} epochs the convolutional autoencoder (conv) has half the mean squared error"
    " (MSE) of a dense one with 512 hidden units (dense-512)."
)
FINISHED: Final = "finished"
NOTHING: Final = "No completed trial says anything yet."


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
    if len(run.trials) and (question := custom_question(run.manifest)):
        return _of_question(run, question)
    if len(run.trials) and not asks_the_report(run):
        return _of_study(run)
    found = outcome(run)
    if found.kind == "audit":
        said, sentences, sure = _of_readings(run)
        figure = likely.FIGURE
    else:
        said, sentences, sure = _of_setting(run, found)
        figure = curves.TEST
    beside = [_best_of_all(run), winners.tuned_sentence(winners.winner_trials(run.trials))]
    if found.kind == "short":
        beside = []  # winners of a short run say as little
    beside += [_own(run), _unfinished(run)]
    return Answer(
        QUESTION,
        ASKED_BY,
        said,
        [sentence for sentence in (*sentences, *beside) if sentence],
        sure,
        [] if found.kind == "empty" else _facts(run, found),
        figure,
    )


def asks_the_report(run: Run) -> bool:
    """Whether a run is about the report's question: its two kinds of model, on its images."""
    of_report = run.trials["group"].isin((REFERENCE, READING))
    return image_set(run.manifest) == MNIST and set(MODELS) <= set(run.trials["model"][of_report])


def _unfinished(run: Run) -> str:
    status = run.manifest["status"]
    return (
        "" if status == FINISHED else f"The study is not finished ({status}): numbers may change."
    )


def _custom_settings(run: Run) -> list[custom.CustomSetting]:
    return custom.custom_settings(run.trials, run.manifest["spec"].get("batch_size"))


def _own(run: Run) -> str:
    return custom.best_custom(_custom_settings(run))


def _ranked(run: Run) -> list[tuple[str, Estimate]]:
    """The architectures at the reference setting by mean test MSE, the best first."""
    found = ((name, mean_of(run.reference, name, TEST_MSE)) for name in names(run.reference))
    return sorted(((n, e) for n, e in found if e is not None), key=lambda item: item[1].mean)


def _best_of_all(run: Run) -> str:
    """Which architecture is the best, of a run with models of a person's own."""
    ranked = _ranked(run)
    if set(run.reference["model"]) <= set(MODELS) or len(ranked) < 2:
        return ""
    (best, mean), (second, _), *_ = ranked
    return f"Of all, {_least(run, best, mean, second)}."


def _least(run: Run, best: str, mean: Estimate, second: str) -> str:
    """What the best architecture has, beside the next one."""
    said = f"{best} has the least test MSE, {mean_and_sd(mean)} ({seeds([mean.n])})"
    ratio = ratio_of(run.reference, TEST_MSE, best, second)
    if ratio is None:
        return f"{said}; {second} is next"
    bounds = f"n = {count(ratio.n, 'seed')}"
    if ratio.low is not None:
        bounds = f"95 % interval {short(ratio.lowest)} to {short(ratio.highest)}, {bounds}"
        if not ratio.excludes(1):
            bounds += ": undecided"
    return f"{said}, {short(ratio.mean)} times that of {second}, the next ({bounds})"


def _of_study(run: Run) -> Answer:
    """The answer of a study that is not about the report's question: what came out."""
    images, models = image_set(run.manifest), models_of(run.trials)
    why = (
        f"The report's question is about {MNIST}, so this page does not answer it."
        if images != MNIST
        else "The report compares conv and dense at its setting, and this page cannot."
    )
    groups = run.trials["group"].value_counts()
    trained = listed(f"{count(int(groups[g]), f'{g} trial')}" for g in GROUPS if g in groups)
    asked_by = f"This study trained {listed(models)} on {images}: {trained}. {why}"
    ranked = _ranked(run)
    best_models = winners.winner_trials(run.trials)
    tuned = winners.tuned_sentence(best_models) or _winner_alone(best_models)
    over_seeds = finalists.finalist_sentences(
        run.trials, finalists.finalists(run.trials, run.manifest["spec"].get("batch_size"))
    )
    said, first, sure, figure = "Nothing to compare yet.", "", NOTHING, ""
    if len(ranked) > 1:
        (best, mean), (second, _), *_ = ranked
        n_epochs = count(int(run.reference["epochs"].iloc[0]), "epoch")
        said = f"{sentence_case(best)}, at the reference setting."
        first = (
            f"After {n_epochs}, of {len(ranked)} architectures {_least(run, best, mean, second)}."
        )
        ratio = ratio_of(run.reference, TEST_MSE, best, second)
        if ratio is None or not ratio.excludes(1):
            said = "Undecided: too few seeds." if mean.n > 1 else "One seed cannot tell."
        sure = f"{_seeds(ratio or mean)} It holds for one setting: {open_values(run.reference)}."
        figure = curves.TEST
    elif ranked:
        ((best, mean),) = ranked
        n_epochs = count(int(run.reference["epochs"].iloc[0]), "epoch")
        said = f"{sentence_case(best)}: test MSE {digits(mean.mean)}."
        first = (
            f"After {n_epochs} {best} has a test MSE of {mean_and_sd(mean)} ({seeds([mean.n])})."
        )
        sure = f"{_seeds(mean)} No other architecture has a completed reference trial beside it."
        figure = curves.TEST
    elif asked := custom.comparable(_custom_settings(run)):
        said = f"{sentence_case(asked[0].label)}."
        sure = "No reference trial completed: what an own setting gains over it is not known."
        if asked[0].mean is not None:
            sure = f"{_seeds(asked[0].mean)} {sure}"
        figure = custom.figure_name(custom.CURVES, asked[0].metric)
    elif tuned or over_seeds:
        said = "No reference to compare with."
        sure = "No reference trial completed: what a setting gains over it is not known."
        figure = finalists.FIGURE if over_seeds else search.PROGRESS
    elif (run.trials["group"] == SEARCH).any():
        said, first, figure = "A search alone.", "What it found is below.", search.PROGRESS
    sentences = [first, tuned, *([] if tuned else over_seeds), _own(run), _unfinished(run)]
    return Answer(
        f"Which autoencoder has the least error on {images}?"
        if max(len(models), len(ranked)) > 1
        else f"What is the error of {models[0]} on {images}?",
        asked_by,
        said,
        [sentence for sentence in sentences if sentence],
        sure,
        [Fact(f"{name}, test MSE", *_value_and_note(mean)) for name, mean in ranked[:3]],
        figure,
    )


def _of_question(run: Run, question: str) -> Answer:
    """The answer to a question of the study's author: what speaks to it, the nearest first.

    That is own trials beside their reference, then tuned models, then the reference trials.
    """
    plain = _of_study(run)
    settings = _custom_settings(run)
    asked = custom.comparable(settings)
    tuned = winners.winner_trials(run.trials)
    batch_size = run.manifest["spec"].get("batch_size")
    over_seeds = finalists.finalists(run.trials, batch_size)
    said, sure, figure = plain.short, plain.sure, plain.figure
    first: list[str] = []
    facts = plain.facts
    if asked and asked[0].mean is not None:
        best = asked[0]
        factor = custom.factor_of(asked)
        aside = ""
        if factor is not None and len(best.reference):
            value = custom.factor_words(factor, best.reference.iloc[0])
            aside = f" ({value})"
        said = _beside(sentence_case(best.label), best.ratio, "the reference setting's", aside)
        first = [one for one in (custom.best_custom(settings), custom.collapses(settings)) if one]
        sure = _seeds(best.ratio or asked[0].mean)
        named = custom.CURVES if factor is None else custom.FACTOR
        figure = custom.figure_name(named, best.metric)
    elif len(models_of(tuned)) > 1:
        means = {m: winners.winner_of(tuned, m)[TEST_MSE].mean() for m in models_of(tuned)}
        best_model, second, *_ = sorted(means, key=lambda model: means[model])
        ratio = winners.winners_ratio(tuned, best_model, second)
        said = _beside(f"Tuned, {best_model}", ratio, f"{second}'s")
        first = [winners.tuned_sentence(tuned)]
        sure = "No two winners share a seed." if ratio is None else _seeds(ratio)
        sure = f"{sure} {_limits(run)}".rstrip()
        figure = finalists.FIGURE if over_seeds else search.PROGRESS
        every = {
            model: mean_over_seeds(winners.winner_of(tuned, model)[TEST_MSE]) for model in means
        }
        facts = [
            Fact(f"{m}'s winner, test MSE", *_value_and_note(e)) for m, e in every.items() if e
        ]
    elif over_seeds:
        winner = finalists.winner_among(over_seeds)
        ratio = None if winner is None else finalists.ratio_to_reference(winner, over_seeds)
        what = "Tuned"
        if winner is not None and not winner.is_reference:
            what += f" to {custom.changes(winner.trial, run.trials, batch_size)}"
        said = _beside(what, ratio, "the reference setting's")
        first = finalists.finalist_sentences(run.trials, over_seeds)
        sure = f"{_seeds(ratio) if ratio else plain.sure} {_limits(run)}".rstrip()
        figure = finalists.FIGURE
    if first and not asked:
        chosen = map(finalists.winner_among, finalists.by_model(over_seeds).values())
        first += [f"Chosen: {'; '.join(one.words for one in chosen if one)}."] if over_seeds else []
    sentences = [*first, *(sentence for sentence in plain.sentences if sentence not in first)]
    asked_by = plain.asked_by.partition(" The report")[0]
    return Answer(question, asked_by, said, sentences[:4], sure, facts, figure)


def _beside(what: str, ratio: Estimate | None, whose: str, aside: str = "") -> str:
    """Which is the best of two, and whether it is so beyond chance, in a few words.

    Args:
        what: the first.
        ratio: its error ÷ the other's.
        whose: the other, in the possessive.
        aside: what to say of the other.
    """
    if ratio is None:
        return f"{what} is the best."
    if ratio.mean > 1 and ratio.low is not None:
        chance = ", beyond chance" if ratio.excludes(1) else ", though not beyond chance"
        other = sentence_case(whose.removesuffix("'s"))
        return f"{other}{aside} is ahead{chance}."
    times = f"{short(ratio.mean)} times {whose} error"
    if ratio.low is None:
        return f"{what}: {times}, with one seed."
    if not ratio.excludes(1):
        return f"Undecided: {what[0].lower()}{what[1:]} has {times}."
    return f"{what}: {times}."


def _winner_alone(found: pd.DataFrame) -> str:
    """What one model's winner has, where there is no other to compare it with."""
    models = models_of(found)
    if len(models) != 1:
        return ""
    mean = mean_over_seeds(winners.winner_of(found, models[0])[TEST_MSE])
    assert mean is not None
    return f"Tuned, {models[0]} has a test MSE of {mean_and_sd(mean)} ({seeds([mean.n])})."


def _value_and_note(mean: Estimate) -> tuple[str, str]:
    """A fact's value and what it rests on."""
    value, *sd = mean_and_sd(mean).split(" ± ")
    return value, ", ".join([*(f"± {one}" for one in sd), f"n = {mean.n}"])


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
    return (
        f"{count(ratio.n, 'seed')}; the interval is over the chance in weights and order, ± is the"
        " standard deviation."
    )


def _limits(run: Run) -> str:
    """What a tuned answer rests on besides seeds; "" if the run has no search."""
    searched = run.trials[run.trials["group"] == SEARCH]
    if searched.empty:
        return ""
    n = searched.groupby("model").size().max()
    n_epochs = count(int(searched["epochs"].max()), "epoch")
    return f"One search of {count(int(n), 'trial')} a model, of {n_epochs}: another may differ."


def _facts(run: Run, found: Outcome) -> list[Fact]:
    """The numbers under the answer; at the reference setting."""
    ratio = found.ratio
    assert ratio is not None
    means = {name: mean_of(run.reference, name, TEST_MSE) for name in (CONV_NAME, DENSE_NAME)}
    note = "one seed" if ratio.low is None else ends(ratio)
    setting = "at the default reading, " if found.kind == "audit" else ""
    facts = [
        Fact(f"{name}, test MSE", *_value_and_note(mean)) for name, mean in means.items() if mean
    ]
    report = f"{setting}the report: {REPORT_MSE_RATIO:g}"
    return [*facts, Fact(RATIO_NAME, f"{digits(ratio.mean)} ×", f"{note}; {report}")]
