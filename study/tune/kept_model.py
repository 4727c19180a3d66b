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

    Args:
        trial_id: whose.
        model: trained.
        image_set: the images.
        outputs: (n, 28, 28), the model's reconstructions of the test images.
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
