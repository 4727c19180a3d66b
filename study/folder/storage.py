"""The run folder, on a disk or in a bucket: every file in it is written whole or not at all.

On a disk a file is written under a temporary name and renamed; a bucket's objects appear whole.
A path means itself, whatever characters it has; only a leading ~ stands for the home folder.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from convae.errors import UserError

# What the name of a file that is being written starts with; it is hidden, and never read.
TEMPORARY_PREFIX = ".writing-"


class RunFolderError(UserError):
    """A run folder that cannot be read or written; the message names the file and the remedy."""


class RunFolder:
    """A folder for results, the same to every process that opens it.

    Its methods raise a `RunFolderError` if storage fails; what a write would replace is still there
    then.

    Args:
        where: STORAGE/NAME, a path or a URI (s3://, gs://); the attribute is an absolute path, or
            the URI.

    Raises:
        RunFolderError: a URI that pyarrow cannot open.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        # Called before each change; raises a RunFolderError if this process may make none.
        self.guard: Callable[[], None] | None = None
        text = os.fspath(where)
        self._filesystem: fs.FileSystem = fs.LocalFileSystem()
        if "://" not in text:
            self.where = self._folder = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111
            if self.where != self.where.encode(errors="replace").decode():
                raise RunFolderError(f"{self.where!a} has a name that is no UTF-8; give another.")
            return  # (pathlib would refuse the ~ of nobody's home, which is a legal name)
        try:
            self._filesystem, folder = fs.FileSystem.from_uri(text)
        except (ValueError, OSError, ImportError) as error:
            known = text.startswith(("s3://", "gs://", "gcs://"))
            remedy = "see to its name, the network and the credentials"
            raise RunFolderError(
                f"{without_secrets(text)} cannot be opened ({without_secrets(first_line(error))});"
                f" {remedy if known else 'give a local path or an s3:// or gs:// URI'}."
            ) from error
        self.where, self._folder = text, folder.rstrip("/")

    @classmethod
    def of(cls, storage: str, name: str) -> "RunFolder":
        """The folder of this name in a storage; a URI's options stay at its end.

        Raises:
            RunFolderError: the name is not that of a folder, or the storage cannot be opened.
        """
        if not name or name in (".", "..") or "/" in name or not name.isprintable():
            raise RunFolderError(f"--name {name!r} must be a plain folder name.")
        if "://" not in storage:
            return cls(Path(storage) / name)
        where, separator, query = storage.partition("?")
        return cls(f"{where.rstrip('/')}/{quote(name, safe='')}{separator}{query}")

    def __str__(self) -> str:
        return without_secrets(self.where)

    def __reduce__(self) -> tuple[type["RunFolder"], tuple[str]]:
        return type(self), (self.where,)

    @property
    def name(self) -> str:
        """The study's name."""
        return self._folder.rpartition("/")[2]

    @property
    def parent(self) -> "RunFolder":
        """The storage that it lies in."""
        if "://" not in self.where:
            return RunFolder(Path(self.where).parent)
        where, separator, query = self.where.partition("?")
        return RunFolder(where.rstrip("/").rpartition("/")[0] + separator + query)

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disks; None in a bucket."""
        return Path(self._folder) if isinstance(self._filesystem, fs.LocalFileSystem) else None

    def create(self) -> None:
        """Makes the folder, unless it is there."""
        with self._storage_errors():
            if self.local is not None:
                self.local.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, in the folder or in one folder more, in place of an older one."""
        self.check_guard()
        with self._storage_errors(name):
            if self.local is not None:
                _replace(self.local, name, content)
                return
            with self._filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(content)

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        with self._storage_errors(name):
            try:
                with self._filesystem.open_input_stream(self._path(name)) as stream:
                    return bytes(stream.read())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self) -> bool:
        """Whether there is anything of this name already."""
        with self._storage_errors():
            info = self._filesystem.get_file_info(self._folder)
            return bool(info.type != fs.FileType.NotFound)

    def names(self, folder: str) -> list[str]:
        """The files in a folder of it, by their names relative to the run folder, in order."""
        with self._storage_errors(folder):
            selector = fs.FileSelector(self._path(folder), allow_not_found=True)
            infos = self._filesystem.get_file_info(selector)
        found = [info.base_name for info in infos if info.type == fs.FileType.File]
        return sorted(f"{folder}/{name}" for name in found if not name.startswith(TEMPORARY_PREFIX))

    def tidy(self) -> None:
        """Deletes folders in it that are empty; a bucket has none."""
        with self._storage_errors():
            for path in self.local.iterdir() if self.local else ():
                with suppress(OSError):  # no folder, or not empty
                    path.rmdir()

    def sweep(self) -> None:
        """Deletes the temporary files of writes that the death of a process cut short."""
        with self._storage_errors():
            for path in self.local.rglob(f"{TEMPORARY_PREFIX}*") if self.local else ():
                path.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        self.check_guard()
        with self._storage_errors(name), suppress(FileNotFoundError):
            self._filesystem.delete_file(self._path(name))

    def check_guard(self) -> None:
        """Makes sure that this process may change the folder."""
        if self.guard is not None:
            self.guard()

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    @contextmanager
    def _storage_errors(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else without_secrets(first_line(error))
            named = f"{self}/{name}" if name else str(self)
            raise RunFolderError(f"{named} cannot be used: {reason.rstrip('.')}.") from error


def temporary_name() -> str:
    """A name that no other file has."""
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def _replace(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    if path.parent != folder:  # the run folder itself may have been taken away
        path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(temporary_name())
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # or the name may outlive the content if the machine dies
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # likewise the name itself
    finally:
        os.close(directory)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_secrets(text: str) -> str:
    """A text with the keys and passwords that URIs in it hold blotted out."""
    text = re.sub(r"(\w+://)[^/@\s?]+@", r"\1***@", text)
    secret = r"(?i)([?&][^=&\s]*(?:key|secret|token|password)[^=&\s]*=)[^&\s]+"
    return re.sub(secret, r"\1***", text)
