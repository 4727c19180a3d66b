"""Models of a person's own, runs without the report's, and other images than MNIST."""

import json
from pathlib import Path

import numpy as np
import pytest
from pages import page_of, run_of_trials, section_of, text_of
from synthetic_runs import MANIFEST, finalist_trials, search_trials, tables, trial, write_run

from analysis import figures, statistics
from analysis.chapters import claims, curves, parameters, search, times, trials
from analysis.chapters.answer import QUESTION, answer
from analysis.chapters.settings import reference_in_search
from analysis.compare import main as compare
from analysis.page import unbroken
from analysis.report import title
from study.folder import schema

FASHION = {"name": "Fashion-MNIST", "source": "fashion.npz"}


def reference(*models: tuple[str, int], n: int = 2, n_epochs: int = 50) -> list:
    return [trial(model, size, seed, n_epochs) for model, size in models for seed in range(n)]


ALL = (("conv", 8), ("dense", 512), ("unet", 2))


def winner(model: str, size: int, mse: float, **changes):
    return trial(model, size, mse=[0.05, mse], group=schema.WINNER, **changes)


def test_a_name_tells_the_arguments_that_differ():
    one, _ = tables(*reference(("unet", 2)))
    assert set(statistics.with_names(one)["name"]) == {"unet"}
    two, _ = tables(*reference(("unet", 2), ("unet", 3)))
    assert statistics.names(statistics.reference_trials(two)) == [
        "unet (depth 2)",
        "unet (depth 3)",
    ]
    bare, _ = tables(trial("unet", 2), trial("unet", 2, arguments="{}", trial_id="bare"))
    assert sorted(statistics.with_names(bare)["name"]) == ["unet", "unet (depth 2, filters 8)"]


def test_the_reference_has_the_built_in_models_first_and_settings_of_their_own():
    changed = [(row | {"learning_rate": 0.1}, h) for row, h in reference(("attic", 2))]
    found = statistics.reference_trials(tables(*changed, *reference(*ALL))[0])
    assert statistics.names(found) == ["conv", "dense-512", "attic", "unet"]


def test_an_custom_model_is_a_row_a_curve_and_a_bar():
    run = run_of_trials(*reference(*ALL))
    assert "\nunet|2,000|2|" in text_of(claims.chapter(run))
    assert "unet 0.00362" in text_of(curves.chapter(run))
    bars = {(bar.source[:8], bar.name) for bar in times.bars(run)}
    assert bars == {("this run", "conv"), ("this run", "dense-512"), ("this run", "unet")} | {
        ("the repo", "conv"),
        ("the repo", "dense-512"),
    }
    its = curves.looks(statistics.names(run.reference), curves.custom_looks(run))
    assert len({look["color"] for look in its.values()}) == 3


def test_settings_of_one_model_have_colours_of_their_own():
    run = run_of_trials(*reference(*ALL, ("unet", 3), ("attic", 2)))
    its = curves.looks(statistics.names(run.reference), curves.custom_looks(run))
    assert len({look["color"] for look in its.values()}) == 5
    attic, unet = (figures.looks_of(["attic", "unet"])[model] for model in ("attic", "unet"))
    assert (its["attic"], its["unet (depth 2)"]) == (attic, unet)


def test_arguments_are_parameters_of_the_search():
    pairs = search_trials("unet", 30)
    pairs[1][0]["arguments"] = json.dumps({"depth": 1, "filters": 4})
    rows, _ = tables(*pairs)
    table = parameters.parameter_table(rows, "unet")
    given = [json.loads(text) for text in rows["arguments"]]
    assert table["filters"].tolist() == [one["filters"] for one in given]
    varied = ["depth", "filters", "batch_size", "learning_rate", "one_minus_momentum", "nesterov"]
    assert parameters.varied_parameters(table) == varied
    assert parameters.axis_of(table["depth"]) == "categories"  # 1, 2, 3
    assert parameters.axis_of(table["filters"]) == "log"  # 4 to 64
    assert parameters.axis_of(table["nesterov"]) == "categories"
    names = [f.name for f in parameters.chapter(run_of_trials(*search_trials("unet", 30))).figures]
    assert names == ["figure-slices-unet"]


def test_an_argument_that_was_not_always_given_has_no_place_then():
    pairs = search_trials("unet", 30, prune=False)
    pairs[0][0]["arguments"] = "{}"
    table = parameters.parameter_table(tables(*pairs)[0], "unet")
    assert np.isnan(parameters.places_of(table, "depth")[0])
    assert np.isfinite(parameters.places_of(table, "depth")[1:]).all()
    found = parameters.importances(tables(*pairs)[0], "unet")
    assert set(found["parameter"]) == set(parameters.varied_parameters(table))
    assert len(parameters.chapter(run_of_trials(*pairs)).figures) == 2


def test_an_argument_may_have_the_name_of_a_column():
    pairs = search_trials("unet", 4)
    for number, (row, _) in enumerate(pairs):
        row["arguments"] = json.dumps({"value": number, "learning_rate": number / 2})
    table = parameters.parameter_table(tables(*pairs)[0], "unet")
    assert table["value (argument)"].tolist() == [0, 1, 2, 3]
    assert table["learning_rate"].iloc[0] == 1.0


def test_fixed_parameters_are_skipped_and_other_numbers_have_an_axis():
    pairs = search_trials("dense", 30)
    for number, (row, _) in enumerate(pairs):
        row |= {"batch_size": 256, "hidden_units": 100 + 7 * number, "nesterov": True}
    table = parameters.parameter_table(tables(*pairs)[0], "dense")
    assert {"batch_size", "nesterov"}.isdisjoint(parameters.varied_parameters(table))
    assert parameters.axis_of(table["hidden_units"]) == "linear"  # 100 to 303
    text = text_of(parameters.chapter(run_of_trials(*pairs)))
    assert "The same in all: batch size 256, nesterov yes." in text


def test_the_reference_of_an_custom_model_is_found_in_its_search():
    pairs = [*reference(("unet", 2)), *search_trials("unet", 5)]
    found = reference_in_search(tables(*pairs)[0], "unet", 256)
    assert found["trial_id"].tolist() == ["search-unet-000"]
    assert reference_in_search(tables(*search_trials("unet", 5))[0], "unet", 256).empty
    assert "unet: " in text_of(search.chapter(run_of_trials(*pairs)))


def test_every_pair_of_tuned_models_is_compared():
    searches = [
        trial(model, size, group=schema.SEARCH, trial_id=f"search-{model}") for model, size in ALL
    ]
    won = [winner("conv", 8, 0.008), winner("dense", 512, 0.004), winner("unet", 2, 0.002)]
    text = text_of(search.chapter(run_of_trials(*searches, *won)))
    for pair, ratio in (
        ("conv ÷ dense", "2.00"),
        ("conv ÷ unet", "4.00"),
        ("dense ÷ unet", "2.00"),
    ):
        assert f"\n{pair}|–|" in text
        assert f"|{ratio} (n = 1, no interval)" in text
    assert "Tuned, unet's winner has 0.50 times the dense one's test MSE (n = 1 seed): unet" in text
    assert "Conv, dense and unet, each tuned" in text


def test_the_answer_beside_the_reports_names_the_best_of_all():
    run = run_of_trials(*reference(*ALL))
    found = answer(run)
    assert found.question == QUESTION
    # 0.0036 ÷ 0.0042
    said = "Of all, unet has the least test MSE, 0.00362 ± 0.00003 (n = 2 seeds), 0.86 times that"
    assert any(sentence.startswith(said) for sentence in found.sentences)
    assert title(run) == "Autoencoders on MNIST: conv, dense and unet"


def test_an_custom_model_alone_does_not_answer_the_reports_question():
    failed = [trial(*size, state=schema.FAILED) for size in ALL[:2]]
    found = answer(run_of_trials(*failed, *reference(("unet", 2))))
    assert (found.question, found.short) == (QUESTION, "This run cannot say.")


@pytest.mark.parametrize(
    ("pairs", "short", "sentence"),
    [
        (reference(("unet", 2), ("unet", 3)), "Unet (depth 3), at the reference setting.", "0.83"),
        (reference(("unet", 2)), "Unet: test MSE 0.00362.", "unet has a test MSE of 0.00362"),
        (reference(("conv", 8)), "Conv: test MSE 0.00904.", "conv has a test MSE of 0.00904"),
        (reference(("conv", 8), ("unet", 2)), "Unet, at the reference setting.", "0.40 times that"),
        (reference(("conv", 8), ("unet", 2), n=1), "One seed cannot tell.", "0.40 times that"),
        (search_trials("unet", 4), "A search alone.", "What it found is below."),
        ([winner("unet", 2, 0.002)], "No reference to compare with.", "Tuned, unet has a test MSE"),
        (
            finalist_trials("unet", {"000": ({}, [0.004, 0.005])}),
            "No reference to compare with.",
            "unet: no search trial completed.",
        ),
        ([trial("unet", 2, state=schema.FAILED)], "Nothing to compare yet.", ""),
    ],
)
def test_a_run_without_the_reports_models_says_what_came_out(
    tmp_path: Path, pairs, short, sentence
):
    run = run_of_trials(*pairs)
    found = answer(run)
    assert found.question != QUESTION
    assert found.short == short
    assert sentence in " ".join(found.sentences)
    judged = claims.judge_claims(run.reference, run.epochs)
    assert {c.verdict for c in judged if c.models != (schema.CONV,)} == {"not tested"}
    page_of(write_run(tmp_path / "run", *pairs))  # whole, whatever is missing


def test_claims_are_not_tested_on_other_images(tmp_path: Path):
    shown = [f"reference-{model}-{size}-0" for model, size in ALL]
    spec = MANIFEST["spec"] | {"preset": "mine", "readings": True}
    folder = write_run(tmp_path / "f", *reference(*ALL), shown=shown, data=FASHION, spec=spec)
    page = page_of(folder)
    section = section_of(page, "claims")
    assert section.count("The images are Fashion-MNIST, not MNIST") == 7
    assert "Of the report's 7 claims: 7 not tested." in section
    assert "|not reproduced|" not in section
    assert "<title>Autoencoders on Fashion-MNIST: conv, dense and unet: Study" in page
    assert "Which autoencoder has the least error on Fashion-MNIST?" in page
    assert "Images</dt><dd>Fashion-MNIST, not MNIST" in page
    assert 'id="readings"' not in page
    assert "The report: its figure" not in page
    assert "the report, after 50 epochs" not in page
    assert "digit" not in section_of(page, "reconstructions")
    assert "Preset or study file|mine" in section_of(page, "provenance")
    assert "Unet, at the reference setting." in page


def test_a_search_says_how_many_images_it_had():
    found, _ = tables(*search_trials("conv", 4))
    older = search.n_trials(found, MANIFEST)
    assert older.endswith("trained on 50,000 images, validated on 10,000")
    few = search.n_trials(found, {"data": FASHION | {"n_train": 121}}, "conv")
    assert few.endswith("trained on 100 images, validated on 21")


def test_mnist_need_not_be_named():
    named = run_of_trials(*reference(*ALL[:2]), data=MANIFEST["data"] | {"name": "MNIST"})
    older = run_of_trials(*reference(*ALL[:2]))
    assert answer(named) == answer(older)
    assert text_of(claims.chapter(named)) == text_of(claims.chapter(older))


def test_arguments_are_words_in_the_table_of_all_trials():
    pairs = [*reference(("unet", 2)), *search_trials("unet", 3)]
    text = text_of(trials.chapter(run_of_trials(*pairs)))
    assert "|depth 2, filters 8|" in text
    assert '{"depth"' not in text


@pytest.mark.parametrize(
    "name", ["custom-unet-depth=2-s0", "finalist-conv-003-s1000", "winner-conv-s0"]
)
def test_ids_of_trials_stay_on_one_line(name):
    assert unbroken(f"see {name}, which") == f'see <span class="one">{name}</span>, which'


def test_runs_with_any_models_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pairs = [
        *reference(*ALL),
        *search_trials("unet", 3),
        *finalist_trials("unet", {"reference": ({}, [0.004, 0.005])}),
    ]
    spec = MANIFEST["spec"] | {"search": {"unet": {"depth": [1, 2]}}}
    runs = [
        write_run(tmp_path / "a", *pairs),
        write_run(tmp_path / "b", *pairs, spec=spec, data=FASHION),
    ]
    page = tmp_path / "compared.html"
    assert compare([*map(str, runs), "--page", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "unet (depth 2, filters 8) (reference" in printed
    assert "data.name" in printed
    assert page.exists()
