"""Standard output and error that may be closed while a study runs: it goes on without them."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class _ForgivingStream:
    """A text stream that shows ? for what it cannot show, and falls silent once it is closed.

    A reader that goes (`| head -1`), or a connection that drops, is no reason to stop.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._falling_silent():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._falling_silent():
            self._stream.flush()

    @contextlib.contextmanager
    def _falling_silent(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            # What is buffered would fail again, at the latest when the interpreter ends.
            with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def forgiving_terminal() -> Iterator[None]:
    """While the block runs, standard output and error may go away or lack characters."""
    streams = sys.stdout, sys.stderr
    with Path(os.devnull).open("w") as nowhere:  # for a stream that was closed before
        sys.stdout, sys.stderr = (_ForgivingStream(stream or nowhere) for stream in streams)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = streams
