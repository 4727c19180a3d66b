"""Which kernels a slice of `convae.lanes` spends its time in, by TensorFlow's profiler.

Time from the trace; bytes from the program that XLA printed, as the sizes of an instruction's
operands and output, of which a gather reads less than it could.
"""

import math
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

N_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
_DEFINITION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")


class Kernel(NamedTuple):
    """What an instruction of the program took.

    Attributes:
        name: the instruction's.
        milliseconds: all its runs together.
        n_runs: how many.
        n_bytes: that a run reads and writes; None if the program does not have the name.
    """

    name: str
    milliseconds: float
    n_runs: int
    n_bytes: int | None


def longest(run: Callable[[], object], hlo: str, n: int = 20) -> list[Kernel]:
    """Profiles a call and returns its longest instructions.

    Args:
        run: returns when the device has done its work.
        hlo: the program that it runs.
        n: how many to return.
    """
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
    sizes = n_bytes_by_instruction(hlo)
    kernels = [
        Kernel(name, sum(times), len(times), sizes.get(name)) for name, times in spent.items()
    ]
    return sorted(kernels, key=lambda kernel: -kernel.milliseconds)[:n]


def n_bytes_by_instruction(hlo: str) -> dict[str, int]:
    """Bytes of the operands and the output of each instruction of a printed program."""
    outputs: dict[str, int] = {}
    operands: dict[str, list[str]] = {}
    for line in hlo.splitlines():
        if found := _DEFINITION.match(line):
            name, output, _, rest = found.groups()
            outputs[name] = sum(_n_bytes(*array) for array in _ARRAY.findall(output))
            operands[name] = re.findall(r"%([\w.-]+)", rest.partition(")")[0])
    return {
        name: outputs[name] + sum(outputs.get(operand, 0) for operand in operands[name])
        for name in outputs
    }


def _n_bytes(kind: str, dimensions: str) -> int:
    n_bits = N_BITS.get(kind) or int(kind[1:])
    return math.prod(int(n) for n in dimensions.split(",") if n) * n_bits // 8
