"""The layers of a GPU's form against TensorFlow's own, and both forms against the Keras model."""

import numpy as np
import pytest
import tensorflow as tf

from convae import banded, lane_operations
from convae.config import TrialConfig
from convae.lane_program import lane_network
from convae.models import build_model, reset

N_LANES, N_IMAGES = 2, 5


def up(x):
    return tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)


def conv(x, kernel, padding="SAME"):
    return tf.nn.conv2d(x, kernel, 1, padding)


def relu_pool(x, bias):
    return tf.nn.max_pool2d(tf.nn.relu(x + bias), 2, 2, "SAME")


def first(x, kernel, bias):
    return relu_pool(conv(x[..., tf.newaxis], kernel), bias)


# Ours, of all lanes; TensorFlow's, of one; shapes of an image and of the weights.
LAYERS = {
    "pooled_conv": (banded.pooled_conv, first, (28, 28), (3, 3, 1, 16), (16,)),
    "pooled_conv by pixels": (lane_operations.pooled_conv, first, (28, 28), (3, 3, 1, 16), (16,)),
    "row_conv": (banded.row_conv, conv, (14, 14, 16), (3, 3, 16, 8)),
    "same_conv": (banded.same_conv, conv, (7, 7, 8), (3, 3, 8, 4)),
    "up_same_conv": (banded.up_same_conv, lambda x, w: conv(up(x), w), (4, 4, 8), (3, 3, 8, 4)),
    "up_valid_conv": (
        banded.up_valid_conv,
        lambda x, w: conv(up(x), w, "VALID"),
        (8, 8, 8),
        (3, 3, 8, 16),
    ),
    "last_conv": (
        banded.last_conv,
        lambda x, w, b: (conv(up(x), w) + b)[..., 0],
        (14, 14, 16),
        (3, 3, 16, 1),
        (1,),
    ),
    "relu": (banded.relu, lambda x, b: tf.nn.relu(x + b), (14, 14, 16), (16,)),
    "relu_pool": (banded.relu_pool, relu_pool, (14, 14, 8), (8,)),
    "relu_pool of an odd size": (banded.relu_pool, relu_pool, (7, 7, 8), (8,)),
}


def both(layer, inputs, of_outputs):
    """Outputs, and the gradient of each input."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(*inputs)
    return outputs, tape.gradient(outputs, inputs, of_outputs, unconnected_gradients="zero")


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_equals_tensorflows(name):
    """To the bit, of small integers, many of which are equal: which pixel wins a pool counts."""
    ours, theirs, image, *weights = LAYERS[name]
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return tf.constant(rng.integers(-2, 3, shape).astype(np.float32))

    inputs = [numbers(N_LANES, N_IMAGES, *image), *(numbers(N_LANES, *shape) for shape in weights)]
    of_outputs = numbers(N_LANES, N_IMAGES, *theirs(*(x[0] for x in inputs)).shape[1:])
    compiled = tf.function(both, jit_compile=True, autograph=False)
    outputs, gradients = compiled(ours, inputs, of_outputs)
    start = int(name.startswith("pooled_conv"))  # whose images get no gradient
    for lane in range(N_LANES):
        inputs_of_one = [x[lane] for x in inputs]
        expected, expected_gradients = both(theirs, inputs_of_one, of_outputs[lane])
        np.testing.assert_array_equal(outputs[lane], expected)
        for our, their in zip(gradients[start:], expected_gradients[start:], strict=True):
            np.testing.assert_array_equal(our[lane], their)


@pytest.mark.parametrize(
    ("form", "latent_filters", "at_once"),
    [("pixels", 8, 8), ("pixels", 16, 8), ("rows", 8, 8), ("rows", 16, 8), ("rows", 8, 1)],
)
def test_conv_lanes_equal_the_model(form, latent_filters, at_once):
    """Outputs pixel by pixel and gradients, of lanes with other weights and images each.

    One lane's gradients may differ: a pixel can win a pool, or be positive, by less than rounding.
    """
    rng = np.random.default_rng(0)
    n_lanes = 8
    model = build_model(TrialConfig(model="conv", latent_filters=latent_filters))
    trials = []
    for seed in range(n_lanes):
        reset(model, seed)  # biases are zero then
        trials.append([x + rng.normal(0, 0.1, x.shape).astype("f4") for x in model.get_weights()])
    images = tf.constant(rng.random((n_lanes, 2, 28, 28), dtype=np.float32))

    @tf.function(jit_compile=True, autograph=False)
    def run(weights, images):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            outputs = lane_network("conv", form)(weights, images, None, None)
            loss = tf.reduce_sum(tf.reduce_mean(tf.square(outputs - images), axis=(1, 2, 3)))
        return outputs, tape.gradient(loss, weights)

    weights = [tf.stack(each) for each in zip(*trials, strict=True)]
    parts = [slice(i, i + at_once) for i in range(0, n_lanes, at_once)]
    results = [run([x[part] for x in weights], images[part]) for part in parts]
    outputs, gradients = tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *results)
    n_equal = 0
    for lane, weights in enumerate(trials):
        model.set_weights(weights)
        with tf.GradientTape() as tape:
            expected = model(images[lane][..., tf.newaxis])[..., 0]
            loss = tf.reduce_mean(tf.square(expected - images[lane]))
        np.testing.assert_allclose(outputs[lane], expected, atol=1e-6)
        pairs = zip(gradients, tape.gradient(loss, model.trainable_variables), strict=True)
        n_equal += all(np.allclose(our[lane], its, rtol=1e-4, atol=1e-7) for our, its in pairs)
    assert n_equal >= n_lanes - 1
