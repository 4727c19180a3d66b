"""Engines whose training is a formula: the whole driver in milliseconds a trial.

The validation MSE falls with the epochs to a floor that depends on the setting alone and is lowest
at learning rate 0.3 and momentum 0.8; the other factors are best as in the reference. With 128
hidden units it diverges in the second epoch.
"""

import math
import os
import time

import numpy as np

from convae.results import EpochResult, Report, Status
from study.folder import schema
from study.tune.engines import Ready
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


class ClosedFormEngine:
    """In the place of `study.tune.engines.StudyEngine`: trains when it is asked for a report."""

    in_lanes = False
    report_seconds = 1.0

    def __init__(self, *_, device="a formula", epoch_seconds=0.0, **__):
        self._device, self._epoch_seconds = device, epoch_seconds

    def describe(self):
        return self._device

    def ready(self, planned, timeout_seconds):
        return Ready({})

    def submit(self, attempt, planned, until_epoch, state):
        self._planned, self._until_epoch = planned, until_epoch
        self._epoch = 0 if state is None else int(state[0])
        return 1

    def advance(self, attempt, until_epoch):
        self._until_epoch = until_epoch

    def report(self, attempt, timeout_seconds):
        deadline, epochs = time.monotonic() + timeout_seconds, []
        while self._epoch < self._until_epoch:
            time.sleep(self._epoch_seconds)
            if self._planned.config.hidden_units == 128 and self._epoch == 1:
                return Report(Status.DIVERGED, epochs, 2)
            self._epoch += 1
            mse = final_mse(self._planned.config) * (1 + 1 / self._epoch)
            eval_mse = mse if self._planned.evaluates(self._epoch) else None
            epochs.append(EpochResult(self._epoch, 2 * mse, eval_mse, 0.001, 0.0))
            if time.monotonic() >= deadline:
                break
        return self._report(epochs)

    def checkpoint(self, attempt):
        return self._report([]), [np.array(self._epoch)]

    def export(self, attempt):
        return {f"{schema.MODELS_FOLDER}/{attempt.trial_id}.keras": b""}

    def remove(self, attempt):
        pass

    def _report(self, epochs):
        paused = self._epoch >= self._until_epoch
        return Report(Status.PAUSED if paused else Status.RUNNING, epochs, None)


class SlowToStart(ClosedFormEngine):
    """Its workers start for longer than its trials take, and are told of as the device."""

    def __init__(self, *_, **__):
        time.sleep(1.0)
        super().__init__(device=f"worker {os.getpid()}")

    def report(self, attempt, timeout_seconds):
        time.sleep(0.3)  # for longer than Ray takes to find room for the second worker
        return super().report(attempt, timeout_seconds)


class CannotStart(ClosedFormEngine):
    """As with a device that cannot be opened."""

    def __init__(self, *_, **__):
        raise OSError("no device")


class CannotTrain(ClosedFormEngine):
    def report(self, attempt, timeout_seconds):
        raise ValueError("no number")


class NeverStops(ClosedFormEngine):
    """Its first worker fails, and then does not come to an end.

    Args:
        sign: a path, where a file says that it has happened.
    """

    def __init__(self, *_, sign, **__):
        super().__init__()
        self._sign, self._has_failed = sign, False

    def report(self, attempt, timeout_seconds):
        if not self._sign.exists():
            self._sign.touch()
            self._has_failed = True
            raise OSError("no device any more")
        return super().report(attempt, timeout_seconds)

    def remove(self, attempt):
        if self._has_failed:
            time.sleep(1e6)


class FileInTheWay(ClosedFormEngine):
    """Makes a file at a place, where the models' folder should be: attempts fail at their end."""

    def __init__(self, *_, place, **__):
        super().__init__()
        self._place = place

    def export(self, attempt):
        self._place.write_text("in the way")
        return super().export(attempt)


class BreaksBetweenTrials(ClosedFormEngine):
    """Its first worker ends or stops while it takes over its second trial, or raises an error.

    Args:
        sign: a path, where a file says that it has happened.
        by: the signal; None for the error.
    """

    def __init__(self, *_, sign, by, **__):
        super().__init__()
        self._sign, self._by, self._asked = sign, by, False

    def describe(self):  # before each trial
        if self._asked and not self._sign.exists():
            self._sign.touch()
            if self._by:
                os.kill(os.getpid(), self._by)
            raise OSError("no such trial")
        self._asked = True
        return super().describe()


CLOSED_FORM = WorkerSettings(engine=ClosedFormEngine)
