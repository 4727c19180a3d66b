"""Patches two methods of Ray Tune's controller, whose workers go on with one trial after another.

With `reuse_actors` a worker goes on with another trial by a reset. If it fails or dies over that,
Tune gives the trial up at once, however many retries it has left, because the failure finds the
trial pending and not running; and since the death of a worker is told twice, a trial that got over
the first one would wait for its dead worker for ever. And a trial whose own worker is starting is
given the first one that becomes free, and its own is dropped: where trials are shorter than a
worker's start, which takes seconds of TensorFlow's, the second slot never gets one. Upstream knows
that reuse is unstable and turned it off by default for that
(https://github.com/ray-project/ray/pull/42951); no report of these faults was found there.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import ray
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

# The methods, by digests of the code that the patches were written for: of Ray 2.60.
DIGESTS: Final = {
    "_trial_task_failure": "88dad0a9584cc713",
    "_maybe_reuse_cached_actor": "c045f0ddd48fee5b",
}

_log = logging.getLogger(__name__)


def digest_of(method: Callable[..., Any]) -> str:
    """A digest of a method's source."""
    return sha256(inspect.getsource(method).encode()).hexdigest()[:16]


@contextmanager
def patched_reuse(controller: type = TuneController) -> Iterator[None]:
    """While the block runs, such a trial uses its retries like any other, and keeps its worker.

    A Ray whose methods are not those that were patched is left as it is, which the log says. Tests
    give another class than Ray Tune's.
    """
    originals = {name: getattr(controller, name) for name in DIGESTS}
    if {name: digest_of(method) for name, method in originals.items()} != DIGESTS:
        _log.warning(
            "Ray %s has another trial controller than the one that %s patches: a trial whose worker"
            " fails as it takes the trial over may fail without a retry.",
            ray.__version__,
            __name__,
        )
        yield
        return
    process_failure, reuse = originals.values()

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
        starting = self._actor_manager._live_actors_to_ray_actors_resources  # noqa: SLF001
        if self._trial_to_actor.get(trial) in starting and trial not in self._resetting_trials:
            return False
        return bool(reuse(self, trial))

    for name, patched in zip(DIGESTS, (fail_once, reuse_unless_starting), strict=True):
        setattr(controller, name, patched)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(controller, name, original)
