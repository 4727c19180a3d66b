"""`python -m study.run` with real training on a few images of noise, for studies to be killed.

    python noise_study.py [options of study.run]

Trials leave a checkpoint with every result. Without lanes they are slowed down, to be caught in the
middle. The environment says how many IMAGES to train on.
"""

import os
import sys
import time

import numpy as np

import convae.data
import study.run
from convae.data import ImageSet
from study.tune.engines import StudyEngine, open_engine
from study.tune.trainable import WorkerSettings

N_TRAIN, N_TEST = int(os.environ.get("IMAGES", "200")), 50


def noise(_=None):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (N_TRAIN, N_TEST))
    return ImageSet(train, np.zeros(N_TRAIN, np.uint8), test, np.zeros(N_TEST, np.uint8), "noise")


def slow_engine(*arguments, **settings):
    """Makes the study's own, with a break before each epoch."""

    def open_slowly(*arguments, **settings):
        device, engine = open_engine(*arguments, **settings)
        step = engine.step

        def step_slowly():
            time.sleep(0.5)
            return step()

        engine.step = step_slowly
        return device, engine

    return StudyEngine(*arguments, **settings, open_engine=open_slowly)


if __name__ == "__main__":
    convae.data.load_images = noise
    workers = WorkerSettings(engine=slow_engine, report_seconds=0.1, checkpoint_seconds=0.0)
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"], workers=workers))
