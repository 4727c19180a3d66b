"""The plain trainer in an engine: beside lanes, one trial at a time, with the same numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from keras_fit import noise

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from convae.device import Device
from convae.engine import Engine
from convae.errors import EngineError, TrialError
from convae.lane_program import Shape
from convae.lanes import LaneState
from convae.results import Status
from convae.shapes import ProgramId
from convae.sharing import DeviceSharing
from convae.training import Trainer

N_TRAIN = 200
BUILDER = """
import keras
from keras import layers

def build(units=4, rate=0.2, end="sigmoid"):
    if units == 13:
        raise RuntimeError("no 13")
    return keras.Sequential([
        keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(units, activation="relu"),
        layers.BatchNormalization(), layers.Dropout(rate),
        layers.Dense(784, activation=end), layers.Reshape((28, 28, 1)),
    ])
"""
CUSTOM = [
    CustomModel(name=name, function="build", files=(("builder.py", BUILDER),), defaults="{}")
    for name in ("mine", "other")
]
DEVICE = Device("/CPU:0", "CPU by XLA, the way a GPU runs", jit_compile=True)


def custom_config(model="mine", epochs=3, seed=0, learning_rate=1.0, **keywords):
    return TrialConfig(
        model=model,
        arguments=json.dumps(keywords),
        batch_size=64,
        epochs=epochs,
        seed=seed,
        learning_rate=learning_rate,
    )


@pytest.fixture(scope="module")
def trainer():
    return Trainer(noise(N_TRAIN, 50), DEVICE, custom_models=CUSTOM)


@pytest.fixture(scope="module")
def compiled(trainer):
    """The programs of an engine with lanes, compiled once."""
    shape = Shape.for_trials("dense", n_lanes=2, widths=[8], batch_sizes=[64], n_train=N_TRAIN)
    programs = {
        ProgramId("dense", single=False): shape,
        ProgramId("dense", single=True): replace(shape, n_lanes=1),
    }
    engine = Engine.open(trainer.image_set, programs, trainer)
    engine.compile()
    return engine._programs


@pytest.fixture
def engine(compiled):
    for lanes in compiled.values():
        for lane in range(lanes.n_lanes):
            lanes.clear(lane)
    engine = Engine(compiled)
    engine.compile()
    return engine


def dense(epochs=3, seed=0):
    return TrialConfig(model="dense", hidden_units=8, batch_size=64, epochs=epochs, seed=seed)


def numbers(report):
    return [(epoch.epoch, epoch.train_mse, epoch.eval_mse) for epoch in report.epochs]


def plainly(trainer, config):
    """The trial by the plain trainer: its curve and its state."""
    training = trainer.start(config)
    results = [training.run_epoch() for _ in range(config.epochs)]
    return [(r.epoch, r.train_mse, r.eval_mse) for r in results], training.get_state()


def arrays(state):
    return [*state.weights, *state.velocities, *state.others]


def run(engine):
    while engine.step():
        pass


def test_trains_what_the_plain_trainer_does_beside_lanes(engine, trainer):
    """To the bit, each model's trials one after the other, and the lanes' as without them."""
    configs = {
        f"{m}{i}": custom_config(m, seed=i, units=3 + i) for m in ("mine", "other") for i in (0, 1)
    }
    expected = {name: plainly(trainer, config) for name, config in configs.items()}
    for i in range(2):
        engine.submit(f"d{i}", dense(seed=i))
    run(engine)
    alone = [numbers(engine.report(f"d{i}")) for i in range(2)]
    for i in range(2):
        engine.submit(f"e{i}", dense(seed=i))
    for name, config in configs.items():
        engine.submit(name, config, sharing=DeviceSharing.SINGLE)
    engine.step()
    n_running = [
        len(engine._scheduler.running[ProgramId(m, single=True)]) for m in ("mine", "other")
    ]
    assert n_running == [1, 1]
    run(engine)
    assert [numbers(engine.report(f"e{i}")) for i in range(2)] == alone
    for name, (curve, state) in expected.items():
        report = engine.report(name)
        assert (report.status, numbers(report)) == (Status.COMPLETED, curve)
        assert all(epoch.n_sharing > 1 and epoch.train_seconds > 0 for epoch in report.epochs[:1])
        assert report.compile_seconds > 0
        assert report.train_seconds == pytest.approx(sum(e.train_seconds for e in report.epochs))
        for ours, theirs in zip(arrays(engine.state(name)), state, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_goes_on_exactly_from_a_pause_and_from_a_checkpoint_in_another_engine(engine, trainer):
    config = custom_config(epochs=4)
    whole, last = plainly(trainer, config)
    engine.submit("a", config, sharing=DeviceSharing.SINGLE, until_epoch=1)
    engine.submit(
        "b", custom_config(seed=9, units=6), sharing=DeviceSharing.SINGLE
    )  # takes the lane meanwhile
    run(engine)
    report = engine.report("a")
    assert report.status is Status.PAUSED
    engine.advance("a", 3)
    engine.step()
    found = numbers(report)
    report, state = engine.checkpoint("a")
    found += numbers(report)
    assert (report.status, state.epoch, len(found)) == (Status.RUNNING, 2, 2)
    engine.remove("a")
    run(engine)
    other = Engine(engine._programs)
    other.compile()
    state = LaneState.from_arrays(state.to_arrays())
    other.submit("a", config, sharing=DeviceSharing.SINGLE, state=state)
    run(other)
    assert found + numbers(other.report("a")) == whole
    for ours, theirs in zip(arrays(other.state("a")), last, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_before_the_first_slice_starts_anew(engine, trainer):
    config = custom_config(epochs=1)
    engine.submit("a", config, sharing=DeviceSharing.SINGLE)
    engine._move()
    _, state = engine.checkpoint("a")
    assert state is None
    engine.remove("a")
    engine.step()
    engine.submit("a", config, sharing=DeviceSharing.SINGLE)
    run(engine)
    assert numbers(engine.report("a")) == plainly(trainer, config)[0]


def test_evaluates_where_it_is_asked_to(engine):
    even = {"evaluates": lambda epoch: epoch % 2 == 0}
    engine.submit("a", custom_config(), sharing=DeviceSharing.SINGLE, **even)
    run(engine)
    assert [epoch.eval_mse is None for epoch in engine.report("a").epochs] == [True, False, True]


def test_is_alone_where_the_plan_says_so_and_makes_way_for_who_is(engine):
    engine.submit("mine", custom_config(), sharing=DeviceSharing.ALONE)
    engine.submit("dense", dense())
    engine.step()
    assert engine.report("mine", 0).epochs[0].n_sharing == 1
    assert engine.report("dense", 0).train_seconds == 0
    run(engine)
    engine.submit("alone", dense(), sharing=DeviceSharing.ALONE)
    engine.submit("other", custom_config("other"), sharing=DeviceSharing.SINGLE)
    engine.step()
    assert engine.report("other", 0).train_seconds == 0
    run(engine)
    assert {e.n_sharing for e in engine.report("alone").epochs} == {1}
    assert engine.report("other").status is Status.COMPLETED


def test_divergence_is_told_with_its_epoch(engine):
    engine.submit(
        "a", custom_config(learning_rate=1e30, end="linear"), sharing=DeviceSharing.SINGLE
    )
    engine.submit("b", custom_config(seed=1), sharing=DeviceSharing.SINGLE)
    run(engine)
    report = engine.report("a")
    assert report.status is Status.DIVERGED
    assert report.diverged_epoch == len(report.epochs) + 1
    assert engine.state("a") is None
    assert engine.report("b").status is Status.COMPLETED


def test_a_builder_that_fails_costs_its_trial_and_no_other(engine):
    with Engine(engine._programs) as engine:
        engine.submit("bad", custom_config(units=13), sharing=DeviceSharing.SINGLE)
        engine.submit("good", custom_config(), sharing=DeviceSharing.SINGLE)
        engine.submit("dense", dense())
        for ask in (lambda name: engine.report(name, 60), engine.state, engine.checkpoint):
            with pytest.raises(TrialError, match="bad has failed: no 13") as caught:
                ask("bad")
            assert isinstance(caught.value.__cause__, RuntimeError)
        engine.remove("bad")
        for name in ("good", "dense"):
            assert engine.report(name, 60).status is Status.COMPLETED
    assert not issubclass(TrialError, EngineError)


def test_refuses_what_it_cannot_train(engine):
    with pytest.raises(ValueError, match="no program"):
        engine.submit("a", custom_config("third"), sharing=DeviceSharing.SINGLE)
