"""Finds out what Ray has to train on, and refuses at once what it does not have."""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study import autoscaler
from study.presets import SpecError
from study.storage import TEMPORARY_PREFIX, RunFolder

ACCELERATOR_PREFIX = "accelerator_type:"  # of Ray's resources that name a node's kind of GPU


@dataclass(frozen=True)
class Resources:
    """What to run a study on.

    Attributes:
        n_gpus: GPUs to use; None for those that Ray sees, 0 for the CPU.
        gpus_per_trial: may be a fraction; 0 on a CPU.
        cpus_per_trial: also the threads that TensorFlow uses; None to choose by the machine.
        address: of a Ray cluster that runs already; None starts Ray on this machine.
        max_concurrent: trials at once, at most; None for as many as there is room for.
    """

    n_gpus: int | None = None
    gpus_per_trial: float = 1.0
    cpus_per_trial: int | None = None
    address: str | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True)
class Slots:
    """Resources as they were found.

    Attributes:
        n_slots: trials that train at once.
        cpus_per_trial: of each.
        gpus_per_trial: of each.
    """

    n_slots: int
    cpus_per_trial: int
    gpus_per_trial: float

    @property
    def needs(self) -> str:
        """What a trial takes, in words."""
        gpu = f"{self.gpus_per_trial:g} GPU and " if self.gpus_per_trial else ""
        return f"{gpu}{self.cpus_per_trial} CPU"


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Ray, quiet and for this machine only, or a running cluster.

    Raises:
        SpecError: no cluster answers at the address.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # the records keep every error
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings["include_dashboard"] = False
    try:
        ray.init(address=address or "local", **settings)
    except Exception as error:  # of a node that starts too slowly Ray raises a bare Exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if address is None:
            raise SpecError(
                f"Ray could not start on this machine ({reason}); try again when it is less busy."
            ) from error
        raise SpecError(
            f"No Ray cluster lets this process in at --address {address} ({reason}); start one with"
            " ray start --head, or give its token in RAY_AUTH_TOKEN with RAY_AUTH_MODE=token."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind.

    Attributes:
        n: how many.
        cpus: of each.
        gpus: of each.
    """

    n: int
    cpus: float
    gpus: float

    def n_slots(self, cpus: int, gpus: float) -> int:
        """Trials of this size that each holds at once. Fractions of a GPU never span two."""
        by_gpu = int(self.cpus)
        if gpus:
            by_gpu = int(self.gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(self.gpus // gpus)
        return min(int(self.cpus // cpus), by_gpu)


@dataclass(frozen=True)
class Cluster:
    """Nodes that are there at once.

    Attributes:
        nodes: those that are there in any case.
        workers: those that an autoscaler may start.
        max_workers: of all kinds together.
    """

    nodes: Sequence[Nodes]
    workers: Sequence[Nodes] = ()
    max_workers: int = 0

    def most(self, of_kind: Callable[[Nodes], float]) -> int:
        """The most of something that they can have, from what a node of a kind has of it."""
        total, left = sum(kind.n * of_kind(kind) for kind in self.nodes), self.max_workers
        for kind in sorted(self.workers, key=of_kind, reverse=True):
            n = min(kind.n, left)
            total, left = total + n * of_kind(kind), left - n
        return int(total)


def nodes_alive() -> list[Nodes]:
    """The nodes that Ray has now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [_nodes(1, resources) for resources in alive]


def cluster_to_come() -> Cluster | None:
    """The cluster as Ray's autoscaler may make it, also of what is alive; None without one."""
    if (config := autoscaler.configuration()) is None:
        return None
    limit = config.get("max_workers", autoscaler.MAX_WORKERS)
    kinds = dict(config["available_node_types"])
    head = kinds.pop(config["head_node_type"])
    return Cluster(
        [_nodes(1, head["resources"])],
        [_nodes(kind.get("max_workers", limit), kind["resources"]) for kind in kinds.values()],
        limit,
    )


def _nodes(n: int, resources: Mapping[str, float]) -> Nodes:
    return Nodes(n, resources.get("CPU", 0), resources.get("GPU", 0))


def claim(resources: Resources, *, timed: bool = False) -> Slots:
    """Matches what was asked for with what Ray has, or can have if it autoscales.

    Args:
        resources: what was asked for.
        timed: trials must have a device of their own, all of one kind, so that their times are
            comparable: a whole GPU each, or one trial at a time on CPUs.

    Raises:
        SpecError: more than there is was asked for, or what no node can hold, or cannot be timed.
    """
    clusters = [Cluster(nodes_alive())]
    if resources.address and (to_come := cluster_to_come()):
        clusters.append(to_come)
    n_cpus = max(cluster.most(lambda kind: kind.cpus) for cluster in clusters)
    n_gpus = max(cluster.most(lambda kind: kind.gpus) for cluster in clusters)
    wanted = n_gpus if resources.n_gpus is None else resources.n_gpus
    if timed:
        _check_timed(resources, wanted, ray.cluster_resources())
    if wanted > n_gpus:
        seen = "sees" if len(clusters) == 1 else "has or may start"
        raise SpecError(
            f"--gpus {wanted} asks for more GPUs than Ray {seen} ({n_gpus}); "
            f"ask for fewer, or use --gpus 0 for the CPU."
        )
    # One thread a trial wastes least; wide machines would then run more trials than there are.
    widest = max(int(kind.cpus) for c in clusters for kind in (*c.nodes, *c.workers))
    cpus = resources.cpus_per_trial or (1 if wanted else max(1, widest // 8))
    if cpus > n_cpus:
        raise SpecError(f"--cpus-per-trial {cpus} is more than the {n_cpus} CPUs that Ray sees.")
    share = resources.gpus_per_trial if wanted else 0
    if share > wanted:
        raise SpecError(f"--gpus-per-trial {share:g} is more than the {wanted} GPUs to be used.")
    if share > 1 and share != int(share):
        raise SpecError(f"--gpus-per-trial {share:g} must be a fraction or a whole number of GPUs.")
    n_slots = max(c.most(lambda kind: kind.n_slots(cpus, share)) for c in clusters)
    if not n_slots:
        raise SpecError(
            f"No node can hold a trial of {Slots(0, cpus, share).needs}; ask for less with"
            " --cpus-per-trial or --gpus-per-trial."
        )
    if share:
        n_slots = min(n_slots, Nodes(1, n_slots * cpus, wanted).n_slots(cpus, share))
    elif timed:
        n_slots = 1
    return Slots(min(n_slots, resources.max_concurrent or n_slots), cpus, share)


def fits_now(slots: Slots) -> bool:
    """Whether a node that is there already can hold a trial."""
    return any(n.n_slots(slots.cpus_per_trial, slots.gpus_per_trial) for n in nodes_alive())


def check_storage(folder: RunFolder) -> None:
    """Makes sure that every node there is now sees what this process writes.

    Raises:
        SpecError: a node does not.
    """
    if folder.local is None:
        return

    @ray.remote(num_cpus=0, max_retries=0)
    def sees(name: str) -> bool:
        return folder.read(name) is not None

    token = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    folder.write(token, b"seen")
    try:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(sees.options(scheduling_strategy=where).remote(token)):
                raise SpecError(
                    f"--storage: {folder} is not seen by node {node['NodeManagerAddress']}; give a"
                    " path on a disk that all nodes share, or a bucket (s3://, gs://)."
                )
    finally:
        folder.delete(token)


def _check_timed(resources: Resources, n_gpus: int, seen: Mapping[str, float]) -> None:
    if n_gpus and resources.gpus_per_trial < 1:
        raise SpecError(
            f"--gpus-per-trial {resources.gpus_per_trial:g} lets trials share a GPU, so that their"
            " times would not be comparable; leave it out with --objective mse,time."
        )
    kinds = sorted(name for name in seen if name.startswith(ACCELERATOR_PREFIX))
    if n_gpus and len(kinds) > 1:
        listed = ", ".join(kind.removeprefix(ACCELERATOR_PREFIX) for kind in kinds)
        raise SpecError(
            f"The cluster has several kinds of GPU ({listed}), so times would not be comparable;"
            " use one kind with --objective mse,time."
        )
    if not n_gpus and (resources.max_concurrent or 1) > 1:
        raise SpecError(
            f"--max-concurrent {resources.max_concurrent} lets trials share the CPU, so that their"
            " times would not be comparable; leave it out with --objective mse,time."
        )


def check_gpu(slots: Slots) -> str | None:
    """Opens a GPU as a trial would; returns its description, None on a CPU.

    None too where the cluster has yet to start a node with a GPU.

    Raises:
        SpecError: TensorFlow cannot open it.
    """
    if not slots.gpus_per_trial or not fits_now(slots):
        return None

    @ray.remote(num_gpus=slots.gpus_per_trial, num_cpus=slots.cpus_per_trial, max_retries=0)
    def open_gpu() -> tuple[str, str | None]:
        from convae.device import GpuUnavailableError, open_device

        try:
            return open_device(gpu=True).description, None
        except GpuUnavailableError as error:
            return "", str(error)

    description, error = ray.get(open_gpu.remote())
    if error:
        raise SpecError(error)
    return str(description)
