"""A device proves that its lanes compute what the model does, before a trial is trusted to them.

Two short trials train on made-up images in the program's lanes, and by the Keras model on the CPU
device: of different batch sizes and widths, so that chunks that are not full, batches of several
chunks and what fills up a narrow trial are tried.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from convae.config import DENSE, IMAGE_SHAPE, TrialConfig
from convae.data import ImageSet
from convae.lane_program import DeviceImages, SplitSizes
from convae.lanes import Lanes
from convae.models import build_model, reset
from convae.pinned import tf
from convae.shapes import WIDTHS, ProgramShape

# Of the change of the weights: what the GPU's rounding of products' factors (TF32) explains, where
# wrong code is off by the change itself. Of losses, relatively.
WEIGHTS_TOLERANCE, LOSS_TOLERANCE = 0.02, 1e-3
N_EVAL = 500  # images at most


class ProofError(RuntimeError):
    """A program's lanes do not compute what the model does."""


class Trained(NamedTuple):
    """What an epoch of a trial came to."""

    train_mse: float
    eval_mse: float
    change: np.ndarray  # of all weights


def prove(lanes: Lanes) -> None:
    """Tries empty lanes that are compiled; they are empty afterwards.

    Raises:
        ProofError: they differ from Keras, or one place from another.
    """
    narrow, wide = trials_of(lanes.shape)
    given = lanes.image_set
    n_train = min(5 * max(wide.batch_size, narrow.batch_size) // 2, len(given.train_images))
    sizes = SplitSizes(n_train, min(N_EVAL, len(given.test_images)))
    # As many as the program is compiled for. The study's own might be all black where it begins.
    images = made_up(len(given.train_images), len(given.test_images), sum(sizes))
    lanes = lanes.over(DeviceImages(images))
    last = lanes.n_lanes - 1
    if last:
        found = _train(lanes, {0: narrow, 1: wide}, sizes)
    else:
        found = {i: _train(lanes, {0: trial}, sizes)[0] for i, trial in enumerate((narrow, wide))}
    for i, trial in enumerate((narrow, wide)):
        _compare(found[i], by_keras(trial, images, sizes))
    again = _train(lanes, {last: narrow}, sizes)[last]
    same = again.change.tobytes() == found[0].change.tobytes()
    if not same or again[:2] != found[0][:2]:
        raise ProofError("a trial's numbers depend on its lane or its neighbours")


def trials_of(shape: ProgramShape) -> tuple[TrialConfig, TrialConfig]:
    """A narrow trial of batches smaller than a chunk, and a wide one of larger ones."""
    half = max(1, shape.chunk_size // 2)
    narrow: dict[str, Any] = {WIDTHS[shape.model]: max(1, shape.width // 2), "batch_size": half}
    if shape.model == DENSE:
        narrow["hidden_activation"] = "sigmoid"
    batch_size = shape.chunk_size + (half if shape.accumulates else 0)
    wide: dict[str, Any] = {WIDTHS[shape.model]: shape.width, "batch_size": batch_size}
    first, second = (TrialConfig(model=shape.model, epochs=1, **more) for more in (narrow, wide))
    return first, second


def made_up(n_train: int, n_test: int, n_drawn: int) -> ImageSet:
    """So many images, the first of which show two bright blots each on black, as digits do."""
    rng = np.random.default_rng(0)
    across = np.arange(IMAGE_SHAPE[0])[:, np.newaxis]
    shape = n_drawn, 2, 2, 1, 1  # (image, blot, axis, pixel, 1)
    centres, widths = rng.uniform(6, 22, shape), rng.uniform(1, 5, shape)
    along = (across - centres) / widths
    blots = np.exp(-(along[:, :, 0] ** 2) - np.swapaxes(along[:, :, 1], -1, -2) ** 2)
    pixels = np.zeros((n_train + n_test, *IMAGE_SHAPE[:2]), np.uint8)
    pixels[:n_drawn] = 255 * blots.max(axis=1)
    return ImageSet(pixels[:n_train], None, pixels[n_train:], None, "made up")


def by_keras(config: TrialConfig, images: ImageSet, sizes: SplitSizes) -> Trained:
    """An epoch by the Keras model on the CPU device, with the plain formula of Keras' SGD."""
    everything = np.concatenate([images.train_images, images.test_images[: sizes.n_eval]])
    pixels = (everything[: sum(sizes), ..., np.newaxis] / 255).astype(np.float32)
    with tf.device("/CPU:0"):
        model = build_model(config)
        reset(model, config.seed)
        weights = model.trainable_variables
        start = _flat([x.numpy() for x in weights])
        velocities = [tf.zeros_like(x) for x in weights]
        seed = (config.seed, 1)
        keys = tf.random.stateless_uniform(
            (sizes.n_train,), seed, None, None, tf.int32, alg="philox"
        )
        order = np.argsort(keys.numpy(), kind="stable")
        total = 0.0
        for first in range(0, sizes.n_train, config.batch_size):
            x = pixels[order[first : first + config.batch_size]]
            with tf.GradientTape() as tape:
                mse = tf.reduce_mean(tf.math.squared_difference(model(x, training=True), x))
            total += float(mse) * len(x)
            gradients = tape.gradient(mse, weights)
            for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                change = config.learning_rate * gradient
                velocities[i] = config.momentum * velocities[i] - change
                ahead = config.momentum * velocities[i] - change
                weight.assign_add(ahead if config.nesterov else velocities[i])
        held_out = pixels[sizes.n_train : sum(sizes)]
        eval_mse = float(np.mean((model(held_out, training=False).numpy() - held_out) ** 2))
        change = _flat([x.numpy() for x in weights]) - start
    return Trained(total / sizes.n_train, eval_mse, change)


def _train(
    lanes: Lanes, trials: Mapping[int, TrialConfig], sizes: SplitSizes
) -> dict[int, Trained]:
    """An epoch of trials by lane."""
    starts = {}
    for lane, config in trials.items():
        state = lanes.start(config)
        starts[lane] = _flat(state.weights)
        lanes.put(lane, config, state, sizes)
    found: dict[int, Trained] = {}
    while len(found) < len(trials):
        for lane, result in lanes.run().items():
            if result.train_mse is not None:
                change = _flat(lanes.get(lane).weights) - starts[lane]
                found[lane] = Trained(result.train_mse, lanes.evaluate([lane])[lane], change)
                lanes.clear(lane)
    return found


def _compare(found: Trained, expected: Trained) -> None:
    for name, value, other, tolerance in (
        ("weights' change in a few steps", found.change, expected.change, WEIGHTS_TOLERANCE),
        ("training loss", found.train_mse, expected.train_mse, LOSS_TOLERANCE),
        ("evaluation", found.eval_mse, expected.eval_mse, LOSS_TOLERANCE),
    ):
        difference = np.linalg.norm(np.subtract(value, other)) / np.linalg.norm(other)
        if not difference <= tolerance:  # nor is it a number
            raise ProofError(f"the {name} differs from Keras' by {difference:.2%}")


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([x.ravel() for x in arrays])
