"""Comparing runs: what is compared with what, the intervals, and what the output says."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import MANIFEST, Rows, trial, write_run

from analysis.chapters.comparison import answer, compare, differences
from analysis.compare import main, read_runs
from analysis.statistics import welch_ratio
from study.folder import schema


def conv(last_mse: float, seed: int = 0, **changes) -> tuple[dict, Rows]:
    return trial("conv", 8, seed, mse=[0.05, last_mse], **changes)


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
    top = [math.exp(log) / 1e4 for log in (1, 3)]
    bottom = [math.exp(log) / 1e4 for log in (0, 2, 4)]
    row = row_of(
        write(
            [conv(mse, seed) for seed, mse in enumerate(bottom)],
            [conv(mse, 10 + seed) for seed, mse in enumerate(top)],
        )
    )
    # Mean logs 2 and 2, variances of the means 2/2 and 4/3: degrees of freedom
    # (7/3)² / (1²/1 + (4/3)²/2) = 49/17; t(0.975, 49/17) = 3.25721.
    assert (row["n_shared_seeds"], row["interval"]) == (0, "Welch t")
    assert row["ratio"] == pytest.approx(1)
    assert math.log(row["ratio_high"]) == pytest.approx(3.25721 * math.sqrt(7 / 3), rel=1e-5)
    scipys = stats.ttest_ind([1, 3], [0, 2, 4], equal_var=False).confidence_interval(0.95)
    assert math.log(row["ratio_low"]) == pytest.approx(scipys.low)
    assert math.log(row["ratio_high"]) == pytest.approx(scipys.high)


def test_welchs_ratio_of_few_or_equal_values():
    one, two, none = pd.Series([4.0]), pd.Series([2.0, 2.0]), pd.Series([], dtype=float)
    ratio = welch_ratio(one, two)
    assert (ratio.mean, ratio.n, ratio.low) == (pytest.approx(2), 3, None)
    ratio = welch_ratio(2 * two, two)
    assert (ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(2))
    assert welch_ratio(one, none) is None


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
        {"split": "search"},
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
    dense = [trial("dense", 512, mse=[0.01])]
    both = [conv(0.03), trial("dense", 512, mse=[0.04])]
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
        "spec": {"preset": "quick", "epochs": 3, "seed": None},
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


def test_the_output_in_80_columns(write, output):
    slow = MANIFEST["resources"] | {"max_concurrent": 1}
    code = MANIFEST["code"] | {"git_commit": "0123456789" * 9}
    ours = [conv(0.001 + 0.0001 * seed, seed) for seed in range(3)]
    theirs = [
        *(conv(0.002 + 0.0002 * seed, seed) for seed in range(3)),
        conv(0.05, 7, state=schema.PRUNED, group=schema.SEARCH),
        conv(0.05, 8, state=schema.DIVERGED),
        trial("dense", 64, batch_size=1000, group=schema.NEIGHBOUR),
        trial("dense", 256, learning_rate=0.25, group=schema.SEARCH, trial_id="search-dense-007"),
    ]
    text = output(*write(ours, theirs, manifests=({}, {"resources": slow, "code": code})))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text  # nothing is cut off: the commit has 90 characters
    words = in_one_line(text)
    assert "finished; 7 trials: 5 completed, 1 pruned, 1 diverged (only completed" in words
    assert "resources.max_concurrent A 2 B 1" in words
    assert "A: Up to 2 trials trained at once and shared this machine" in words
    assert "B: Up to" not in words
    assert "test_mse A 0.00110 ± 0.00010 3 B 0.00220 ± 0.00020 3 2.000" in words
    assert "2.000 2.000 to 2.000 paired (3)" in words
    only = words[words.index("Settings that only B completed") :]
    assert "dense-64 (neighbour, 1 seed): hidden activation relu" in only
    assert "batch size 1000" in only
    assert only.endswith("search-dense-007")
    assert "Settings that only A" not in text


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


def test_the_output_names_welchs_interval(write, output):
    ours = [conv(0.001, 0), conv(0.002, 1)]
    text = in_one_line(output(*write(ours, [conv(0.001, 2), conv(0.004, 3)])))
    assert "Welch: the runs share no seed" in text
    assert "paired" not in text
    assert "cannot say" not in text


def test_survivors_of_a_scheduler_are_said_to_be(write, output):
    search = [conv(0.02, group=schema.SEARCH)]
    pruned = conv(0.05, 7, state=schema.PRUNED, group=schema.SEARCH)
    assert "it let finish" in in_one_line(output(*write([*search, pruned], search)))
    assert "it let finish" not in in_one_line(output(*write(search, search)))


def test_other_images_are_said_to_be_other_images(write, output):
    other = {"data": MANIFEST["data"] | {"sha256": {"train_images": "1"}}}
    text = output(*write([conv(0.01)], [conv(0.01)], manifests=({}, other)))
    assert "The runs' images differ" in in_one_line(text)


def test_runs_that_share_nothing(write, output):
    text = output(*write([conv(0.01)], [trial("dense", 64)], []))
    assert "two or more runs completed\nNone.\n" in text
    assert "only A completed\n- conv (reference, 1 seed)" in text
    assert "only B completed\n- dense-64 (reference, 1 seed)" in text
    assert "finished; 0 trials (only" in in_one_line(text)


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
    folders = write([conv(0.01)], [conv(0.01)])
    with pytest.raises(SystemExit, match="2"):
        main(folders[:1])
    assert "1 run folder given; give two to 26 of them." in capsys.readouterr().err
    for arguments, message in (
        ([folders[0], str(tmp_path / "nowhere")], "nowhere/study.json does not exist"),
        ([*folders, "--csv", str(tmp_path / "no" / "rows.csv")], "rows.csv cannot be written"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert message in captured.err


def test_a_torn_manifest_is_named(write, capsys: pytest.CaptureFixture[str]):
    folders = write([conv(0.01)], [conv(0.01)])
    (Path(folders[1]) / schema.MANIFEST_FILE).write_text(json.dumps(MANIFEST)[:-5])
    assert main(folders) == 2
    assert "study.json is not whole JSON" in capsys.readouterr().err


def page(folders: list[str], tmp_path: Path) -> str:
    file = tmp_path / "compared.html"
    assert main([*folders, "--page", str(file)]) == 0
    return file.read_text()


def test_a_page_is_written_that_begins_with_the_answer(write, tmp_path: Path):
    ours = [conv(0.001 + 0.0001 * seed, seed) for seed in range(3)]
    theirs = [conv(0.002 + 0.0003 * seed, seed) for seed in range(3)]
    text = page(write(ours, theirs), tmp_path)
    head = text[: text.index("<nav")]
    assert "What differs between these runs, and is it more than chance?" in head
    assert '<p class="short">The MSE differs in 1 of 1 ratio.</p>' in head
    assert "<svg" in head
    assert "B trains for 1.0 times (conv) as long." in head.replace("\n", " ")
    assert text.count("<figure>") == 2


def test_few_seeds_and_no_settings_in_common_are_answered(write):
    for theirs, short in (
        ([conv(0.03)], "Too few seeds to tell."),
        ([trial("dense", 64)], "Nothing in common to compare."),
    ):
        runs = read_runs(write([conv(0.01)], theirs))
        assert answer(runs, compare(runs)).short == short


def test_runs_alike_differ_by_no_more_than_chance(write):
    runs = read_runs(
        write(
            [conv(mse, seed) for seed, mse in enumerate((0.010, 0.012, 0.011))],
            [conv(mse, seed) for seed, mse in enumerate((0.011, 0.011, 0.012))],
        )
    )
    found = answer(runs, compare(runs))
    assert found.short == "The MSE: no more than chance."
    assert "Of 1 ratio of MSE with an interval 0 exclude 1" in found.sentences[1]


def test_three_runs_have_a_page(write, tmp_path: Path):
    runs = [[conv(0.01 + 0.001 * n + 0.0001 * seed, seed) for seed in range(2)] for n in range(3)]
    text = page(write(*runs), tmp_path)
    assert "A, B and C have" in text
    assert "C ÷ A" in text


def test_a_page_that_cannot_be_written_ends_with_2(write, capsys: pytest.CaptureFixture[str]):
    folders = write([conv(0.01)], [conv(0.01)])
    assert main([*folders, "--page", "/nowhere/page.html"]) == 2
    assert "give another --page" in capsys.readouterr().err
