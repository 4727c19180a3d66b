"""Which processes there are, signals to this one, and a temporary folder that does not outlast it.

Ray kills its workers, and a process that is killed clears nothing away: so the next one does.
"""

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import signal
from typing import Any


def process_exists(pid: int) -> bool:
    """Whether this machine has a process of that number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


@contextmanager
def handling_signals(handlers: Mapping[int, Any]) -> Iterator[None]:
    """While the block runs, these handle signals; in another thread than the main one, nothing."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal(number, handler) for number, handler in handlers.items() if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal(number, handler)


def process_folder(prefix: str) -> Path:
    """A new temporary folder, gone with this process; what killed ones left goes at once.

    Args:
        prefix: of its name; the process's number follows.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for other in folder.parent.glob(f"{prefix}*-*"):
        pid = other.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not process_exists(int(pid)):
            shutil.rmtree(other, ignore_errors=True)
    return folder
