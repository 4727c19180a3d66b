"""Shares of a full factorial, and the likelihood of a stated value, beside independent ways."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.specifications import SEEDS, by_value, chances, rounded, shares


def cells(logs: dict[tuple, list[float]]) -> list:
    """Cells of the factors a and b."""
    return [({"a": a, "b": b}, pd.Series(np.exp(values))) for (a, b), values in logs.items()]


def test_shares_by_hand():
    # Effects of a: ± 2, of b: ± 1, of both together: ± 0.5; seeds: ± 0.1.
    logs = {
        (a, b): [3 + 2 * a + b + 0.5 * a * b + seed for seed in (-0.1, 0.1)]
        for a, b in product((-1, 1), repeat=2)
    }
    found = shares(cells(logs))
    total = 4 + 1 + 0.25 + 0.01
    expected = {("a",): 4 / total, ("b",): 1 / total, ("a", "b"): 0.25 / total, SEEDS: 0.01 / total}
    assert found == pytest.approx(expected)
    assert by_value(cells(logs), "a") == pytest.approx({-1: np.exp(1), 1: np.exp(5)})


@settings(deadline=None)
@given(
    values=st.lists(
        st.lists(st.floats(-3, 3), min_size=1, max_size=4), min_size=6, max_size=6
    ).filter(lambda values: np.ptp(np.concatenate(values)) > 1e-3)
)
def test_shares_sum_to_one_whatever_the_number_of_seeds(values: list[list[float]]):
    logs = dict(zip(product("xyz", "uv"), values, strict=True))
    assert sum(shares(cells(logs)).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "logs", [{}, {(0, 0): [1.0], (0, 1): [2.0], (1, 0): [3.0]}, {(0, 0): [1.0]}]
)
def test_an_incomplete_or_constant_table_has_no_shares(logs: dict):
    assert shares(cells(logs)) == {}


def test_a_stated_value_stands_for_those_that_round_to_it():
    assert rounded(0.5) == pytest.approx((0.45, 0.55))
    assert rounded(2.80) == pytest.approx((2.75, 2.85))
    assert rounded(28) == pytest.approx((27.5, 28.5))


def test_the_spread_is_pooled_so_that_no_cell_gains_by_fewer_seeds():
    seeds = [[-1.2, -1.0], [-0.9, -0.8, -0.7], [-0.6]]
    found = chances(cells({(0, b): values for b, values in enumerate(seeds)}), 0.5)
    pooled = ((0.1**2 * 2) + (0.1**2 * 2)) / 3  # three degrees of freedom
    for values, chance in zip(seeds, found, strict=True):
        fresh = stats.t(3, np.mean(values), np.sqrt(pooled * (1 + 1 / len(values))))
        assert chance == pytest.approx(fresh.cdf(np.log(0.55)) - fresh.cdf(np.log(0.45)))
    assert chances(cells({(0, 0): [-1.0], (0, 1): [-0.7]}), 0.5) == []


def test_the_chance_is_how_often_a_fresh_run_rounds_to_the_stated_value():
    """Means of three seeds and a fresh run, all drawn from the same log-normal distribution."""
    rng = np.random.default_rng(0)
    low, high = np.log(rounded(0.5))
    told, came = [], []
    for centre in rng.uniform(-1.3, -0.1, 2000):  # no centre is likelier than another
        *seen, fresh = rng.normal(centre, 0.06, 4)
        others = {(0, b): list(rng.normal(2, 0.06, 3)) for b in range(1, 12)}
        told.append(chances(cells({(0, 0): seen} | others), 0.5)[0])
        came.append(low < fresh < high)
    assert np.mean(told) == pytest.approx(np.mean(came), abs=0.02)
