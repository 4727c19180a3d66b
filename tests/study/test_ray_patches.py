"""What is patched of Ray Tune, on its own controller with fakes around it: no Ray processes.

The first two tests fail once Ray mends the faults: then `study.tune.ray_patches` can go.
"""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ray.exceptions import RayActorError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from study.tune.ray_patches import patched_reuse


class FakeTrial(SimpleNamespace):
    __hash__ = object.__hash__

    def handle_error(self, _):
        pass

    def should_recover(self):
        return True

    def set_ray_actor(self, _):
        pass


class Controller(TuneController):
    """Ray Tune's, without its processes; notes what becomes of its trial.

    The trial's worker starts, another one is free.
    """

    def __init__(self, status, *, resetting):
        known = {"trial_id": "a", "placement_group_factory": "1 CPU", "experiment_tag": ""}
        self.trial = FakeTrial(status=status, config={}, **known)
        self.notes = []
        self._fail_fast = self._print_trial_errors = False
        self._resetting_trials = {self.trial} if resetting else set()
        self._scheduler_alg = self._search_alg = self._callbacks = Mock()
        self._iteration, self._trials = 0, [self.trial]
        self._trial_to_actor, self._actor_to_trial = {self.trial: "starting"}, {"starting": None}
        self._actor_cache = SimpleNamespace(
            has_cached_object=lambda _: True, pop_cached_object=lambda _: "free"
        )
        self._actor_manager = SimpleNamespace(
            _live_actors_to_ray_actors_resources={"starting": [None], "free": [None]}
        )

    def _set_trial_status(self, trial, status):
        trial.status = status

    def _unstage_trial_with_resources(self, trial):
        pass

    def _try_recover(self, trial, exc):
        self.notes.append("starts again")
        trial.status = Trial.PENDING

    def _schedule_trial_stop(self, trial, exception=None):
        self.notes.append("is given up")

    def _remove_actor(self, tracked_actor):
        self.notes.append(f"drops the worker that is {tracked_actor}")

    def _schedule_trial_reset(self, trial, *_):
        self.notes.append("takes another worker")


def fail(controller):
    controller._trial_task_failure(controller.trial, RayActorError())


def reuse(controller):
    return controller._maybe_reuse_cached_actor(controller.trial)


def test_ray_gives_up_a_trial_whose_worker_fails_as_it_takes_it_over():
    controller = Controller(Trial.PENDING, resetting=True)
    fail(controller)
    assert controller.notes == ["is given up"]


def test_ray_drops_a_worker_that_starts_for_one_that_is_free():
    controller = Controller(Trial.PENDING, resetting=False)
    assert reuse(controller)
    assert controller.notes == ["drops the worker that is starting", "takes another worker"]


def test_patched_such_a_trial_starts_again_and_one_death_counts_once():
    with patched_reuse():
        controller = Controller(Trial.PENDING, resetting=True)
        fail(controller)
        fail(controller)  # the same death, told twice
        assert controller.notes == ["starts again"]
        controller = Controller(Trial.PENDING, resetting=False)
        assert not reuse(controller)
        assert controller.notes == []
    test_ray_drops_a_worker_that_starts_for_one_that_is_free()  # and then Ray is as it was


@pytest.mark.parametrize("version", ["2.60.0", "2.99.0"])
def test_code_that_is_another_is_not_patched_which_is_said_once(caplog, version, monkeypatch):
    """Whatever the version says; with the code that is known, nothing is said."""

    class Other(TuneController):
        def _trial_task_failure(self, trial, exception):
            """Mended."""

    monkeypatch.setattr("ray.__version__", version)
    known, mended = TuneController._trial_task_failure, Other._trial_task_failure
    with patched_reuse(Other):
        assert Other._trial_task_failure is mended
    (told,) = caplog.messages
    assert told.startswith(f"Ray {version} has another trial controller than")
    with patched_reuse():
        assert TuneController._trial_task_failure is not known
    assert len(caplog.messages) == 1
