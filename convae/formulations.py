"""A cheaper way for a CPU to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold the cheaper form to it, gradients included.
`benchmarks/LOG.md` tells what was tried, and `python -m benchmarks.formulations` measures it. A
CPU uses it by rule, not by a race: formulations round differently, so a choice by timing at run
time would make the same seed give other numbers on another day.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from convae.operations import (
    add_stamps,
    conv_swapped,
    pooled_conv,
    stamp,
    upsampled_valid_conv,
)

# (images, training) -> reconstructions
Reconstruct = Callable[[tf.Tensor, bool], tf.Tensor]
Formulation = Callable[[keras.Model], Reconstruct]


def as_defined(model: keras.Model) -> Reconstruct:
    """The model as Keras computes it."""
    return lambda images, training: model(images, training=training)


def cheaper_on_cpu(model: keras.Model) -> Reconstruct:
    """The convolutional autoencoder in fewer passes over memory; any other as it is.

    Any other is also the convolutional autoencoder in bfloat16, where no form was measured.

    - The first convolution, its ReLU and pooling are one loop over the pooled pixels: what is not
      pooled yet, four times as much, never passes memory, and no gradient of it is written.
    - The second convolution's filter gradient has its two factors swapped, so that 16 channels
      fill the processor's vectors instead of 8.
    - A nearest 2×2 upsampling and the valid 3×3 convolution after it are a matrix product at the
      low resolution: 2×2 pixels of it times four sets of filters, one for each phase (row and
      column parity) of the output pixel.
    - With the last upsampling and convolution, every low-resolution pixel leaves a 4×4 stamp on
      the output, two pixels apart: a matrix product makes the stamps, XLA adds them up.
    """
    last_layer = model.layers[-1]
    if not isinstance(last_layer, layers.Conv2D) or last_layer.compute_dtype != "float32":
        return as_defined(model)
    _, first, _, second, *middle, upsample, valid, last_upsample, last = model.layers
    assert isinstance(upsample, layers.UpSampling2D)
    assert isinstance(last_upsample, layers.UpSampling2D)
    assert valid.padding == "valid"

    def reconstruct(images: tf.Tensor, training: bool) -> tf.Tensor:
        x = pooled_conv(images, *_weights(first))
        kernel, bias = _weights(second)
        x = second.activation(tf.nn.bias_add(conv_swapped(x, kernel), bias))
        for layer in middle:
            x = layer(x, training=training)
        x = upsampled_valid_conv(x, *_weights(valid))
        kernel, bias = _weights(last)
        stamps = tf.matmul(tf.reshape(x, (-1, valid.filters)), stamp(kernel))
        stamps = tf.reshape(stamps, (-1, *x.shape[1:-1], 4, 4))
        return last.activation(add_stamps(stamps) + bias)

    return reconstruct


def _weights(layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)
