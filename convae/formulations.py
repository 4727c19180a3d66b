"""Cheaper ways to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold every formulation to it, gradients included.
`benchmarks/README.md` tells what was tried, what each is worth, and why the choice is a rule.
"""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# (images, training) -> reconstructions
Reconstruct = Callable[[tf.Tensor, bool], tf.Tensor]

# Names a formulation to use instead of the rule's, for measuring and for finding faults.
VARIABLE: Final = "CONVAE_FORMULATION"


def as_defined(model: keras.Model) -> Reconstruct:
    """The model as Keras computes it."""
    return lambda images, training: model(images, training=training)


def cheaper_on_cpu(model: keras.Model) -> Reconstruct:
    """The convolutional autoencoder in fewer passes over memory; any other as it is.

    Any other is also the convolutional autoencoder in bfloat16, where no form was measured.

    - The first pooling comes before its bias and ReLU: max(x) + b and relu(max(x)) are max(x + b)
      and max(relu(x)), at a quarter of the positions.
    - The second convolution's filter gradient has its two factors swapped, so that 16 channels
      fill the processor's vectors instead of 8.
    - A nearest 2×2 upsampling and the valid 3×3 convolution after it are one convolution at the
      low resolution with 2×2 taps and four times the filters, one set for each phase (row and
      column parity) of the output pixel.
    - With the last upsampling and convolution, every low-resolution pixel leaves a 4×4 stamp on
      the output, two pixels apart: a matrix product makes the stamps, XLA adds them up.
    """
    last_layer = model.layers[-1]
    if not isinstance(last_layer, layers.Conv2D) or last_layer.compute_dtype != "float32":
        return as_defined(model)
    _, first, first_pool, second, *middle, upsample, valid, last_upsample, last = model.layers
    assert isinstance(upsample, layers.UpSampling2D)
    assert isinstance(last_upsample, layers.UpSampling2D)
    assert valid.padding == "valid"

    def reconstruct(images: tf.Tensor, training: bool) -> tf.Tensor:
        x = tf.nn.conv2d(images, _kernel(first), strides=1, padding="SAME")
        x = first.activation(tf.nn.bias_add(first_pool(x), first.bias))
        x = second.activation(tf.nn.bias_add(_conv_swapped(x, _kernel(second)), second.bias))
        for layer in middle:
            x = layer(x, training=training)
        x = tf.nn.conv2d(x, _phases(_kernel(valid)), strides=1, padding="VALID")
        x = valid.activation(tf.nn.bias_add(x, tf.tile(tf.convert_to_tensor(valid.bias), [4])))
        stamps = tf.matmul(tf.reshape(x, (-1, valid.filters)), _stamp(_kernel(last)))
        cells = (-1, *x.shape[1:3], 2, 2, 4, 4)
        return last.activation(_add_stamps(tf.reshape(stamps, cells)) + last.bias)

    return reconstruct


FORMULATIONS: Final[Mapping[str, Callable[[keras.Model], Reconstruct]]] = MappingProxyType(
    {"as-defined": as_defined, "cheaper-on-cpu": cheaper_on_cpu}
)


def choose(*, jit_compile: bool) -> str:
    """The formulation to use, a name in `FORMULATIONS`.

    A rule, not a race: formulations round differently, so a choice by timing at run time would
    make the same seed give other numbers on another day. `python -m benchmarks.formulations`
    measures what the rule rests on.

    Raises:
        ValueError: CONVAE_FORMULATION has an unknown name.
    """
    name = os.environ.get(VARIABLE)
    if name is None:
        # Measured on CPUs only, so a GPU computes the model as it is.
        return "as-defined" if jit_compile else "cheaper-on-cpu"
    if name not in FORMULATIONS:
        raise ValueError(f"{VARIABLE} is {name!r}, but takes one of {', '.join(FORMULATIONS)}.")
    return name


def _kernel(layer: Any) -> tf.Tensor:
    return tf.convert_to_tensor(layer.kernel)


@tf.custom_gradient
def _conv_swapped(x: tf.Tensor, kernel: tf.Tensor) -> Any:
    """A "same" 3×3 convolution; Σ x(p + k)·g(p) over p is also Σ g(q − k)·x(q) over q."""

    def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ones: dict[str, Any] = {"strides": [1, 1, 1, 1], "padding": "SAME"}
        height, width, n_in, n_out = kernel.shape
        of_x = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=g, **ones
        )
        swapped = tf.raw_ops.Conv2DBackpropFilter(
            input=g, filter_sizes=(height, width, n_out, n_in), out_backprop=x, **ones
        )
        return of_x, tf.transpose(swapped[::-1, ::-1], (0, 1, 3, 2))

    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), gradient


def _taps(n_rows: int, n_seen: int, first_row: Callable[[int, int], int]) -> np.ndarray:
    """[row, seen, k] is 1 where tap k of a 3-tap kernel lets the row see that other row."""
    taps = np.zeros((n_rows, n_seen, 3), np.float32)
    for row in range(n_rows):
        for k in range(3):
            if 0 <= (seen := first_row(row, k)) < n_seen:
                taps[row, seen, k] = 1
    return taps


# Upsampled row r is low-resolution row r // 2. Through tap k, output row 2i + phase of a valid
# convolution sees upsampled row 2i + phase + k; row 2i − 1 + r of a "same" one sees 2i − 2 + r + k.
_VALID_TAPS = _taps(2, 2, lambda phase, k: (phase + k) // 2)
_STAMP_TAPS = _taps(4, 1, lambda r, k: (r + k - 2) // 2)[:, 0]


def _phases(kernel: tf.Tensor) -> tf.Tensor:
    """A valid 3×3 kernel on upsampled pixels as a 2×2 one below them, phases as filters."""
    folded = tf.einsum("pak,qbl,klio->abipqo", _VALID_TAPS, _VALID_TAPS, kernel)
    return tf.reshape(folded, (2, 2, kernel.shape[2], 4 * kernel.shape[3]))


def _stamp(kernel: tf.Tensor) -> tf.Tensor:
    """A "same" 3×3 kernel with one filter as (channels, 16): a pixel's 4×4 contributions."""
    stamp = tf.einsum("rk,sl,klio->irso", _STAMP_TAPS, _STAMP_TAPS, kernel)
    return tf.reshape(stamp, (kernel.shape[2], 16))


@tf.custom_gradient
def _add_stamps(stamps: tf.Tensor) -> Any:
    """(n, h, w, 2, 2, 4, 4) → (n, 4h, 4w, 1).

    Axes 3 and 4 are the phase of the low-resolution pixel, 5 and 6 the place in its stamp.
    """
    return _overlap(stamps), _windows


# The only parts by XLA: as operations of TensorFlow they take twice as long.
@tf.function(jit_compile=True)
def _overlap(stamps: tf.Tensor) -> tf.Tensor:
    height, width = 2 * stamps.shape[1], 2 * stamps.shape[2]
    pixels = tf.reshape(tf.transpose(stamps, (0, 1, 3, 2, 4, 5, 6)), (-1, height, width, 4, 4))
    rows = tf.stack(_join(pixels, axis=1, place=3), axis=2)
    both = tf.stack(_join(rows, axis=3, place=4), axis=4)
    return tf.reshape(both, (-1, 2 * height, 2 * width, 1))


def _join(stamps: tf.Tensor, axis: int, place: int) -> list[tf.Tensor]:
    """Even and odd output rows (or columns): a pixel's own and its neighbour's overhang."""
    before, even, odd, after = tf.unstack(stamps, axis=place)
    n = even.shape[axis]
    none = tf.zeros_like(tf.split(even, [1, n - 1], axis)[0])
    from_above = tf.concat([none, tf.split(after, [n - 1, 1], axis)[0]], axis)
    from_below = tf.concat([tf.split(before, [1, n - 1], axis)[1], none], axis)
    return [even + from_above, odd + from_below]


@tf.function(jit_compile=True)
def _windows(gradient: tf.Tensor) -> tf.Tensor:
    """The gradient of `_overlap`: to each stamp the 4×4 output pixels that it lies on."""
    height, width = gradient.shape[1] // 2, gradient.shape[2] // 2
    padded = tf.pad(gradient[..., 0], [[0, 0], [1, 1], [1, 1]])
    blocks = tf.reshape(padded, (-1, height + 1, 2, width + 1, 2))
    rows = [blocks[:, r // 2 : r // 2 + height, r % 2] for r in range(4)]
    windows = tf.stack([tf.concat([x[:, :, :-1], x[:, :, 1:]], -1) for x in rows], axis=3)
    windows = tf.reshape(windows, (-1, height // 2, 2, width // 2, 2, 4, 4))
    return tf.transpose(windows, (0, 1, 3, 2, 4, 5, 6))
