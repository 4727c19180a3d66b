"""Imports point one way: study to convae, analysis to study.schema alone. New processes tell."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"tensorflow", "keras", "ray", "optuna"}
ROOT = Path(__file__).parent.parent
ANALYSIS = ", ".join(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "analysis").rglob("*.py"))
    if path.name != "__init__.py"
)


def loaded_by(module):
    """Names of the modules that importing this one, or these with commas between, loads."""
    code = f"import sys, {module}; print(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        (ANALYSIS, HEAVY | {"convae", "study.presets"}),
        ("study.schema", HEAVY | {"convae", "numpy", "pandas", "analysis"}),
        ("study.run", HEAVY | {"pandas", "pyarrow", "matplotlib", "analysis"}),
        # analysis.load reads run folders for both sides.
        ("study.driver", {"tensorflow", "keras", "matplotlib", "analysis.statistics"}),
        ("convae.config", HEAVY | {"numpy", "study"}),
        ("convae.data", HEAVY | {"study"}),
        ("convae.train", HEAVY | {"study"}),
    ],
)
def test_import_loads_none_of(module, forbidden):
    assert loaded_by(module) & forbidden == set()


def test_the_trainer_and_the_engine_know_neither_ray_nor_the_study():
    loaded = loaded_by("convae.engine")
    assert "convae.training" in loaded
    assert "tensorflow" in loaded
    assert loaded & {"ray", "optuna", "study", "analysis"} == set()
