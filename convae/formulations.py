"""A cheaper way for a CPU to compute exactly what a Keras model computes, with the same weights.

The Keras model stays the definition; the tests hold the cheaper form to it, gradients included.
`convae.models.BUILT_IN` says which form a CPU uses of which model: a rule, not a race, because
formulations round differently, and a choice by timing would make the same seed give other numbers
on another day. `benchmarks/LOG.md` tells what was tried; `benchmarks.formulations` measures it.
"""

from collections.abc import Callable
from typing import Any

from convae.operations import (
    add_stamps,
    conv_swapped,
    pooled_conv,
    stamp,
    upsampled_valid_conv,
)
from convae.pinned import keras, tf

# (images, training) -> reconstructions
Reconstruct = Callable[[tf.Tensor, bool], tf.Tensor]
Formulation = Callable[[keras.Model], Reconstruct]


def as_defined(model: keras.Model) -> Reconstruct:
    """The model as Keras computes it."""
    return lambda images, training: model(images, training=training)


def conv_on_cpu(model: keras.Model) -> Reconstruct:
    """`convae.models.build_conv_autoencoder` in fewer passes over memory.

    - The first convolution, its ReLU and pooling are one loop over the pooled pixels: what is not
      pooled yet, four times as much, never passes memory, and no gradient of it is written.
    - The second convolution's filter gradient has its two factors swapped, so that 16 channels
      fill the processor's vectors instead of 8.
    - A nearest 2×2 upsampling and the valid 3×3 convolution after it are a matrix product at the
      low resolution: 2×2 pixels of it times four sets of filters, one for each phase (row and
      column parity) of the output pixel.
    - With the last upsampling and convolution, every low-resolution pixel leaves a 4×4 stamp on
      the output, two pixels apart: a matrix product makes the stamps, XLA adds them up.

    Raises:
        ValueError: the model has other layers than these.
    """
    layers = {layer.name: layer for layer in model.layers}
    middle = (
        *("encoder_pool_2", "encoder_conv_3", "latent"),
        *("decoder_conv_1", "decoder_upsampling_1", "decoder_conv_2"),
    )
    before = ("image", "encoder_conv_1", "encoder_pool_1", "encoder_conv_2")
    after = ("decoder_upsampling_2", "decoder_conv_3", "decoder_upsampling_3", "output")
    if tuple(layers) != (expected := (*before, *middle, *after)):
        raise ValueError(f"The layers are {', '.join(layers)}, not {', '.join(expected)}.")
    first, second = layers["encoder_conv_1"], layers["encoder_conv_2"]
    valid, last = layers["decoder_conv_3"], layers["output"]

    def reconstruct(images: tf.Tensor, training: bool) -> tf.Tensor:
        x = pooled_conv(images, *_weights(first))
        kernel, bias = _weights(second)
        x = second.activation(tf.nn.bias_add(conv_swapped(x, kernel), bias))
        for name in middle:
            x = layers[name](x, training=training)
        x = upsampled_valid_conv(x, *_weights(valid))
        kernel, bias = _weights(last)
        stamps = tf.matmul(tf.reshape(x, (-1, valid.filters)), stamp(kernel))
        stamps = tf.reshape(stamps, (-1, *x.shape[1:-1], 4, 4))
        return last.activation(add_stamps(stamps) + bias)

    return reconstruct


def _weights(layer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)
