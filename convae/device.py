"""Opens the device that a process trains on: its GPU, or so many threads of its CPU.

TensorFlow fixes threads and GPU memory policy at its first operation, so this comes first.
"""

from dataclasses import dataclass

from convae.errors import UserError
from convae.hardware import cpu_name, usable_cpus
from convae.pinned import tf
from convae.xla import fit_cache, offered_cache


@dataclass(frozen=True)
class Device:
    """A device that TensorFlow has opened."""

    name: str  # TensorFlow's, "/GPU:0" or "/CPU:0"
    description: str  # for tables, such as "CPU, 1 thread: AMD EPYC" or "GPU: NVIDIA H200"
    # Whether a lone trial trains in a program that XLA compiles. XLA's CPU convolutions are about
    # ten times slower than oneDNN's, so on a CPU TensorFlow's graph runs as it is.
    jit_compile: bool
    n_threads: int = 1  # parts of a batch that are computed at once; 1 on a GPU


def open_device(
    *, gpu: bool | None = None, n_threads: int | None = None, lanes: bool = False
) -> Device:
    """Opens the GPU or the CPU for this process.

    Args:
        gpu: True for a GPU, False for the CPU, None for a GPU where there is one.
        n_threads: CPU threads for TensorFlow's operations; None leaves it all cores.
        lanes: whether a CPU will train in lanes too, so that what XLA compiles for it is worth
            keeping.

    Raises:
        UserError: a GPU was asked for, but TensorFlow sees none.
    """
    gpus = []
    if lanes or gpu is not False:
        with offered_cache(gpu_only=not lanes and gpu is None):
            gpus = tf.config.list_physical_devices("GPU")
    if gpu is False:
        gpus = []
    if gpu and not gpus:
        raise UserError(
            "TensorFlow cannot open the GPU of this machine; install its CUDA libraries with "
            "pip install -c constraints.txt -e '.[gpu]', or train on the CPU."
        )
    if gpus:
        for physical in gpus:
            # Grow as needed: several processes may share a GPU.
            tf.config.experimental.set_memory_growth(physical, True)
        if n_threads is not None:
            _set_threads(n_threads, n_threads)
        details = tf.config.experimental.get_device_details(gpus[0])
        name = details.get("device_name", "unknown")
        fit_cache(repr(details))
        return Device("/GPU:0", f"GPU: {name}", jit_compile=True)
    tf.config.set_visible_devices([], "GPU")
    count = n_threads or usable_cpus()
    # The trainer gives every thread a part of the batch, which wastes less than threads that share
    # one operation.
    _set_threads(1, count)
    threads = f"{count} thread{'s' if count > 1 else ''}"
    description = f"CPU, {threads}: {cpu_name()}"
    if lanes:
        fit_cache(description)
    return Device("/CPU:0", description, jit_compile=False, n_threads=count)


def _set_threads(in_an_operation: int, n_operations: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(in_an_operation)
    tf.config.threading.set_inter_op_parallelism_threads(n_operations)
