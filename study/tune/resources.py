"""Finds out what Ray has to train on, and refuses at once what it does not have."""

import logging
import math
import os
import resource
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from convae.hardware import (
    can_be_made,
    describe_machine,
    free_processes,
    home_folder,
    usable_cpus,
)
from convae.processes import handling_signals
from study.folder.storage import RunFolder, first_line, temporary_name
from study.plan.spec import SpecError

ACCELERATOR_PREFIX = "accelerator_type:"  # of Ray's resources that name a node's kind of GPU
# What a session of Ray 2.60 was seen to need, with TensorFlow in its workers: address space beside
# the object store, and threads.
SPACE_GIB = 4
PROCESSES, PROCESSES_A_CPU = 200, 50
SHORT_TMPDIR = "set RAY_TMPDIR to a short folder that can be written to, such as /tmp/ray"


@dataclass(frozen=True)
class Resources:
    """What to run a study on.

    Raises:
        SpecError: a number out of range.
    """

    n_gpus: int | None = None  # None for those that Ray sees, 0 for the CPU
    # Trials of a model at once in one program of a device; None for the rule on a GPU and none on a
    # CPU, 1 for one trial at a time on a device.
    lanes: int | None = None
    # Also the threads that TensorFlow uses, of an engine if there are lanes; None to choose by the
    # machine.
    cpus_per_trial: int | None = None
    address: str | None = None  # of a Ray cluster that runs already; None starts Ray here
    max_concurrent: int | None = None  # trials at once, at most; None for as many as fit

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--gpus", self.n_gpus, 0),
            ("--lanes", self.lanes, 1),
            ("--cpus-per-trial", self.cpus_per_trial, 1),
            ("--max-concurrent", self.max_concurrent, 1),
        ):
            if value is not None and value < least:
                raise SpecError(f"{option} is {value}, but takes a whole number from {least}.")


@dataclass(frozen=True)
class Slots:
    """Resources as they were found."""

    n_slots: int  # trials that train at once
    cpus_per_trial: int  # of each, or of each engine with lanes
    gpus_per_trial: int = 0  # the same
    per_engine: int = 0  # trials that share these in lanes; 0 if each has them for itself
    # Trials for which there is room; --max-concurrent may allow fewer.
    n_fitting: int = field(default=0, compare=False)

    @property
    def most(self) -> int:
        """Trials that may train at once, if that is raised while the study runs."""
        return max(self.n_slots, self.n_fitting)

    @property
    def n_devices(self) -> int:
        """Trials that would train at once without lanes."""
        return max(1, self.n_slots // max(1, self.per_engine))

    @property
    def needs(self) -> str:
        """What a trial, or an engine, takes, in words."""
        gpu = f"{self.gpus_per_trial} GPU and " if self.gpus_per_trial else ""
        return f"{gpu}{self.cpus_per_trial} CPU"

    @property
    def share(self) -> dict[str, float]:
        """What Ray sets aside for a trial, so that an engine's trials together fill its device."""
        n = max(1, self.per_engine)
        whole = {"cpu": self.cpus_per_trial, "gpu": self.gpus_per_trial}
        # Ray counts ten-thousandths; rounded up, the last lane would find no room.
        return {name: math.floor(value / n * 10_000) / 10_000 for name, value in whole.items()}


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Ray, quiet and for this machine only, or a running cluster.

    A session that this process has already, as a notebook may, is used and left alone.

    Raises:
        SpecError: Ray does not start, or no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # the ledger keeps every error
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    for name in ("RAY_memory_usage_threshold", "RAY_worker_niceness"):
        try:
            float(os.environ.get(name, 0))
        except ValueError as error:  # of which Ray dies without a word
            raise SpecError(f"{name} is {os.environ[name]!r}, but takes a number.") from error
    if address is None:
        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        space = None if soft == resource.RLIM_INFINITY else soft
        check_limits(space, free_processes(), usable_cpus(), describe_machine()["memory_gib"])
        settings |= {"include_dashboard": False, "num_cpus": usable_cpus()}
        if not can_be_made(home_folder() / ".ray"):  # where Ray would keep it
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # For good: Ray's processes outlive a lost terminal, as this one needs them to, to stop the
    # study in an orderly way.
    handlers: dict[int, Any] = {signal.SIGHUP: signal.SIG_IGN}
    if callable(ours := signal.getsignal(signal.SIGTERM)):
        handlers[signal.SIGTERM] = ours  # which comes back: Ray's ends this process without a word
    try:
        with handling_signals(handlers):
            ray.init(address=address or "local", **settings)
    except SystemExit as error:  # by which Ray answers SIGTERM meanwhile
        if signal.SIGTERM not in handlers:  # a notebook's, say, is to end of it
            raise
        raise KeyboardInterrupt from error
    except Exception as error:  # of a node that starts too slowly Ray raises a bare Exception
        reason = first_line(error).rstrip(".")
        if address is None:
            raise SpecError(f"Ray could not start ({reason}); {_remedy(error)}.") from error
        raise SpecError(
            f"No Ray cluster lets this process in at --address {address} ({reason}); start one with"
            " ray start --head, or give its token in RAY_AUTH_TOKEN with RAY_AUTH_MODE=token."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_limits(
    address_space: int | None, processes: int | None, n_cpus: int, memory_gib: float
) -> None:
    """Makes sure that Ray's processes fit: with less they hang, or die without a word.

    Args:
        address_space: bytes that a process may address; None for any number.
        processes: and threads that may still start; None likewise.
        n_cpus: on which Ray starts workers.
        memory_gib: the machine's, three tenths of which Ray maps for its object store.

    Raises:
        SpecError: they do not; it names the limit, and about what is needed.
    """
    gib = math.ceil(SPACE_GIB + 0.3 * memory_gib)
    if address_space is not None and address_space < gib * 2**30:
        raise SpecError(
            f"A process may address {address_space / 2**30:.1f} GiB here (ulimit -v), but Ray needs"
            f" about {gib}; raise the limit, as by ulimit -v unlimited."
        )
    n = PROCESSES + PROCESSES_A_CPU * n_cpus
    if processes is not None and processes < n:
        raise SpecError(
            f"{processes} more processes and threads may start here (the control group's pids.max),"
            f" but Ray needs about {n} on {n_cpus} CPUs; raise the limit, or use fewer CPUs."
        )


def _remedy(error: Exception) -> str:
    """What helps if Ray does not start on this machine."""
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if "AF_UNIX" in str(error) or not (there.is_dir() and os.access(there, os.W_OK)):
        return SHORT_TMPDIR
    if isinstance(error, OSError):
        return f"Ray keeps its files in {folder}: see to it, or {SHORT_TMPDIR}"
    return "try again when the machine is less busy"


@dataclass(frozen=True)
class Node:
    """A machine of Ray's, and what it has."""

    cpus: float
    gpus: float

    def n_slots(self, cpus: int, gpus: int) -> int:
        """Trials, or engines, of this size that it holds at once."""
        by_cpu = int(self.cpus // cpus)
        return min(by_cpu, int(self.gpus // gpus)) if gpus else by_cpu


def nodes() -> list[Node]:
    """The nodes that Ray has now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(resources.get("CPU", 0), resources.get("GPU", 0)) for resources in alive]


def uses_gpus(resources: Resources) -> bool:
    """Whether the study trains on GPUs: on those asked for, or else on any that Ray has."""
    if resources.n_gpus is None:
        return any(node.gpus for node in nodes())
    return resources.n_gpus > 0


def find_slots(resources: Resources, *, timed: bool = False, per_engine: int = 0) -> Slots:
    """Matches what was asked for with what Ray has.

    A running cluster may grow: there an explicit number of GPUs is believed, and of trials at once
    where no node can hold one yet. In a study that is timed no two trials may share a device, and
    all devices must be of one kind, so that times are comparable: a whole GPU each, or one trial at
    a time on CPUs. `per_engine` trials share an engine's lanes; 0 without lanes.

    Raises:
        SpecError: more than there is was asked for, or what no node can hold, or cannot be timed.
    """
    there = nodes()
    n_cpus, n_gpus = int(sum(n.cpus for n in there)), int(sum(n.gpus for n in there))
    wanted = n_gpus if resources.n_gpus is None else resources.n_gpus
    if timed:
        _check_timed(resources, wanted, ray.cluster_resources())
    believed = resources.address is not None and bool(resources.n_gpus)
    if wanted > n_gpus and not believed:
        raise SpecError(
            f"--gpus {wanted} asks for more GPUs than Ray sees ({n_gpus}); "
            f"ask for fewer, or use --gpus 0 for the CPU."
        )
    cpus = resources.cpus_per_trial or _cpus_for(there, gpu=wanted > 0, engine=per_engine > 0)
    if cpus > n_cpus and resources.address is None:
        raise SpecError(f"--cpus-per-trial {cpus} is more than the {n_cpus} CPUs that Ray sees.")
    gpus = 1 if wanted else 0
    if believed:
        n_slots = wanted
    elif timed and not gpus:
        n_slots = 1
    else:
        n_slots = sum(node.n_slots(cpus, gpus) for node in there)
        if gpus:
            n_slots = min(n_slots, wanted)
        if not n_slots and resources.address is not None:
            n_slots = resources.max_concurrent or 0
    n_slots *= max(1, per_engine)
    if not n_slots:
        raise SpecError(
            f"No node can hold a trial of {Slots(0, cpus, gpus).needs}; ask for less with"
            " --cpus-per-trial, or on a cluster that grows say how many trials at once with --gpus"
            " or --max-concurrent."
        )
    n_allowed = min(n_slots, resources.max_concurrent or n_slots)
    return Slots(n_allowed, cpus, gpus, per_engine, n_fitting=n_slots)


def _cpus_for(there: list[Node], *, gpu: bool, engine: bool) -> int:
    """The CPUs of a trial, or of an engine, where nobody says."""
    if gpu:
        return 1
    if engine:  # one a node
        return max(1, int(min((node.cpus for node in there if node.cpus), default=1)))
    # One thread a trial wastes least; wide machines would then run more trials than there are.
    return max(1, max(int(node.cpus) for node in there) // 8)


def fits_now(slots: Slots) -> bool:
    """Whether a node that is there already can hold a trial."""
    return any(node.n_slots(slots.cpus_per_trial, slots.gpus_per_trial) for node in nodes())


def check_storage(storage: RunFolder) -> None:
    """Makes sure that the storage can be written to, and that every node there is now sees it.

    Raises:
        SpecError: it cannot, or a node does not.
        RunFolderError: it cannot be used.
    """
    token = temporary_name()
    storage.create()
    storage.write(token, b"seen")
    try:
        if storage.local is None:
            return

        @ray.remote(num_cpus=0, max_retries=0)
        def sees(name: str) -> bool:
            return storage.read(name) is not None

        for node in ray.nodes():
            if not node["Alive"]:
                continue
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            try:
                seen = ray.get(sees.options(scheduling_strategy=where).remote(token))
            except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
                continue  # it was lost a moment ago
            except OutOfMemoryError as error:
                raise SpecError(
                    f"The memory of node {node['NodeManagerAddress']} is used up before a trial"
                    " begins, by Ray's measure; end what else runs there, or raise"
                    " RAY_memory_usage_threshold (a share of it, 0.95 by default)."
                ) from error
            if not seen:
                raise SpecError(
                    f"--storage: {storage} is not seen by node {node['NodeManagerAddress']}; give a"
                    " path on a disk that all nodes share, or a bucket (s3://, gs://)."
                )
    finally:
        storage.delete(token)


def _check_timed(resources: Resources, n_gpus: int, seen: Mapping[str, float]) -> None:
    kinds = [name for name in sorted(seen) if name.startswith(ACCELERATOR_PREFIX)]
    trouble = None
    if (resources.lanes or 1) > 1:
        trouble = f"--lanes {resources.lanes} lets trials share a device"
    elif n_gpus and len(kinds) > 1:
        listed = ", ".join(kind.removeprefix(ACCELERATOR_PREFIX) for kind in kinds)
        trouble = f"The cluster has several kinds of GPU ({listed})"
    elif not n_gpus and (resources.max_concurrent or 1) > 1:
        trouble = f"--max-concurrent {resources.max_concurrent} lets trials share the CPU"
    if trouble:
        remedy = "use one kind" if trouble.startswith("The cluster") else "leave it out"
        raise SpecError(
            f"{trouble}, so that their times would not be comparable; {remedy} with"
            " --objective mse,time."
        )
