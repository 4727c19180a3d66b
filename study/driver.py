"""Runs a study: brings Ray Tune, the plan, the records and the run folder together.

The plan is `study.search`'s, the training `study.trainable`'s, the lines on the terminal
`study.progress`'s; this module builds the Tuner and decides when it stops.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from ray import tune

from convae.data import SHA256, Mnist
from convae.hardware import describe_machine
from study.folder import schema
from study.log import logging_to
from study.loggers import MlflowLogger, open_experiment
from study.mps import sharing_note
from study.optuna_file import OptunaFile
from study.presets import StudySpec
from study.progress import MAX_RETRIES, Progress, trial_id_of
from study.records import Manifest, Records
from study.resources import Resources, Slots, check_gpu, check_storage, claim
from study.scheduling import SearchScheduler, check_sampler
from study.search import StudySearch
from study.storage import RunFolder, StorageError
from study.trainable import AutoencoderTrial
from study.tune_mends import mend_tune
from study.warm_start import earlier_trials

_log = logging.getLogger(__name__)

# From a person at the terminal, and from a machine that is about to be taken away.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

# Ray Tune's own files of a trial repeat what the tables hold.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its newer output engine prints a banner and every error however quiet it is told to be.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# The first Ctrl-C is ours: it stops the study in an orderly way.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
mend_tune()


class _Stop(tune.Stopper):
    """Stops the whole study at its time budget, at the first Ctrl-C, or when its storage fails."""

    def __init__(self, search: StudySearch, records: Records, budget_seconds: float | None) -> None:
        self._search = search
        self._records = records
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
        stop = self.interrupted or self.out_of_time or self._records.trouble is not None
        self._search.stopping = stop
        return stop

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """While the block runs, the first Ctrl-C or SIGTERM stops the study in an orderly way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(*_: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        previous = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class Outcome:
    """How a study ended.

    Attributes:
        status: "finished", "interrupted" or "out of time".
        n_failed: trials that failed with an error, after all retries.
    """

    status: str
    n_failed: int


def describe_plan(spec: StudySpec, search: StudySearch, slots: Slots) -> str:
    """The study in a line: how many trials of what, how many at once, on what."""
    trials = ", ".join(f"{n} {group}" for group, n in search.n_trials.items())
    note = ", no two sharing a device" if spec.timed else ""
    return (
        f"plan: {trials} trials of {spec.epochs} epochs;"
        f" {slots.n_slots} at once, {slots.needs} each{note}"
    )


def run_study(
    spec: StudySpec,
    resources: Resources,
    mnist: Mnist,
    folder: RunFolder,
    *,
    command: list[str],
    resume: bool = False,
    quiet: bool = False,
    mlflow: str | None = None,
    trainable: type[AutoencoderTrial] = AutoencoderTrial,
) -> Outcome:
    """Runs a study inside a Ray session and leaves its results in the run folder.

    Args:
        spec: which trials.
        resources: on what.
        mnist: the images, put into Ray's object store once.
        folder: the run folder, to be made, or that of an earlier session of the study.
        command: the command line, for the manifest.
        resume: go on where the earlier session stopped: trials it ended are not run again, others
            go on from their checkpoints.
        quiet: print the plan and failures only; the log file has the rest.
        mlflow: URI of an MLflow store to tell of each trial; None for none.
        trainable: what trains; the tests replace the training by a closed form.

    Raises:
        SpecError: the request is impossible; nothing was written.
        StorageError: the run folder cannot be written or is torn; the study can be resumed.
    """
    check_sampler(spec)
    slots = claim(resources, timed=spec.timed)
    known = cache(partial(earlier_trials, spec))
    if not resume:
        known()  # which refuses what it cannot read
    check_storage(folder.parent)
    gpu = check_gpu(slots)
    experiment = open_experiment(mlflow, folder) if mlflow else None
    plan_note = sharing_note(slots)
    manifest = Manifest(
        folder,
        command,
        resume=resume,
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
    records = Records(folder, resume=resume, on_write=manifest.write)
    records.write()
    if records.trouble:
        raise records.trouble
    with closing(OptunaFile(folder)) as optuna_file, TemporaryDirectory() as elsewhere:
        search = StudySearch(
            spec, optuna_file.storage, records=records, known=known, save=optuna_file.save
        )
        budget = spec.time_budget_seconds
        stop = _Stop(search, records, budget and budget - manifest.earlier_seconds)
        progress = Progress(records, search, spec, slots.n_slots, slots.needs, quiet=quiet)
        loggers = [MlflowLogger(experiment, records)] if experiment else []
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    trainable,
                    mnist=mnist,
                    n_threads=slots.cpus_per_trial,
                    gpu=bool(slots.gpus_per_trial),
                    folder=folder,
                ),
                {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
            ),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=_scheduler(spec, records),
                num_samples=-1,  # the search says when it is finished
                max_concurrent_trials=slots.n_slots,
                reuse_actors=True,
                trial_name_creator=trial_id_of,
                trial_dirname_creator=trial_id_of,
            ),
            run_config=tune.RunConfig(
                # Nobody reads Ray Tune's own files, a folder a trial: they stay out of the run's.
                storage_path=elsewhere,
                # The records hear of a trial's end before the logger tells of it.
                callbacks=[progress, *loggers],
                stop=stop,
                # Trials keep checkpoints of their own, see study.checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                verbose=0,
            ),
        )
        status = "failed"
        try:
            with stop.catching_interrupts(), logging_to(folder), progress.live():
                progress.say(describe_plan(spec, search, slots) + plan_note, always=True)
                try:
                    tuner.fit()
                except OSError:
                    # It may not be the storage's: the log says where it comes from.
                    _log.exception("the study stops")
                    raise
            status = "finished"
            if records.trouble:
                status = "storage failed"
            elif stop.interrupted:
                status = "interrupted"
            elif stop.out_of_time:
                status = "out of time"
        except KeyboardInterrupt:
            status = "interrupted"
        except (StorageError, OSError, optuna.exceptions.StorageInternalError) as error:
            status = "storage failed"
            records.trouble = records.trouble or StorageError(f"{folder} cannot be used: {error}.")
        finally:
            trouble = records.trouble
            records.write()
            with suppress(StorageError):
                manifest.finish(status)
    if trouble:
        raise trouble
    return Outcome(status, records.count(schema.FAILED))


def _scheduler(spec: StudySpec, records: Records) -> SearchScheduler:
    """The study's scheduler, which knows the search trials that an earlier session ended."""
    scheduler = SearchScheduler(spec)
    ended = records.ended
    for row in records.rows():
        if row["group"] == schema.SEARCH and row["trial_id"] in ended:
            values = {
                epoch["epoch"]: epoch[schema.OBJECTIVE]
                for epoch in records.epochs_of(row["trial_id"])
                if epoch.get(schema.OBJECTIVE) is not None
            }
            scheduler.learn(row["model"], row["trial_id"], values)
    return scheduler
