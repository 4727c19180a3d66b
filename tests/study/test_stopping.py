"""The rules of early stopping against Ray Tune's, decision by decision; and the lag of a search."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from study.plan.repeat import describe_repeat, lags_of
from study.plan.spec import StudySpec
from study.plan.stopping import goes_on

EPOCHS = 12
SETTINGS = {"time_attr": "epoch", "metric": "mse", "mode": "min"}
# Another trial waits for room, which lets the median rule pause those that run: here they go on.
CONTROLLER = SimpleNamespace(get_live_trials=list)


class Trial(SimpleNamespace):
    """What Ray's schedulers look at of a trial."""

    __hash__ = object.__hash__


def rays(spec):
    if spec.scheduler == "median":
        return MedianStoppingRule(**SETTINGS, grace_period=spec.grace)
    factor = spec.reduction_factor
    return AsyncHyperBandScheduler(
        **SETTINGS, grace_period=spec.grace, max_t=spec.epochs, reduction_factor=factor
    )


@pytest.mark.parametrize("scheduler", ["asha", "median"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_trials_end_where_ray_tune_ends_them(scheduler, factor):
    """Forty trials, four at a time in a random order, each compared with all that there are."""
    spec = StudySpec(
        preset="test",
        epochs=EPOCHS,
        grace_epochs=2,
        scheduler=scheduler,
        reduction_factor=factor,
    )
    rng, theirs, n_ended = random.Random(factor), rays(spec), 0
    curves, at_work, n_begun = {}, [], 0
    while n_begun < 40 or at_work:
        if len(at_work) < 4 and n_begun < 40:
            trial = Trial(trial_id=str(n_begun), status="RUNNING")
            n_begun += 1
            curves[trial.trial_id] = {}
            theirs.on_trial_add(CONTROLLER, trial)
            at_work.append(trial)
            continue
        trial = rng.choice(at_work)
        curve = curves[trial.trial_id]
        epoch, mse = len(curve) + 1, rng.random() / (1 + len(curve))
        curve[epoch] = mse
        if epoch == EPOCHS:
            theirs.on_trial_complete(CONTROLLER, trial, {"epoch": epoch, "mse": mse})
            at_work.remove(trial)
            continue
        result = {"epoch": epoch, "mse": mse}
        decision = theirs.on_trial_result(CONTROLLER, trial, result)
        others = [other for name, other in curves.items() if name != trial.trial_id]
        assert goes_on(spec, curve, others) == (decision == TrialScheduler.CONTINUE)
        if decision == TrialScheduler.STOP:
            n_ended += 1
            at_work.remove(trial)
    assert 0 < n_ended < 40


def test_what_there_is_nothing_to_compare_with_goes_on():
    spec = StudySpec(preset="test", epochs=EPOCHS, grace_epochs=2)
    assert goes_on(spec, {1: 9.0}, [{1: 0.1, 2: 0.1}])  # no rung
    assert goes_on(spec, {1: 9.0, 2: 9.0}, [{1: 0.1}])
    assert not goes_on(spec, {1: 9.0, 2: 9.0}, [{2: 0.1}])


@pytest.mark.parametrize(
    ("n_trials", "n_places", "changes", "lags"),
    [
        (12, 2, {}, {"conv": 2, "dense": 2}),
        (12, 8, {}, {"conv": 8, "dense": 8}),
        (100, 2, {}, {"conv": 2, "dense": 2}),
        (100, 8, {}, {"conv": 16, "dense": 16}),
        (100, 8, {"search_lag": 3}, {"conv": 3, "dense": 3}),
        (100, 8, {"repeatable": False}, None),
        (100, 1, {"objective": "mse,time", "scheduler": "none"}, None),
        (0, 2, {}, None),
    ],
)
def test_the_lag_of_a_search(n_trials, n_places, changes, lags):
    spec = StudySpec(preset="test", n_search_trials=n_trials, **changes)
    assert lags_of(spec, n_places) == lags


def test_a_model_that_cannot_have_all_places_has_its_own_lag():
    spec = StudySpec(preset="test", n_search_trials=12)
    lags = lags_of(spec, 36, {"conv": 24, "dense": 12})
    assert lags == {"conv": 24, "dense": 12}
    (line,) = describe_repeat(spec, lags)
    assert line.endswith("with this seed and --search-lag 24 (conv) and 12 (dense)")


def test_what_cannot_repeat_says_so():
    search = {"preset": "test", "n_search_trials": 2}
    timed = StudySpec(**search, objective="mse,time", scheduler="none")
    assert "goes by times" in describe_repeat(timed, None)[0]
    assert "--no-repeatable" in describe_repeat(StudySpec(**search, repeatable=False), None)[0]
    budget = StudySpec(**search, time_budget_seconds=9.0)
    assert "but for where --time-budget" in describe_repeat(budget, {"conv": 1, "dense": 1})[0]
    assert describe_repeat(StudySpec(preset="test"), None) == []
