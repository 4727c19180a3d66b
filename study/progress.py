"""Keeps a study's records and tells people, a line a trial, what happens while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from study import schema
from study.records import Records
from study.search import StudySearch
from study.space import PlannedTrial

MAX_RETRIES = 2  # of a trial that failed with an error


class Progress(tune.Callback):
    """Keeps the records and tells, a line a trial, what happens; in a terminal also what runs."""

    def __init__(self, records: Records, search: StudySearch) -> None:
        self._records = records
        self._n_trials = sum(search.n_trials.values())
        self._search = search
        self._started = time.monotonic()
        self._running: dict[str, str] = {}
        self.console = Console(highlight=False, soft_wrap=True)
        self._status = self.console.status("starting the first worker")
        self._device_said = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray Tune's own copy, which is never used

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the running trials below the lines, if the output is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with self._status:
            yield

    def say(self, line: str) -> None:
        """Prints a line with the seconds since the start."""
        self.console.print(f"[{time.monotonic() - self._started:5.0f} s] {line}", markup=False)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Enters the trial."""
        planned = PlannedTrial.from_tune(trial.config)
        self._records.start(planned)
        self._show(planned, 0)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records the epochs."""
        planned = PlannedTrial.from_tune(trial.config)
        if not self._device_said:
            self._device_said = True
            self.say(f"training on {result['device']}")
        self._records.report(planned.trial_id, result)
        if result["history"]:
            self._show(planned, result["history"][-1]["epoch"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as completed, diverged or pruned; a study that stops leaves it running."""
        state = trial.last_result.get("state", schema.RUNNING)
        if state == schema.RUNNING and not self._search.stopping:
            state = schema.PRUNED
        error = None
        if state == schema.DIVERGED:
            epoch = trial.last_result["diverged_epoch"]
            error = f"The loss stopped being finite in epoch {epoch}."
        self._end(trial, state, error)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Counts a retry."""
        trial_id = trial_id_of(trial)
        self._records.retry(trial_id, trial.num_failures, _last_line(trial))
        self.say(f"{trial_id}  failed, retry {trial.num_failures} of {MAX_RETRIES}")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as failed."""
        self._records.retry(trial_id_of(trial), MAX_RETRIES, _last_line(trial))
        self._end(trial, schema.FAILED, _last_line(trial))

    def _end(self, trial: Trial, state: str, error: str | None) -> None:
        row = self._records.end(trial_id_of(trial), state, error)
        self._running.pop(row["trial_id"], None)
        metrics = [
            f"{name} {row[name]:.5f}" for name in schema.METRICS if row.get(name) is not None
        ]
        seconds = row.get("train_seconds")
        n_epochs = row.get("epochs_completed", 0)
        details = [
            state,
            f"{n_epochs} epoch{'' if n_epochs == 1 else 's'}",
            *metrics,
            *([f"trained {seconds:.1f} s"] if seconds else []),
            *([error] if error else []),
        ]
        ended = self._records.count(*set(schema.STATES) - {schema.RUNNING})
        self.say(f"({ended}/{self._n_trials}) {row['trial_id']}  " + "  ".join(details))

    def _show(self, planned: PlannedTrial, epoch: int) -> None:
        self._running[planned.trial_id] = (
            f"{planned.trial_id} epoch {epoch}/{planned.config.epochs}"
        )
        self._status.update("running: " + ", ".join(self._running.values()))


def trial_id_of(trial: Trial) -> str:
    """The plan's name of a trial; Ray Tune has one of its own."""
    return str(trial.config["trial_id"])


def _last_line(trial: Trial) -> str:
    """The last line of the trial's traceback: the error itself."""
    error = trial.get_error()
    lines = str(error).strip().splitlines() if error else []
    return lines[-1].strip() if lines else "the worker process died"
