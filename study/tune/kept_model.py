"""What a run folder keeps of a trained model: the model, and what it makes of some test images."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.folder import schema

if TYPE_CHECKING:
    import keras

    from convae.data import ImageSet

N_RANDOM_IMAGES = 10
N_RANKED_IMAGES = 5  # of each: best, median, worst


def files_of(
    trial_id: str, model: "keras.Model", image_set: "ImageSet", outputs: np.ndarray
) -> dict[str, bytes]:
    """The files that a trial leaves in the run folder, by their names in it.

    `outputs` are the trained model's reconstructions of the test images, (n, 28, 28).
    """
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:  # Keras looks at the ending
        model.save(file.name)
        content = Path(file.name).read_bytes()
    table = reconstruction_table(trial_id, image_set.test_images, image_set.test_labels, outputs)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return {
        f"{schema.MODELS_FOLDER}/{trial_id}.keras": content,
        f"{schema.RECONSTRUCTIONS_FOLDER}/{trial_id}.parquet": sink.getvalue().to_pybytes(),
    }


def reconstruction_table(
    trial_id: str, images: np.ndarray, labels: np.ndarray | None, outputs: np.ndarray
) -> pa.Table:
    """A few test images with their reconstructions: random ones, best, median and worst.

    The random ones are the same for every trial.

    Args:
        trial_id: whose reconstructions.
        images: (n, 28, 28) uint8.
        labels: (n,) uint8; None if there are none, and then their column is of missing values.
        outputs: (n, 28, 28), in [0, 1] but for what a custom model returns.
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
    indices = np.concatenate([chosen[choice] for choice in schema.CHOICES])
    pixels = np.rint(np.clip(outputs[indices], 0, 1) * 255).astype(np.uint8)
    columns = (
        [trial_id] * len(indices),
        [choice for choice in schema.CHOICES for _ in chosen[choice]],
        pa.array(indices, pa.int64()),
        pa.array([None] * len(indices) if labels is None else labels[indices], pa.int64()),
        errors[indices].astype(np.float64),
        images[indices].reshape(len(indices), -1).tolist(),
        pixels.reshape(len(indices), -1).tolist(),
    )
    return pa.table(dict(zip(schema.RECONSTRUCTION_COLUMNS, columns, strict=True)))
