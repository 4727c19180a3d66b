"""Runs a study: brings the plan, the ledger, Ray Tune and the view together.

What is planned and what became of it is `study.plan`'s, the training `study.tune.trainable`'s, the
lines on the terminal `study.view`'s; this module builds the Tuner and says how the study ended.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle

from convae.data import ImageSet
from convae.errors import UserError
from convae.hardware import describe_machine
from convae.results import Fallback
from convae.shapes import ProgramId, ProgramShape
from study.folder import schema
from study.folder.lock import DriverLock
from study.folder.manifest import Manifest, read_manifest
from study.folder.storage import RunFolder, RunFolderError
from study.plan.lanes import (
    ModelLanes,
    lanes_of,
    programs_from_json,
    programs_to_json,
    shapes_of,
)
from study.plan.ledger import Ledger
from study.plan.optuna_file import OptunaFile
from study.plan.phases import Plan
from study.plan.repeat import describe_repeat, lags_of
from study.plan.sampler import check_sampler
from study.plan.silence import Watch
from study.plan.spec import StudySpec
from study.plan.trials import readings_of
from study.tune.adapters import (
    LedgerCallback,
    PlanSearcher,
    SearchScheduler,
    StudyStopper,
    places_by_signals,
    trial_id_of,
)
from study.tune.engine_actors import RemoteEngine, start_first_engine, start_keeper
from study.tune.engines import StudyEngine
from study.tune.ray_patches import patched_deaths, patched_reuse
from study.tune.resources import Resources, Slots, check_storage, find_slots, fits_now, uses_gpus
from study.tune.trainable import StudyTrial, WorkerSettings
from study.tune.workers import Workers
from study.view.log import logging_to
from study.view.mlflow import MlflowLogger, open_experiment
from study.view.progress import Progress, describe_plan

_log = logging.getLogger(__name__)

TUNE_SETTINGS = {
    # Ray Tune's own files of a trial repeat what the tables hold.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Its newer output engine prints a banner and every error however quiet it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
    # `study.tune.adapters` logs them.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The first Ctrl-C is ours: it stops the study in an orderly way.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Seconds that a worker may take to stop, then it is killed: as long, its place is nobody's.
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",
}


class StudyFailedError(UserError):
    """The study cannot go on, though it started; it can be resumed once the cause is mended."""

    exit_code = 1


@dataclass(frozen=True)
class Outcome:
    """How a study ended."""

    status: str  # "finished", "interrupted" or "out of time"
    n_failed: int  # trials that failed with an error, after all retries


def run_study(
    spec: StudySpec,
    resources: Resources,
    image_set: ImageSet,
    folder: RunFolder,
    *,
    command: list[str],  # for the manifest
    lock: DriverLock | None = None,
    quiet: bool = False,  # print the plan and failures only; the log file has the rest
    mlflow: str | None = None,  # URI of a store to tell of each trial
    workers: WorkerSettings | None = None,
) -> Outcome:
    """Runs a study inside a Ray session and leaves its results in the run folder.

    With the lock of an earlier session's folder, which the caller releases, it goes on where that
    stopped: trials that have ended are not run again, others go on from their checkpoints.

    Raises:
        UserError: the request is impossible; nothing was written.
        StudyFailedError: the run folder can no longer be written.
    """
    workers = workers or WorkerSettings()
    earlier = read_manifest(folder) if lock else None
    check_sampler(spec)
    slots, lanes = slots_for(spec, resources, earlier, gpus_have_lanes=workers.engine is None)
    check_storage(folder.parent)
    experiment = open_experiment(mlflow, folder) if mlflow else None
    widths = widths_of(lanes)
    plan_line = describe_plan(spec, slots.n_slots, slots.needs, widths)
    kept_lags = earlier["resources"].get("search_lag") if earlier else None
    lags = kept_lags or lags_of(spec, slots.n_slots, places_of(lanes, slots))
    shapes, lines = None, [plan_line, *describe_repeat(spec, lags)]
    lines += [
        f"{custom.name}: its builder makes some or all of its initial weights the same with every"
        " seed: seeds tell of the others and of the order of the images alone"
        for custom in spec.custom_models
        if custom.seeds_itself
    ]
    if lanes:
        kept = programs_from_json(earlier["resources"].get("programs") or [] if earlier else [])
        shapes = shapes_of(lanes, len(image_set.train_images), kept)
        lines += changes_of(shapes, kept)
    with ExitStack() as stack:
        engine, gpu, keeper = _prepare_engine(
            stack, spec, slots, shapes, image_set, workers, by_hand=resources.lanes is not None
        )
        if lock is None:
            lock = DriverLock(folder)
            stack.callback(lock.release)
        ledger = Ledger(folder, resume=earlier is not None)
        spaces = [spec.space_of(model).to_dict() for model in spec.models if spec.share]
        searched = earlier["spaces"] if earlier else []
        manifest = Manifest(
            folder,
            command,
            earlier=earlier,
            spec=spec.to_dict(),
            spaces=searched if searched[-1:] == [spaces] else [*searched, spaces],
            readings=readings_of(spec),
            data=image_set.describe(),
            hardware={**describe_machine(), "gpus": [gpu] if gpu else []},
            resources={
                "cpus_per_trial": slots.cpus_per_trial,
                "gpus_per_trial": slots.gpus_per_trial,
                "lanes": widths,
                "fallbacks": dict(earlier["resources"].get("fallbacks") or {}) if earlier else {},
                "programs": None if shapes is None else programs_to_json(shapes),
                "max_concurrent": slots.n_slots,
                "search_lag": lags,
                "address": resources.address,
            },
        )
        session = _Session(spec, slots, manifest, ledger, lanes=widths, lags=lags, quiet=quiet)
        if experiment:
            ledger.listeners.append(MlflowLogger(experiment, ledger))
        trainable = tune.with_parameters(
            StudyTrial,
            engine=engine,
            folder=folder,
            owner=lock.lease.owner,
            settings=workers,
            limit_seconds=spec.trial_time_limit_seconds,
        )
        return session.run(trainable, lines, Workers(keeper), Watch(workers.patience))


def slots_for(
    spec: StudySpec,
    resources: Resources,
    earlier: Mapping[str, Any] | None = None,  # session's manifest: its lanes stay
    *,
    gpus_have_lanes: bool = True,  # by themselves, and not only if they were asked for
) -> tuple[Slots, dict[str, ModelLanes] | None]:
    """What a study trains on, and the lanes of its engines; None where each trial trains by itself.

    Raises:
        SpecError: the request is impossible.
    """
    gpu = uses_gpus(resources)
    kept = earlier["resources"].get("lanes") if earlier else None
    if resources.lanes is None and kept is None and not (gpu and gpus_have_lanes):
        return find_slots(resources, timed=spec.timed), None
    n_devices = find_slots(resources, timed=spec.timed, per_engine=1).n_slots
    most = 1 if spec.timed else resources.lanes
    lanes = lanes_of(spec, lanes=most, gpu=gpu, n_devices=n_devices, kept=kept)
    per_engine = max(1, sum(programs.n_places for programs in lanes.values()))
    return find_slots(resources, timed=spec.timed, per_engine=per_engine), lanes


def widths_of(lanes: Mapping[str, ModelLanes] | None) -> dict[str, int] | None:
    """How many lanes each model has, for people and the manifest."""
    return {model: programs.n_lanes for model, programs in lanes.items()} if lanes else None


def places_of(lanes: Mapping[str, ModelLanes] | None, slots: Slots) -> dict[str, int]:
    """The trials of each model that are at work at once, at most; none where it has no lanes."""
    n_devices = slots.n_devices
    return {model: n * n_devices for model, p in (lanes or {}).items() if (n := p.n_places)}


def changes_of(
    shapes: Mapping[ProgramId, ProgramShape], kept: Mapping[ProgramId, ProgramShape]
) -> list[str]:
    """A line for each model whose trials cannot go on in their programs of an earlier session."""
    changed = (program.model for program in kept if shapes.get(program) != kept[program])
    return [
        f"{model}: the trials now planned need programs of another shape than before, so that those"
        " of its trials that were in the middle start anew."
        for model in dict.fromkeys(changed)
    ]


def _prepare_engine(
    stack: ExitStack,
    spec: StudySpec,
    slots: Slots,
    shapes: Mapping[ProgramId, ProgramShape] | None,
    image_set: ImageSet,
    workers: WorkerSettings,
    *,
    by_hand: bool,
) -> tuple[Callable[[], Any], str | None, ActorHandle | None]:
    """What makes the engine of each worker; the GPU, if one was opened; the engines' keeper.

    The engines that are actors start now, and end when the stack is closed.

    Raises:
        SpecError: TensorFlow cannot open the device, or lanes that were asked for by hand do not
            work there.
    """
    if shapes is None:
        make = workers.engine or StudyEngine
        engine = partial(make, image_set, spec.custom_models, n_threads=slots.cpus_per_trial)
        return engine, None, None
    settings = {"shapes": shapes, "custom_models": spec.custom_models}
    keeper = start_keeper(slots, image_set, engine=workers.lanes_engine, **settings)
    stack.callback(ray.kill, keeper)
    gpu = slots.gpus_per_trial > 0
    device = start_first_engine(keeper, slots, by_hand=by_hand) if fits_now(slots) else None
    engine = partial(RemoteEngine, keeper, gpu=gpu, n_slots=slots.n_slots)
    return engine, device if gpu else None, keeper


class _Session:
    """A session of a study, from its first trial to the manifest's last entry."""

    def __init__(
        self,
        spec: StudySpec,
        slots: Slots,
        manifest: Manifest,
        ledger: Ledger,
        *,
        lanes: Mapping[str, int] | None,
        lags: Mapping[str, int] | None,
        quiet: bool,
    ) -> None:
        self._spec, self._slots, self._manifest, self._ledger = spec, slots, manifest, ledger
        self._optuna_file = OptunaFile(ledger.folder)
        storage = self._optuna_file.storage
        n_devices = slots.n_devices
        at_once = lanes and {model: max(1, n) * n_devices for model, n in lanes.items()}
        self._plan = plan = Plan(
            spec,
            ledger,
            storage,
            enforce_alone=lanes is None,
            lanes=at_once or None,
            lags=lags,
            n_places=slots.n_slots,
        )
        budget = spec.time_budget_seconds
        left = None if budget is None else budget - manifest.earlier_seconds
        self._stopper = StudyStopper(ledger, left)
        self._progress = Progress(
            ledger, plan, spec, slots.n_slots, slots.needs, seconds_left=left, quiet=quiet
        )
        ledger.on_write = self._write_manifest
        ledger.listeners += [self._optuna_file, self._progress]

    def run(self, trainable: Any, lines: Sequence[str], workers: Workers, watch: Watch) -> Outcome:
        """Trains until no trial is left or the study stops; see `run_study`."""
        status, ledger = "failed", self._ledger
        try:
            with (
                self._stopper.catching_interrupts(),
                places_by_signals(self._plan, self._slots.most),
                logging_to(ledger.folder),
                closing(self._optuna_file),
                closing(self._plan),
                self._progress.live(),
            ):
                for line in lines:
                    self._progress.say(line, always=True)
                self._train(trainable, workers, watch)
            status = self._stopper.status
        except KeyboardInterrupt:
            status = "interrupted"
        except OSError as error:
            log = f"{ledger.folder}/{schema.LOG_FILE}"
            raise StudyFailedError(f"The study stopped: {error} (in full: {log}).") from error
        except RunFolderError as error:  # the log file's, say
            ledger.trouble = ledger.trouble or error
        finally:
            trouble = self._close(status)
        if trouble:
            raise StudyFailedError(str(trouble))
        return Outcome(status, ledger.count(schema.FAILED))

    def _train(self, trainable: Any, workers: Workers, watch: Watch) -> None:
        """Lets Ray Tune run the plan's trials until there is none left, or the study stops."""
        searcher = PlanSearcher(self._plan, self._stopper)
        callback = LedgerCallback(
            self._plan,
            self._ledger,
            searcher,
            self._stopper,
            self._progress,
            on_fallback=self._tell_of,
            workers=workers,
            watch=watch,
        )
        # As many trials may wait for room as there may be: the plan hands out no more.
        settings = TUNE_SETTINGS | {"TUNE_MAX_PENDING_TRIALS_PG": str(self._slots.most)}
        with (
            _tune_environment(settings),
            patched_reuse(
                callback.on_trial_reuse,
                lambda: min(self._slots.most, self._plan.n_to_come),
            ),
            patched_deaths(),
            TemporaryDirectory() as elsewhere,
        ):
            tuner = tune.Tuner(
                tune.with_resources(trainable, self._slots.share),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=SearchScheduler(self._plan),
                    num_samples=-1,  # the plan says when it is finished, and how many at once
                    reuse_actors=True,
                    trial_name_creator=trial_id_of,
                    trial_dirname_creator=trial_id_of,
                ),
                run_config=tune.RunConfig(
                    # Nobody reads Ray Tune's own files: they stay out of the run folder.
                    storage_path=elsewhere,
                    callbacks=[callback],
                    stop=self._stopper,
                    # Trials keep checkpoints of their own, see study.folder.checkpoints.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                ),
            )
            try:
                tuner.fit()
            except OSError:  # of Ray Tune's, such as no space for its temporary files
                _log.exception("the study stops")
                raise

    def _write_manifest(self) -> None:
        if rule := self._plan.rule:
            known = [asdict(one) for one in self._plan.comparisons]
            self._manifest.note(until_decided={"rule": rule.words, "comparisons": known})
        self._manifest.write()

    def _tell_of(self, fallback: Fallback) -> None:
        """Says once that a program does not work here; the log has the whole error."""
        self._manifest.note_fallback(fallback.program, fallback.reason)
        self._progress.say(
            f"{fallback.program} does not work here ({fallback.reason}): its trials are trained one"
            " at a time by the plain trainer",
            always=True,
        )
        _log.warning("%s: %s", fallback.program, fallback.error)

    def _close(self, status: str) -> RunFolderError | None:
        """Enters how the study ended; returns why the run folder could not be written, if so."""
        trouble = self._ledger.trouble
        self._ledger.close()
        trouble = trouble or self._ledger.trouble
        try:
            self._manifest.finish("storage failed" if trouble else status)
        except RunFolderError as error:
            trouble = trouble or error
        return trouble


@contextmanager
def _tune_environment(settings: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, Ray Tune sees these settings, and none of a person's own.

    Those are of other programs, and it ends over some that it no longer has.
    """
    theirs = {n: v for n, v in os.environ.items() if n.startswith(("TUNE_", "RAY_AIR_"))}
    for name in theirs:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(theirs)
