"""Which processes there are, and a temporary folder of this one's that does not outlast it.

Ray kills its workers, and a process that is killed clears nothing away: so the next one does.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def process_exists(pid: int) -> bool:
    """Whether this machine has a process of that number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


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
