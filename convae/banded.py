"""The convolutional model's layers for many lanes, in a form for a GPU.

A convolution is one product of whole rows of an image, or of whole images, with a matrix that holds
its kernel in a band. The band's zeros cost arithmetic that tensor cores have to spare, and save the
patches, nine times the image. Shapes are those of `convae.lane_operations`, the form for a CPU,
which each part equals within rounding. On a CPU it would take four times the arithmetic.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convae.lane_operations import add_bias, relu_of_largest
from convae.lane_operations import pooled_conv as conv_of_images
from convae.operations import BLOCK, STAMP_TAPS, TAPS, tap_places
from convae.pinned import tf

# [output row, input row, tap]; the same for columns. A row gives a part of three output rows, or
# of four if upsampled, which are added up afterwards.
ONE_TO_THREE = np.eye(3, dtype=np.float32)[:, np.newaxis]
ONE_TO_FOUR = STAMP_TAPS[:, np.newaxis]


def _same(n: int) -> np.ndarray:
    """Of a "same" convolution of n rows."""
    return tap_places(n, n, lambda row, k: row + k - 1)


def _up_same(n: int) -> np.ndarray:
    """Of n rows, upsampled, and a "same" convolution."""
    return tap_places(2 * n, n, lambda row, k: (row + k - 1) // 2)


def _up_valid(n: int) -> np.ndarray:
    """Of n rows, upsampled, and a valid convolution."""
    return tap_places(2 * n - 2, n, lambda row, k: (row + k) // 2)


def keep(*tensors: tf.Tensor) -> Any:
    """The same tensors, which XLA writes to memory here, and does not compute again where used.

    The one place that uses what is not TensorFlow's public API, which has no such operation:
    checked with 2.21.0. Only XLA can run it.
    """
    from tensorflow.compiler.tf2xla.python import xla

    return xla.optimization_barrier(*tensors)


def _banded(kernel: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """The matrix of a convolution: (k, rows in · columns in · channels, the same of the output)."""
    n_lanes, _, _, channels, filters = kernel.shape
    # [tap, pixel in, pixel out]
    places = np.einsum("pia,qjb->abijpq", rows, columns)
    places = places.reshape(len(TAPS), rows.shape[1] * columns.shape[1], -1)
    n_in, n_out = places.shape[1:]
    # Where each tap's entries are, as many as the most frequent tap's; those beyond weigh nothing.
    entries = [np.argwhere(place) for place in places]
    n = max(map(len, entries))
    index = np.stack([np.resize(entry, (n, 2)) for entry in entries])
    weight = np.stack([np.arange(n) < len(entry) for entry in entries]).astype(np.float32)

    @tf.custom_gradient
    def build(kernel: tf.Tensor) -> Any:
        taps = tf.reshape(kernel, (n_lanes, len(TAPS), 1, channels, 1, filters))
        terms = [
            place[np.newaxis, :, np.newaxis, :, np.newaxis] * taps[:, tap]
            for tap, place in enumerate(places)
            if place.any()
        ]

        def gradient(g: tf.Tensor) -> tf.Tensor:
            g = tf.reshape(g, (n_lanes, n_in, channels, n_out, filters))
            seen = tf.gather_nd(tf.transpose(g, (1, 3, 0, 2, 4)), index)  # (9, n, k, channels, …)
            sums = tf.reduce_sum(seen * weight[..., np.newaxis, np.newaxis, np.newaxis], axis=1)
            return tf.reshape(tf.transpose(sums, (1, 0, 2, 3)), kernel.shape)

        return tf.reshape(tf.add_n(terms), (n_lanes, n_in * channels, n_out * filters)), gradient

    return build(kernel)


def _shifted(x: tf.Tensor, row: int, part: int, height: int) -> tf.Tensor:
    """Of x (k, n, rows, parts, …) one part of each of `height` rows from a row on."""
    return tf.slice(x, [0, 0, row, part, 0], [-1, -1, height, 1, -1])


def _frame_rows(x: tf.Tensor) -> tf.Tensor:
    """(k, n, h, …) with a row of 0 above and below."""
    return tf.pad(x, [[0, 0], [0, 0], [1, 1], *[[0, 0]] * (x.shape.rank - 3)])


def _tap_sums(
    seen: Callable[[int, int], tf.Tensor], winners: tf.Tensor, g: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """As that of `convae.lane_operations`, in two stages.

    First over two images and a column, which leaves pixels and filters side by side: all ten sums
    then read what they need once and together. XLA would put the images last for the second stage,
    and so in the first: what is flat it cannot.
    """
    n_lanes, n_images, height, width, filters = g.shape
    lower, right = winners >= 2, winners % 2 == 1  # of no account where g is 0
    rows = [[tf.where(right, seen(r, m + 1), seen(r, m)) for m in range(3)] for r in range(4)]
    terms = [g * tf.where(lower, rows[k + 1][m], rows[k][m]) for k, m in TAPS]
    few = math.gcd(n_images, 2)
    first = (n_lanes, n_images // few, few, height, width, filters)
    sums = [tf.reduce_sum(tf.reshape(x, first), axis=(2, 3)) for x in (*terms, g)]
    sums = keep(*(tf.reshape(x, (n_lanes, -1)) for x in sums))
    (flat,) = keep(tf.stack(sums, axis=1))
    of_all = tf.reduce_sum(tf.reshape(flat, (n_lanes, len(sums), -1, filters)), axis=2)
    return of_all[:, :-1], of_all[:, -1]


def pooled_conv(images: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """As that of `convae.lane_operations`."""
    return conv_of_images(images, kernel, bias, keep, _tap_sums)


def _whole(x: tf.Tensor, kernel: tf.Tensor, places: np.ndarray) -> tf.Tensor:
    """A convolution as a product of whole images x (k, n, h, h, channels), same places each way."""
    n_out, filters = places.shape[0], kernel.shape[-1]
    y = tf.matmul(tf.reshape(x, (*x.shape[:2], -1)), _banded(kernel, places, places))
    return tf.reshape(y, (*x.shape[:2], n_out, n_out, filters))


def same_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A "same" 3×3 convolution of small images x (k, n, h, h, channels)."""
    return _whole(x, kernel, _same(x.shape[2]))


def up_same_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The same of images upsampled 2×2 to their nearest neighbour: (k, n, 2h, 2h, filters)."""
    return _whole(x, kernel, _up_same(x.shape[2]))


def row_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A "same" 3×3 convolution as a product of whole rows, each of which gives three."""
    n_lanes, n_images, height, width, channels = x.shape
    filters = kernel.shape[-1]
    row = width * filters

    @tf.custom_gradient
    def convolve(x: tf.Tensor, matrix: tf.Tensor) -> Any:
        rows = tf.reshape(x, (n_lanes, n_images * height, width * channels))
        y = tf.reshape(tf.matmul(rows, matrix), (n_lanes, n_images, height, 3, row))
        y = _frame_rows(y)
        # Output row i sees input row i + tap − 1 through that tap.
        sums = tf.add_n([_shifted(y, tap, tap, height) for tap in range(3)])

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            g = _frame_rows(tf.reshape(g, (n_lanes, n_images, height, row)))
            seen = tf.concat([g[:, :, 2 - tap : 2 - tap + height] for tap in range(3)], axis=3)
            seen = tf.reshape(seen, (n_lanes, n_images * height, 3 * row))
            of_x = tf.reshape(tf.matmul(seen, matrix, transpose_b=True), x.shape)
            return of_x, tf.matmul(rows, seen, transpose_a=True)

        return tf.reshape(sums, (*x.shape[:4], filters)), gradient

    return convolve(x, _banded(kernel, ONE_TO_THREE, _same(width)))


def up_valid_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Nearest 2×2 upsampling and a valid 3×3 convolution, a product of pairs of rows."""
    n_lanes, n_images, height, width, channels = x.shape
    rows = tf.reshape(x, (n_lanes, n_images, height, width * channels))
    pairs = tf.concat([rows[:, :, :-1], rows[:, :, 1:]], axis=3)
    pairs = tf.reshape(pairs, (n_lanes, n_images * (height - 1), -1))
    y = tf.matmul(pairs, _banded(kernel, _up_valid(2), _up_valid(width)))
    return tf.reshape(y, (n_lanes, n_images, 2 * height - 2, 2 * width - 2, kernel.shape[-1]))


def last_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Nearest 2×2 upsampling, a "same" 3×3 convolution with one filter, and its bias.

    For x (k, n, h, w, channels) it returns (k, n, 2h, 2w): a row gives a part of four.
    """
    n_lanes, n_images, height, width, channels = x.shape
    row = 2 * width

    @tf.custom_gradient
    def convolve(x: tf.Tensor, matrix: tf.Tensor) -> Any:
        rows = tf.reshape(x, (n_lanes, n_images * height, width * channels))
        y = tf.reshape(tf.matmul(rows, matrix), (n_lanes, n_images, height, 4, row))
        y = _frame_rows(y)
        # A row's first part belongs to the row above its own two, its last to the one below.
        even = _shifted(y, 1, 1, height) + _shifted(y, 0, 3, height)
        odd = _shifted(y, 1, 2, height) + _shifted(y, 2, 0, height)

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pairs = tf.reshape(_frame_rows(g), (n_lanes, n_images, height + 1, 2 * row))
            seen = tf.concat([pairs[:, :, :-1], pairs[:, :, 1:]], axis=3)
            seen = tf.reshape(seen, (n_lanes, n_images * height, 4 * row))
            of_x = tf.reshape(tf.matmul(seen, matrix, transpose_b=True), x.shape)
            return of_x, tf.matmul(rows, seen, transpose_a=True)

        both = tf.concat([even, odd], axis=3)
        return tf.reshape(both, (n_lanes, n_images, 2 * height, row)), gradient

    y = convolve(x, _banded(kernel, ONE_TO_FOUR, _up_same(width)))
    return y + bias[:, tf.newaxis, tf.newaxis]


def relu(y: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """ReLU of y + bias, which keeps where it is positive, a byte a value, for its gradient."""

    @tf.custom_gradient
    def convert(y: tf.Tensor, bias: tf.Tensor) -> Any:
        outputs = tf.nn.relu(add_bias(y, bias))
        outputs, positive = keep(outputs, tf.cast(outputs > 0, tf.int8))

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            g = tf.where(positive > 0, g, 0.0)
            return g, tf.reduce_sum(g, axis=(1, 2, 3))

        return outputs, gradient

    return convert(y, bias)


def relu_pool(y: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """2×2 "same" max pooling of the ReLU of y + bias (k, n, rows, columns, channels).

    For its gradient it keeps which pixel of each block won, a byte, and not what it pooled.
    """
    n_lanes, n_images, n_rows, n_columns, channels = y.shape
    height, width = -(-n_rows // 2), -(-n_columns // 2)
    beyond = [[0, 0], [0, 0], [0, n_rows % 2], [0, n_columns % 2], [0, 0]]

    @tf.custom_gradient
    def convert(y: tf.Tensor, bias: tf.Tensor) -> Any:
        blocks = tf.pad(y, beyond, constant_values=y.dtype.min)
        blocks = tf.reshape(blocks, (n_lanes, n_images, height, 2, width, 2, channels))
        outputs, winners = keep(
            *relu_of_largest([blocks[:, :, :, r, :, c] for r, c in BLOCK], bias)
        )

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            g = tf.where(winners < 0, 0.0, g)
            pixels = np.arange(4, dtype=np.int8).reshape(2, 1, 2, 1)
            won = winners[:, :, :, tf.newaxis, :, tf.newaxis] == pixels
            of_y = tf.where(won, g[:, :, :, tf.newaxis, :, tf.newaxis], 0.0)
            of_y = tf.reshape(of_y, (n_lanes, n_images, 2 * height, 2 * width, channels))
            return of_y[:, :, :n_rows, :n_columns], tf.reduce_sum(g, axis=(1, 2, 3))

        return outputs, gradient

    return convert(y, bias)
