"""What the driver of a long study costs: its memory and its time a trial, as trials add up.

    python -m benchmarks.scaling            (2,000 trials; about ten minutes on two CPU cores)
    python -m benchmarks.scaling --short    (200 trials)

The trials are a formula instead of a training, so that all the rest is what is measured: Ray Tune,
Optuna, the scheduler and the run folder. A study of search trials runs in a process of its own and
is watched from outside, through its tables and what the system says of the process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race import build_parser, print_table, write_result
from convae.results import EpochResult, Report, Status
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import read_tables
from study.plan.trials import PlannedTrial
from study.tune.engines import Ready
from study.tune.trainable import WorkerSettings

N_EPOCHS = 5
MARKS = (100, 200, 500, 1000, 2000)  # trials ended
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class FormulaEngine:
    """In the place of `study.tune.engines.StudyEngine`, which the rest of a study takes it for.

    A training that takes no time: its MSE depends on the learning rate and the epoch.
    """

    in_lanes = False
    report_seconds = 1.0

    def __init__(self, *_: Any, **__: Any) -> None:
        self._epoch = self._until_epoch = 0

    def describe(self) -> str:
        """Its device."""
        return "a formula"

    def ready(self, planned: PlannedTrial, timeout_seconds: float) -> Ready:
        """What trains a trial: no lanes."""
        return Ready({})

    def submit(self, attempt: Any, planned: PlannedTrial, until_epoch: int, state: Any) -> int:
        """Takes a trial."""
        assert state is None  # trials of no time leave no checkpoint
        self._planned, self._epoch, self._until_epoch = planned, 0, until_epoch
        return 1

    def advance(self, attempt: Any, until_epoch: int) -> None:
        """Lets it train on."""
        self._until_epoch = until_epoch

    def report(self, attempt: Any, timeout_seconds: float) -> Report:
        """Trains until it must pause."""
        setting = 1 + np.log(self._planned.config.learning_rate / 0.3) ** 2
        epochs = []
        while self._epoch < self._until_epoch:
            self._epoch += 1
            mse = 0.01 * (setting + 1 / self._epoch)
            epochs.append(EpochResult(self._epoch, mse, mse, 0.001, 0.0))
        return Report(Status.PAUSED, epochs, None)

    def checkpoint(self, attempt: Any) -> tuple[Report, None]:
        """Has none."""
        return Report(Status.PAUSED, [], None), None

    def export(self, attempt: Any) -> dict[str, bytes]:
        """Has no model."""
        return {}

    def remove(self, attempt: Any) -> None:
        """Nothing is left."""


def run(folder: str, n_trials: int, sampler: str) -> None:
    """The study that is watched."""
    from convae.data import ImageSet
    from study.plan.spec import StudySpec
    from study.tune.driver import run_study
    from study.tune.resources import Resources, ray_session

    image, label = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)
    spec = StudySpec(
        preset="scaling",
        models=(schema.DENSE,),
        hidden_units=(64,),
        epochs=N_EPOCHS,
        n_search_trials=n_trials,
        n_finalists=0,
        sampler=sampler,
    )
    with ray_session(None):
        run_study(
            spec,
            Resources(n_gpus=0, cpus_per_trial=1),
            ImageSet(image, label, image, label, "a formula"),
            RunFolder(folder),
            command=["benchmarks.scaling"],
            quiet=True,
            workers=WorkerSettings(engine=FormulaEngine),
        )


def usage(pid: int) -> tuple[float, float]:
    """A process's resident memory in MiB and its processor seconds so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    (resident,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(resident) / 1024, (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def n_ended(folder: Path) -> int:
    """The trials that the run folder knows to have ended."""
    try:
        trials, _ = read_tables(RunFolder(folder))
    except RunFolderError:  # nothing is written yet
        return 0
    return sum(state != schema.RUNNING for state in trials["state"].to_pylist())


def watch(n_trials: int, sampler: str) -> list[dict[str, Any]]:
    """Runs a study; a row at each of `MARKS` that it reaches."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="convae-bench-") as storage:
        folder = Path(storage) / "run"
        command = [sys.executable, "-m", "benchmarks.scaling", "--run", str(folder)]
        with subprocess.Popen([*command, str(n_trials), sampler]) as study:
            marks = [mark for mark in MARKS if mark <= n_trials]
            before: tuple[int, float, float] | None = None
            while study.poll() is None and marks:
                time.sleep(1)
                n = n_ended(folder)
                if n == 0:
                    continue
                memory, processor = usage(study.pid)
                now = time.monotonic()
                if before is None:
                    before = n, now, processor
                if n >= marks[0]:
                    marks = [mark for mark in marks if mark > n]
                    n_new = max(1, n - before[0])
                    row = {"sampler": sampler, "n_trials": n, "driver_mib": memory}
                    row["driver_seconds_a_trial"] = (processor - before[2]) / n_new
                    row["wall_seconds_a_trial"] = (now - before[1]) / n_new
                    rows.append(row)
                    before = n, now, processor
            if study.wait():
                sys.exit(f"the study ended with exit code {study.returncode}")
    return rows


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/scaling-cpu.json`."""
    parser = build_parser("scaling", __doc__, "200 trials")
    parser.add_argument("--sampler", default="tpe", help="tpe (default) or random")
    parser.add_argument("--run", nargs=3, help="the study itself: folder, trials, sampler")
    options = parser.parse_args()
    if options.run:
        folder, n_trials, sampler = options.run
        run(folder, int(n_trials), sampler)
        return
    rows = watch(200 if options.short else MARKS[-1], options.sampler)
    table = [
        [
            f"{row['n_trials']:,}",
            f"{row['driver_mib']:.0f}",
            f"{row['driver_seconds_a_trial']:.3f}",
            f"{row['wall_seconds_a_trial']:.3f}",
        ]
        for row in rows
    ]
    headings = ["trials", "driver MiB", "its processor seconds a trial", "wall seconds a trial"]
    print_table(
        f"A study of search trials ({options.sampler}), since the line before", headings, table
    )
    if not options.short:
        what = (
            f"the driver of a study of {MARKS[-1]} search trials of {N_EPOCHS} epochs of a formula"
        )
        write_result(f"scaling-{options.sampler}-cpu", {"what": what, "n": 1, "rows": rows})


if __name__ == "__main__":
    main()
