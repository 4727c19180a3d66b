"""Mends what Ray Tune 2.60 does with trials that fail at a reset, and with trials that have ended.

When a worker fails while it takes over its next trial, Tune gives the trial up at once, however
many retries it has left: the failure finds it not running yet. The death of a worker is told twice
besides, and a trial that got over that would wait for its dead worker for ever.

Tune also keeps every trial to the end of the study and looks through all of them at each step,
writes them all into a file of its own, and so grows in memory and time with each. Nothing here
reads that: what a study knows of ended trials is in its tables and in Optuna's storage.
"""

from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

_fail = TuneController._trial_task_failure
_step = TuneController.step


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


def _step_and_forget(self: TuneController) -> None:
    _step(self)
    ended = {
        trial
        for trial in self._stopped_trials | self._failed_trials
        if trial not in self._trial_to_actor  # its worker is on the way out
    }
    if not ended:
        return
    self._trials[:] = [trial for trial in self._trials if trial not in ended]
    for trials in (
        self._live_trials,  # where Tune leaves those that failed
        self._stopped_trials,
        self._failed_trials,
        self._trials_to_cache,
    ):
        trials -= ended
    for trial in ended:
        self._trial_metadata.pop(trial.trial_id, None)


def mend_tune() -> None:
    """Makes such a trial use its retries like any other, and Tune forget trials that ended."""
    TuneController._trial_task_failure = _fail_once
    TuneController.step = _step_and_forget
