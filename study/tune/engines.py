"""The engines of a study's devices, as Ray actors: one for each GPU, or node, that trials land on.

They belong to an actor of the driver's own node, and through it to the driver: not to the trial
that asked first, which Ray would have them die with, and not detached, which would outlive all.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from convae.config import MODELS, TrialConfig
from convae.custom_models import CustomModel
from convae.errors import UserError
from convae.processes import process_exists
from study.folder.lock import guard_for
from study.folder.storage import RunFolder
from study.plan.lanes import ModelLanes
from study.plan.spec import SpecError
from study.plan.trials import PlannedTrial
from study.tune.resources import Slots

if TYPE_CHECKING:
    import numpy as np

    from convae.data import ImageSet
    from convae.engine import Report

# Beside a call for each trial: checkpoints, models, and trials on their way out.
SPARE_CALLS = 8
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


class Attempt(NamedTuple):
    """A worker's at a trial. Two may be there for a moment: one that leaves, one that begins.

    Attributes:
        trial_id: the trial.
        pid: of the worker, on the engine's node.
    """

    trial_id: str
    pid: int


class DeviceEngine:
    """An engine in a process of its own, in the words of the run folder's tables.

    Args:
        image_set: the images.
        lanes: the programs of each model.
        gpu: whether it trains on the GPU that this process sees.
        n_threads: of the CPU.
        folder: the run folder, for models.
        owner: the driver that the folder must have.
        custom_models: that trials may name.
    """

    def __init__(
        self,
        image_set: "ImageSet",
        lanes: Mapping[str, ModelLanes],
        *,
        gpu: bool,
        n_threads: int,
        folder: RunFolder,
        owner: str,
        custom_models: tuple[CustomModel, ...] = (),
    ) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from convae.device import open_device
        from convae.engine import Engine, ProgramId
        from convae.lane_program import Shape
        from convae.training import Trainer

        guard_for(folder, owner)
        self._custom_models = custom_models
        self._image_set, self._lanes, self._folder = image_set, lanes, folder
        self.refusal: UserError | None = None
        try:
            self._device = open_device(gpu=gpu, n_threads=n_threads, lanes=True)
        except UserError as error:
            # Told to whoever asks, since Ray would tell it as a death; and of a class that whoever
            # asks can load without TensorFlow.
            self.refusal = UserError(str(error))
            return
        shapes = {
            ProgramId(model, n == 1): Shape.for_trials(
                model,
                n_lanes=n,
                widths=custom.widths,
                batch_sizes=custom.batch_sizes,
                n_train=len(image_set.train_images),
            )
            for model, custom in lanes.items()
            if model in MODELS
            for n in (custom.n_lanes, int(custom.single))
            if n
        }
        trainer = Trainer(image_set, self._device, custom_models=custom_models)
        self._engine = Engine.open(image_set, shapes, trainer)
        self._engine.start()
        self._attempts: set[Attempt] = set()  # those in the engine
        self._told_compile_seconds: set[Any] = set()

    def works(self) -> bool:
        """Whether it has not failed."""
        return self.refusal is not None or self._engine.failure is None

    def describe(self) -> str:
        """The device, in words.

        Raises:
            UserError: TensorFlow cannot open it.
        """
        if self.refusal is not None:
            raise self.refusal
        return self._device.description

    def submit(
        self,
        attempt: Attempt,
        planned: PlannedTrial,
        until_epoch: int,
        state: "list[np.ndarray] | None",
    ) -> int:
        """Takes a trial, and ends the attempts of workers that are gone; returns its parameters.

        Args:
            attempt: who asks.
            planned: the trial.
            until_epoch: it pauses then.
            state: of `report`, to go on from.
        """
        from convae.lanes import LaneState
        from convae.models import build_model, count_trainable

        n_parameters = count_trainable(build_model(planned.config, self._custom_models))
        for other in set(self._attempts):
            if not process_exists(other.pid):
                self.remove(other)
        self._engine.submit(
            _name(attempt),
            planned.config,
            place=self._lanes[planned.config.model].place(planned.place),
            until_epoch=until_epoch,
            evaluates=planned.evaluates,
            state=LaneState.from_arrays(state) if state else None,
        )
        self._attempts.add(attempt)
        return n_parameters

    def advance(self, attempt: Attempt, until_epoch: int) -> None:
        """Lets a paused trial train on."""
        self._engine.advance(_name(attempt), until_epoch)

    def report(self, attempt: Attempt, timeout_seconds: float) -> dict[str, Any]:
        """What is new of a trial, once it has paused or ended, or so many seconds have passed.

        Returns:
            "epochs", as `EpochResult`s in dictionaries; "stands_still" and "diverged_epoch";
            "compile_seconds" of programs that nobody was told of yet, and of the trial's alone.
        """
        return self._in_words(self._engine.report(_name(attempt), timeout_seconds))

    def checkpoint(self, attempt: Attempt) -> "tuple[dict[str, Any], list[np.ndarray] | None]":
        """The same at once, and the state that belongs to it."""
        report, state = self._engine.checkpoint(_name(attempt))
        return self._in_words(report), None if state is None else state.to_arrays()

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt, if it is there."""
        self._attempts.discard(attempt)
        with suppress(KeyError):
            self._engine.remove(_name(attempt))

    def keep_model(self, attempt: Attempt, config: TrialConfig) -> None:
        """Saves a trial's model, and what it reconstructs, in the run folder."""
        from convae.models import build_model
        from convae.training import reconstruct
        from study.tune.trainable import keep_model

        state = self._engine.state(_name(attempt))
        assert state is not None
        model = build_model(config, self._custom_models)
        variables, values = model.trainable_variables, state.weights
        if config.is_custom:
            variables = [*variables, *model.non_trainable_variables]
            values = [*values, *state.others]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        outputs = reconstruct(model, self._image_set.test_images)
        keep_model(self._folder, attempt.trial_id, model, self._image_set, outputs)

    def _in_words(self, report: "Report") -> dict[str, Any]:
        from convae.engine import Status

        new = self._engine.compile_seconds.keys() - self._told_compile_seconds
        self._told_compile_seconds |= new
        return {
            "epochs": [epoch.__dict__ for epoch in report.epochs],
            "stands_still": report.status not in (Status.WAITING, Status.RUNNING),
            "diverged_epoch": report.diverged_epoch,
            "compile_seconds": report.compile_seconds
            + sum(self._engine.compile_seconds[program] for program in new),
        }


def _name(attempt: Attempt) -> str:
    return f"{attempt.trial_id} of {attempt.pid}"


class EngineKeeper:
    """Makes an engine when the first trial lands on its device, and another if it has died.

    Args:
        slots: what the study was given.
        settings: of `DeviceEngine`.
    """

    def __init__(self, slots: Slots, **settings: Any) -> None:
        self._slots, self._settings = slots, settings
        self._engines: dict[tuple[str, str | None], ActorHandle] = {}

    def engine_of(self, node_id: str, visible: str | None) -> ActorHandle:
        """The engine of a device.

        Args:
            node_id: Ray's, of the node.
            visible: the GPU as CUDA_VISIBLE_DEVICES names it; None for the node's CPU.
        """
        key = node_id, visible
        if key in self._engines:
            try:
                works = ray.get(self._engines[key].works.remote())
            except RayActorError:
                works = False
            if not works:
                ray.kill(self._engines.pop(key))
        if key not in self._engines:
            self._engines[key] = self._make(node_id, visible)
        return self._engines[key]

    def _make(self, node_id: str, visible: str | None) -> ActorHandle:
        # It asks Ray for no GPU, since the trials hold its shares: so it is told which one to see.
        environment = {} if visible is None else {GPU_VARIABLE: visible}
        # A GPU has the trials of one engine; a node's CPUs may have those of several, all of which
        # come to the one that is there, and each waits for a report in a call of its own.
        n_trials = self._slots.n_slots if visible is None else self._slots.per_engine
        kind = ray.remote(num_cpus=0, max_concurrency=n_trials + SPARE_CALLS)
        return (
            kind(DeviceEngine)
            .options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
                runtime_env={"env_vars": environment},
            )
            .remote(gpu=visible is not None, n_threads=self._slots.cpus_per_trial, **self._settings)
        )


def start_keeper(slots: Slots, image_set: "ImageSet", **settings: Any) -> ActorHandle:
    """The study's keeper, on the driver's own node; it ends with the driver, or by `ray.kill`."""
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    kind = ray.remote(num_cpus=0)(EngineKeeper).options(scheduling_strategy=here)
    return kind.remote(slots, image_set=ray.put(image_set), **settings)


def engine_here(keeper: ActorHandle, *, gpu: bool) -> ActorHandle:
    """The engine of the device that Ray has given this process."""
    node = ray.get_runtime_context().get_node_id()
    visible = os.environ.get(GPU_VARIABLE, "") if gpu else None
    engine: ActorHandle = ray.get(keeper.engine_of.remote(node, visible))
    return engine


def start_first_engine(keeper: ActorHandle, slots: Slots) -> str:
    """Has the first engine start and compile, before any trial asks; returns its device.

    Raises:
        SpecError: TensorFlow cannot open it.
    """
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    here = task(engine_here).remote(keeper, gpu=bool(slots.gpus_per_trial))
    try:
        return str(ray.get(ray.get(here).describe.remote()))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise SpecError(str(error.cause)) from error
        raise
