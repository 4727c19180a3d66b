"""The Ray Tune Trainable of a trial that trains in an engine's lane: thin, it only asks and tells.

It holds the trial's share of the device, its checkpoints and its place in Ray Tune, which then
schedules, retries and prunes as ever. It needs no TensorFlow and starts in a second.
"""

import os
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from study.folder.checkpoints import Spent
from study.folder.storage import RunFolder
from study.tune.engines import Attempt, engine_here
from study.tune.trainable import FolderTrial


class LaneTrial(FolderTrial):
    """Has the engine of its device train the planned trials that it is given."""

    # Ray Tune takes in some tens of results a second, and a GPU may have as many trials in lanes.
    report_seconds = 5.0

    def setup(
        self,
        config: dict[str, Any],
        keeper: ActorHandle | None = None,
        gpu: bool = False,
        folder: RunFolder | None = None,
        owner: str = "",
    ) -> None:
        """Finds the engine of the device that Ray has given it.

        Args:
            config: of the first trial, `PlannedTrial.to_dict`.
            keeper: of the study's engines.
            gpu: whether that is a GPU.
            folder: the run folder.
            owner: the driver that the run folder must have for this worker to write there.

        Raises:
            RunFolderError: this node does not see the run folder.
        """
        started = time.perf_counter()
        self._open(folder, owner)
        self._keeper, self._gpu = keeper, gpu
        self._begin(config, started)

    def _start(self, state: list[np.ndarray] | None) -> None:
        # Asked for each trial: the engine of the one before may have died with others in it.
        self._engine = engine_here(self._keeper, gpu=self._gpu)
        self._device = ray.get(self._engine.describe.remote())
        self._stands_still, self._diverged_epoch = False, None
        self._state_to_submit = state
        self._attempt: Attempt | None = None

    def _submit(self) -> Attempt:
        """Takes a lane, or a place in the queue.

        In the first step, not before: Ray Tune starts a worker for a trial, and drops it as it is
        if another has become free meanwhile.
        """
        attempt = Attempt(self._planned.trial_id, os.getpid())
        state, self._state_to_submit = self._state_to_submit, None
        submitted = self._engine.submit.remote(attempt, self._planned, self._target(), state)
        self._n_parameters = ray.get(submitted)
        return attempt

    def _target(self) -> int:
        """The epoch at which the scheduler must decide, or the last one."""
        config = self._planned.config
        rungs = self._planned.report_epochs if self._planned.prunable else ()
        return min(
            (e for e in rungs if len(self._epochs) < e < config.epochs), default=config.epochs
        )

    def step(self) -> dict[str, Any]:
        """Waits for a decision to be due, the trial's end, or `report_seconds`."""
        if self._attempt is None:
            self._attempt = self._submit()
        if self._stands_still and not self._unsent and self._diverged_epoch is None:
            # The scheduler knows of all its epochs, and has let it go on.
            ray.get(self._engine.advance.remote(self._attempt, self._target()))
            self._stands_still = False
        if not self._stands_still:
            self._take(ray.get(self._engine.report.remote(self._attempt, self.report_seconds)))
        finished = len(self._epochs) == self._planned.config.epochs
        if finished and self._planned.keep_model:
            ray.get(self._engine.keep_model.remote(self._attempt, self._planned.config))
        self._ended = finished or self._diverged_epoch is not None
        seconds = self._spent.train_seconds
        return self._result(
            self._diverged_epoch,
            n_parameters=self._n_parameters,
            n_sharing=self._spent.shared_seconds / seconds if seconds else None,
            device=self._device,
        )

    def _take(self, report: dict[str, Any]) -> None:
        for epoch in report["epochs"]:
            self._add(SimpleNamespace(**epoch))
            self._spent += Spent(shared_seconds=epoch["n_sharing"] * epoch["train_seconds"])
        self._spent += Spent(compile_seconds=report["compile_seconds"])
        self._stands_still = report["stands_still"]
        self._diverged_epoch = report["diverged_epoch"]

    def _state(self) -> list[np.ndarray] | None:
        if self._attempt is None:
            return None
        report, state = ray.get(self._engine.checkpoint.remote(self._attempt))
        self._take(report)  # its epochs belong to the state
        found: list[np.ndarray] | None = state
        return found

    @property
    def _name_and_setting(self) -> tuple[str, dict[str, Any]]:
        # No checkpoint of a trial that trained by itself, on a CPU, is for a lane, nor the reverse.
        trial_id, setting = super()._name_and_setting
        return trial_id, {**setting, "in_lanes": True}

    def _leave(self) -> None:
        if self._attempt is not None:
            with suppress(RayError):  # an engine that has died needs no telling
                ray.get(self._engine.remove.remote(self._attempt))
