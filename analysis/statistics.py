"""What a run's numbers say: means over seeds, ratios between models, and the report's claims.

Pure functions on the tables of `analysis.load`. Only reference trials that completed on the full
split enter an average; pruned, diverged, failed and unfinished trials never do.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from scipy import stats

from study.schema import (
    COMPLETED,
    CONV,
    DENSE,
    OBJECTIVE,
    REFERENCE,
    SEARCH,
    TEST_MSE,
    TRAIN_MSE,
)

CONFIDENCE: Final = 0.95

# The report: its two models, and what it says in numbers.
CONV_NAME: Final = "conv"
DENSE_NAME: Final = "dense-512"
REPORT_LATENT_FILTERS: Final = 8
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

# A trial's setting, apart from its architecture and its seed: averages never mix two of them.
SETTING: Final = ("epochs", "batch_size", "learning_rate", "momentum", "nesterov")
DENSE_SETTING: Final = ("hidden_activation", "dropout")

Verdict = Literal["reproduced", "not reproduced", "undecided", "not tested", "not comparable"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a geometric mean of ratios over seeds.

    Attributes:
        mean: in the metric's unit; a ratio has none.
        n: seeds.
        sd: sample standard deviation; None for n = 1 and for ratios.
        low: lower end of the 95 % t-interval; None for n = 1.
        high: upper end.
    """

    mean: float
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def lowest(self) -> float:
        """The interval's lower end, or the value itself if one seed gives no interval."""
        return self.mean if self.low is None else self.low

    @property
    def highest(self) -> float:
        """The interval's upper end, or the value itself if one seed gives no interval."""
        return self.mean if self.high is None else self.high


@dataclass(frozen=True)
class Claim:
    """A claim of the report, and what this run has to say about it.

    Attributes:
        claim: what is claimed.
        report: what the report says of it.
        quantity: what was measured, in words.
        estimate: the measurement; None if there is none.
        verdict: see `claims`.
        reason: why, in a sentence.
    """

    claim: str
    report: str
    quantity: str
    estimate: Estimate | None
    verdict: Verdict
    reason: str


def mean_over_seeds(values: pd.Series) -> Estimate | None:
    """Mean, sample standard deviation and t-interval of one value a seed; None for no value."""
    numbers = values.dropna().to_numpy(dtype=float)
    n = len(numbers)
    if n == 0:
        return None
    mean = float(numbers.mean())
    if n == 1:
        return Estimate(mean, n)
    sd = float(numbers.std(ddof=1))
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / n**0.5
    return Estimate(mean, n, sd, mean - half_width, mean + half_width)


def ratio_over_seeds(numerator: pd.Series, denominator: pd.Series) -> Estimate | None:
    """The geometric mean of the ratios of two series of positive numbers indexed by seed.

    Seeds that only one of them has are left out. The t-interval is that of the mean log ratio.

    Returns:
        The ratio; None if the two share no seed.
    """
    paired = pd.concat([numerator, denominator], axis=1, join="inner").dropna()
    numbers = paired.to_numpy(dtype=float)
    logs = mean_over_seeds(pd.Series(np.log(numbers[:, 0] / numbers[:, 1])))
    if logs is None:
        return None
    if logs.low is None or logs.high is None:
        return Estimate(float(np.exp(logs.mean)), logs.n)
    return Estimate(
        float(np.exp(logs.mean)), logs.n, None, float(np.exp(logs.low)), float(np.exp(logs.high))
    )


def reference_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that enter the averages: completed reference trials on the full split.

    They share one setting. Should the run hold several, the longest training is kept, and of
    those the setting with the most trials.

    Returns:
        Rows of `trials` with a column `name` ("conv", "dense-512"), conv first, then by size and
        seed; a row a name and seed.
    """
    kept = trials[
        (trials["group"] == REFERENCE)
        & (trials["state"] == COMPLETED)
        & (trials["split"] == "full")
        & trials[TEST_MSE].notna()
    ]
    kept = kept[kept["epochs"] == kept["epochs"].max()]
    kept = _most_frequent(kept, SETTING)
    dense = _most_frequent(kept[kept["model"] == DENSE], DENSE_SETTING)
    kept = kept[(kept["model"] == CONV) | kept.index.isin(dense.index)]
    kept = kept.assign(name=[architecture(row) for _, row in kept.iterrows()])
    # The report's conv model comes before its variants.
    order = ["model", "hidden_units", "name", "seed"]
    return kept.sort_values(order).drop_duplicates(["name", "seed"]).reset_index(drop=True)


def _most_frequent(trials: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    """The rows that share the most frequent combination of values in some columns."""
    if trials.empty:
        return trials
    group = trials.groupby(list(columns), dropna=False).ngroup()
    return trials[group == group.mode().iloc[0]]


def architecture(trial: pd.Series) -> str:
    """A trial's architecture in a word: "conv" (the report's), "dense-512"."""
    if trial["model"] == DENSE:
        return f"{DENSE}-{trial['hidden_units']}"
    filters = trial["latent_filters"]
    return CONV_NAME if filters == REPORT_LATENT_FILTERS else f"{CONV}, {filters} latent filters"


def names(reference: pd.DataFrame) -> list[str]:
    """The architectures of `reference_trials`, conv first, then the dense sizes."""
    return list(reference["name"].unique())


def metric_by_seed(reference: pd.DataFrame, name: str, metric: str) -> pd.Series:
    """A metric of one architecture's reference trials, indexed by seed."""
    return reference[reference["name"] == name].set_index("seed")[metric]


def mean_of(reference: pd.DataFrame, name: str, metric: str) -> Estimate | None:
    """A metric's mean over the seeds of one architecture."""
    return mean_over_seeds(metric_by_seed(reference, name, metric))


def ratio_of(
    reference: pd.DataFrame, metric: str, numerator: str, denominator: str
) -> Estimate | None:
    """The ratio of two architectures in a metric, paired by seed; None if they share no seed."""
    return ratio_over_seeds(
        metric_by_seed(reference, numerator, metric), metric_by_seed(reference, denominator, metric)
    )


def curves(reference: pd.DataFrame, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric over the epochs.

    Returns:
        Columns name, epoch, mean, low, high (the least and the greatest over the seeds) and n.
    """
    histories = _histories(reference, epochs)
    order = pd.CategoricalDtype(names(reference))  # by size, "dense-64" before "dense-512"
    histories = histories.astype({"name": order}).dropna(subset=metric)
    grouped = histories.groupby(["name", "epoch"], observed=True)[metric]
    table = grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()
    return table.astype({"name": "str"})


def ratio_curve(
    reference: pd.DataFrame,
    epochs: pd.DataFrame,
    metric: str,
    numerator: str = DENSE_NAME,
    denominator: str = CONV_NAME,
) -> pd.DataFrame:
    """The ratio of two architectures in a metric at every epoch, paired by seed.

    Returns:
        Columns epoch, mean, low, high (the 95 % t-interval, missing for n = 1) and n.
    """
    histories = _histories(reference, epochs)
    rows = []
    for epoch, at_epoch in histories.groupby("epoch"):
        ratio = ratio_of(at_epoch, metric, numerator, denominator)
        if ratio is not None:
            rows.append((epoch, ratio.mean, ratio.low, ratio.high, ratio.n))
    return pd.DataFrame(rows, columns=["epoch", "mean", "low", "high", "n"])


def _histories(reference: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the reference trials, with their name and seed."""
    return epochs.merge(reference[["trial_id", "name", "seed"]], on="trial_id")


def summary(reference: pd.DataFrame) -> pd.DataFrame:
    """A row an architecture, then the ratios of the report's two models.

    Returns:
        Columns model, epochs, n_parameters, n_seeds and, for train_mse, test_mse and
        train_seconds each, mean, sd, low and high. In a ratio's row, mean is the geometric mean
        of the ratios paired by seed; low and high are 95 % t-intervals throughout.
    """
    rows = []
    metrics = (TRAIN_MSE, TEST_MSE, "train_seconds")
    for name in names(reference):
        trials = reference[reference["name"] == name]
        row = {
            "model": name,
            "epochs": trials["epochs"].iloc[0],
            "n_parameters": trials["n_parameters"].iloc[0],
            "n_seeds": len(trials),
        }
        rows.append(row | _flat({metric: mean_of(reference, name, metric) for metric in metrics}))
    for top, bottom, its_metrics in (
        (DENSE_NAME, CONV_NAME, (TRAIN_MSE, TEST_MSE)),
        (CONV_NAME, DENSE_NAME, ("train_seconds",)),
    ):
        ratios = {metric: ratio_of(reference, metric, top, bottom) for metric in its_metrics}
        found = [ratio for ratio in ratios.values() if ratio is not None]
        if found:
            rows.append({"model": f"{top} ÷ {bottom}", "n_seeds": found[0].n} | _flat(ratios))
    parts = [f"{metric}_{part}" for metric in metrics for part in ("mean", "sd", "low", "high")]
    frame = pd.DataFrame(rows, columns=["model", "epochs", "n_parameters", "n_seeds", *parts])
    counts = dict.fromkeys(("epochs", "n_parameters", "n_seeds"), "Int64")
    return frame.astype({"model": "str", **counts, **dict.fromkeys(parts, "float64")})


def _flat(estimates: dict[str, Estimate | None]) -> dict[str, float | None]:
    return {
        f"{metric}_{part}": getattr(estimate, part)
        for metric, estimate in estimates.items()
        if estimate is not None
        for part in ("mean", "sd", "low", "high")
    }


def search_progress(trials: pd.DataFrame) -> pd.DataFrame:
    """The search's trials in the order of the table, numbered from 1 for each model.

    Returns:
        Columns model, number, state, value (the objective of a completed trial, otherwise
        missing) and best (the least value so far, missing before the first).
    """
    search = trials[trials["group"] == SEARCH]
    value = search[OBJECTIVE].where(search["state"] == COMPLETED)
    by_model = search["model"]
    best = value.groupby(by_model).cummin().groupby(by_model).ffill()
    number = search.groupby("model").cumcount() + 1
    return pd.DataFrame(
        {
            "model": by_model,
            "number": number,
            "state": search["state"],
            "value": value,
            "best": best,
        }
    ).reset_index(drop=True)


def best_search_trials(trials: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n completed search trials of each model with the least objective, best first."""
    done = trials[(trials["group"] == SEARCH) & (trials["state"] == COMPLETED)]
    done = done.dropna(subset=OBJECTIVE).sort_values(["model", OBJECTIVE])
    return done.groupby("model").head(n).reset_index(drop=True)


def claims(trials: pd.DataFrame, epochs: pd.DataFrame) -> list[Claim]:
    """The report's claims beside this run's numbers.

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
    reference = reference_trials(trials)
    return [
        _half(reference, TRAIN_MSE, "training"),
        _half(reference, TEST_MSE, "test"),
        _steep_then_slow(reference, epochs),
        _slower(reference),
        _best_size(reference),
        _almost_null(reference),
        Claim(
            "Reconstructions of random test digits look good.",
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
        return f"No completed reference trial of {' or of '.join(missing)} in this run."
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
    return Claim(claim, "ratio 2", quantity, ratio, verdict, str(reason))


def _steep_then_slow(reference: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    reason = _untestable(reference, CONV_NAME)
    verdict: Verdict = "not tested"
    share = None
    if reason is None:
        histories = _histories(reference, epochs)
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
        reason = reason or "No other dense size to compare dense-512 with in this run."
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
        reason = reason or "No other dense size to compare dense-512 with in this run."
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
        "“almost null differences”",
        quantity,
        ratio,
        verdict,
        reason,
    )


def _seeds_note(estimate: Estimate) -> str:
    return " Rests on one seed, so without an interval." if estimate.n == 1 else ""
