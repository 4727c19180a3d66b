"""Cheaper ways to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold every formulation to it, gradients included.
`benchmarks/README.md` tells what was tried and what each is worth.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# (images, training) -> (outputs, targets): reconstructions and the images they are compared with,
# both in the same arrangement of pixels, which need not be the images' own.
Reconstruct = Callable[[tf.Tensor, bool], tuple[tf.Tensor, tf.Tensor]]


def as_defined(model: keras.Model) -> Reconstruct:
    """The model as Keras computes it."""
    return lambda images, training: (model(images, training=training), images)


def cheaper_on_cpu(model: keras.Model) -> Reconstruct:
    """The convolutional autoencoder in fewer passes over memory; any other model as it is.

    - The first pooling comes before its bias and ReLU: max(x) + b and relu(max(x)) are max(x + b)
      and max(relu(x)), at a quarter of the positions.
    - A nearest 2×2 upsampling and the 3×3 convolution after it are one convolution at the low
      resolution with four times the filters, one set for each phase (row and column parity) of the
      output pixel. For the valid convolution 2×2 taps are enough.
    - The last convolution's four phases are compared with the images in phases, so the output is
      never put together.
    """
    if not isinstance(model.layers[-1], layers.Conv2D):
        return as_defined(model)
    _, first, first_pool, *middle, upsample, valid, last_upsample, last = model.layers
    assert isinstance(upsample, layers.UpSampling2D)
    assert isinstance(last_upsample, layers.UpSampling2D)
    assert valid.padding == "valid"

    def reconstruct(images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.nn.conv2d(images, _kernel(first), strides=1, padding="SAME")
        x = first.activation(tf.nn.bias_add(first_pool(x), first.bias))
        for layer in middle:
            x = layer(x, training=training)
        x = tf.nn.conv2d(x, _fold(_kernel(valid), _VALID_TAPS), strides=1, padding="VALID")
        x = valid.activation(tf.nn.bias_add(x, tf.tile(tf.convert_to_tensor(valid.bias), [4])))
        x = tf.nn.depth_to_space(x, 2)
        x = tf.nn.conv2d(x, _fold(_kernel(last), _SAME_TAPS), strides=1, padding="SAME")
        return last.activation(x + last.bias), tf.nn.space_to_depth(images, 2)

    return reconstruct


def _kernel(layer: Any) -> tf.Tensor:
    return tf.convert_to_tensor(layer.kernel)


def _taps(n_rows: int, first_row: Callable[[int, int], int]) -> np.ndarray:
    """[phase, low-resolution row, k] is 1 where tap k of a 3-tap kernel sees that row."""
    taps = np.zeros((2, n_rows, 3), np.float32)
    for phase in range(2):
        for k in range(3):
            taps[phase, first_row(phase, k), k] = 1
    return taps


# Upsampled row r is low-resolution row r // 2. Output row 2i + phase sees through tap k upsampled
# row 2i + phase + k − 1 ("same", rows from i − 1) or 2i + phase + k ("valid", rows from i).
_SAME_TAPS = _taps(3, lambda phase, k: (phase + k - 1) // 2 + 1)
_VALID_TAPS = _taps(2, lambda phase, k: (phase + k) // 2)


def _fold(kernel: tf.Tensor, taps: np.ndarray) -> tf.Tensor:
    """A 3×3 kernel on upsampled pixels as one on the low resolution, phases as filters."""
    n_taps = taps.shape[1]
    folded = tf.einsum("pak,qbl,klio->abipqo", taps, taps, kernel)
    return tf.reshape(folded, (n_taps, n_taps, kernel.shape[2], 4 * kernel.shape[3]))
