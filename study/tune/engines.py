"""The engines that train a study's trials: one trial at a time on a CPU, or many in lanes.

Both answer the same calls (`Engine`). A `LocalEngine` is an object in its trial's process; a
`LaneEngine` is a Ray actor with the trials of a whole device (`study.tune.engine_actors`).
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from convae.config import MODELS
from convae.custom_models import CustomModel
from convae.errors import DivergenceError, UserError
from convae.processes import process_exists
from convae.results import EpochResult, Report, Status
from study.plan.lanes import ModelLanes
from study.plan.trials import PlannedTrial

if TYPE_CHECKING:
    import convae.engine
    from convae.data import ImageSet
    from convae.training import Trainer


class Attempt(NamedTuple):
    """A worker's attempt at a trial.

    An engine may have two of one trial for a moment: one that leaves, and one that begins.
    """

    trial_id: str
    pid: int  # of the worker, on the engine's node


class Engine(Protocol):
    """What a `study.tune.trainable.StudyTrial` asks of what trains."""

    # Whether trials share its device in one program: then it reports the trials that shared it, and
    # a state is for a program of the same shape.
    in_lanes: bool
    report_seconds: float  # between two reports of a trial, if nobody says otherwise

    def open(self) -> str:
        """Describes its device; called before each trial.

        Raises:
            UserError: TensorFlow cannot open the device.
        """

    def submit(
        self,
        attempt: Attempt,
        planned: PlannedTrial,
        until_epoch: int,
        state: list[np.ndarray] | None,
    ) -> int:
        """Takes a trial; returns the number of its trainable parameters.

        Args:
            attempt: at the trial.
            planned: the trial.
            until_epoch: it pauses then.
            state: of `checkpoint`, to go on from.
        """

    def advance(self, attempt: Attempt, until_epoch: int) -> None:
        """Lets a paused trial train on until it has completed so many epochs."""

    def report(self, attempt: Attempt, timeout_seconds: float) -> Report:
        """What is new of a trial: once it has paused or ended, or after about that time."""

    def checkpoint(self, attempt: Attempt) -> tuple[Report, list[np.ndarray] | None]:
        """What is new at once, and the state that belongs to it; None if there is none yet."""

    def export(self, attempt: Attempt) -> dict[str, bytes]:
        """A trained trial's files for the run folder; see `study.tune.kept_model.files_of`."""

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt, if it is there."""


class LocalEngine:
    """Trains one trial at a time, in the process that asks: only a call of `report` trains."""

    in_lanes = False
    report_seconds = 1.0

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer

    def open(self) -> str:
        """Describes its device."""
        return self.trainer.device.description

    def submit(
        self,
        attempt: Attempt,
        planned: PlannedTrial,
        until_epoch: int,
        state: list[np.ndarray] | None,
    ) -> int:
        """Takes a trial, in place of the one before."""
        self._planned, self._until_epoch = planned, until_epoch
        self._training = self.trainer.start(planned.config)
        self._compile_seconds = self._training.compile_seconds  # until it is told
        if state is not None:
            self._training.resume(int(state[0]), state[1:])
        return self._training.n_parameters

    def advance(self, attempt: Attempt, until_epoch: int) -> None:
        """Lets the trial train on."""
        self._until_epoch = until_epoch

    def report(self, attempt: Attempt, timeout_seconds: float) -> Report:
        """Trains for about that time, at least an epoch."""
        deadline = time.perf_counter() + timeout_seconds
        epochs: list[EpochResult] = []
        while self._training.epoch < self._until_epoch:
            evaluate = self._planned.evaluates(self._training.epoch + 1)
            try:
                epochs.append(self._training.run_epoch(evaluate=evaluate))
            except DivergenceError as error:
                return self._report(epochs, error.epoch)
            if time.perf_counter() >= deadline:
                break
        return self._report(epochs)

    def checkpoint(self, attempt: Attempt) -> tuple[Report, list[np.ndarray] | None]:
        """The state; nothing is new between two reports."""
        return self._report([]), [np.array(self._training.epoch), *self._training.get_state()]

    def export(self, attempt: Attempt) -> dict[str, bytes]:
        """The trial's files for the run folder."""
        from study.tune.kept_model import files_of

        image_set = self.trainer.image_set
        outputs = self._training.reconstruct(image_set.test_images)
        return files_of(attempt.trial_id, self._training.model, image_set, outputs)

    def remove(self, attempt: Attempt) -> None:
        """Nothing: the next trial takes its place."""

    def _report(self, epochs: list[EpochResult], diverged_epoch: int | None = None) -> Report:
        status = Status.PAUSED if self._training.epoch >= self._until_epoch else Status.RUNNING
        if diverged_epoch is not None:
            status = Status.DIVERGED
        seconds, self._compile_seconds = self._compile_seconds, 0.0
        return Report(status, epochs, diverged_epoch, compile_seconds=seconds)


def cpu_engine(
    image_set: "ImageSet", n_threads: int, custom_models: tuple[CustomModel, ...]
) -> LocalEngine:
    """Opens this process's CPU; it keeps the images and what it has compiled."""
    _quieten_tensorflow()
    from convae.device import open_device
    from convae.training import Trainer

    device = open_device(gpu=False, n_threads=n_threads)
    return LocalEngine(Trainer(image_set, device, custom_models=custom_models))


def open_lanes(
    image_set: "ImageSet",
    lanes: Mapping[str, ModelLanes],
    custom_models: tuple[CustomModel, ...],
    *,
    gpu: bool,
    n_threads: int,
) -> "tuple[str, convae.engine.Engine]":
    """Opens this process's device and starts its programs; returns its description, and them.

    Args:
        image_set: the images.
        lanes: the programs of each model.
        custom_models: that trials may name.
        gpu: whether to open the GPU that this process sees.
        n_threads: of the CPU.

    Raises:
        UserError: TensorFlow cannot open it.
    """
    _quieten_tensorflow()
    from convae.device import open_device
    from convae.engine import Engine, ProgramId
    from convae.lane_program import Shape
    from convae.training import Trainer

    device = open_device(gpu=gpu, n_threads=n_threads, lanes=True)
    shapes = {
        ProgramId(model, n == 1): Shape.for_trials(
            model,
            n_lanes=n,
            widths=programs.widths,
            batch_sizes=programs.batch_sizes,
            n_train=len(image_set.train_images),
        )
        for model, programs in lanes.items()
        if model in MODELS
        for n in (programs.n_lanes, int(programs.single))
        if n
    }
    engine = Engine.open(image_set, shapes, Trainer(image_set, device, custom_models=custom_models))
    engine.start()
    return device.description, engine


class LaneEngine:
    """Trains many trials at once, in the lanes of a device.

    Args:
        image_set: the images.
        lanes: the programs of each model.
        custom_models: that trials may name.
        open_engine: `open_lanes`; tests give another.
        settings: its gpu and n_threads.
    """

    in_lanes = True
    # Ray Tune takes in some tens of results a second, and a GPU may have as many trials in lanes.
    report_seconds = 5.0

    def __init__(
        self,
        image_set: "ImageSet",
        lanes: Mapping[str, ModelLanes],
        custom_models: tuple[CustomModel, ...] = (),
        open_engine: "Callable[..., tuple[str, convae.engine.Engine]]" = open_lanes,
        **settings: Any,
    ) -> None:
        self._image_set, self._lanes, self._custom_models = image_set, lanes, custom_models
        self._attempts: set[Attempt] = set()  # those in the engine
        self._told_compile_seconds: set[Any] = set()  # of these programs
        self._refusal: UserError | None = None
        try:
            self._device, self._engine = open_engine(image_set, lanes, custom_models, **settings)
        except UserError as error:
            # Kept for `open`, since Ray reports an error here as the actor's death; and of a class
            # that can be unpickled without TensorFlow.
            self._refusal = UserError(str(error))

    def works(self) -> bool:
        """Whether it has not failed."""
        return self._refusal is not None or self._engine.failure is None

    def open(self) -> str:
        """Describes its device.

        Raises:
            UserError: TensorFlow cannot open it.
        """
        if self._refusal is not None:
            raise self._refusal
        return self._device

    def submit(
        self,
        attempt: Attempt,
        planned: PlannedTrial,
        until_epoch: int,
        state: list[np.ndarray] | None,
    ) -> int:
        """Takes a trial, and ends the attempts of workers that are gone."""
        from convae.lanes import LaneState
        from convae.models import build_model, count_trainable

        n_parameters = count_trainable(build_model(planned.config, self._custom_models))
        for other in list(self._attempts):
            if not process_exists(other.pid):
                self.remove(other)
        self._engine.submit(
            _name(attempt),
            planned.config,
            sharing=self._lanes[planned.config.model].place(planned.place),
            until_epoch=until_epoch,
            evaluates=planned.evaluates,
            state=LaneState.from_arrays(state) if state else None,
        )
        self._attempts.add(attempt)
        return n_parameters

    def advance(self, attempt: Attempt, until_epoch: int) -> None:
        """Lets a paused trial train on."""
        self._engine.advance(_name(attempt), until_epoch)

    def report(self, attempt: Attempt, timeout_seconds: float) -> Report:
        """What is new of a trial, the seconds of programs that nobody was told of yet included."""
        return self._with_compile_seconds(self._engine.report(_name(attempt), timeout_seconds))

    def checkpoint(self, attempt: Attempt) -> tuple[Report, list[np.ndarray] | None]:
        """The same at once, and the state that belongs to it."""
        report, state = self._engine.checkpoint(_name(attempt))
        return self._with_compile_seconds(report), None if state is None else state.to_arrays()

    def export(self, attempt: Attempt) -> dict[str, bytes]:
        """The trial's files for the run folder."""
        from convae.training import reconstruct
        from study.tune.kept_model import files_of

        model = self._engine.model(_name(attempt))
        outputs = reconstruct(model, self._image_set.test_images)
        return files_of(attempt.trial_id, model, self._image_set, outputs)

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt, if it is there."""
        self._attempts.discard(attempt)
        with suppress(KeyError):
            self._engine.remove(_name(attempt))

    def _with_compile_seconds(self, report: Report) -> Report:
        seconds = self._engine.compile_seconds
        new = seconds.keys() - self._told_compile_seconds
        self._told_compile_seconds |= new
        total = report.compile_seconds + sum(seconds[program] for program in new)
        return report._replace(compile_seconds=total)


def _name(attempt: Attempt) -> str:
    return f"{attempt.trial_id} of {attempt.pid}"


def _quieten_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
