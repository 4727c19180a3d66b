"""The trainer against Keras' own `model.fit`, and the promises it makes about itself."""

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_fit import digits, epoch_order, fit

from convae.config import TrialConfig
from convae.device import Device
from convae.engine import Engine
from convae.errors import DivergenceError
from convae.formulations import as_defined, conv_on_cpu
from convae.models import BUILT_IN, build_conv_autoencoder
from convae.sharing import DeviceSharing
from convae.training import EpochProgram, Trainer, reconstruct

N_TRAIN, N_TEST, BATCH = 400, 150, 64  # six full batches and one of 16
GRAPH = Device("/CPU:0", "CPU as TensorFlow's graph", jit_compile=False)
THREADS = Device("/CPU:0", "CPU, batches in parts", jit_compile=False, n_threads=2)
XLA = Device("/CPU:0", "CPU by XLA, the way a GPU runs", jit_compile=True)


@pytest.fixture(scope="module")
def image_set():
    return digits(N_TRAIN, N_TEST)


def by_trainer(config, image_set, device, formulation=None):
    """The losses of the trainer's epochs, and the weights."""
    training = Trainer(image_set, device, formulation).start(config)
    results = [training.run_epoch() for _ in range(config.epochs)]
    return [(r.train_mse, r.eval_mse) for r in results], training.model.get_weights()


def by_engine(config, image_set, device):
    """The same of an engine for this trial alone."""
    engine = Engine.for_trial(config, image_set, device)
    engine.compile()
    engine.submit("trial", config, sharing=DeviceSharing.ALONE)
    while engine.step():
        pass
    epochs = engine.report("trial").epochs
    return [(r.train_mse, r.eval_mse) for r in epochs], engine.model("trial").get_weights()


WAYS = {
    "as defined": partial(by_trainer, device=GRAPH, formulation=as_defined),
    "by rule": partial(by_trainer, device=GRAPH),
    "in parts": partial(by_trainer, device=THREADS),
    "in a lane": partial(by_engine, device=XLA),
}


@pytest.mark.parametrize(
    ("model", "nesterov", "way"),
    [
        *(("conv", True, way) for way in ("as defined", "by rule", "in parts")),
        ("conv", False, "in parts"),
        ("dense", True, "by rule"),
        ("dense", True, "in parts"),
        ("dense", True, "in a lane"),
        ("dense", False, "by rule"),
        ("dense", False, "in a lane"),
    ],
)
def test_equals_model_fit(image_set, model, nesterov, way):
    config = TrialConfig(model=model, nesterov=nesterov, batch_size=BATCH, epochs=2, seed=5)
    expected_losses, expected = fit(config, image_set, 2)
    losses, weights = WAYS[way](config, image_set)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-5)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_an_engine_trains_on_a_cpu_what_the_trainer_does(image_set):
    """To the bit."""
    config = TrialConfig(model="conv", batch_size=BATCH, epochs=2)
    (losses, weights), (expected, those) = (
        by(config, image_set, GRAPH) for by in (by_engine, by_trainer)
    )
    assert losses == expected
    for ours, theirs in zip(weights, those, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_image_is_used_once_an_epoch():
    """The order is a permutation, and another one each epoch and each seed."""
    orders = [epoch_order(seed, epoch, N_TRAIN) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(N_TRAIN))
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_train_mse_weighs_the_partial_batch_by_its_size(image_set):
    """With a vanishing learning rate the epoch's mean must be the plain mean over all images."""
    config = TrialConfig(model="dense", learning_rate=1e-12, batch_size=BATCH)
    training = Trainer(image_set, GRAPH).start(config)
    output = reconstruct(training.model, image_set.train_images)
    expected = np.mean((output - image_set.train_images / 255) ** 2)
    assert training.run_epoch(evaluate=False).train_mse == pytest.approx(expected, rel=1e-5)


def test_search_split_never_reads_a_test_image(image_set):
    """A split of the training images alone: poisoned test images change nothing."""
    config = TrialConfig(model="dense", split="search", batch_size=BATCH, epochs=1)
    poisoned = replace(image_set, test_images=255 - image_set.test_images)
    clean, dirty = (Trainer(data, GRAPH).start(config) for data in (image_set, poisoned))
    one, other = clean.run_epoch(), dirty.run_epoch()
    assert (one.train_mse, one.eval_mse) == (other.train_mse, other.eval_mse)
    validation = image_set.train_images[N_TRAIN * 5 // 6 :]
    expected = np.mean((reconstruct(clean.model, validation) - validation / 255) ** 2)
    assert one.eval_mse == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{"model": "conv"}, {"model": "dense", "dropout": 0.3}], ids=["conv", "dropout"]
)
def test_same_seed_same_numbers(image_set, settings):
    """Also from a warm trainer that has trained another trial of the shape in between."""
    trainer = Trainer(image_set, GRAPH)

    def run(seed):
        training = trainer.start(TrialConfig(**settings, batch_size=BATCH, seed=seed))
        return [(r.train_mse, r.eval_mse) for r in (training.run_epoch() for _ in range(2))]

    first = run(1)
    assert run(2) != first
    assert run(1) == first
    other = Trainer(image_set, GRAPH).start(TrialConfig(**settings, batch_size=BATCH, seed=1))
    assert (lambda r: (r.train_mse, r.eval_mse))(other.run_epoch()) == first[0]


def test_initial_weights_are_keras_defaults():
    """Glorot uniform kernels, each of its own stream, and zero biases."""
    images = tf.constant(digits(BATCH, 1).train_images[..., None])
    program = EpochProgram(TrialConfig(model="conv", batch_size=BATCH), images, BATCH, images)
    program.reset(seed=0)
    weights = program.model.get_weights()
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        fan_in, fan_out = (int(np.prod(kernel.shape[:2])) * n for n in kernel.shape[2:])
        limit = np.sqrt(6 / (fan_in + fan_out))
        assert np.abs(kernel).max() <= limit
        assert np.abs(kernel).max() > 0.8 * limit
        np.testing.assert_array_equal(bias, 0)
    same_shape = [kernel for kernel in weights if kernel.shape == (3, 3, 8, 8)]
    assert len(same_shape) == 3
    assert not np.array_equal(same_shape[0], same_shape[1])


def test_a_second_trial_of_a_shape_does_not_compile(image_set):
    trainer = Trainer(image_set, GRAPH)
    assert trainer.start(TrialConfig(model="dense", batch_size=BATCH)).compile_seconds > 0
    again = trainer.start(
        TrialConfig(model="dense", batch_size=BATCH, learning_rate=0.1, momentum=0.9, seed=4)
    )
    assert again.compile_seconds == 0
    other = trainer.start(TrialConfig(model="dense", batch_size=BATCH, hidden_units=32))
    assert other.compile_seconds > 0


def test_non_finite_loss_is_a_divergence_with_its_epoch(image_set):
    training = Trainer(image_set, GRAPH).start(TrialConfig(model="dense", batch_size=BATCH))
    training.run_epoch()
    training.model.set_weights([np.full_like(w, np.nan) for w in training.model.get_weights()])
    with pytest.raises(DivergenceError, match="epoch 2") as caught:
        training.run_epoch()
    assert caught.value.epoch == 2


def test_evaluation_can_be_left_out(image_set):
    training = Trainer(image_set, GRAPH).start(TrialConfig(model="dense", batch_size=BATCH))
    result = training.run_epoch(evaluate=False)
    assert result.eval_mse is None
    assert result.eval_seconds == 0


def test_a_batch_larger_than_the_data_is_one_batch(image_set):
    training = Trainer(image_set, GRAPH).start(TrialConfig(model="dense", batch_size=10 * N_TRAIN))
    assert 0 < training.run_epoch().train_mse < 1


def test_reconstruct_shape_and_range(image_set):
    training = Trainer(image_set, GRAPH).start(TrialConfig(model="conv", batch_size=BATCH))
    output = reconstruct(training.model, image_set.test_images)
    assert output.shape == image_set.test_images.shape
    assert output.min() > 0
    assert output.max() < 1


@pytest.mark.parametrize("latent_filters", [8, 16])
def test_the_cheaper_form_equals_the_model(latent_filters):
    """Outputs pixel by pixel, borders included, and gradients.

    Where two pixels of a pooling are nearly equal, rounding decides who passes its gradient on, on
    each kind of processor otherwise: which may happen to one image, but not to most.
    """
    keras.utils.set_random_seed(0)
    model = build_conv_autoencoder(latent_filters)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # biases are zero at first: a test that they are used
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    weights = [weight.value for weight in model.trainable_weights]

    def run(reconstruct, images):
        with tf.GradientTape() as tape:
            outputs = reconstruct(images, True)
            loss = tf.reduce_mean(tf.square(outputs - images))
        return outputs, tape.gradient(loss, weights)

    equal = []
    for image in rng.random((5, 1, 28, 28, 1)):
        images = tf.constant(image, tf.float32)
        outputs, gradients = run(conv_on_cpu(model), images)
        expected_outputs, expected = run(as_defined(model), images)
        np.testing.assert_allclose(outputs, expected_outputs, atol=1e-6)
        pairs = zip(gradients, expected, strict=True)
        equal.append(all(np.allclose(*pair, rtol=1e-4, atol=1e-7) for pair in pairs))
    assert sum(equal) >= 4


def test_the_cheaper_form_refuses_a_model_of_other_layers():
    model = build_conv_autoencoder()
    image = keras.Input(model.input_shape[1:], name="image")
    x = keras.layers.Dropout(0.5, name="more")(image)
    with pytest.raises(ValueError, match="more, not image, encoder_conv_1"):
        conv_on_cpu(keras.Model(image, x))
    assert BUILT_IN["dense"].on_cpu is as_defined


@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(model="conv", learning_rate=0.5, batch_size=BATCH),
        TrialConfig(model="dense", hidden_units=16, dropout=0.3, batch_size=BATCH),
    ],
    ids=["conv", "dense with dropout"],
)
def test_a_resumed_trial_goes_on_as_if_nothing_had_happened(image_set, config):
    def curve(training, n_epochs):
        return [
            (r.epoch, r.train_mse, r.eval_mse)
            for _ in range(n_epochs)
            for r in [training.run_epoch()]
        ]

    one, other = Trainer(image_set, GRAPH), Trainer(image_set, GRAPH)
    whole = curve(one.start(config), 4)
    first = one.start(config)
    start, state = curve(first, 2), first.get_state()
    curve(other.start(config), 3)  # the other process has trained something else before
    second = other.start(config)
    second.resume(2, state)
    assert start + curve(second, 2) == whole


def test_a_state_of_another_shape_is_refused(image_set):
    trainer = Trainer(image_set, GRAPH)
    dense, other = (trainer.start(TrialConfig(model="dense", hidden_units=n)) for n in (16, 8))
    with pytest.raises(ValueError, match="shape"):
        other.resume(1, dense.get_state())
