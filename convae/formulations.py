"""Cheaper ways to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold every formulation to it, gradients included.
`benchmarks/README.md` tells what was tried, what each is worth, and why the choice is a rule.
"""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import keras
import tensorflow as tf
from keras import layers

from convae.operations import (
    add_stamps,
    conv_swapped,
    patches_conv,
    pooled_conv,
    stamp,
    upsampled_valid_conv,
)

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


def patches(model: keras.Model) -> Reconstruct:
    """Every convolution as patches times a matrix; meant for a GPU, where none was measured yet."""

    def reconstruct(images: tf.Tensor, training: bool) -> tf.Tensor:
        x = images
        for layer in model.layers[1:]:
            if isinstance(layer, layers.Conv2D):
                x = tf.cast(x, layer.compute_dtype)
                kernel, bias = (tf.cast(weight, layer.compute_dtype) for weight in _weights(layer))
                if layer.padding == "same":
                    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
                x = layer.activation(patches_conv(x, kernel, bias))
            else:
                x = layer(x, training=training)
        return x

    return reconstruct


FORMULATIONS: Final[Mapping[str, Callable[[keras.Model], Reconstruct]]] = MappingProxyType(
    {"as-defined": as_defined, "cheaper-on-cpu": cheaper_on_cpu, "patches": patches}
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


def _weights(layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)
