"""The run folder's Optuna storage: an SQLite file that Optuna Dashboard opens as it is.

On a disk Optuna works in the file itself. SQLite cannot work in a bucket, so there Optuna works in
a copy on this machine, which is sent to the bucket whenever Optuna has learned something.
"""

import tempfile
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from study.folder import schema
from study.storage import TEMPORARY_PREFIX, RunFolder, StorageError


class OptunaFile:
    """Optuna's storage for a run folder; close it at the end.

    Attributes:
        storage: what Optuna works with.

    Raises:
        StorageError: the folder cannot be read, or the file not be used.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._copy = None if folder.local else tempfile.TemporaryDirectory()
        if self._copy is None:
            self._path = Path(str(folder.local)) / schema.OPTUNA_FILE
        else:
            self._path = Path(self._copy.name) / schema.OPTUNA_FILE
            if content := folder.read(schema.OPTUNA_FILE):
                self._path.write_bytes(content)
        try:
            if not self._path.exists():
                _create(self._path)
            self.storage = _open(self._path)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
            reason = getattr(error, "orig", error)
            raise StorageError(
                f"{folder}/{schema.OPTUNA_FILE} cannot be used: {reason}."
            ) from error

    def save(self) -> None:
        """Brings the run folder's file up to date.

        Raises:
            StorageError: it cannot be written.
        """
        if self._copy is not None:
            self._folder.write(schema.OPTUNA_FILE, self._path.read_bytes())

    def close(self) -> None:
        """Lets go of the file."""
        self.storage.engine.dispose()
        if self._copy is not None:
            self._copy.cleanup()


def _open(path: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(f"sqlite:///{path}")


def _create(path: Path) -> None:
    """Makes an empty storage; a death on the way leaves no half of one under its name."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    temporary.unlink(missing_ok=True)
    _open(temporary).engine.dispose()
    temporary.replace(path)
