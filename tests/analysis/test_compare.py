"""Comparing runs: what is compared with what, the intervals, and what the output says."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from golden import agrees
from rows import Trial, trial
from synthetic_runs import MANIFEST, write_run

from analysis.compare import compare, differences, main, read_runs, values
from analysis.settings import welch_ratio
from study.folder import schema


def conv(last_mse: float, seed: int = 0, **changes: Any) -> Trial:
    return trial("conv", seed=seed, mse=[0.05, last_mse], **changes)


@pytest.fixture
def write(tmp_path: Path):
    """Writes runs A, B, … from lists of trials; returns their folders."""

    def write_all(*runs: list, manifests: tuple[dict, ...] = ()) -> list[str]:
        manifests = manifests or ({},) * len(runs)
        return [
            str(write_run(tmp_path / label, *trials, **manifest))
            for label, trials, manifest in zip("ABC", runs, manifests, strict=False)
        ]

    return write_all


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs the command in 80 columns; returns what it prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> str:
        assert main(arguments) == 0
        return capsys.readouterr().out

    return run


def row_of(folders: list[str], run: str = "B", metric: str = schema.TEST_MSE) -> pd.Series:
    rows = compare(read_runs(folders))
    found = rows[(rows["run"] == run) & (rows["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def test_shared_seeds_are_paired(write):
    ours = [conv(0.001, 0), conv(0.004, 1), conv(0.009, 7)]
    row = row_of(write(ours, [conv(0.032, 1), conv(0.002, 0), conv(0.03, 9)]))
    # Ratios 2 and 8: logs ln 2 and 3 ln 2, sd √2 ln 2; t(0.975, 1) = 12.7062.
    assert (row["n"], row["n_shared_seeds"], row["ratio_to"]) == (3, 2, "A")
    assert row["interval"] == "paired t"
    assert row["ratio"] == pytest.approx(4)
    assert row["ratio_high"] == pytest.approx(4 * 2**12.7062, rel=1e-4)
    assert row["ratio_low"] == pytest.approx(4 / 2**12.7062, rel=1e-4)


def test_means_are_over_the_seeds_of_each_run(write):
    row = row_of(write([conv(0.01)], [conv(0.01, 0), conv(0.02, 1), conv(0.03, 2)]))
    # t(0.975, 2) = 4.30265.
    assert (row["mean"], row["sd"], row["n"]) == (pytest.approx(0.02), pytest.approx(0.01), 3)
    assert row["high"] - row["mean"] == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-5)
    assert (row["ratio"], row["n_shared_seeds"]) == (pytest.approx(1), 1)
    assert pd.isna(row["interval"])
    assert pd.isna(row["ratio_low"])


def test_without_a_shared_seed_the_interval_is_welchs(write):
    bottom, top = {0: 0.01, 1: 0.02, 2: 0.04}, {10: 0.01, 11: 0.03}
    row = row_of(write(*([conv(mse, seed) for seed, mse in of.items()] for of in (bottom, top))))
    expected = welch_ratio(pd.Series(top), pd.Series(bottom))
    assert (row["n_shared_seeds"], row["interval"]) == (0, "Welch t")
    found = row[["ratio", "ratio_low", "ratio_high"]].tolist()
    assert found == pytest.approx([expected.mean, expected.low, expected.high])


@pytest.mark.parametrize(
    "changes",
    [
        {"state": schema.DIVERGED},
        {"state": schema.FAILED},
        {"state": schema.PRUNED},
        {"state": schema.RUNNING},
        {"batch_size": 64},
        {"momentum": 0.9},
        {"epochs": 50},
        {"split": schema.SEARCH_SPLIT},
        {"latent_filters": 16},
    ],
)
def test_only_completed_trials_of_the_same_setting_are_compared(write, changes: dict):
    folders = write([conv(0.01)], [conv(0.03), conv(0.07, 1, **changes)])
    row = row_of(folders)
    assert (row["n"], row["mean"]) == (1, pytest.approx(0.03))
    assert compare(read_runs(write([conv(0.01)], [conv(0.03, **changes)]))).empty


def test_a_setting_is_the_same_whatever_it_was_trained_for(write):
    winners = [conv(0.03, group=schema.WINNER), conv(0.05)]
    row = row_of(write([conv(0.01)], winners))
    assert row["groups"] == "reference, winner"
    # Both have seed 0: one seed, with their mean.
    assert (row["n"], row["mean"], row["ratio"]) == (1, pytest.approx(0.04), pytest.approx(4))


def test_ratios_are_to_the_first_run_that_has_the_setting(write):
    dense = [trial("dense", mse=[0.01])]
    both = [conv(0.03), trial("dense", mse=[0.04])]
    rows = compare(read_runs(write([conv(0.01)], dense, both)))
    ratios = rows[(rows["metric"] == schema.TEST_MSE) & rows["ratio"].notna()]
    assert ratios[["name", "run", "ratio_to"]].to_numpy().tolist() == [
        ["conv", "C", "A"],
        ["dense-512", "C", "B"],
    ]
    assert ratios["ratio"].tolist() == pytest.approx([3, 4])


def test_metrics_are_those_that_were_measured(write):
    search = conv(0.02, group=schema.SEARCH)
    rows = compare(read_runs(write([conv(0.01), search], [conv(0.01), search])))
    by_split = rows[rows["run"] == "A"].groupby("split")["metric"].agg(list)
    assert by_split["full"] == ["train_mse", "test_mse", "train_seconds"]
    assert by_split["search"] == ["train_mse", "val_mse", "train_seconds"]


def test_a_metric_that_the_first_run_lacks_has_no_ratio(write, output):
    folders = write([conv(0.01, test_mse=None)], [conv(0.03)])
    row = row_of(folders)
    assert (row["n"], row["mean"]) == (1, pytest.approx(0.03))
    assert pd.isna(row["ratio"])
    assert "test_mse A – 0 B 0.0300 1 – train_seconds" in in_one_line(output(*folders))


def test_differences_are_the_differing_keys(write):
    other = {
        "hardware": MANIFEST["hardware"] | {"gpus": ["NVIDIA H100"], "n_cpus": 16},
        "versions": {"python": "3.11.7"},
        "spec": MANIFEST["spec"] | {"seed": None},
    }
    runs = read_runs(
        write([conv(0.01)], [conv(0.01, device="GPU")], [conv(0.01)], manifests=({}, other, {}))
    )
    assert differences(runs) == {
        "device": {"CPU, 1 thread: AMD EPYC": ["A", "C"], "GPU": ["B"]},
        "hardware.n_cpus": {"2": ["A", "C"], "16": ["B"]},
        "hardware.gpus": {"none": ["A", "C"], "NVIDIA H100": ["B"]},
        "versions.tensorflow": {"2.21.0": ["A", "C"], "not recorded": ["B"]},
        "spec.seed": {"not recorded": ["A", "C"], "–": ["B"]},
    }
    assert differences([runs[0], runs[2]]) == {}


def test_a_part_that_one_run_has_and_another_has_not_is_told_once(write):
    lag = {"resources": MANIFEST["resources"] | {"search_lag": {"conv": 2}}}
    none = {"resources": MANIFEST["resources"] | {"search_lag": None}}
    runs = read_runs(write([conv(0.01)], [conv(0.01)], manifests=(lag, none)))
    assert differences(runs) == {"resources.search_lag.conv": {"2": ["A"], "not recorded": ["B"]}}


@pytest.mark.parametrize(
    ("code", "versions", "words"),
    [
        ({}, {}, "here they do."),
        ({"git_dirty": True}, {}, "here that is not known"),
        ({"git_commit": None}, {}, "here that is not known"),
        ({}, {"tensorflow": "2.20.0"}, "here they do not in all runs"),
    ],
)
def test_pairing_says_whether_code_and_versions_agree(write, output, code, versions, words):
    changed = {"code": MANIFEST["code"] | code}
    both = (changed, changed | {"versions": MANIFEST["versions"] | versions})
    text = in_one_line(output(*write([conv(0.01)], [conv(0.01)], manifests=both)))
    assert "only where their code and versions agree; " + words in text
    assert "cannot say" in text  # one seed


def test_rows_are_written_as_csv(write, output, tmp_path: Path):
    folders = write([conv(0.01)], [conv(0.03)])
    output(*folders, "--csv", str(tmp_path / "rows.csv"))
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["metric"].tolist() == [
        name for name in ("train_mse", "test_mse", "train_seconds") for _ in range(2)
    ]
    assert rows["folder"].tolist() == folders * 3
    assert rows.loc[3, "ratio"] == pytest.approx(3)
    assert rows.loc[3, "latent_filters"] == 8


def test_uris_and_names_with_brackets(write, output):
    first, second = write([conv(0.01)], [conv(0.01)])
    named = Path(second).rename(Path(second).with_name("[red]B"))
    text = output(Path(first).as_uri(), str(named))
    assert "file://" in text
    assert "[red]B" in text.replace("\n", "")


def test_bad_input_ends_with_2(write, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    *folders, torn = write(*[[conv(0.01)]] * 3)
    (Path(torn) / schema.MANIFEST_FILE).write_text(json.dumps(MANIFEST)[:-5])
    with pytest.raises(SystemExit, match="2"):
        main(folders[:1])
    assert "1 run folder given; give two to 26 of them." in capsys.readouterr().err
    for arguments, message in (
        ([folders[0], str(tmp_path / "nowhere")], "nowhere/study.json does not exist"),
        ([folders[0], torn], "study.json is not whole JSON"),
        ([*folders, "--csv", str(tmp_path / "no" / "rows.csv")], "rows.csv cannot be written"),
        ([*folders, "--page", str(tmp_path / "no" / "page.html")], "give another --page"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert message in captured.err


def test_the_output_in_80_columns(write, output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    slow = MANIFEST["resources"] | {"max_concurrent": 1}
    code = MANIFEST["code"] | {"git_commit": "0123456789" * 9}
    other = {"data": MANIFEST["data"] | {"sha256": {"train_images": "1"}}}
    ours = [conv(0.001 + 0.0001 * seed, seed) for seed in range(3)]
    theirs = [
        *(conv(0.002 + 0.0003 * seed, seed) for seed in range(3)),
        conv(0.05, 7, state=schema.PRUNED, group=schema.SEARCH),
        conv(0.05, 8, state=schema.DIVERGED),
        conv(0.01, 9, group=schema.SEARCH, trial_id="search-conv-009", momentum=0.9),
        trial("dense", 64, batch_size=1000, group=schema.NEIGHBOUR),
        trial("dense", 256, learning_rate=0.25, group=schema.SEARCH, trial_id="search-dense-007"),
    ]
    third = [conv(0.01, 10), conv(0.011, 11), theirs[5]]
    manifests = ({}, {"resources": slow, "code": code} | other, {})
    write(ours, theirs, third, manifests=manifests)
    file = tmp_path / "compared.html"
    text = output("A", "B", "C", "--page", str(file))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text  # nothing is cut off: the commit has 90 characters
    agrees("compare", text)
    page = file.read_text()
    assert "C ÷ A" in page
    assert "<svg" in page[: page.index("<nav")]
    assert page.count("<figure>") == 2
    assert "AMD EPYC, 2 CPUs" in page


@pytest.mark.parametrize(
    ("theirs", "short"),
    [
        ([conv(0.03)], (1, 0, 0)),
        ([trial("dense", 64)], (0, 0, 0)),
        ([conv(mse, seed) for seed, mse in enumerate((0.011, 0.011, 0.012))], (1, 0, 1)),
        ([conv(mse, seed) for seed, mse in enumerate((0.021, 0.025, 0.023))], (1, 1, 1)),
    ],
)
def test_how_many_ratios_are_beyond_chance(write, theirs, short):
    ours = [conv(mse, seed) for seed, mse in enumerate((0.010, 0.012, 0.011))]
    runs = read_runs(write(ours[: len(theirs)], theirs))
    said = values(runs, compare(runs), with_figures=False)
    assert (len(said["found"]), said["n_beyond"], said["n_with"]) == short


def test_runs_that_share_nothing(write, output):
    text = output(*write([conv(0.01)], [trial("dense", 64)], []))
    assert "two or more runs completed\nNone.\n" in text
    assert "only A completed\n- conv (reference, 1 seed)" in text
    assert "only B completed\n- dense-64 (reference, 1 seed)" in text
    assert "finished; 0 trials (only" in in_one_line(text)
