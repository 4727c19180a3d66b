"""MLflow is told of trials that end: with the real MLflow, its store in a file of SQLite."""

import sys
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from simulation import epoch_row, measured

from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.ledger import Ledger
from study.plan.spec import SpecError, StudySpec
from study.plan.trials import fixed_trials
from study.view.mlflow import Experiment, MlflowLogger, open_experiment

# MLflow's store uses what SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

ENDS = (schema.COMPLETED, schema.PRUNED, schema.DIVERGED, schema.FAILED, schema.RUNNING)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "study")
    folder.create()
    return folder


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


# What ends a trial so, after two of its epochs: the error, and whether the study stops.
SETTINGS = {schema.FAILED: {"error": "no such file"}, schema.RUNNING: {"stopping": True}}


def run_trials(folder, make_logger):
    """A trial for each way to end, each with two epochs, the first not evaluated; as planned."""
    ledger = Ledger(folder)
    ledger.listeners.append(make_logger(ledger))
    spec = StudySpec(preset="test", models=("dense",), hidden_units=(64,), n_seeds=len(ENDS))
    by_state = dict(zip(ENDS, fixed_trials(spec), strict=True))
    for state, trial in by_state.items():
        trial = replace(trial, config=replace(trial.config, epochs=2 + (state != schema.COMPLETED)))
        by_state[state] = trial
        ledger.plan(trial)
        rows = [epoch_row(trial.config, 1, None, 0.5), epoch_row(trial.config, 2, 0.125, 0.25)]
        diverged_epoch = 3 if state == schema.DIVERGED else None
        ledger.measure(trial.trial_id, *measured(*rows, diverged_epoch=diverged_epoch))
        assert ledger.end(trial.trial_id, **SETTINGS.get(state, {}))["state"] == state
    return by_state


def test_a_run_for_each_ended_trial(folder, uri):
    experiment = open_experiment(uri, folder)
    by_state = run_trials(folder, lambda ledger: MlflowLogger(experiment, ledger))

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("study")
    runs = {run.info.run_name: run for run in client.search_runs([found.experiment_id])}
    still_running = by_state.pop(schema.RUNNING)
    assert still_running.trial_id not in runs
    assert {run.data.tags["state"] for run in runs.values()} == set(by_state)
    for state, trial in by_state.items():
        run = runs[trial.trial_id]
        assert run.data.tags["state"] == state
        assert run.info.status == ("FAILED" if state == schema.FAILED else "FINISHED")
        assert run.data.params["hidden_units"] == "64"
        assert run.data.params["seed"] == str(trial.config.seed)
        assert run.data.metrics["train_seconds"] == 2
        curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in ("train_mse", "test_mse")
        }
        assert curves == {"train_mse": [(1, 0.5), (2, 0.25)], "test_mse": [(2, 0.125)]}


def test_a_study_that_goes_on_keeps_its_experiment(folder, uri):
    first, second = (open_experiment(uri, folder) for _ in range(2))
    assert first.experiment_id == second.experiment_id


def test_a_store_that_fails_costs_no_trial(folder, uri, caplog):
    client = open_experiment(uri, folder).client
    by_state = run_trials(folder, lambda ledger: MlflowLogger(Experiment(client, "4711"), ledger))
    for state, trial in by_state.items():
        told = f"MLflow was not told of {trial.trial_id}" in caplog.text
        assert told == (state != schema.RUNNING)


def test_a_store_that_cannot_be_used_is_refused_in_a_sentence(folder):
    with pytest.raises(SpecError, match="--mlflow nonsense://here cannot be used") as caught:
        open_experiment("nonsense://here", folder)
    assert "\n" not in str(caught.value)


def test_without_mlflow_the_extra_is_named(folder, uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SpecError, match=r"pip install -e '\.\[mlflow\]'"):
        open_experiment(uri, folder)


def test_an_experiment_that_was_deleted_meanwhile_is_restored(folder, uri):
    first = open_experiment(uri, folder)
    MlflowClient(uri).delete_experiment(first.experiment_id)
    again = open_experiment(uri, folder)
    assert again.experiment_id == first.experiment_id
    by_state = run_trials(folder, lambda ledger: MlflowLogger(again, ledger))
    assert len(MlflowClient(uri).search_runs([again.experiment_id])) == len(by_state) - 1
