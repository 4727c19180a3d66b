"""The report: files, the page, and what it says of a run with gaps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import page_of, run_of_trials, section_of, text_of
from rows import trial, without_value
from synthetic_runs import MANIFEST, write_quick_run, write_run

from analysis import plots
from analysis.report import main, write_report
from study.folder import schema
from study.folder.storage import RunFolderError

FIGURES = (
    "figure-reconstructions",
    "figure-conv-mse",
    "figure-training-mse",
    "figure-test-mse",
    "figure-ratio-by-epoch",
    "figure-times",
    "figure-search",
    "figure-search-seconds",
    "figure-slices-conv",
    "figure-slices-dense",
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run with its report, which takes a moment; tests only read it."""
    folder = write_quick_run(tmp_path_factory.mktemp("reported") / "quick")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def reported_page(reported: Path) -> str:
    return (reported / "report" / "index.html").read_text()


def test_a_quick_run_has_every_file(reported: Path):
    expected = {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    expected |= {"index.html", "summary.csv", "claims.csv"}
    assert {file.name for file in (reported / "report").iterdir()} == expected


def test_figures_without_data_are_removed(small_run: Path):
    old = small_run / "report" / "figure-6-search.svg"
    old.parent.mkdir()
    old.touch()
    write_report(small_run)
    assert not old.exists()


def test_ids_of_the_page_are_unique_and_found(reported_page: str):
    page = reported_page
    ids = re.findall(r'\bid="([^"]+)"', page)
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert len(ids) == len(set(ids))
    assert used
    assert set(used) <= set(ids)


def test_the_page_asks_for_nothing(reported_page: str):
    page = reported_page
    scripts = re.findall(r"<script[^>]*>", page)  # its own, and what the figures' points are
    assert scripts.count("<script>") == 1
    assert set(scripts) == {"<script>", '<script type="application/json">'}
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)", page)


def test_what_holds_for_the_whole_page_is_said_once(reported_page: str):
    basis = reported_page.split('<dl class="basis">')[1].split("</dl>")[0]
    for said in (
        "CPU, 1 thread: AMD EPYC",
        "TensorFlow 2.21.0",
        "batch size 256, latent filters 8",
        "SGD with momentum (reference: learning rate 1, momentum 0.5, nesterov yes)",
    ):
        assert said in basis
    for caption in re.findall(r"<figcaption>.*?</figcaption>", reported_page, re.DOTALL):
        assert "AMD EPYC" not in caption
        assert "third convolution" not in caption
    cards = re.findall(r"<figure>.*?</figure>", reported_page, re.DOTALL)
    assert len(cards) == len(FIGURES) - 1  # the reconstructions are a table there
    assert all('role="img" aria-label="' in card for card in cards)


def test_the_files_of_a_figure_say_what_they_rest_on(small_run: Path):
    write_report(small_run)
    (file,) = (small_run / "report").glob("figure-conv-mse.svg")
    said = "".join(re.findall(r"<!-- (.*?) -->", file.read_text()))  # text as paths, named so
    for words in ("batch size 256", "third convolution", "AMD EPYC; TensorFlow 2.21.0"):
        assert words in said


def test_texts_are_escaped(reported_page: str, small_run: Path):
    assert "RuntimeError: out of &lt;memory&gt; &amp; more" in reported_page
    assert "<memory>" not in reported_page
    write_run(small_run, trial("conv", 8), name="<b>x", command=["python", "a b", "<i>"])
    page = page_of(small_run)
    assert "<b>x" not in page
    assert "python &#39;a b&#39; &#39;&lt;i&gt;&#39;" in page


def test_numbers_of_the_summary(tmp_path: Path):
    trials = [
        trial(model, size, seed)
        for model, size in (("conv", 8), ("dense", 512))
        for seed in range(3)
    ]
    folder = write_run(tmp_path, *trials)
    write_report(folder)
    summary = pd.read_csv(folder / "report" / "summary.csv").set_index("model")
    assert summary.loc["conv", "test_mse_mean"] == pytest.approx(0.009 * 1.01)
    assert summary.loc["conv", "test_mse_sd"] == pytest.approx(0.009 * 0.01)
    assert summary.loc["conv ÷ dense-512", "test_mse_mean"] == pytest.approx(0.009 / 0.0042)
    assert summary.loc["conv ÷ dense-512", "train_seconds_mean"] == pytest.approx(3.5)
    assert list(summary.index) == ["conv", "dense-512", "conv ÷ dense-512"]
    assert summary["n_seeds"].tolist() == [3, 3, 3]
    assert summary.loc["conv", "n_parameters"] == 4385
    words = section_of((folder / "report" / "index.html").read_text(), "claims")
    assert "|conv|4,385|3|0.00927 ± 0.00009|0.00909 ± 0.00009|21.2 ± 0.2|" in words
    assert "2.14 (95 % interval 2.14 to 2.14, n = 3)" in words
    claims = pd.read_csv(folder / "report" / "claims.csv")
    assert len(claims) == 7
    assert claims.loc[0, "n"] == 3
    measured = claims[claims["value"].notna()]
    assert measured["rests_on"].str.contains("batch size 256, latent filters 8, dense hidden").all()
    assert claims[claims["value"].isna()]["rests_on"].isna().all()
    assert claims.loc[0, "reason"] == "Trained for 3 epochs, the claim is about 50."


@pytest.mark.parametrize(
    ("trials", "manifest", "sentences"),
    [
        ([], {"status": "running", "wall_seconds": None}, ["is “running”", "trial of conv"]),
        ([trial("conv", 8)], {}, ["No completed reference trial of dense-512", "one seed"]),
        (
            [trial("dense", 512, n_epochs=1)],
            {},
            ["Trained for 1 epoch;", "No learning curve of conv"],
        ),
        (
            [trial("conv", 8), trial("conv", 8, 1, state="running", test_mse=None)],
            {"status": "interrupted"},
            ["1 trial not ended: in no average", "No reconstructions:", "No search trials"],
        ),
        (
            [trial("conv", 8), trial("conv", 8, 1, n_epochs=2)],
            {},
            ["1 completed reference trial left out of the averages"],
        ),
        (
            [trial("conv", 8, **without_value("diverged"))],
            {},
            ["1 trial diverged", "|diverged|The loss stopped being finite in epoch 2.|"],
        ),
    ],
)
def test_gaps_are_said(tmp_path: Path, trials, manifest, sentences):
    page = page_of(write_run(tmp_path, *trials, **manifest))
    said = section_of(page, "gaps") + section_of(page, "trials")
    for sentence in sentences:
        assert sentence in said


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({}, "Up to 2 trials trained at once and shared this machine: these are not times alone."),
        ({"max_concurrent": 16, "address": "auto"}, "trained at once and shared this cluster"),
        ({"max_concurrent": 4, "gpus_per_trial": 0.25}, "trained at once and shared a GPU"),
        ({"max_concurrent": 4, "gpus_per_trial": 1}, None),
        ({"max_concurrent": 1}, None),
    ],
)
def test_times_say_whether_a_device_was_shared(resources, words):
    run = run_of_trials(trial("conv", 8), resources=MANIFEST["resources"] | resources)
    text = text_of(run, "times")
    assert words in text if words else "at once" not in text


def test_times_say_which_programs_did_not_work_and_why():
    fallbacks = {"conv in 16 lanes of width 8, 256 images a step": "MemoryError"}
    resources = MANIFEST["resources"] | {"fallbacks": fallbacks}
    text = text_of(run_of_trials(trial("conv", 8), resources=resources), "times")
    assert "256 images a step did not work on this device (MemoryError): the plain trainer" in text
    assert "did not work" not in text_of(run_of_trials(trial("conv", 8)), "times")


def test_only_times_of_trials_that_were_alone_are_compared():
    alone, beside, dense = trial("conv", 8), trial("conv", 8, seed=1), trial("dense", 512)
    alone[0].update(n_sharing=1.0, train_seconds=28.0)
    beside[0].update(n_sharing=3.5, train_seconds=99.0)
    dense[0].update(n_sharing=1.0, train_seconds=10.0)
    run = run_of_trials(alone, beside, dense)
    text = text_of(run, "times")
    assert "the times of 2 reference trials with the device alone; 1 shared it" in text
    gap = "gap: No training times to compare: every reference trial shared its device."
    assert gap in text_of(run_of_trials(beside), "times")


def test_an_mse_of_exactly_0_has_no_ratio_and_the_page_is_whole(tmp_path: Path):
    """As of images of one grey, at the end or throughout; in each group."""
    dark, ends_dark, light = [0.0, 0.0], [0.05, 0.0], [0.05, 0.01]
    trials = [
        trial(model, seed=seed, mse=mse, group=group, trial_id=f"{group}-{model}-s{seed}")
        for group in (schema.REFERENCE, schema.SEARCH, schema.NEIGHBOUR, schema.FINALIST)
        for model, by_seed in {"conv": (dark, ends_dark, light), "dense": (dark, dark)}.items()
        for seed, mse in enumerate(by_seed)
    ]
    rates = {0.5: dark, 1.5: light, 2.0: dark}
    trials += [
        trial("dense", mse=mse, group=schema.CUSTOM, learning_rate=rate, trial_id=f"custom-{rate}")
        for rate, mse in rates.items()
    ]
    page = page_of(write_run(tmp_path, *trials))
    assert "the two models share no seed, or an MSE of theirs is exactly 0" in page
    assert "An MSE is exactly 0, as of images of one grey, in 18 trials" in page
    assert not re.search(r"\b(nan|inf)\b", re.sub("<script.*?</script>", "", page, flags=re.DOTALL))


def test_a_uri_is_written_to(small_run: Path):
    assert write_report(small_run.as_uri()) == f"{small_run.as_uri()}/report/index.html"
    assert (small_run / "report" / "index.html").exists()


def test_the_command_prints_the_page(small_run: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(small_run)]) == 0
    assert capsys.readouterr().out == f"{small_run}/report/index.html\n"


def test_a_folder_that_is_no_run_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "nowhere/study.json does not exist" in captured.err


def test_a_report_folder_that_cannot_be_written_is_named(small_run: Path):
    (small_run / schema.REPORT_FOLDER).write_text("in the way")
    with pytest.raises(RunFolderError, match="report cannot be used: Not a directory"):
        write_report(small_run)


def test_the_report_is_the_same_wherever_it_is_written(reported: Path, quick_run: Path):
    """Where nothing can train, without docstrings, under a person's settings of matplotlib."""
    (quick_run / "analysis").mkdir()  # a folder of theirs, in the working directory
    (quick_run / "matplotlibrc").write_text("text.usetex: True\naxes.facecolor: black\n")
    theirs = {
        **os.environ,
        "MPLBACKEND": "Qt4Agg",
        "PYTHONPATH": str(Path(plots.__file__).parents[1]),
    }
    blocked = dict.fromkeys(
        ("tensorflow", "keras", "ray", "optuna", "convae.training", "convae.models")
    )
    code = f"import sys; sys.modules.update({blocked}); import analysis.report as r; r.main()"
    command = [sys.executable, "-OO", "-W", "error", "-c", code, str(quick_run)]
    subprocess.run(command, capture_output=True, check=True, cwd=quick_run, env=theirs)
    first, again = (
        {file.name: file.read_bytes() for file in (folder / "report").iterdir()}
        for folder in (reported, quick_run)
    )
    assert first == again
