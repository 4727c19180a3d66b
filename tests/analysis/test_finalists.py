"""Finalists: what fresh seeds make of the search's first choice, and who wins."""

from typing import Any

import numpy as np
import pytest
from pages import run_of_trials, text_of
from scipy import stats
from synthetic_runs import MANIFEST, finalist_trials, tables, trial

from analysis import figures
from analysis.chapters import finalists, search, winners
from study.folder import schema

SPEC = MANIFEST["spec"] | {"batch_size": 256, "n_finalists": 2, "n_finalist_seeds": 3}
FAST, FASTER = {"learning_rate": 2.0}, {"learning_rate": 4.0, "latent_filters": 16}
FIRST, SECOND, REFERENCE = (
    [0.0060, 0.0062, 0.0064],
    [0.0055, 0.0056, 0.0057],
    [0.0070, 0.0072, 0.0071],
)


def searched(number: int, mse: float, **changes: Any):
    trial_id = f"search-conv-{number:03d}"
    changes = {"group": schema.SEARCH, "trial_id": trial_id} | changes
    return trial("conv", 8, mse=[0.06, mse], **changes)


SEARCH = (searched(0, 0.0060), searched(1, 0.0050, **FAST), searched(2, 0.0052, **FASTER))


def finals(first: Any = FIRST, second: Any = SECOND, reference: Any = REFERENCE):
    settings = {"001": (FAST, first), "002": (FASTER, second), "reference": ({}, reference)}
    return finalist_trials("conv", {k: v for k, v in settings.items() if v[1]})


def found_in(*pairs: Any) -> list[finalists.Finalist]:
    return finalists.finalists(tables(*pairs)[0], 256)


def said(*pairs: Any, **manifest: Any) -> str:
    return text_of(search.chapter(run_of_trials(*pairs, spec=SPEC, **manifest)))


def test_finalists_are_found_again_in_the_search_by_their_setting():
    shuffled = [row | {"trial_id": f"finalist-{n}"} for n, (row, _) in enumerate(finals())]
    found = found_in(*SEARCH, *((row, []) for row in shuffled))
    assert [(one.searched, one.rank, one.is_reference) for one in found] == [
        (0.0052, 2, False),
        (0.0050, 1, False),
        (0.0060, 3, True),
    ]
    assert [one.mean.mean for one in found] == pytest.approx([0.0056, 0.0062, 0.0071])
    assert [one.mean.n for one in found] == [3, 3, 3]


def test_the_winner_is_the_least_mean_and_the_first_choice_falls():
    text = said(*SEARCH, *finals())
    assert "conv: the search's first choice had a validation MSE of 0.00500 with its one" in text
    assert "has 0.00620 ± 0.00020 with 3 fresh seeds, 1.24 times as much: the winner's c" in text
    assert "The winner is another setting, the 2nd in the search: 0.00560 ± 0.00010, n = 3" in text
    ours = np.log(SECOND) - np.log(REFERENCE)
    low, high = np.exp(stats.ttest_1samp(ours, 0).confidence_interval(0.95))
    assert (
        f"It has {np.exp(ours.mean()):.2f} times the reference setting's validation MSE"
        f" (95 % interval {low:.2f} to {high:.2f}, n = 3 seeds, paired): better, beyond chance."
    ) in text
    assert "\nconv, 2nd in the search: the winner|conv, 16 latent filters: batch size 256" in text
    # 0.0056 ± t(0.975, 2) · 0.0001 / √3
    assert "|0.00520 (2nd)|0.00560 ± 0.00010|0.00535 to 0.00585|3|–" in text
    assert "Did tuning beat the report's setting?" not in text


def test_a_setting_that_lost_a_seed_loses():
    found = found_in(*SEARCH, *finals(second=[0.0055, None, 0.0057]))
    assert found[-1].lost == {1001: "diverged"}
    assert finalists.winner_among(found).rank == 1
    text = said(*SEARCH, *finals(second=[0.0055, None, 0.0057]))
    assert "It is the winner." in text
    assert "\nconv, 2nd in the search|" in text
    assert "|2|seed 1001 diverged" in text


def test_a_collapsed_seed_is_named_and_counts():
    (one,) = found_in(*SEARCH, *finals([0.0060, 0.0670, 0.0062], [], []))
    assert one.collapsed == [1001]
    assert one.mean.mean == pytest.approx((0.0060 + 0.0670 + 0.0062) / 3)
    assert one.troubles == "seed 1001 collapsed (0.0670)"


def test_the_reference_may_win():
    text = said(*SEARCH, *finals(reference=[0.0050, 0.0051, 0.0052]))
    assert "The winner is the reference setting (0.00510 ± 0.00010, n = 3 seeds): nothing" in text


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (finals([0.006], [0.0055], [0.007]), "(n = 1 seed): one seed cannot tell it from chance."),
        (finals([None], [None], [None]), "No finalist completed: there is no winner by them."),
        (finals(FIRST, [], []), "Whether it beats the reference setting is not known"),
        (finals([], SECOND, []), "the search's first choice, 0.00500 with one seed, has no fin"),
        (finals(reference=[0.0030, 0.0070, 0.0200]), "n = 3 seeds, paired): no more than chance."),
        (finals([0.0045], [0.0055], []), "0.900 times as much: no winner's curse here"),
        (finals([0.0060, 0.0061, 0.0062], [], []), "1.22 times as much: the winner's curse."),
        (finals([0.0040, 0.0061, 0.0082], [], []), "times as much: the winner's curse, or chance"),
    ],
)
def test_incomplete_finalists_have_honest_sentences(pairs, sentence):
    assert sentence in said(*SEARCH, *pairs)


def test_finalists_that_run_may_change_the_winner():
    pairs = finals()
    pairs[0] = (pairs[0][0] | {"state": schema.RUNNING, schema.VAL_MSE: None}, [])
    assert "Not every finalist has ended: the winner may change." in said(*SEARCH, *pairs)
    none = [(row | {"state": schema.RUNNING, schema.VAL_MSE: None}, []) for row, _ in pairs]
    text = said(*none)
    assert (
        "conv: no search trial completed. No finalist completed: there is no winner by them."
        in text
    )


def test_an_asked_for_final_that_did_not_take_place_is_a_gap():
    run = run_of_trials(*SEARCH, spec=SPEC)
    gap = "No finalists of conv: its winner is the best search trial, of one seed."
    assert gap in search.chapter(run).gaps
    older = run_of_trials(*SEARCH)
    assert gap not in search.chapter(older).gaps


def test_a_winner_is_known_by_its_finalists_mean():
    won = [trial("conv", 16, s, mse=[0.05, 0.005], group=schema.WINNER, **FASTER) for s in (0, 1)]
    old = trial("conv", 8, 0, mse=[0.05, 0.009], group=schema.WINNER, trial_id="old", **FAST)
    trials, _ = tables(*SEARCH, *finals(FIRST[:1], SECOND, REFERENCE), *won, old)
    rows = winners.winner_trials(trials).set_index("trial_id")
    assert rows.loc["winner-conv-16-0", "chosen_by_val_mse"] == pytest.approx(0.0056)
    assert rows.loc["winner-conv-16-0", "chosen_by_n"] == 3
    its = winners.winner_of(winners.winner_trials(trials), "conv")
    assert set(its["trial_id"]) == {"winner-conv-16-0", "winner-conv-16-1"}
    text = said(*SEARCH, *finals(), *won, old)
    assert "|2|0.00560 ± 0.00010 (n = 3 fresh seeds)|" in text
    assert "The finalist with the least mean validation MSE of each model, trained again" in text
    assert "least of several trials, with one seed" not in text
    assert "least of several trials, with one seed" in said(*SEARCH, *won)


def test_a_winner_of_the_search_alone_does_not_come_before_a_finalist():
    lucky = trial("conv", 8, 0, mse=[0.05, 0.009], group=schema.WINNER, trial_id="old", **FAST)
    won = trial("conv", 16, 0, mse=[0.05, 0.005], group=schema.WINNER, **FASTER)
    trials, _ = tables(*SEARCH, *finals([], SECOND, []), won, lucky)
    its = winners.winner_of(winners.winner_trials(trials), "conv")  # though 0.0050 < 0.0056
    assert its["trial_id"].tolist() == ["winner-conv-16-0"]


def test_a_winner_that_is_not_the_best_finalist_is_a_gap():
    gap = "The winner of conv that was tested is not the best finalist's setting."
    best = trial("conv", 16, 0, mse=[0.05, 0.005], group=schema.WINNER, **FASTER)
    other = trial("conv", 8, 0, mse=[0.05, 0.009], group=schema.WINNER, **FAST)
    assert gap in search.chapter(run_of_trials(*SEARCH, *finals(), other)).gaps
    assert gap not in search.chapter(run_of_trials(*SEARCH, *finals(), other, best)).gaps


def test_the_figure_has_a_dot_a_seed_and_the_means():
    with figures.style():
        _, ax = figures.new_figure()
        finalists.plot_finalists(found_in(*SEARCH, *finals()), ax, figures.LOOKS)
    drawn = {line.get_marker(): [] for line in ax.get_lines()}
    for line in ax.get_lines():
        drawn[line.get_marker()] += list(np.asarray(line.get_xdata(), dtype=float))
    assert drawn["|"] == pytest.approx([0.0056, 0.0062, 0.0071])
    assert sorted(drawn["o"]) == pytest.approx(
        sorted([*FIRST, *SECOND, *REFERENCE, 0.0050, 0.0052, 0.0060])
    )
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize(("n", "words"), [(1, "1st"), (2, "2nd"), (11, "11th"), (23, "23rd")])
def test_places_in_words(n, words):
    assert finalists.ordinal(n) == words
