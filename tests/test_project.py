"""The project's own files: pins, the cluster's description, and a word on each module."""

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def test_cluster_yaml_passes_rays_validation():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    workers = config["available_node_types"]["gpu_worker"]
    assert workers["min_workers"] == 0
    assert workers["resources"]["GPU"] >= 1


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *extras["dashboards"], *extras["test"]]
    names.remove("convae-study[dashboards]")
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
    modules = sorted((ROOT / package).glob("*.py"))
    assert modules
    for module in modules:
        assert module.read_text().startswith('"""'), module
