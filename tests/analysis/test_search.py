"""The search, its winners and fronts: what is computed, and what is said of it."""

import re
from typing import Any

import numpy as np
import pytest
import synthetic_runs
from golden import agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import run_of_trials, screen, text_of
from rows import Trial, trial, without_value
from synthetic_runs import (
    MANIFEST,
    finalist_trials,
    neighbour_trials,
    quick_trials,
    search_trials,
    searched,
)

from analysis import settings as frame
from analysis.chapters import pareto, search, winners
from analysis.page.text import lines
from study.folder import schema

TIMED = MANIFEST["spec"] | {"objective": schema.MSE_AND_TIME}
TUNED = {"learning_rate": 0.25, "momentum": 0.9, "batch_size": 64}


def winner(model: str, seed: int, mse: float, **changes: Any) -> Trial:
    return synthetic_runs.winner(model, seed, mse, **TUNED | changes)


def lost(trials: list[Trial], state: str = schema.PRUNED, **changes: Any) -> list[Trial]:
    """The same trials without a value."""
    return [(row | without_value(state, **changes), history) for row, history in trials]


def whole_run() -> list[Trial]:
    """A study of everything that a search leaves."""
    seeds = range(3)
    finals = {
        "001": ({"learning_rate": 2.0}, [0.0060, 0.0062, 0.0064]),
        "002": (TUNED, [0.0055, 0.0056, 0.0057]),
        "reference": ({}, [0.0070, 0.0250, None]),
    }
    return [
        *(trial(model, seed=seed) for model in schema.MODELS for seed in seeds),
        *(pair for model in schema.MODELS for pair in search_trials(model, 12)),
        searched("conv", 100, 0.0050, learning_rate=2.0),
        searched("conv", 101, 0.0051, **TUNED),
        *finalist_trials("conv", finals),
        *(winner("conv", seed, 0.0050 + 0.0001 * seed) for seed in seeds),
        *(winner("dense", seed, 0.0040 * 1.01**seed, hidden_units=256) for seed in seeds),
        *(
            pair
            for model in schema.MODELS
            for pair in neighbour_trials(model, {"learning_rate": {2.0: 0.5, 4.0: None}}, 3)
        ),
    ]


def test_what_is_said_of_a_search():
    run = run_of_trials(*whole_run(), spec=MANIFEST["spec"] | {"n_finalists": 3})
    chapters = ("search", "parameters", "sensitivity", "times", "provenance")
    agrees("search", "\n".join(text_of(run, key) for key in chapters))


def test_progress_takes_no_value_from_a_trial_that_did_not_complete():
    trials = run_of_trials(*quick_trials()).trials
    trials.loc[trials["state"] == schema.PRUNED, schema.VAL_MSE] = 1e-6
    conv = search.search_progress(trials).query("model == 'conv'")
    assert conv["number"].tolist() == [1, 2, 3, 4, 5]
    assert conv["value"].isna().tolist() == [False, True, False, True, True]
    assert conv["best"].tolist() == pytest.approx([0.02, 0.02, 0.018, 0.018, 0.018])


def test_device_seconds_add_up_whatever_became_of_the_trials():
    times = {"train_seconds": 10.0, "eval_seconds": 2.0, "compile_seconds": 1.0}
    trials = run_of_trials(
        searched(number=0, **times),
        searched("dense", 1, **times | {"train_seconds": 0.5}),
        searched(number=2, state=schema.PRUNED, **times | {"train_seconds": 3.0}),
        searched(number=3, state=schema.FAILED, **dict.fromkeys(times)),
        searched(number=4, state=schema.DIVERGED, **times | {"compile_seconds": 0.0}),
        trial("conv"),
    ).trials
    assert search.search_progress(trials)["seconds"].tolist() == [13, 3.5, 19, 19, 31]
    spent = search.spent(trials)
    assert spent.loc["conv"].tolist() == [4, 1, 1, 31]
    assert spent.loc["dense"].tolist() == [1, 1, 0, 3.5]


@pytest.mark.parametrize(
    ("at_reference", "reference", "state"),
    [
        ({}, 0.03, schema.COMPLETED),
        (without_value(schema.DIVERGED), None, schema.DIVERGED),
        ({"batch_size": 64}, None, ""),
        ({"momentum": 0.4}, None, ""),
        ({"latent_filters": 16}, None, ""),
    ],
)
def test_tuning_is_measured_by_the_references_setting(at_reference, reference, state):
    run = run_of_trials(searched(mse=0.03, **at_reference), searched("conv", 1, 0.01, momentum=0.9))
    (found,) = search.tuned(run, ["conv", "dense"])
    assert (found.reference, found.state, found.spread) == (reference, state, None)
    assert (found.model, found.best) == ("conv", 0.01)


def test_the_gain_of_tuning_is_beside_the_spread_over_seeds():
    known = neighbour_trials("conv", {"learning_rate": {2.0: 0.5}}, n_seeds=3)
    run = run_of_trials(searched(mse=0.03), *known)
    (found,) = search.tuned(run, ["conv"])
    assert found.spread == pytest.approx(0.01, rel=0.01)
    said = text_of(run, "search")
    assert "(validation MSE 0.0300): no other search trial completed." in said


def test_winners_know_what_they_were_chosen_by():
    run = run_of_trials(
        searched("dense", 0, 0.03, **TUNED),
        searched("dense", 1, 0.01),
        searched("dense", 2, 0.01, hidden_units=256, **TUNED),
        *(winner("dense", seed, 0.02) for seed in range(2)),
        *lost([winner("dense", 2, 0.02)], schema.FAILED),
        trial("dense"),
    )
    (one,) = winners.winners(run)
    assert one.by_seed().index.tolist() == [0, 1]
    chosen, finalist = winners.chosen_by(run, one)
    assert (chosen.mean, chosen.n, finalist) == (0.03, 1, None)
    alone = run_of_trials(winner("conv", 0, 0.02))
    assert winners.chosen_by(alone, winners.winners(alone)[0]) == (None, None)
    assert "no completed reference trial to compare with" in text_of(alone, "search")


def test_a_winner_is_beside_the_reference_of_its_size():
    sizes = [trial("dense", size, seed) for size in (256, 512) for seed in range(3)]
    run = run_of_trials(*sizes, *(winner("dense", s, 0.004, hidden_units=256) for s in range(3)))
    assert "|dense-256: 0.00505 ± 0.00005 (n = 3)\n" in text_of(run, "search")
    other = run_of_trials(*sizes, winner("dense", 0, 0.004, hidden_units=77))
    assert "|dense-512: 0.00424 ± 0.00004 (n = 3)\n" in text_of(other, "search")


@pytest.mark.parametrize(
    ("conv", "dense", "sentence"),
    [
        ([0.01, 0.01, 0.01], [0.005, 0.01, 0.02], "no more than chance; a fresh run has less"),
        ([0.004, 0.0041], [0.01, 0.01], "a chance of 16 to 100 % (2 of 2 pairs)."),
        ([0.004], [0.01], "conv has 0.40 times dense's test MSE (n = 1 seed): one seed cannot"),
        ([], [0.01], ""),
    ],
)
def test_who_is_ahead_tuned(conv, dense, sentence):
    found = [winner("conv", seed, mse) for seed, mse in enumerate(conv)]
    found += [winner("dense", seed, mse) for seed, mse in enumerate(dense)]
    said = winners.tuned_sentence(run_of_trials(*found))
    assert sentence in said
    assert bool(said) == bool(sentence)


@pytest.mark.parametrize(
    ("n_sharing", "told"), [((1.0, 1.0), False), ((1.0, 1.8), "1 of 2 shared the device")]
)
def test_the_searchs_times_are_those_of_trials_that_may_have_shared_the_device(n_sharing, told):
    trials = [searched("dense", i, n_sharing=n) for i, n in enumerate(n_sharing)]
    text = text_of(run_of_trials(*trials, trial("dense", n_sharing=1.0)), "search")
    assert "What the search of dense took and found" in text
    assert ("Device time: the sum over the search trials" in text) == bool(told)
    assert not told or told in text


@pytest.mark.parametrize(
    ("trials", "sentences"),
    [
        ([], ["No search trials in this run."]),
        (
            [*lost(search_trials("conv", 3)), trial("dense")],
            [
                "The search has no trials of dense: nothing compares tuned architectures.",
                "No search trial of conv completed: it has no best setting.",
            ],
        ),
        (
            search_trials("conv", 1),
            [
                "One search trial of conv completed: the best for want of others.",
                "No completed winner of conv: its tuned test MSE is not known.",
                "No finalists of conv: its winner is the best search trial, of one seed.",
            ],
        ),
    ],
)
def test_gaps_of_the_search_are_said(trials, sentences):
    run = run_of_trials(*trials, spec=MANIFEST["spec"] | {"n_finalists": 3})
    text = text_of(run, "search")
    for sentence in sentences:
        assert f"gap: {sentence}" in text


STATES = st.sampled_from(schema.STATES)
VALUES = st.floats(1e-3, 0.1)
ENDS = st.lists(st.tuples(STATES, VALUES), max_size=4)


@settings(max_examples=25, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys((schema.SEARCH, schema.FINALIST, "w"), ENDS)))
def test_whatever_became_of_the_trials_no_sentence_lacks_its_n_or_says_nan(ends):
    found = []
    for model in schema.MODELS:
        for group, of_group in ends.items():
            group = schema.WINNER if group == "w" else group
            for number, (state, mse) in enumerate(of_group):
                changes = {} if state == schema.COMPLETED else without_value(state)
                setting = {"learning_rate": 0.5 + number} if group == schema.SEARCH else TUNED
                its = {"trial_id": f"{group}-{model}-{number}", "group": group, **setting}
                found.append(trial(model, seed=number, mse=[0.06, mse], **its | changes))
    found += finalist_trials("conv", {"reference": ({}, [0.01, 0.02])})
    for sentence in lines(screen(*found)):
        assert not re.search(r"\bnan\b|\bNone\b|\binf\b", sentence)
        for judged in re.findall(r"has [\d.]+ times [^.:]*MSE \(([^)]*)\): ([^.;]*)[.;]", sentence):
            bounds, verdict = judged
            assert re.search(r"n = \d+ seed", bounds)
            assert ("95 % interval" in bounds) == (verdict != "one seed cannot tell")


def test_the_pareto_front_is_what_nothing_dominates():
    points = np.array([[1, 5], [2, 4], [2, 5], [3, 4], [4, 1], [4, 1], [5, 1]], dtype=float)
    expected = [True, True, False, False, True, True, False]
    assert pareto.pareto_front(points).tolist() == expected
    order = [6, 3, 0, 5, 2, 4, 1]
    assert pareto.pareto_front(points[order]).tolist() == [expected[i] for i in order]
    assert pareto.pareto_front(np.empty((0, 2))).tolist() == []


def test_fronts_are_of_completed_trials_on_one_device():
    trials = [
        searched(trial_id="slow", mse=0.01, train_seconds=100.0),
        searched(trial_id="fast", mse=0.03, train_seconds=50.0),
        searched(trial_id="beaten", mse=0.04, train_seconds=60.0),
        searched("dense", trial_id="dense", mse=0.02, train_seconds=40.0),
        searched(trial_id="elsewhere", mse=0.001, train_seconds=1.0, device="GPU"),
        searched(trial_id="unknown", mse=0.001, train_seconds=1.0, device=None),
        *lost([searched(trial_id="pruned", train_seconds=1.0)]),
    ]
    run = run_of_trials(*trials, spec=TIMED)
    found = pareto.pareto_trials(run).set_index("trial_id")
    assert "pruned" not in found.index
    assert set(found.index[~found["comparable"]]) == {"elsewhere", "unknown"}
    assert set(found.index[found["on_own_front"]]) == {"slow", "fast", "dense"}
    assert set(found.index[found["on_joint_front"]]) == {"slow", "dense"}
    agrees("pareto", text_of(run, "pareto"))
    assert pareto.chapter(run_of_trials(*trials)) == {"timed": False}
    without = text_of(run_of_trials(searched(device=None), spec=TIMED), "pareto")
    assert "gap: No completed search trial with a known device: no Pareto front." in without


def test_the_sampler_and_its_budget_stand_in_the_sentence_that_says_tuned():
    spec = MANIFEST["spec"] | {"sampler": "gp"}
    rows = [*(searched("conv", i) for i in range(3)), *(searched("dense", i) for i in range(3))]
    won = [winner("conv", 0, 0.01), winner("dense", 0, 0.005)]
    said = screen(*rows, *won, spec=spec, question="Q?")
    assert "Tuned by gp with 3 trials of each model, conv has 2.0 times dense" in said
    uneven = winners.how_tuned(run_of_trials(*rows[1:], spec=spec))
    assert uneven == "Tuned by gp with 2 to 3 trials of each model"
    assert winners.how_tuned(run_of_trials(*won)) == "Tuned"


def test_repeated_searches_tell_how_often_each_model_wins_and_by_how_much():
    conv, dense = [0.02, 0.03, 0.02, 0.01], [0.01, 0.01, 0.01, 0.02]
    rows = [
        searched(model, 10 * seed + i, mse + i / 100, seed=seed)
        for model, values in (("conv", conv), ("dense", dense))
        for seed, mse in enumerate(values)
        for i in range(2)
    ]
    pair = frame.ratio_over_seeds(*(frame.pd.Series(values) for values in (conv, dense)))
    said = search.over_searches(run_of_trials(*rows))
    assert "Of 4 searches, each with a seed of its own, conv wins 25 % and dense wins 75 %" in said
    assert f"is {pair.mean:.2f} times dense's" in said
    assert f"(95 % interval {pair.low:.3f} to {pair.high:.2f}, n = 4 searches)" in said
    run = run_of_trials(*rows, winner("conv", 0, 0.01), winner("dense", 0, 0.005))
    assert said in text_of(run, "search")
    assert "with 2 trials of each model in each of 4 searches" in text_of(run, "search")
    assert search.over_searches(run_of_trials(*rows[:2], *rows[8:10])) == ""
