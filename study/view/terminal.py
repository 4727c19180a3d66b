"""The terminal of a command that outlives it: nobody's terminal is needed to train."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class _Forgiving(io.TextIOBase):
    """A text stream that shows ? for what it cannot show, and falls silent once it is closed.

    A reader that goes (`| head -1`), or a connection that drops, is no reason to stop.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Writes if it still can."""
        try:
            self._stream.write(text)
        except (OSError, ValueError):
            self._fall_silent()
        return len(text)

    def flush(self) -> None:
        """Flushes if it still can."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._fall_silent()

    def _fall_silent(self) -> None:
        # What is buffered would fail again, at the latest when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())
            os.close(devnull)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Whether people watch."""
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self._stream.encoding


@contextlib.contextmanager
def forgiving_terminal() -> Iterator[None]:
    """While the block runs, standard output and error may go away or lack characters."""
    streams = sys.stdout, sys.stderr
    with Path(os.devnull).open("w") as nowhere:  # for a stream that was closed before
        sys.stdout, sys.stderr = (_Forgiving(stream or nowhere) for stream in streams)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = streams
