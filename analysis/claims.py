"""The report's claims beside a run's numbers, each with a verdict and the reason for it.

Thresholds for words such as "steep" are constants here: no run chooses its own.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    Estimate,
    mean_over_seeds,
    names,
    ratio_of,
    reference_epochs,
)
from study.folder.schema import CONV, DENSE, MODELS, TEST_MSE, TRAIN_MSE

# What the report says in numbers.
REPORT_EPOCHS: Final = 50
REPORT_MSE_RATIO: Final = 2.0  # dense-512 ÷ conv: "half"
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


@dataclass(frozen=True)
class Claim:
    """A claim of the report, and what trials of one setting have to say about it.

    Attributes:
        claim: what is claimed.
        models: the architectures that it is about.
        report: what the report says of it.
        quantity: what was measured, in words.
        estimate: the measurement; None if there is none.
        verdict: see `judge_claims`.
        reason: why, in a sentence.
    """

    claim: str
    models: tuple[str, ...]
    report: str
    quantity: str
    estimate: Estimate | None
    verdict: Verdict
    reason: str


def judge_claims(reference: pd.DataFrame, epochs: pd.DataFrame) -> list[Claim]:
    """The report's claims beside the numbers of trials that share one setting.

    Args:
        reference: of `analysis.statistics.reference_trials`, or the trials under another reading
            of what the report leaves open, of `analysis.audit.results.trials_under`.
        epochs: of `analysis.load.load_run`.

    Verdicts:
        "Half" is reproduced if the 95 % interval of dense-512 ÷ conv contains 2 or lies above it,
        undecided if it contains 1 as well (then it excludes neither "half" nor "no difference").
        "Steep" is undecided if the interval contains the threshold.
        "Steep, then slow" and "almost null differences" have their thresholds in
        `STEEP_EPOCHS_SHARE`, `STEEP_FALL_SHARE` and `ALMOST_NULL_RATIO`.
        "512 is the best size" is reproduced if its mean test MSE is the least.
        Times are not comparable: hardware and versions differ.
        One seed gives no interval; the verdict then rests on the value alone and says so.
        Nothing is tested by a run that is shorter than the report's 50 epochs.
    """
    return [
        _half(reference, TRAIN_MSE, "training"),
        _half(reference, TEST_MSE, "test"),
        _steep_then_slow(reference, epochs),
        _slower(reference),
        _best_size(reference),
        _almost_null(reference),
        Claim(
            "Reconstructions of random test digits look good.",
            (CONV,),
            "“the autoencoder works well”, by eye",
            "",
            None,
            "not tested",
            "A judgement by eye: look at figure 1.",
        ),
    ]


def _untestable(reference: pd.DataFrame, *needed: str) -> str | None:
    """Why the named architectures cannot test a claim about the report's 50 epochs, if so."""
    missing = [name for name in needed if name not in names(reference)]
    if missing:
        return f"No completed trial of {' or of '.join(missing)} at this setting."
    n_epochs = reference["epochs"].iloc[0]
    if n_epochs < REPORT_EPOCHS:
        plural = "" if n_epochs == 1 else "s"
        return f"Trained for {n_epochs} epoch{plural}, the report's claim is about {REPORT_EPOCHS}."
    return None


def _half(reference: pd.DataFrame, metric: str, images: str) -> Claim:
    claim = f"The convolutional model has half of dense-512's MSE on the {images} set."
    quantity = f"{images} MSE, dense-512 ÷ conv"
    ratio = ratio_of(reference, metric, DENSE_NAME, CONV_NAME)
    verdict: Verdict = "not tested"
    reason = _untestable(reference, CONV_NAME, DENSE_NAME)
    if reason is None and ratio is None:
        reason = "The two models share no seed."
    elif reason is None and ratio is not None:
        if ratio.highest < REPORT_MSE_RATIO:
            verdict, reason = "not reproduced", "The ratio is below 2."
            if ratio.highest < 1:
                reason = "The ratio is below 1: dense-512 has the lower MSE."
        elif ratio.lowest <= 1:
            verdict, reason = "undecided", "The interval contains both 1 and 2: too few seeds."
        else:
            verdict, reason = "reproduced", "The ratio is 2, within the interval, or above."
        reason += _seeds_note(ratio)
    return Claim(claim, MODELS, "ratio 2", quantity, ratio, verdict, str(reason))


def _steep_then_slow(reference: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    reason = _untestable(reference, CONV_NAME)
    verdict: Verdict = "not tested"
    share = None
    if reason is None:
        histories = reference_epochs(reference, epochs)
        of_conv = histories[histories["name"] == CONV_NAME]
        mse = of_conv.pivot(index="epoch", columns="seed", values=TRAIN_MSE)
        early = max(1, round(STEEP_EPOCHS_SHARE * len(mse)))
        share = (
            mean_over_seeds((mse.iloc[0] - mse.iloc[early - 1]) / (mse.iloc[0] - mse.iloc[-1]))
            if len(mse)
            else None
        )
        if share is None:
            reason = "The conv trials have no epoch history."
        else:
            if share.lowest > STEEP_FALL_SHARE:
                verdict = "reproduced"
            else:
                verdict = "undecided" if share.highest > STEEP_FALL_SHARE else "not reproduced"
            reason = (
                f"Counts as steep if more than {STEEP_FALL_SHARE:.0%} of the fall of the MSE lies"
                f" in the first {early} epochs; an even fall has {STEEP_EPOCHS_SHARE:.0%} there."
            ) + _seeds_note(share)
    return Claim(
        "The convolutional model's loss falls steeply at first, then slowly.",
        (CONV,),
        "a great fall at the beginning, then little by little",
        "share of the fall of the training MSE in the first fifth of the epochs",
        share,
        verdict,
        str(reason),
    )


def _slower(reference: pd.DataFrame) -> Claim:
    ratio = ratio_of(reference, "train_seconds", CONV_NAME, DENSE_NAME)
    missing = [name for name in (CONV_NAME, DENSE_NAME) if name not in names(reference)]
    verdict: Verdict = "not tested"
    if missing:
        reason = str(_untestable(reference, CONV_NAME, DENSE_NAME))
    elif ratio is None:
        reason = "The two models share no seed."
    else:
        verdict = "not comparable"
        speed = "not clearly slower or faster"
        if ratio.lowest > 1 or ratio.highest < 1:
            speed = "slower" if ratio.mean > 1 else "faster"
        reason = f"Conv was {speed} here, but hardware and versions differ from the report's."
        if reference["device"].nunique() > 1:
            reason += " The trials ran on different devices."
        n_epochs = reference["epochs"].iloc[0]
        if n_epochs != REPORT_EPOCHS:
            reason += f" Trained for {n_epochs} epochs, the report for {REPORT_EPOCHS}."
        reason += _seeds_note(ratio)
    return Claim(
        "The convolutional model takes longer to train: 28 s against 10 s.",
        MODELS,
        f"ratio {REPORT_TIME_RATIO}",
        "training time, conv ÷ dense-512",
        ratio,
        verdict,
        reason,
    )


def _rivals(reference: pd.DataFrame) -> dict[str, Estimate]:
    """Test MSE of the other dense sizes ÷ dense-512's, by name."""
    ratios = {
        name: ratio_of(reference, TEST_MSE, name, DENSE_NAME)
        for name in names(reference)
        if name.startswith(DENSE) and name != DENSE_NAME
    }
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def _best_size(reference: pd.DataFrame) -> Claim:
    rivals = _rivals(reference)
    reason = _untestable(reference, DENSE_NAME)
    verdict: Verdict = "not tested"
    quantity, ratio = "test MSE, best other dense size ÷ dense-512", None
    if not rivals:
        reason = reason or "No other dense size to compare dense-512 with."
    else:
        rival, ratio = min(rivals.items(), key=lambda item: item[1].mean)
        quantity = f"test MSE, {rival} ÷ dense-512"
        if reason is None:
            verdict = "reproduced" if ratio.mean > 1 else "not reproduced"
            least = DENSE_NAME if ratio.mean > 1 else rival
            sizes = ", ".join(sorted(rivals, key=lambda name: int(name.split("-")[1])))
            reason = f"{least} has the least mean test MSE; compared with {sizes}."
            if ratio.n > 1 and ratio.lowest <= 1 <= ratio.highest:
                reason += " The difference is within the interval."
            reason += _seeds_note(ratio)
    return Claim(
        "512 hidden units are the best dense size.",
        (DENSE,),
        "the best of the previous work's sizes",
        quantity,
        ratio,
        verdict,
        reason,
    )


def _almost_null(reference: pd.DataFrame) -> Claim:
    rivals = _rivals(reference)
    reason = _untestable(reference, DENSE_NAME)
    verdict: Verdict = "not tested"
    quantity, ratio = "test MSE, most different dense size ÷ dense-512", None
    if not rivals:
        reason = reason or "No other dense size to compare dense-512 with."
    else:
        rival, ratio = max(rivals.items(), key=lambda item: abs(np.log(item[1].mean)))
        quantity = f"test MSE, {rival} ÷ dense-512"
        if reason is None:
            null = 1 / ALMOST_NULL_RATIO <= ratio.mean <= ALMOST_NULL_RATIO
            verdict = "reproduced" if null else "not reproduced"
            reason = (
                f"Counts as almost null up to a factor of {ALMOST_NULL_RATIO}; {rival} differs"
                " most. The report does not name the sizes it compared."
            ) + _seeds_note(ratio)
    return Claim(
        "The other dense sizes differ almost not at all from dense-512.",
        (DENSE,),
        "“almost null differences”",
        quantity,
        ratio,
        verdict,
        reason,
    )


def _seeds_note(estimate: Estimate) -> str:
    return " Rests on one seed, so without an interval." if estimate.n == 1 else ""
