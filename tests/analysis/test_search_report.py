"""The search, the neighbours and the fronts: what their chapters say, and what they lack."""

from pathlib import Path
from typing import Any

import pytest
from pages import page_of, run_of_trials, section_of, text_of
from synthetic_runs import MANIFEST, neighbour_trials, search_trials, trial
from synthetic_runs import tables as run_tables

from analysis.chapters import parameters, pareto, search, sensitivity
from analysis.chapters.parameters import MIN_COMPLETED
from study.folder import schema

TIMED = MANIFEST["spec"] | {"objective": schema.MSE_AND_TIME}


def changed(pairs, **changes: Any):
    """The trials with other values in their rows."""
    return [(row | changes, history) for row, history in pairs]


def searched(model: str, size: int, number: int, mse: float, **changes: Any):
    named = {"trial_id": f"search-{model}-{number}"} | changes
    return trial(model, size, mse=[0.05, mse], group=schema.SEARCH, **named)


def search_text(*pairs, **manifest: Any) -> str:
    """The chapter on the search as text."""
    return text_of(search.chapter(run_of_trials(*pairs, **manifest)))


def winner(model: str, size: int, seed: int, mse: float):
    setting = {"learning_rate": 0.25, "momentum": 0.9, "batch_size": 64}
    return trial(model, size, seed, mse=[0.05, 0.04, mse], group=schema.WINNER, **setting)


def test_winners_of_one_seed_are_beside_the_reference_without_a_verdict():
    chosen = trial("conv", 16, mse=[0.0055] * 3, group=schema.SEARCH, learning_rate=0.5)
    found = trial("conv", 16, mse=[0.005] * 3, group=schema.WINNER, learning_rate=0.5)
    text = search_text(trial("conv", 8), trial("dense", 512), chosen, found)
    setting = "batch size 256, learning rate 0.5, momentum 0.5, nesterov yes"
    cells = [setting, "1", "0.00550", "0.00510", "0.00500", "conv: 0.00900 (n = 1)"]
    assert "\nconv, 16 latent filters|" + "|".join(cells) + "\n" in text
    assert "One seed has no spread: a difference may be chance" in text


def test_winners_of_several_seeds_have_a_spread():
    seeds = range(3)
    trials = [
        *(trial("dense", size, seed) for size in (256, 512) for seed in seeds),
        *(winner("dense", 256, seed, 0.004 + 0.0001 * seed) for seed in seeds),
    ]
    text = search_text(*trials)
    assert "batch size 64, hidden activation relu, dropout 0, learning rate 0.25" in text
    assert "nesterov yes|3|–|" in text  # no search trial to be found
    assert "0.00410 ± 0.00010" in text
    assert "dense-256: 0.00505 ± 0.00005 (n = 3)" in text
    assert "One seed" not in text
    assert "may be chance" in text


def test_winners_without_a_reference_are_compared_with_nothing():
    text = search_text(winner("conv", 8, 0, 0.004))
    assert "no completed reference trial to compare with" in text


def test_without_winners_there_is_no_table_of_them():
    assert "Winners" not in search_text(searched("conv", 8, 0, 0.02))


def test_architectures_are_compared_at_their_budgets():
    seconds = {"train_seconds": 10.0, "eval_seconds": 1.0, "compile_seconds": 1.0}
    trials = [
        *(searched("conv", 8, number, 0.02, **seconds) for number in range(2)),
        searched("dense", 512, 0, 0.02, **seconds),
        searched("dense", 512, 1, 0.02, **seconds, state=schema.PRUNED),
        *(winner("conv", 8, seed, 0.008) for seed in range(3)),
        *(winner("dense", 512, seed, 0.004 * 1.01**seed) for seed in range(3)),
    ]
    text = search_text(*trials)
    assert "\nconv|2, 2 completed|24|conv|3|0.00800" in text
    assert "\ndense|2, 1 completed|24|dense-512|3|0.00404 ± 0.00004" in text
    # 1 / (0.5 · 1.01), and t(0.975, 2) · ln 1.01 / √3 about it.
    assert "conv ÷ dense|–|1.00|–|3|1.98 (95 % interval 1.93 to 2.03, n = 3)" in text
    assert "Equal budgets: 2 search trials each" in text
    said = "conv's winner has 2.0 times the dense one's test MSE (95 % interval 1.9 to 2.0, n = 3"
    assert f"Tuned, {said} seeds): dense is ahead." in text


@pytest.mark.parametrize(
    ("n_sharing", "told"), [((1.0, 1.0), False), ((1.0, 1.8), "1 of 2 shared the device")]
)
def test_the_searchs_times_are_those_of_trials_that_may_have_shared_the_device(n_sharing, told):
    trials = [searched("dense", 512, i, 0.02, n_sharing=n) for i, n in enumerate(n_sharing)]
    text = search_text(*trials, trial("dense", 512, n_sharing=1.0))
    assert "What the search of dense took and found" in text
    assert ("Device time: the sum over the search trials" in text) == bool(told)
    assert not told or told in text


@pytest.mark.parametrize(
    ("conv", "dense", "sentence"),
    [
        ([0.01, 0.01, 0.01], [0.005, 0.01, 0.02], "seeds): who is ahead is undecided."),
        ([0.004, 0.0041], [0.01, 0.01], "seeds): conv is ahead."),
        ([0.004], [0.01], "test MSE (n = 1 seed): conv is ahead, unless by chance."),
        ([], [0.01], "The run has no winners of both to compare."),
    ],
)
def test_who_is_ahead(conv, dense, sentence):
    trials = [searched("conv", 8, 0, 0.02), searched("dense", 512, 0, 0.02)]
    trials += [winner("conv", 8, seed, mse) for seed, mse in enumerate(conv)]
    trials += [winner("dense", 512, seed, mse) for seed, mse in enumerate(dense)]
    assert sentence in search_text(*trials)


@pytest.mark.parametrize(
    ("best", "at_reference", "sentence"),
    [
        (0.01, {}, "conv: tuning beat the reference's setting in the search: the best of 2"),
        (0.01, {}, "0.0100, is 0.333 times its validation MSE 0.0300. One seed each: how much"),
        (0.04, {}, "did not beat the reference's setting (validation MSE 0.0300): none of 1 other"),
        (0.03, {}, "did not beat the reference's setting (validation MSE 0.0300): none of 1 other"),
        (0.01, {"state": schema.DIVERGED}, "with the reference's setting is diverged; the best"),
        (0.01, {"batch_size": 64}, "no search trial has the reference's setting; the best of 2"),
    ],
)
def test_whether_tuning_beat_the_reference(best, at_reference, sentence):
    trials, _ = run_tables(
        searched("conv", 8, 0, 0.03, **at_reference), searched("conv", 8, 1, best, momentum=0.9)
    )
    (said,) = search.tuning_sentences(trials, 256, {})
    assert sentence in said


def test_the_references_batch_size_is_the_runs():
    pairs = [searched("conv", 8, 0, 0.03, batch_size=64)]
    text = search_text(*pairs, spec=MANIFEST["spec"] | {"batch_size": 64})
    assert "conv: tuning did not beat the reference's setting (validation MSE 0.0300)" in text
    assert "The run does not record the batch size" in search_text(*pairs)


def test_the_gain_of_tuning_is_beside_the_spread_over_seeds():
    trials, _ = run_tables(
        searched("conv", 8, 0, 0.03),
        searched("conv", 8, 1, 0.01, momentum=0.9),
        *neighbour_trials("conv", {"learning_rate": {2.0: 0.5}}, n_seeds=3),
    )
    (said,) = search.tuning_sentences(trials, 256, sensitivity.relative_spreads(trials))
    assert said.endswith("One seed each; the reference's varies by 1.0 % over seeds (sd).")


@pytest.mark.parametrize(
    ("trials", "sentences"),
    [
        ([], ["No search trials in this run.", "No neighbour trials: how sensitive"]),
        (
            changed(search_trials("conv", 3), state=schema.PRUNED),
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
            ],
        ),
        (
            changed(neighbour_trials("conv", {"learning_rate": {2.0: 0.5}}), split="full"),
            ["10 neighbour trials trained on all images", "No neighbour trials of conv on the"],
        ),
        (
            changed(neighbour_trials("conv", {"learning_rate": {2.0: 0.5}}), state="failed"),
            ["The unchanged reference among the neighbours of conv has not completed"],
        ),
    ],
)
def test_gaps_of_the_search_are_said(trials, sentences):
    run = run_of_trials(*trials)
    gaps = "\n".join([*search.chapter(run).gaps, *sensitivity.chapter(run).gaps])
    for sentence in sentences:
        assert sentence in gaps


def test_the_page_has_the_gaps(small_run: Path):
    assert "No search trials in this run." in section_of(page_of(small_run), "gaps")


def test_importances_need_enough_completed_trials():
    pairs = changed(search_trials("conv", MIN_COMPLETED, prune=False), state=schema.COMPLETED)
    pairs = [(row | {schema.VAL_MSE: row["learning_rate"]}, history) for row, history in pairs]
    text = text_of(parameters.chapter(run_of_trials(*pairs)))
    assert "conv: importance of each parameter" in text
    assert "Optuna's default evaluator, PED-ANOVA" in text
    assert f"n = {MIN_COMPLETED} completed trials, one seed each" in text
    assert "Pruned, diverged and failed trials are not in it" in text
    said = f"No parameter importances of conv: {MIN_COMPLETED - 1} completed search trials, of at"
    assert said not in text
    assert said in text_of(parameters.chapter(run_of_trials(*pairs[:-1])))


def test_the_neighbours_have_a_table_and_a_figure():
    ratios = {"learning_rate": {2.0: 0.5, 4.0: None}, "nesterov": {False: 1.0}}
    trials = [*neighbour_trials("conv", ratios, 3), *neighbour_trials("dense", ratios, 1)]
    text = text_of(sensitivity.chapter(run_of_trials(*trials)))
    conv, dense = text.split("Neighbours of the dense reference")
    assert "\nthe reference|1: 0.00909 ± 0.00009 (n = 3)|sd ÷ mean 1.0 %|–\n" in conv
    assert "\nlearning rate 2|0.500 (95 % interval 0.500 to 0.500, n = 3)|yes|–\n" in conv
    assert "\nlearning rate 4|–|–|3 diverged\n" in conv
    assert "\nnesterov no|1.00 (95 % interval 1.00 to 1.00, n = 3)|no|–\n" in conv
    assert "\nlearning rate 2|0.500 (n = 1, no interval)|–|–\n" in dense
    assert all(f"{model}: one factor of the reference" in text for model in schema.MODELS)


def test_the_pareto_front_is_of_timed_searches_alone():
    trials = [
        searched("conv", 8, 0, 0.02, train_seconds=5.0),
        searched("conv", 8, 1, 0.03, train_seconds=6.0),
        searched("conv", 8, 2, 0.001, train_seconds=1.0, device="GPU"),
        searched("dense", 512, 0, 0.01, train_seconds=7.0, trial_id="d"),
    ]
    assert pareto.chapter(run_of_trials(*trials)).parts == ()
    chapter = pareto.chapter(run_of_trials(*trials, spec=TIMED))
    text = text_of(chapter)
    assert "Each had its device to itself, so that times compare" in text
    assert "\nsearch-conv-0|conv|5.00|0.0200|conv and both|" in text
    assert "\nd|dense-512|7.00|0.0100|dense and both|" in text
    assert "search-conv-1|conv|6.00" not in text
    assert "On another device or an unknown one: search-conv-2." in text
    assert [figure.name for figure in chapter.figures] == [pareto.PARETO]


def test_a_timed_search_without_a_device_has_no_front():
    chapter = pareto.chapter(run_of_trials(searched("conv", 8, 0, 0.02, device=None), spec=TIMED))
    assert chapter.figures == []
    assert "no Pareto front" in chapter.gaps[0]
