"""An engine whose training is a formula: the whole driver in milliseconds a trial.

The validation MSE falls with the epochs to a floor that depends on the setting alone and is lowest
at learning rate 0.3 and momentum 0.8; the other factors are best as in the reference. With 128
hidden units it diverges in the second epoch.
"""

import math
import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import numpy as np

from convae.errors import DivergenceError
from convae.results import EpochResult
from study.folder import schema
from study.tune.engines import LocalEngine
from study.tune.trainable import WorkerSettings

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


class Training:
    """A trial in progress, as `convae.training.Training` is one."""

    compile_seconds = 0.0
    n_parameters = 1

    def __init__(self, config, epoch_seconds):
        self._config, self._epoch_seconds = config, epoch_seconds
        self.epoch = 0

    def run_epoch(self, *, evaluate=True):
        time.sleep(self._epoch_seconds)
        if self._config.hidden_units == 128 and self.epoch == 1:
            raise DivergenceError(2)
        self.epoch += 1
        mse = final_mse(self._config) * (1 + 1 / self.epoch)
        return EpochResult(self.epoch, 2 * mse, mse if evaluate else None, 0.001, 0.0)

    def get_state(self):
        return [np.array(self.epoch)]

    def resume(self, epoch, state):
        assert [epoch] == [int(array) for array in state]
        self.epoch = epoch


class ClosedFormEngine(LocalEngine):
    """All but the training, and the model, is the CPU's."""

    def __init__(self, *_, device="a formula", epoch_seconds=0.0):
        start = partial(Training, epoch_seconds=epoch_seconds)
        super().__init__(SimpleNamespace(start=start, device=SimpleNamespace(description=device)))

    def export(self, attempt):
        return {f"{schema.MODELS_FOLDER}/{attempt.trial_id}.keras": b""}


class SlowToStart(ClosedFormEngine):
    """Its workers start for longer than its trials take, and are told of as the device."""

    def __init__(self, *_):
        time.sleep(1.0)
        super().__init__(device=f"worker {os.getpid()}")

    def report(self, attempt, timeout_seconds):
        time.sleep(0.3)  # for longer than Ray takes to find room for the second worker
        return super().report(attempt, timeout_seconds)


class CannotStart(ClosedFormEngine):
    """As with a device that cannot be opened."""

    def __init__(self, *_):
        raise OSError("no device")


class CannotTrain(ClosedFormEngine):
    def report(self, attempt, timeout_seconds):
        raise ValueError("no number")


class FileInTheWay(ClosedFormEngine):
    """Makes a file at a place, where the models' folder should be: attempts fail at their end."""

    def __init__(self, *_, place):
        super().__init__()
        self._place = place

    def export(self, attempt):
        self._place.write_text("in the way")
        return super().export(attempt)


class BreaksBetweenTrials(ClosedFormEngine):
    """Its first worker is killed while it takes over its second trial, or raises an error.

    Args:
        sign: a path, where a file says that it has happened.
        killed: which of the two.
    """

    def __init__(self, *_, sign, killed):
        super().__init__()
        self._sign, self._killed, self._opened = sign, killed, False

    def open(self):
        if self._opened and not self._sign.exists():
            self._sign.touch()
            if self._killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("no such trial")
        self._opened = True
        return super().open()


CLOSED_FORM = WorkerSettings(engine=ClosedFormEngine)
