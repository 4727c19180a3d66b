"""`python -m study.run` with real training on a few images of noise, for studies to be killed.

    python noise_study.py [options of study.run]

Trials leave a checkpoint with every result. Without lanes they are slowed down, to be caught in the
middle. The environment says how many IMAGES to train on, which FAULT engines with lanes have
("compile", "memory" or "wrong"), after how many PATIENCE_SECONDS silent trials are named, and with
how many hidden units one sleeps for ever, in which epoch (SLEEPS_AT).
"""

import os
import sys
import time
from dataclasses import replace

import numpy as np

import convae.data
import study.run
from convae.data import ImageSet
from study.plan.silence import Patience
from study.tune.engines import StudyEngine, open_engine
from study.tune.trainable import WorkerSettings

FAULT = os.environ.get("FAULT")
PATIENCE = float(os.environ.get("PATIENCE_SECONDS", "0"))
SLEEPS_AT = [int(word) for word in os.environ.get("SLEEPS_AT", "").split()]
N_TRAIN, N_TEST = int(os.environ.get("IMAGES", "200")), 50


def noise(_=None):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (N_TRAIN, N_TEST))
    return ImageSet(train, np.zeros(N_TRAIN, np.uint8), test, np.zeros(N_TEST, np.uint8), "noise")


def slow_engine(*arguments, **settings):
    """Makes the study's own, with a break before each epoch."""

    def open_slowly(*arguments, **settings):
        if SLEEPS_AT:
            sleep_at(*SLEEPS_AT)
        device, engine = open_engine(*arguments, **settings)
        step = engine.step

        def step_slowly():
            time.sleep(0.5)
            return step()

        engine.step = step_slowly
        return device, engine

    return StudyEngine(*arguments, **settings, open_engine=open_slowly)


def sleep_at(hidden_units, epoch):
    """Lets the trials of that size never end that epoch."""
    from convae.training import Trainer

    start = Trainer.start

    def start_to_sleep(trainer, config):
        training = start(trainer, config)
        run_epoch = training.run_epoch

        def run_or_sleep(**settings):
            if training.epoch + 1 == epoch and config.hidden_units == hidden_units:
                time.sleep(1e6)
            return run_epoch(**settings)

        training.run_epoch = run_or_sleep
        return training

    Trainer.start = start_to_sleep


def open_faulty(*arguments, **settings):
    """Opens an engine whose programs of many lanes have the fault."""
    from convae.lanes import Lanes

    class Faulty(Lanes):
        def compile(self):
            if self.n_lanes > 1 and FAULT == "compile":
                raise RuntimeError("no tiles for this dot")
            seconds = super().compile()
            if self.n_lanes > 1 and FAULT == "memory":
                raise MemoryError
            return seconds

        def put(self, lane, config, state, sizes=None):
            if self.n_lanes > 1 and FAULT == "wrong":
                config = replace(config, momentum=0.9 * config.momentum)
            super().put(lane, config, state, sizes)

    return open_engine(*arguments, **settings, proves=True, lanes=Faulty)


class FaultyEngine(StudyEngine):
    """An engine with lanes that has the fault that the environment names."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings, open_engine=open_faulty)


if __name__ == "__main__":
    convae.data.load_images = noise
    workers = WorkerSettings(
        engine=slow_engine,
        lanes_engine=FaultyEngine if FAULT else StudyEngine,
        report_seconds=0.1,
        checkpoint_seconds=0.0,
        patience=Patience(least_seconds=PATIENCE) if PATIENCE else None,
    )
    sys.exit(study.run.main([*sys.argv[1:], "--no-report"], workers=workers))
