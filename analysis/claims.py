"""A paper's claims beside a run's numbers, each with a verdict and the reason for it.

What is claimed, of which settings and from which value on it holds, the study wrote into the
manifest (`study.folder.paper`). A verdict needs an interval, so at least two seeds, and the epochs
that the paper trained for.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import pandas as pd

from analysis import settings
from analysis.load import Run
from analysis.phrases import (
    METRIC_WORDS,
    count,
    custom_question,
    digits,
    image_set,
    label_of,
    metric_words,
    sentence_case,
)
from analysis.settings import Estimate, Setting
from study.folder import schema
from study.folder.paper import AT_LEAST, AT_MOST, EARLY_FALL, REACHES, WITHIN, Claim, Paper
from study.folder.schema import SECONDS

Verdict = Literal["reproduced", "not reproduced", "undecided", "not tested", "not comparable"]
REPRODUCED: Final = "reproduced"
NOT_REPRODUCED: Final = "not reproduced"
UNDECIDED: Final = "undecided"
NOT_TESTED: Final = "not tested"
NOT_COMPARABLE: Final = "not comparable"
ONE_SEED: Final = "One seed has no interval: whether another would agree is not known."

MEASURED: Final = ("quantity", "value", "low", "high", "n")  # columns of the files

IMAGES: Final = {schema.TRAIN_MSE: "training", schema.TEST_MSE: "test"}

Named = Mapping[str, Setting]  # settings that share what the paper leaves open, by name


@dataclass(frozen=True)
class Judged:
    """A claim, and what trials of one setting have to say about it."""

    claim: Claim
    quantity: str = ""  # what was measured, in words
    estimate: Estimate | None = None  # the measurement; None if there is none
    verdict: Verdict = NOT_TESTED
    reason: str = ""  # in a sentence


def concerns_paper(run: Run) -> bool:
    """Whether a run is about its paper: a model of its claims, its images, no other question."""
    if run.paper is None or custom_question(run.manifest):
        return False
    found, claimed = set(run.models), {m for claim in run.paper.claims for m in claim.models}
    return image_set(run.manifest) == run.paper.images and (bool(found & claimed) or not found)


def claims_of(run: Run) -> list[Judged]:
    """The claims beside a run's reference, none of them tested if the images are others."""
    if run.paper is None:
        return []
    wanted = {name for claim in run.paper.claims for name in claim.pair}
    asked = {
        s.label: s
        for s in run.of(schema.CUSTOM)
        if s.label in wanted and s.split == schema.FULL_SPLIT and len(s.by_seed())
    }
    found = [judge(c, run.paper, asked | run.named, run.epochs) for c in run.paper.claims]
    images, its = image_set(run.manifest), run.paper.images
    if images == its:
        return found
    reason = f"The images are {images}, not {its}: the claim is about {its}."
    return [replace(one, verdict=NOT_TESTED, reason=reason, estimate=None) for one in found]


def judge(claim: Claim, paper: Paper, named: Named, epochs: pd.DataFrame) -> Judged:
    """A claim beside the numbers of the settings of one reading, which are trained alike.

    Verdicts:
        A number that the paper measured (`REACHES`) is reproduced if the 95 % interval reaches it
        and excludes 1, undecided if it reaches both.
        The others are reproduced (or not) if the whole interval lies on the claimed (or the other)
        side of their value.
        One seed has no interval: undecided, with its value.
        Times are not comparable: hardware and versions differ.
        Nothing else is tested by a run that is shorter than the paper's.
    """
    rivals, early, estimate = _rivals(claim, named), 0, None
    worst = _worst(claim, rivals)
    if claim.others:
        estimate = rivals.get(worst)
    elif claim.measure == EARLY_FALL:
        estimate, early = _early_fall(claim, paper, named, epochs)
    elif claim.beside:
        estimate = settings.ratio(named.get(claim.of), named.get(claim.beside), claim.measure)
    elif claim.measure and claim.of in named:
        estimate = named[claim.of].mean(claim.measure)
    untested = Judged(claim, _quantity(claim, worst), estimate)
    if not claim.measure:
        return replace(untested, reason=claim.note)
    needed = [name for name in claim.pair if name]
    if missing := " or of ".join(name for name in needed if name not in named):
        return replace(untested, reason=f"No completed trial of {missing} at this setting.")
    trained, n_epochs = named[needed[0]].epochs, paper.epochs or 0
    if trained < n_epochs and claim.measure != SECONDS:
        reason = f"Trained for {count(trained, 'epoch')}, the claim is about {n_epochs}."
        return replace(untested, reason=reason)
    if estimate is None:
        return replace(untested, reason=_absent(claim))
    verdict, reason = _verdict(claim, paper, estimate, named, worst, [*rivals], early)
    return replace(untested, verdict=verdict, reason=reason)


def _verdict(
    claim: Claim,
    paper: Paper,
    estimate: Estimate,
    named: Named,
    worst: str,
    rivals: list[str],
    early: int,
) -> tuple[Verdict, str]:
    if claim.measure == SECONDS:
        return NOT_COMPARABLE, _timed(claim, paper, estimate, named)
    if claim.judged == REACHES:
        return reached(claim, estimate)
    value = claim.value
    at_least, one, limit = claim.relation == AT_LEAST, estimate, value
    if claim.relation == WITHIN:  # the distance from 1
        at_least, limit = True, 1 / value
        one = estimate if estimate.mean <= 1 else estimate.inverse()
    verdict: Verdict = UNDECIDED
    why = f" {ONE_SEED}" if one.low is None else " The threshold lies within the interval."
    if one.excludes(limit):
        verdict = REPRODUCED if (one.mean > limit) == at_least else NOT_REPRODUCED
        why = ""
    if claim.measure == EARLY_FALL:
        side = "more" if at_least else "less"
        told = (
            f"Counts as {claim.called or 'such'} if {side} than {value:.0%} of the fall of the MSE"
            f" lies in the first {early} epochs; an even fall has {claim.first:.0%} there."
        )
    elif claim.relation == WITHIN:
        differs = f"; {worst} differs most" if claim.others else ""
        told = f"Counts as {claim.called or 'equal'} up to a factor of {value}{differs}."
    elif claim.others:
        ahead = claim.beside if (estimate.mean > 1) == at_least else worst
        most = "least" if at_least else "greatest"
        told = (
            f"{ahead} has the {most} mean {metric_words(claim.measure)}; compared with"
            f" {', '.join(rivals)}."
        )
    else:
        side = "above" if one.mean > value else "below"
        told = f"{'The ratio' if claim.beside else 'It'} is {side} {value:g}."
    return verdict, f"{told}{f' {claim.note}' if claim.note else ''}{why}"


def reached(claim: Claim, pair: Estimate) -> tuple[Verdict, str]:
    """Whether a ratio's interval reaches a number that the paper measured, and why."""
    value, less, more = claim.value, "below", "above"
    lower, its, limit = "lower", pair, value
    if claim.relation == AT_LEAST:  # the same the other way round
        less, more, lower, its, limit = more, less, "higher", pair.inverse(), 1 / value
    if its.low is None:
        return UNDECIDED, ONE_SEED
    if its.lowest > 1:
        what = metric_words(claim.measure).removeprefix("training ").removeprefix("test ")
        return NOT_REPRODUCED, f"The ratio is {more} 1: {claim.beside} has the {lower} {what}."
    if its.lowest > limit:
        return NOT_REPRODUCED, f"The ratio is {more} {value:g}."
    if its.highest >= 1:
        return UNDECIDED, f"The interval contains both {value:g} and 1: too few seeds."
    return REPRODUCED, f"The ratio is {value:g}, within the interval, or {less}."


def _rivals(claim: Claim, named: Named) -> dict[str, Estimate]:
    """Each other setting that differs in `others` alone, divided by the one claimed, by name."""
    bottom = named.get(claim.beside)
    if not claim.others or bottom is None:
        return {}
    pairs = {
        name: settings.ratio(one, bottom, claim.measure)
        for name, one in named.items()
        if one is not bottom and one.alike(bottom, claim.others)
    }
    return {name: pair for name, pair in pairs.items() if pair is not None}


def _worst(claim: Claim, rivals: Mapping[str, Estimate]) -> str:
    """The rival that speaks most against the claim, or what there is none of."""
    if not rivals:
        return f"{_WORST.get(claim.relation, '')} {_noun(claim)}"
    if claim.relation == WITHIN:
        return max(rivals, key=lambda name: abs(math.log(rivals[name].mean)))
    sign = 1 if claim.relation == AT_LEAST else -1
    return min(rivals, key=lambda name: sign * rivals[name].mean)


_WORST: Final = {AT_LEAST: "best other", AT_MOST: "worst other", WITHIN: "most different"}


def _noun(claim: Claim) -> str:
    """What the rivals are: "dense size", "conv learning rate"."""
    name = "size" if claim.others == "hidden_units" else label_of(claim.others).lower()
    return f"{claim.models[0]} {name}"


def _quantity(claim: Claim, worst: str) -> str:
    if not claim.measure or claim.quantity:
        return claim.quantity
    of = worst if claim.others else claim.of
    return f"{metric_words(claim.measure)}, {of}{f' ÷ {claim.beside}' if claim.beside else ''}"


def _absent(claim: Claim) -> str:
    """Why there is nothing to judge."""
    if claim.others:
        return f"No other {_noun(claim)} to compare {claim.beside} with."
    if claim.measure == EARLY_FALL:
        return f"The {claim.of} trials have no epoch history."
    if not claim.beside:
        return f"The {claim.of} trials have no {metric_words(claim.measure)}."
    two = "models" if len(claim.models) > 1 else "settings"
    return f"The two {two} share no seed, or an MSE of theirs is exactly 0: no ratio."


def _early_fall(
    claim: Claim, paper: Paper, named: Named, epochs: pd.DataFrame
) -> tuple[Estimate | None, int]:
    """A setting's share of the fall of the training MSE in the first epochs, and how many."""
    one = named.get(claim.of)
    if one is None or one.epochs < (paper.epochs or 0):
        return None, 0
    history = settings.histories(one, epochs, schema.TRAIN_MSE)
    mse = history.pivot(index="epoch", columns="seed", values="value")
    if mse.empty:
        return None, 0
    early = max(1, round(claim.first * len(mse)))
    whole = mse.iloc[0] - mse.iloc[-1]
    fall = (mse.iloc[0] - mse.iloc[early - 1]) / whole.where(whole != 0)
    return settings.mean_over_seeds(fall), early


def _timed(claim: Claim, paper: Paper, time: Estimate, named: Named) -> str:
    its = [named[name] for name in claim.pair if name]
    if claim.beside:
        speed = "not clearly slower or faster"
        if time.low is None:
            speed = f"{digits(time.mean)} times as long in training with one seed"
        elif time.excludes(1):
            speed = "slower" if time.mean > 1 else "faster"
        reason = f"{sentence_case(claim.of)} was {speed} here"
    else:
        reason = f"{sentence_case(claim.of)} took {digits(time.mean)} s here"
    reason += f", but hardware and versions differ from {paper.called}'s."
    if len({device for one in its for device in one.completed["device"]}) > 1:
        reason += " The trials ran on different devices."
    if paper.epochs is not None and (n_epochs := its[0].epochs) != paper.epochs:
        reason += f" Trained for {n_epochs} epochs, {paper.called} for {paper.epochs}."
    return reason


def holding(claim: Claim) -> str:
    """What is so if the claim holds: "conv has at most 0.5 times dense-512's test MSE"."""
    what = METRIC_WORDS.get(claim.measure, claim.quantity)
    if not claim.beside:
        return f"{claim.of} has {claim.relation} {claim.value:g} as {what}"
    return f"{claim.of} has {claim.relation} {claim.value:g} times {claim.beside}'s {what}"


def tally(claims: Iterable[Judged]) -> str:
    """How many claims have which verdict: "2 reproduced, 3 not reproduced"."""
    counts = Counter(one.verdict for one in claims)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def claims_csv(claims: Iterable[Judged], rests_on: str) -> str:
    """The claims as a CSV file, with the readings that what was measured rests on."""
    rows = [columns_of(one) | {"rests_on": one.estimate and rests_on} for one in claims]
    columns = ["claim", "report", *MEASURED, "verdict", "reason", "rests_on"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"}).to_csv(index=False)


def columns_of(one: Judged) -> dict[str, Any]:
    """A judged claim as columns of the files."""
    found = one.estimate
    values = (found.mean, found.low, found.high, found.n) if found else (None,) * 4
    measured = dict(zip(MEASURED, (one.quantity, *values), strict=True))
    said = {"claim": one.claim.says, "report": one.claim.paper}
    return said | measured | {"verdict": one.verdict, "reason": one.reason}
