"""The report's claims beside a run's numbers, each with a verdict and the reason for it.

Thresholds for words such as "steep" are constants here: no run chooses its own. A verdict needs an
interval, so at least two seeds, and the report's 50 epochs.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import pandas as pd

from analysis import settings
from analysis.load import Run
from analysis.phrases import MNIST, count, custom_question, digits, image_set
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME, SECONDS, Estimate, Setting
from study.folder import schema

# What the report says in numbers.
REPORT_EPOCHS: Final = 50
REPORT_MSE_RATIO: Final = 0.5  # conv ÷ dense-512: "half"
REPORT_TRAIN_SECONDS: Final = {CONV_NAME: 28.0, DENSE_NAME: 10.0}
REPORT_TIME_RATIO: Final = 2.8  # conv ÷ dense-512
REPORT_HARDWARE: Final = "RTX 3060 Ti, TensorFlow 2.4"

# "Steep, then slow": more than half of the fall of the training MSE, on the linear axis of the
# report's figure 2, in the first fifth of the epochs. An even fall has a fifth of it there.
STEEP_EPOCHS_SHARE: Final = 0.2
STEEP_FALL_SHARE: Final = 0.5
# "Almost null differences": no other size's test MSE is more than 10 % from dense-512's.
ALMOST_NULL_RATIO: Final = 1.1

Verdict = Literal["reproduced", "not reproduced", "undecided", "not tested", "not comparable"]
REPRODUCED: Final = "reproduced"
NOT_REPRODUCED: Final = "not reproduced"
UNDECIDED: Final = "undecided"
NOT_TESTED: Final = "not tested"
NOT_COMPARABLE: Final = "not comparable"
ONE_SEED: Final = "One seed has no interval: whether another would agree is not known."
NO_PAIR: Final = "The two models share no seed, or an MSE of theirs is exactly 0: no ratio."
NO_RIVAL: Final = "No other dense size to compare dense-512 with."

MEASURED: Final = ("quantity", "value", "low", "high", "n")  # columns of the files

IMAGES: Final = {schema.TRAIN_MSE: "training", schema.TEST_MSE: "test"}

Judged = tuple[Verdict, str]  # with the reason
Named = Mapping[str, Setting]  # settings that share what the report leaves open, by architecture


@dataclass(frozen=True)
class Claim:
    """A claim of the report, and what trials of one setting have to say about it."""

    claim: str
    models: tuple[str, ...]  # that it is about
    report: str  # what the report says of it
    quantity: str  # what was measured, in words
    estimate: Estimate | None  # the measurement; None if there is none
    verdict: Verdict = NOT_TESTED  # see `judge_claims`
    reason: str = ""  # in a sentence


def concerns_report(run: Run) -> bool:
    """Whether a run is about the report: one of its two models, its images, no other question."""
    found = set(run.models)
    of_report = image_set(run.manifest) == MNIST and not custom_question(run.manifest)
    return of_report and (bool(found & set(schema.MODELS)) or not found)


def claims_of(run: Run) -> list[Claim]:
    """The claims beside a run's reference, none of them tested if the images are not MNIST's."""
    claims, images = judge_claims(run.named, run.epochs), image_set(run.manifest)
    if images == MNIST:
        return claims
    reason = f"The images are {images}, not {MNIST}: the claim is about {MNIST}."
    return [replace(c, verdict=NOT_TESTED, reason=reason, estimate=None) for c in claims]


def judge_claims(named: Named, epochs: pd.DataFrame) -> list[Claim]:
    """The report's claims beside the numbers of settings that are trained alike.

    Args:
        named: the reference, or its architectures under another reading of what the report leaves
            open.
        epochs: of `analysis.load.load_run`.

    Verdicts:
        "Half" is reproduced if the 95 % interval of conv ÷ dense-512 reaches down to 0.5 and
        excludes 1, undecided if it contains both.
        The others are reproduced (or not) if the whole interval lies on the claimed (or the other)
        side of their threshold: `STEEP_FALL_SHARE`, 1 for the best size, `ALMOST_NULL_RATIO`.
        One seed has no interval: undecided, with its value.
        Times are not comparable: hardware and versions differ.
        Nothing is tested by a run that is shorter than the report's 50 epochs.
    """
    dense = named.get(DENSE_NAME)
    pairs = {m: settings.report_ratio(named, m) for m in (*IMAGES, SECONDS)}
    others = {n: s for n, s in named.items() if s.model == schema.DENSE and s is not dense}
    sizes = {n: settings.ratio(s, dense, schema.TEST_MSE) for n, s in others.items()}
    rivals = {name: pair for name, pair in sizes.items() if pair is not None}
    best = min(rivals, key=lambda name: rivals[name].mean, default="best other dense size")
    distance = {name: abs(math.log(pair.mean)) for name, pair in rivals.items()}
    far = max(rivals, key=distance.__getitem__, default="most different dense size")
    halves = [
        Claim(
            f"The convolutional model has half of dense-512's MSE on the {images} set.",
            schema.MODELS,
            f"ratio {REPORT_MSE_RATIO}",
            f"{images} MSE, {RATIO_NAME}",
            pairs[metric],
        )
        for metric, images in IMAGES.items()
    ]
    fall, early = _early_fall(named, epochs)
    steep = Claim(
        "The convolutional model's loss falls steeply at first, then slowly.",
        (schema.CONV,),
        "a great fall at the beginning, then little by little",
        "share of the fall of the training MSE in the first fifth of the epochs",
        fall,
    )
    slower = Claim(
        "The convolutional model takes longer to train: 28 s against 10 s.",
        schema.MODELS,
        f"ratio {REPORT_TIME_RATIO}",
        "training time, conv ÷ dense-512",
        pairs[SECONDS],
    )
    best_size = Claim(
        "512 hidden units are the best dense size.",
        (schema.DENSE,),
        "the best of the previous work's sizes",
        f"test MSE, {best} ÷ dense-512",
        rivals.get(best),
    )
    almost_null = Claim(
        "The other dense sizes differ almost not at all from dense-512.",
        (schema.DENSE,),
        "“almost null differences”",
        f"test MSE, {far} ÷ dense-512",
        rivals.get(far),
    )
    return [
        *(_judged(claim, named, half_verdict, NO_PAIR) for claim in halves),
        _judged(steep, named, lambda e: _steep(e, early), "The conv trials have no epoch history."),
        _judged(slower, named, lambda e: _slower(e, named), NO_PAIR, n_epochs=0),
        _judged(best_size, named, lambda e: _best_size(e, best, rivals), NO_RIVAL),
        _judged(almost_null, named, lambda e: _almost_null(e, far), NO_RIVAL),
        Claim(
            "Reconstructions of random test digits look good.",
            (schema.CONV,),
            "“the autoencoder works well”, by eye",
            "",
            None,
            reason="A judgement by eye: look at the reconstructions.",
        ),
    ]


def _judged(
    claim: Claim,
    named: Named,
    judge: Callable[[Estimate], Judged],
    absent: str,
    n_epochs: int = REPORT_EPOCHS,
) -> Claim:
    """The claim with its verdict, not tested by fewer epochs, or without its models or a value."""
    names = [CONV_NAME if model == schema.CONV else DENSE_NAME for model in claim.models]
    if missing := [name for name in names if name not in named]:
        reason = f"No completed trial of {' or of '.join(missing)} at this setting."
        return replace(claim, reason=reason)
    if (trained := named[names[0]].epochs) < n_epochs:
        reason = f"Trained for {count(trained, 'epoch')}, the claim is about {n_epochs}."
        return replace(claim, reason=reason)
    if claim.estimate is None:
        return replace(claim, reason=absent)
    verdict, reason = judge(claim.estimate)
    return replace(claim, verdict=verdict, reason=reason)


def half_verdict(pair: Estimate) -> Judged:
    """Whether conv has half of dense-512's MSE after the report's epochs, and why."""
    if pair.low is None:
        return UNDECIDED, ONE_SEED
    if pair.lowest > 1:
        return NOT_REPRODUCED, f"The ratio is above 1: {DENSE_NAME} has the lower MSE."
    if pair.lowest > REPORT_MSE_RATIO:
        return NOT_REPRODUCED, "The ratio is above 0.5."
    if pair.highest >= 1:
        return UNDECIDED, "The interval contains both 0.5 and 1: too few seeds."
    return REPRODUCED, "The ratio is 0.5, within the interval, or below."


def _beside(estimate: Estimate, threshold: float) -> Judged:
    """Whether an estimate's interval lies above a threshold, and what else to say of it."""
    if estimate.low is None:
        return UNDECIDED, f" {ONE_SEED}"
    if not estimate.excludes(threshold):
        return UNDECIDED, " The threshold lies within the interval."
    return (REPRODUCED if estimate.mean > threshold else NOT_REPRODUCED), ""


def _early_fall(named: Named, epochs: pd.DataFrame) -> tuple[Estimate | None, int]:
    """Conv's share of the fall of the training MSE in the first epochs, and how many these are."""
    if CONV_NAME not in named or named[CONV_NAME].epochs < REPORT_EPOCHS:
        return None, 0
    of_conv = settings.histories(named[CONV_NAME], epochs, schema.TRAIN_MSE)
    mse = of_conv.pivot(index="epoch", columns="seed", values="value")
    if mse.empty:
        return None, 0
    early = max(1, round(STEEP_EPOCHS_SHARE * len(mse)))
    whole = mse.iloc[0] - mse.iloc[-1]
    fall = (mse.iloc[0] - mse.iloc[early - 1]) / whole.where(whole != 0)
    return settings.mean_over_seeds(fall), early


def _steep(share: Estimate, early: int) -> Judged:
    verdict, why = _beside(share, STEEP_FALL_SHARE)
    return verdict, (
        f"Counts as steep if more than {STEEP_FALL_SHARE:.0%} of the fall of the MSE lies in the"
        f" first {early} epochs; an even fall has {STEEP_EPOCHS_SHARE:.0%} there.{why}"
    )


def _slower(pair: Estimate, named: Named) -> Judged:
    speed = "not clearly slower or faster"
    if pair.low is None:
        speed = f"{digits(pair.mean)} times as long in training with one seed"
    elif pair.excludes(1):
        speed = "slower" if pair.mean > 1 else "faster"
    reason = f"Conv was {speed} here, but hardware and versions differ from the report's."
    if len({device for one in named.values() for device in one.completed["device"]}) > 1:
        reason += " The trials ran on different devices."
    if (n_epochs := named[CONV_NAME].epochs) != REPORT_EPOCHS:
        reason += f" Trained for {n_epochs} epochs, the report for {REPORT_EPOCHS}."
    return NOT_COMPARABLE, reason


def _best_size(pair: Estimate, best: str, rivals: Iterable[str]) -> Judged:
    verdict, why = _beside(pair, 1)
    least = DENSE_NAME if pair.mean > 1 else best
    return verdict, f"{least} has the least mean test MSE; compared with {', '.join(rivals)}.{why}"


def _almost_null(pair: Estimate, far: str) -> Judged:
    below = pair if pair.mean <= 1 else pair.inverse()  # the distance from 1
    verdict, why = _beside(below, 1 / ALMOST_NULL_RATIO)
    return verdict, (
        f"Counts as almost null up to a factor of {ALMOST_NULL_RATIO}; {far} differs most. The"
        f" report does not name the sizes it compared.{why}"
    )


def tally(claims: Iterable[Claim]) -> str:
    """How many claims have which verdict: "2 reproduced, 3 not reproduced"."""
    counts = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def claims_csv(claims: Iterable[Claim], rests_on: str) -> str:
    """The claims as a CSV file.

    Args:
        claims: of `judge_claims`.
        rests_on: the readings that what was measured rests on.
    """
    rows = [asdict(c) | measured(c) | {"rests_on": c.estimate and rests_on} for c in claims]
    columns = ["claim", "report", *MEASURED, "verdict", "reason", "rests_on"]
    return pd.DataFrame(rows, columns=columns).astype({"n": "Int64"}).to_csv(index=False)


def measured(claim: Claim) -> dict[str, Any]:
    """What was measured for a claim, as columns of the files."""
    found = claim.estimate
    values = (found.mean, found.low, found.high, found.n) if found else (None,) * 4
    return dict(zip(MEASURED, (claim.quantity, *values), strict=True))
