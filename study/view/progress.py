"""Tells people what happens while a study runs: it listens to the ledger and looks at the clock.

Every line goes to the log file; the terminal gets them all and a live view, or the lines and the
status once a minute if it is none, or little if it is told to be quiet.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from textwrap import shorten
from typing import Any

from rich.console import Console
from rich.live import Live

from study.folder import schema
from study.folder.tables import Row
from study.plan.ledger import ENDS, Ledger, Listener
from study.plan.phases import Plan
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial, count_trials
from study.view.live import BEST, LiveView, RunningTrial, Status
from study.view.pace import Pace, Remaining, duration

STATUS_SECONDS = 60.0  # between two lines about the study as a whole
WAIT_SECONDS = 30.0  # without a trial, before saying so, and between saying so
ERROR_LENGTH = 150  # characters of an error on the terminal
TO_COME = "to come"  # what has not started; no state of a trial

_log = logging.getLogger(__name__)


class Progress(Listener):
    """Tells, a line a trial, what happens; in a terminal also what runs."""

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        spec: StudySpec,
        n_slots: int,  # trials that train at once
        needs: str = "",  # what a trial takes, in words, to say what it waits for
        *,
        seconds_left: float | None = None,  # of the time budget, from now on; None without one
        quiet: bool = False,  # print failures and what is said with `always`, no more
        console: Console | None = None,  # None for standard output
        clock: Callable[[], float] = time.monotonic,  # in seconds
    ) -> None:
        self._ledger, self._plan, self._spec = ledger, plan, spec
        self._n_slots, self._needs, self._quiet, self._clock = n_slots, needs, quiet, clock
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._groups = count_trials(spec)
        self._started = self._status_said = self._idle_since = self._wait_said = clock()
        self._deadline = None if seconds_left is None else self._started + seconds_left
        self._waiting: dict[str, PlannedTrial] = {}  # until there is room for them
        self._running: dict[str, RunningTrial] = {}
        self._pace = Pace()
        self._device_said = self._stopping = False
        self._silent: Mapping[str, str] = {}  # for how long, and where, by trial

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal and not self._quiet

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the study's state below the lines, if the output is a terminal."""
        if not self._is_live:
            yield
            return
        with Live(
            LiveView(self.status),
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
        recorded = self._ledger.rows()
        n_epochs = sum(row.get("epochs_completed") or 0 for row in recorded)
        device_seconds = sum(map(_epoch_seconds, recorded))
        trials = [replace(trial) for trial in self._running.values()]
        running_ids = {trial.planned.trial_id for trial in trials}
        # What an interrupt cut off is "running" in the tables, but it does not run.
        rows = [r for r in recorded if r["state"] != schema.RUNNING or r["trial_id"] in running_ids]
        states = Counter(dict.fromkeys(schema.STATES, 0))
        states.update(row["state"] for row in rows)
        return Status(
            states={**states, TO_COME: self._plan.n_trials - len(rows)},
            spent=f"{_epochs(n_epochs)}, {device_seconds:,.0f} device seconds",
            left=self._left(rows, trials),
            notes=[*self._waits_for(), *map(" ".join, self._silent.items())],
            best={
                model: {g: _best(rows, model, g, metric) for g, metric in BEST if g in self._groups}
                for model in self._spec.models
            },
            running=trials,
        )

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """Notes that the trial waits."""
        self._waiting[planned.trial_id] = planned

    def started(self, trial_id: str) -> None:
        """Notes that it has a worker."""
        if trial_id in self._waiting:
            self._running[trial_id] = RunningTrial(self._waiting.pop(trial_id))

    def measured(self, row: Row, epochs: list[Row]) -> None:
        """Notes the epochs and what they took."""
        self.started(row["trial_id"])
        if not self._device_said:
            self._device_said = True
            self.say(f"training on {row['device']}")
        if not epochs:
            return
        seconds = sum(map(_epoch_seconds, epochs))
        self._pace.add_epochs(row["model"], len(epochs), seconds)
        running = self._running[row["trial_id"]]
        running.epoch = epochs[-1]["epoch"]
        running.n_measured += len(epochs)
        running.seconds += seconds
        for epoch in epochs:
            for metric in (schema.VAL_MSE, schema.TEST_MSE):
                if epoch.get(metric) is not None:
                    running.mse = f"{metric} {epoch[metric]:.5f}"

    def failed_once(self, row: Row, note: str) -> None:
        """Tells of a failed attempt; the trial waits for another worker."""
        trial_id = row["trial_id"]
        if running := self._running.pop(trial_id, None):
            self._waiting[trial_id] = running.planned
        self.say(f"{trial_id}  {note}  {self._explain(row['error'])}", always=True)

    def note_silent(self, silent: Mapping[str, str]) -> None:
        """Takes the silent trials, for how long and where, in words; says so of each once."""
        for trial_id in silent.keys() - self._silent.keys():
            self.say(f"{trial_id}  {silent[trial_id]}", always=True)
        self._silent = silent

    def ended(self, row: Row) -> None:
        """Tells how the trial ended, or that it goes on in another session."""
        self._running.pop(row["trial_id"], None)
        self._waiting.pop(row["trial_id"], None)
        state, error = row["state"], row.get("error")
        details = [state, _epochs(row.get("epochs_completed") or 0)]
        details += [f"{m} {row[m]:.5f}" for m in schema.METRICS if row.get(m) is not None]
        if seconds := row.get("train_seconds"):
            details.append(f"trained {seconds:.1f} s")
        if state == schema.FAILED:
            details.append(self._explain(error))
        elif state == schema.DIVERGED:
            details.append(error or "")
        n_ended = self._ledger.count(*ENDS)
        self.say(
            f"({n_ended}/{self._plan.n_trials}) {row['trial_id']}  " + "  ".join(details),
            always=state == schema.FAILED,
        )
        if row.get("wall_seconds") is not None:
            overhead = max(0.0, row["wall_seconds"] - _epoch_seconds(row))
            self._pace.add_trial(row["model"], overhead)

    def tick(self, *, stopping: bool) -> None:
        """Says that the study is being stopped, and without a live view the status at times."""
        if stopping and not self._stopping:
            self._stopping = True
            self.say("stopping; --resume goes on with the trials that run")
        if self._plan.n_places not in (None, self._n_slots):
            self._n_slots = self._plan.n_places
            self.say(f"{self._n_slots} at once from now on", always=True)
        now = self._clock()
        if self._running:
            self._idle_since = self._wait_said = now
        elif now - self._wait_said >= WAIT_SECONDS:
            self._wait_said = now
            waited = duration(now - self._idle_since - 4)  # it rounds up by nearly five
            self.say(f"no trial runs: for {waited} waiting for a node with {self._needs} to spare")
        if not self._is_live and now - self._status_said >= STATUS_SECONDS:
            self._status_said = now
            self.say(self.status().line())

    def _waits_for(self) -> list[str]:
        """The trials for which free places wait, so that the search repeats itself."""
        has_room = len(self._running) + len(self._waiting) < self._n_slots
        names = self._plan.waits_for if has_room and not self._stopping else []
        return [f"the next proposal waits for {' and '.join(names)}"] if names else []

    def _left(self, rows: list[Row], running: list[RunningTrial]) -> str:
        """The time left, as text."""
        if self._stopping:
            return "stopping"
        fixed, later = self._to_come(rows)
        searched = later.pop(schema.SEARCH, [])
        first = [trial.remaining() for trial in running] + fixed + searched
        phases = [first, *later.values()]
        seconds = self._pace.seconds_left(phases, self._n_slots)
        if self._deadline is not None:
            budget = max(0.0, self._deadline - self._clock())
            if seconds is None or seconds > budget:
                return f"at most {duration(budget)} left, by --time-budget"
        if seconds is None:
            return "time left not known yet"
        prunable = searched or any(trial.planned.prunable for trial in running)
        at_most = "at most " if prunable and self._spec.scheduler != "none" else ""
        return f"{at_most}about {duration(seconds)} left"

    def _to_come(self, rows: list[Row]) -> tuple[list[Remaining], dict[str, list[Remaining]]]:
        """What has not started: fixed trials, and by group those that wait for another group."""
        entered = {row["trial_id"] for row in rows}
        n_entered = Counter((row["group"], row["model"]) for row in rows)
        fixed = [planned.config for planned in self._plan.fixed if planned.trial_id not in entered]
        later: dict[str, list[Remaining]] = {group: [] for group in schema.GROUPS}
        left = (
            (number, group, model)
            for model in self._spec.models
            for group, n in self._plan.searching_trials(model).items()
            for number in range(n_entered[group, model], n)
        )
        for _, group, model in sorted(left, key=itemgetter(0)):  # models take turns
            later[group].append(Remaining(model, self._spec.epochs))
        return [Remaining(config.model, config.epochs) for config in fixed], later

    def _elapsed(self) -> float:
        return self._clock() - self._started

    def _explain(self, error: str | None) -> str:
        log = f"{self._ledger.folder}/{schema.LOG_FILE}"
        return f"{shorten(error or '', ERROR_LENGTH, placeholder=' …')} (in full: {log})"


def describe_plan(
    spec: StudySpec, n_slots: int, needs: str, lanes: Mapping[str, int] | None = None
) -> str:
    """The study in a line: how many trials of what, how many at once, on what each.

    `needs` is what each takes, in words, or each engine if there are lanes, by model.
    """
    trials = ", ".join(f"{n} {group}" for group, n in count_trials(spec).items())
    each = f"{needs} each"
    if lanes is not None:
        wide = ", ".join(f"{n or 1} {model}" for model, n in lanes.items())
        each = f"in engines of {wide} lanes, {needs} each"
    note = ", no two sharing a device" if spec.timed else ""
    if spec.until_decided:
        note += f"; seeds are added until the comparisons are decided, up to {spec.until_decided}"
    return f"plan: {trials} trials of {_epochs(spec.epochs)}; {n_slots} at once, {each}{note}"


def _epochs(n: int) -> str:
    return f"{n:,} epoch{'' if n == 1 else 's'}"


def _epoch_seconds(row: Mapping[str, Any]) -> float:
    """Training and evaluation, of an epoch or of a trial so far."""
    return (row.get("train_seconds") or 0.0) + (row.get("eval_seconds") or 0.0)


def _best(rows: list[Row], model: str, group: str, metric: str) -> tuple[float, str] | None:
    """The lowest value among completed trials, and the trial's name."""
    values = [
        (row[metric], row["trial_id"])
        for row in rows
        if (row["model"], row["group"], row["state"]) == (model, group, schema.COMPLETED)
        and row.get(metric) is not None  # the row may be half-way through its last report
    ]
    return min(values, default=None)
