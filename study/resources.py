"""Finds out what Ray has to train on, and refuses at once what it does not have."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from study.presets import SpecError


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
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SpecError(
            f"No Ray cluster answers at --address {address}; start one with ray start --head."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def claim(resources: Resources) -> Slots:
    """Matches what was asked for with what Ray sees.

    Raises:
        SpecError: more than there is was asked for.
    """
    seen = ray.cluster_resources()
    n_cpus, n_gpus = int(seen.get("CPU", 0)), int(seen.get("GPU", 0))
    wanted = n_gpus if resources.n_gpus is None else resources.n_gpus
    if wanted > n_gpus:
        raise SpecError(
            f"--gpus {wanted} asks for more GPUs than Ray sees ({n_gpus}); "
            f"ask for fewer, or use --gpus 0 for the CPU."
        )
    # One thread a trial wastes least; wide machines would then run more trials than there are.
    cpus = resources.cpus_per_trial or (1 if wanted else max(1, n_cpus // 8))
    if cpus > n_cpus:
        raise SpecError(f"--cpus-per-trial {cpus} is more than the {n_cpus} CPUs that Ray sees.")
    n_slots = min(n_cpus // cpus, resources.max_concurrent or n_cpus)
    if not wanted:
        return Slots(n_slots, cpus, 0)
    share = resources.gpus_per_trial
    if share > wanted:
        raise SpecError(f"--gpus-per-trial {share:g} is more than the {wanted} GPUs to be used.")
    if share > 1 and share != int(share):
        raise SpecError(f"--gpus-per-trial {share:g} must be a fraction or a whole number of GPUs.")
    # Fractions never span GPUs.
    per_gpu = wanted * int(1 / share + 1e-9) if share <= 1 else int(wanted // share)
    return Slots(min(n_slots, per_gpu), cpus, share)


def check_gpu(slots: Slots) -> str | None:
    """Opens a GPU as a trial would; returns its description, None on a CPU.

    Raises:
        SpecError: TensorFlow cannot open it.
    """
    if not slots.gpus_per_trial:
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
