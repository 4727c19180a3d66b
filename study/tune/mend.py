"""Mends what Ray Tune 2.60 does with a trial whose worker fails while it takes the trial over.

With `reuse_actors` a worker goes on with another trial by a reset. If it fails or dies over that,
Tune gives the trial up at once, however many retries it has left, because the failure finds the
trial pending and not running; and since the death of a worker is told twice, a trial that got over
the first one would wait for its dead worker for ever. Upstream knows that reuse is unstable and
turned it off by default for that (https://github.com/ray-project/ray/pull/42951); no report of
this fault was found there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

MENDED_VERSIONS = ("2.60.",)  # another one may not have the fault, or not in this place


@contextmanager
def retrying_failed_resets() -> Iterator[None]:
    """While the block runs, such a trial uses its retries like any other."""
    if not ray.__version__.startswith(MENDED_VERSIONS):
        yield
        return
    original = TuneController._trial_task_failure

    def fail_once(self: TuneController, trial: Trial, exception: Exception) -> None:
        if trial in self._resetting_trials:
            self._resetting_trials.remove(trial)
            if trial.status == Trial.PENDING:
                # As Tune does with a worker that fails while it starts.
                self._set_trial_status(trial, Trial.RUNNING)
                self._unstage_trial_with_resources(trial)
        elif trial.status == Trial.PENDING and isinstance(exception, RayActorError):
            return  # the same death again; the trial waits for another worker already
        original(self, trial, exception)

    TuneController._trial_task_failure = fail_once
    try:
        yield
    finally:
        TuneController._trial_task_failure = original
