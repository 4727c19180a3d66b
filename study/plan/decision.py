"""When a comparison has seeds enough: a group-sequential permutation test (`--until-decided`).

After every few seeds the test looks at all of them. Each look spends an equal part of a fixed
error rate, so that looking often makes no false decision likelier. Permutations need no
distribution, which the seeds of a model that collapses now and then do not have. The idea is
AdaStop's (T. Mathieu and others, arXiv 2306.10882); with few settings Bonferroni's inequality
serves in place of its conditional boundaries.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any, Final

import numpy as np

from study.folder import schema
from study.folder.tables import Row

ERROR_RATE: Final = 0.05  # of a whole study
SEEDS_A_LOOK: Final = 5  # with fewer, no permutation is rare enough to decide
N_PERMUTATIONS: Final = 9_999  # drawn where there are more


@dataclass(frozen=True)
class Rule:
    """When the comparisons of a study are decided."""

    most: int  # seeds of a setting
    n_pairs: int  # that are compared in the study

    @property
    def looks(self) -> list[int]:
        """The numbers of seeds after which the test looks."""
        return [*range(SEEDS_A_LOOK, self.most, SEEDS_A_LOOK), self.most]

    @property
    def level(self) -> float:
        """The p-value, or less, that decides at a look."""
        return ERROR_RATE / (len(self.looks) * self.n_pairs)

    @property
    def words(self) -> str:
        """The rule in a sentence."""
        return (
            f"After {SEEDS_A_LOOK} seeds and every {SEEDS_A_LOOK} more, up to {self.most}, a"
            " two-sided permutation test of the mean log MSE decides a comparison if p is at most"
            f" {self.level:.2g}: {100 * ERROR_RATE:g} % ÷ ({len(self.looks)} looks × {self.n_pairs}"
            f" comparisons), so that at most {100 * ERROR_RATE:g} % of studies decide any wrongly."
        )


@dataclass(frozen=True)
class Comparison:
    """Two settings of a group, as far as they are compared."""

    group: str
    setting: str
    base: str
    n: int  # seeds at the last look; 0 before the first
    p: float | None  # there; None before the first look, or if no seed has a value of both
    decided: bool
    n_wanted: int  # seeds of both: those of the next look, or of the last one


def compare(
    group: str, rows: Sequence[Row], setting: str, base: str, seeds: range, rule: Rule
) -> Comparison:
    """How far a comparison is.

    A seed that ended without a value of both settings counts as trained, and is in no test.

    `rows` are the group's on one kind of images, `setting` and `base` labels in them; `seeds` are
    the group's in their order, and enough for the rule.
    """
    by_seed = [
        {row["seed"]: row for row in rows if row["setting"] == label} for label in (setting, base)
    ]
    n, p = 0, None
    for look in rule.looks:
        its = seeds[:look]
        if any(_is_open(of.get(seed)) for of in by_seed for seed in its):
            return Comparison(group, setting, base, n, p, False, look)
        values = [[_value(of[seed]) for of in by_seed] for seed in its]
        logs = np.log(np.array([pair for pair in values if None not in pair], dtype=float))
        n, p = look, p_value(*logs.T) if len(logs) else None
        if p is not None and p <= rule.level:
            return Comparison(group, setting, base, n, p, True, look)
    return Comparison(group, setting, base, n, p, False, rule.most)


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """Of the difference of two means, by permutation; the samples are of equal length.

    It is exact where the permutations are few, and else, as they are drawn at random and hold the
    one that was measured, still valid. Were runs of the same seed alike in both settings, it would
    err on the safe side.
    """
    # Sums in another order must not make equal differences differ.
    differences = np.abs(np.round(_splits(len(a)) @ np.concatenate([a, b]), 9))
    return float((differences >= differences[0]).mean())


@cache
def _splits(n: int) -> np.ndarray:
    """Ways to split 2 n values in halves, as rows of 1 and -1: that of the samples first."""
    if math.comb(2 * n, n) <= N_PERMUTATIONS:
        halves = np.array(list(combinations(range(2 * n), n)))
    else:
        rng = np.random.default_rng(0)  # always the same
        drawn = rng.permuted(np.tile(np.arange(2 * n), (N_PERMUTATIONS, 1)), axis=1)[:, :n]
        halves = np.vstack([np.arange(n), drawn])
    splits = np.full((len(halves), 2 * n), -1.0)
    np.put_along_axis(splits, halves, 1.0, axis=1)
    return splits


def seeds_wanted(comparisons: Iterable[Comparison]) -> dict[str, int]:
    """How many seeds each of the compared settings is to have, by label."""
    found: Counter[str] = Counter()
    for one in comparisons:
        found |= Counter({one.setting: one.n_wanted, one.base: one.n_wanted})
    return found


def _is_open(row: Mapping[str, Any] | None) -> bool:
    return row is None or row["state"] == schema.RUNNING


def _value(row: Mapping[str, Any]) -> float | None:
    done = row["state"] == schema.COMPLETED
    return row.get(schema.EVAL_METRICS[row["split"]]) if done else None
