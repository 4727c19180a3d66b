"""Reads a run folder's tables and draws them. Imports neither TensorFlow nor Ray."""

import os
import sys
from contextlib import suppress

from convae.errors import tell_interrupts

tell_interrupts()

# matplotlib cannot be imported while MPLBACKEND names a backend that it does not have; the figures
# need none.
if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", None)):
    import matplotlib

    with suppress(ValueError):
        matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"] = _backend
