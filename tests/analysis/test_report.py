"""The report: files, the page, and what it says of a run with gaps."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import page_of, section_of
from synthetic_runs import MANIFEST, trial, write_quick_run, write_run

from analysis.load import RunFolderError
from analysis.report import main, write_report
from study.folder import schema

FIGURES = (
    "figure-1-reconstructions",
    "figure-2-conv",
    "figure-3-training",
    "figure-4-test",
    "figure-5-times",
    "figure-6-search",
    "figure-7-search-seconds",
    "figure-9-slices-conv",
    "figure-9-slices-dense",
    "figure-10-parallel-conv",
    "figure-10-parallel-dense",
    "figure-14-images-reference-conv-8-0",
    "figure-14-images-reference-dense-512-0",
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
    expected |= {"index.html", "summary.csv", "summary.md", "claims.csv"}
    assert {file.name for file in (reported / "report").iterdir()} == expected


def test_the_report_is_the_same_again(reported: Path, quick_run: Path):
    write_report(quick_run)
    first, again = (
        {file.name: file.read_bytes() for file in (folder / "report").iterdir()}
        for folder in (reported, quick_run)
    )
    assert first == again


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
    (script,) = re.findall(r"<script[^>]*>", page)  # its own, which sorts the table
    assert script == "<script>"
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)", page)


def test_every_figure_says_what_it_rests_on(reported_page: str):
    page = reported_page
    cards = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(cards) == len(FIGURES)
    for card in cards:
        assert 'role="img" aria-label="Figure' in card
        caption = card[card.index("<figcaption>") :]
        assert "batch size" in caption
        of_dense = re.search(r"Figure (?:9|10|14), dense", caption)
        assert ("decoder&#x27;s third" in caption) == (of_dense is None)
        assert "CPU, 1 thread: AMD EPYC" in caption
        assert "TensorFlow 2.21.0" in caption
    assert all("n = 1 seed" in card or "one seed" in card for card in cards)


def test_texts_are_escaped(reported_page: str, small_run: Path):
    assert "RuntimeError: out of &lt;memory&gt; &amp; more" in reported_page
    assert "<memory>" not in reported_page
    write_run(small_run, trial("conv", 8), name="<b>x", command=["python", "a b", "<i>"])
    page = page_of(small_run)
    assert "<b>x" not in page
    assert "python &#x27;a b&#x27; &#x27;&lt;i&gt;&#x27;" in page


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
    assert summary.loc["dense-512 ÷ conv", "test_mse_mean"] == pytest.approx(0.0042 / 0.009)
    markdown = (folder / "report" / "summary.md").read_text()
    assert "| conv | 4,385 | 3 | 0.00927 ± 0.00009 | 0.00909 ± 0.00009 | 21.2 ± 0.2 |" in markdown
    assert "0.467 (95 % interval 0.467 to 0.467, n = 3)" in markdown
    claims = pd.read_csv(folder / "report" / "claims.csv")
    assert len(claims) == 7
    assert claims.loc[0, "n"] == 3
    measured = claims[claims["value"].notna()]
    assert measured["rests_on"].str.contains("batch size 256, dense hidden activation relu").all()
    assert claims[claims["value"].isna()]["rests_on"].isna().all()
    assert claims.loc[0, "reason"] == "Trained for 3 epochs, the report's claim is about 50."


@pytest.mark.parametrize(
    ("trials", "manifest", "sentences"),
    [
        ([], {"status": "running", "wall_seconds": None}, ["is “running”", "trial of conv"]),
        ([trial("conv", 8)], {}, ["No completed reference trial of dense-512", "one seed"]),
        ([trial("dense", 512, n_epochs=1)], {}, ["Trained for 1 epoch;", "No data for figure 2"]),
        (
            [trial("conv", 8), trial("conv", 8, 1, state="running", test_mse=None)],
            {"status": "interrupted"},
            ["1 trial not ended: in no average", "Figure 1 is missing", "No search trials"],
        ),
        (
            [trial("conv", 8), trial("conv", 8, 1, batch_size=64)],
            {},
            ["1 completed reference trial left out of the averages"],
        ),
        (
            [trial("conv", 8, state="diverged", diverged_epoch=2, test_mse=None)],
            {},
            ["1 trial diverged", "The loss stopped being finite in epoch 2."],
        ),
    ],
)
def test_gaps_are_said(tmp_path: Path, trials, manifest, sentences):
    page = page_of(write_run(tmp_path, *trials, **manifest))
    for sentence in sentences:
        assert sentence in page


@pytest.mark.parametrize(
    ("n", "address", "words"),
    [
        (2, None, "evaluation; up to 2 trials trained at once on this machine; dots"),
        (16, "auto", "evaluation; up to 16 trials trained at once on this cluster; dots"),
        (1, None, "evaluation; dots"),
    ],
)
def test_times_say_how_many_trials_trained_at_once(tmp_path: Path, n, address, words):
    resources = MANIFEST["resources"] | {"max_concurrent": n, "address": address}
    page = page_of(write_run(tmp_path, trial("conv", 8), resources=resources))
    (card,) = [card for card in page.split("</figure>") if "<b>Figure 5" in card]
    assert words in card[card.index("<figcaption>") :]


def test_the_claims_say_which_readings_they_rest_on(tmp_path: Path):
    trials = [trial("conv", 8, batch_size=64), trial("dense", 512, batch_size=64)]
    claims = section_of(page_of(write_run(tmp_path, *trials)), "The report's claims")
    assert "batch size 64, dense hidden activation relu, dense dropout 0," in claims


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


def test_the_report_is_the_same_where_nothing_can_train(reported: Path, quick_run: Path):
    blocked = dict.fromkeys(
        ("tensorflow", "keras", "ray", "optuna", "convae.training", "convae.models")
    )
    code = f"import sys; sys.modules.update({blocked}); import analysis.report as r; r.main()"
    command = [sys.executable, "-W", "error", "-c", code, str(quick_run)]
    subprocess.run(command, capture_output=True, check=True)
    first, again = (
        {file.name: file.read_bytes() for file in (folder / "report").iterdir()}
        for folder in (reported, quick_run)
    )
    assert first == again


def test_the_analysis_needs_no_training_packages():
    code = (
        "import sys, analysis.report;"
        "print(*{name.split('.')[0] for name in sys.modules}"
        " & {'ray', 'tensorflow', 'keras', 'optuna'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
