"""The Ray Tune Trainable: a trial's config in, its epochs out. Imports TensorFlow in workers only.

A worker outlives its trial: it keeps the images on its device and every program it has compiled.
"""

import logging
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import tune

from convae.errors import DivergenceError
from study.folder import schema
from study.folder.checkpoints import Checkpoint, Spent, load_checkpoint, save_checkpoint
from study.folder.lock import guard_for
from study.folder.storage import RunFolder, RunFolderError
from study.plan.trials import PlannedTrial

if TYPE_CHECKING:
    from convae.data import Mnist
    from convae.training import EpochResult, Training

EPOCH = "epoch"  # what a result calls the epochs trained so far
NODE = "node_id"  # what a result calls Ray's node that the trial trains on
N_RANDOM_IMAGES = 10
N_RANKED_IMAGES = 5  # of each: best, median, worst

_log = logging.getLogger(__name__)


class AutoencoderTrial(tune.Trainable):
    """Trains the planned trials that it is given, one after the other.

    Attributes:
        report_seconds: between results. One costs the driver several milliseconds, an epoch on a
            GPU may take fifteen: epochs are sent together, as often as a person watching needs.
        checkpoint_seconds: between checkpoints. Of a trial's work, a crash costs about this.
    """

    report_seconds = 1.0
    checkpoint_seconds = 30.0

    def setup(
        self,
        config: dict[str, Any],
        mnist: "Mnist | None" = None,
        n_threads: int = 1,
        gpu: bool = False,
        folder: RunFolder | None = None,
        owner: str = "",
    ) -> None:
        """Opens the device and puts the images there.

        Args:
            config: of the first trial, `PlannedTrial.to_dict`.
            mnist: the images.
            n_threads: of the CPU.
            gpu: whether Ray gave the trial a GPU.
            folder: the run folder.
            owner: the driver that the run folder must have for this worker to write there.

        Raises:
            GpuUnavailableError: Ray gave the trial a GPU that TensorFlow cannot open.
            RunFolderError: this node does not see the run folder.
        """
        started = time.perf_counter()
        self._open(folder, owner)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from convae.device import open_device
        from convae.training import Trainer

        assert mnist is not None
        self._trainer = Trainer(mnist, open_device(gpu=gpu, n_threads=n_threads))
        self._begin(config, started)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial in this process."""
        self._begin(new_config, time.perf_counter())
        return True

    def _open(self, folder: RunFolder | None, owner: str) -> None:
        assert folder is not None
        guard_for(folder, owner)
        if folder.read(schema.MANIFEST_FILE) is None:
            raise RunFolderError(
                f"{folder} is not there on node {ray.util.get_node_ip_address()}; give --storage on"
                " a disk that all nodes share, or in a bucket."
            )
        self._folder = folder
        self._node = ray.get_runtime_context().get_node_id()

    def _begin(self, config: dict[str, Any], started: float) -> None:
        self._started = started
        self._planned = PlannedTrial.from_dict(config)
        self._training: Training = self._trainer.start(self._planned.config)
        self._spent = Spent(compile_seconds=self._training.compile_seconds)
        # What the driver has not heard of yet. After a checkpoint it is all epochs so far.
        self._unsent: list[dict[str, Any]] = []
        self._epochs: list[dict[str, Any]] = []
        self._ended = False
        if checkpoint := load_checkpoint(self._folder, *self._name_and_setting):
            self._training.resume(len(checkpoint.epochs), checkpoint.state)
            self._spent = checkpoint.spent + self._spent
            self._epochs = list(checkpoint.epochs)
            self._unsent = list(checkpoint.epochs)
        self._kept_epoch, self._kept_at = self._training.epoch, time.monotonic()

    @property
    def _name_and_setting(self) -> tuple[str, dict[str, Any]]:
        return self._planned.trial_id, self._planned.config.to_dict()

    def step(self) -> dict[str, Any]:
        """Trains for about `report_seconds`, at least an epoch, and returns the epochs' rows."""
        deadline = time.perf_counter() + self.report_seconds
        diverged_epoch = None
        while self._training.epoch < self._planned.config.epochs:
            try:
                evaluate = self._planned.evaluates(self._training.epoch + 1)
                result = self._training.run_epoch(evaluate=evaluate)
            except DivergenceError as error:
                diverged_epoch = error.epoch
                break
            self._spent += Spent(result.train_seconds, result.eval_seconds)
            self._epochs.append(self._row(result))
            self._unsent.append(self._epochs[-1])
            if self._training.epoch in self._planned.report_epochs:
                break
            if time.perf_counter() >= deadline:
                break
        finished = self._training.epoch == self._planned.config.epochs
        if finished and self._planned.keep_model:
            self._keep_model()
        self._ended = finished or diverged_epoch is not None
        rows, self._unsent = self._unsent, []
        last = rows[-1] if rows else {}
        now = time.perf_counter()
        self._spent, self._started = self._spent + Spent(wall_seconds=now - self._started), now
        if time.monotonic() - self._kept_at >= self.checkpoint_seconds:
            self._keep_checkpoint()
        return {
            "done": self._ended,
            "diverged_epoch": diverged_epoch,
            "history": rows,
            EPOCH: self._training.epoch,
            NODE: self._node,
            schema.OBJECTIVE: last.get(schema.OBJECTIVE),
            "n_parameters": self._training.n_parameters,
            **asdict(self._spent),
            "device": self._trainer.device.description,
        }

    def _row(self, result: "EpochResult") -> dict[str, Any]:
        return {
            "epoch": result.epoch,
            schema.TRAIN_MSE: result.train_mse,
            self._training.eval_metric: result.eval_mse,
            "train_seconds": result.train_seconds,
            "eval_seconds": None if result.eval_mse is None else result.eval_seconds,
        }

    def cleanup(self) -> None:
        """Keeps what an unfinished trial has trained, when its worker is told to stop."""
        self._keep_checkpoint()

    def _keep_checkpoint(self) -> None:
        """A trial that cannot keep a checkpoint goes on all the same: it may not need it."""
        if self._ended or self._training.epoch == self._kept_epoch:
            return
        checkpoint = Checkpoint(self._epochs, self._spent, self._training.get_state())
        try:
            save_checkpoint(self._folder, *self._name_and_setting, checkpoint)
        except RunFolderError:
            _log.exception("no checkpoint of %s", self._planned.trial_id)
        self._kept_epoch, self._kept_at = self._training.epoch, time.monotonic()

    def _keep_model(self) -> None:
        trial_id = self._planned.trial_id
        # Keras looks at the ending.
        with tempfile.NamedTemporaryFile(suffix=".keras") as file:
            self._training.model.save(file.name)
            content = Path(file.name).read_bytes()
        self._folder.write(f"{schema.MODELS_FOLDER}/{trial_id}.keras", content)
        images = self._trainer.mnist.test_images
        outputs = self._training.reconstruct(images)
        table = reconstruction_table(trial_id, images, self._trainer.mnist.test_labels, outputs)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        name = f"{schema.RECONSTRUCTIONS_FOLDER}/{trial_id}.parquet"
        self._folder.write(name, sink.getvalue().to_pybytes())


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
