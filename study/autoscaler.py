"""What Ray's autoscaler may start, so that a study knows what to wait for and what never comes.

Ray 2.60 has a place for it in the cluster's state, which none of its open autoscalers fills; what
they go by lies on the head.
"""

import os
import sys
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import cloudpickle

HEAD = "node:__internal_head__"  # Ray's resource that the head alone has
MONITOR = "monitor.py"  # the autoscaler's process
MAX_WORKERS = 2  # of a configuration that does not say
OPTION = "--autoscaling-config="
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def configuration() -> dict[str, Any] | None:
    """The configuration of the cluster's autoscaler, as `cluster.yaml` has it; None without one.

    Asks the head, which need not know this project.
    """
    task = ray.remote(num_cpus=0, max_retries=0, resources={HEAD: 0.001})(_on_the_head)
    found: dict[str, Any] | None = ray.get(task.remote())
    return found


def _on_the_head() -> dict[str, Any] | None:
    try:
        if path := _path_of_the_monitor(ray.get_runtime_context().gcs_address):
            config: dict[str, Any] = yaml.safe_load(path.read_text())
            return config
        # KubeRay's autoscaler runs in a container of its own.
        if name := os.environ.get("RAY_CLUSTER_NAME"):
            return _of_kuberay(name)
    except OSError:  # without an autoscaler, KubeRay's head has no right to ask
        pass
    return None


def _path_of_the_monitor(gcs_address: str) -> Path | None:
    """The file that this cluster's autoscaler was started with, by the command line that it shows.

    Several clusters may have their heads on one machine.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if f"--gcs-address={gcs_address}" in words and any(w.endswith(MONITOR) for w in words):
            paths = [word.removeprefix(OPTION) for word in words if word.startswith(OPTION)]
            return Path(paths[0]).expanduser() if paths else None
    return None


def _of_kuberay(name: str) -> dict[str, Any] | None:
    from ray.autoscaler._private.kuberay import autoscaling_config, node_provider

    api = node_provider.KubernetesHttpApiClient(NAMESPACE_FILE.read_text())
    cluster = api.get(f"rayclusters/{name}")
    if not cluster["spec"].get("enableInTreeAutoscaling"):
        return None
    config: dict[str, Any] = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    return config


# The head gets the code with the task.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
