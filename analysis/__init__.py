"""Reads a run folder's tables and draws them. Imports neither TensorFlow nor Ray."""

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from convae.errors import tell_interrupts
from convae.hardware import can_be_made, home_folder

tell_interrupts()
if not can_be_made(home_folder() / ".config" / "matplotlib"):  # which would be told at length
    elsewhere = Path(tempfile.gettempdir()) / f"convae-matplotlib-{os.getuid()}"
    os.environ.setdefault("MPLCONFIGDIR", str(elsewhere))

# matplotlib cannot be imported while MPLBACKEND names a backend that it does not have; the figures
# need none.
if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)):
    import matplotlib

    with suppress(ValueError):
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"] = _backend
