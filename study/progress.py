"""Keeps a study's records and tells people what happens while it runs.

Every line goes to the log file; the terminal gets them all and a live view, or the lines and the
status once a minute if it is none, or little if it is told to be quiet.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from rich.console import Console
from rich.live import Live

from study.folder import schema
from study.live import BEST, LiveView, RunningTrial, Status
from study.pace import Pace, Remaining, duration
from study.presets import StudySpec
from study.records import Records
from study.search import StudySearch, fixed_trials
from study.space import PlannedTrial

MAX_RETRIES = 2  # of a trial that failed with an error, or whose worker died
MAX_LOST_NODES = 10  # that a trial may lose without using up its retries
# In the words of Ray's ActorDiedError; or no node answers any more, before Ray knows why.
NODE_LOST = ("its node has died", "is unavailable: ")
STATUS_SECONDS = 60.0  # between two lines about the study as a whole
WAIT_SECONDS = 30.0  # without a trial, before saying so, and between saying so
ERROR_LENGTH = 150  # characters of an error on the terminal
TO_COME = "to come"  # what has not started; no state of a trial

_log = logging.getLogger(__name__)


@dataclass
class _Running:
    """A trial that runs: its epochs so far, and what they took."""

    planned: PlannedTrial
    epoch: int = 0
    n_measured: int = 0  # epochs; fewer than `epoch` if it goes on where it stopped earlier
    seconds: float = 0.0
    mse: str = "starting"

    def remaining(self) -> Remaining:
        config = self.planned.config
        own = self.seconds / self.n_measured if self.n_measured else None
        return Remaining(config.model, config.epochs - self.epoch, own)


class Progress(TrialProgressCallback):
    """Keeps the records and tells, a line a trial, what happens; in a terminal also what runs.

    It takes the place of the callback of this kind that Ray Tune would add by itself, which keeps
    every trial to the end of the study.

    Args:
        records: the run folder's tables.
        search: what hands out the trials.
        spec: the study.
        n_slots: trials that train at once.
        needs: what a trial takes, in words, to say what it waits for.
        quiet: print the failures and what is said with `always`, no more.
        console: where to print; None for standard output.
    """

    def __init__(
        self,
        records: Records,
        search: StudySearch,
        spec: StudySpec,
        n_slots: int,
        needs: str = "",
        *,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self._records = records
        self._search = search
        self._spec = spec
        self._n_slots = n_slots
        self._needs = needs
        self._quiet = quiet
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._n_trials = sum(search.n_trials.values())
        self._fixed = fixed_trials(spec)
        self._started = self._status_said = self._idle_since = self._wait_said = time.monotonic()
        self._running: dict[str, _Running] = {}
        self._pace = Pace()
        self._device_said = self._stop_said = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray Tune's own copy, which is never used

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal and not self._quiet

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the study's state below the lines, if the output is a terminal."""
        if not self._is_live:
            yield
            return
        view = LiveView(self.status)
        with Live(
            view,
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def say(self, line: str, *, always: bool = False) -> None:
        """Prints a line with the seconds since the start; if told to be quiet, only logs it."""
        _log.info(line)
        if always or not self._quiet:
            line = f"[{self._elapsed():5.0f} s] {line}"
            self._console.print(line, markup=False, soft_wrap=not self._is_live)

    def status(self) -> Status:
        """The study at this moment. The live view asks from a thread of its own, so it copies."""
        recorded = self._records.rows()
        n_epochs = sum(row.get("epochs_completed") or 0 for row in recorded)
        device_seconds = sum(map(_epoch_seconds, recorded))
        trials = list(self._running.values())
        running_ids = {trial.planned.trial_id for trial in trials}
        # What an interrupt cut off is "running" in the tables, but it does not run.
        rows = [
            row
            for row in recorded
            if row["state"] != schema.RUNNING or row["trial_id"] in running_ids
        ]
        states = Counter(dict.fromkeys(schema.STATES, 0))
        states.update(row["state"] for row in rows)
        running = []
        for trial in trials:
            planned = trial.planned
            running.append(
                RunningTrial(planned.trial_id, trial.epoch, planned.config.epochs, trial.mse)
            )
        return Status(
            states={**states, TO_COME: self._n_trials - len(rows)},
            spent=f"{_epochs(n_epochs)}, {device_seconds:,.0f} device seconds",
            left=self._left(rows, trials),
            best={
                model: {
                    group: _best(rows, model, group, metric)
                    for group, metric in BEST
                    if group in self._search.n_trials
                }
                for model in self._spec.models
            },
            running=running,
        )

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Enters the trial."""
        planned = PlannedTrial.from_tune(trial.config)
        self._records.start(planned)
        self._running[planned.trial_id] = _Running(planned)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records the epochs."""
        planned = PlannedTrial.from_tune(trial.config)
        if not self._device_said:
            self._device_said = True
            self.say(f"training on {result['device']}")
        self._records.report(planned.trial_id, result)
        if not (history := result["history"]):
            return
        seconds = sum(map(_epoch_seconds, history))
        self._pace.add_epochs(planned.config.model, len(history), seconds)
        running = self._running[planned.trial_id]
        running.epoch = history[-1]["epoch"]
        running.n_measured += len(history)
        running.seconds += seconds
        for row in history:
            for metric in (schema.VAL_MSE, schema.TEST_MSE):
                if row.get(metric) is not None:
                    running.mse = f"{metric} {row[metric]:.5f}"

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as completed, diverged or pruned; a study that stops leaves it running."""
        state = self._search.state_of(trial.last_result or {"state": schema.RUNNING})
        error = None
        if state == schema.DIVERGED:
            epoch = trial.last_result["diverged_epoch"]
            error = f"The loss stopped being finite in epoch {epoch}."
        row = self._end(trial, state, error)
        if row.get("wall_seconds") is not None:
            self._pace.add_trial(row["model"], max(0.0, row["wall_seconds"] - _epoch_seconds(row)))

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Counts a retry. A lost node is no fault of the trial's: it gets another one for it.

        Except the trial that has used up its retries already: Ray decides before it asks here.
        """
        trial_id = trial_id_of(trial)
        error = _error_of(trial)
        planned = PlannedTrial.from_tune(trial.config)
        self._records.start(planned)  # its worker may have failed before the trial started
        self._records.retry(trial_id, error)
        self._running[trial_id] = _Running(planned)
        n_lost = trial.max_failures - MAX_RETRIES
        retry = f"failed, retry {trial.num_failures - n_lost} of {MAX_RETRIES}"
        if n_lost < MAX_LOST_NODES and _lost_its_node(trial):
            trial.max_failures += 1
            retry = "lost its node, starts again"
        self.say(f"{trial_id}  {retry}  {self._explain(error)}", always=True)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as failed."""
        error = _error_of(trial)
        self._records.start(PlannedTrial.from_tune(trial.config))  # its worker may never have
        self._end(trial, schema.FAILED, error)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Says that the study is being stopped, and without a live view the status at times."""
        if self._search.stopping and not self._stop_said:
            self._stop_said = True
            self.say("stopping; --resume goes on with the trials that run")
        now = time.monotonic()
        if self._running:
            self._idle_since = self._wait_said = now
        elif now - self._wait_said >= WAIT_SECONDS:
            self._wait_said = now
            waited = duration(now - self._idle_since)
            self.say(f"no trial runs: for {waited} waiting for a node with {self._needs} to spare")
        if not self._is_live and now - self._status_said >= STATUS_SECONDS:
            self._status_said = now
            self.say(self.status().line())

    def _end(self, trial: Trial, state: str, error: str | None) -> dict[str, Any]:
        row = self._records.end(trial_id_of(trial), state, error)
        self._running.pop(row["trial_id"], None)
        metrics = [
            f"{name} {row[name]:.5f}" for name in schema.METRICS if row.get(name) is not None
        ]
        seconds = row.get("train_seconds")
        details = [
            state,
            _epochs(row.get("epochs_completed") or 0),
            *metrics,
            *([f"trained {seconds:.1f} s"] if seconds else []),
            *([self._explain(error) if state == schema.FAILED else error] if error else []),
        ]
        ended = self._records.count(*set(schema.STATES) - {schema.RUNNING})
        self.say(
            f"({ended}/{self._n_trials}) {row['trial_id']}  " + "  ".join(details),
            always=state == schema.FAILED,
        )
        return row

    def _left(self, rows: list[dict[str, Any]], running: list[_Running]) -> str:
        """The time left, as text."""
        if self._search.stopping:
            return "stopping"
        fixed, searched, winners = self._to_come(rows)
        phases = [[trial.remaining() for trial in running] + fixed + searched, winners]
        seconds = self._pace.seconds_left(phases, self._n_slots)
        if (budget := self._spec.time_budget_seconds) is not None:
            budget = max(0.0, budget - self._elapsed())
            if seconds is None or seconds > budget:
                return f"at most {duration(budget)} left, by --time-budget"
        if seconds is None:
            return "time left not known yet"
        prunable = searched or any(trial.planned.prunable for trial in running)
        at_most = "at most " if prunable and self._spec.scheduler != "none" else ""
        return f"{at_most}about {duration(seconds)} left"

    def _to_come(self, rows: list[dict[str, Any]]) -> tuple[list[Remaining], ...]:
        """What has not started: fixed trials, search trials, and winners, which wait for these."""
        entered = {row["trial_id"] for row in rows}
        n_entered = Counter((row["group"], row["model"]) for row in rows)
        fixed = [planned.config for planned in self._fixed if planned.trial_id not in entered]
        per_model = {
            group: [
                Remaining(model, self._spec.epochs)
                for number in range(n)
                for model in self._spec.models
                if number >= n_entered[group, model]
            ]
            for group, n in (
                (schema.SEARCH, self._spec.share),
                (schema.WINNER, self._spec.n_seeds if self._spec.share else 0),
            )
        }
        return (
            [Remaining(config.model, config.epochs) for config in fixed],
            per_model[schema.SEARCH],
            per_model[schema.WINNER],
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _explain(self, error: str) -> str:
        log = f"{self._records.folder}/{schema.LOG_FILE}"
        return f"{shorten(error, ERROR_LENGTH, placeholder=' …')} (in full: {log})"


def trial_id_of(trial: Trial) -> str:
    """The plan's name of a trial; Ray Tune has one of its own."""
    return str(trial.config["trial_id"])


def _latest_attempt(trial: Trial) -> list[str]:
    """What Ray Tune has logged of the trial's latest failure, below its heading."""
    text = Path(trial.error_file).read_text(encoding="utf-8")
    return text.rpartition("Failure # ")[2].rstrip().splitlines()[1:]


def _error_of(trial: Trial) -> str:
    """The error of the trial's latest attempt: what follows on its traceback.

    Ray Tune logs the traceback. Its get_error() reads a copy that is written later.
    """
    lines = _latest_attempt(trial)
    indented = [i for i, line in enumerate(lines) if line.startswith((" ", "\t"))]
    return lines[min(max(indented, default=-1) + 1, len(lines) - 1)].strip()


def _lost_its_node(trial: Trial) -> bool:
    """Whether that ended the trial's latest attempt."""
    return any(sign in line for line in _latest_attempt(trial) for sign in NODE_LOST)


def _epochs(n: int) -> str:
    return f"{n:,} epoch{'' if n == 1 else 's'}"


def _epoch_seconds(row: Mapping[str, Any]) -> float:
    """Training and evaluation, of an epoch or of a trial so far."""
    return (row.get("train_seconds") or 0.0) + (row.get("eval_seconds") or 0.0)


def _best(
    rows: list[dict[str, Any]], model: str, group: str, metric: str
) -> tuple[float, str] | None:
    """The lowest value among completed trials, and the trial's name within its group."""
    values = [
        (row[metric], row["trial_id"].removeprefix(f"{group}-"))
        for row in rows
        if (row["model"], row["group"], row["state"]) == (model, group, schema.COMPLETED)
        and row.get(metric) is not None  # the row may be half-way through its last report
    ]
    return min(values, default=None)
