"""The run folder: the manifest, and the tables of trials and epochs, written while the study runs.

The tables are complete, whatever Ray Tune keeps of its own; `analysis` and pandas read only them.
"""

import json
import math
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import convae
from convae.hardware import versions
from study import schema
from study.files import replacing
from study.space import PlannedTrial

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
# Tables are rewritten whole, so not more often than this; the last write is always made.
WRITE_SECONDS = 2.0


def arrow_schema(columns: Mapping[str, schema.Kind]) -> pa.Schema:
    """The Arrow schema of one of `study.schema`'s tables."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])


class Records:
    """Collects what the trials report and keeps the run folder's tables up to date.

    Args:
        folder: the run folder; it exists.
        resume: keep the trials that an earlier session finished. Failed and unfinished ones are
            forgotten: they run again.
    """

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        self.folder = folder
        self._trials: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, dict[int, dict[str, Any]]] = {}
        self._written = -math.inf
        if resume:
            for row in pq.read_table(folder / schema.TRIALS_FILE).to_pylist():
                if row["state"] not in (schema.FAILED, schema.RUNNING):
                    self._trials[row["trial_id"]] = row
                    self._epochs[row["trial_id"]] = {}
            for row in pq.read_table(folder / schema.EPOCHS_FILE).to_pylist():
                if row["trial_id"] in self._epochs:
                    self._epochs[row["trial_id"]][row["epoch"]] = row

    @property
    def trial_ids(self) -> frozenset[str]:
        """The trials entered so far."""
        return frozenset(self._trials)

    def start(self, planned: PlannedTrial) -> None:
        """Enters a trial, in the order in which trials start."""
        self._trials.setdefault(
            planned.trial_id,
            {
                "trial_id": planned.trial_id,
                "group": planned.group,
                **planned.config.to_dict(),
                "state": schema.RUNNING,
                "n_retries": 0,
            },
        )
        self._epochs.setdefault(planned.trial_id, {})

    def report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Takes a trial's result: new epochs, and its totals so far."""
        row, history = self._trials[trial_id], self._epochs[trial_id]
        for epoch in result["history"]:
            if epoch["epoch"] == 1:
                history.clear()  # the trial was retried from its beginning
            history[epoch["epoch"]] = {"trial_id": trial_id, **epoch}
        row.update({name: result[name] for name in RESULT_COLUMNS})
        row.update(_summary(history))
        self.write(at_leisure=True)

    def retry(self, trial_id: str, n_retries: int, error: str) -> None:
        """Notes that a trial failed and starts again."""
        self._trials[trial_id].update(n_retries=n_retries, error=error)

    def end(self, trial_id: str, state: str, error: str | None = None) -> dict[str, Any]:
        """Sets how a trial ended and returns its row."""
        row = self._trials[trial_id]
        row["state"] = state
        if error is not None:
            row["error"] = error
        self.write(at_leisure=True)
        return row

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(row["state"] in states for row in self._trials.values())

    def rows(self) -> list[dict[str, Any]]:
        """The trials' rows."""
        return list(self._trials.values())

    def write(self, *, at_leisure: bool = False) -> None:
        """Writes both tables; at leisure: only if the last time was a while ago."""
        if at_leisure and time.monotonic() - self._written < WRITE_SECONDS:
            return
        epochs = [row for history in self._epochs.values() for row in history.values()]
        for rows, columns, parquet, csv in (
            (self.rows(), schema.TRIAL_COLUMNS, schema.TRIALS_FILE, schema.TRIALS_CSV_FILE),
            (epochs, schema.EPOCH_COLUMNS, schema.EPOCHS_FILE, schema.EPOCHS_CSV_FILE),
        ):
            table = pa.Table.from_pylist(rows, arrow_schema(columns))
            with replacing(self.folder / parquet) as path:
                pq.write_table(table, path)
            with replacing(self.folder / csv) as path:
                pa.csv.write_csv(table, path)
        self._written = time.monotonic()


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


def read_manifest(folder: Path) -> dict[str, Any]:
    """`study.json` of a run folder."""
    text = (folder / schema.MANIFEST_FILE).read_text(encoding="utf-8")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


class Manifest:
    """`study.json`: what was run, on what, with what, and how it ended.

    Args:
        folder: the run folder.
        resume: go on with the manifest that is there; times add up over sessions.
        entries: further entries.
    """

    def __init__(self, folder: Path, *, resume: bool = False, **entries: Any) -> None:
        self._folder = folder
        self._started = time.monotonic()
        earlier = read_manifest(folder) if resume else {}
        self._earlier_seconds = earlier.get("wall_seconds") or 0.0
        self._entries: dict[str, Any] = {
            "schema_version": schema.SCHEMA_VERSION,
            "name": folder.name,
            "status": "running",
            "started_utc": earlier.get("started_utc", _now()),
            "n_sessions": earlier.get("n_sessions", 0) + 1,
            "finished_utc": None,
            "wall_seconds": None,
            "code": _code(),
            "versions": versions(),
            **entries,
        }
        self._write()

    def finish(self, status: str, **entries: Any) -> None:
        """Notes how the study ended."""
        self._entries.update(
            status=status,
            finished_utc=_now(),
            wall_seconds=round(self._earlier_seconds + time.monotonic() - self._started, 3),
            **entries,
        )
        self._write()

    def _write(self) -> None:
        with replacing(self._folder / schema.MANIFEST_FILE) as path:
            path.write_text(json.dumps(self._entries, indent=2) + "\n", encoding="utf-8")


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
