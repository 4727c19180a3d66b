"""What a training step in lanes costs an NVIDIA H200: a static estimate, made without a GPU.

TensorFlow lowers a program for a GPU that is not there, and the CUDA plugin of JAX compiles it for
a described chip, down to PTX. Nothing runs. Of XLA's dumps this takes the kernels of the loop over
steps, the bytes that they read and write, and a model of their time: five numbers fitted to seven
epochs of a prototype measured on an H200, within 12 % of each. It knows nothing of caches, tuning,
or of how well cuBLAS does a shape: trust it to compare two versions of a program.

It needs 7 GB of wheels that nothing else here needs, so an environment for it alone:

    python3.11 -m venv AOT
    AOT/bin/pip install 'jax[cuda12]==0.9.1' tensorflow==2.21.0 keras==3.15.1

    AOT/bin/python -m benchmarks.aot                                (both models; some minutes)
    AOT/bin/python -m benchmarks.aot --models conv --lanes 16 --kernels 20     (and the dearest)

All of it writes `results/aot-h200.json`. The exit status is 1 if a program of 16 lanes exceeds its
limits, or has a launch of few blocks that takes long.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"

RESULT = Path(__file__).parent / "results" / "aot-h200.json"
N_IMAGES, BATCH_SIZE = 60_000, 256
WIDTHS = {"conv": 8, "dense": 512}
LANES = (1, 4, 16, 32)
CHUNKS = (256,)
LIMITS = {"conv": (70, 120.0), "dense": (21, 40.0)}  # kernels and MB a lane, of 16 lanes
# The model's numbers.
BANDWIDTH = 4.3e12  # bytes a second, measured
LAUNCH_US = 2.6
GEMM_BANDWIDTH, GEMM_FLOPS = 4.0e12, 200e12
MEMORY_FACTOR = 1.2  # on XLA's own estimate of a kernel's memory time
INSTRUCTIONS = 1.31e12  # of warps, a second
# A launch is odd that leaves three of four of the 132 processors idle, and takes this longer than
# its bytes do.
FEW_BLOCKS, ODD_US = 33, 10.0

# openxla/xla, xla/backends/gpu/target_config/specs/h200.txtpb, as far as the plugin knows it.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 151397597184 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H200"
"""
# Without a device XLA can tune nothing, and its Triton products need that.
FLAGS = {
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_autotune_level": 0,
    "xla_gpu_collect_cost_model_stats": True,
    "xla_dump_hlo_as_text": True,
}


def lower(model: str, n_lanes: int, chunk_size: int) -> str:
    """The StableHLO of a slice of an epoch, in the form that a GPU has."""
    from dataclasses import replace

    import numpy as np

    from convae.data import ImageSet
    from convae.lane_program import Arguments, DeviceImages, Program, Shape

    shape = Shape.for_trials(
        model,
        n_lanes=n_lanes,
        widths=[WIDTHS[model]],
        batch_sizes=[BATCH_SIZE],
        n_train=N_IMAGES,
        chunk_size=chunk_size,
        drops=False,
    )
    train, test = (np.zeros((n, 28, 28), np.uint8) for n in (N_IMAGES, 10_000))
    labels = np.zeros(0, np.uint8)
    images = DeviceImages(ImageSet(train, labels, test, labels, "zeros"))
    program = Program(replace(shape, form="rows"), images)
    by_lane = Arguments.by_lane([None] * n_lanes)
    arguments = images.pixels, program.no_orders(), program.zeros(), by_lane
    return program.hlo(*arguments, "stablehlo", "GPU")


def compile_for_h200(text: str, folder: Path) -> str:
    """Compiles StableHLO and returns XLA's optimized HLO; its dumps go to the folder."""
    # Compilation for a described chip is not a public part of JAX: hence its version above.
    from jax._src.interpreters import mlir
    from jax.experimental import topologies
    from jaxlib import _jax, xla_client
    from jaxlib.mlir import ir

    topology = topologies.get_topology_desc(platform="cuda", target_config=H200, topology="1x1x1")
    device = topology.devices[0]
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
    options = xla_client.CompileOptions()
    options.num_replicas = options.num_partitions = 1
    options.env_option_overrides = [*FLAGS.items(), ("xla_dump_to", str(folder))]
    executable = device.client.compile(module, _jax.DeviceList((device,)), options)
    hlo: str = executable.hlo_modules()[0].to_string()
    return hlo


@dataclass(frozen=True)
class Instruction:
    """Of HLO; `rest` is what follows its operands, or a parameter's number."""

    name: str
    shape: str
    code: str
    operands: list[str]
    rest: str

    def named(self, key: str) -> str:
        """The computation that it calls by this attribute, or nothing."""
        found = re.search(key + r"=%?([\w.-]+)", self.rest)
        return found[1] if found else ""


Computation = dict[str, Instruction]
N_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "f64": 8, "s64": 8, "u64": 8}
_DEFINITION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all")


def parse(hlo: str) -> dict[str, Computation]:
    """The computations of an HLO module by name, their instructions in order."""
    found: dict[str, Computation] = {}
    for line in hlo.splitlines():
        if head := re.match(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            now = found.setdefault(head[1], {})
        elif found and (match := _DEFINITION.match(line)):
            name, shape, code, rest = match.groups()
            inside, _, rest = rest.partition(")")
            operands = re.findall(r"%([\w.-]+)", inside)
            rest = inside if code == "parameter" else rest
            now[name] = Instruction(name, shape, code, operands, rest)
    return found


def size(shape: str) -> int:
    """Bytes of a shape, or of a tuple of them."""
    return sum(N_BYTES.get(kind, 4) * math.prod(_numbers(n)) for kind, n in _ARRAY.findall(shape))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def traffic(kernel: Instruction, around: Computation, inside: Computation) -> int:
    """Bytes that a kernel must read and write: of what it slices or gathers, what it takes."""
    shapes = [around[name].shape if name in around else "" for name in kernel.operands]
    if kernel.code == "custom-call":  # of which the last output is a workspace
        return sum(map(size, shapes)) + size(re.sub(r"s8\[\d+\]", "", kernel.shape))
    if kernel.code != "fusion":
        return sum(map(size, shapes)) + size(kernel.shape)
    parameters = {int(x.rest): x.name for x in inside.values() if x.code == "parameter"}
    return size(kernel.shape) + sum(
        min(size(shape), _seen(inside, parameters[i])) for i, shape in enumerate(shapes)
    )


def _seen(inside: Computation, name: str) -> int:
    total = 0
    for user in inside.values():
        if name not in user.operands:
            continue
        if user.code == "bitcast":
            total += _seen(inside, user.name)
        elif user.code in ("slice", "dynamic-slice", "gather") and user.operands[0] == name:
            total += size(user.shape)
        else:
            return size(inside[name].shape)
    return total


@dataclass(frozen=True)
class Kernel:
    """One launch in a step."""

    name: str
    what: str  # shapes of outputs and operands
    n_bytes: int
    n_blocks: int  # 0 where cuBLAS chooses
    flops: int  # of cuBLAS alone
    memory_us: float  # XLA's estimate, which knows of uncoalesced access
    instructions: int  # of PTX in all its branches, times warps

    @property
    def floor_us(self) -> float:
        """By its bytes alone."""
        return self.n_bytes / BANDWIDTH * 1e6

    @property
    def model_us(self) -> float:
        """By the fitted model."""
        if not self.n_blocks:
            work = max(self.n_bytes / GEMM_BANDWIDTH, self.flops / GEMM_FLOPS) * 1e6
        else:
            instructions_us = self.instructions / INSTRUCTIONS * 1e6
            work = max(self.floor_us, MEMORY_FACTOR * self.memory_us, instructions_us)
        return LAUNCH_US + work

    @property
    def is_odd(self) -> bool:
        """Whether few blocks take long."""
        return 0 < self.n_blocks < FEW_BLOCKS and (
            self.model_us - LAUNCH_US - self.floor_us > ODD_US
        )


def kernels_of(hlo: str, folder: Path) -> Iterator[Kernel]:
    """Those of the loop over steps."""
    (thunks,) = (path.read_text() for path in folder.glob("*.thunk_sequence.txt"))
    (ptx,) = (path.read_text() for path in folder.glob("*.ptx"))
    launched = r"profile_annotation = ([\w.-]+), launch dimensions = (blocks: .*?), cluster"
    launches = {name: _numbers(text) for name, text in re.findall(launched, thunks)}
    named = re.findall(r"kernel = ([\w.$-]+), profile_annotation = ([\w.-]+)", thunks)
    entries = {name: entry for entry, name in named}
    lengths = _ptx_lengths(ptx)
    computations = parse(hlo)
    loops = [x for each in computations.values() for x in each.values() if x.code == "while"]
    body = max((computations[loop.named("body")] for loop in loops), key=len)
    for x in body.values():
        if x.code in _FREE:
            continue
        if x.code in ("while", "call", "conditional"):
            raise ValueError(f"The loop over steps contains a {x.code}, which this does not know.")
        blocks = launches.get(x.name, [0] * 6)
        n_warps = math.prod(blocks[:3]) * math.ceil(math.prod(blocks[3:6]) / 32)
        cost = re.search(r'"memory_access_time_us":([\d.e+-]+),"name":""', x.rest)
        shapes = ", ".join(body[name].shape for name in x.operands if name in body)
        yield Kernel(
            name=x.name,
            what=re.sub(r"\{[\d,]*\}|/\*index=\d+\*/", "", f"{x.shape} <- {shapes}"),
            n_bytes=traffic(x, body, computations.get(x.named("calls"), {})),
            n_blocks=math.prod(blocks[:3]),
            flops=_flops(x, body),
            memory_us=float(cost[1]) if cost else 0.0,
            instructions=n_warps * lengths.get(entries.get(x.name, ""), 0),
        )


def _ptx_lengths(ptx: str) -> dict[str, int]:
    """Instructions in each kernel's text."""
    lengths: dict[str, int] = {}
    name = ""
    for line in ptx.splitlines():
        if entry := re.match(r"(?:\.visible )?\.entry ([\w$.]+)\(", line):
            lengths[name := entry[1]] = 0
        elif name and re.match(r"\s+(@!?%p\d+\s+)?[a-z][\w.]*\s", line):
            lengths[name] += 1
    return lengths


def _flops(kernel: Instruction, around: Computation) -> int:
    """Of a matrix product: twice the outputs times the length of the contraction."""
    contracted = re.search(r'"lhs_contracting_dimensions":\["?([\d",]*)\]', kernel.rest)
    if kernel.code != "custom-call" or not contracted:
        return 0
    left, outputs = (
        _numbers(_ARRAY.findall(shape)[0][1])
        for shape in (around[kernel.operands[0]].shape, kernel.shape)
    )
    return 2 * math.prod(outputs) * math.prod(left[i] for i in _numbers(contracted[1]))


def cost(model: str, n_lanes: int, chunk_size: int) -> tuple[dict[str, Any], list[Kernel]]:
    """A program's row of the result, and its kernels."""
    with tempfile.TemporaryDirectory(prefix="convae-aot-") as folder:
        hlo = compile_for_h200(lower(model, n_lanes, chunk_size), Path(folder))
        kernels = list(kernels_of(hlo, Path(folder)))
    model_us = sum(kernel.model_us for kernel in kernels)
    row = {
        "model": model,
        "n_lanes": n_lanes,
        "chunk_size": chunk_size,
        "kernels": len(kernels),
        "mb_a_lane": round(sum(kernel.n_bytes for kernel in kernels) / 1e6 / n_lanes, 1),
        "gflop": round(sum(kernel.flops for kernel in kernels) / 1e9, 2),
        "floor_us": round(sum(kernel.floor_us for kernel in kernels), 1),
        "model_us": round(model_us, 1),
        "model_us_a_lane": round(model_us / n_lanes, 1),
        "odd_launches": [_line(kernel) for kernel in kernels if kernel.is_odd],
    }
    return row, kernels


def _line(kernel: Kernel) -> str:
    return (
        f"{kernel.model_us:6.1f} us, floor {kernel.floor_us:5.1f}, {kernel.n_bytes / 1e6:6.1f} MB, "
        f"{kernel.n_blocks} blocks: {kernel.name}, {kernel.what[:120]}"
    )


def main() -> int:
    """Prints a line a program, and writes the result if all were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--lanes", nargs="+", type=int, metavar="N", default=list(LANES))
    parser.add_argument("--chunks", nargs="+", type=int, metavar="N", default=list(CHUNKS))
    parser.add_argument("--kernels", type=int, metavar="N", default=0, help="print the N dearest")
    options = parser.parse_args()
    rows, failed = [], False
    for model in options.models:
        for n_lanes, chunk_size in product(options.lanes, options.chunks):
            row, kernels = cost(model, n_lanes, chunk_size)
            rows.append(row)
            print(*(f"{key} {value}" for key, value in row.items() if value), sep="; ", flush=True)
            for kernel in sorted(kernels, key=lambda x: -x.model_us)[: options.kernels]:
                print("  " + _line(kernel))
            n_kernels, megabytes = LIMITS[model]
            exceeds = row["kernels"] > n_kernels or row["mb_a_lane"] > megabytes
            is_limited = (n_lanes, chunk_size) == (16, BATCH_SIZE)
            failed |= bool(row["odd_launches"]) or (is_limited and exceeds)
    if (options.models, options.lanes, options.chunks) == (list(WIDTHS), list(LANES), list(CHUNKS)):
        result = {
            "what": "static estimate of a training step on an NVIDIA H200; nothing was run",
            "batch_size": BATCH_SIZE,
            "widths": WIDTHS,
            "precision": "float32, products in TF32",
            "versions": {name: version(name) for name in ("tensorflow", "keras", "jax", "jaxlib")},
            "rows": rows,
        }
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {RESULT}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
