"""`python -m study.run` with a closed form in place of the training, for studies to be disturbed.

    python closed_form_study.py [options of study.run]

The environment sets the pace: EPOCH_SECONDS, CHECKPOINT_SECONDS, and WAIT_SECONDS as
study.view.progress has it. Every epoch is reported.
"""

import os
import sys
from functools import partial

import closed_form
import numpy as np
from closed_form import ClosedFormEngine
from ray import cloudpickle

import convae.data
import study.run
from convae.data import ImageSet, load_images
from study.tune.trainable import WorkerSettings
from study.view import progress


def seconds(name, default):
    return float(os.environ.get(f"{name}_SECONDS", default))


if __name__ == "__main__":
    cloudpickle.register_pickle_by_value(closed_form)
    image, label = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)
    formula = ImageSet(image, label, image, label, "a formula")
    convae.data.load_images = lambda path: load_images(path) if path else formula
    progress.WAIT_SECONDS = seconds("WAIT", progress.WAIT_SECONDS)
    workers = WorkerSettings(
        engine=partial(ClosedFormEngine, epoch_seconds=seconds("EPOCH", 0.05)),
        report_seconds=0.0,
        checkpoint_seconds=seconds("CHECKPOINT", 0.1),
    )
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"], workers=workers))
