"""Images that take no download, and Keras' own training on them, which ours must equal."""

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import tensorflow as tf

from convae.config import IMAGE_SHAPE
from convae.data import ImageSet, split
from convae.models import build_model, reset


def digits(n_train, n_test):
    """Images with structure: smooth blobs, mostly black as MNIST is."""
    sets = []
    for seed, n in enumerate((n_train, n_test), start=1):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[: IMAGE_SHAPE[0], : IMAGE_SHAPE[1]]
        centre, spread = rng.uniform(8, 20, (2, n, 1, 1)), rng.uniform(8, 40, (n, 1, 1))
        blob = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / spread)
        sets.append(np.where(blob > 0.2, blob * 255, 0).astype(np.uint8))
    return ImageSet(sets[0], None, sets[1], None, "made by the test")


def noise(n_train, n_test):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, *IMAGE_SHAPE[:2]), np.uint8) for n in (n_train, n_test))
    return ImageSet(train, None, test, None, "noise")


def pixels(images):
    """As a Keras model takes them."""
    return (images[..., np.newaxis] / 255).astype(np.float32)


def epoch_order(seed, epoch, n):
    """The order in which an epoch takes the images, from the same public random function."""
    keys = tf.random.stateless_uniform((n,), (seed, epoch), None, None, tf.int32, alg="philox")
    return np.argsort(keys.numpy(), kind="stable")


def fit(config, image_set, n_epochs):
    """`model.fit` from the trial's initial weights, over the trainer's batches in their order.

    Returns (training loss, evaluation loss) of each epoch, and the weights.
    """
    trial = {"seed": 0, "learning_rate": 1.0, "batch_size": 1, "split": "full", "epochs": 1}
    model = _compiled(replace(config, **trial))
    reset(model, config.seed)
    for variable in model.optimizer.variables:  # what a trial before has left
        variable.assign(tf.zeros_like(variable))
    model.optimizer.learning_rate = config.learning_rate
    part = split(image_set, config.split)
    train, held_out = pixels(part.train_images), pixels(part.eval_images)
    losses = []
    for epoch in range(1, n_epochs + 1):
        x = train[epoch_order(config.seed, epoch, len(train))]
        history = model.fit(
            x,
            x,
            batch_size=config.batch_size,
            shuffle=False,
            verbose=0,
            validation_data=(held_out, held_out),
            validation_batch_size=len(held_out),
        ).history
        losses.append((history["loss"][0], history["val_loss"][0]))
    return losses, model.get_weights()


@cache
def _compiled(config):
    """A model for all trials that differ only in what each fit sets."""
    model = build_model(config)
    optimizer = keras.optimizers.SGD(config.learning_rate, config.momentum, config.nesterov)
    model.compile(optimizer, loss="mse")
    return model
