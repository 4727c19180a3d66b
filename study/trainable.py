"""The Ray Tune Trainable: a trial's config in, its epochs out. Imports TensorFlow in workers only.

A worker outlives its trial: it keeps the images on its device and every program it has compiled.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ray import tune

from convae.errors import DivergenceError
from study import schema
from study.files import replacing
from study.scheduling import EPOCH
from study.space import PlannedTrial

if TYPE_CHECKING:
    from convae.data import Mnist
    from convae.training import EpochResult, Training

# A result costs the driver several milliseconds, an epoch on a GPU may take fifteen: epochs are
# sent together, as often as a person watching needs them.
REPORT_SECONDS = 1.0

N_RANDOM_IMAGES = 10
N_RANKED_IMAGES = 5  # of each: best, median, worst


class AutoencoderTrial(tune.Trainable):
    """Trains the planned trials that it is given, one after the other."""

    def setup(
        self,
        config: dict[str, Any],
        mnist: "Mnist | None" = None,
        n_threads: int = 1,
        gpu: bool = False,
        run_folder: str = "",
    ) -> None:
        """Opens the device and puts the images there.

        Raises:
            GpuUnavailableError: Ray gave the trial a GPU that TensorFlow cannot open.
        """
        started = time.perf_counter()
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from convae.device import open_device
        from convae.training import Trainer

        assert mnist is not None
        self._run_folder = Path(run_folder)
        self._trainer = Trainer(mnist, open_device(gpu=gpu, n_threads=n_threads))
        self._begin(config, started)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial in this process."""
        self._begin(new_config, time.perf_counter())
        return True

    def _begin(self, config: dict[str, Any], started: float) -> None:
        self._started = started
        self._planned = PlannedTrial.from_tune(config)
        self._train_seconds = 0.0
        self._eval_seconds = 0.0
        self._training: Training = self._trainer.start(self._planned.config)

    def step(self) -> dict[str, Any]:
        """Trains for about `REPORT_SECONDS`, at least an epoch, and returns the epochs' rows."""
        deadline = time.perf_counter() + REPORT_SECONDS
        rows: list[dict[str, Any]] = []
        diverged_epoch = None
        while True:
            try:
                result = self._training.run_epoch()
            except DivergenceError as error:
                diverged_epoch = error.epoch
                break
            self._train_seconds += result.train_seconds
            self._eval_seconds += result.eval_seconds
            rows.append(self._row(result))
            if self._training.epoch in (self._planned.config.epochs, *self._planned.report_epochs):
                break
            if time.perf_counter() >= deadline:
                break
        finished = self._training.epoch == self._planned.config.epochs
        if finished and self._planned.keep_model:
            self._keep_model()
        state = schema.COMPLETED if finished else schema.RUNNING
        if diverged_epoch is not None:
            state = schema.DIVERGED
        last = rows[-1] if rows else {}
        return {
            "state": state,
            "done": state != schema.RUNNING,
            "diverged_epoch": diverged_epoch,
            "history": rows,
            EPOCH: self._training.epoch,
            schema.OBJECTIVE: last.get(schema.OBJECTIVE),
            "n_parameters": self._training.n_parameters,
            "train_seconds": self._train_seconds,
            "eval_seconds": self._eval_seconds,
            "compile_seconds": self._training.compile_seconds,
            "wall_seconds": time.perf_counter() - self._started,
            "device": self._trainer.device.description,
        }

    def _row(self, result: "EpochResult") -> dict[str, Any]:
        return {
            "epoch": result.epoch,
            schema.TRAIN_MSE: result.train_mse,
            self._training.eval_metric: result.eval_mse,
            "train_seconds": result.train_seconds,
            "eval_seconds": result.eval_seconds,
        }

    def _keep_model(self) -> None:
        trial_id = self._planned.trial_id
        with replacing(self._run_folder / schema.MODELS_FOLDER / f"{trial_id}.keras") as path:
            self._training.model.save(path)
        images = self._trainer.mnist.test_images
        outputs = self._training.reconstruct(images)
        table = reconstruction_table(trial_id, images, self._trainer.mnist.test_labels, outputs)
        folder = self._run_folder / schema.RECONSTRUCTIONS_FOLDER
        with replacing(folder / f"{trial_id}.parquet") as path:
            pq.write_table(table, path)


def reconstruction_table(
    trial_id: str, images: np.ndarray, labels: np.ndarray, outputs: np.ndarray
) -> pa.Table:
    """A few test images with their reconstructions: random ones, best, median and worst.

    The random ones are the same for every trial.

    Args:
        trial_id: whose reconstructions.
        images: (n, 28, 28) uint8.
        labels: (n,) uint8.
        outputs: (n, 28, 28) in [0, 1].
    """
    errors = np.mean((outputs - images / np.float32(255)) ** 2, axis=(1, 2))
    ranked = np.argsort(errors)
    middle = (len(ranked) - N_RANKED_IMAGES) // 2
    chosen = {
        "random": np.random.default_rng(0).choice(len(images), N_RANDOM_IMAGES, replace=False),
        "best": ranked[:N_RANKED_IMAGES],
        "median": ranked[middle : middle + N_RANKED_IMAGES],
        "worst": ranked[::-1][:N_RANKED_IMAGES],
    }
    pixels = np.rint(outputs * 255).astype(np.uint8)
    rows = [
        (
            trial_id,
            choice,
            int(index),
            int(labels[index]),
            float(errors[index]),
            images[index].ravel().tolist(),
            pixels[index].ravel().tolist(),
        )
        for choice in schema.CHOICES
        for index in chosen[choice]
    ]
    names = schema.RECONSTRUCTION_COLUMNS
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
