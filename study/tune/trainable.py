"""The Ray Tune Trainable: a planned trial goes in, its epochs come out.

An engine trains the trial: an object of this process on a CPU (`study.tune.engines`), a Ray actor
that trains many trials in lanes on a GPU. The Trainable knows neither TensorFlow nor the device: it
keeps checkpoints, stops where the scheduler must decide, and reports to Ray Tune, which schedules,
retries and prunes.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from convae.results import EpochResult, Report
from study.folder import schema
from study.folder.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from study.folder.lock import guard_for
from study.folder.storage import RunFolder, RunFolderError
from study.plan.trials import PlannedTrial
from study.tune.engine_actors import RemoteEngine
from study.tune.engines import Attempt, StudyEngine

PLANNED = "planned"  # the one entry of a trial's config for Ray: its PlannedTrial
EPOCH = "epoch"  # what a result calls the epochs trained so far
NODE = "node_id"  # what a result calls Ray's node that the trial trains on

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """How trials' workers train and report. Studies keep the defaults; tests change them."""

    # Makes the engine of a worker without lanes, of the arguments of `StudyEngine`; None for that
    # one. With another, GPUs have lanes only if they are asked for.
    engine: Callable[..., Any] | None = None
    # Between results; None for the engine's own. A result costs the driver milliseconds, an epoch
    # on a GPU may take two: epochs are sent together.
    report_seconds: float | None = None
    # Between checkpoints. Of a trial's work, a crash costs about this.
    checkpoint_seconds: float = 30.0


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
        self._device = self._engine.describe()
        self._stands_still = self._ended = False
        self._diverged_epoch: int | None = None
        kept = load_checkpoint(self._folder, planned.trial_id, self._checkpoint_of)
        kept = kept or Checkpoint([], 0.0, 0.0, [])
        self._state_to_submit = list(kept.state) or None
        self._compile_seconds = kept.compile_seconds
        self._wall_seconds, self._counted_to = kept.wall_seconds, started
        self._epochs = list(kept.epochs)
        # What the driver has not heard of yet. After a checkpoint it is all epochs so far.
        self._unsent = list(kept.epochs)
        self._kept_epoch, self._kept_at = len(self._epochs), time.monotonic()

    def step(self) -> dict[str, Any]:
        """Waits until the scheduler must decide, the trial's end, or `report_seconds`."""
        if self._attempt is None:
            self._attempt = self._submit()
        elif self._stands_still and not self._unsent and self._diverged_epoch is None:
            # The scheduler knows of all its epochs, and has let it go on.
            self._engine.advance(self._attempt, self._target())
            self._stands_still = False
        if not self._stands_still:
            seconds = self._settings.report_seconds
            seconds = self._engine.report_seconds if seconds is None else seconds
            self._take(self._engine.report(self._attempt, seconds))
        finished = len(self._epochs) == self._planned.config.epochs
        if finished and self._planned.keep_model:
            for name, content in self._engine.export(self._attempt).items():
                self._folder.write(name, content)
        self._ended = finished or self._diverged_epoch is not None
        result = self._result()
        # Afterwards, since the engine may tell of further epochs then, which the next result has.
        if time.monotonic() - self._kept_at >= self._settings.checkpoint_seconds:
            self._keep_checkpoint()
        return result

    def _submit(self) -> Attempt:
        """Gives the trial to the engine.

        In the first step, not before: Ray Tune starts a worker for a trial, and drops it as it is
        if another has become free meanwhile.
        """
        attempt = Attempt(self._planned.trial_id, os.getpid())
        state, self._state_to_submit = self._state_to_submit, None
        self._n_parameters = self._engine.submit(attempt, self._planned, self._target(), state)
        return attempt

    def _target(self) -> int:
        """The epoch at which the scheduler must decide, or the last one."""
        last = self._planned.config.epochs
        rungs = self._planned.report_epochs if self._planned.prunable else ()
        return min((epoch for epoch in rungs if len(self._epochs) < epoch < last), default=last)

    def _take(self, report: Report) -> None:
        self._epochs += report.epochs
        self._unsent += report.epochs
        self._compile_seconds += report.compile_seconds
        self._stands_still, self._diverged_epoch = report.stands_still, report.diverged_epoch

    def _result(self) -> dict[str, Any]:
        """What the driver is told."""
        epochs, self._unsent = self._unsent, []
        now = time.perf_counter()
        self._wall_seconds, self._counted_to = self._wall_seconds + now - self._counted_to, now
        train_seconds = sum(epoch.train_seconds for epoch in self._epochs)
        result = {
            "done": self._ended,
            "diverged_epoch": self._diverged_epoch,
            "history": epochs,
            EPOCH: len(self._epochs),
            NODE: self._node,
            schema.OBJECTIVE: self._objective(epochs),
            "n_parameters": self._n_parameters,
            "train_seconds": train_seconds,
            "eval_seconds": sum(epoch.eval_seconds for epoch in self._epochs),
            "compile_seconds": self._compile_seconds,
            "wall_seconds": self._wall_seconds,
            "device": self._device,
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

    @property
    def _checkpoint_of(self) -> dict[str, Any]:
        """What a checkpoint must be of; no state of a trainer is for a lane, nor the reverse."""
        return {**self._planned.config.to_dict(), "in_lanes": self._engine.in_lanes}

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
