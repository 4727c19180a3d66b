"""Runs a study: brings the plan, the ledger, Ray Tune and the view together.

What is planned and what became of it is `study.plan`'s, the training `study.tune.trainable`'s, the
lines on the terminal `study.view`'s; this module builds the Tuner and says how the study ended.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import tune

from convae.data import ImageSet
from convae.errors import UserError
from convae.hardware import describe_machine
from study.folder import schema
from study.folder.lock import DriverLock, new_owner
from study.folder.manifest import Manifest
from study.folder.storage import RunFolder, RunFolderError
from study.plan import warm_start
from study.plan.lanes import ModelLanes, lanes_of
from study.plan.ledger import Ledger
from study.plan.optuna_file import OptunaFile
from study.plan.phases import Plan
from study.plan.sampler import check_sampler
from study.plan.spec import StudySpec
from study.tune.adapters import (
    MAX_RETRIES,
    LedgerCallback,
    PlanSearcher,
    SearchScheduler,
    StudyStopper,
    trial_id_of,
)
from study.tune.engines import start_first_engine, start_keeper
from study.tune.lane_trial import LaneTrial
from study.tune.mend import mended_reuse
from study.tune.resources import Resources, Slots, check_storage, claim, fits_now, uses_gpus
from study.tune.trainable import AutoencoderTrial, FolderTrial
from study.view.log import logging_to
from study.view.mlflow import MlflowLogger, open_experiment
from study.view.progress import Progress, describe_plan

_log = logging.getLogger(__name__)

TUNE_SETTINGS = {
    # Ray Tune's own files of a trial repeat what the tables hold.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its newer output engine prints a banner and every error however quiet it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
    # The first Ctrl-C is ours: it stops the study in an orderly way.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


class StudyFailedError(UserError):
    """The study cannot go on, though it started; it can be resumed once the cause is mended."""

    exit_code = 1


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
    spec: StudySpec,
    resources: Resources,
    image_set: ImageSet,
    folder: RunFolder,
    *,
    command: list[str],
    earlier: Mapping[str, Any] | None = None,
    lock: DriverLock | None = None,
    quiet: bool = False,
    mlflow: str | None = None,
    trainable: type[FolderTrial] | None = None,
) -> Outcome:
    """Runs a study inside a Ray session and leaves its results in the run folder.

    Args:
        spec: which trials.
        resources: on what.
        image_set: the images, put into Ray's object store once.
        folder: the run folder, to be made, or that of an earlier session of the study.
        command: the command line, for the manifest.
        earlier: the manifest of an earlier session, to go on where it stopped: trials it ended are
            not run again, others go on from their checkpoints.
        lock: of the folder, if the caller has it already and releases it.
        quiet: print the plan and failures only; the log file has the rest.
        mlflow: URI of an MLflow store to tell of each trial; None for none.
        trainable: what trains where nobody asks for lanes; None for engines on GPUs, and a CPU's
            trainer. The tests give a closed form.

    Raises:
        UserError: the request is impossible; nothing was written.
        StudyFailedError: the run folder can no longer be written.
    """
    check_sampler(spec)
    slots, lanes = claim_for(spec, resources, earlier, engines=trainable is None)
    known = warm_start.kept(folder, spec) if earlier else warm_start.earlier_trials(spec)
    check_storage(folder.parent)
    experiment = open_experiment(mlflow, folder) if mlflow else None
    widths = widths_of(lanes)
    plan_line = describe_plan(spec, slots.n_slots, slots.needs, widths)
    owner = lock.lease.owner if lock else new_owner()
    gpu = None
    with ExitStack() as stack:
        if lanes:
            settings = {"lanes": lanes, "custom_models": spec.custom_models}
            keeper = start_keeper(slots, image_set, folder=folder, owner=owner, **settings)
            stack.callback(ray.kill, keeper)
            if fits_now(slots):
                device = start_first_engine(keeper, slots)
                gpu = device if slots.gpus_per_trial else None
        if lock is None:
            lock = DriverLock(folder, owner=owner)
            stack.callback(lock.release)
        ledger = Ledger(folder, resume=earlier is not None)
        warm_start.keep(folder, known)
        manifest = Manifest(
            folder,
            command,
            earlier=earlier,
            spec=spec.to_dict(),
            data=image_set.describe(),
            hardware={**describe_machine(), "gpus": [gpu] if gpu else []},
            resources={
                "cpus_per_trial": slots.cpus_per_trial,
                "gpus_per_trial": slots.gpus_per_trial,
                "lanes": widths,
                "max_concurrent": slots.n_slots,
                "address": resources.address,
            },
        )
        ledger.on_write = manifest.write
        optuna_file = OptunaFile(folder)
        plan = Plan(
            spec, ledger, optuna_file.storage, warm_start.as_optuna(known, spec), quiet=not lanes
        )
        budget = spec.time_budget_seconds
        seconds_left = None if budget is None else budget - manifest.earlier_seconds
        stopper = StudyStopper(ledger, seconds_left)
        progress = Progress(
            ledger,
            plan,
            spec,
            slots.n_slots,
            slots.needs,
            seconds_left=seconds_left,
            quiet=quiet,
        )
        ledger.listeners += [optuna_file, progress]
        if experiment:
            ledger.listeners.append(MlflowLogger(experiment, ledger))
        for_all: dict[str, Any] = {"folder": folder, "owner": owner}
        if lanes:
            gpus = bool(slots.gpus_per_trial)
            ready = tune.with_parameters(LaneTrial, keeper=keeper, gpu=gpus, **for_all)
        else:
            ready = tune.with_parameters(
                trainable or AutoencoderTrial,
                image_set=image_set,
                n_threads=slots.cpus_per_trial,
                custom_models=spec.custom_models,
                **for_all,
            )
        status = "failed"
        try:
            with (
                stopper.catching_interrupts(),
                logging_to(folder),
                closing(optuna_file),
                progress.live(),
            ):
                progress.say(plan_line, always=True)
                try:
                    _train(ready, slots, spec, ledger, plan, stopper, progress)
                except OSError:  # of Ray Tune's, such as no space for its temporary files
                    _log.exception("the study stops")
                    raise
            status = "finished"
            if stopper.interrupted:
                status = "interrupted"
            elif stopper.out_of_time:
                status = "out of time"
        except KeyboardInterrupt:
            status = "interrupted"
        except OSError as error:
            log = f"{folder}/{schema.LOG_FILE}"
            raise StudyFailedError(f"The study stopped: {error} (in full: {log}).") from error
        except RunFolderError as error:  # the log file's, say
            ledger.trouble = ledger.trouble or error
        finally:
            trouble = ledger.trouble
            ledger.close()
            trouble = trouble or ledger.trouble
            try:
                manifest.finish("storage failed" if trouble else status)
            except RunFolderError as error:
                trouble = trouble or error
    if trouble:
        raise StudyFailedError(str(trouble))
    return Outcome(status, ledger.count(schema.FAILED))


def claim_for(
    spec: StudySpec,
    resources: Resources,
    earlier: Mapping[str, Any] | None = None,
    *,
    engines: bool = True,
) -> tuple[Slots, dict[str, ModelLanes] | None]:
    """What a study trains on, and the lanes of its engines; see `run_study`.

    Args:
        spec: the study.
        resources: what was asked for.
        earlier: the manifest of an earlier session, whose lanes stay.
        engines: whether GPUs have them by themselves, and not only if lanes were asked for.

    Raises:
        SpecError: the request is impossible.
    """
    lanes = _lanes_of(spec, resources, earlier, engines=engines)
    per_engine = max(1, sum(custom.n_lanes for custom in lanes.values())) if lanes else 0
    return claim(resources, timed=spec.timed, per_engine=per_engine), lanes


def widths_of(lanes: Mapping[str, ModelLanes] | None) -> dict[str, int] | None:
    """How many lanes each model has, for people and the manifest."""
    return {model: custom.n_lanes for model, custom in lanes.items()} if lanes else None


def _lanes_of(
    spec: StudySpec, resources: Resources, earlier: Mapping[str, Any] | None, *, engines: bool
) -> dict[str, ModelLanes] | None:
    """The lanes of the study's engines; None where trials train by themselves, on a CPU."""
    gpu = uses_gpus(resources)
    kept = earlier["resources"].get("lanes") if earlier else None
    if resources.lanes is None and kept is None and not (gpu and engines):
        return None
    return lanes_of(spec, lanes=1 if spec.timed else resources.lanes, gpu=gpu, kept=kept)


def _train(
    trainable: type[FolderTrial],
    slots: Slots,
    spec: StudySpec,
    ledger: Ledger,
    plan: Plan,
    stopper: StudyStopper,
    progress: Progress,
) -> None:
    """Lets Ray Tune run the plan's trials until there is none left, or the study stops."""
    callback = LedgerCallback(ledger, stopper, progress)
    with _environment(TUNE_SETTINGS), mended_reuse(), TemporaryDirectory() as elsewhere:
        tune.Tuner(
            tune.with_resources(trainable, slots.share),
            tune_config=tune.TuneConfig(
                search_alg=PlanSearcher(plan, callback.note_nodes),
                scheduler=SearchScheduler(spec, ledger),
                num_samples=-1,  # the plan says when it is finished
                max_concurrent_trials=slots.n_slots,
                reuse_actors=True,
                trial_name_creator=trial_id_of,
                trial_dirname_creator=trial_id_of,
            ),
            run_config=tune.RunConfig(
                # Nobody reads Ray Tune's own files, a folder a trial: they stay out of the run's.
                storage_path=elsewhere,
                callbacks=[callback],
                stop=stopper,
                # Trials keep checkpoints of their own, see study.folder.checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
                verbose=0,
            ),
        ).fit()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, these variables are set, but for those that a person has set."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
