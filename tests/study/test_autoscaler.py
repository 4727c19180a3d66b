"""What Ray's autoscaler goes by on the head: its file, or in Kubernetes the cluster's resource."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import yaml

from study import autoscaler

ROOT = Path(__file__).parents[2]
CLUSTER = "192.0.2.1:6379"


@pytest.fixture(autouse=True)
def on_the_head(monkeypatch):
    monkeypatch.setattr(
        autoscaler.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=CLUSTER)
    )


@pytest.fixture
def monitor(tmp_path):
    """Starts processes that look like the autoscaler's, which end with the test."""
    program = tmp_path / "monitor.py"
    program.write_text("input()")
    started = []

    def start(address, *options):
        command = [sys.executable, program, f"--gcs-address={address}", *options]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    yield start
    for process in started:
        process.communicate(b"\n")


def test_the_file_of_this_clusters_autoscaler_is_read(monitor, tmp_path):
    for name, address in (("other", "192.0.2.2:6379"), ("ours", CLUSTER)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"cluster_name: {name}")
        monitor(address, f"--autoscaling-config={path}")
    assert autoscaler._on_the_head() == {"cluster_name": "ours"}


def test_a_cluster_that_was_started_by_hand_has_none(monitor):
    monitor(CLUSTER)
    assert autoscaler._on_the_head() is None


@pytest.fixture
def kuberay(monkeypatch, tmp_path):
    """Kubernetes with the cluster of the manifest, as far as its head may look."""
    from ray.autoscaler._private.kuberay import node_provider

    job = yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())
    cluster = {
        "metadata": {"name": "study", "namespace": "space"},
        "spec": job["spec"]["rayClusterSpec"],
    }
    namespace = tmp_path / "namespace"
    namespace.write_text("space")

    class Kubernetes:
        def __init__(self, where):
            assert where == "space"

        def get(self, path):
            if path != "rayclusters/study":
                raise requests.HTTPError("403 Forbidden")
            return cluster

    monkeypatch.setattr(node_provider, "KubernetesHttpApiClient", Kubernetes)
    monkeypatch.setattr(autoscaler, "NAMESPACE_FILE", namespace)
    monkeypatch.setenv("RAY_CLUSTER_NAME", "study")
    return cluster["spec"]


@pytest.mark.usefixtures("kuberay")
def test_under_kuberay_the_cluster_of_the_manifest_says_it():
    config = autoscaler._on_the_head()
    kinds = config["available_node_types"]
    gpu = kinds["gpu"]
    assert gpu["max_workers"] == config["max_workers"] == 4
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (4, 1)
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0


def test_a_cluster_of_kuberays_that_does_not_scale_has_none(kuberay, monkeypatch):
    kuberay["enableInTreeAutoscaling"] = False
    assert autoscaler._on_the_head() is None
    monkeypatch.setenv("RAY_CLUSTER_NAME", "without the right to ask")
    assert autoscaler._on_the_head() is None
