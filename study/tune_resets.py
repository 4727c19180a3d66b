"""Mends what Ray Tune 2.60 does when a worker fails while it takes over its next trial.

Tune then gives the trial up at once, however many retries it has left: the failure finds it not
running yet. The death of a worker is told twice besides, and a trial that got over that would wait
for its dead worker for ever.
"""

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_fail = TuneController._trial_task_failure


def _fail_once(self: TuneController, trial: Trial, exception: Exception) -> None:
    if trial in self._resetting_trials:
        self._resetting_trials.remove(trial)
        if trial.status == Trial.PENDING:
            # As Tune does with a worker that fails while it starts.
            self._set_trial_status(trial, Trial.RUNNING)
            self._unstage_trial_with_resources(trial)
    elif trial.status == Trial.PENDING and isinstance(exception, RayActorError):
        return  # the same death again; the trial waits for another worker already
    _fail(self, trial, exception)


def mend_tune() -> None:
    """Makes such a trial use its retries like any other."""
    TuneController._trial_task_failure = _fail_once
