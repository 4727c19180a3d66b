"""`python -m study.run` with real training on a few images of noise, for studies to be killed.

    python noise_study.py [options of study.run]

An epoch is slowed down to be caught in the middle of a trial, and each one leaves a checkpoint.
"""

import sys
import time
from functools import partial

import numpy as np

import convae.data
import study.run
from convae.data import Mnist
from study.tune import driver
from study.tune.trainable import AutoencoderTrial


class SlowTrial(AutoencoderTrial):
    report_seconds = 0.0  # every epoch
    checkpoint_seconds = 0.0

    def step(self):
        time.sleep(0.5)
        return super().step()


def noise(_):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8) for n in (200, 50))
    return Mnist(train, np.zeros(200, np.uint8), test, np.zeros(50, np.uint8), "noise")


if __name__ == "__main__":
    convae.data.load_mnist = noise
    driver.run_study = partial(driver.run_study, trainable=SlowTrial)
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"]))
