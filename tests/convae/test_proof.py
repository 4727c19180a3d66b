"""Lanes prove themselves before a trial is trusted to them; planted faults do not get through."""

from dataclasses import replace

import numpy as np
import pytest
from keras_fit import noise

from convae.config import TrialConfig
from convae.device import Device
from convae.engine import Engine
from convae.lane_program import DeviceImages, Shape
from convae.lanes import Lanes
from convae.proof import ProofError, prove
from convae.results import Status
from convae.shapes import ProgramId
from convae.sharing import DeviceSharing
from convae.training import Trainer

IMAGES = noise(200, 50)


def lanes_for(model, n_lanes, width, batch_sizes, kind=Lanes):
    images = DeviceImages(IMAGES)
    shape = Shape.for_trials(
        model, n_lanes=n_lanes, widths=[width], batch_sizes=batch_sizes, n_train=200
    )
    return kind(shape, images)


@pytest.mark.parametrize(
    ("model", "n_lanes", "width", "batch_sizes"),
    [("dense", 3, 24, [16, 64]), ("dense", 1, 8, [32]), ("conv", 2, 5, [16, 64])],
)
def test_lanes_that_are_right_pass_and_are_empty_afterwards(model, n_lanes, width, batch_sizes):
    lanes = lanes_for(model, n_lanes, width, batch_sizes)
    lanes.compile()
    prove(lanes)
    assert not lanes.run()


class NotCompiling(Lanes):
    """As where XLA finds no tiles."""

    def compile(self):
        raise RuntimeError("Couldn't find output tile sizes\nthat satisfy hlo: dot")


class TooLarge(Lanes):
    """As where the device's memory does not hold it."""

    def compile(self):
        super().compile()
        raise MemoryError


class Wrong(Lanes):
    """Trains by another rule than the model's optimiser."""

    def put(self, lane, config, state, sizes=None):
        super().put(lane, replace(config, momentum=0.9 * config.momentum), state, sizes)


class Leaking(Lanes):
    """What a lane computes depends on its place."""

    def put(self, lane, config, state, sizes=None):
        if lane:
            state = replace(state, weights=[np.nextafter(x, np.float32(1)) for x in state.weights])
        super().put(lane, config, state, sizes)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Wrong, "the weights' change .* differs from Keras"), (Leaking, "its lane or its neighbours")],
)
def test_lanes_that_compute_something_else_do_not_pass(kind, reason):
    lanes = lanes_for("dense", 3, 24, [16, 64], kind)
    lanes.compile()
    with pytest.raises(ProofError, match=reason):
        prove(lanes)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NotCompiling, "Couldn't find output tile sizes"),
        (TooLarge, "MemoryError"),
        (Wrong, "the weights' change in a few steps differs from Keras"),
    ],
)
def test_the_plain_trainer_takes_the_trials_of_lanes_that_do_not_work(kind, reason):
    shape = lanes_for("dense", 2, 24, [16, 64]).shape
    shared = ProgramId("dense", single=False)
    trainer = Trainer(IMAGES, Device("/CPU:0", "a CPU", jit_compile=False))
    engine = Engine.open(IMAGES, {shared: shape}, trainer, prove=prove, lanes=kind)
    config = TrialConfig(model="dense", hidden_units=24, batch_size=16, epochs=2)
    with engine:
        assert engine.program_for(config, DeviceSharing.LANES, 300) == shared
        fallback = engine.fallbacks[shared]
        assert fallback.reason.startswith(reason)
        assert "Traceback" in fallback.error
        assert "dense in 2 lanes" in fallback.program
        for name in "abc":
            engine.submit(name, config)
        found = [engine.report(name, 120) for name in "abc"]
    assert {report.status for report in found} == {Status.COMPLETED}
    assert {epoch.n_sharing for report in found for epoch in report.epochs} == {1.0}
    expected = trainer.start(config)
    assert found[0].epochs[0].train_mse == expected.run_epoch(evaluate=False).train_mse
