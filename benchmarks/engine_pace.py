"""How full a study keeps its lanes, and what that takes of the host: its timeline.

    python -m benchmarks.engine_pace                     (200 and 1,000 dense trials; six minutes)
    python -m benchmarks.engine_pace --preset standard   (any study: the options of study.run)
    python -m benchmarks.engine_pace --real --gpus 1     (on a GPU, in its own lanes)

Ray Tune, keeper, engine and scheduler are the study's; the lanes only sleep, as long as an NVIDIA
H200 took (`PACES`), and Ray is told of a GPU that is not there. Without options of a study it runs
searches of dense trials, the model whose lanes are free soonest (`engine_pace.toml`). With `--real`
the lanes are those of the device, and only watched.

Fill is the share of all lanes' time, from the first slice to the last, in which a slice ran and the
lane had a trial, of a model by itself. Before and after are the command's other seconds; processor
seconds are those of all processes of the study.
"""

# Workers get these classes by value, without the names that only annotations have.
from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks.race import build_parser, descendants, print_table, write_result
from convae.config import CONV, DENSE, TrialConfig
from convae.hardware import usable_cpus
from convae.shapes import MAX_CHUNK_SIZE, ProgramShape, n_chunks
from study.folder import schema
from study.tune.engines import StudyEngine, open_engine

if TYPE_CHECKING:
    from convae.data import ImageSet
    from convae.engine import Engine
    from convae.lanes import LaneState, SliceResult

LOG = "CONVAE_PACE_LOG"  # the environment variable that names the file of events
PACE = "CONVAE_PACE"  # and the one that names the paces
SAMPLE_SECONDS = 0.5
SEARCH = ["benchmarks/engine_pace.toml", "--name", "search"]
SIZES = (200, 1000)
KINDS = ("driver", "engine", "workers", "raylet", "Ray's others")  # of processes
FILLS = {"slice_ms": 1, "fill": 3, "fill_until_last_start": 3}  # and their digits


class Pace(NamedTuple):
    """What a model's programs take: milliseconds a trial and epoch, seconds to compile."""

    shared: float  # of 16 lanes, in chunks of 256
    mixed: float  # of 16 lanes of mixed batch sizes, in chunks of 64
    single: float  # of one lane
    compile_shared: float
    compile_single: float


# Measured on an H200 with the lanes' prototype (`benchmarks/README.md`), and the same times by the
# ratio of the static estimates of the programs since (`results/aot-h200.json`; mixed chunks of conv
# by that of the same estimate of chunks of 64, 388 and 670 µs).
PACES: dict[str, dict[str, Pace]] = {
    "measured": {
        CONV: Pace(28.6, 34.8, 85.6, 34.8, 31.5),
        DENSE: Pace(3.8, 11.2, 16.8, 13.3, 5.7),
    },
    "estimated": {
        CONV: Pace(28.6 * 820 / 1824, 34.8 * 388 / 670, 85.6 * 271 / 406, 34.8, 31.5),
        DENSE: Pace(3.8 * 247 / 250, 11.2, 16.8, 13.3, 5.7),
    },
    "none": dict.fromkeys((CONV, DENSE), Pace(0, 0, 0, 0, 0)),  # what is left is the host's
}


def log_event(kind: str, *facts: Any) -> None:
    """Appends an event to the log; processes may do so at once."""
    line = json.dumps([time.time(), kind, *facts]) + "\n"
    with Path(os.environ[LOG]).open("a") as log:
        log.write(line)


class SleepingLanes:
    """Lanes that sleep; their methods are those of `convae.lanes.Lanes`.

    A trial's MSE is a formula of its learning rate and epoch.
    """

    runs_ahead = True

    def __init__(self, shape: ProgramShape, image_set: ImageSet, device: dict[str, float]) -> None:
        """Takes when the device, which all programs share, is free."""
        self.shape, self.n_lanes = shape, shape.n_lanes
        self._image_set, self._device = image_set, device
        self._pace = PACES[os.environ[PACE]][shape.model]
        self._trials: dict[int, tuple[TrialConfig, int, int]] = {}  # by lane: epoch, step
        self._zeros: dict[Any, list[np.ndarray]] = {}  # weights, by architecture

    def trace(self) -> None:
        """Does nothing."""

    def compile(self) -> float:
        """Sleeps."""
        one = self.n_lanes == 1
        seconds = self._pace.compile_single if one else self._pace.compile_shared
        time.sleep(seconds)
        return seconds

    def check(self, config: TrialConfig, state: LaneState | None = None) -> None:
        """Takes all trials."""

    def start(self, config: TrialConfig) -> LaneState:
        """A state of zeros."""
        from convae.lanes import LaneState

        return LaneState(0, 0, 0.0, self._weights(config), [], [])

    def put(self, lane: int, config: TrialConfig, state: LaneState) -> None:
        """Puts a trial into a lane."""
        self._trials[lane] = config, state.epoch, state.step

    def _weights(self, config: TrialConfig) -> list[np.ndarray]:
        from convae.models import build_model

        if config.architecture not in self._zeros:
            variables = build_model(config).trainable_variables
            self._zeros[config.architecture] = [np.zeros(each.shape) for each in variables]
        return self._zeros[config.architecture]

    def clear(self, lane: int) -> None:
        """Takes the trial out of a lane."""
        del self._trials[lane]

    def launch(self) -> Any:
        """A slice that is done when the device, which sleeps, has done those before and it."""
        from convae.data import split
        from convae.lanes import LaneState, SliceResult
        from convae.trainer_lane import DoneSlice

        chunk_size = self.shape.chunk_size
        if self.n_lanes > 1:
            mixed = chunk_size < MAX_CHUNK_SIZE
            milliseconds = self.n_lanes * (self._pace.mixed if mixed else self._pace.shared)
        else:  # launches are most of it: an epoch in chunks of 64 is estimated at three times this
            milliseconds = self._pace.single * (MAX_CHUNK_SIZE / chunk_size) ** 0.8
        n_train = len(self._image_set.train_images)
        longest = n_chunks(n_train, chunk_size, chunk_size)
        seconds = milliseconds / 1e3 * self.shape.n_steps / longest
        done_at = self._device["free_at"] = max(self._device["free_at"], time.time()) + seconds
        results, states = {}, {}
        for lane, (config, epoch, step) in self._trials.items():
            n_images = len(split(self._image_set, config.split).train_images)
            step += self.shape.n_steps
            ended = step >= n_chunks(n_images, config.batch_size, chunk_size)
            mse = mse_of(config, epoch + 1) if ended else None
            share = max(seconds, 1e-9) / len(self._trials)
            results[lane] = SliceResult(epoch + 1, mse, True, train_seconds=share)
            now = (config, epoch + 1, 0) if ended else (config, epoch, step)
            self._trials[lane] = now
            states[lane] = LaneState(*now[1:], 0.0, self._weights(config), [], [])

        class SleepingSlice(DoneSlice):
            def results(self) -> dict[int, SliceResult]:
                time.sleep(max(0.0, done_at - time.time()))
                return super().results()

        after = dict(self._trials)
        return SleepingSlice(results, states, lambda lane: mse_of(*after[lane][:2]))


def mse_of(config: TrialConfig, epoch: int) -> float:
    """A learning curve."""
    return 0.01 * (1 + math.log(config.learning_rate / 0.3) ** 2 + 1 / epoch)


def watched(kind: type) -> type:
    """Such lanes that log when they are compiled, and then their trials and slices.

    Not those of their proof. A slice is from its launch, or the end of the one before, to its
    results.
    """

    class Watched(kind):
        _tells = False
        _ended_at = 0.0  # the slice before

        def compile(self) -> float:
            seconds: float = super().compile()
            self._tells = True
            log_event("compiled", str(self.shape), seconds)
            return seconds

        def over(self, images: Any) -> Any:
            of_proof = super().over(images)
            of_proof._tells = False
            return of_proof

        def put(self, *trial: Any) -> None:
            if self._tells:
                log_event("put", str(self.shape))
            super().put(*trial)

        def launch(self) -> Any:
            launched_at = time.time()
            slice_ = super().launch()
            take_in = slice_.results

            def results() -> dict[int, SliceResult]:
                found: dict[int, SliceResult] = take_in()
                began, self._ended_at = max(launched_at, self._ended_at), time.time()
                log_event("slice", str(self.shape), self.n_lanes, len(found), began)
                return found

            if self._tells:
                slice_.results = results
            return slice_

    return Watched


def open_sleeping(
    image_set: ImageSet, _: Any, shapes: Mapping[Any, ProgramShape], **__: Any
) -> tuple[str, Engine]:
    """In the place of `study.tune.engines.open_engine`."""
    from convae.engine import Engine

    device = {"free_at": 0.0}
    kind = watched(SleepingLanes)
    engine = Engine({id_: kind(shape, image_set, device) for id_, shape in shapes.items()})
    log_event("opened")
    engine.start()
    return "lanes that sleep", engine


def open_watched(*arguments: Any, **settings: Any) -> tuple[str, Engine]:
    """`study.tune.engines.open_engine` whose lanes are watched."""
    from convae.lanes import Lanes

    opened = open_engine(*arguments, **settings, lanes=watched(Lanes))
    log_event("opened")
    return opened


class SleepingEngine(StudyEngine):
    """An engine over lanes that sleep."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings, open_engine=open_sleeping)


class WatchedEngine(StudyEngine):
    """An engine over the device's lanes."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings, open_engine=open_watched)


def run(options: list[str], *, real: bool) -> int:
    """The study that is watched; returns its exit code."""
    import ray

    import study.run
    from study.tune.trainable import WorkerSettings

    if not real:
        settings: dict[str, Any] = {"num_cpus": usable_cpus(), "num_gpus": 1}
        settings |= {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", **settings)
        options = [*options, "--gpus", "1"]
    engine = WatchedEngine if real else SleepingEngine
    code = study.run.main(options, workers=WorkerSettings(lanes_engine=engine))
    log_event("ended")
    if not real:
        ray.shutdown()
    return code


class Processes:
    """Processor seconds of a process and of all below it, by what they are, over time."""

    def __init__(self, pid: int) -> None:
        self._pid, self.driver_peak_gib = pid, 0.0
        self._seen: dict[int, tuple[str, float]] = {}  # the latest of each, also of ended ones
        self.samples: list[tuple[float, Counter[str]]] = []

    def sample(self) -> None:
        """Reads what /proc says now."""
        for pid, process in descendants(self._pid).items():
            if process.title:  # one that has ended has none
                self._seen[pid] = process.title, process.processor_seconds
            if pid == self._pid:
                self.driver_peak_gib = max(self.driver_peak_gib, process.peak_gib)
        total: Counter[str] = Counter()
        for pid, (title, seconds) in self._seen.items():
            total["driver" if pid == self._pid else _kind_of(title)] += seconds
        self.samples.append((time.time(), total))

    def between(self, first: float, last: float) -> dict[str, float]:
        """What each kind spent between two times."""
        start, end = (
            min(self.samples, key=lambda sample: abs(sample[0] - at))[1] for at in (first, last)
        )
        return {kind: end[kind] - start[kind] for kind in end}


def _kind_of(command: str) -> str:
    """Of a process's command line: one of `KINDS`."""
    if command.startswith("ray::"):
        return "engine" if "Engine" in command else "workers"
    if "raylet" in command.split("\0")[0]:
        return "raylet"
    return "workers" if "default_worker" in command else "Ray's others"  # until it has its title


def facts_of(events: list[list[Any]], started: float, ended: float) -> dict[str, Any]:
    """What the events of a study say, as seconds since its command started.

    Raises:
        ValueError: no slice was trained.
    """
    slices: dict[str, list[tuple[float, float, int, int]]] = defaultdict(list)
    puts: dict[str, list[float]] = defaultdict(list)
    marks: dict[str, float] = {}
    for at, kind, *facts in events:
        if kind == "slice":
            shape, n_lanes, n_taken, begun = facts
            slices[shape].append((begun, at, n_lanes, n_taken))
        elif kind == "put":
            puts[facts[0]].append(at)
        else:
            marks[" ".join(map(str, [kind, *facts[:1]]))] = at
    if not slices:
        raise ValueError("No slice was trained.")
    first = min(each[0][0] for each in slices.values())
    last = max(each[-1][1] for each in slices.values())
    programs = {}
    for shape, each in slices.items():
        # Until its last trial got a lane, then too: afterwards none is left to fill lanes with.
        fills = [
            sum((end - begun) * taken for begun, end, _, taken in each if begun < until)
            / (each[0][2] * (min(until, each[-1][1]) - each[0][0]))
            for until in (puts[shape][-1], each[-1][1])
            if until > each[0][0]
        ]
        programs[shape] = {
            "n_starts": len(puts[shape]),
            "seconds": [each[0][0] - started, each[-1][1] - started],
            "slice_ms": 1e3 * sum(end - begun for begun, end, *_ in each) / len(each),
            "fill_until_last_start": fills[0],
            "fill": fills[-1],
        }
    return {
        "seconds": ended - started,
        "first_slice": first - started,
        "last_slice": last - started,
        "after": ended - last,
        "marks": {name: at - started for name, at in marks.items()},
        "programs": programs,
    }


def watch(options: list[str], *, real: bool, pace: str) -> dict[str, Any]:
    """Runs a study and tells what it took, and with which code it ended, also if interrupted."""
    study = options
    with tempfile.TemporaryDirectory(prefix="convae-pace-") as folder:
        log = Path(folder) / "log"
        if "--storage" not in options:
            options = [*options, "--storage", folder]
        command = [sys.executable, "-m", "benchmarks.engine_pace", "--watched"]
        environment = {**os.environ, LOG: str(log), PACE: pace}
        started = time.time()
        with subprocess.Popen([*command, *["--real"] * real, *options], env=environment) as process:
            processes = Processes(process.pid)
            with suppress(KeyboardInterrupt):  # the study has it too, and ends
                while process.poll() is None:
                    processes.sample()
                    time.sleep(SAMPLE_SECONDS)
            process.wait()
        ended = time.time()
        if not log.exists():
            sys.exit(f"The study ended with exit code {process.returncode}.")
        events = [json.loads(line) for line in log.read_text().splitlines()]
        storage = Path(options[options.index("--storage") + 1])
        (tables,) = storage.glob(f"*/{schema.TRIALS_FILE}")
        n_trials = pq.read_metadata(tables).num_rows
    facts = facts_of(events, started, ended)
    first, last = (started + facts[name] for name in ("first_slice", "last_slice"))
    spans = {"before": (started, first), "between": (first, last), "after": (last, ended)}
    return {
        "study": study,
        "exit_code": process.returncode,
        "paces": None if real else pace,
        "n_trials": n_trials,
        "trials_per_second": n_trials / (last - first),
        "driver_peak_gib": processes.driver_peak_gib,
        **facts,
        "processor_seconds": {name: processes.between(*span) for name, span in spans.items()},
    }


def main() -> int:
    """Measures, prints tables and writes `benchmarks/results/engine-pace-cpu.json`, or timeline."""
    parser = build_parser("engine_pace", __doc__, "a search of 40 trials")
    parser.add_argument("--real", action="store_true", help="the device's own lanes")
    parser.add_argument("--paces", choices=PACES, default="measured")
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options, study = parser.parse_known_args()
    study += ["--data", options.data] if options.data else []
    if options.watched:
        return run(study, real=options.real)
    sizes = [40] if options.short else SIZES
    studies = [study] if study else [[*SEARCH, "--trials", str(n)] for n in sizes]
    more = [] if options.real else ["--no-report"]
    result: dict[str, Any] = {"n": 1, "load_average_at_the_start": list(os.getloadavg())}
    result["studies"] = found = []
    for each in studies:
        found.append(watch([*each, *more], real=options.real, pace=options.paces))
        _print(found[-1])
        name = "timeline" if options.real else "engine-pace-cpu"
        write_result(name, result, short=options.short or bool(study))
    return next((code for each in found if (code := each["exit_code"])), 0)


def _print(study: Mapping[str, Any]) -> None:
    n, spent = study["n_trials"], study["processor_seconds"]
    first, last = study["first_slice"], study["last_slice"]
    seconds = {"before": first, "between": last - first, "after": study["after"]}
    title = f"{n} trials, {study['trials_per_second']:.2f} a second, "
    title += f"driver {study['driver_peak_gib']:.2f} GiB; {shlex.join(study['study'])}"
    rows = [
        [name, f"{seconds[name]:.1f}", *(f"{spent[name].get(kind, 0):.1f}" for kind in KINDS)]
        for name in seconds
    ]
    a_trial = (f"{1e3 * spent['between'].get(kind, 0) / n:.0f}" for kind in KINDS)
    rows.append(["between, ms a trial", f"{1e3 * (last - first) / n:.0f}", *a_trial])
    print_table(title, ["first to last slice", "seconds", *KINDS], rows)
    rows = [
        [shape, str(each["n_starts"]), *(f"{at:.1f}" for at in each["seconds"])]
        + [f"{each[name]:.{digits}f}" for name, digits in FILLS.items()]
        for shape, each in study["programs"].items()
    ]
    headings = ["program", "starts", "from s", "to s", "ms a slice", "fill", "… to last start"]
    print_table("its lanes", headings, rows)
    print(*(f"{name} {at:.1f} s" for name, at in study["marks"].items()), sep="; ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
