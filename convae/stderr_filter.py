"""Keeps TensorFlow's start-up notes off the terminal of a command that a person runs.

Its C++ code writes them to file descriptor 2 before any log level is read (TensorFlow 2.21).
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# A line of Abseil's log, or what TensorFlow writes around it.
_NOTE = re.compile(
    r"[IWE]\d{4} \d\d:\d\d|WARNING: All log messages before absl|To enable the following instr"
)


@contextmanager
def filtered_stderr() -> Iterator[None]:
    """Drops such notes while the block runs; other lines follow when it ends.

    If the block raises, all lines follow: the notes may tell why.
    """
    if sys.stderr is None:  # it is closed
        os.open(os.devnull, os.O_WRONLY)  # gets its number, lest a file of ours have the notes
        yield
        return
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as held:
        os.dup2(held.fileno(), 2)
        drops = True
        try:
            yield
        except Exception:
            drops = False
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            sys.stderr.writelines(line for line in held if not (drops and _NOTE.match(line)))
