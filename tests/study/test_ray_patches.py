"""What is patched of Ray Tune, on its own controller with fakes around it: no Ray processes.

The first test fails once Ray mends the fault: then `study.tune.ray_patches` can go.
"""

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution.tune_controller import RayActorManager, TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

from study.tune.ray_patches import METHOD, patched_deaths, patched_reuse


class FakeTrial(SimpleNamespace):
    __hash__ = object.__hash__

    def set_ray_actor(self, _):
        pass


class Controller(TuneController):
    """Ray Tune's, without its processes; notes what becomes of its trial.

    The trial's worker starts, another one is free.
    """

    def __init__(self):
        known = {"trial_id": "a", "placement_group_factory": "1 CPU", "experiment_tag": ""}
        self.trial = FakeTrial(status=Trial.PENDING, config={}, **known)
        self.notes = []
        self._resetting_trials = set()
        self._trial_to_actor, self._actor_to_trial = {self.trial: "starting"}, {"starting": None}
        self._actor_cache = _ObjectCache()
        self._actor_cache.cache_object("1 CPU", "free")
        self._actor_manager = SimpleNamespace(
            _live_actors_to_ray_actors_resources={"starting": [None], "free": [None]}
        )

    def _remove_actor(self, tracked_actor):
        self.notes.append(f"drops the worker that is {tracked_actor}")

    def _schedule_trial_reset(self, trial, *_):
        self.notes.append("takes another worker")


def reuse(controller):
    return controller._maybe_reuse_cached_actor(controller.trial)


def test_ray_drops_a_worker_that_starts_for_one_that_is_free():
    controller = Controller()
    assert reuse(controller)
    assert controller.notes == ["drops the worker that is starting", "takes another worker"]


def test_patched_a_trial_keeps_the_worker_that_starts_for_it():
    given = []
    with patched_reuse(given.append):
        controller = Controller()
        assert not reuse(controller)
        assert (controller.notes, given) == ([], [])
        controller._trial_to_actor.clear()
        assert reuse(controller)  # has none that starts
        assert given == [controller.trial]
    test_ray_drops_a_worker_that_starts_for_one_that_is_free()  # and then Ray is as it was


def test_free_workers_are_kept_as_long_as_trials_are_to_come():
    """Tune keeps one that no trial waits for; the first line fails once it keeps more."""
    controller, n_kept = Controller(), 3
    cache = controller._actor_cache

    def free():
        return [cache.cache_object("1 CPU", name) for name in ("b", "c", "d")]

    assert free() == [False] * 3
    with patched_reuse(lambda _: None, lambda: n_kept):
        reuse(controller)
        assert free() == [True, True, False]
        assert list(cache.flush_cached_objects()) == []
        n_kept = 0
        reuse(controller)
        assert list(cache.flush_cached_objects()) == ["free", "b", "c"]


def test_a_worker_that_dies_of_memory_ends_its_trial_and_not_the_study():
    """Which is what Ray does: once it no longer raises, its patch can go."""
    told = []
    worker = SimpleNamespace(actor_id="a", _on_error=lambda _, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=worker, _on_error=None)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda **_: None)
    error = OutOfMemoryError("the node is low on memory")
    with pytest.raises(RuntimeError, match="unexpected exception"):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
    with patched_deaths():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
    (died,) = told
    assert isinstance(died, RayActorError)
    assert "low on memory" in str(died)


def test_code_that_is_another_is_not_patched_which_is_said_once(caplog):
    """With the code that is known, nothing is said."""

    class Other(TuneController):
        def _maybe_reuse_cached_actor(self, trial):
            """Mended."""

    known, mended = TuneController._maybe_reuse_cached_actor, getattr(Other, METHOD)
    with patched_reuse(print, controller=Other):
        assert getattr(Other, METHOD) is mended
    (told,) = caplog.messages
    assert told.startswith(f"Ray {ray.__version__} has another trial controller than")
    with patched_reuse(print):
        assert getattr(TuneController, METHOD) is not known
    assert len(caplog.messages) == 1
