"""Runs a study: brings Ray Tune, the plan, the records and the run folder together.

The plan is `study.search`'s, the training `study.trainable`'s, the lines on the terminal
`study.progress`'s; this module builds the Tuner and decides when it stops.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from convae.data import SHA256, Mnist
from convae.hardware import describe_machine
from study import schema
from study.presets import StudySpec
from study.progress import MAX_RETRIES, Progress, trial_id_of
from study.records import Manifest, Records
from study.resources import Resources, Slots, check_gpu, claim
from study.scheduling import SearchScheduler, check_sampler
from study.search import StudySearch
from study.trainable import AutoencoderTrial

# Ray Tune's own files of a trial repeat what the tables hold.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its newer output engine prints a banner and every error however quiet it is told to be.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# The first Ctrl-C is ours: it stops the study in an orderly way.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")


class _Stop(tune.Stopper):
    """Stops the whole study at its time budget or at the first Ctrl-C."""

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

        def interrupt(*_: Any) -> None:
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


def _plan(spec: StudySpec, search: StudySearch, slots: Slots) -> str:
    trials = ", ".join(f"{n} {group}" for group, n in search.n_trials.items())
    device = f"{slots.cpus_per_trial} CPU"
    if slots.gpus_per_trial:
        device = f"{slots.gpus_per_trial:g} GPU and {device}"
    return f"plan: {trials} trials of {spec.epochs} epochs; {slots.n_slots} at once, {device} each"


def run_study(
    spec: StudySpec,
    resources: Resources,
    mnist: Mnist,
    folder: Path,
    *,
    command: list[str],
    resume: bool = False,
    trainable: type[AutoencoderTrial] = AutoencoderTrial,
) -> Outcome:
    """Runs a study inside a Ray session and leaves its results in the run folder.

    Args:
        spec: which trials.
        resources: on what.
        mnist: the images, put into Ray's object store once.
        folder: the run folder, to be made, or that of an earlier session of the study.
        command: the command line, for the manifest.
        resume: go on where the earlier session stopped; trials it finished are not run again.
        trainable: what trains; the tests replace the training by a closed form.

    Raises:
        SpecError: the request is impossible; nothing was written.
    """
    check_sampler(spec)
    slots = claim(resources)
    gpu = check_gpu(slots)
    folder.mkdir(parents=True, exist_ok=resume)
    records = Records(folder, resume=resume)
    manifest = Manifest(
        folder,
        resume=resume,
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
    search = StudySearch(spec, storage, ended=records.trial_ids)
    stop = _Stop(search, spec.time_budget_seconds)
    records.write()
    progress = Progress(records, search)
    progress.say(_plan(spec, search, slots))
    placed_trainable = tune.with_resources(
        tune.with_parameters(
            trainable,
            mnist=mnist,
            n_threads=slots.cpus_per_trial,
            gpu=bool(slots.gpus_per_trial),
            run_folder=str(folder.resolve()),
        ),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
    tuner = tune.Tuner(
        placed_trainable,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=SearchScheduler(spec),
            num_samples=-1,  # the search says when it is finished
            max_concurrent_trials=slots.n_slots,
            reuse_actors=True,
            trial_name_creator=trial_id_of,
            trial_dirname_creator=trial_id_of,
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
