"""Parts of the convolutional model in cheaper forms for a CPU, each with its own gradient.

Each equals a Keras layer or a few with the same weights; `formulations.py` puts them together. XLA
compiles only what oneDNN has no fast operation for. In the shapes n is the number of images, h and
w are rows and columns at the lower of a part's two resolutions.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from convae.pinned import tf

BLOCK = tuple(np.ndindex(2, 2))  # row and column of each pixel of a 2×2 block
TAPS = tuple(np.ndindex(3, 3))
# AutoGraph is for Python that depends on tensors' values: there is none, and it takes its time.
_by_xla = partial(tf.function, jit_compile=True, reduce_retracing=True, autograph=False)


@tf.custom_gradient
def pooled_conv(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
    """A "same" 3×3 convolution of one channel, its bias, ReLU and 2×2 max pooling.

    For images (n, 2h, 2w, 1), kernel (3, 3, 1, filters) and bias (filters,) it returns
    (n, h, w, filters). The images get no gradient.
    """
    outputs, winners = _pooled(images, kernel, bias)

    def gradient(g: tf.Tensor) -> tuple[None, tf.Tensor, tf.Tensor]:
        by_tap, of_bias = _sums_of_gradients(images, g, winners)
        ones = tf.ones((1, tf.shape(of_bias)[0]))
        of_kernel = tf.matmul(tf.tile(ones[tf.newaxis], (len(TAPS), 1, 1)), by_tap)
        return None, tf.reshape(of_kernel, kernel.shape), tf.matmul(ones, of_bias)[0]

    return outputs, gradient


def _blocks(images: tf.Tensor) -> tf.Tensor:
    """(n, 2h, 2w, 1), framed with a pixel of 0, in blocks of 2×2: (n, h + 1, 2, w + 1, 2)."""
    padded = tf.pad(images[..., 0], [[0, 0], [1, 1], [1, 1]])
    return tf.reshape(padded, (-1, images.shape[1] // 2 + 1, 2, images.shape[2] // 2 + 1, 2))


def _seen(images: tf.Tensor) -> list[list[tf.Tensor]]:
    """[row][column] of the 4×4 pixels that a 2×2 block's 3×3 windows see: (n, h, w), 0 outside."""
    height, width = images.shape[1] // 2, images.shape[2] // 2
    blocks = _blocks(images)
    return [
        [
            blocks[:, r // 2 : r // 2 + height, r % 2, c // 2 : c // 2 + width, c % 2]
            for c in range(4)
        ]
        for r in range(4)
    ]


@_by_xla
def _pooled(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The outputs, and which pixel of its block each comes from: 0 to 3, or -1 if ReLU is off.

    XLA makes one loop of it, so that what is not pooled yet never passes memory.
    """
    seen = _seen(images)
    sums = [
        tf.add_n([seen[r + k][c + m][..., tf.newaxis] * kernel[k, m, 0] for k, m in TAPS])
        for r, c in BLOCK
    ]
    largest = reduce(tf.maximum, sums)
    winners = tf.fill(tf.shape(largest), float(len(sums) - 1))
    for pixel in reversed(range(len(sums) - 1)):  # of equals the first, as Keras has it
        winners = tf.where(sums[pixel] == largest, float(pixel), winners)
    outputs = tf.nn.relu(largest + bias)
    return outputs, tf.where(outputs > 0, winners, -1.0)


@_by_xla
def _sums_of_gradients(
    images: tf.Tensor, g: tf.Tensor, winners: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients of the kernel's taps (9, n·h·2, filters) and of the bias (n·h·2, filters).

    Sums over half a row each: longer ones take longer to compile, shorter ones to add up, and sums
    over all images XLA would do one number at a time.
    """
    height, width, filters = g.shape[1:]
    halves = (height, 2, width // 2)
    g, winners = (tf.reshape(x, (-1, *halves, filters)) for x in (g, winners))
    seen = tf.reshape(tf.stack([tf.stack(row) for row in _seen(images)]), (4, 4, -1, *halves, 1))
    by_tap = of_bias = tf.zeros(())
    for column in range(halves[-1]):
        winner, of_column = winners[:, :, :, column], g[:, :, :, column]
        factor = tf.zeros(())
        for pixel, (r, c) in enumerate(BLOCK):
            of_pixel = seen[r : r + 3, c : c + 3, :, :, :, column]
            factor = tf.where(winner == pixel, of_pixel, factor)
        by_tap += of_column * factor
        of_bias += tf.where(winner < 0, 0.0, of_column)
    return tf.reshape(by_tap, (len(TAPS), -1, filters)), tf.reshape(of_bias, (-1, filters))


def patches_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """A valid convolution and its bias as one matrix product, of all pixels that each output sees.

    For x (n, h, w, channels) and kernel (k, k, channels, filters) it returns
    (n, h − k + 1, w − k + 1, filters).
    """
    rows, columns, channels, filters = kernel.shape
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    # The gradient of tf.slice is a padding; that of x[...] takes many times as long.
    seen = [
        tf.slice(x, [0, r, c, 0], [-1, height, width, -1]) for r, c in np.ndindex(rows, columns)
    ]
    patches = tf.reshape(tf.concat(seen, axis=3), (-1, rows * columns * channels))
    y = tf.nn.bias_add(tf.matmul(patches, tf.reshape(kernel, (patches.shape[1], filters))), bias)
    return tf.reshape(y, (-1, height, width, filters))


def upsampled_valid_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Nearest 2×2 upsampling, then a valid 3×3 convolution, its bias and ReLU.

    For x (n, h + 1, w + 1, channels) it returns (n, h, w, 2, 2, filters), axes 3 and 4 the phase
    (row and column parity) of the output pixel. Every phase sees 2×2 pixels of x.
    """
    channels, filters = kernel.shape[2:]
    folded = tf.einsum("pak,qbl,klio->abipqo", VALID_TAPS, VALID_TAPS, kernel)
    folded = tf.reshape(folded, (2, 2, channels, 4 * filters))
    y = tf.nn.relu(patches_conv(x, folded, tf.tile(bias, [4])))
    return tf.reshape(y, (-1, *y.shape[1:3], 2, 2, filters))


@tf.custom_gradient
def conv_swapped(x: tf.Tensor, kernel: tf.Tensor) -> Any:
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


def tap_places(n_rows: int, n_seen: int, first_row: Callable[[int, int], int]) -> np.ndarray:
    """[row, seen, k] is 1 where tap k of a 3-tap kernel lets the row see that other row."""
    taps = np.zeros((n_rows, n_seen, 3), np.float32)
    for row in range(n_rows):
        for k in range(3):
            if 0 <= (seen := first_row(row, k)) < n_seen:
                taps[row, seen, k] = 1
    return taps


# Upsampled row r is low-resolution row r // 2. Through tap k, output row 2i + phase of a valid
# convolution sees upsampled row 2i + phase + k; row 2i − 1 + r of a "same" one sees 2i − 2 + r + k.
VALID_TAPS = tap_places(2, 2, lambda phase, k: (phase + k) // 2)
STAMP_TAPS = tap_places(4, 1, lambda r, k: (r + k - 2) // 2)[:, 0]


def stamp(kernel: tf.Tensor) -> tf.Tensor:
    """A "same" 3×3 kernel with one filter as (channels, 16): a pixel's 4×4 contributions."""
    stamp = tf.einsum("rk,sl,klio->irso", STAMP_TAPS, STAMP_TAPS, kernel)
    return tf.reshape(stamp, (kernel.shape[2], 16))


@tf.custom_gradient
def add_stamps(stamps: tf.Tensor) -> Any:
    """(n, h, w, 2, 2, 4, 4) → (n, 4h, 4w, 1).

    Axes 3 and 4 are the phase of the low-resolution pixel, 5 and 6 the place in its stamp.
    """
    return _overlap(stamps), _windows


# By XLA, because as operations of TensorFlow this and its gradient take twice as long.
@_by_xla
def _overlap(stamps: tf.Tensor) -> tf.Tensor:
    height, width = 2 * stamps.shape[1], 2 * stamps.shape[2]
    pixels = tf.reshape(tf.transpose(stamps, (0, 1, 3, 2, 4, 5, 6)), (-1, height, width, 4, 4))
    rows = tf.stack(join_stamps(pixels, axis=1, place=3), axis=2)
    both = tf.stack(join_stamps(rows, axis=3, place=4), axis=4)
    return tf.reshape(both, (-1, 2 * height, 2 * width, 1))


def join_stamps(stamps: tf.Tensor, axis: int, place: int) -> list[tf.Tensor]:
    """Even and odd output rows (or columns): a pixel's own and its neighbour's overhang."""
    before, even, odd, after = tf.unstack(stamps, axis=place)
    n = even.shape[axis]
    none = tf.zeros_like(tf.split(even, [1, n - 1], axis)[0])
    from_above = tf.concat([none, tf.split(after, [n - 1, 1], axis)[0]], axis)
    from_below = tf.concat([tf.split(before, [1, n - 1], axis)[1], none], axis)
    return [even + from_above, odd + from_below]


@_by_xla
def _windows(gradient: tf.Tensor) -> tf.Tensor:
    """The gradient of `_overlap`: to each stamp the 4×4 output pixels that it lies on."""
    height, width = gradient.shape[1] // 2, gradient.shape[2] // 2
    blocks = _blocks(gradient)
    rows = [blocks[:, r // 2 : r // 2 + height, r % 2] for r in range(4)]
    windows = tf.stack([tf.concat([x[:, :, :-1], x[:, :, 1:]], -1) for x in rows], axis=3)
    windows = tf.reshape(windows, (-1, height // 2, 2, width // 2, 2, 4, 4))
    return tf.transpose(windows, (0, 1, 3, 2, 4, 5, 6))
