"""The run folder: the manifest, and the tables of trials and epochs, written while the study runs.

The tables are complete, whatever Ray Tune keeps of its own; `analysis` and pandas read only them.
They are rewritten whole at times; until then a journal holds each trial that has ended since.
"""

import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import convae
from convae.hardware import versions
from study.folder import schema
from study.space import PlannedTrial
from study.storage import RunFolder, StorageError, without_secrets

ARROW_TYPES = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
# What a trial's result says of the trial as a whole. (Tune adds a trial_id of its own.)
RESULT_COLUMNS = (
    "state",
    "diverged_epoch",
    "n_parameters",
    "train_seconds",
    "eval_seconds",
    "compile_seconds",
    "wall_seconds",
    "device",
)
# Tables are rewritten whole: not more often than this, and for a twentieth of the time at most.
WRITE_SECONDS = 2.0
WRITE_SHARE = 0.05


def arrow_schema(columns: Mapping[str, schema.Kind]) -> pa.Schema:
    """The Arrow schema of one of `study.folder.schema`'s tables."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])


class Records:
    """Collects what the trials report and keeps the run folder's tables up to date.

    Args:
        folder: the run folder; it exists.
        resume: go on with an earlier session's tables. Trials that it left unfinished, and failed
            ones that the study needs, keep their rows until they run again.
        on_write: called after the tables were written.

    Raises:
        StorageError: the earlier session's tables are torn.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        resume: bool = False,
        on_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self._on_write = on_write
        self._trials: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, dict[int, dict[str, Any]]] = {}
        self._journal: set[str] = set()  # names of files that the tables make needless
        self._unfinished: set[str] = set()
        self._next_write = -math.inf
        self.trouble: StorageError | None = None
        if resume:
            folder.sweep()
            self._load()

    def _load(self) -> None:
        names = (schema.TRIALS_FILE, schema.EPOCHS_FILE)
        missing = [name for name in names if self.folder.read(name) is None]
        # The earlier session died before its first trial: over its first, empty tables, perhaps.
        if missing == list(names) or (missing == [names[1]] and not self._rows(names[0])):
            return
        tables = [self._rows(name) for name in names]
        trials = {row["trial_id"]: row for row in tables[0]}
        epochs: dict[str, dict[int, dict[str, Any]]] = {trial_id: {} for trial_id in trials}
        for row in tables[1]:
            epochs[row["trial_id"]][row["epoch"]] = row
        for name in self.folder.names(schema.JOURNAL_FOLDER):
            entry = self._journal_entry(name)
            trial_id = entry["trial"]["trial_id"]
            trials[trial_id] = entry["trial"]
            epochs[trial_id] = {row["epoch"]: row for row in entry["epochs"]}
            self._journal.add(name)
        for trial_id, row in trials.items():
            # A search goes on with other settings; the other groups' trials are all needed.
            again = row["state"] == schema.FAILED and row["group"] != schema.SEARCH
            if again or row["state"] == schema.RUNNING:
                self._unfinished.add(trial_id)
        self._trials = {name: {**schema.LATER_COLUMNS, **row} for name, row in trials.items()}
        self._epochs = epochs

    def _journal_entry(self, name: str) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(self.folder.read(name) or b"")
        except ValueError as error:
            raise StorageError(
                f"{self.folder}/{name} is torn, so the study cannot go on; delete it, and its trial"
                " runs again."
            ) from error
        return entry

    def _rows(self, name: str) -> list[dict[str, Any]]:
        content = self.folder.read(name)
        try:
            rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
        except (pa.ArrowException, OSError, TypeError) as error:
            raise StorageError(
                f"{self.folder}/{name} is missing or torn, so the study cannot go on; restore it"
                " from a copy, or start a new study."
            ) from error
        return rows

    @property
    def trial_ids(self) -> frozenset[str]:
        """The trials entered so far."""
        return frozenset(self._trials)

    @property
    def ended(self) -> frozenset[str]:
        """The trials that do not run again, as an earlier session ended them."""
        return frozenset(self._trials) - self._unfinished

    def row(self, trial_id: str) -> dict[str, Any]:
        """A trial's row so far."""
        return self._trials[trial_id]

    def epochs_of(self, trial_id: str) -> list[dict[str, Any]]:
        """A trial's epochs, in order."""
        return [row for _, row in sorted(self._epochs[trial_id].items())]

    def start(self, planned: PlannedTrial) -> None:
        """Enters a trial, in the order in which trials first start."""
        row = self._trials.setdefault(
            planned.trial_id,
            {
                "trial_id": planned.trial_id,
                "group": planned.group,
                **planned.config.to_dict(),
                "n_retries": 0,
            },
        )
        row["state"] = schema.RUNNING
        self._epochs.setdefault(planned.trial_id, {})

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Takes a trial's result: new epochs, and its totals so far."""
        row, history = self._trials[trial_id], self._epochs[trial_id]
        for epoch in result["history"]:
            if epoch["epoch"] == 1:
                history.clear()  # it goes on from a checkpoint, or anew: all epochs come again
            history[epoch["epoch"]] = {"trial_id": trial_id, **epoch}
        row.update({name: result[name] for name in RESULT_COLUMNS})
        row.update(_summary(history))
        self.write(at_leisure=True)

    def retry(self, trial_id: str, error: str) -> None:
        """Notes that a trial failed, or lost its node, and starts again."""
        row = self._trials[trial_id]
        row.update(n_retries=row["n_retries"] + 1, error=error)

    def end(self, trial_id: str, state: str, error: str | None = None) -> dict[str, Any]:
        """Sets how a trial ended and returns its row. From here on a crash does not lose it."""
        row = self._trials[trial_id]
        row["state"] = state
        if error is not None:
            row["error"] = error
        if state != schema.RUNNING:
            name = f"{schema.JOURNAL_FOLDER}/{trial_id}.json"
            entry = {"trial": row, "epochs": list(self._epochs[trial_id].values())}
            with self._noting_trouble():
                self.folder.write(name, json.dumps(entry).encode())
                self._journal.add(name)
        self.write(at_leisure=True)
        return row

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(row["state"] in states for row in self._trials.values())

    def rows(self) -> list[dict[str, Any]]:
        """The trials' rows."""
        return list(self._trials.values())

    def write(self, *, at_leisure: bool = False) -> None:
        """Writes both tables; at leisure: only if the last time was a while ago.

        Storage that fails is noted in `trouble`, and tried again the next time.
        """
        started = time.monotonic()
        if at_leisure and started < self._next_write:
            return
        with self._noting_trouble():
            self._write_tables()
            self._on_write()
            self.trouble = None
        took = time.monotonic() - started
        self._next_write = time.monotonic() + max(WRITE_SECONDS, took / WRITE_SHARE)

    def _write_tables(self) -> None:
        epochs = [row for history in self._epochs.values() for row in history.values()]
        for rows, columns, parquet, csv in (
            (self.rows(), schema.TRIAL_COLUMNS, schema.TRIALS_FILE, schema.TRIALS_CSV_FILE),
            (epochs, schema.EPOCH_COLUMNS, schema.EPOCHS_FILE, schema.EPOCHS_CSV_FILE),
        ):
            table = pa.Table.from_pylist(rows, arrow_schema(columns))
            for name, write in ((parquet, pq.write_table), (csv, pa.csv.write_csv)):
                sink = pa.BufferOutputStream()
                write(table, sink)
                self.folder.write(name, sink.getvalue().to_pybytes())
        # What the tables hold needs no journal, and what has ended no checkpoint.
        while self._journal:
            name = self._journal.pop()
            self.folder.delete(name)
            self.folder.delete(f"{schema.CHECKPOINTS_FOLDER}/{Path(name).stem}.npz")

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            self.trouble = error


def _summary(history: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The final and the best value of each metric, from a trial's epochs."""
    summary: dict[str, Any] = {"epochs_completed": len(history)}
    for metric in schema.METRICS:
        values = {e: row[metric] for e, row in history.items() if row.get(metric) is not None}
        if values:
            best = min(values, key=values.__getitem__)
            summary[metric] = values[max(values)]
            summary[f"best_{metric}"] = values[best]
            summary[f"best_{metric}_epoch"] = best
    return summary


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """`study.json` of a run folder.

    Raises:
        StorageError: it is missing or torn.
    """
    content = folder.read(schema.MANIFEST_FILE)
    try:
        manifest: dict[str, Any] = json.loads(content or b"")
    except ValueError as error:
        raise StorageError(
            f"{folder}/{schema.MANIFEST_FILE} is missing or damaged, so the study cannot go on;"
            " restore it from a copy, or start a new study."
        ) from error
    return manifest


class Manifest:
    """`study.json`: what was run, on what, with what, and how it ended.

    Args:
        folder: the run folder.
        command: the command line. That of the first session stays the study's own.
        resume: go on with the manifest that is there; times add up over sessions.
        entries: further entries.

    Raises:
        StorageError: it cannot be written, or is to be resumed and is torn.
    """

    def __init__(
        self, folder: RunFolder, command: list[str], *, resume: bool = False, **entries: Any
    ) -> None:
        self._folder = folder
        self._started = time.monotonic()
        self._written = False
        earlier = read_manifest(folder) if resume else {}
        self.earlier_seconds: float = earlier.get("wall_seconds") or 0.0
        code = _code()
        session = {"started_utc": _now(), "command": command, "git_commit": code["git_commit"]}
        self._entries: dict[str, Any] = {
            "schema_version": schema.SCHEMA_VERSION,
            "name": folder.name,
            "status": "running",
            "command": earlier.get("command", command),
            "started_utc": earlier.get("started_utc", session["started_utc"]),
            "finished_utc": None,
            "sessions": [*earlier.get("sessions", []), session],
            "code": code,
            "versions": versions(),
            **entries,
        }
        self.write()

    def finish(self, status: str, **entries: Any) -> None:
        """Notes how the study ended.

        Raises:
            StorageError: it cannot be written.
        """
        self._entries.update(status=status, finished_utc=_now(), **entries)
        self.write()

    def write(self) -> None:
        """Writes it with the time spent so far, which a session that is killed would not tell.

        Raises:
            StorageError: it cannot be written.
        """
        if self._written and self._folder.read(schema.MANIFEST_FILE) is None:
            # The next file would make the folder anew, without the rest.
            raise StorageError(f"{self._folder} has vanished while the study ran.")
        seconds = self.earlier_seconds + time.monotonic() - self._started
        self._entries["wall_seconds"] = round(seconds, 3)
        text = without_secrets(json.dumps(self._entries, indent=2)) + "\n"
        self._folder.write(schema.MANIFEST_FILE, text.encode())
        self._written = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _code() -> dict[str, Any]:
    """The identity of the code: its version, and its commit where it runs from a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(root), *arguments]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    status = git("status", "--porcelain")
    return {
        "version": convae.__version__,
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
    }
