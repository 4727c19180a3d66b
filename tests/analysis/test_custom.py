"""Custom trials and custom models: beside their references, in tables, figures and words."""

from pathlib import Path

import numpy as np
import pytest
from golden import agrees
from pages import chapter_of, page_of, run_of_trials, section_of, text_of
from rows import Trial, trial
from synthetic_runs import MANIFEST, custom_trials, write_run

from analysis import plots
from analysis.chapters import curves, custom
from analysis.load import Run
from analysis.report import title
from study.folder import schema

REFERENCE = [trial(seed=seed, mse=[0.06, 0.03, 0.010]) for seed in range(3)]
RATES = {0.1: [0.030, 0.031, 0.029], 2.0: [0.008, 0.0082, None]}
ALL = (("conv", 8), ("dense", 512), ("unet", 2))
FASHION = {"name": "Fashion-MNIST", "n_train": 121, "source": "fashion.npz"}


def figures_of(run: Run) -> list[str]:
    return list(chapter_of(run, "custom")[1].figures)


def models(*some: tuple[str, int]) -> list[Trial]:
    return [trial(model, size, seed) for model, size in some for seed in range(2)]


def test_what_is_said_of_custom_trials_and_models():
    collapsed = {4.0: [0.114, 0.009, 0.114]}
    pairs = [
        *REFERENCE,
        *models(*ALL[1:], ("unet", 3)),
        *custom_trials("conv", "learning_rate", RATES | collapsed),
        *custom_trials("dense", "momentum", {0.9: [None]}),
    ]
    run = run_of_trials(*pairs)
    agrees("custom", "\n".join(text_of(run, key) for key in ("claims", "curves", "custom")))


def test_the_factor_has_the_references_value_among_its_own():
    run = run_of_trials(*REFERENCE, *custom_trials("conv", "learning_rate", RATES))
    found = run.of(schema.CUSTOM)
    assert custom.factor_of(found) == "learning_rate"
    rows = custom.factor_rows(found, "learning_rate")
    means = rows.groupby("value")["mse"].mean()
    assert means.to_dict() == pytest.approx({0.1: 0.030, 1.0: 0.010, 2.0: 0.0081})
    assert rows.loc[~rows["custom"], "value"].tolist() == [1.0] * 3
    assert figures_of(run) == [custom.FACTOR, custom.CURVES]


@pytest.mark.parametrize(
    "pairs",
    [
        custom_trials("dense", "hidden_activation", {"sigmoid": [0.01], "relu": [0.02]}),
        custom_trials("conv", "momentum", {0.1: [0.01], 0.2: [0.02]}),
        [
            *custom_trials("conv", "momentum", {0.1: [0.01], 0.2: [0.02], 0.3: [0.03]}),
            *custom_trials("conv", "learning_rate", {0.1: [0.01]}),
        ],
    ],
)
def test_without_one_number_of_three_values_there_is_no_such_figure(pairs: list[Trial]):
    run = run_of_trials(*pairs)
    assert custom.factor_of(run.of(schema.CUSTOM)) == ""
    assert figures_of(run) == [custom.CURVES]


def test_custom_trials_on_the_searchs_images_are_validated():
    pairs = custom_trials("conv", "momentum", {0.9: [0.02, 0.03]}, split=schema.SEARCH_SPLIT)
    beside = custom_trials("conv", "momentum", {0.5: [0.01, 0.01]}, split=schema.SEARCH_SPLIT)
    run = run_of_trials(*pairs, *beside, *REFERENCE)
    one = run.of(schema.CUSTOM)[0]
    assert one.ratio().mean == pytest.approx(np.sqrt(2 * 3))
    assert figures_of(run) == [f"{custom.CURVES}-validation"]
    assert "|Validation MSE|" in text_of(run, "custom")


def test_a_longer_training_is_another_setting_without_a_reference():
    longer = custom_trials("conv", "learning_rate", {2.0: [0.01]}, n_epochs=5)
    run = run_of_trials(*REFERENCE, *longer)
    (one,) = run.of(schema.CUSTOM)
    assert (custom.label(one), one.ratio()) == ("conv, learning rate 2, epochs 5", None)
    assert "gap: No completed reference trial of the same length" in text_of(run, "custom")


def test_of_many_settings_the_best_and_the_worst_are_drawn():
    ends = {round(0.1 * n, 1): [0.01 * n] for n in range(1, 13)}
    run = run_of_trials(*custom_trials("conv", "learning_rate", ends))
    text = text_of(run, "custom")
    assert "The best 5 and the worst 3 of 12 settings." in text
    looks = [plots.look_of(place) for place in range(10)]
    kinds = {(look["color"], str(look.get("linestyle", "-")), look["marker"]) for look in looks}
    assert len(kinds) == 10


def test_a_run_without_custom_trials_has_no_such_chapter():
    assert chapter_of(run_of_trials(*REFERENCE), "custom")[0].html == ""


def test_custom_models_have_colours_of_their_own():
    run = run_of_trials(*models(*ALL, ("unet", 3), ("attic", 2)))
    its = curves.looks(run)
    assert list(its) == ["conv", "dense-512", "attic", "unet", "unet depth=3"]
    assert len({look["color"] for look in its.values()}) == 5
    of_models = plots.looks_of(run.models)
    assert (its["attic"], its["unet"]) == (of_models["attic"], of_models["unet"])
    assert title(run) == "Autoencoders on MNIST: conv, dense, attic and unet"


def test_claims_are_not_tested_on_other_images(tmp_path: Path):
    shown = [f"reference-{model}-{size}-0" for model, size in ALL]
    spec = MANIFEST["spec"] | {"preset": "mine"}
    folder = write_run(tmp_path / "f", *models(*ALL), shown=shown, data=FASHION, spec=spec)
    page = page_of(folder)
    section = section_of(page, "claims")
    assert section.count("The images are Fashion-MNIST, not MNIST") == 7
    assert "Of the report's 7 claims: 7 not tested." in section
    assert "<title>Autoencoders on Fashion-MNIST: conv, dense and unet: Study" in page
    assert "Images</dt><dd>Fashion-MNIST, not MNIST" in page
    assert 'id="readings"' not in page
    assert "The report, figure" not in page
    assert "the report, after 50 epochs" not in page
    assert "digit" not in section_of(page, "reconstructions")


def test_a_builder_that_seeds_itself_is_told():
    custom = [{"name": "unet", "seeds_itself": True}, {"name": "other", "seeds_itself": False}]
    run = run_of_trials(trial("unet"), spec=MANIFEST["spec"] | {"custom_models": custom})
    told = [line for line in text_of(run, "custom").splitlines() if "with every seed" in line]
    assert len(told) == 1
    assert "initial weights of unet" in told[0]
