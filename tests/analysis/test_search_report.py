"""The page on the search and the neighbours: what it says, and what it says is missing."""

import re
from pathlib import Path
from typing import Any

import pytest
from analysis.search import tables
from analysis.search.drawings import draw_search
from analysis.search.importances import MIN_COMPLETED
from analysis.search.section import search_gaps, search_section
from pages import page_of, section_of
from synthetic_runs import MANIFEST, neighbour_trials, search_trials, trial, write_run
from synthetic_runs import tables as run_tables

from analysis.statistics import reference_trials
from study.folder import schema

TIMED = MANIFEST["spec"] | {"objective": schema.MSE_AND_TIME}


def changed(pairs, **changes: Any):
    """The trials with other values in their rows."""
    return [(row | changes, history) for row, history in pairs]


def searched(model: str, size: int, number: int, mse: float, **changes: Any):
    named = {"trial_id": f"search-{model}-{number}"} | changes
    return trial(model, size, mse=[0.05, mse], group=schema.SEARCH, **named)


def search_text(*pairs, **manifest: Any) -> str:
    """The page's section on the search as plain text, without drawing its figures."""
    trials, _ = run_tables(*pairs)
    reference = reference_trials(trials)
    return section_of(search_section(MANIFEST | manifest, trials, reference, ()), "Search")


def winner(model: str, size: int, seed: int, mse: float):
    setting = {"learning_rate": 0.25, "momentum": 0.9, "batch_size": 64}
    return trial(model, size, seed, mse=[0.05, 0.04, mse], group=schema.WINNER, **setting)


def test_winners_of_one_seed_are_beside_the_reference_without_a_verdict():
    chosen = trial("conv", 16, mse=[0.0055] * 3, group=schema.SEARCH, learning_rate=0.5)
    found = trial("conv", 16, mse=[0.005] * 3, group=schema.WINNER, learning_rate=0.5)
    text = search_text(trial("conv", 8), trial("dense", 512), chosen, found)
    row = text[text.index("|conv, 16 latent filters||", text.index("Winners")) :]
    setting = "epochs 3, batch size 256, learning rate 0.500, momentum 0.500, nesterov yes"
    cells = [setting, "1", "0.00550", "0.00510", "0.00500", "conv: 0.00900 (n = 1)"]
    assert row.startswith("|conv, 16 latent filters||" + "||".join(cells) + "|")
    assert "One seed has no spread" in row
    assert "The reference was not tuned; it has batch size 256, dense hidden" in row


def test_winners_of_several_seeds_have_a_spread():
    seeds = range(3)
    trials = [
        *(trial("dense", size, seed) for size in (256, 512) for seed in seeds),
        *(winner("dense", 256, seed, 0.004 + 0.0001 * seed) for seed in seeds),
    ]
    text = search_text(*trials)
    assert "hidden activation relu, dropout 0.00||3||–||" in text  # no search trial to be found
    assert "0.00410 ± 0.00010" in text
    assert re.search(r"\|dense-256\|: 0\.00505 ± 0\.00005 \(n = 3\)", text)
    assert "One seed" not in text
    assert "may be chance" in text


def test_winners_without_a_reference_are_compared_with_nothing():
    text = search_text(winner("conv", 8, 0, 0.004))
    assert "no completed reference trial to compare with" in text


def test_without_winners_there_is_no_table_of_them():
    assert "|Winners|" not in search_text(searched("conv", 8, 0, 0.02))


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
    assert "|conv||2, 2 completed||24||conv||3||0.00800|" in text
    assert "|dense||2, 1 completed||24|||dense-512|||3||0.00404 ± 0.00004|" in text
    # 0.5 · 1.01, and t(0.975, 2) · ln 1.01 / √3 about it.
    assert "|dense ÷ conv||–||1.00||–||3||0.505 (95 % interval 0.493 to 0.518, n = 3)|" in text
    assert "Equal budgets: 2 search trials each" in text
    assert "Tuned, dense is ahead on the test set: the interval of the ratio excludes 1." in text


@pytest.mark.parametrize(
    ("conv", "dense", "sentence"),
    [
        ([0.01, 0.01, 0.01], [0.005, 0.01, 0.02], "is undecided: the interval contains 1"),
        ([0.004, 0.0041], [0.01, 0.01], "Tuned, conv is ahead"),
        ([0.004], [0.01], "With one seed conv's winner has the lower test MSE; whether"),
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
    (said,) = tables.tuning_sentences(trials, 256)
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
    (said,) = tables.tuning_sentences(trials, 256)
    assert said.endswith("the reference's varies by 1.0 % (standard deviation).")


@pytest.mark.parametrize(
    ("trials", "sentences"),
    [
        ([], ["No search trials in this run.", "No neighbour trials: how sensitive"]),
        (
            changed(search_trials("conv", 3), state=schema.PRUNED),
            [
                "The search has no trials of dense: nothing compares tuned architectures.",
                "No search trial of conv completed: it has no best setting and no winner.",
            ],
        ),
        (
            search_trials("conv", 1),
            [
                "One search trial of conv completed: it is the best for want of others.",
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
    gaps = "\n".join(search_gaps(run_tables(*trials)[0]))
    for sentence in sentences:
        assert sentence in gaps


def test_the_page_has_the_gaps(small_run: Path):
    assert "No search trials in this run." in section_of(page_of(small_run), "Gaps")


def test_importances_need_enough_completed_trials(tmp_path: Path):
    pairs = changed(search_trials("conv", MIN_COMPLETED, prune=False), state=schema.COMPLETED)
    pairs = [(row | {schema.VAL_MSE: row["learning_rate"]}, history) for row, history in pairs]
    page = page_of(write_run(tmp_path, *pairs))
    assert "Figure 8, conv" in page
    assert "Optuna&#x27;s default evaluator, PED-ANOVA" in page
    assert f"n = {MIN_COMPLETED} completed trials, one seed each" in page
    assert "Pruned, diverged and failed trials are not in it" in page
    said = f"No parameter importances of conv: {MIN_COMPLETED - 1} completed search trials, of at"
    assert said in search_text(*pairs[:-1])
    assert said not in page


def test_the_neighbours_have_a_table(tmp_path: Path):
    ratios = {"learning_rate": {2.0: 0.5, 4.0: None}, "nesterov": {False: 1.0}}
    trials = [*neighbour_trials("conv", ratios, 3), *neighbour_trials("dense", ratios, 1)]
    page = page_of(write_run(tmp_path, *trials))
    text = section_of(page, "Sensitivity: one factor changed at a time")
    conv, dense = text.split("Neighbours of the dense reference")
    assert "|the reference||1: 0.00909 ± 0.00009 (n = 3)||sd ÷ mean 1.0 %||–|" in conv
    assert "|learning rate 2||0.500 (95 % interval 0.500 to 0.500, n = 3)||yes||–|" in conv
    assert "|learning rate 4||–||–||3 diverged|" in conv
    assert "|nesterov no||1.00 (95 % interval 1.00 to 1.00, n = 3)||no||–|" in conv
    assert "|learning rate 2||0.500 (n = 1, no interval)||–||–|" in dense
    assert all(f"Figure 11, {model}" in page for model in schema.MODELS)


def test_the_pareto_front_is_of_timed_searches_alone(tmp_path: Path):
    trials = [
        searched("conv", 8, 0, 0.02, train_seconds=5.0),
        searched("conv", 8, 1, 0.03, train_seconds=6.0),
        searched("conv", 8, 2, 0.001, train_seconds=1.0, device="GPU"),
        searched("dense", 512, 0, 0.01, train_seconds=7.0, trial_id="d"),
    ]
    assert "Accuracy against training time" not in search_text(*trials)
    assert not any(
        "pareto" in drawing.name for drawing in draw_search(MANIFEST, run_tables(*trials)[0])
    )
    page = page_of(write_run(tmp_path, *trials, spec=TIMED))
    text = section_of(page, "Search")
    assert "Trials ran one at a time on a device, so that times compare" in page
    assert "|search-conv-0||conv||5.00||0.0200||conv and both|" in text
    assert "|d|||dense-512|||7.00||0.0100||dense and both|" in text
    assert "search-conv-1||conv||6.00" not in text
    assert "Not comparable, as on another device or an unknown one: search-conv-2." in text
    assert (tmp_path / "report" / "figure-12-pareto.png").exists()


def test_a_timed_search_without_a_device_has_no_front():
    pairs = [searched("conv", 8, 0, 0.02, device=None)]
    assert "no Pareto front" in search_text(*pairs, spec=TIMED)
    drawings = draw_search(MANIFEST | {"spec": TIMED}, run_tables(*pairs)[0])
    assert drawings
    assert not any("pareto" in drawing.name for drawing in drawings)
