"""The Ray Tune Trainables' common part, and the one that trains on a CPU by itself.

A trial's config goes in, its epochs come out. TensorFlow is imported in workers only. A worker
outlives its trial: it keeps the images on its device and every program it has compiled.
"""

import logging
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray import tune
from ray.exceptions import RayError

from convae.custom_models import CustomModel
from convae.errors import DivergenceError
from study.folder import schema
from study.folder.checkpoints import Checkpoint, Spent, load_checkpoint, save_checkpoint
from study.folder.lock import guard_for
from study.folder.storage import RunFolder, RunFolderError
from study.plan.trials import PlannedTrial

if TYPE_CHECKING:
    import keras

    from convae.data import ImageSet
    from convae.training import EpochResult, Training

EPOCH = "epoch"  # what a result calls the epochs trained so far
NODE = "node_id"  # what a result calls Ray's node that the trial trains on
N_RANDOM_IMAGES = 10
N_RANKED_IMAGES = 5  # of each: best, median, worst

_log = logging.getLogger(__name__)


class FolderTrial(tune.Trainable):
    """What all trainables share: the run folder, checkpoints there, and how a result is told.

    Attributes:
        report_seconds: between results. One costs the driver several milliseconds, an epoch on a
            GPU may take two: epochs are sent together, as often as a person watching needs.
        checkpoint_seconds: between checkpoints. Of a trial's work, a crash costs about this.
    """

    report_seconds = 1.0
    checkpoint_seconds = 30.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Goes on with another trial in this process."""
        self._leave()
        self._begin(new_config, time.perf_counter())
        return True

    def cleanup(self) -> None:
        """Keeps what an unfinished trial has trained, when its worker is told to stop."""
        self._keep_checkpoint()
        self._leave()

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
        """Starts a trial, or goes on from its checkpoint."""
        self._started = started
        self._planned = PlannedTrial.from_dict(config)
        self._ended = False
        self._spent = Spent()
        self._epochs: list[dict[str, Any]] = []
        checkpoint = load_checkpoint(self._folder, *self._name_and_setting)
        if checkpoint:
            self._spent = checkpoint.spent
            self._epochs = list(checkpoint.epochs)
        # What the driver has not heard of yet. After a checkpoint it is all epochs so far.
        self._unsent = list(self._epochs)
        self._start(list(checkpoint.state) if checkpoint else None)
        self._kept_epoch, self._kept_at = len(self._epochs), time.monotonic()

    def _start(self, state: list[np.ndarray] | None) -> None:
        """Starts training, from the state of a checkpoint if there is one."""
        raise NotImplementedError

    def _state(self) -> list[np.ndarray] | None:
        """All that training has changed; None if there is nothing to go on from."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Lets go of the present trial."""

    @property
    def _name_and_setting(self) -> tuple[str, dict[str, Any]]:
        return self._planned.trial_id, self._planned.config.to_dict()

    def _add(self, result: "EpochResult | SimpleNamespace") -> None:
        """Enters an epoch."""
        metric = schema.VAL_MSE
        if self._planned.config.split == schema.FULL_SPLIT:
            metric = schema.TEST_MSE
        self._epochs.append(
            {
                "epoch": result.epoch,
                schema.TRAIN_MSE: result.train_mse,
                metric: result.eval_mse,
                "train_seconds": result.train_seconds,
                "eval_seconds": None if result.eval_mse is None else result.eval_seconds,
            }
        )
        self._unsent.append(self._epochs[-1])
        self._spent += Spent(result.train_seconds, result.eval_seconds)

    def _result(self, diverged_epoch: int | None, **totals: Any) -> dict[str, Any]:
        """What the driver is told."""
        rows, self._unsent = self._unsent, []
        last = rows[-1] if rows else {}
        now = time.perf_counter()
        self._spent, self._started = self._spent + Spent(wall_seconds=now - self._started), now
        result = {
            "done": self._ended,
            "diverged_epoch": diverged_epoch,
            "history": rows,
            EPOCH: len(self._epochs),
            NODE: self._node,
            schema.OBJECTIVE: last.get(schema.OBJECTIVE),
            **asdict(self._spent),
            **totals,
        }
        # Afterwards, since an engine may tell of further epochs then, which the next result has.
        if time.monotonic() - self._kept_at >= self.checkpoint_seconds:
            self._keep_checkpoint()
        return result

    def _keep_checkpoint(self) -> None:
        """A trial that cannot keep a checkpoint goes on all the same: it may not need it."""
        if self._ended:
            return
        try:
            state = self._state()
            n_epochs = len(self._epochs)
            if state is None or n_epochs in (self._kept_epoch, self._planned.config.epochs):
                return
            checkpoint = Checkpoint(self._epochs, self._spent, state)
            save_checkpoint(self._folder, *self._name_and_setting, checkpoint)
        except (RunFolderError, RayError):
            _log.exception("no checkpoint of %s", self._planned.trial_id)
        self._kept_epoch, self._kept_at = len(self._epochs), time.monotonic()


class AutoencoderTrial(FolderTrial):
    """Trains on CPU threads, in this process: it keeps the images and what it has compiled."""

    def setup(
        self,
        config: dict[str, Any],
        image_set: "ImageSet | None" = None,
        n_threads: int = 1,
        folder: RunFolder | None = None,
        owner: str = "",
        custom_models: tuple[CustomModel, ...] = (),
    ) -> None:
        """Opens the device.

        Args:
            config: of the first trial, `PlannedTrial.to_dict`.
            image_set: the images.
            n_threads: of the CPU.
            folder: the run folder.
            owner: the driver that the run folder must have for this worker to write there.
            custom_models: that trials may name.

        Raises:
            RunFolderError: this node does not see the run folder.
        """
        started = time.perf_counter()
        self._open(folder, owner)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from convae.device import open_device
        from convae.training import Trainer

        assert image_set is not None
        device = open_device(gpu=False, n_threads=n_threads)
        self._trainer = Trainer(image_set, device, custom_models=custom_models)
        self._begin(config, started)

    def _start(self, state: list[np.ndarray] | None) -> None:
        self._training: Training = self._trainer.start(self._planned.config)
        self._spent += Spent(compile_seconds=self._training.compile_seconds)
        if state is not None:
            self._training.resume(len(self._epochs), state)

    def _state(self) -> list[np.ndarray] | None:
        return self._training.get_state()

    def step(self) -> dict[str, Any]:
        """Trains for about `report_seconds`, at least an epoch, and returns the epochs' rows."""
        deadline = time.perf_counter() + self.report_seconds
        diverged_epoch = None
        while self._training.epoch < self._planned.config.epochs:
            try:
                evaluate = self._planned.evaluates(self._training.epoch + 1)
                self._add(self._training.run_epoch(evaluate=evaluate))
            except DivergenceError as error:
                diverged_epoch = error.epoch
                break
            if self._training.epoch in self._planned.report_epochs:
                break
            if time.perf_counter() >= deadline:
                break
        finished = self._training.epoch == self._planned.config.epochs
        if finished and self._planned.keep_model:
            self._keep_model()
        self._ended = finished or diverged_epoch is not None
        return self._result(
            diverged_epoch,
            n_parameters=self._training.n_parameters,
            device=self._trainer.device.description,
        )

    def _keep_model(self) -> None:
        image_set = self._trainer.image_set
        outputs = self._training.reconstruct(image_set.test_images)
        keep_model(self._folder, self._planned.trial_id, self._training.model, image_set, outputs)


def keep_model(
    folder: RunFolder,
    trial_id: str,
    model: "keras.Model",
    image_set: "ImageSet",
    outputs: np.ndarray,
) -> None:
    """Saves a trial's model, and what it makes of a few test images, in the run folder.

    Args:
        folder: the run folder.
        trial_id: whose.
        model: trained.
        image_set: the images.
        outputs: (n, 28, 28), the model's reconstructions of the test images.

    Raises:
        RunFolderError: they cannot be written.
    """
    # Keras looks at the ending.
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        model.save(file.name)
        content = Path(file.name).read_bytes()
    folder.write(f"{schema.MODELS_FOLDER}/{trial_id}.keras", content)
    table = reconstruction_table(trial_id, image_set.test_images, image_set.test_labels, outputs)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    name = f"{schema.RECONSTRUCTIONS_FOLDER}/{trial_id}.parquet"
    folder.write(name, sink.getvalue().to_pybytes())


def reconstruction_table(
    trial_id: str, images: np.ndarray, labels: np.ndarray | None, outputs: np.ndarray
) -> pa.Table:
    """A few test images with their reconstructions: random ones, best, median and worst.

    The random ones are the same for every trial.

    Args:
        trial_id: whose reconstructions.
        images: (n, 28, 28) uint8.
        labels: (n,) uint8; None if there are none, and then their column is of missing values.
        outputs: (n, 28, 28), in [0, 1] but for what a model of a person's own returns.
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
    pixels = np.rint(np.clip(outputs, 0, 1) * 255).astype(np.uint8)
    rows = [
        (
            trial_id,
            choice,
            int(index),
            None if labels is None else int(labels[index]),
            float(errors[index]),
            images[index].ravel().tolist(),
            pixels[index].ravel().tolist(),
        )
        for choice in schema.CHOICES
        for index in chosen[choice]
    ]
    names = schema.RECONSTRUCTION_COLUMNS
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    place = names.index("label")  # whole numbers, even if all are missing
    return table.set_column(place, "label", table["label"].cast(pa.int64()))
