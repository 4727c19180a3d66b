"""Patches two methods of Ray's below Tune: how workers are reused, and how one dies of memory.

With `reuse_actors` a trial whose own worker is starting is given the first one that becomes free,
and its own is dropped: where trials are shorter than a worker's start, which takes seconds of
TensorFlow's, the second slot never gets one. Upstream knows that reuse is unstable and turned it
off by default for that (https://github.com/ray-project/ray/pull/42951); no report of this was
found there. Of free workers that no trial waits for at that moment Tune keeps one and ends the
others, which start again for later trials. And where Ray ends a worker since its node runs out of
memory, the error is neither an actor's nor a task's, which are all that the manager of actors
knows: the whole study would end.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.tune_controller import RayActorManager, TuneController
from ray.tune.experiment import Trial

DEATH: Final = "_actor_task_failed"
METHOD: Final = "_maybe_reuse_cached_actor"
DIGEST: Final = "c045f0ddd48fee5b"  # of the code that the patch was written for: of Ray 2.60

_log = logging.getLogger(__name__)


def digest_of(method: Callable[..., Any]) -> str:
    """A digest of a method's source."""
    return sha256(inspect.getsource(method).encode()).hexdigest()[:16]


@contextmanager
def patched_deaths() -> Iterator[None]:
    """While the block runs, whatever else ends a worker is the death of an actor."""
    fail = getattr(RayActorManager, DEATH)

    def fail_as_actor(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        known = RayActorError, RayTaskError
        if isinstance(exception, RayError) and not isinstance(exception, known):
            exception = RayActorError(error_msg=str(exception))
        fail(self, tracked_actor_task, exception)

    setattr(RayActorManager, DEATH, fail_as_actor)
    try:
        yield
    finally:
        setattr(RayActorManager, DEATH, fail)


@contextmanager
def patched_reuse(
    on_reuse: Callable[[Trial], None],
    n_kept: Callable[[], int] = lambda: 0,
    controller: type = TuneController,
) -> Iterator[None]:
    """While the block runs, a trial keeps the worker that starts for it, and free ones may stay.

    `on_reuse` is told of a trial that is given a worker of another one, which Tune tells nobody.
    `n_kept`, asked when a trial wants a worker, says how many free ones may stay for later ones.

    A Ray whose method is not the one that was patched is left as it is, which the log says. Tests
    give another class than Ray Tune's.
    """
    reuse = getattr(controller, METHOD)
    if digest_of(reuse) != DIGEST:
        _log.warning(
            "Ray %s has another trial controller than the one that %s patches: where trials are"
            " shorter than a worker's start, fewer may train at once.",
            ray.__version__,
            __name__,
        )
        yield
        return

    kept = 0  # as the cache knows it

    def reuse_unless_starting(self: TuneController, trial: Trial) -> bool:
        nonlocal kept
        before, kept = kept, n_kept()
        self._actor_cache.increase_max(trial.placement_group_factory, kept - before)
        # One that waits for resources, which a worker that is free may hold, takes that one.
        starting = self._actor_manager._live_actors_to_ray_actors_resources  # noqa: SLF001
        if self._trial_to_actor.get(trial) in starting and trial not in self._resetting_trials:
            return False
        is_new = trial not in self._resetting_trials
        is_given = bool(reuse(self, trial))
        if is_given and is_new:
            on_reuse(trial)
        return is_given

    setattr(controller, METHOD, reuse_unless_starting)
    try:
        yield
    finally:
        setattr(controller, METHOD, reuse)
