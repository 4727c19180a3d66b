"""docs/reading-results.md: its blocks run as one session, on a run folder called results/NAME."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import optuna
import pandas as pd
import pytest
from rows import trial
from synthetic_runs import finalist_trials, searched, write_run

from analysis import compare
from study.folder import schema

PAGE = (Path(__file__).parents[2] / "docs" / "reading-results.md").read_text()
CONV_VALUES = [0.03, 0.01, 0.02]
PRUNED_VALUE = 0.001


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def write_optuna_studies(file: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    for model in schema.MODELS:
        study = optuna.create_study(storage=storage, study_name=model)
        for value in (PRUNED_VALUE, *CONV_VALUES):
            asked = study.ask()
            asked.suggest_float("one_minus_momentum", 0.05, 1)
            pruned = value == PRUNED_VALUE
            if pruned:
                asked.report(value, 1)
            state = optuna.trial.TrialState.PRUNED if pruned else None
            study.tell(asked, None if pruned else value, state=state)
    storage.engine.dispose()


FAST = {"learning_rate": 2.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run results/NAME, beside results/OTHER, with trials that must not enter anything."""
    tuned = {"learning_rate": 0.25, "batch_size": 64}
    searches = [searched(m, n, 0.04 - 0.001 * n) for m in schema.MODELS for n in range(4)]
    ended = [
        trial("conv", 8, seed, state=state, group=group, trial_id=f"{group}-{state}", mse=[1e-9])
        for seed, state in enumerate((schema.PRUNED, schema.DIVERGED, schema.FAILED), start=2)
        for group in schema.GROUPS
    ]
    trials = [
        *ended,
        *(trial(*size, seed) for size in (("conv", 8), ("dense", 512)) for seed in range(2)),
        *(trial("conv", 8, seed, group=schema.WINNER, **tuned) for seed in range(2)),
        trial("conv", 8, group=schema.NEIGHBOUR, momentum=0.9),
        *searches,
        trial("conv", group=schema.SEARCH, trial_id="fast", mse=[0.05], **FAST),
        *finalist_trials("conv", {"fast": (FAST, [0.02, 0.04]), "reference": ({}, [0.05])}),
    ]
    write_run(tmp_path / "results" / "OTHER", *trials)
    folder = write_run(tmp_path / "results" / "NAME", *trials)
    write_optuna_studies(folder / schema.OPTUNA_FILE)
    return folder


@pytest.fixture
def session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the page's Python blocks leave, run one after the other."""
    monkeypatch.chdir(folder.parents[1])
    plt.switch_backend("Agg")
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/reading-results.md", "exec"), names)
    yield names
    plt.close("all")


REFERENCE = [f"reference-{name}-{seed}" for name in ("conv-8", "dense-512") for seed in range(2)]


def test_the_first_session_is_of_ten_lines_at_most():
    assert len([line for line in blocks("python")[0].splitlines() if line]) <= 10


def test_the_figure_has_a_line_a_reference_trial(session, folder: Path):
    ax = session["ax"]
    assert ax.get_yscale() == "log"
    assert ax.get_xlabel() == "epoch"
    assert "test MSE" in ax.get_ylabel()
    epochs = pd.read_parquet(folder / schema.EPOCHS_FILE).set_index("trial_id")
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert sorted(lines) == REFERENCE
    for trial_id, line in lines.items():
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == epochs.loc[trial_id, schema.TEST_MSE].tolist()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == REFERENCE
    assert Path("reference.png").stat().st_size > 0


def test_the_best_search_trials_are_three_completed_ones_of_each_model(session):
    best = session["best"]
    assert sorted(best["trial_id"]) == [
        f"search-{model}-{n}" for model in ("conv", "dense") for n in (1, 2, 3)
    ]
    assert best[schema.VAL_MSE].is_monotonic_increasing


def test_finalists_have_a_mean_over_fresh_seeds_beside_what_the_search_had(session):
    fresh = session["fresh"].join(session["promised"])
    assert fresh["mean"].to_dict() == pytest.approx({"conv": 0.05, "conv learning_rate=2.0": 0.03})
    assert fresh["count"].tolist() == [1, 2]
    assert fresh["search"].to_dict() == pytest.approx(
        {"conv": 0.037, "conv learning_rate=2.0": 0.05}
    )


def test_winners_are_beside_the_reference_over_their_seeds(session):
    beside = session["beside"]
    assert beside["count"].to_dict() == {
        (schema.REFERENCE, "conv"): 2,
        (schema.REFERENCE, "dense-512"): 2,
        (schema.WINNER, "conv batch_size=64 learning_rate=0.25"): 2,
    }
    assert beside["mean"].tolist() == pytest.approx([0.009 * 1.005, 0.0042 * 1.005, 0.009 * 1.005])
    assert beside["std"].notna().all()


def test_optunas_study_is_ranked_without_its_pruned_trial(session):
    assert len(session["tried"]) == 1 + len(CONV_VALUES)
    assert PRUNED_VALUE in session["tried"]["value"].tolist()
    assert session["ranked"]["value"].tolist() == sorted(CONV_VALUES)
    assert "params_one_minus_momentum" in session["ranked"]


def test_the_command_that_compares_runs_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder.parents[1])
    (command,) = (shlex.split(block) for block in blocks("sh"))
    assert command[:3] == ["python", "-m", "analysis.compare"]
    assert compare.main(command[3:]) == 0
    assert "conv (reference" in capsys.readouterr().out
    assert len(pd.read_csv("rows.csv"))
