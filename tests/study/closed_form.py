"""A Trainable whose training is a formula: the whole driver in milliseconds a trial.

The validation MSE falls with the epochs to a floor that depends on the setting alone and is lowest
at learning rate 0.3 and momentum 0.8; the other factors are best as in the reference. With 128
hidden units it diverges in the second epoch.
"""

import math
import os
import signal
import time
from types import SimpleNamespace

import numpy as np

from convae.errors import DivergenceError
from study.folder import schema
from study.tune.trainable import AutoencoderTrial

BEST = 0.01


def final_mse(config):
    """What the trial ends at after many epochs: BEST at the best setting."""
    distance = math.log(config.learning_rate / 0.3) ** 2
    distance += math.log((1 - config.momentum) / 0.2) ** 2
    # Small, and each of its own size, so that no two settings tie.
    distance += 0.011 * abs(math.log2(config.batch_size / 256)) + 0.007 * (not config.nesterov)
    if config.model == "dense":
        distance += 0.013 * math.log2(512 / config.hidden_units)
        distance += 0.017 * (config.hidden_activation != "relu") + 0.19 * config.dropout
    return BEST * (1 + distance)


class ClosedFormTraining:
    compile_seconds = 0.0
    n_parameters = 1

    def __init__(self, config):
        self.config = config
        self.epoch = 0
        self.eval_metric = "val_mse" if config.split == "search" else "test_mse"

    def run_epoch(self, *, evaluate=True):
        if self.config.hidden_units == 128 and self.epoch == 1:
            raise DivergenceError(2)
        self.epoch += 1
        mse = final_mse(self.config) * (1 + 1 / self.epoch)
        return SimpleNamespace(
            epoch=self.epoch,
            train_mse=2 * mse,
            eval_mse=mse if evaluate else None,
            train_seconds=0.001,
            eval_seconds=0.0,
        )

    def get_state(self):
        return [np.array(self.epoch)]

    def resume(self, epoch, state):
        assert [epoch] == [int(array) for array in state]
        self.epoch = epoch


class ClosedFormTrial(AutoencoderTrial):
    """Everything but the training is the real Trainable's."""

    training = ClosedFormTraining

    def setup(self, config, image_set=None, n_threads=1, folder=None, owner="", custom_models=()):
        self._open(folder, owner)
        self._trainer = SimpleNamespace(
            start=self.training, device=SimpleNamespace(description="a formula")
        )
        self._begin(config, time.perf_counter())

    def _keep_model(self):
        pass


class SlowToStart(ClosedFormTrial):
    """Its workers start for longer than its trials take, and are told of as the device."""

    def setup(self, config, **settings):
        time.sleep(1.0)
        super().setup(config, **settings)
        self._trainer.device.description = f"worker {os.getpid()}"

    def step(self):
        time.sleep(0.3)  # for longer than Ray takes to find room for the second worker
        return super().step()


class FileInTheWay(ClosedFormTrial):
    """Where the models' folder should be, so that every attempt fails at its end."""

    def _keep_model(self):
        (self._folder.local / schema.MODELS_FOLDER).write_text("in the way")
        self._folder.write(f"{schema.MODELS_FOLDER}/it.keras", b"")


class AlwaysFails(ClosedFormTrial):
    """In its worker's set-up with the first seed, in its training with any other."""

    def setup(self, config, **settings):
        if config["config"]["seed"] == 0:
            raise OSError("no device")
        super().setup(config, **settings)

    def step(self):
        raise ValueError("no number")


class DiesBetweenTrials(ClosedFormTrial):
    """Its first worker is killed while it takes over its second trial."""

    def reset_config(self, new_config):
        sign = self._folder.local / "failed"
        if not sign.exists():
            sign.touch()
            self.fail()
        return super().reset_config(new_config)

    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)


class RaisesBetweenTrials(DiesBetweenTrials):
    """The same, with an error instead."""

    def fail(self):
        raise OSError("no such trial")
