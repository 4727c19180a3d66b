"""Programs that some tests need and not every machine has."""

import os
import shutil

import pytest


def need(*names, remedy):
    """Skips a test where a program is missing, or fails it where nothing may be left out."""
    if missing := [name for name in names if not shutil.which(name)]:
        reason = f"needs {' and '.join(missing)}: {remedy}"
        if os.environ.get("CONVAE_TESTS") == "all":  # .ci/run
            pytest.fail(reason)
        pytest.skip(reason)
