"""What trains a study's trials: convae's engine, given planned trials and asked for reports.

Without lanes it is an object in its trial's process, which trains one trial at a time; with lanes a
Ray actor that has the trials of a whole device (`study.tune.engine_actors`).
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray

from convae.config import n_parameters
from convae.custom_models import CustomModel
from convae.errors import EngineError, UserError
from convae.processes import process_exists
from convae.results import Fallback, Report
from convae.shapes import ProgramId, ProgramShape
from study.plan.trials import PlannedTrial

if TYPE_CHECKING:
    import convae.engine
    from convae.data import ImageSet

LANE_REPORT_SECONDS = 5.0


class Attempt(NamedTuple):
    """A worker's attempt at a trial.

    An engine may have two of one trial for a moment: one that leaves, and one that begins.
    """

    trial_id: str
    pid: int  # of the worker
    node: str  # Ray's id of its node

    @property
    def name(self) -> str:
        """What convae's engine calls it."""
        return f"{self.trial_id} of {self.pid} on {self.node}"


class Ready(NamedTuple):
    """What trains a trial."""

    shape: dict[str, Any]  # of the program, whose states are for no other; {} by the plain trainer
    fallback: Fallback | None = None  # why that has the place of a program


def open_engine(
    image_set: "ImageSet",
    custom_models: tuple[CustomModel, ...],
    shapes: Mapping[ProgramId, ProgramShape] | None,
    *,
    gpu: bool,
    n_threads: int,
    proves: bool | None = None,
    **more: Any,
) -> "tuple[str, convae.engine.Engine]":
    """Opens this process's device and starts convae's engine; returns the device's description too.

    Args: see `StudyEngine`; and
        proves: whether programs must prove themselves; None for a GPU's.
        more: of `convae.engine.Engine.open`.

    Raises:
        UserError: TensorFlow cannot open the device.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from convae.device import open_device
    from convae.engine import Engine
    from convae.lane_program import Shape
    from convae.proof import prove
    from convae.training import Trainer

    device = open_device(gpu=gpu, n_threads=n_threads, lanes=shapes is not None)
    programs = {program: Shape(**asdict(shape)) for program, shape in (shapes or {}).items()}
    trainer = Trainer(image_set, device, custom_models=custom_models)
    proves = device.jit_compile if proves is None else proves
    engine = Engine.open(image_set, programs, trainer, prove=prove if proves else None, **more)
    engine.start()
    return device.description, engine


class StudyEngine:
    """Trains planned trials on the device of its process.

    Args:
        image_set: the images.
        custom_models: that trials may name.
        shapes: of the lanes' programs; a model without has the plain trainer. None where each trial
            has a process to itself.
        gpu: whether to open the GPU that this process sees.
        n_threads: of the CPU.
        node: Ray's id of this process's node; None to ask Ray.
        open_engine: tests give another.
    """

    def __init__(
        self,
        image_set: "ImageSet",
        custom_models: tuple[CustomModel, ...] = (),
        shapes: Mapping[ProgramId, ProgramShape] | None = None,
        *,
        gpu: bool = False,
        n_threads: int = 1,
        node: str | None = None,
        open_engine: "Callable[..., tuple[str, convae.engine.Engine]]" = open_engine,
    ) -> None:
        self._image_set, self._custom_models = image_set, custom_models
        self._shapes = shapes or {}
        self._attempts: set[Attempt] = set()  # those in the engine
        self._node = ray.get_runtime_context().get_node_id() if node is None else node
        self._told_compile_seconds: set[Any] = set()  # of these programs
        self.in_lanes = shapes is not None  # then it reports how many shared its device
        # Between two results of a trial. Ray Tune takes in some tens of results a second, and a GPU
        # may have as many trials in lanes.
        self.report_seconds = LANE_REPORT_SECONDS if self.in_lanes else 1.0
        self._refusal: UserError | None = None
        try:
            self._device, self._engine = open_engine(
                image_set, custom_models, shapes, gpu=gpu, n_threads=n_threads
            )
        except UserError as error:
            # Kept for `describe`, since Ray reports an error here as an actor's death; and of a
            # class that can be unpickled without TensorFlow.
            self._refusal = UserError(str(error))

    def describe(self) -> str:
        """Its device.

        Raises:
            UserError: TensorFlow cannot open it.
            EngineError: the engine has failed.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._engine.failure is not None:
            raise EngineError(f"The engine has failed: {self._engine.failure}")
        return self._device

    def ready(self, planned: PlannedTrial, timeout_seconds: float) -> "Ready | None":
        """What trains a trial, once it is compiled and proven; None if it is not within that time.

        Raises:
            EngineError: the engine has failed.
        """
        program = self._engine.program_for(planned.config, planned.sharing, timeout_seconds)
        if program is None:
            return None
        fallback = self._engine.fallbacks.get(program)
        shape = None if fallback else self._shapes.get(program)
        return Ready({} if shape is None else asdict(shape), fallback)

    def proven(self) -> list[Fallback]:
        """Waits until all programs are compiled and proven; returns what does not work here.

        An engine that trusts its device, as a CPU's does, waits for nothing.

        Raises:
            UserError: TensorFlow cannot open the device.
            EngineError: the engine has failed.
        """
        self.describe()
        if not self._engine.proves:
            return []
        self._engine.wait_until_compiled()
        return list(self._engine.fallbacks.values())

    def submit(
        self,
        attempt: Attempt,
        planned: PlannedTrial,
        until_epoch: int,
        state: list[np.ndarray] | None,
    ) -> int:
        """Takes a trial, and ends the attempts of workers that are gone.

        Args:
            attempt: at the trial.
            planned: the trial.
            until_epoch: it pauses then.
            state: of `checkpoint`, to go on from.

        Returns:
            The number of the trial's trainable parameters.
        """
        from convae.lanes import LaneState

        for other in list(self._attempts):
            if other.node == self._node:
                is_gone = not process_exists(other.pid)
            else:  # on a node without an engine, which is not seen from here
                is_gone = other.trial_id == attempt.trial_id and other != attempt
            if is_gone:
                self.remove(other)
        self._engine.submit(
            attempt.name,
            planned.config,
            sharing=planned.sharing,
            until_epoch=until_epoch,
            evaluates=planned.evaluates,
            state=LaneState.from_arrays(state) if state else None,
        )
        self._attempts.add(attempt)
        return self._n_parameters(planned)

    def advance(self, attempt: Attempt, until_epoch: int) -> None:
        """Lets a paused trial train on until it has completed so many epochs."""
        self._engine.advance(attempt.name, until_epoch)

    def report(self, attempt: Attempt, timeout_seconds: float) -> Report:
        """What is new of a trial, once it has paused or ended, or after that time.

        Its compile seconds are those of the trial, and of programs that were not reported yet.
        """
        return self._with_compile_seconds(self._engine.report(attempt.name, timeout_seconds))

    def checkpoint(self, attempt: Attempt) -> tuple[Report, list[np.ndarray] | None]:
        """What is new at once, and the state that belongs to it; None if there is none yet."""
        report, state = self._engine.checkpoint(attempt.name)
        return self._with_compile_seconds(report), None if state is None else state.to_arrays()

    def export(self, attempt: Attempt) -> dict[str, bytes]:
        """A trained trial's files for the run folder; see `study.tune.kept_model.files_of`."""
        from convae.pinned import tf
        from convae.training import reconstruct
        from study.tune.kept_model import files_of

        model = self._engine.model(attempt.name)
        with tf.device("/CPU:0"):  # the GPU has slices to train, on whose ends this would wait
            outputs = reconstruct(model, self._image_set.test_images)
        return files_of(attempt.trial_id, model, self._image_set, outputs)

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt, if it is there."""
        self._attempts.discard(attempt)
        with suppress(KeyError):
            self._engine.remove(attempt.name)

    def _n_parameters(self, planned: PlannedTrial) -> int:
        if not planned.config.is_custom:
            return n_parameters(planned.config)
        from convae.models import build_model, count_trainable
        from convae.pinned import tf

        with tf.device("/CPU:0"):
            return count_trainable(build_model(planned.config, self._custom_models))

    def _with_compile_seconds(self, report: Report) -> Report:
        seconds = self._engine.compile_seconds
        new = seconds.keys() - self._told_compile_seconds
        self._told_compile_seconds |= new
        total = report.compile_seconds + sum(seconds[program] for program in new)
        return report._replace(compile_seconds=total)
