"""An epoch of many trials in one program, a lane each, beside Keras' compiled `model.fit`.

    python -m benchmarks.lanes                              (on a GPU; some minutes)
    python -m benchmarks.lanes --models conv --lanes 16
    python -m benchmarks.lanes --prove                      (and whether it is what Keras computes)
    python -m benchmarks.lanes --profile                    (and the time of each kernel)
    python -m benchmarks.lanes --compile-only               (as a study does, cache and all)
    python -m benchmarks.lanes --short                      (2,000 images; two minutes on two cores)

Lanes of `mixed` batches have 64, 128, 256 and 1000 in turn. One process, one setting after the
other; compilation and a first epoch of each are not timed. An epoch's time is that until the last
lane has ended its own, over the number of lanes; an evaluation's is that of all lanes. Results are
written as they come, and XLA_FLAGS with them, by which XLA can be told to compile otherwise. A
program that does not compile is a row with its error, and the exit status is 1.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.race import CONFIGS, build_parser, cell, print_table, write_result
from convae.config import TrialConfig
from convae.data import ImageSet, load_images
from convae.stderr_filter import filtered_stderr
from convae.xla import SWITCH

if TYPE_CHECKING:
    from convae.lane_program import Shape

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

MIXED, MIXED_SIZES = "mixed", (64, 128, 256, 1000)
FORMS = ("rows", "pixels")  # `convae.lane_program.Form`
LANES = (16, 1, 4, 8, 32)  # the most telling first
N_SHORT_IMAGES = 2_000


@dataclass(frozen=True)
class Setting:
    """What to measure; the words are those of the command line."""

    model: str
    n_lanes: int
    batch: str
    chunk_size: int | None
    form: str | None  # of the conv model's layers; None for the device's

    @property
    def configs(self) -> list[TrialConfig]:
        """A trial for each lane."""
        sizes = MIXED_SIZES if self.batch == MIXED else (int(self.batch),)
        return [
            replace(
                CONFIGS[self.model],
                batch_size=sizes[lane % len(sizes)],
                seed=lane,
            )
            for lane in range(self.n_lanes)
        ]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = build_parser("lanes", __doc__, f"{N_SHORT_IMAGES:,} images, few settings")
    parser.add_argument("--models", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--lanes", nargs="+", type=int, metavar="N")
    parser.add_argument(
        "--batches", nargs="+", metavar="SIZE", help=f"or {MIXED}, which a single lane cannot have"
    )
    parser.add_argument("--chunks", nargs="+", type=int, metavar="SIZE", help="default by rule")
    parser.add_argument("--forms", nargs="+", choices=FORMS, help="of conv; default the device's")
    parser.add_argument("--no-fit", action="store_true", help="without model.fit")
    parser.add_argument("--prove", action="store_true", help="compare with Keras before timing")
    parser.add_argument("--profile", action="store_true", help="time each kernel of a slice")
    parser.add_argument("--epochs", type=int, metavar="N", help="to time; default: 5")
    parser.add_argument(
        "--compile-only", action="store_true", help="a program a model, as a study compiles them"
    )
    return parser.parse_args()


def settings(options: argparse.Namespace) -> Iterator[Setting]:
    """What was asked for, every combination of it."""
    short = options.short
    for n_lanes, model, batch, chunk_size, form in product(
        options.lanes or ((4, 1) if short else LANES),
        options.models,
        options.batches or ((MIXED,) if short else (MIXED, "256")),
        options.chunks or (None,),
        options.forms or (None,),
    ):
        if batch == MIXED and n_lanes == 1:
            batch = "256"
        yield Setting(model, n_lanes, batch, chunk_size, form)


def shape_of(setting: Setting, n_train: int) -> "Shape":
    """What to compile for a setting."""
    from convae.lane_program import Shape
    from convae.shapes import WIDTHS

    configs = setting.configs
    model = configs[0].model
    return Shape.for_trials(
        model,
        n_lanes=setting.n_lanes,
        widths=[getattr(config, WIDTHS[model]) for config in configs],
        batch_sizes=[config.batch_size for config in configs],
        n_train=n_train,
        chunk_size=setting.chunk_size,
        drops=False,
        form=setting.form,
    )


def measure(setting: Setting, images: Any, options: argparse.Namespace, n: int) -> dict[str, Any]:
    """Compiles, trains n epochs in full lanes and tells what all of it took."""
    from convae.lanes import Lanes
    from convae.proof import ProofError, prove

    shape = shape_of(setting, images.n_train)
    lanes = Lanes(shape, images)
    row: dict[str, Any] = {"by": "lanes", **vars(setting), "chunk_size": shape.chunk_size}
    row["compile_seconds"] = lanes.compile()
    if options.prove:
        start = time.perf_counter()
        try:
            prove(lanes)
            row["proof"] = "passed"
        except ProofError as error:
            row["proof"] = row["error"] = str(error)
        row["proof_seconds"] = time.perf_counter() - start
    configs = setting.configs
    start = time.perf_counter()
    states = [lanes.start(config) for config in configs]
    started = time.perf_counter()
    for lane, (config, state) in enumerate(zip(configs, states, strict=True)):
        lanes.put(lane, config, state)
    row["start_ms"] = 1e3 * (started - start) / len(configs)
    row["put_ms"] = 1e3 * (time.perf_counter() - started) / len(configs)

    def epoch() -> list[float]:
        losses: dict[int, float] = {}
        while len(losses) < setting.n_lanes:
            for lane, result in lanes.run().items():
                if result.train_mse is not None:
                    losses.setdefault(lane, result.train_mse)
        return list(losses.values())

    epoch()
    losses, seconds = _timed(epoch, n)
    _, eval_seconds = _timed(lambda: lanes.evaluate(range(setting.n_lanes)), n)
    _, get_seconds = _timed(lambda: lanes.get(0), n)
    row |= {
        "ms_per_trial": [1e3 * each / setting.n_lanes for each in seconds],
        "eval_ms": [1e3 * each for each in eval_seconds],
        "get_ms": [1e3 * each for each in get_seconds],
        "train_mse": statistics.mean(losses),
    }
    if options.profile:
        row["kernels"] = [kernel._asdict() for kernel in kernels_of(lanes.run)]
    return row


class Kernel(NamedTuple):
    """What an instruction of the program took.

    `benchmarks.aot` reads bytes and sizes, by the same names, from the files that XLA writes with
    XLA_FLAGS=--xla_dump_to=FOLDER.
    """

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


def measure_fit(setting: Setting, image_set: ImageSet, n: int) -> dict[str, Any]:
    """The same of `model.fit`, which trains one trial."""
    from benchmarks.peers import fit_epochs

    (config,) = setting.configs
    epoch = fit_epochs(config, image_set, jit_compile=True)
    _, (first,) = _timed(epoch, 1)
    loss, seconds = _timed(epoch, n)
    # The first epoch compiles, a second shape for its last batch too.
    return {
        "by": "model.fit",
        **vars(setting),
        "chunk_size": None,
        "compile_seconds": first - statistics.median(seconds),
        "ms_per_trial": [1e3 * each for each in seconds],
        "eval_ms": None,
        "train_mse": loss,
    }


def compile_at_once(asked: list[Setting], image_set: ImageSet) -> dict[str, Any]:
    """How long the engine waits for the models' programs, compiled in threads."""
    from convae.engine import Engine
    from convae.shapes import ProgramId

    shapes = {}
    for setting in reversed(asked):  # of each model the first that was asked for
        shape = shape_of(setting, len(image_set.train_images))
        shapes[ProgramId(shape.model, single=False)] = shape
    engine = Engine.open(image_set, shapes)
    start, processor_start = time.perf_counter(), time.process_time()
    engine.compile()
    each = {program.model: seconds for program, seconds in engine.compile_seconds.items()}
    return {
        "compile_seconds": each,
        "wall_seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
    }


def measured_rows(
    options: argparse.Namespace, asked: list[Setting], images: Any, n: int
) -> Iterator[dict[str, Any]]:
    """What each setting took, as soon as it is known; then `model.fit`."""
    for setting in asked:
        try:
            yield measure(setting, images, options, n)
        except Exception as error:  # XLA's, of which others may be free
            yield {"by": "lanes", **vars(setting), "error": f"{type(error).__name__}: {error}"}
    if not options.no_fit:
        one = {replace(s, n_lanes=1, chunk_size=None, form=None, batch="256") for s in asked}
        for setting in sorted(one, key=str):
            yield measure_fit(setting, images.image_set, n)


def _timed(call: Callable[[], Any], n: int) -> tuple[Any, list[float]]:
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, seconds


def main() -> int:
    """Measures, prints tables and writes `benchmarks/results/lanes-DEVICE.json`."""
    options = parse_arguments()
    n, image_set = options.epochs or (2 if options.short else 5), load_images(options.data)
    if options.short:
        part = {"train_images": image_set.train_images[:N_SHORT_IMAGES]}
        image_set = replace(
            image_set, **part, test_images=image_set.test_images[: N_SHORT_IMAGES // 4]
        )
    if not options.compile_only:
        os.environ[SWITCH] = "0"
    with filtered_stderr():
        from convae.device import open_device
        from convae.lane_program import DeviceImages

        device = open_device(lanes=True)
        images = DeviceImages(image_set)
    what = f"milliseconds a trial and epoch of {images.n_train:,} images"
    result: dict[str, Any] = {"what": what, "n": n, "device": device.description}
    result |= {"xla_flags": os.environ.get("XLA_FLAGS", ""), "rows": []}
    name = f"lanes-{'gpu' if device.jit_compile else 'cpu'}"
    asked = list(dict.fromkeys(settings(options)))
    if options.compile_only:
        with filtered_stderr():
            result["compiled_at_once"] = together = compile_at_once(asked, image_set)
        print(f"compiled at once: {together['compile_seconds']}, {together['wall_seconds']:.1f} s")
        write_result(name, result, short=options.short)
        return 0
    for row in measured_rows(options, asked, images, n):
        result["rows"].append(row)
        print(_line(row), flush=True)
        write_result(name, result, short=options.short)
    rows = [row for row in result["rows"] if "train_mse" in row]
    headings = ["model", "lanes", "batch", "chunk", "compile s", "ms", "eval ms", "MSE"]
    title = f"{what}, median of {n} (lowest to highest), {device.description}"
    print_table(title, headings, [_cells(row) for row in rows])
    return int(any("error" in row for row in result["rows"]))


def _line(row: dict[str, Any]) -> str:
    facts = _cells(row) if "train_mse" in row else [row["model"], str(row["n_lanes"])]
    return "  ".join(text for text in [*facts, row.get("error", row.get("proof"))] if text)


def _cells(row: dict[str, Any]) -> list[str]:
    lanes = row["n_lanes"] if row["by"] == "lanes" else row["by"]
    facts = [row["model"], lanes, row["batch"], row["chunk_size"]]
    evaluation = "" if row["eval_ms"] is None else f"{statistics.median(row['eval_ms']):.2f}"
    times = [f"{row['compile_seconds']:.1f}", cell(row["ms_per_trial"]), evaluation]
    return ["" if fact is None else str(fact) for fact in facts] + [
        *times,
        f"{row['train_mse']:.4f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
