"""What a trial costs beside its arithmetic: its start, its worker's memory, the command's start.

    python -m benchmarks.start            (ten further trials of each model)
    python -m benchmarks.start --short    (one)

On the CPU: a program of XLA has no step that could be timed by itself. A study of one-epoch trials,
conv and then dense-512, runs on one slot, so that one worker of Ray Tune, the study's own, trains
all of them. Of each further trial it notes the time to the end of the first step, which is at most
two steps more than the trial waited, and the memory that the worker takes. Beside it
`python -m study.run --help` is started ten times, which needs neither Ray nor TensorFlow.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.race import build_parser, cell, print_table, write_result
from convae.config import TrialConfig
from convae.data import ImageSet, load_images
from convae.device import open_device
from convae.engine import Engine
from convae.training import Trainer, Training
from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.spec import StudySpec
from study.tune.driver import run_study
from study.tune.engines import StudyEngine
from study.tune.resources import Resources, ray_session
from study.tune.trainable import WorkerSettings

NOTES = "notes"  # a folder of files MODEL-SEED.json in the run folder
N_FURTHER = 10
N_COMMANDS = 10
MEMORY = {
    "peak_resident_mib": ("status", "VmHWM"),
    "resident_mib": ("smaps_rollup", "Rss"),
    "proportional_mib": ("smaps_rollup", "Pss"),
}


class NotingTrainer(Trainer):
    """The study's trainer, which notes what its trials wait for and what memory they take."""

    def __init__(self, folder: RunFolder, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        assert self._images  # which are there from now on
        self._folder = folder
        self._empty = memory()  # TensorFlow and the images, no program yet
        self._ended_at: float | None = None  # the trial before

    def start(self, config: TrialConfig) -> Training:
        """Prepares a trial and takes a step by itself."""
        started = time.perf_counter()
        training = super().start(config)
        one_step(training)
        stepped = time.perf_counter()
        notes: dict[str, Any] = {
            "model": config.model,
            "compile_seconds": training.compile_seconds,
            "memory_empty": self._empty,
        }
        if self._ended_at is not None:
            notes["worker_seconds"] = stepped - started
            notes["slot_seconds"] = stepped - self._ended_at

        def evaluate() -> float:
            """Which ends the trial's only epoch."""
            value = Training.evaluate(training)
            notes["memory"] = memory()
            name = f"{NOTES}/{config.model}-{config.seed}.json"
            self._folder.write(name, json.dumps(notes).encode())
            self._ended_at = time.perf_counter()
            return value

        training.evaluate = evaluate  # type: ignore[method-assign]
        return training


def noting_engine(folder: RunFolder, *arguments: Any, **settings: Any) -> StudyEngine:
    """The engine of a study's worker, with a trainer that notes.

    Args:
        folder: for the notes.
        arguments: of `StudyEngine`.
        settings: the same.
    """

    def open_engine(image_set: ImageSet, *_: Any, n_threads: int, **__: Any) -> tuple[str, Engine]:
        device = open_device(gpu=False, n_threads=n_threads)
        engine = Engine.open(image_set, {}, NotingTrainer(folder, image_set, device))
        engine.start()
        return device.description, engine

    return StudyEngine(*arguments, **settings, open_engine=open_engine)


def one_step(training: Any) -> None:
    """Shuffles for an epoch and takes a step that changes no weight, as the trainer warms up."""
    training._program.warm_up()


def memory() -> dict[str, float]:
    """This process's memory in MiB, as Linux tells it.

    Resident: with pages that it shares with other processes. Proportional: those by shares.
    """
    found = {}
    for name, (file, field) in MEMORY.items():
        for line in Path(f"/proc/self/{file}").read_text().splitlines():
            if line.startswith(f"{field}:"):
                found[name] = int(line.split()[1]) / 1024
    return found


def run_trials(n_further: int, data: str | None) -> list[dict[str, Any]]:
    """The notes of all trials, which one worker trained."""
    image_set = load_images(data)
    spec = StudySpec(preset="start", hidden_units=(512,), epochs=1, n_seeds=1 + n_further)
    with tempfile.TemporaryDirectory(prefix="convae-bench-") as storage, ray_session(None):
        folder = RunFolder(f"{storage}/run")
        resources = Resources(n_gpus=0, cpus_per_trial=1, max_concurrent=1)
        command = ["benchmarks.start"]
        workers = WorkerSettings(engine=partial(noting_engine, folder))
        outcome = run_study(
            spec, resources, image_set, folder, command=command, quiet=True, workers=workers
        )
        if outcome.status != "finished" or outcome.n_failed:
            log = (folder.read(schema.LOG_FILE) or b"").decode()
            sys.exit(f"The study is {outcome.status}, {outcome.n_failed} trials failed:\n{log}")
        return [json.loads(folder.read(name) or b"") for name in folder.names(NOTES)]


def start_commands(n: int) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of `study.run --help`; a first one, for the disk, is not timed."""
    walls, processors = [], []
    for _ in range(1 + n):
        before, started = _processor_of_children(), time.perf_counter()
        command = [sys.executable, "-m", "study.run", "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        walls.append(time.perf_counter() - started)
        processors.append(_processor_of_children() - before)
    return walls[1:], processors[1:]


def _processor_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measures, prints two tables and writes `benchmarks/results/start-cpu.json`."""
    short = "one further trial of each model, three commands"
    options = build_parser("start", __doc__, short).parse_args()
    n_further, n_commands = (1, 3) if options.short else (N_FURTHER, N_COMMANDS)
    walls, processors = start_commands(n_commands)
    trials = run_trials(n_further, options.data)
    table = [
        ["python -m study.run --help", f"{n_commands}", cell(walls)],
        ["the same, processor time", f"{n_commands}", cell(processors)],
    ]
    for model in schema.MODELS:
        # The first trial of a model compiles.
        further = [x for x in trials if x["model"] == model and x["compile_seconds"] == 0]
        for what, key in (
            (f"further {model} trial, to the end of its first step", "worker_seconds"),
            ("the same with Tune, from the end of the trial before", "slot_seconds"),
        ):
            table.append([what, str(len(further)), cell([x[key] for x in further])])
    print_table("Seconds, median (lowest to highest)", ["what", "n", "seconds"], table)
    last = max(trials, key=lambda x: x["memory"]["peak_resident_mib"])
    print_table(
        "A worker's memory on the host, MiB",
        ["when", *MEMORY],
        [
            [
                "TensorFlow and the images",
                *(f"{last['memory_empty'][name]:.0f}" for name in MEMORY),
            ],
            ["all trials trained", *(f"{last['memory'][name]:.0f}" for name in MEMORY)],
        ],
    )
    if not options.short:
        write_result(
            "start-cpu",
            {
                "what": "what a trial of one epoch costs beside its arithmetic, batch size 256",
                "n": n_further,
                "help_seconds": walls,
                "help_processor_seconds": processors,
                "trials": trials,
            },
        )


if __name__ == "__main__":
    main()
