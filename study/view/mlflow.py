"""Logs each trial to an MLflow tracking store when it ends (`--mlflow`).

The run folder stays the record: a tracking server that fails costs its own entries, no trial.
"""

import logging
import os
from typing import Any, NamedTuple

from study.folder import schema
from study.folder.storage import RunFolder, first_line, without_secrets
from study.folder.tables import Row
from study.plan.ledger import ENDS, Ledger, Listener
from study.plan.spec import SpecError

METRICS_A_CALL = 1000  # as many as MLflow takes
TAGS = ("state", "group", "setting", "base", "device", "error")
TOTALS = ("train_seconds", "eval_seconds", "compile_seconds", "wall_seconds", "n_parameters")

_log = logging.getLogger(__name__)


class Experiment(NamedTuple):
    """An MLflow experiment that is there: the client of its store, and its id."""

    client: Any
    experiment_id: str


def open_experiment(uri: str, folder: RunFolder) -> Experiment:
    """The study's experiment, called like the run folder; made if need be, or restored.

    Raises:
        SpecError: MLflow is not installed, or nothing answers at the URI.
    """
    # A driver that waits for a server keeps its workers waiting: not for MLflow's minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.entities import LifecycleStage
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        remedy = "install it with pip install -e '.[mlflow]'"
        raise SpecError(f"--mlflow needs MLflow; {remedy}.") from error
    for name in ("mlflow", "alembic"):  # they tell of every table they make
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(folder.name)
        if found and found.lifecycle_stage == LifecycleStage.DELETED:  # it would take no run
            client.restore_experiment(found.experiment_id)
        number = found.experiment_id if found else client.create_experiment(folder.name)
        return Experiment(client, number)
    except MlflowException as error:
        told = f"--mlflow {uri} cannot be used: {first_line(error)}"
        raise SpecError(without_secrets(told)) from error


class MlflowLogger(Listener):
    """A run for each trial that ends: its setting, its epochs, its totals and its state."""

    def __init__(self, experiment: Experiment, ledger: Ledger) -> None:
        self._experiment, self._ledger = experiment, ledger

    def ended(self, row: Row) -> None:
        """Logs a trial that has ended, not one that only stops."""
        from mlflow.exceptions import MlflowException

        if row["state"] not in ENDS:
            return
        try:
            self._write(row["trial_id"], row)
        except MlflowException:
            _log.exception("MLflow was not told of %s", row["trial_id"])

    def _write(self, trial_id: str, row: Row) -> None:
        from mlflow.entities import Metric, Param

        client = self._experiment.client
        tags = {name: str(row[name]) for name in TAGS if row.get(name)}
        tags["run_folder"] = str(self._ledger.folder)
        run = client.create_run(self._experiment.experiment_id, run_name=trial_id, tags=tags)
        run_id, now = run.info.run_id, run.info.start_time
        epochs = self._ledger.epochs_of(trial_id)
        metrics = [
            Metric(name, epoch[name], now, epoch["epoch"])
            for epoch in epochs
            for name in schema.METRICS
            if epoch.get(name) is not None
        ]
        totals = [name for name in TOTALS if row.get(name) is not None]
        metrics += [Metric(name, row[name], now, len(epochs)) for name in totals]
        setting = [name for name in schema.CONFIG_COLUMNS if row.get(name) is not None]
        params = [Param(name, str(row[name])) for name in setting]
        client.log_batch(run_id, params=params)
        for start in range(0, len(metrics), METRICS_A_CALL):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_CALL])
        # MLflow knows no more of how a run ends; the tag tells pruned and diverged apart.
        client.set_terminated(run_id, "FAILED" if row["state"] == schema.FAILED else "FINISHED")
