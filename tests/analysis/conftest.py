"""The run folder that most tests of the analysis read."""

from pathlib import Path

import pytest
from synthetic_runs import trial, write_quick_run, write_run


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """A finished run of 3 epochs and one seed, with a search and reconstructions."""
    return write_quick_run(tmp_path / "quick")


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """A finished run of one trial, quick to report."""
    return write_run(tmp_path / "small", trial("conv", 8))
