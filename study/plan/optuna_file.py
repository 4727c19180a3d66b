"""`optuna.db`: a picture of the searches, for Optuna Dashboard and for `optuna.load_study`.

Optuna works in the memory of this process, without a database, which would take most of a driver's
time. The file is a copy, made again at intervals: one that is locked, damaged or deleted does not
affect the study.
"""

import copy
import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial
from sqlalchemy.pool import StaticPool

from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import Row
from study.plan.ledger import WRITE_SECONDS, WRITE_SHARE, Listener
from study.plan.trials import PlannedTrial

WAIT_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass
class _Drawn:
    """What the picture has of a study."""

    study_id: int
    trial_ids: list[int] = field(default_factory=list)  # by number
    running: set[int] = field(default_factory=set)  # numbers of those that had not ended


class OptunaFile(Listener):
    """Optuna's `storage`, and its copy in a run folder; close it at the end."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        wait_seconds: float = WAIT_SECONDS,  # at the end, for another program to let go of it
        copy_seconds: float = WRITE_SECONDS,  # between two copies, at least
    ) -> None:
        self._folder, self._wait_seconds, self._copy_seconds = folder, wait_seconds, copy_seconds
        self.storage = optuna.storages.InMemoryStorage()
        # The file as it shall be, in memory.
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._picture = optuna.storages.RDBStorage(
            "sqlite://",
            engine_kwargs={"creator": lambda: self._connection, "poolclass": StaticPool},
        )
        self._next_copy = 0.0
        self._drawn: dict[str, _Drawn] = {}  # by study

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """Enters a trial that runs."""
        if row["group"] == schema.SEARCH:
            self._draw()

    def ended(self, row: Row) -> None:
        """Copies what Optuna has learned, unless the last time was a moment ago."""
        if row["group"] != schema.SEARCH:
            return
        self._draw()
        started = time.monotonic()
        if started >= self._next_copy:
            self._try_to_copy(0.0)
            took = time.monotonic() - started
            self._next_copy = started + took + max(self._copy_seconds, took / WRITE_SHARE)

    def close(self) -> None:
        """Leaves a whole copy: if the file cannot be written to, another one in its place."""
        self._draw()
        try:
            if not self._try_to_copy(self._wait_seconds):
                self._replace()
        except RunFolderError as error:  # the study's own files will tell
            _log.warning("%s", error)
        self._picture.engine.dispose()
        self._connection.close()

    def _draw(self) -> None:
        for study in self.storage.get_all_studies():
            name = study.study_name
            if name not in self._drawn:
                self._drawn[name] = _Drawn(self._picture.create_new_study(study.directions, name))
            drawn = self._drawn[name]
            study_id = self.storage.get_study_id_from_name(name)
            trials = self.storage.get_all_trials(study_id, deepcopy=False)
            for number in [n for n in drawn.running if trials[n].state.is_finished()]:
                drawn.running.remove(number)
                self._finish(drawn.trial_ids[number], trials[number])
            for trial in trials[len(drawn.trial_ids) :]:
                bare = copy.copy(trial)
                bare.intermediate_values = {}
                trial_id = self._picture.create_new_trial(drawn.study_id, template_trial=bare)
                drawn.trial_ids.append(trial_id)
                if trial.state.is_finished():
                    self._add_curve(trial_id, trial)
                else:
                    drawn.running.add(trial.number)

    def _finish(self, trial_id: int, trial: FrozenTrial) -> None:
        for key, value in trial.user_attrs.items():
            self._picture.set_trial_user_attr(trial_id, key, value)
        self._add_curve(trial_id, trial)
        self._picture.set_trial_state_values(trial_id, trial.state, trial.values)

    def _add_curve(self, trial_id: int, trial: FrozenTrial) -> None:
        """Enters the values by epoch, which are finite.

        By Optuna's own methods each of them takes a millisecond, and a trial has tens.
        """
        values = ((trial_id, *each, "FINITE") for each in trial.intermediate_values.items())
        with self._connection:
            self._connection.executemany(
                "INSERT INTO trial_intermediate_values"
                " (trial_id, step, intermediate_value, intermediate_value_type)"
                " VALUES (?, ?, ?, ?)",
                values,
            )

    def _try_to_copy(self, wait_seconds: float) -> bool:
        """Whether it succeeded; the old file stays as it was if not."""
        try:
            try:
                self._copy(wait_seconds)
            except sqlite3.OperationalError:  # locked, or the disk is full
                raise
            except sqlite3.DatabaseError:  # torn, or no database at all
                self._replace()
        except (sqlite3.Error, OSError, RunFolderError) as error:
            _log.info(
                "%s/%s was not brought up to date: %s", self._folder, schema.OPTUNA_FILE, error
            )
            return False
        return True

    def _replace(self) -> None:
        self._folder.write(schema.OPTUNA_FILE, self._connection.serialize())

    def _copy(self, wait_seconds: float) -> None:
        if self._folder.local is None:
            self._replace()
            return
        self._folder.check_guard()
        path = self._folder.local / schema.OPTUNA_FILE
        if not path.exists():  # SQLite has its own idea of who may read a new file
            self._folder.write(schema.OPTUNA_FILE, b"")
        deadline = time.monotonic() + wait_seconds

        def give_up(status: int, *_: int) -> None:
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                if time.monotonic() >= deadline:
                    raise TimeoutError("another program has locked it")
                time.sleep(0.1)

        # In place, so that a dashboard that has the file open sees the new state.
        with closing(sqlite3.connect(path, timeout=0)) as file:
            self._connection.backup(file, progress=give_up, sleep=0.05)
