"""The project's own files: pins, its version, and a word on each module."""

import tomllib
from pathlib import Path

import pytest
import yaml

import convae

ROOT = Path(__file__).parent.parent


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    custom = "convae-study[cluster,dashboards,mlflow]"  # what the tests need of the other extras
    assert custom in extras["test"]
    names = [*project["dependencies"]]
    for extra in ("cluster", "dashboards", "gcp", "mlflow", "test"):
        names += [name for name in extras[extra] if name != custom]
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for requirement in names:
        name = requirement.split(">")[0].split("[")[0].lower()
        assert f"\n{name}==" in pins, requirement


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    assert all(line.count("==") == 1 and " " not in line and "/" not in line for line in pins)


@pytest.mark.parametrize("package", ["analysis", "benchmarks", "convae", "study"])
def test_every_module_says_what_it_is_for(package):
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        assert module.read_text().startswith('"""'), module


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == convae.__version__
    newest = f"## {convae.__version__} – {citation['date-released']}"
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line[:3] == "## "
    ]
    # What is not released yet comes before.
    assert next(line for line in headings if line != "## Unreleased") == newest
