"""`python -m study.run` with a closed form in place of the training, for studies to be disturbed.

    python closed_form_study.py [options of study.run]

The environment sets the pace: EPOCH_SECONDS, CHECKPOINT_SECONDS, and WAIT_SECONDS as
study.view.progress has it. Prints "started" once the trials may start.
"""

import os
import sys
import time
from functools import partial

import closed_form
import numpy as np
from closed_form import ClosedFormTraining, ClosedFormTrial
from ray import cloudpickle

import convae.data
import study.run
from convae.data import ImageSet, load_images
from study.tune import driver
from study.view import progress

EPOCH_SECONDS = float(os.environ.get("EPOCH_SECONDS", "0.05"))
CHECKPOINT_SECONDS = float(os.environ.get("CHECKPOINT_SECONDS", "0.1"))


class SlowTraining(ClosedFormTraining):
    epoch_seconds = EPOCH_SECONDS

    def run_epoch(self, *, evaluate=True):
        time.sleep(self.epoch_seconds)
        return super().run_epoch(evaluate=evaluate)


class SlowTrial(ClosedFormTrial):
    report_seconds = 0.0  # every epoch
    checkpoint_seconds = CHECKPOINT_SECONDS
    training = SlowTraining


def started(run_study, *arguments, **settings):
    print("started", flush=True)
    return run_study(*arguments, **settings)


if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(closed_form)
    image, label = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)
    formula = ImageSet(image, label, image, label, "a formula")
    convae.data.load_images = lambda path: load_images(path) if path else formula
    progress.WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", progress.WAIT_SECONDS))
    driver.run_study = partial(started, driver.run_study, trainable=SlowTrial)
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"]))
