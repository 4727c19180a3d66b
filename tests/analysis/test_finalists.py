"""Finalists: what fresh seeds make of the search's first choice, and who wins."""

from typing import Any

import pytest
from pages import chapter_of, run_of_trials, screen, text_of
from rows import Trial
from synthetic_runs import MANIFEST, finalist_trials, searched, winner

from analysis.chapters import finalists, winners
from analysis.load import Run
from analysis.page.text import lines
from study.folder import schema

FAST, FASTER = {"learning_rate": 2.0}, {"learning_rate": 4.0, "latent_filters": 16}
FIRST, SECOND = [0.0060, 0.0062, 0.0064], [0.0055, 0.0056, 0.0057]
REFERENCE = [0.0070, 0.0072, 0.0071]
BOTH = {"conv": [0.0200, 0.0202, 0.0204], "dense": [0.0100, 0.0102, 0.0101]}


SEARCH = (
    searched(mse=0.0060),
    searched("conv", 1, 0.0050, **FAST),
    searched("conv", 2, 0.0052, **FASTER),
)


def finals(first: Any = FIRST, second: Any = SECOND, reference: Any = REFERENCE) -> list[Trial]:
    settings = {"001": (FAST, first), "002": (FASTER, second), "reference": ({}, reference)}
    return finalist_trials("conv", {k: v for k, v in settings.items() if v[1]})


def run_of(*pairs: Trial) -> Run:
    return run_of_trials(*SEARCH, *pairs, spec=MANIFEST["spec"] | {"n_finalists": 2})


def test_finalists_are_found_again_in_the_search_by_their_setting():
    run = run_of(*finals())
    found, promised = finalists.by_model(run)["conv"], finalists.promised(run)
    assert [promised[one.label] for one in found] == [(0.0052, 2), (0.0050, 1), (0.0060, 3)]
    assert [one.is_reference for one in found] == [False, False, True]
    assert [one.mean().mean for one in found] == pytest.approx([0.0056, 0.0062, 0.0071])


def test_a_setting_that_lost_a_seed_loses():
    found = finalists.by_model(run_of(*finals(second=[0.0055, None, 0.0057])))["conv"]
    assert found[-1].lost == {1001: schema.DIVERGED}
    assert finalists.winner_among(found).value("learning_rate") == 2


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (finals(), "1.24 times as much: the winner's curse. The winner is another setting, 2nd in"),
        (finals(), "0.79 times the reference setting's validation MSE (95 % interval 0.76 to 0.8"),
        (finals(second=[0.0055, None, 0.0057]), "It is the winner."),
        (finals([0.0060, 0.0670, 0.0062], [], []), "the winner's curse, or chance: no more than"),
        (finals([0.0060, 0.0670, 0.0062], [], []), "collapsed (0.0670), mean of the others 0.0061"),
        (finals(reference=[0.0050, 0.0051, 0.0052]), "winner is the reference setting (0.00510 ±"),
        (finals([0.006], [0.0055], [0.007]), "(n = 1 seed): one seed cannot tell."),
        (finals([None], [None], [None]), "No finalist completed: there is no winner by them."),
        (finals(FIRST, [], []), "Whether it beats the reference setting is not known"),
        (finals([], SECOND, []), "the search's first choice, 0.00500 with one seed, has no fin"),
        (finals(reference=[0.0030, 0.0070, 0.0200]), "n = 3 seeds): no more than chance; a fresh"),
        (finals([0.0045], [0.0055], []), "0.900 times as much: no winner's curse here"),
        (finals([0.0060, 0.0061, 0.0062], [], []), "1.22 times as much: the winner's curse."),
        (
            [(row | {"state": schema.RUNNING, schema.VAL_MSE: None}, []) for row, _ in finals()[:1]]
            + finals()[1:],
            "Not every finalist has ended: the winner may change.",
        ),
    ],
)
def test_every_outcome_has_its_sentence(pairs, sentence):
    spec = MANIFEST["spec"] | {"n_finalists": 2}
    assert sentence in "\n".join(lines(screen(*SEARCH, *pairs, spec=spec)))


def test_a_winner_is_known_by_its_finalists_mean():
    won = [winner("conv", seed, 0.005, **FASTER) for seed in (0, 1)]
    lucky = winner("conv", 0, 0.009, trial_id="old", **FAST)
    run = run_of(*finals(FIRST[:1], SECOND, REFERENCE), *won, lucky)
    first, second = winners.winners(run)  # though 0.0050 < 0.0056
    assert winners.by_model(run) == {"conv": first}
    chosen, fresh = winners.chosen_by(run, first)
    assert (chosen.mean, chosen.n, fresh.lost) == (pytest.approx(0.0056), 3, {})
    assert "|0.00560 ± 0.00010 (n = 3 fresh seeds)|" in text_of(run, "search")
    alone = run_of(*finals([], SECOND, []), *won, lucky)
    assert winners.by_model(alone)["conv"].label == first.label
    assert winners.chosen_by(alone, winners.winners(alone)[1])[0].n == 1
    assert second.label == winners.winners(alone)[1].label


def test_a_winner_that_is_not_the_best_finalist_is_a_gap():
    gap = "The winner of conv that was tested is not the best finalist's setting."
    best = winner("conv", 0, 0.005, **FASTER)
    other = winner("conv", 0, 0.009, trial_id="other", **FAST)
    chapter, book = chapter_of(run_of(*finals(), other), "search")
    assert gap in chapter.gaps
    assert finalists.FIGURE in book.figures
    assert gap not in chapter_of(run_of(*finals(), other, best), "search")[0].gaps


def test_the_figure_has_a_mark_a_seed_the_means_and_what_the_search_had():
    points = finalists.drawing(run_of(*finals())).points
    read = sorted(float(x) for one in points for x in one.x)
    means, promised = [0.0056, 0.0062, 0.0071], [0.0050, 0.0052, 0.0060]
    assert read == pytest.approx(sorted([*FIRST, *SECOND, *REFERENCE, *means, *promised]))
    assert finalists.drawing(run_of(*finals([None], [None], [None]))) is None


def test_tuned_models_are_compared_over_fresh_seeds_too():
    ours, theirs = (finalist_trials(m, {"000": ({}, mse)}) for m, mse in BOTH.items())
    run = run_of(*ours, *theirs, winner("conv", 0, 0.02), winner("dense", 0, 0.01))
    said = winners.tuned_sentence(run)
    assert "conv has 2.0 times dense's test MSE (n = 1 seed)" in said
    assert (
        "Over fresh seeds of the chosen settings conv has 2.0 times dense's validation MSE (95 %"
        in said
    )
    assert "n = 3 seeds): higher, beyond chance" in said
