"""Runs a study: claims resources from Ray, builds the Tuner, and keeps the run folder as it goes.

The plan is `study.search`'s, the training `study.trainable`'s; this module brings them together
and says, a line a step, what happens.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from convae.data import SHA256, Mnist
from convae.hardware import describe_machine
from study import schema
from study.presets import SpecError, StudySpec
from study.records import Manifest, Records
from study.search import StudySearch
from study.space import PlannedTrial
from study.trainable import AutoencoderTrial

MAX_RETRIES = 2  # of a trial that failed with an error
# Ray Tune's own files of a trial repeat what the tables hold.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# The first Ctrl-C is ours: it stops the study in an orderly way.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")


@dataclass(frozen=True)
class Resources:
    """What to run a study on.

    Attributes:
        n_gpus: GPUs to use; None for those that Ray sees, 0 for the CPU.
        gpus_per_trial: may be a fraction; 0 on a CPU.
        cpus_per_trial: also the threads that TensorFlow uses; None to choose by the machine.
        address: of a Ray cluster that runs already; None starts Ray on this machine.
    """

    n_gpus: int | None = None
    gpus_per_trial: float = 1.0
    cpus_per_trial: int | None = None
    address: str | None = None


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
    n_slots = n_cpus // cpus
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


class Progress(tune.Callback):
    """Keeps the records and tells, a line a trial, what happens; in a terminal also what runs now."""

    def __init__(self, records: Records, n_trials: int, search: StudySearch) -> None:
        self._records = records
        self._n_trials = n_trials
        self._search = search
        self._started = time.monotonic()
        self._running: dict[str, str] = {}
        self.console = Console(highlight=False, soft_wrap=True)
        self._status = self.console.status("starting the first worker")
        self._device_said = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray Tune's own copy, which is never used

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows the running trials below the lines, if the output is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with self._status:
            yield

    def say(self, line: str) -> None:
        """Prints a line with the seconds since the start."""
        self.console.print(f"[{time.monotonic() - self._started:5.0f} s] {line}", markup=False)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Enters the trial."""
        planned = PlannedTrial.from_tune(trial.config)
        self._records.start(planned)
        self._show(planned, 0)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records the epochs."""
        planned = PlannedTrial.from_tune(trial.config)
        if not self._device_said:
            self._device_said = True
            self.say(f"training on {result['device']}")
        self._records.report(planned.trial_id, result)
        if result["history"]:
            self._show(planned, result["history"][-1]["epoch"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as completed, diverged or pruned; a study that stops leaves it running."""
        state = trial.last_result.get("state", schema.RUNNING)
        if state == schema.RUNNING and not self._search.stopping:
            state = schema.PRUNED
        error = None
        if state == schema.DIVERGED:
            epoch = trial.last_result["diverged_epoch"]
            error = f"The loss stopped being finite in epoch {epoch}."
        self._end(trial, state, error)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Counts a retry."""
        trial_id = _trial_id(trial)
        self._records.retry(trial_id, trial.num_failures, _last_line(trial))
        self.say(f"{trial_id}  failed, retry {trial.num_failures} of {MAX_RETRIES}")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Ends the trial as failed."""
        self._records.retry(_trial_id(trial), MAX_RETRIES, _last_line(trial))
        self._end(trial, schema.FAILED, _last_line(trial))

    def _end(self, trial: Trial, state: str, error: str | None) -> None:
        row = self._records.end(_trial_id(trial), state, error)
        self._running.pop(row["trial_id"], None)
        metrics = [
            f"{name} {row[name]:.5f}" for name in schema.METRICS if row.get(name) is not None
        ]
        seconds = row.get("train_seconds")
        details = [
            state,
            f"{row.get('epochs_completed', 0)} epochs",
            *metrics,
            *([f"trained {seconds:.1f} s"] if seconds else []),
            *([error] if error else []),
        ]
        ended = self._records.count(*set(schema.STATES) - {schema.RUNNING})
        self.say(f"({ended}/{self._n_trials}) {row['trial_id']}  " + "  ".join(details))

    def _show(self, planned: PlannedTrial, epoch: int) -> None:
        self._running[planned.trial_id] = (
            f"{planned.trial_id} epoch {epoch}/{planned.config.epochs}"
        )
        self._status.update("running: " + ", ".join(self._running.values()))


def _trial_id(trial: Trial) -> str:
    return str(trial.config["trial_id"])


def _last_line(trial: Trial) -> str:
    """The last line of the trial's traceback: the error itself."""
    error = trial.get_error()
    lines = str(error).strip().splitlines() if error else []
    return lines[-1].strip() if lines else "the worker process died"


class _Stop(tune.Stopper):
    """Stops the whole study at its time budget or at the first Ctrl-C; the second one is for good."""

    def __init__(self, search: StudySearch, budget_seconds: float | None) -> None:
        self._search = search
        self._deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        self.interrupted = False
        self.out_of_time = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray Tune's own copy, which is never used

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Asked by Ray Tune all the time."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.out_of_time = True
        self._search.stopping = self.interrupted or self.out_of_time
        return self._search.stopping

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """While the block runs, the first Ctrl-C stops the study in an orderly way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes:
        status: "finished", "interrupted" or "out of time".
        n_failed: trials that failed with an error, after all retries.
    """

    status: str
    n_failed: int


def run_study(
    spec: StudySpec, resources: Resources, mnist: Mnist, folder: Path, command: list[str]
) -> Outcome:
    """Runs a study inside a Ray session and leaves its results in the run folder.

    Args:
        spec: which trials.
        resources: on what.
        mnist: the images, put into Ray's object store once.
        folder: the run folder, to be made.
        command: the command line, for the manifest.

    Raises:
        SpecError: the request is impossible; nothing was written.
    """
    slots = claim(resources)
    gpu = check_gpu(slots)
    folder.mkdir(parents=True)
    manifest = Manifest(
        folder,
        command=command,
        spec=spec.to_dict(),
        data={"source": mnist.source, "sha256": dict(SHA256)},
        hardware={**describe_machine(), "gpus": [gpu] if gpu else []},
        resources={
            "cpus_per_trial": slots.cpus_per_trial,
            "gpus_per_trial": slots.gpus_per_trial,
            "max_concurrent": slots.n_slots,
            "address": resources.address,
        },
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / schema.OPTUNA_FILE}")
    search = StudySearch(spec, storage)
    stop = _Stop(search, spec.time_budget_seconds)
    records = Records(folder)
    records.write()
    progress = Progress(records, search.n_trials, search)
    trainable = tune.with_resources(
        tune.with_parameters(
            AutoencoderTrial,
            mnist=mnist,
            n_threads=slots.cpus_per_trial,
            gpu=bool(slots.gpus_per_trial),
            run_folder=str(folder.resolve()),
        ),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,  # the search says when it is finished
            max_concurrent_trials=slots.n_slots,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=schema.TUNE_FOLDER,
            storage_path=str(folder.resolve()),
            callbacks=[progress],
            stop=stop,
            # No checkpoint that nobody asked for: trials that are worth it keep their model.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
            verbose=0,
        ),
    )
    status = "failed"
    try:
        with stop.catching_interrupts(), progress.live():
            tuner.fit()
        status = "finished"
        if stop.interrupted:
            status = "interrupted"
        elif stop.out_of_time:
            status = "out of time"
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        records.write()
        manifest.finish(status)
        storage.engine.dispose()
    return Outcome(status, records.count(schema.FAILED))
