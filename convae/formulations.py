"""Cheaper ways to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold every formulation to it, gradients included.
`benchmarks/` measures what each is worth.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers

Forward = Callable[..., tf.Tensor]

# Upsampled row 2i + phase, seen through tap k of a 3-tap kernel, is low-resolution row
# i + (phase + k − 1) // 2. _TAPS[phase, row offset + 1, k] is 1 where that is so.
_TAPS = np.zeros((2, 3, 3), np.float32)
for _phase in range(2):
    for _k in range(3):
        _TAPS[_phase, (_phase + _k - 1) // 2 + 1, _k] = 1


def folded_upsampling(model: keras.Model) -> Forward | keras.Model:
    """The model with its last upsampling folded into the one-filter convolution after it.

    A nearest 2×2 upsampling followed by a 3×3 convolution of one filter is one 3×3 convolution of
    four filters at the low resolution, one filter for each phase of the output pixel, followed by
    a depth-to-space. It is the same sum in another order, over a quarter of the positions.

    Returns:
        A function of (images, training), or the model itself if it does not end in that pair.
    """
    *head, upsampling, convolution = model.layers
    if not isinstance(upsampling, layers.UpSampling2D) or convolution.filters != 1:
        return model
    trunk = keras.Model(model.inputs, head[-1].output)

    def forward(images: tf.Tensor, training: bool) -> tf.Tensor:
        low = trunk(images, training=training)
        kernel = tf.einsum(
            "pak,qbl,klio->abipqo", _TAPS, _TAPS, tf.convert_to_tensor(convolution.kernel)
        )
        kernel = tf.reshape(kernel, (3, 3, low.shape[-1], 4))
        phases = tf.nn.conv2d(low, kernel, strides=1, padding="SAME")
        high = tf.nn.depth_to_space(phases, 2)
        return convolution.activation(tf.nn.bias_add(high, convolution.bias))

    return forward
