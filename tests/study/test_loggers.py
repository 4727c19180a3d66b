"""The MLflow logger with the real MLflow, its store in a file of SQLite."""

import sys
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from study.folder import schema
from study.loggers import Experiment, MlflowLogger, open_experiment
from study.presets import SpecError, StudySpec
from study.records import Records
from study.search import fixed_trials
from study.storage import RunFolder

# MLflow's store uses what SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

ENDS = (schema.COMPLETED, schema.PRUNED, schema.DIVERGED, schema.FAILED, schema.RUNNING)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "study")


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def ended_trials(folder):
    """Records of a trial for each way to end, each with two epochs, the first not evaluated."""
    records = Records(folder)
    spec = StudySpec(preset="test", models=("dense",), hidden_units=(64,), n_seeds=len(ENDS))
    planned = fixed_trials(spec)
    for trial, state in zip(planned, ENDS, strict=True):
        records.start(trial)
        history = [
            {"epoch": 1, "train_mse": 0.5, "test_mse": None},
            {"epoch": 2, "train_mse": 0.25, "test_mse": 0.125},
        ]
        totals = {"n_parameters": 7, "device": "a formula", "train_seconds": 3.0}
        totals |= dict.fromkeys(("eval_seconds", "compile_seconds", "wall_seconds"), 0.0)
        result = {"state": state, "diverged_epoch": None, "history": history, **totals}
        records.report(trial.trial_id, result)
        records.end(trial.trial_id, state)
    return records, planned


def log(logger, trial_id):
    logger.on_trial_complete(0, [], SimpleNamespace(config={"trial_id": trial_id}))


def test_a_run_for_each_ended_trial(folder, uri):
    records, planned = ended_trials(folder)
    experiment = open_experiment(uri, folder)
    logger = MlflowLogger(experiment, records)
    for trial in planned:
        log(logger, trial.trial_id)

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("study")
    runs = {run.info.run_name: run for run in client.search_runs([found.experiment_id])}
    by_state = dict(zip(ENDS, planned, strict=True))
    still_running = by_state.pop(schema.RUNNING)
    assert still_running.trial_id not in runs
    assert {run.data.tags["state"] for run in runs.values()} == set(by_state)
    for state, trial in by_state.items():
        run = runs[trial.trial_id]
        assert run.data.tags["state"] == state
        assert run.info.status == ("FAILED" if state == schema.FAILED else "FINISHED")
        assert run.data.params["hidden_units"] == "64"
        assert run.data.params["seed"] == str(trial.config.seed)
        assert run.data.metrics["train_seconds"] == 3
        curves = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in ("train_mse", "test_mse")
        }
        assert curves == {"train_mse": [(1, 0.5), (2, 0.25)], "test_mse": [(2, 0.125)]}


def test_a_study_that_goes_on_keeps_its_experiment(folder, uri):
    first, second = (open_experiment(uri, folder) for _ in range(2))
    assert first.experiment_id == second.experiment_id


def test_a_store_that_fails_costs_no_trial(folder, uri, caplog):
    records, planned = ended_trials(folder)
    client = open_experiment(uri, folder).client
    log(MlflowLogger(Experiment(client, "4711"), records), planned[0].trial_id)
    assert f"MLflow was not told of {planned[0].trial_id}" in caplog.text


def test_a_store_that_cannot_be_used_is_refused_in_a_sentence(folder):
    with pytest.raises(SpecError, match="--mlflow nonsense://here cannot be used") as caught:
        open_experiment("nonsense://here", folder)
    assert "\n" not in str(caught.value)


def test_without_mlflow_the_extra_is_named(folder, uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SpecError, match=r"pip install -e '\.\[mlflow\]'"):
        open_experiment(uri, folder)
