"""`python -m study.run` with real training on a few images of noise, for studies to be killed.

    python noise_study.py [options of study.run]

Trials are slowed down to be caught in the middle, and leave a checkpoint with every result. The
environment says how many IMAGES to train on.
"""

import os
import sys
import time
from functools import partial

import numpy as np

import convae.data
import study.run
from convae.data import ImageSet
from study.tune import driver
from study.tune.lane_trial import LaneTrial
from study.tune.trainable import AutoencoderTrial

N_TRAIN, N_TEST = int(os.environ.get("IMAGES", "200")), 50


class SlowTrial(AutoencoderTrial):
    report_seconds = 0.0  # every epoch
    checkpoint_seconds = 0.0

    def step(self):
        time.sleep(0.5)
        return super().step()


class TalkativeLaneTrial(LaneTrial):
    report_seconds = 0.1
    checkpoint_seconds = 0.0


def noise(_):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (N_TRAIN, N_TEST))
    return ImageSet(train, np.zeros(N_TRAIN, np.uint8), test, np.zeros(N_TEST, np.uint8), "noise")


if __name__ == "__main__":
    convae.data.load_images = noise
    driver.LaneTrial = TalkativeLaneTrial
    driver.run_study = partial(driver.run_study, trainable=SlowTrial)
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"]))
