"""A resumed trial's curve is the uninterrupted one's, to the last digit."""

import numpy as np
import pytest

from convae.config import TrialConfig
from convae.data import ImageSet
from convae.device import Device
from convae.training import Trainer

CPU = Device("/CPU:0", "CPU", jit_compile=False)
DENSE = TrialConfig(model="dense", hidden_units=16, dropout=0.3, batch_size=64)


@pytest.fixture(scope="module")
def image_set():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8) for n in (200, 50))
    labels = [np.zeros(n, np.uint8) for n in (200, 50)]
    return ImageSet(train, labels[0], test, labels[1], "noise")


def curve(training, n_epochs):
    results = [training.run_epoch() for _ in range(n_epochs)]
    return [(r.epoch, r.train_mse, r.eval_mse) for r in results]


@pytest.mark.parametrize(
    "config",
    [TrialConfig(model="conv", learning_rate=0.5, batch_size=64), DENSE],
    ids=["conv", "dense with dropout"],
)
def test_goes_on_as_if_nothing_had_happened(image_set, config):
    one = Trainer(image_set, CPU)
    whole = curve(one.start(config), 4)
    first = one.start(config)
    start = curve(first, 2)
    state = first.get_state()
    trainer = Trainer(image_set, CPU)
    curve(trainer.start(config), 3)  # the other process has trained something else before
    second = trainer.start(config)
    second.resume(2, state)
    assert start + curve(second, 2) == whole


def test_a_state_of_another_shape_is_refused(image_set):
    dense = Trainer(image_set, CPU).start(TrialConfig(model="dense", hidden_units=16))
    other = Trainer(image_set, CPU).start(TrialConfig(model="dense", hidden_units=8))
    with pytest.raises(ValueError, match="shape"):
        other.resume(1, dense.get_state())
