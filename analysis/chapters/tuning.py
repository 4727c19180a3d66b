"""Tuning curves: how good the best of k random settings is, with bands that hold for all k at once.

They need independent random settings. Curves and bands are those of `opda` (N. Lourie et al., "Show
your work with confidence", NAACL 2024, arXiv:2311.09480).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations, groupby
from typing import Any, Final

import numpy as np
import pandas as pd
from opda.nonparametric import EmpiricalDistribution

from analysis import plots
from analysis.chapters.search import DEVICE_SECONDS, OBJECTIVE_LABEL
from analysis.load import Run
from analysis.phrases import count, digits, listed
from analysis.plots import Drawing, Marks
from analysis.settings import CONFIDENCE, models_of
from study.folder import schema

FIGURES: Final = {"k": "figure-tuning", "seconds": "figure-tuning-seconds"}
MIN_TRIALS: Final = 5  # of a model; fewer have no band to speak of


def why_not(run: Run) -> str:
    """Why a run's search has no tuning curves, to end a sentence; "" if it has."""
    for sampler in run.samplers:
        if sampler != "random":
            return f"the sampler {sampler} proposed its trials"
    if run.manifest["spec"]["given_trials"]:
        return "some of its trials were given"
    if (run.searched["state"] == schema.PRUNED).any():
        return "some of its trials were pruned"
    if not samples(run):
        return f"no model has {MIN_TRIALS} ended trials"
    return ""


def samples(run: Run) -> dict[str, tuple[list[float], float]]:
    """Of each model the ended search trials' objectives and the mean device seconds of a trial.

    A diverged trial is worse than any other: its objective is infinite. One that failed through no
    fault of its setting, or has not ended, says nothing.
    """
    ended = run.searched[run.searched["state"].isin((schema.COMPLETED, schema.DIVERGED))]
    value = ended[schema.OBJECTIVE].where(ended["state"] == schema.COMPLETED, math.inf)
    found = {}
    for model in models_of(ended):
        its = ended["model"] == model
        seconds = float(ended.loc[its, DEVICE_SECONDS].sum(axis=1).mean())
        if its.sum() >= MIN_TRIALS and np.isfinite(value[its]).any():
            found[model] = value[its].astype(float).tolist(), seconds
    return found


def tuning_curve(values: Sequence[float]) -> pd.DataFrame:
    """What the best of k independent random settings has, for k from 1 to as many as there are.

    Args:
        values: objectives of such settings, 0 or greater; infinite for one that diverged.

    Returns:
        Columns k, mean (the expectation, of k settings that do not all diverge), median, and low
        and high: the simultaneous 95 % band of the median, whose ends may be 0 and infinite.
    """
    n, ys = len(values), np.asarray(values, dtype=float)
    ks = np.arange(1, n + 1)
    with warnings.catch_warnings():
        # Equal values, of collapsed or diverged trials, only widen the band.
        warnings.filterwarnings("ignore", "Duplicates detected", RuntimeWarning)
        low, point, high = EmpiricalDistribution.confidence_bands(
            ys, CONFIDENCE, a=0.0, generator=_generator(n), method="ld_equal_tailed", n_jobs=1
        )
    finite = np.isfinite(ys)
    worst, all_diverge = ys[finite].max(), (1 - finite.mean()) ** ks
    counted = EmpiricalDistribution(np.where(finite, ys, worst))
    mean = counted.average_tuning_curve(ks, minimize=True) - all_diverge * worst
    # Much of a distribution below a value is a small best one: the upper CDF is the lower curve.
    ends = {"median": point, "low": high, "high": low}
    curves = {name: cdf.quantile_tuning_curve(ks, minimize=True) for name, cdf in ends.items()}
    return pd.DataFrame({"k": ks, "mean": mean / (1 - all_diverge), **curves})


@cache
def _generator(n: int) -> np.random.Generator:
    """For opda, which draws to size a band: the same for each n, so that it does so once."""
    return np.random.default_rng(n)


def comparison(curves: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which model leads after how many trials, a sentence a pair: where their bands are apart."""
    said = []
    for pair in combinations(curves, 2):
        n = min(len(curves[model]) for model in pair)
        a, b = (curves[model].head(n) for model in pair)
        leads = np.where(a["high"] < b["low"], pair[0], np.where(b["high"] < a["low"], pair[1], ""))
        parts, first = [], 1
        for leader, ks in groupby(leads):
            last = first + len(list(ks)) - 1
            what = f"{leader} leads" if leader else f"{listed(pair)} cannot be told apart"
            parts.append(f"{_span(first, last, n)} {what}")
            first = last + 1
        said.append(f"With random settings, {'; '.join(parts)} ({n} trials each).")
    return said


def _span(first: int, last: int, n: int) -> str:
    """Numbers of trials in words, of 1 to n."""
    if first == 1:
        return f"for any number up to {n}" if last == n else f"up to {count(last, 'trial')}"
    if last == n:
        return f"from {first} trials on"
    return f"with {first} trials" if first == last else f"from {first} to {last} trials"


def sentences(run: Run) -> list[str]:
    """Of `comparison`; none of a run without tuning curves."""
    its = {} if why_not(run) else samples(run)
    return comparison({model: tuning_curve(values) for model, (values, _) in its.items()})


def drawing(run: Run, curves: Mapping[str, pd.DataFrame], by: str) -> Drawing:
    """The best of k against k, or against the `seconds` that k trials take; log axes."""
    looks, some = plots.looks_of(run.models), []
    for place, (model, its) in enumerate(curves.items()):
        look, known = looks[model] | {"marker": ""}, its[np.isfinite(its["median"])]
        texts = [
            f"{model}, best of {row.k}: median {digits(row.median)} ({digits(row.low)} to"
            f" {digits(row.high)}), expected {digits(row.mean)}"
            for row in known.itertuples()
        ]
        some.append(Marks(look, known[by], known["median"], f"{model}, median", texts, place))
        thin = look | {"linestyle": ":", "linewidth": 1, "alpha": 0.7}
        some.append(Marks(thin, its[by], its["mean"], f"{model}, expected", series=place))
    figure, ax = plots.new_figure(4.0)
    points = plots.marks(ax, some)
    ax.set(xscale="log", yscale="log")
    limits = ax.get_ylim()  # of the curves: a band may reach 0 or infinity
    for place, (model, its) in enumerate(curves.items()):
        ends = its["low"].clip(*limits), its["high"].clip(*limits)
        band = {"color": looks[model]["color"], "alpha": 0.2, "linewidth": 0}
        plots.tag(ax.fill_between(its[by], *ends, **band), place)
    ax.set_ylim(limits)
    plots.log_axis(ax.xaxis, "" if by == "k" else "Device time of k trials (s)")
    plots.log_axis(ax.yaxis, OBJECTIVE_LABEL)
    if by == "k":
        ax.set_xlabel("Random settings tried, k")
    plots.legend_above(ax)
    series = [(model, looks[model]) for model in curves]
    return Drawing(FIGURES[by], figure, points, series, "point")


def chapter(run: Run) -> dict[str, Any]:
    """The curves of each model, or why there are none."""
    reason, curves = why_not(run), {}
    its = {} if reason else samples(run)
    for model, (values, seconds) in its.items():
        curve = tuning_curve(values)
        curves[model] = curve.assign(seconds=seconds * curve["k"])
    diverged = {model: sum(map(math.isinf, values)) for model, (values, _) in its.items()}
    return {
        "reason": reason if len(run.searched) else "",
        "said": comparison(curves),
        "drawings": [drawing(run, curves, by) for by in FIGURES if curves],
        "n": listed(f"{len(values)} of {model}" for model, (values, _) in its.items()),
        "diverged": listed(f"{n} of {model}" for model, n in diverged.items() if n),
        "best": listed(f"{m} {digits(c['median'].iloc[-1])}" for m, c in curves.items()),
    }
