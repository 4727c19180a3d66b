"""What a run measured, a `Setting` a row of its frame: means over seeds, and ratios to a base.

The study says in the tables which setting a trial has and beside which it is judged (the columns
`setting` and `base`). Only completed trials enter a mean; pruned, diverged, failed and unfinished
ones are counted beside it.
"""

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from analysis.phrases import values_words
from study.folder import schema
from study.folder.schema import SECONDS

CONFIDENCE: Final = 0.95
COLLAPSED_RATIO: Final = 3.0  # a seed so many times above the best one has collapsed

MEASURED: Final = (*schema.METRICS, SECONDS)


@dataclass(frozen=True)
class Chance:
    """How often something happened in independent runs: what a further run's chance of it is.

    Its 95 % interval is exact (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934).
    """

    n_times: int
    n: int  # runs, or pairs of runs of which none is in two; at least one

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, from 0 to 1."""
        interval = stats.binomtest(self.n_times, self.n).proportion_ci(CONFIDENCE, "exact")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a geometric mean of ratios over seeds."""

    mean: float  # in the metric's unit; a ratio has none
    n: int  # seeds
    sd: float | None = None  # sample standard deviation; None for n = 1 and for ratios
    low: float | None = None  # lower end of the 95 % interval; None for n = 1
    high: float | None = None
    ahead: Chance | None = None  # of a ratio of two settings' errors: the first has the lesser one

    @property
    def lowest(self) -> float:
        """The interval's lower end, or the value itself without an interval."""
        return self.mean if self.low is None else self.low

    @property
    def highest(self) -> float:
        """The interval's upper end, or the value itself without an interval."""
        return self.mean if self.high is None else self.high

    def excludes(self, value: float) -> bool:
        """Whether there is an interval, and the value lies outside it."""
        return self.low is not None and not self.lowest <= value <= self.highest

    def inverse(self) -> "Estimate":
        """The ratio of the two the other way round."""
        low, high = (None if end is None else 1 / end for end in (self.high, self.low))
        return Estimate(1 / self.mean, self.n, None, low, high)

    def exp(self) -> "Estimate":
        """The ratio whose logarithm this is."""
        low, high = (None if end is None else float(np.exp(end)) for end in (self.low, self.high))
        return Estimate(float(np.exp(self.mean)), self.n, None, low, high)


def mean_over_seeds(values: pd.Series, n_intervals: int = 1) -> Estimate | None:
    """Mean, sample standard deviation and t-interval of one value a seed; None for no value.

    The interval is one of so many that all hold together with 95 %, by C. E. Bonferroni's
    inequality, whatever their dependence.
    """
    numbers = values.dropna().to_numpy(dtype=float)
    n = len(numbers)
    if n == 0:
        return None
    mean = float(numbers.mean())
    if n == 1:
        return Estimate(mean, n)
    sd = float(numbers.std(ddof=1))
    # Not `ttest_1samp`: it has no interval for equal values, such as those of collapsed seeds.
    low, high = stats.t.interval(1 - (1 - CONFIDENCE) / n_intervals, n - 1)
    return Estimate(mean, n, sd, mean + float(low) * sd / n**0.5, mean + float(high) * sd / n**0.5)


def ratios_by_seed(top: pd.Series, bottom: pd.Series) -> pd.Series:
    """The ratio of each seed that two series of numbers share; none if one of these is 0.

    An MSE may be exactly 0, as of images of one grey, and there is no ratio to that.
    """
    tops, bottoms = top.dropna().align(bottom.dropna(), join="inner")
    known = ((tops > 0) & (bottoms > 0)).all()
    return (tops / bottoms).astype(float) if known else pd.Series(dtype=float)


def ratio_over_seeds(top: pd.Series, bottom: pd.Series) -> Estimate | None:
    """The geometric mean of `ratios_by_seed`, and the t-interval of the mean log; None for none."""
    logs = mean_over_seeds(np.log(ratios_by_seed(top, bottom)))
    return None if logs is None else logs.exp()


def welch_ratio(top: pd.Series, bottom: pd.Series) -> Estimate | None:
    """The ratio of the geometric means of two independent samples, n being the sum of both.

    The interval is Welch's, of the difference of the mean logs (B. L. Welch, Biometrika 34, 1947);
    a sample of one value gives none. None if a sample has no value, or a 0.
    """
    samples = [values.dropna().to_numpy(dtype=float) for values in (top, bottom)]
    if not all(len(sample) and (sample > 0).all() for sample in samples):
        return None
    tops, bottoms = map(np.log, samples)
    difference, n = float(tops.mean() - bottoms.mean()), len(tops) + len(bottoms)
    if min(len(tops), len(bottoms)) == 1:
        return Estimate(difference, n).exp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of equal values in a sample
        interval = stats.ttest_ind(tops, bottoms, equal_var=False).confidence_interval(CONFIDENCE)
    # Both have equal values alone, as when every seed collapsed: no spread, and NaN.
    low, high = (difference if np.isnan(end) else float(end) for end in interval)
    return Estimate(difference, n, None, low, high).exp()


@dataclass(frozen=True, eq=False)
class Setting:
    """The trials of one group that differ in nothing but the seed."""

    group: str
    label: str  # of `study.plan.labels`: the same in every group
    split: str
    epochs: int
    trials: pd.DataFrame  # one a seed, indexed by it, whatever became of them
    base: "Setting | None" = None  # what it is judged beside; None for nothing, or not in the run
    beside: pd.Series | None = None  # a trial of the base's setting, if there is one in any group

    @cached_property
    def model(self) -> str:
        """`conv`, `dense`, or the name of a custom model."""
        return str(self.value("model"))

    @cached_property
    def architecture(self) -> str:
        """Its architecture in a word: "conv", "dense-512", "unet"."""
        units = f"-{self.value('hidden_units')}" if self.model == schema.DENSE else ""
        return f"{self.model}{units}"

    @property
    def n_parameters(self) -> int | None:
        """Of the model; None if no trial got so far."""
        known = self.trials["n_parameters"].dropna()
        return int(known.iloc[0]) if len(known) else None

    @property
    def is_reference(self) -> bool:
        """Whether it is a reference setting of the study."""
        return self.group == schema.REFERENCE or not self.value("base")

    @property
    def metric(self) -> str:
        """What it is judged by: the test MSE, or the validation MSE on the search's images."""
        return schema.EVAL_METRICS[self.split]

    @cached_property
    def completed(self) -> pd.DataFrame:
        """Its completed trials, indexed by seed, without the times of those that shared a device.

        Such times are shares, which compare with none.
        """
        done = self.trials[self.trials["state"] == schema.COMPLETED].sort_index()
        shared = (done["n_sharing"] > 1).fillna(False)
        return done.assign(**{SECONDS: done[SECONDS].mask(shared)})

    def by_seed(self, metric: str = "") -> pd.Series:
        """A metric of its completed trials, by seed; by default what it is judged by."""
        return self.completed[metric or self.metric].dropna()

    def with_diverged(self, metric: str = "") -> pd.Series:
        """The same, and infinity for each seed that diverged: a result, worse than any number."""
        diverged = self.trials.index[self.trials["state"] == schema.DIVERGED]
        both: pd.Series = pd.concat([self.by_seed(metric), pd.Series(np.inf, index=diverged)])
        return both

    def mean(self, metric: str = "") -> Estimate | None:
        """Of `by_seed`."""
        return mean_over_seeds(self.by_seed(metric))

    def ratio(self, metric: str = "") -> Estimate | None:
        """To its base, paired by seed; None without a pair."""
        return ratio(self, self.base, metric)

    @property
    def states(self) -> dict[str, int]:
        """How many of its trials are in which state, zeros left out."""
        found = list(self.trials["state"])
        return {state: found.count(state) for state in schema.STATES if state in found}

    @property
    def lost(self) -> dict[int, str]:
        """The seeds that ended without completing, with how."""
        states = self.trials["state"].sort_index()
        lost: dict[Any, str] = states[~states.isin((schema.COMPLETED, schema.RUNNING))].to_dict()
        return lost

    @property
    def running(self) -> list[int]:
        """The seeds that have not ended."""
        return sorted(self.trials.index[self.trials["state"] == schema.RUNNING].tolist())

    @property
    def collapsed(self) -> list[int]:
        """The seeds that completed far above the best one: they did not learn what it learnt."""
        by_seed = self.by_seed()
        return list(by_seed.index[by_seed > COLLAPSED_RATIO * by_seed.min()])

    @property
    def collapse(self) -> Chance | None:
        """How often a run collapses or diverges; failed and pruned ones say nothing of it."""
        ended = self.with_diverged()
        lost = len(self.collapsed) + int(np.isinf(ended).sum())
        return Chance(lost, len(ended)) if len(ended) else None

    @property
    def mean_of_others(self) -> Estimate | None:
        """The mean over the seeds that did not collapse."""
        return mean_over_seeds(self.by_seed().drop(self.collapsed))

    def value(self, column: str) -> Any:
        """What all of its trials have in a column of the table; None if missing."""
        value = self.trials[column].iloc[0]
        return None if pd.isna(value) else value

    @cached_property
    def values(self) -> dict[str, Any]:
        """Its whole setting by name, the architecture apart."""
        return values_of(self.trials.iloc[0])

    @cached_property
    def differs(self) -> dict[str, Any]:
        """What differs from its base, by name; its whole setting if no trial has that base's.

        Of custom trials, which may be longer or shorter than the reference's, also the epochs.
        """
        known = {} if self.beside is None else values_of(self.beside)
        found = {n: v for n, v in self.values.items() if n not in known or known[n] != v}
        if self.is_reference:
            found = {}
        if self.group == schema.CUSTOM and self.beside is not None:
            found |= {"epochs": self.epochs} if self.beside["epochs"] != self.epochs else {}
        return found

    def alike(self, other: "Setting", but: str) -> bool:
        """Whether another setting of the model differs in one hyperparameter, and in it alone."""
        mine, its = (s.values | {"hidden_units": s.value("hidden_units")} for s in (self, other))
        differ = {name for name in mine if mine[name] != its.get(name)}
        return self.model == other.model and differ == {but}

    @property
    def words(self) -> str:
        """What it differs in from its base: "learning rate 2, batch size 64"; "" for nothing."""
        return values_words(self.differs)

    @property
    def name(self) -> str:
        """For people: "conv", "dense-512, learning rate 2"."""
        told = self.differs and self.beside is not None
        return f"{self.architecture}, {self.words}" if told else self.label

    @property
    def whole(self) -> str:
        """Its whole setting in words, the architecture apart."""
        return values_words(self.values)


def values_of(trial: pd.Series) -> dict[str, Any]:
    """A trial's setting by hyperparameter and argument, apart from its architecture."""
    names = [p.name for p in schema.hyperparameters_of(trial["model"]) if p.name != "hidden_units"]
    return keywords(trial["arguments"]) | {n: trial[n] for n in names if not pd.isna(trial[n])}


def keywords(arguments: Any) -> dict[str, Any]:
    """The arguments of a custom model, from the column's JSON; none if missing."""
    return {} if pd.isna(arguments) else json.loads(arguments)


def settings_of(trials: pd.DataFrame) -> list[Setting]:
    """The settings of each group: conv's first, dense by size, then those of custom models.

    A base is looked up in the same group first, then among the reference trials, of the same split
    and epochs.
    """
    order = {model: place for place, model in enumerate(models_of(trials))}
    rows = trials.assign(place=trials["model"].map(order), base=trials["base"].fillna(""))
    rows = rows.sort_values(["place", "hidden_units"], kind="stable").drop(columns="place")
    by_label = {str(row["setting"]): row for _, row in rows.drop_duplicates("setting").iterrows()}
    keys = ["group", "setting", "split", "epochs"]
    found = dict(iter(rows.groupby(keys, sort=False)))
    made: dict[Any, Setting] = {}

    def setting(key: Any) -> Setting:
        if key not in made:
            group, label, split, epochs = key
            its = found[key].drop_duplicates("seed").set_index("seed", drop=False)
            name = str(its["base"].iloc[0])
            bases = ((of, name, split, epochs) for of in (group, schema.REFERENCE))
            base = next((setting(of) for of in bases if of in found), None)
            its = its.rename_axis(None)
            made[key] = Setting(
                group, label, split, int(epochs), its, base, by_label.get(name or label)
            )
        return made[key]

    return [setting(key) for key in found]


def models_of(trials: pd.DataFrame) -> list[str]:
    """The models of some trials: conv, dense, then the custom ones by name."""
    found = set(trials["model"])
    return [m for m in schema.MODELS if m in found] + sorted(found - set(schema.MODELS))


def ratio(top: Setting | None, bottom: Setting | None, metric: str = "") -> Estimate | None:
    """The ratio of any two settings, paired by seed; None if one is absent or they share no seed.

    The chance that a fresh run of the first has the lesser error counts each run once, in the pair
    of its seed: all pairs of a run of one with a run of the other would not be independent. The
    metric is by default what the first is judged by.
    """
    if top is None or bottom is None:
        return None
    metric = metric or top.metric
    found = ratio_over_seeds(top.by_seed(metric), bottom.by_seed(metric))
    if found is None or metric not in schema.METRICS:
        return found
    tops, bottoms = top.with_diverged(metric).align(bottom.with_diverged(metric), join="inner")
    return replace(found, ahead=Chance(int((tops < bottoms).sum()), len(tops)))


def frame(settings: Iterable[Setting]) -> pd.DataFrame:
    """The frame of a run: a row a setting and what was measured of it.

    Returns:
        Columns group, setting, base, model, split, epochs, n_parameters, metric, n, mean, sd, low,
        high (the 95 % interval), ratio, ratio_low, ratio_high, ratio_n (to the base, paired by
        seed), a count for each of `study.folder.schema.STATES`, and collapsed (seeds).
    """
    rows = []
    for one in settings:
        states = dict.fromkeys(schema.STATES, 0) | one.states
        its = {"group": one.group, "setting": one.label, "base": one.value("base")}
        its |= {"model": one.model, "split": one.split, "epochs": one.epochs}
        its |= {"n_parameters": one.n_parameters, **states, "collapsed": len(one.collapsed)}
        for metric in MEASURED:
            if one.trials[metric].isna().all() and metric != one.metric:
                continue
            mean, beside = (e or Estimate(np.nan, 0) for e in (one.mean(metric), one.ratio(metric)))
            row = its | vars(mean) | {"metric": metric, "ratio": beside.mean, "ratio_n": beside.n}
            rows.append(row | {"ratio_low": beside.low, "ratio_high": beside.high})
    numbers = ("mean", "sd", "low", "high", "ratio", "ratio_low", "ratio_high")
    first = ("group", "setting", "base", "model", "split", "epochs", "n_parameters", "metric", "n")
    columns = [*first, *numbers, "ratio_n", *schema.STATES, "collapsed"]
    whole = dict.fromkeys(("epochs", "n_parameters", "n", "ratio_n"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(whole | dict.fromkeys(numbers, "float64"))


def histories(setting: Setting, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of a setting's completed trials: columns trial_id, seed, epoch and value."""
    known = epochs.merge(setting.completed[["trial_id", "seed"]], on="trial_id")
    known = known.rename(columns={metric: "value"})[["trial_id", "seed", "epoch", "value"]]
    return known.dropna(subset="value")


def curve(setting: Setting, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric by epoch: its mean, low, high (the least and the greatest over the seeds) and n."""
    grouped = histories(setting, epochs, metric).groupby("epoch")["value"]
    return grouped.agg(mean="mean", low="min", high="max", n="count").reset_index()


def ratio_curve(
    top: Setting | None, bottom: Setting | None, epochs: pd.DataFrame, metric: str
) -> pd.DataFrame:
    """The ratio of two settings at every epoch, paired by seed.

    Returns:
        Columns epoch, mean, low, high (the 95 % t-interval, missing for n = 1) and n.
    """
    if top is None or bottom is None:
        return pd.DataFrame(columns=["epoch", "mean", "low", "high", "n"])
    by_seed = {"index": "epoch", "columns": "seed", "values": "value"}
    tops, bottoms = (histories(s, epochs, metric).pivot(**by_seed) for s in (top, bottom))
    tops, bottoms = tops.align(bottoms, join="inner")
    zero = (tops * bottoms == 0).any(axis=1)  # epochs that have no ratio
    logs = (tops / bottoms)[~zero].dropna(how="all").apply(np.log)
    n = logs.count(axis=1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * logs.std(axis=1, ddof=1) / np.sqrt(n)
    mean = logs.mean(axis=1)
    ends = {"mean": np.exp(mean), "low": np.exp(mean - half), "high": np.exp(mean + half), "n": n}
    return pd.DataFrame(ends).rename_axis("epoch").reset_index()
