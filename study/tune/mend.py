"""Mends what Ray Tune 2.60 does with its trials' workers, which go on with one trial after another.

With `reuse_actors` a worker goes on with another trial by a reset. If it fails or dies over that,
Tune gives the trial up at once, however many retries it has left, because the failure finds the
trial pending and not running; and since the death of a worker is told twice, a trial that got over
the first one would wait for its dead worker for ever. And a trial whose own worker is starting is
given the first one that becomes free, and its own is dropped: where trials are shorter than a
worker's start, which takes seconds of TensorFlow's, the second slot never gets one. Upstream knows
that reuse is unstable and turned it off by default for that
(https://github.com/ray-project/ray/pull/42951); no report of these faults was found there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

MENDED_VERSIONS = ("2.60.",)  # another one may not have the faults, or not in these places


@contextmanager
def mended_reuse() -> Iterator[None]:
    """While the block runs, such a trial uses its retries like any other, and keeps its worker."""
    if not ray.__version__.startswith(MENDED_VERSIONS):
        yield
        return
    process_failure = TuneController._trial_task_failure
    reuse = TuneController._maybe_reuse_cached_actor

    def fail_once(self: TuneController, trial: Trial, exception: Exception) -> None:
        if trial in self._resetting_trials:
            self._resetting_trials.remove(trial)
            if trial.status == Trial.PENDING:
                # As Tune does with a worker that fails while it starts.
                self._set_trial_status(trial, Trial.RUNNING)
                self._unstage_trial_with_resources(trial)
        elif trial.status == Trial.PENDING and isinstance(exception, RayActorError):
            return  # the same death again; the trial waits for another worker already
        process_failure(self, trial, exception)

    def reuse_unless_starting(self: TuneController, trial: Trial) -> bool:
        # One that waits for resources, which a worker that is free may hold, takes that one.
        starting = self._actor_manager._live_actors_to_ray_actors_resources
        if self._trial_to_actor.get(trial) in starting and trial not in self._resetting_trials:
            return False
        return bool(reuse(self, trial))

    with patch.multiple(
        TuneController,
        _trial_task_failure=fail_once,
        _maybe_reuse_cached_actor=reuse_unless_starting,
    ):
        yield
