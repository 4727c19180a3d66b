"""What a run's numbers are: means over seeds, ratios between models, curves.

Pure functions on the tables of `analysis.load`. Only reference trials that completed on the full
split enter an average; pruned, diverged, failed and unfinished trials never do.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from study.folder import schema

CONFIDENCE: Final = 0.95

# The report's two models.
CONV_NAME: Final = "conv"
DENSE_NAME: Final = f"dense-{schema.BY_NAME['hidden_units'].default}"
RATIO_NAME: Final = f"{CONV_NAME} ÷ {DENSE_NAME}"
SUMMARISED: Final = (schema.TRAIN_MSE, schema.TEST_MSE, "train_seconds")
REPORT_LATENT_FILTERS: Final = schema.BY_NAME["latent_filters"].default

# A trial's setting, apart from its architecture and its seed: averages never mix two of them.
SETTING: Final = (
    "epochs",
    *(p.name for p in schema.HYPERPARAMETERS if p.models == schema.MODELS),
)
DENSE_SETTING: Final = tuple(
    p.name for p in schema.HYPERPARAMETERS if p.models == (schema.DENSE,) and not p.of_architecture
)
NAMED_SETTING: Final = ("name", *SETTING, *DENSE_SETTING)  # with the architecture

COLLAPSED_RATIO: Final = 3.0  # a seed so many times above the best one has collapsed


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

    def excludes(self, value: float) -> bool:
        """Whether there is an interval, and the value lies outside it."""
        return self.low is not None and not self.lowest <= value <= self.highest

    @property
    def highest(self) -> float:
        """The interval's upper end, or the value itself if one seed gives no interval."""
        return self.mean if self.high is None else self.high


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


def collapsed_seeds(by_seed: pd.Series) -> list[int]:
    """The seeds that completed far above the best one: they did not learn what that one learnt.

    Args:
        by_seed: the objective of a setting's completed trials, indexed by seed.
    """
    return list(by_seed.index[by_seed > COLLAPSED_RATIO * by_seed.min()])


def welch_ratio(numerator: pd.Series, denominator: pd.Series) -> Estimate | None:
    """The ratio of the geometric means of two independent samples of positive numbers.

    The interval is Welch's, of the difference of the mean logs, with the degrees of freedom of
    Welch and Satterthwaite (B. L. Welch, Biometrika 34, 1947).

    Returns:
        The ratio, n being the sum of both; without an interval if a sample has one value; None if
        one has none.
    """
    top = mean_over_seeds(pd.Series(np.log(numerator)))
    bottom = mean_over_seeds(pd.Series(np.log(denominator)))
    if top is None or bottom is None:
        return None
    difference, n = top.mean - bottom.mean, top.n + bottom.n
    ratio = float(np.exp(difference))
    if top.sd is None or bottom.sd is None:
        return Estimate(ratio, n)
    top_variance, bottom_variance = top.sd**2 / top.n, bottom.sd**2 / bottom.n
    variance = top_variance + bottom_variance
    if variance == 0:  # as when every seed collapsed to the same images
        return Estimate(ratio, n, None, ratio, ratio)
    freedom = variance**2 / (top_variance**2 / (top.n - 1) + bottom_variance**2 / (bottom.n - 1))
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
    low, high = np.exp([difference - half_width, difference + half_width])
    return Estimate(ratio, n, None, float(low), float(high))


def reference_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that enter the averages: completed reference trials on the full split.

    They share one setting; a model of a person's own may have another than the built-in ones.
    Should the run hold several, the longest training is kept, and of those the setting with the
    most trials.

    Returns:
        Rows of `trials` with a column `name` ("conv", "dense-512", "unet"), conv first, then by
        size and seed, then the models of a person's own; a row a name and seed. Of trials that
        shared their device there is no training time.
    """
    tested = tested_trials(trials, (schema.REFERENCE,))
    built_in = most_frequent(tested[tested["model"].isin(schema.MODELS)], SETTING)
    dense = most_frequent(built_in[built_in["model"] == schema.DENSE], DENSE_SETTING)
    models = models_of(tested)
    kept = [built_in[built_in["model"] == schema.CONV], dense]
    kept += [
        most_frequent(tested[tested["model"] == model], SETTING)
        for model in models
        if model not in schema.MODELS
    ]
    named = times_alone(with_names(pd.concat(kept)))
    # The report's conv model comes before its variants.
    order = ["place", "hidden_units", "name", "seed"]
    named = named.assign(place=named["model"].map(models.index)).sort_values(order)
    return named.drop(columns="place").drop_duplicates(["name", "seed"]).reset_index(drop=True)


def models_of(trials: pd.DataFrame) -> list[str]:
    """The models of some trials: conv, dense, then those of a person's own by name."""
    found = set(trials["model"])
    return [m for m in schema.MODELS if m in found] + sorted(found - set(schema.MODELS))


def times_alone(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials without the training time of those that shared their device: it compares with none.

    Older runs do not say who did; their times stay.
    """
    shared = (trials["n_sharing"] > 1).fillna(False)
    return trials.assign(train_seconds=trials["train_seconds"].mask(shared))


def tested_trials(trials: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """The completed trials of some groups that were tested after the longest training of them."""
    kept = trials[
        trials["group"].isin(groups)
        & (trials["state"] == schema.COMPLETED)
        & (trials["split"] == schema.FULL_SPLIT)
        & trials[schema.TEST_MSE].notna()
    ]
    longest: pd.DataFrame = kept[kept["epochs"] == kept["epochs"].max()]
    return longest


def most_frequent(trials: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows that share the most frequent combination of values in some columns."""
    if trials.empty:
        return trials
    group = trials.groupby(list(columns), dropna=False).ngroup()
    return trials[group == group.mode().iloc[0]]


def architecture(trial: pd.Series, shown: Collection[str] = ()) -> str:
    """A trial's architecture in a word: "conv" (the report's), "dense-512", "unet".

    Args:
        trial: a row of the trials.
        shown: the arguments to name of a model of a person's own: "unet (depth 2)".
    """
    if trial["model"] not in schema.MODELS:
        named = {k: v for k, v in keywords(trial["arguments"]).items() if k in shown}
        listed = ", ".join(f"{key} {_plain(value)}" for key, value in named.items())
        return f"{trial['model']} ({listed})" if listed else str(trial["model"])
    if trial["model"] == schema.DENSE:
        return f"{schema.DENSE}-{trial['hidden_units']}"
    filters = trial["latent_filters"]
    return (
        CONV_NAME
        if filters == REPORT_LATENT_FILTERS
        else f"{schema.CONV}, {filters} latent filters"
    )


def keywords(arguments: Any) -> dict[str, Any]:
    """The arguments of a model of a person's own, from the column's JSON; none if missing."""
    return {} if pd.isna(arguments) else json.loads(arguments)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def with_names(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with a column `name`, their architecture.

    That of a model of a person's own names the arguments in which these trials differ.
    """
    shown = {model: varied_arguments(rows) for model, rows in trials.groupby("model")["arguments"]}
    return trials.assign(
        name=[architecture(row, shown[row["model"]]) for _, row in trials.iterrows()]
    )


def varied_arguments(arguments: pd.Series) -> list[str]:
    """The arguments of a model of a person's own that differ, or are at times not given."""
    found = [keywords(text) for text in arguments.unique()]
    names = dict.fromkeys(name for one in found for name in one)
    return [n for n in names if len({json.dumps(one.get(n)) for one in found}) > 1]


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
    reference: pd.DataFrame,
    metric: str,
    numerator: str = CONV_NAME,
    denominator: str = DENSE_NAME,
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
    histories = reference_epochs(reference, epochs)
    order = pd.CategoricalDtype(names(reference))  # by size, "dense-64" before "dense-512"
    histories = histories.astype({"name": order}).dropna(subset=metric)
    grouped = histories.groupby(["name", "epoch"], observed=True)[metric]
    table = grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()
    return table.astype({"name": "str"})


def ratio_curve(reference: pd.DataFrame, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Conv ÷ dense-512 in a metric at every epoch, paired by seed.

    Returns:
        Columns epoch, mean, low, high (the 95 % t-interval, missing for n = 1) and n.
    """
    histories = reference_epochs(reference, epochs)
    rows = []
    for epoch, at_epoch in histories.groupby("epoch"):
        ratio = ratio_of(at_epoch, metric)
        if ratio is not None:
            rows.append((epoch, ratio.mean, ratio.low, ratio.high, ratio.n))
    return pd.DataFrame(rows, columns=["epoch", "mean", "low", "high", "n"])


def reference_epochs(reference: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """The epochs of the trials of `reference_trials`, with their name and seed."""
    return epochs.merge(reference[["trial_id", "name", "seed"]], on="trial_id")


def summary(reference: pd.DataFrame) -> pd.DataFrame:
    """A row an architecture, then the ratios of the report's two models.

    Returns:
        Columns model, epochs, n_parameters, n_seeds and, for train_mse, test_mse and
        train_seconds each, mean, sd, low and high. In the ratios' row, mean is the geometric mean
        of the ratios paired by seed; low and high are 95 % t-intervals throughout.
    """
    rows = []
    for name in names(reference):
        trials = reference[reference["name"] == name]
        row = {
            "model": name,
            "epochs": trials["epochs"].iloc[0],
            "n_parameters": trials["n_parameters"].iloc[0],
            "n_seeds": len(trials),
        }
        rows.append(
            row | _flat({metric: mean_of(reference, name, metric) for metric in SUMMARISED})
        )
    ratios = {metric: ratio_of(reference, metric) for metric in SUMMARISED}
    if (of_test := ratios[schema.TEST_MSE]) is not None:
        rows.append({"model": RATIO_NAME, "n_seeds": of_test.n} | _flat(ratios))
    parts = [f"{metric}_{part}" for metric in SUMMARISED for part in ("mean", "sd", "low", "high")]
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
