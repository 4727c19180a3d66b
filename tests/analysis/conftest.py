"""The run folder that most tests of the analysis read."""

from pathlib import Path

import pytest
from synthetic_runs import quick_trials, write_run


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """A finished run of 3 epochs and one seed, with a search and reconstructions."""
    shown = ("reference-conv-8-0", "reference-dense-512-0")
    return write_run(tmp_path / "quick", *quick_trials(), shown=shown)
