"""The run folder, on a disk or in a bucket: every file in it is written whole or not at all.

On a disk a file is written under a temporary name and renamed; a bucket's objects appear whole.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import fs

from analysis.load import open_folder

# What a name of a writer's own temporary file starts with; it is hidden, and never read.
TEMPORARY_PREFIX = ".writing-"


class StorageError(Exception):
    """The run folder cannot be written or read; the message names it and the reason."""


def inside(storage: str, name: str) -> str:
    """The path or URI of a folder in a storage; a URI's options stay at its end."""
    where, separator, query = storage.partition("?") if "://" in storage else (storage, "", "")
    return f"{where.rstrip('/')}/{name}{separator}{query}"


class RunFolder:
    """A folder for results, the same to every process that opens it.

    Args:
        where: a path or a URI (s3://, gs://) of STORAGE/NAME.

    Raises:
        RunFolderError: for a URI that pyarrow cannot open.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = where if "://" in str(where) else str(Path(where).absolute())
        self._filesystem, self._folder = open_folder(where)

    def __str__(self) -> str:
        return without_secrets(str(self.where))

    def __reduce__(self) -> tuple[type["RunFolder"], tuple[str]]:
        return type(self), (str(self.where),)

    @property
    def name(self) -> str:
        """The study's name."""
        return self._folder.rpartition("/")[2]

    @property
    def parent(self) -> "RunFolder":
        """The storage that it lies in."""
        where, separator, query = str(self.where).partition("?")
        return RunFolder(where.rstrip("/").rpartition("/")[0] + separator + query)

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disks; None in a bucket."""
        return Path(self._folder) if isinstance(self._filesystem, fs.LocalFileSystem) else None

    def create(self, name: str = "") -> None:
        """Makes the folder, or one in it.

        Raises:
            StorageError: it cannot be made.
        """
        with self._storage_errors():
            self._filesystem.create_dir(self._path(name), recursive=True)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, in place of the one of that name if there is one.

        Raises:
            StorageError: it cannot be written; an older file of that name is still there.
        """
        with self._storage_errors(name):
            if self.local is not None:
                _replace(self.local / name, content)
                return
            with self._filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(content)

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none.

        Raises:
            StorageError: it cannot be read.
        """
        with self._storage_errors():
            try:
                with self._filesystem.open_input_stream(self._path(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def exists(self) -> bool:
        """Whether there is anything of this name already.

        Raises:
            StorageError: it cannot be found out.
        """
        with self._storage_errors():
            info = self._filesystem.get_file_info(self._folder)
            return bool(info.type != fs.FileType.NotFound)

    def names(self, folder: str) -> list[str]:
        """The files in a folder, by their names relative to the run folder, in order.

        Raises:
            StorageError: they cannot be listed.
        """
        with self._storage_errors():
            selector = fs.FileSelector(self._path(folder), allow_not_found=True)
            infos = self._filesystem.get_file_info(selector)
            return sorted(
                f"{folder}/{info.base_name}" for info in infos if info.type == fs.FileType.File
            )

    def sweep(self) -> None:
        """Deletes the temporary files of writes that the death of a process cut short.

        Raises:
            StorageError: one cannot be deleted.
        """
        with self._storage_errors():
            for path in self.local.rglob(f"{TEMPORARY_PREFIX}*") if self.local else ():
                path.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there.

        Raises:
            StorageError: it cannot be deleted.
        """
        with self._storage_errors(), suppress(FileNotFoundError):
            self._filesystem.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}".rstrip("/")

    def _named(self, name: str) -> str:
        return f"{self}/{name}" if name else str(self)

    @contextmanager
    def _storage_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or without_secrets(str(error))
            raise StorageError(f"{self._named(name)} cannot be used: {reason}.") from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # or the name may outlive the content if the machine dies
        Path(temporary).chmod(0o644)  # mkstemp's own mode shuts other users out
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def without_secrets(text: str) -> str:
    """A text with the keys and passwords that URIs in it hold blotted out."""
    text = re.sub(r"(\w+://)[^/@\s?]+@", r"\1***@", text)
    secret = r"(?i)([?&][^=&\s]*(?:key|secret|token|password)[^=&\s]*=)[^&\s]+"
    return re.sub(secret, r"\1***", text)
