"""Parts of the two models for many lanes at once, mostly as batched matrix products.

A lane is one trial's copy of a model. In the shapes k is the number of lanes, n images a lane, h
and w rows and columns at the lower of a part's two resolutions; kernels and biases have Keras'
shapes with a lane axis in front. Each part equals a Keras layer or a few.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from convae.operations import BLOCK, STAMP_TAPS, TAPS, VALID_TAPS, join_stamps, tap_places
from convae.pinned import tf

# (row, column) -> an array, see `pooled_conv`
_Seen = Callable[[int, int], tf.Tensor]
# Upsampled row r is low-resolution row r // 2: through tap k, output row 2i + phase of a "same"
# convolution sees low-resolution row i + (phase + k − 1) // 2, one of i − 1, i and i + 1.
SAME_TAPS = tap_places(2, 3, lambda phase, k: (phase + k - 1) // 2 + 1)


def add_bias(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The sum of x (k, …, channels) and bias (k, channels)."""
    return x + tf.reshape(bias, (x.shape[0], *[1] * (x.shape.rank - 2), x.shape[-1]))


def _frame(x: tf.Tensor) -> tf.Tensor:
    """(k, n, h, w, …) with a pixel of 0 around each image."""
    return tf.pad(x, [[0, 0], [0, 0], [1, 1], [1, 1], *[[0, 0]] * (x.shape.rank - 4)])


def _window(x: tf.Tensor, start: tuple[int, ...], height: int, width: int) -> tf.Tensor:
    """Of x (k, n, rows, columns, channels) so many rows and columns from a row and column on."""
    # The gradient of tf.slice is a padding; that of x[...] takes many times as long.
    return tf.slice(x, [0, 0, *start, 0], [-1, -1, height, width, -1])


def _patches(x: tf.Tensor, size: int) -> tf.Tensor:
    """All size × size pixels that a valid convolution sees: (k, n, h', w', size² · channels)."""
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    seen = [_window(x, place, height, width) for place in np.ndindex(size, size)]
    return tf.concat(seen, axis=4)


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(k, …, channels) → (k, rows, channels)."""
    return tf.reshape(x, (x.shape[0], -1, x.shape[-1]))


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A "same" 3×3 convolution: patches of x (k, n, h, w, channels) times the kernels."""
    patches = _patches(_frame(x), 3)
    kernel = tf.reshape(kernel, (kernel.shape[0], -1, kernel.shape[-1]))
    return tf.reshape(tf.matmul(_rows(patches), kernel), (*x.shape[:4], kernel.shape[-1]))


def narrowing_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The same where filters are fewer than channels: one product for all taps, shifted and added.

    So is its gradient, whose patches are of the narrower side too.
    """
    channels, filters = kernel.shape[3:]
    n_lanes, _, height, width, _ = x.shape

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        wide = tf.transpose(kernel, (0, 3, 1, 2, 4))
        wide = tf.reshape(wide, (n_lanes, channels, len(TAPS) * filters))
        by_tap = _frame(tf.reshape(tf.matmul(_rows(x), wide), (*x.shape[:4], -1)))
        by_tap = tf.split(by_tap, len(TAPS), axis=4)
        shifted = [_window(y, tap, height, width) for y, tap in zip(by_tap, TAPS, strict=True)]

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            framed = _frame(g)
            seen = [_window(framed, (2 - r, 2 - c), height, width) for r, c in TAPS]
            patches = _rows(tf.concat(seen, axis=4))
            of_x = tf.reshape(tf.matmul(patches, wide, transpose_b=True), x.shape)
            of_wide = tf.matmul(_rows(x), patches, transpose_a=True)
            of_wide = tf.reshape(of_wide, (n_lanes, channels, 3, 3, filters))
            return of_x, tf.transpose(of_wide, (0, 2, 3, 1, 4))

        return tf.add_n(shifted), gradient

    return convolve(x, kernel)


def relu_of_largest(block: list[tf.Tensor], bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """ReLU of a 2×2 block's largest value and the bias (k, channels).

    Also int8, which pixel that is: of equals the first, as Keras has it, and -1 where ReLU is off.
    """
    largest = reduce(tf.maximum, block)
    winners = tf.fill(largest.shape, tf.constant(len(BLOCK) - 1, tf.int8))
    for pixel in reversed(range(len(BLOCK) - 1)):
        winners = tf.where(block[pixel] == largest, tf.constant(pixel, tf.int8), winners)
    outputs = tf.nn.relu(add_bias(largest, bias))
    return outputs, tf.where(outputs > 0, winners, tf.constant(-1, tf.int8))


def tap_sums(seen: _Seen, winners: tf.Tensor, g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The gradients of the first convolution's taps, (k, 9, filters), and its bias.

    From what `pooled_conv` sees, the winners of `relu_of_largest`, and g of the outputs, 0 where
    ReLU is off.
    """
    sums = []
    for k, m in TAPS:
        factor = 0.0
        for pixel, (r, c) in enumerate(BLOCK):
            factor = tf.where(winners == pixel, seen(r + k, c + m), factor)
        sums.append(tf.reduce_sum(g * factor, axis=3))  # by row first, which a CPU does faster
    by_row = tf.stack(sums, axis=1)
    by_row = tf.reshape(by_row, (*by_row.shape[:2], -1, by_row.shape[-1]))
    return tf.reduce_sum(by_row, axis=2), tf.reduce_sum(g, axis=(1, 2, 3))


def pooled_conv(
    images: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    keep: Callable[..., Any] = lambda *x: x,
    tap_sums: Callable[[_Seen, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = tap_sums,
) -> tf.Tensor:
    """A "same" 3×3 convolution of one channel, its bias, ReLU and 2×2 max pooling.

    For images (k, n, 2h, 2w), kernel (k, 3, 3, 1, filters) and bias (k, filters) it returns
    (k, n, h, w, filters). XLA makes one loop of it, so that what is not pooled yet never passes
    memory. The images get no gradient, for which `keep` may keep outputs and winners.
    """
    n_lanes, n_images, rows, columns = images.shape
    height, width, filters = rows // 2, columns // 2, kernel.shape[-1]
    blocks = tf.reshape(_frame(images), (n_lanes, n_images, height + 1, 2, width + 1, 2))

    def seen(r: int, c: int) -> tf.Tensor:
        """Of each 2×2 block the pixel [r, c] of the 4×4 that its windows see: (k, n, h, w, 1)."""
        x = blocks[:, :, r // 2 : r // 2 + height, r % 2, c // 2 : c // 2 + width, c % 2]
        return x[..., tf.newaxis]

    @tf.custom_gradient
    def convolve(kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        taps = tf.reshape(kernel, (n_lanes, 3, 3, 1, 1, 1, filters))
        block = [tf.add_n([seen(r + k, c + m) * taps[:, k, m] for k, m in TAPS]) for r, c in BLOCK]
        outputs, winners = keep(*relu_of_largest(block, bias))

        def gradient(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            of_taps, of_bias = tap_sums(seen, winners, tf.where(winners < 0, 0.0, g))
            return tf.reshape(of_taps, kernel.shape), of_bias

        return outputs, gradient

    return convolve(kernel, bias)


def pool(x: tf.Tensor) -> tf.Tensor:
    """2×2 "same" max pooling of x (k, n, rows, columns, channels) that has no negative values."""
    if x.shape[2] % 2:
        x = tf.pad(x, [[0, 0], [0, 0], [0, 1], [0, 1], [0, 0]])
    height, width = x.shape[2] // 2, x.shape[3] // 2
    x = tf.reshape(x, (*x.shape[:2], height, 2, width, 2, x.shape[-1]))
    return reduce(tf.maximum, [x[:, :, :, r, :, c] for r, c in BLOCK])


def _fold(kernel: tf.Tensor, places: np.ndarray, axis: int) -> tf.Tensor:
    """Sums of taps along an axis of (…, 3, …) that one pixel is seen through: (…, seen, rows, …).

    The two new axes take its place; places are those of `tap_places`.
    """
    # Slices that are added: as a product it is too small for XLA's GPU compiler to tile, and
    # rounded to TF32.
    taps = tf.unstack(kernel, axis=axis)
    none = tf.zeros_like(taps[0])
    sums = [
        tf.stack([sum((taps[k] for k in np.flatnonzero(row)), none) for row in seen], axis=axis)
        for seen in places.swapaxes(0, 1)
    ]
    return tf.stack(sums, axis=axis)


def _upsampled(
    patches: tf.Tensor, places: np.ndarray, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """ReLU of an upsampled convolution, by phase: (k, n, h, w, 2, 2, filters)."""
    n_lanes, filters = kernel.shape[0], kernel.shape[-1]
    folded = _fold(_fold(kernel, places, axis=1), places, axis=3)  # (k, a, p, b, q, channels, …)
    folded = tf.transpose(folded, (0, 1, 3, 5, 2, 4, 6))
    folded = tf.reshape(folded, (n_lanes, -1, len(BLOCK) * filters))
    y = tf.matmul(_rows(patches), folded)
    return tf.nn.relu(add_bias(tf.reshape(y, (*patches.shape[:4], 2, 2, filters)), bias))


def upsampled_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Nearest 2×2 upsampling of x (k, n, h, w, channels), "same" 3×3 convolution, bias and ReLU."""
    y = _upsampled(_patches(_frame(x), 3), SAME_TAPS, kernel, bias)
    y = tf.transpose(y, (0, 1, 2, 4, 3, 5, 6))
    return tf.reshape(y, (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], y.shape[-1]))


def upsampled_valid_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The same with a valid convolution, left in phases: (k, n, h − 1, w − 1, 2, 2, filters).

    Axes 4 and 5 are the phase (row and column parity) of the output pixel.
    """
    return _upsampled(_patches(x, 2), VALID_TAPS, kernel, bias)


def last_conv(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Nearest 2×2 upsampling, "same" 3×3 convolution with one filter, and its bias.

    For x (k, n, h, w, 2, 2, channels) in phases it returns (k, n, 4h, 4w): every pixel of x leaves
    a 4×4 stamp, two pixels apart.
    """
    n_lanes, n_images, height, width = x.shape[:4]
    places = STAMP_TAPS[:, np.newaxis]
    stamp = tf.reshape(_fold(_fold(kernel, places, axis=1), places, axis=3), (n_lanes, 16, -1))
    stamps = tf.matmul(_rows(x), stamp, transpose_b=True)
    stamps = tf.reshape(stamps, (n_lanes, n_images, height, width, 2, 2, 4, 4))
    stamps = tf.transpose(stamps, (0, 1, 2, 4, 3, 5, 6, 7))
    stamps = tf.reshape(stamps, (n_lanes, n_images, 2 * height, 2 * width, 4, 4))
    rows = tf.stack(join_stamps(stamps, axis=2, place=4), axis=3)
    both = tf.stack(join_stamps(rows, axis=4, place=5), axis=5)
    return add_bias(tf.reshape(both, (n_lanes, n_images, 4 * height, 4 * width, 1)), bias)[..., 0]


def threefry(
    key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Threefry-2x32 with 20 rounds: random bits as a pure function of key and counter, uint32.

    Elementwise, so that all lanes draw at once and each from its own key alone. TensorFlow's own
    generators take one key a call, and a call a lane costs a GPU more than the layer does. Salmon,
    Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    xor = tf.bitwise.bitwise_xor
    keys = (*key, xor(xor(key[0], key[1]), tf.constant(0x1BD11BDA, tf.uint32)))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for block in range(5):
        for left in ((13, 15, 26, 6), (17, 29, 16, 24))[block % 2]:
            x += y
            rotated = tf.bitwise.left_shift(y, tf.constant(left, tf.uint32))
            rotated |= tf.bitwise.right_shift(y, tf.constant(32 - left, tf.uint32))
            y = xor(x, rotated)
        x += keys[(block + 1) % 3]
        y += keys[(block + 2) % 3] + tf.constant(block + 1, tf.uint32)
    return x, y
