"""The ledger: what is planned, begun, measured and ended, entered here first and in the run folder.

Tables, Optuna, the terminal and MLflow are derived from it: they listen, and can be made again from
it. A trial's plan is in the run folder before the trial starts, and its end is decided once.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from convae.config import FIELD_KINDS, TrialConfig
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import Change, Row, TableWriter, read_tables
from study.plan.trials import PlannedTrial

ENDS = frozenset(schema.STATES) - {schema.RUNNING}
# Nothing that only was measured waits longer for the journal, and the tables are rewritten whole
# not more often than this, and for a twentieth of the time at most.
WRITE_SECONDS = 2.0
WRITE_SHARE = 0.05


class Listener:
    """Is told of each entry after it is made; subclasses override what they need."""

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """A trial is to be trained, for the first time or again."""

    def measured(self, row: Row, epochs: list[Row]) -> None:
        """A trial has trained these epochs; on a restart it tells earlier ones again."""

    def failed_once(self, row: Row, note: str) -> None:
        """An attempt failed, and the trial starts again; `note` says why and how often it may."""

    def ended(self, row: Row) -> None:
        """A trial will not train on in this session; its state tells whether it has ended."""


def decide_state(row: Mapping[str, Any], *, failed: bool, stopping: bool) -> str:
    """How a trial stands that does not train on: the one place where that is decided.

    Of `schema.STATES`, "running" is for a trial that a later session goes on with: one that ends
    because the whole study stops, not by a decision on the trial. `failed` is after its retries.
    """
    if failed:
        return schema.FAILED
    if row.get("diverged_epoch") is not None:
        return schema.DIVERGED
    if row.get("epochs_completed") == row["epochs"]:
        return schema.COMPLETED
    return schema.RUNNING if stopping else schema.PRUNED


class Ledger:
    """The trials of a study and their epochs, kept in its run folder.

    Storage that fails is noted in `trouble`, and tried again with the next entry: the study stops
    in an orderly way then, and nothing that was entered before is lost.

    Args:
        folder: the run folder; it exists.
        resume: go on with what an earlier session entered there.
        write_seconds: between two writes of what was only measured, at least.
        clock: tells seconds.

    Raises:
        RunFolderError: what is there is torn, or cannot be read or written.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        resume: bool = False,
        write_seconds: float = WRITE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.listeners: list[Listener] = []  # hear of each entry, in this order
        # Why the folder could not be written the last time; None if it could.
        self.trouble: RunFolderError | None = None
        self.on_write: Callable[[], None] = lambda: None  # called after the tables were written
        self._write_seconds, self._clock = write_seconds, clock
        self._trials: dict[str, Row] = {}
        self._epochs: dict[str, list[Row]] = {}
        self._dirty: dict[str, float] = {}  # how many epochs the journal has, by trial
        self._tables_stale = True
        self._next_append = self._next_rewrite = -math.inf
        if resume:
            folder.sweep()
            trials, epochs = read_tables(folder)
            self._trials = {row["trial_id"]: row for row in trials.to_pylist()}
            self._epochs = {trial_id: [] for trial_id in self._trials}
            for row in epochs.sort_by("epoch").to_pylist():
                self._epochs[row["trial_id"]].append(row)
        # A search goes on with other settings; the other groups' trials are all needed.
        self.to_do = {
            trial_id
            for trial_id, row in self._trials.items()
            if row["state"] == schema.RUNNING
            or (row["state"] == schema.FAILED and row["group"] != schema.SEARCH)
        }
        self._writer = TableWriter(folder)
        self.write()
        if self.trouble:
            raise self.trouble

    # What is known.

    def is_done(self, trial_id: str) -> bool:
        """Whether a trial needs no training any more."""
        return trial_id in self._trials and trial_id not in self.to_do

    def row(self, trial_id: str) -> Row:
        """A trial's row so far."""
        return self._trials[trial_id]

    def rows(self) -> list[Row]:
        """The trials' rows, in the order in which they were planned."""
        return list(self._trials.values())

    def epochs_of(self, trial_id: str) -> list[Row]:
        """A trial's epochs, in order."""
        return self._epochs[trial_id]

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(row["state"] in states for row in self._trials.values())

    # What is entered.

    def plan(self, planned: PlannedTrial) -> None:
        """Enters a trial before it starts, or starts again in a later session."""
        trial_id = planned.trial_id
        why = {name: getattr(planned, name) for name in ("trial_id", "group", "setting", "base")}
        row = self._trials.setdefault(trial_id, why | planned.config.to_dict() | {"n_retries": 0})
        row["state"] = schema.RUNNING
        self._epochs.setdefault(trial_id, [])
        self.to_do.add(trial_id)
        self._enter(trial_id, at_once=True)
        for listener in self.listeners:
            listener.planned(planned, row)

    def measure(
        self, trial_id: str, n_epochs: int, latest: Sequence[Row], totals: Mapping[str, Any]
    ) -> None:
        """Enters epochs and what they took.

        Args:
            trial_id: of the trial.
            n_epochs: trained so far, in this attempt and those that it goes on from.
            latest: rows of the latest of them, those that were not told yet, without the trial's
                name; after a restart from a checkpoint, of all.
            totals: values for `study.folder.schema.TOTALS`, of the trial so far.
        """
        row, history = self._trials[trial_id], self._epochs[trial_id]
        epochs = [{"trial_id": trial_id, **epoch} for epoch in latest]
        after = n_epochs - len(epochs)
        if not 0 <= after <= len(history):
            raise ValueError(f"{trial_id} leaves out epochs between {len(history)} and {after}")
        history[after:] = epochs  # what an earlier attempt had beyond them is void
        known = {name: totals[name] for name in schema.TOTALS}
        # An attempt that goes on from a checkpoint does not know everything again at once.
        row.update({k: v for k, v in known.items() if v is not None or k not in row})
        row.update(_summary(history))
        self._enter(trial_id, after)
        for listener in self.listeners:
            listener.measured(row, epochs)

    def fail_once(self, trial_id: str, error: str, note: str) -> None:
        """Enters that an attempt failed, or lost its node; the plan hands the trial out again."""
        row = self._trials[trial_id]
        row.update(n_retries=row["n_retries"] + 1, error=error)
        self._enter(trial_id)
        for listener in self.listeners:
            listener.failed_once(row, note)

    def end(self, trial_id: str, *, error: str | None = None, stopping: bool = False) -> Row:
        """Enters that a trial trains no further, and returns its row.

        With an error it has failed for good; else see `decide_state`.
        """
        row = self._trials[trial_id]
        if row["state"] in ENDS:
            return row
        row["state"] = decide_state(row, failed=error is not None, stopping=stopping)
        if row["state"] == schema.DIVERGED:
            error = f"The loss stopped being finite in epoch {row['diverged_epoch']}."
        if error is not None:
            row["error"] = error
        if row["state"] in ENDS:
            self.to_do.discard(trial_id)
        self._enter(trial_id, at_once=True)
        for listener in self.listeners:
            listener.ended(row)
        return row

    # The run folder.

    def write(self) -> None:
        """Writes the tables."""
        self._save(rewrite=True)

    def close(self) -> None:
        """Writes the tables, and deletes the checkpoints of trials that have ended."""
        self._save(rewrite=True)
        with self._noting_trouble():
            for name in self.folder.names(schema.CHECKPOINTS_FOLDER):
                if self.is_done(PurePosixPath(name).stem):
                    self.folder.delete(name)
            self.folder.tidy()

    def _enter(self, trial_id: str, after: float = math.inf, *, at_once: bool = False) -> None:
        self._dirty[trial_id] = min(after, self._dirty.get(trial_id, math.inf))
        self._tables_stale = True
        now = self._clock()
        if at_once or now >= self._next_append:
            self._save(rewrite=now >= self._next_rewrite)

    def _save(self, *, rewrite: bool) -> None:
        started = self._clock()
        with self._noting_trouble():
            if self._dirty:
                self._writer.append(self._change(*item) for item in self._dirty.items())
                self._dirty.clear()
            self._next_append = self._clock() + self._write_seconds
            if rewrite and self._tables_stale:
                rows = in_order(self.rows())
                epochs = [epoch for row in rows for epoch in self._epochs[row["trial_id"]]]
                self._writer.rewrite(rows, epochs)
                self._tables_stale = False
                took = self._clock() - started
                self._next_rewrite = self._clock() + max(self._write_seconds, took / WRITE_SHARE)
            if rewrite:
                self.on_write()
            self.trouble = None

    def _change(self, trial_id: str, after: float) -> Change:
        row = self._trials[trial_id]
        if after == math.inf:
            return Change(row)
        return Change(row, int(after), self._epochs[trial_id][int(after) :])

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            yield
        except RunFolderError as error:
            self.trouble = error


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows as the tables have them: by group and seed, in each the models' rows in turn.

    A model's rows are in the order in which they were planned, which follows from the study alone;
    how those of two models mix there depends on which trials ended first.
    """
    n_before: Counter[tuple[str, int, str]] = Counter()

    def place(row: Row) -> tuple[int, int, int, str]:
        of_model = row["group"], row["seed"], row["model"]
        n_before[of_model] += 1
        return schema.GROUPS.index(row["group"]), row["seed"], n_before[of_model], row["model"]

    return sorted(rows, key=place)


def config_of_row(row: Mapping[str, Any]) -> TrialConfig:
    """The trial that a row of the table describes."""
    return TrialConfig.from_dict({name: row[name] for name in FIELD_KINDS})


def _summary(history: list[Row]) -> Row:
    """The final and the best value of each metric, from a trial's epochs."""
    summary: Row = {"epochs_completed": len(history)}
    for metric in schema.METRICS:
        values = [(e[metric], e["epoch"]) for e in history if e.get(metric) is not None]
        summary[metric] = values[-1][0] if values else None
        best = min(values, default=(None, None))
        summary[f"best_{metric}"], summary[f"best_{metric}_epoch"] = best
    return summary
