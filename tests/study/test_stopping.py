"""The rules of early stopping against Ray Tune's schedulers, decision by decision."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

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
