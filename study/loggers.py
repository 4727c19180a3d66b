"""Tells MLflow of each trial when it ends, for whoever keeps their experiments there.

The run folder stays the record: a tracking server that fails costs its own entries, no trial.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from study.folder import schema
from study.presets import SpecError
from study.progress import trial_id_of
from study.records import Records
from study.storage import RunFolder, without_secrets

METRICS_A_CALL = 1000  # as many as MLflow takes
TOTALS = ("train_seconds", "eval_seconds", "compile_seconds", "wall_seconds", "n_parameters")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """An MLflow experiment that is there: the client of its store, and its id."""

    client: Any
    experiment_id: str


def open_experiment(uri: str, folder: RunFolder) -> Experiment:
    """The study's experiment, called like the run folder; made if need be.

    Raises:
        SpecError: MLflow is not installed, or nothing answers at the URI.
    """
    # A driver that waits for a server keeps its workers waiting: not for MLflow's minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise SpecError("--mlflow needs MLflow; install it with pip install -e '.[mlflow]'.") from (
            error
        )
    for name in ("mlflow", "alembic"):  # they tell of every table they make
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(folder.name)
        return Experiment(
            client, found.experiment_id if found else client.create_experiment(folder.name)
        )
    except MlflowException as error:
        first_line = str(error).partition("\n")[0]
        raise SpecError(
            f"--mlflow {without_secrets(uri)} cannot be used: {without_secrets(first_line)}"
        ) from error


class MlflowLogger(tune.Callback):
    """A run for each trial that ends: its setting, its epochs, its totals and its state.

    Args:
        experiment: where to.
        records: what it tells; they must have heard of the end before.
    """

    def __init__(self, experiment: Experiment, records: Records) -> None:
        self._experiment = experiment
        self._records = records

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray Tune's own copy, which is never used

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Logs a trial that was completed, pruned or diverged, not one that only stops."""
        self._log_trial(trial_id_of(trial))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Logs a trial that failed."""
        self._log_trial(trial_id_of(trial))

    def _log_trial(self, trial_id: str) -> None:
        from mlflow.exceptions import MlflowException

        row = self._records.row(trial_id)
        if row["state"] == schema.RUNNING:
            return
        try:
            self._write(trial_id, row)
        except MlflowException:
            _log.exception("MLflow was not told of %s", trial_id)

    def _write(self, trial_id: str, row: dict[str, Any]) -> None:
        from mlflow.entities import Metric, Param

        client = self._experiment.client
        tags = {
            "state": row["state"],
            "group": row["group"],
            "run_folder": str(self._records.folder),
        }
        tags |= {name: str(row[name]) for name in ("device", "error") if row.get(name)}
        run = client.create_run(self._experiment.experiment_id, run_name=trial_id, tags=tags)
        run_id, now = run.info.run_id, run.info.start_time
        epochs = self._records.epochs_of(trial_id)
        metrics = [
            Metric(name, epoch[name], now, epoch["epoch"])
            for epoch in epochs
            for name in schema.METRICS
            if epoch.get(name) is not None
        ]
        metrics += [
            Metric(name, row[name], now, len(epochs))
            for name in TOTALS
            if row.get(name) is not None
        ]
        params = [
            Param(name, str(row[name]))
            for name in schema.CONFIG_COLUMNS
            if row.get(name) is not None
        ]
        client.log_batch(run_id, params=params)
        for start in range(0, len(metrics), METRICS_A_CALL):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_CALL])
        # MLflow knows no more of how a run ends; the tag tells pruned and diverged apart.
        client.set_terminated(run_id, "FAILED" if row["state"] == schema.FAILED else "FINISHED")
