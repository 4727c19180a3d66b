"""The report: files, the page, and what it says of a run with gaps."""

import re
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

import pandas as pd
import pytest
from synthetic_runs import MANIFEST, trial, write_run

from analysis.load import RunFolderError
from analysis.report import main, write_report
from study import schema

FIGURES = (
    "figure-1-reconstructions",
    "figure-2-conv",
    "figure-3-training",
    "figure-4-test",
    "figure-5-times",
    "figure-6-search",
)


def page_of(folder: Path) -> str:
    return Path(write_report(folder)).read_text()


def test_a_quick_run_has_every_file(quick_run: Path):
    page = write_report(quick_run)
    assert page == f"{quick_run}/report/index.html"
    expected = {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    expected |= {"index.html", "summary.csv", "summary.md", "claims.csv"}
    assert {file.name for file in (quick_run / "report").iterdir()} == expected


def test_the_report_is_the_same_again(quick_run: Path):
    write_report(quick_run)
    first = {file.name: file.read_bytes() for file in (quick_run / "report").iterdir()}
    write_report(quick_run)
    assert {file.name: file.read_bytes() for file in (quick_run / "report").iterdir()} == first


def test_figures_without_data_are_removed(quick_run: Path):
    write_report(quick_run)
    write_run(quick_run, trial("conv", 8))
    write_report(quick_run)
    assert not (quick_run / "report" / "figure-6-search.svg").exists()


def test_ids_of_the_page_are_unique_and_found(quick_run: Path):
    page = page_of(quick_run)
    ids = re.findall(r'\bid="([^"]+)"', page)
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert len(ids) == len(set(ids))
    assert used
    assert set(used) <= set(ids)


def test_the_page_asks_for_nothing(quick_run: Path):
    page = page_of(quick_run)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)", page)


def test_every_figure_says_what_it_rests_on(quick_run: Path):
    page = page_of(quick_run)
    cards = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(cards) == len(FIGURES)
    for card in cards:
        assert 'role="img" aria-label="Figure' in card
        caption = card[card.index("<figcaption>") :]
        assert "batch size" in caption
        assert "decoder's third convolution" in caption.replace("&#x27;", "'")
        assert "CPU, 1 thread: AMD EPYC" in caption
        assert "TensorFlow 2.21.0" in caption
    assert all("n = 1 seed" in card or "one seed" in card for card in cards)


def test_texts_are_escaped(quick_run: Path):
    page = page_of(quick_run)
    assert "RuntimeError: out of &lt;memory&gt; &amp; more" in page
    assert "<memory>" not in page
    write_run(quick_run, trial("conv", 8), name="<b>x", command=["python", "a b", "<i>"])
    page = page_of(quick_run)
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


def section_of(page: str, title: str) -> str:
    """A section of the page as plain text."""
    found = re.search(rf"<h2>{escape(title)}</h2>(.*?)</section>", page, re.DOTALL)
    assert found
    return unescape(re.sub(r"<[^>]+>", "|", found[1])).replace("\N{NO-BREAK SPACE}", " ")


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


def winner(model: str, size: int, seed: int, mse: float):
    setting = {"learning_rate": 0.25, "momentum": 0.9, "batch_size": 64}
    return trial(model, size, seed, mse=[0.05, 0.04, mse], group=schema.WINNER, **setting)


def test_winners_of_one_seed_are_beside_the_reference_without_a_verdict(quick_run: Path):
    chosen = trial("conv", 16, mse=[0.0055] * 3, group=schema.SEARCH, learning_rate=0.5)
    found = trial("conv", 16, mse=[0.005] * 3, group=schema.WINNER, learning_rate=0.5)
    page = page_of(write_run(quick_run, trial("conv", 8), trial("dense", 512), chosen, found))
    text = section_of(page, "Search: best trials")
    row = text[text.index("|conv, 16 latent filters||", text.index("Winners")) :]
    setting = "epochs 3, batch size 256, learning rate 0.500, momentum 0.500, nesterov yes"
    cells = [setting, "1", "0.00550", "0.00510", "0.00500", "conv: 0.00900 (n = 1)"]
    assert row.startswith("|conv, 16 latent filters||" + "||".join(cells) + "|")
    assert "One seed has no spread" in row
    assert "The reference was not tuned; it has batch size 256, dense hidden" in row


def test_winners_of_several_seeds_have_a_spread(tmp_path: Path):
    seeds = range(3)
    trials = [
        *(trial("dense", size, seed) for size in (256, 512) for seed in seeds),
        *(winner("dense", 256, seed, 0.004 + 0.0001 * seed) for seed in seeds),
    ]
    text = section_of(page_of(write_run(tmp_path, *trials)), "Search: best trials")
    assert "hidden activation relu, dropout 0.00||3||–||" in text  # no search trial to be found
    assert "0.00410 ± 0.00010" in text
    assert re.search(r"\|dense-256\|: 0\.00505 ± 0\.00005 \(n = 3\)", text)
    assert "One seed" not in text
    assert "may be chance" in text


def test_winners_without_a_reference_are_compared_with_nothing(tmp_path: Path):
    page = page_of(write_run(tmp_path, winner("conv", 8, 0, 0.004)))
    assert "no completed reference trial to compare with" in page


def test_without_winners_there_is_no_table_of_them(quick_run: Path):
    assert "<h3>Winners</h3>" not in page_of(quick_run)


def test_a_uri_is_written_to(quick_run: Path):
    assert write_report(quick_run.as_uri()) == f"{quick_run.as_uri()}/report/index.html"
    assert (quick_run / "report" / "index.html").exists()


def test_the_command_prints_the_page(quick_run: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(quick_run)]) == 0
    assert capsys.readouterr().out == f"{quick_run}/report/index.html\n"


def test_a_folder_that_is_no_run_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "nowhere/study.json does not exist" in captured.err


def test_a_report_folder_that_cannot_be_written_is_named(quick_run: Path):
    (quick_run / schema.REPORT_FOLDER).write_text("in the way")
    with pytest.raises(RunFolderError, match="report cannot be written"):
        write_report(quick_run)


def test_the_analysis_needs_no_training_packages():
    code = (
        "import sys, analysis.report;"
        "print(*{name.split('.')[0] for name in sys.modules}"
        " & {'convae', 'ray', 'tensorflow', 'keras', 'optuna'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
