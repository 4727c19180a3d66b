"""`optuna.db`: a picture of the searches, for Optuna Dashboard and for `optuna.load_study`.

Optuna works in the memory of this process. The file is a copy, made again at intervals: a file that
is locked, damaged or deleted does not affect the study.
"""

import logging
import sqlite3
import time
from contextlib import closing

import optuna
from sqlalchemy.pool import StaticPool

from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import Row
from study.plan.ledger import WRITE_SECONDS, WRITE_SHARE, Listener

WAIT_SECONDS = 10.0

_log = logging.getLogger(__name__)


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
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.storage = optuna.storages.RDBStorage(
            "sqlite://",
            engine_kwargs={"creator": lambda: self._connection, "poolclass": StaticPool},
        )
        self._next_copy = 0.0

    def ended(self, row: Row) -> None:
        """Copies what Optuna has learned, unless the last time was a moment ago."""
        started = time.monotonic()
        if row["group"] == schema.SEARCH and started >= self._next_copy:
            self._try_to_copy(0.0)
            took = time.monotonic() - started
            self._next_copy = started + took + max(self._copy_seconds, took / WRITE_SHARE)

    def close(self) -> None:
        """Leaves a whole copy: if the file cannot be written to, another one in its place."""
        try:
            if not self._try_to_copy(self._wait_seconds):
                self._replace()
        except RunFolderError as error:  # the study's own files will tell
            _log.warning("%s", error)
        self.storage.engine.dispose()
        self._connection.close()

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
        if self._folder.guard is not None:
            self._folder.guard()
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
