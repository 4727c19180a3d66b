"""A ratio under every combination of what was left open: what moves it, and which one is likely.

A cell is a combination with the ratios that were measured under it, a seed each. That is all these
functions know; there is no model in them, as every combination was trained.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

Levels: TypeAlias = Mapping[str, Any]  # what was left open, by name
Cell: TypeAlias = tuple[Levels, pd.Series]  # with at least one ratio above 0
SEEDS: Final = ("seeds",)


def shares(cells: Sequence[Cell]) -> dict[tuple[str, ...], float]:
    """The share of each factor, of each combination of factors and of seeds in the variance.

    The variance is that of the log ratio over all cells, each of equal weight, and the seeds in
    them. It is a sum of those of the effects, as in the analysis of variance of a full factorial
    (R. A. Fisher, The Design of Experiments, 1935), and of the mean variance within a cell. By the
    names of the factors, the single ones first; empty unless each combination of their values is
    there once and the ratios vary.
    """
    if not cells:
        return {}
    names = list(cells[0][0])
    logs = [np.log(ratios.to_numpy(dtype=float)) for _, ratios in cells]
    means = pd.DataFrame([levels for levels, _ in cells]).assign(mean=[x.mean() for x in logs])
    n_levels = [means[name].nunique() for name in names]
    total = np.mean([((x - means["mean"].mean()) ** 2).mean() for x in logs])
    if (
        len(means.drop_duplicates(names)) != len(cells)
        or len(cells) != np.prod(n_levels)
        or not total
    ):
        return {}
    effects: dict[tuple[str, ...], pd.Series] = {
        (): pd.Series(means["mean"].mean(), index=means.index)
    }
    subsets = [s for n in range(1, len(names) + 1) for s in combinations(names, n)]
    for subset in subsets:
        within = [known for known in effects if set(known) < set(subset)]
        averages = means.groupby(list(subset))["mean"].transform("mean")
        effects[subset] = averages - sum(effects[known] for known in within)
    found = {subset: float((effects[subset] ** 2).mean() / total) for subset in subsets}
    return found | {SEEDS: float(np.mean([x.var() for x in logs]) / total)}


def by_value(cells: Sequence[Cell], name: str) -> dict[Any, float]:
    """The geometric mean of the ratio with each value of a factor, over those of the others."""
    logs = pd.Series([np.log(ratios).mean() for _, ratios in cells])
    return {
        v: float(np.exp(m)) for v, m in logs.groupby([c[name] for c, _ in cells]).mean().items()
    }


def rounded(stated: float) -> tuple[float, float]:
    """Between which numbers those lie that round to a stated one: 0.45 and 0.55 for 0.5."""
    half = 10.0 ** int(Decimal(str(stated)).as_tuple().exponent) / 2
    return stated - half, stated + half


def chances(cells: Sequence[Cell], stated: float) -> list[float]:
    """Each cell's chance that the ratio of a fresh pair of runs rounds to a stated one.

    It is the likelihood of the cell; none if no cell has two seeds. The log ratio of a fresh pair
    has a t distribution around the mean of the cell's seeds. Its spread is that over seeds, pooled
    over all cells, so that no cell gains by an interval that is wide for want of seeds.
    """
    logs = [np.log(ratios.to_numpy(dtype=float)) for _, ratios in cells]
    freedom = sum(len(x) - 1 for x in logs)
    if not freedom:
        return []
    pooled = sum(((x - x.mean()) ** 2).sum() for x in logs) / freedom
    found = []
    for x in logs:
        scale = np.sqrt(max(pooled, np.finfo(float).tiny) * (1 + 1 / len(x)))
        low, high = stats.t.cdf((np.log(rounded(stated)) - x.mean()) / scale, freedom)
        found.append(float(high - low))
    return found
