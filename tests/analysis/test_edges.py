"""Where the best settings lie at an end of what was searched, and what the first screen says."""

from pathlib import Path

import pytest
from pages import run_of_trials, screen
from rows import trial
from synthetic_runs import searched

from analysis.answer import answer
from analysis.edges import edge_sentence, edges
from analysis.load import read_run

STANDARD = Path(__file__).parents[2] / "benchmarks" / "results" / "standard-cpu"


def search(*settings: dict, limit: int | None = None, **space: dict):
    """A run of search trials of dense, the best first, in a space."""
    rows = [searched("dense", i, 0.01 + i / 1e4, **its) for i, its in enumerate(settings)]
    its = {"model": "dense", "searched": list(space.items()), "max_parameters": limit}
    spaces = [[its]]
    return run_of_trials(*rows, spaces=spaces)


def names(run) -> list[tuple[str, float, str]]:
    return [(edge.parameter, edge.end, edge.name) for edge in edges(run)]


def test_the_published_standard_search_was_at_the_edge_of_its_batch_sizes():
    run = read_run(STANDARD)
    found = {(edge.model, edge.parameter): (edge.end, edge.name) for edge in edges(run)}
    assert found["conv", "batch_size"] == found["dense", "batch_size"] == (64, "least")
    said = answer(run)["tuned"]
    assert "Tuned" in said
    assert "conv's batch size (64, the least, in " in said
    assert "dense's batch size (64, the least, in " in said


RATES = {"low": 0.01, "high": 10.0, "log": True}


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ([0.011, 0.012, 1.0], [("learning_rate", 0.01, "least")]),  # two of three
        ([0.011, 1.0, 1.0], []),
        ([9.0, 1.0, 9.0, 0.1], [("learning_rate", 10.0, "greatest")]),
        ([1.0, 1.0, 1.0, 9.0, 9.0], []),  # of the three best none
        ([9.0], []),  # the best for want of others
    ],
)
def test_half_of_the_best_near_an_end_of_a_range_are_at_it(rates, found):
    run = search(*({"learning_rate": rate} for rate in rates), learning_rate=RATES)
    assert names(run) == found


def test_the_best_are_a_tenth_of_many():
    rates = [9.0] * 2 + [1.0] * 58
    run = search(*({"learning_rate": rate} for rate in rates), learning_rate=RATES)
    assert names(run) == []
    run = search(*({"learning_rate": r} for r in [9.0, *rates]), learning_rate=RATES)
    assert names(run) == []  # three of seven
    run = search(*({"learning_rate": r} for r in [9.0] * 4 + rates[2:]), learning_rate=RATES)
    assert names(run) == [("learning_rate", 10.0, "greatest")]


def test_ends_beyond_which_nothing_is_valid_words_and_truth_values_are_no_edges():
    values = {"momentum": 0.0, "dropout": 0.0, "batch_size": 1, "nesterov": True}
    run = search(
        *[values | {"hidden_activation": "relu"}] * 3,
        one_minus_momentum={"low": 0.1, "high": 1.0, "log": True},
        dropout={"grid": [0.0, 0.1]},
        batch_size={"grid": [1, 2]},
        nesterov={"grid": [True, False]},
        hidden_activation={"grid": ["relu", "sigmoid"]},
    )
    assert names(run) == []
    assert edge_sentence(run) == ""
    fast = search(
        *[{"momentum": 0.9}] * 3, one_minus_momentum={"low": 0.1, "high": 1.0, "log": True}
    )
    assert "dense's 1 − momentum (0.1, the least, in 3 of its 3 best trials)" in edge_sentence(fast)


def test_the_greatest_size_that_a_limit_allows_is_no_edge():
    sizes = {"hidden_units": {"low": 2, "high": 64, "log": True, "grid": ()}}
    large, small = ([{"hidden_units": n}] * 3 for n in (64, 2))
    assert names(search(*large, **sizes)) == [("hidden_units", 64, "greatest")]
    assert names(search(*large, limit=10**5, **sizes)) == []
    assert names(search(*small, limit=10**5, **sizes)) == [("hidden_units", 2, "least")]


def test_a_run_without_a_search_has_none():
    assert names(run_of_trials(trial())) == []
    assert "best settings lie" not in screen(trial(), trial("dense"))
