"""How long each kernel of a program ran, by TensorFlow's profiler.

Their bytes and sizes, `benchmarks.aot` reads from the files that XLA writes with
XLA_FLAGS=--xla_dump_to=FOLDER; the names are the same.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """What an instruction of the program took."""

    name: str  # the instruction's
    milliseconds: float  # all its runs together
    n_runs: int


def kernels_of(run: Callable[[], object]) -> list[Kernel]:
    """Profiles a call, which returns when the device has done its work; the longest first."""
    import tensorflow as tf

    # The format is that of TensorBoard's profiler; TensorFlow has no public reader of it.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory(prefix="convae-profile-") as folder:
        tf.profiler.experimental.start(folder)
        run()
        tf.profiler.experimental.stop()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    # On a GPU its own planes alone: the host's tell when a kernel was asked for.
    device = [plane for plane in space.planes if plane.name.startswith("/device:")]
    spent: dict[str, list[float]] = defaultdict(list)
    for plane in device or space.planes:
        for line in plane.lines:
            for event in line.events:
                for stat in event.stats:
                    if plane.stat_metadata[stat.metadata_id].name == "hlo_op":
                        name = stat.str_value or plane.stat_metadata[stat.ref_value].name
                        spent[name].append(event.duration_ps / 1e9)
    kernels = [Kernel(name, sum(times), len(times)) for name, times in spent.items()]
    return sorted(kernels, key=lambda kernel: -kernel.milliseconds)
