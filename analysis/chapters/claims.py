"""The report's claims beside a run's numbers, each with a verdict and the reason for it.

Thresholds for words such as "steep" are constants here: no run chooses its own. A verdict needs an
interval, so at least two seeds, and the report's 50 epochs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from analysis.chapters.parts import NO_VALUE, Chapter, Fold, Heading, Part, Table, Text
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    RATIO_NAME,
    SUMMARISED,
    Estimate,
    mean_of,
    mean_over_seeds,
    names,
    ratio_of,
    reference_epochs,
    summary,
)
from analysis.words import (
    MNIST,
    count,
    custom_question,
    digits,
    image_set,
    interval,
    mean_and_sd,
    open_values,
)
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
ONE_SEED: Final[tuple[Verdict, str]] = (
    "undecided",
    "One seed has no interval: whether another would agree is not known.",
)


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


def concerns_report(run: Run) -> bool:
    """Whether a run is about the report: one of its two models, its images, no other question."""
    found = set(run.trials["model"])
    of_report = image_set(run.manifest) == MNIST and not custom_question(run.manifest)
    return of_report and (bool(found & set(schema.MODELS)) or not found)


def on_its_images(claims: Iterable[Claim], manifest: Mapping[str, Any]) -> list[Claim]:
    """The claims, none of them tested if the images are not the report's."""
    images = image_set(manifest)
    if images == MNIST:
        return list(claims)
    reason = f"The images are {images}, not {MNIST}: the claim is about {MNIST}."
    return [replace(c, verdict="not tested", reason=reason, estimate=None) for c in claims]


def judge_claims(reference: pd.DataFrame, epochs: pd.DataFrame) -> list[Claim]:
    """The report's claims beside the numbers of trials that share one setting.

    Args:
        reference: of `analysis.statistics.reference_trials`, or the trials under another reading
            of what the report leaves open, of `analysis.chapters.readings.trials_under`.
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
    return [
        _half(reference, schema.TRAIN_MSE, "training"),
        _half(reference, schema.TEST_MSE, "test"),
        _steep_then_slow(reference, epochs),
        _slower(reference),
        _best_size(reference),
        _almost_null(reference),
        Claim(
            "Reconstructions of random test digits look good.",
            (schema.CONV,),
            "“the autoencoder works well”, by eye",
            "",
            None,
            "not tested",
            "A judgement by eye: look at the reconstructions.",
        ),
    ]


def _untestable(reference: pd.DataFrame, *needed: str) -> str | None:
    """Why the named architectures cannot test a claim about the report's 50 epochs, if so."""
    missing = [name for name in needed if name not in names(reference)]
    if missing:
        return f"No completed trial of {' or of '.join(missing)} at this setting."
    n_epochs = reference["epochs"].iloc[0]
    if n_epochs < REPORT_EPOCHS:
        return f"Trained for {count(n_epochs, 'epoch')}, the claim is about {REPORT_EPOCHS}."
    return None


def half_verdict(ratio: Estimate) -> tuple[Verdict, str]:
    """Whether conv has half of dense-512's MSE after the report's epochs, and why."""
    if ratio.low is None:
        return ONE_SEED
    if ratio.lowest > REPORT_MSE_RATIO:
        if ratio.lowest > 1:
            return "not reproduced", f"The ratio is above 1: {DENSE_NAME} has the lower MSE."
        return "not reproduced", "The ratio is above 0.5."
    if ratio.highest >= 1:
        return "undecided", "The interval contains both 0.5 and 1: too few seeds."
    return "reproduced", "The ratio is 0.5, within the interval, or below."


def _half(reference: pd.DataFrame, metric: str, images: str) -> Claim:
    ratio = ratio_of(reference, metric)
    verdict: Verdict = "not tested"
    reason = _untestable(reference, CONV_NAME, DENSE_NAME)
    if reason is None and ratio is None:
        reason = "The two models share no seed."
    elif reason is None and ratio is not None:
        verdict, reason = half_verdict(ratio)
    return Claim(
        f"The convolutional model has half of dense-512's MSE on the {images} set.",
        schema.MODELS,
        f"ratio {REPORT_MSE_RATIO}",
        f"{images} MSE, {RATIO_NAME}",
        ratio,
        verdict,
        str(reason),
    )


def _steep_then_slow(reference: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    reason = _untestable(reference, CONV_NAME)
    verdict: Verdict = "not tested"
    share = None
    if reason is None:
        histories = reference_epochs(reference, epochs)
        of_conv = histories[histories["name"] == CONV_NAME]
        mse = of_conv.pivot(index="epoch", columns="seed", values=schema.TRAIN_MSE)
        early = max(1, round(STEEP_EPOCHS_SHARE * len(mse)))
        share = (
            mean_over_seeds((mse.iloc[0] - mse.iloc[early - 1]) / (mse.iloc[0] - mse.iloc[-1]))
            if len(mse)
            else None
        )
        if share is None:
            reason = "The conv trials have no epoch history."
        else:
            verdict, why = _beside(share, STEEP_FALL_SHARE)
            reason = (
                f"Counts as steep if more than {STEEP_FALL_SHARE:.0%} of the fall of the MSE lies"
                f" in the first {early} epochs; an even fall has {STEEP_EPOCHS_SHARE:.0%} there."
                f"{why}"
            )
    return Claim(
        "The convolutional model's loss falls steeply at first, then slowly.",
        (schema.CONV,),
        "a great fall at the beginning, then little by little",
        "share of the fall of the training MSE in the first fifth of the epochs",
        share,
        verdict,
        str(reason),
    )


def _slower(reference: pd.DataFrame) -> Claim:
    ratio = ratio_of(reference, "train_seconds")
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
        if ratio.low is None:
            speed = f"{digits(ratio.mean)} times as long in training with one seed"
        reason = f"Conv was {speed} here, but hardware and versions differ from the report's."
        if reference["device"].nunique() > 1:
            reason += " The trials ran on different devices."
        n_epochs = reference["epochs"].iloc[0]
        if n_epochs != REPORT_EPOCHS:
            reason += f" Trained for {n_epochs} epochs, the report for {REPORT_EPOCHS}."
    return Claim(
        "The convolutional model takes longer to train: 28 s against 10 s.",
        schema.MODELS,
        f"ratio {REPORT_TIME_RATIO}",
        "training time, conv ÷ dense-512",
        ratio,
        verdict,
        reason,
    )


def _rivals(reference: pd.DataFrame) -> dict[str, Estimate]:
    """Test MSE of the other dense sizes ÷ dense-512's, by name."""
    ratios = {
        name: ratio_of(reference, schema.TEST_MSE, name, DENSE_NAME)
        for name in names(reference)
        if name.startswith(f"{schema.DENSE}-") and name != DENSE_NAME
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
            verdict, why = _beside(ratio, 1)
            least = DENSE_NAME if ratio.mean > 1 else rival
            sizes = ", ".join(sorted(rivals, key=lambda name: int(name.split("-")[1])))
            reason = f"{least} has the least mean test MSE; compared with {sizes}.{why}"
    return Claim(
        "512 hidden units are the best dense size.",
        (schema.DENSE,),
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
            # The distance from 1, whichever is larger.
            verdict, why = _beside(_folded(ratio), 1 / ALMOST_NULL_RATIO)
            reason = (
                f"Counts as almost null up to a factor of {ALMOST_NULL_RATIO}; {rival} differs"
                f" most. The report does not name the sizes it compared.{why}"
            )
    return Claim(
        "The other dense sizes differ almost not at all from dense-512.",
        (schema.DENSE,),
        "“almost null differences”",
        quantity,
        ratio,
        verdict,
        reason,
    )


def _folded(ratio: Estimate) -> Estimate:
    """A ratio, or its inverse, whichever is below 1, with the interval of that."""
    if ratio.mean <= 1:
        return ratio
    low, high = (None if end is None else 1 / end for end in (ratio.high, ratio.low))
    return Estimate(1 / ratio.mean, ratio.n, None, low, high)


def _beside(estimate: Estimate, threshold: float) -> tuple[Verdict, str]:
    """Whether an estimate's interval lies above a threshold, and what else to say of it."""
    if estimate.low is None:
        return ONE_SEED[0], f" {ONE_SEED[1]}"
    if not estimate.excludes(threshold):
        return "undecided", " The threshold lies within the interval."
    return ("reproduced" if estimate.mean > threshold else "not reproduced"), ""


def tally(claims: Iterable[Claim]) -> str:
    """How many claims have which verdict: "2 reproduced, 3 not reproduced"."""
    counts = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def claims_table(claims: Iterable[Claim]) -> Table:
    """A row a claim of the report."""
    return Table(
        ("Claim", "The report", "This run", "Verdict", "Why"),
        [
            (
                claim.claim,
                claim.report,
                f"{claim.quantity}: {interval(claim.estimate)}" if claim.estimate else NO_VALUE,
                claim.verdict,
                claim.reason,
            )
            for claim in claims
        ],
    )


def summary_table(reference: pd.DataFrame) -> Table:
    """A row an architecture, then the ratios of the report's two models."""
    rows = []
    for name in names(reference):
        trials = reference[reference["name"] == name]
        n_parameters = trials["n_parameters"].iloc[0]
        parameters = NO_VALUE if pd.isna(n_parameters) else f"{n_parameters:,}"
        values = [mean_and_sd(mean_of(reference, name, metric)) for metric in SUMMARISED]
        rows.append((name, parameters, str(len(trials)), *values))
    ratios = [ratio_of(reference, metric) for metric in SUMMARISED]
    if (of_test := ratios[1]) is not None:
        rows.append((RATIO_NAME, NO_VALUE, str(of_test.n), *map(interval, ratios)))
    header = ("Model", "Parameters", "Seeds", "Training MSE", "Test MSE", "Training time (s)")
    return Table(header, rows, right=(1, 2, 3, 4, 5))


def chapter(run: Run) -> Chapter:
    """The claims and the numbers that they rest on."""
    reference = run.reference
    claims = on_its_images(judge_claims(reference, run.epochs), run.manifest)
    about = Text(f"Of the report's {len(claims)} claims: {tally(claims)}.")
    judged: list[Part] = [about, claims_table(claims)]
    values: list[Part] = []
    if not reference.empty:
        images = "60,000" if image_set(run.manifest) == MNIST else "all training"
        note = "Mean ± sample standard deviation over seeds."
        note += f" {count(reference['epochs'].iloc[0], 'epoch')}, {images} images."
        values = [Heading("Final values"), summary_table(reference), Text(note, soft=True)]
    concerned = concerns_report(run)
    tested = any(claim.verdict != "not tested" for claim in claims)
    which = "" if tested else ", none of which this study tests"
    folded = Fold(f"The report's claims{which}", judged)
    return Chapter(
        "claims",
        "The report's claims" if concerned else "Results at the reference setting",
        [*judged, *values] if concerned else [*values, folded],
        _gaps(run, names(reference)),
        {
            "claims.csv": claims_csv(claims, open_values(reference)).encode(),
            "summary.csv": summary(reference).to_csv(index=False).encode(),
        },
    )


def _gaps(run: Run, found: Sequence[str]) -> list[str]:
    reference, trials = run.reference, run.trials
    gaps = [
        f"No completed reference trial of {name}: nothing here compares the report's two models."
        for name in (CONV_NAME, DENSE_NAME)
        if name not in found and concerns_report(run)
    ]
    if not reference.empty:
        n_epochs = reference["epochs"].iloc[0]
        if n_epochs < REPORT_EPOCHS and concerns_report(run):
            gaps.append(
                f"Trained for {count(n_epochs, 'epoch')}; the report trained for {REPORT_EPOCHS},"
                " and its claims are about these."
            )
        if reference.groupby("name").size().min() == 1:
            gaps.append("A model with one seed has no interval: its spread is not known.")
    n_completed = (
        (trials["group"] == schema.REFERENCE) & (trials["state"] == schema.COMPLETED)
    ).sum()
    if n_left_out := int(n_completed) - len(reference):
        gaps.append(
            f"{count(n_left_out, 'completed reference trial')} left out of the averages: another"
            " setting or split, no test MSE, or a seed twice."
        )
    return gaps


def claims_csv(claims: Iterable[Claim], rests_on: str) -> str:
    """The claims as a CSV file.

    Args:
        claims: of `judge_claims`.
        rests_on: the readings that what was measured rests on.
    """
    rows = []
    for claim in claims:
        row = asdict(claim)
        estimate = row.pop("estimate") or {}
        values = {key: estimate.get(key) for key in ("mean", "low", "high", "n")}
        rested = rests_on if claim.estimate else None
        rows.append(row | {"value": values.pop("mean"), "rests_on": rested} | values)
    measured = ["quantity", "value", "low", "high", "n"]
    columns = ["claim", "report", *measured, "verdict", "reason", "rests_on"]
    frame = pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})
    return frame.to_csv(index=False)
