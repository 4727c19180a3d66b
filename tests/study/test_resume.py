"""Nothing is lost: a study killed again and again ends as if it had not been."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
from ray_nodes import Started, ray_cluster

from analysis.load import load_run
from study.folder import schema

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

N_KILLS = 6
N_EPOCHS, N_SEEDS, SHARE = 6, 2, 24
RESOURCES = ["--gpus", "0", "--cpus-per-trial", "1"]
# One command for every session, as a job system has it.
OPTIONS = ["--resume-or-start", "--preset", "quick", "--hidden", "64"]
OPTIONS += ["--epochs", str(N_EPOCHS), "--seeds", str(N_SEEDS), "--trials", str(2 * SHARE)]
OPTIONS += ["--finalists", "0"]
ENDED = {schema.COMPLETED, schema.PRUNED, schema.DIVERGED}


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes with room for a trial each, which outlive the drivers."""
    with ray_cluster() as cluster:
        cluster.add("--num-cpus=1")
        cluster.add("--num-cpus=1")
        yield cluster


def start(cluster, storage, *options):
    """Starts or resumes the study and waits until its trials may start."""
    program = Path(__file__).with_name("closed_form_study.py")
    command = [sys.executable, program, "--storage", str(storage), "--name", "study"]
    study = Started(
        [*command, "--address", cluster.address, *RESOURCES, *options],
        {**cluster.environment, "EPOCH_SECONDS": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = []
    for line in study.process.stdout:
        lines.append(line)
        if "plan: " in line:
            return study
    raise AssertionError("".join(lines))


def wait_for_an_end(study):
    """Reads on until the driver says how a trial ended."""
    for line in study.process.stdout:
        if any(f"  {state}  " in line for state in ENDED):
            return
    raise AssertionError("no trial ended")


def ended(folder):
    """The rows of the trials that the run folder knows to have ended, by trial."""
    trials, _ = load_run(folder)  # never torn
    columns = ["state", "val_mse", "test_mse", "epochs"]
    return trials[trials.state.isin(ENDED)].set_index("trial_id")[columns].to_dict("index")


def seconds_spent(folder):
    return json.loads((folder / schema.MANIFEST_FILE).read_text())["wall_seconds"]


def test_a_driver_killed_at_six_moments_loses_nothing(cluster, tmp_path):
    folder = tmp_path / "study"
    moments = random.Random(0)
    known, spent = {}, 0.0
    for number in range(N_KILLS):
        study = start(cluster, tmp_path, *OPTIONS)
        if number % 4:  # else it may die before anything has ended
            wait_for_an_end(study)
        time.sleep(moments.uniform(0.0, 2.5))
        assert study.process.poll() is None  # it was not finished yet
        study.kill()
        if not (folder / schema.MANIFEST_FILE).exists():
            continue
        now = ended(folder)
        for trial_id, row in known.items():  # what had ended stays, to the last digit
            assert pd.Series(now[trial_id]).equals(pd.Series(row))
        assert seconds_spent(folder) >= spent
        known, spent = now, seconds_spent(folder)
    assert known
    study = start(cluster, tmp_path, *OPTIONS)
    output = study.process.stdout.read()
    code = study.process.wait()
    study.kill()
    assert code == 0, output

    trials, epochs = load_run(folder)
    counts = trials.groupby(["group", "model"]).size()
    per_model = {schema.REFERENCE: N_SEEDS, schema.SEARCH: SHARE, schema.WINNER: N_SEEDS}
    assert counts.to_dict() == {
        (group, model): n for group, n in per_model.items() for model in schema.MODELS
    }
    assert set(trials.state) <= ENDED
    final = ended(folder)
    assert all(pd.Series(final[trial_id]).equals(pd.Series(row)) for trial_id, row in known.items())
    n_epochs = epochs.groupby("trial_id").epoch.agg(["count", "max"])
    completed = trials[trials.state == schema.COMPLETED].trial_id
    assert (n_epochs.loc[completed] == N_EPOCHS).all(axis=None)
    assert len(json.loads((folder / schema.MANIFEST_FILE).read_text())["sessions"]) > N_KILLS // 2
    assert_optuna_agrees(folder, trials)
    leftovers = [folder / schema.JOURNAL_FOLDER, folder / schema.CHECKPOINTS_FOLDER]
    assert not [path for place in leftovers if place.exists() for path in place.iterdir()]


def assert_optuna_agrees(folder, trials):
    as_optuna = {"completed": "COMPLETE", "pruned": "PRUNED", "diverged": "FAIL"}
    for model in schema.MODELS:
        study = optuna.load_study(study_name=model, storage=f"sqlite:///{folder / 'optuna.db'}")
        searched = trials[(trials.group == schema.SEARCH) & (trials.model == model)]
        found = {f"search-{model}-{t.number:03d}": t.state.name for t in study.trials}
        assert found == searched.set_index("trial_id").state.map(as_optuna).to_dict()
        assert study.best_value == searched.val_mse[searched.state == schema.COMPLETED].min()
