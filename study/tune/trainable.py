"""The Ray Tune Trainable: a planned trial goes in, its epochs come out.

An engine trains the trial: an object of this process on a CPU (`study.tune.engines`), a Ray actor
that trains many trials in lanes on a GPU. The Trainable knows neither TensorFlow nor the device: it
keeps checkpoints, stops where the scheduler must decide, and reports to Ray Tune, which schedules,
retries and prunes.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.exceptions import RayActorError, RayError

from convae.errors import EngineError, EngineLostError
from convae.results import EpochResult, Fallback, Report, Status
from study.folder import schema
from study.folder.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from study.folder.lock import guard_for
from study.folder.storage import RunFolder, RunFolderError
from study.plan.silence import Patience
from study.plan.trials import PlannedTrial
from study.tune.engine_actors import RemoteEngine
from study.tune.engines import Attempt, Ready, StudyEngine

PLANNED = "planned"  # the one entry of a trial's config for Ray: its PlannedTrial
N_EPOCHS = "n_epochs"  # what a result calls the epochs trained so far
FALLBACK = "fallback"  # what a result calls the program that does not work there, if so
# What is added to the device's name where such a program's trials are trained otherwise.
PLAIN_TRAINER = " (plain trainer)"
OVER_TIME = "over_time"  # what a result calls the sentence that ends a trial over its time limit
WAITS = "waits"  # what a result says of a trial that has no lane, or nothing that trains it, yet
ENGINE = "engine"  # what a result calls the number of an engine with lanes
NODE = "node_id"  # what a result calls Ray's node that the trial trains on

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """How trials' workers train and report. Studies keep the defaults; tests change them."""

    # Makes the engine of a worker without lanes, of the arguments of `StudyEngine`; None for that
    # one. With another, GPUs have lanes only if they are asked for.
    engine: Callable[..., Any] | None = None
    # The class of the engines that have lanes.
    lanes_engine: type = StudyEngine
    # Between results; None for the engine's own. A result costs the driver milliseconds, an epoch
    # on a GPU may take two: epochs are sent together.
    report_seconds: float | None = None
    # Between checkpoints. Of a trial's work, a crash costs about this.
    checkpoint_seconds: float = 30.0
    patience: Patience | None = None  # with silent ones; None for the default


class OverTimeError(RuntimeError):
    """The trial has trained for longer than it may."""


class StudyTrial(tune.Trainable):
    """Has an engine train the planned trials that it is given, one after the other.

    A worker outlives its trial: it keeps its engine, and with it what is compiled.
    """

    def setup(
        self,
        config: dict[str, Any],  # of the first trial: its plan, under `PLANNED`
        engine: Callable[[], StudyEngine | RemoteEngine] | None = None,
        folder: RunFolder | None = None,
        owner: str = "",  # the driver that the folder must have for this worker to write there
        settings: WorkerSettings | None = None,
        limit_seconds: float | None = None,  # of training and evaluation, for each trial
        node: str | None = None,  # Ray's id of this one; None to ask Ray
    ) -> None:
        """Makes the engine and begins the first trial.

        Raises:
            RunFolderError: this node does not see the run folder.
        """
        started = time.perf_counter()
        assert folder is not None
        assert engine is not None
        guard_for(folder, owner)
        if folder.read(schema.MANIFEST_FILE) is None:
            raise RunFolderError(
                f"{folder} is not there on node {ray.util.get_node_ip_address()}; give --storage on"
                " a disk that all nodes share, or in a bucket."
            )
        self._folder, self._settings = folder, settings or WorkerSettings()
        self._limit_seconds = limit_seconds
        self._node = node or ray.get_runtime_context().get_node_id()
        self._engine = engine()
        self._begin(config[PLANNED], started)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial in this process."""
        self._leave()
        self._begin(new_config[PLANNED], time.perf_counter())
        return True

    def cleanup(self) -> None:
        """Keeps what an unfinished trial has trained, when its worker is told to stop."""
        self._keep_checkpoint()
        self._leave()

    def _begin(self, planned: PlannedTrial, started: float) -> None:
        """Prepares a trial's start, or its continuation from its checkpoint."""
        self._planned = planned
        self._attempt: Attempt | None = None
        self._state: list[np.ndarray] | None = None  # to go on from, once it is known
        self._device = self._engine.describe()
        self._stands_still = self._ended = False
        self._status, self._busy_since = Status.WAITING, time.monotonic()
        self._over_time: str | None = None
        self._diverged_epoch: int | None = None
        self._n_parameters: int | None = None
        self._fallback: Fallback | None = None
        self._compile_seconds = 0.0
        self._wall_seconds, self._counted_to = 0.0, started
        self._epochs: list[EpochResult] = []
        self._unsent: list[EpochResult] = []  # what the driver has not heard of yet
        self._has_trained = False
        self._kept_epoch, self._kept_at = 0, time.monotonic()

    def _restore(self, ready: Ready) -> list[np.ndarray]:
        """Goes on from the trial's checkpoint, if that is for what trains it.

        Returns the state, which is empty for a trial that begins.
        """
        planned = self._planned
        # No state is for a program of another shape, nor for the plain trainer if a lane's.
        self._checkpoint_of = {**planned.config.to_dict(), "program": ready.shape}
        if ready.fallback is not None:
            self._fallback = ready.fallback
            self._device += PLAIN_TRAINER
        kept = load_checkpoint(self._folder, planned.trial_id, self._checkpoint_of)
        kept = kept or Checkpoint([], 0.0, 0.0, [])
        self._compile_seconds += kept.compile_seconds
        self._wall_seconds += kept.wall_seconds
        self._epochs = list(kept.epochs)
        self._has_trained = bool(self._epochs)
        self._unsent = list(kept.epochs)  # all epochs so far
        self._kept_epoch, self._kept_at = len(self._epochs), time.monotonic()
        return list(kept.state)

    def step(self) -> dict[str, Any]:
        """Waits until the scheduler must decide, the trial's end, or `report_seconds`.

        Raises:
            EngineLostError: the engine is gone, and not over this trial.
        """
        try:
            return self._step()
        except (EngineError, RayActorError) as error:
            silent = isinstance(self._engine, RemoteEngine) and self._engine.was_silent()
            if self._is_suspect(error, silent=silent):
                raise
            what = "did not answer and was ended" if silent else "is gone"
            raise EngineLostError(f"The engine of {self._planned.trial_id} {what}.") from error

    def _is_suspect(self, error: EngineError | RayActorError, *, silent: bool) -> bool:
        """Whether the engine may have ended over this trial: custom code, or what came last."""
        if self._planned.config.is_custom:
            return True
        if silent:
            return False
        if isinstance(error, EngineError):  # which Ray wraps
            return bool(getattr(getattr(error, "cause", error), "suspect", False))
        return not self._has_trained

    def _step(self) -> dict[str, Any]:
        if self._over_time:
            raise OverTimeError(self._over_time)
        seconds = self._settings.report_seconds
        seconds = self._engine.report_seconds if seconds is None else seconds
        if self._attempt is None:
            if self._state is None:
                ready = self._engine.ready(self._planned, seconds)
                if ready is None:
                    return self._result()
                self._state = self._restore(ready)
                if len(self._epochs) in self._rungs:
                    return self._result()  # the driver may have gone before it decided
            self._attempt = self._submit(self._state or None)
        elif self._stands_still and not self._unsent and self._diverged_epoch is None:
            # The scheduler knows of all its epochs, and has let it go on.
            self._engine.advance(self._attempt, self._target())
            self._stands_still = False
        if not self._stands_still:
            if self._status is not Status.RUNNING:
                self._busy_since = time.monotonic()
            self._take(self._engine.report(self._attempt, min(seconds, self._seconds_left())))
        finished = len(self._epochs) == self._planned.config.epochs
        if finished and self._planned.keep_model:
            for name, content in self._engine.export(self._attempt).items():
                self._folder.write(name, content)
        self._ended = finished or self._diverged_epoch is not None
        if not self._ended and not self._seconds_left():
            self._ended = True  # the next step raises an error, with which this process ends too
            limit = f"{self._limit_seconds:g} s of --trial-time-limit"
            self._over_time = f"It trained for longer than the {limit}."
        result = self._result()
        # Afterwards, since the engine may tell of further epochs then, which the next result has.
        if time.monotonic() - self._kept_at >= self._settings.checkpoint_seconds:
            self._keep_checkpoint()
        return result

    def _submit(self, state: list[np.ndarray] | None) -> Attempt:
        """Gives the trial to the engine.

        In the first step, not before: Ray Tune starts a worker for a trial, and drops it as it is
        if another has become free meanwhile.
        """
        attempt = Attempt(self._planned.trial_id, os.getpid(), self._node)
        self._n_parameters = self._engine.submit(attempt, self._planned, self._target(), state)
        return attempt

    def _target(self) -> int:
        """The epoch at which the scheduler must decide, or the last one."""
        last = self._planned.config.epochs
        due = (epoch for epoch in self._rungs if len(self._epochs) < epoch < last)
        return min(due, default=last)

    @property
    def _rungs(self) -> tuple[int, ...]:
        return self._planned.report_epochs if self._planned.prunable else ()

    def _seconds_left(self) -> float:
        """Of the time limit, at least 0: what ended epochs took, and the one in progress so far.

        Nothing counts while it waits for a lane, a compilation or the scheduler.
        """
        if self._limit_seconds is None:
            return math.inf
        # A share of a device's time, times those that shared it.
        spent = sum(e.train_seconds * e.n_sharing + e.eval_seconds for e in self._epochs)
        if self._status is Status.RUNNING:
            spent += time.monotonic() - self._busy_since
        return max(0.0, self._limit_seconds - spent)

    def _take(self, report: Report) -> None:
        if report.epochs:
            self._busy_since = time.monotonic()
        self._status = report.status
        self._epochs += report.epochs
        self._unsent += report.epochs
        self._compile_seconds += report.compile_seconds
        self._has_trained |= report.train_seconds > 0
        self._stands_still = report.status.stands_still
        self._diverged_epoch = report.diverged_epoch

    def _result(self) -> dict[str, Any]:
        """What the driver is told."""
        epochs, self._unsent = self._unsent, []
        now = time.perf_counter()
        self._wall_seconds, self._counted_to = self._wall_seconds + now - self._counted_to, now
        train_seconds = sum(epoch.train_seconds for epoch in self._epochs)
        result = {
            "done": self._ended and not self._over_time,
            OVER_TIME: self._over_time,
            "diverged_epoch": self._diverged_epoch,
            "history": epochs,
            N_EPOCHS: len(self._epochs),
            NODE: self._node,
            schema.OBJECTIVE: self._objective(epochs),
            "n_parameters": self._n_parameters,
            "train_seconds": train_seconds,
            "eval_seconds": sum(epoch.eval_seconds for epoch in self._epochs),
            "compile_seconds": self._compile_seconds,
            "wall_seconds": self._wall_seconds,
            "device": self._device,
            FALLBACK: self._fallback,
            WAITS: self._status is Status.WAITING,
            ENGINE: getattr(self._engine, "number", None),
        }
        if self._engine.in_lanes:  # else the driver knows which trials share a machine
            shared = sum(epoch.n_sharing * epoch.train_seconds for epoch in self._epochs)
            result["n_sharing"] = shared / train_seconds if train_seconds else None
        return result

    def _objective(self, epochs: list[EpochResult]) -> float | None:
        """The value that the scheduler compares; only trials of the search have one."""
        if not epochs or self._planned.config.split != schema.SEARCH_SPLIT:
            return None
        return epochs[-1].eval_mse

    def _keep_checkpoint(self) -> None:
        """A trial that cannot keep a checkpoint goes on all the same: it may not need it."""
        if self._ended or self._attempt is None:
            return
        try:
            report, state = self._engine.checkpoint(self._attempt)
            self._take(report)  # its epochs belong to the state
            n_epochs = len(self._epochs)
            if state is None or n_epochs in (self._kept_epoch, self._planned.config.epochs):
                return
            checkpoint = Checkpoint(self._epochs, self._compile_seconds, self._wall_seconds, state)
            save_checkpoint(self._folder, self._planned.trial_id, self._checkpoint_of, checkpoint)
        except (RunFolderError, RayError):
            _log.exception("no checkpoint of %s", self._planned.trial_id)
        self._kept_epoch, self._kept_at = len(self._epochs), time.monotonic()

    def _leave(self) -> None:
        """Lets go of the present trial."""
        if self._attempt is not None:
            self._engine.remove(self._attempt)
