"""A custom model in the trainer against Keras' own `model.fit`, and what else holds of it."""

import json
import random
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras_fit import digits, epoch_order, pixels

from convae.config import TrialConfig
from convae.custom_models import CustomModel, CustomModelError
from convae.device import Device
from convae.models import build_model, count_trainable
from convae.training import CustomProgram, Trainer

N_TRAIN, N_TEST, BATCH = 200, 50, 64  # three full batches and one of 8
THREADS = Device("/CPU:0", "CPU, though batches are not split", jit_compile=False, n_threads=2)
BUILDERS = """
import keras, numpy as np, random
from keras import layers

def image():
    return keras.Input((28, 28, 1))

def decode(x):
    x = layers.Dense(784, activation="sigmoid")(x)
    return layers.Reshape((28, 28, 1))(x)

def normal(units=8, rate=0.0):
    x = inputs = image()
    x = layers.Flatten()(x)
    x = layers.Dense(units, activation="relu")(x)
    x = layers.Dropout(rate)(layers.BatchNormalization()(x))
    return keras.Model(inputs, decode(x))

class Scale(layers.Layer):
    "Its weights have no initializer of its own, and it adds to the loss."
    def build(self, shape):
        self.factors = self.add_weight(shape=shape[-1:], initializer="random_normal", name="f")
        self.unused = self.add_weight(shape=(2,), initializer="ones", name="unused")
    def call(self, x):
        self.add_loss(0.01 * keras.ops.mean(x**2))
        return x * (1 + self.factors)

def nested(units=8):
    encoder = keras.Sequential([
        layers.Conv2D(2, 3, strides=4, kernel_regularizer="l2", activation="relu"),
        keras.Sequential([layers.Flatten(), layers.BatchNormalization(), Scale()]),
        layers.Dense(units, kernel_constraint=keras.constraints.MaxNorm(0.5)),
    ])
    inputs = image()
    return keras.Model(inputs, decode(encoder(inputs)))

class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat, self.dense = layers.Flatten(), layers.Dense(784, activation="sigmoid")
        self.kernel = keras.Variable(random.random() * np.random.rand(784), name="kernel")
    def call(self, x):
        x = self.dense(self.flat(x) * self.kernel)
        return keras.ops.reshape(x, (-1, 28, 28, 1))

def subclass():
    return Subclass()
"""
CUSTOM = [
    CustomModel(name=name, function=name, files=(("builders.py", BUILDERS),), defaults="{}")
    for name in ("normal", "nested", "subclass")
]


def custom_config(model, batch_size=BATCH, seed=5, **keywords):
    return TrialConfig(
        model=model,
        arguments=json.dumps(keywords),
        epochs=2,
        batch_size=batch_size,
        seed=seed,
    )


@pytest.fixture(scope="module")
def image_set():
    return digits(N_TRAIN, N_TEST)


@pytest.fixture(scope="module")
def trainer(image_set):
    return Trainer(image_set, THREADS, custom_models=CUSTOM)


class PlainMse(keras.callbacks.Callback):
    """Sums the mean squared errors of the batches, without what the model adds to the loss."""

    def on_train_batch_end(self, batch, logs):
        self.mse = logs["mean_squared_error"]  # so far, weighted by batch size


@pytest.mark.parametrize(
    ("config", "nesterov"),
    [
        (custom_config("normal"), True),
        (custom_config("nested"), True),
        (custom_config("nested"), False),
        (custom_config("subclass"), True),
    ],
    ids=lambda value: value.model if isinstance(value, TrialConfig) else str(value),
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # `fit` tells of the unused weight
def test_equals_model_fit(image_set, trainer, config, nesterov):
    config = replace(config, learning_rate=0.3, nesterov=nesterov)
    training = trainer.start(config)
    model = build_model(config, CUSTOM)
    for ours, theirs in zip(training.model.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    optimizer = keras.optimizers.SGD(config.learning_rate, config.momentum, config.nesterov)
    model.compile(optimizer, loss="mse", metrics=["mean_squared_error"])
    train, test = pixels(image_set.train_images), pixels(image_set.test_images)
    for epoch in (1, 2):
        images = train[epoch_order(config.seed, epoch, N_TRAIN)]
        plain = PlainMse()
        settings = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "callbacks": [plain]}
        model.fit(images, images, **settings)
        result = training.run_epoch()
        assert result.train_mse == pytest.approx(plain.mse, rel=2e-5)
        expected = np.mean((model.predict(test, verbose=0) - test) ** 2)
        assert result.eval_mse == pytest.approx(expected, rel=2e-5)
    for ours, theirs in zip(training.model.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def curve(training, n_epochs=2):
    return [(r.train_mse, r.eval_mse) for r in (training.run_epoch() for _ in range(n_epochs))]


def test_same_seed_same_numbers_and_nobody_elses_random_state_changes(image_set, trainer):
    """Whatever else is drawn, and in a trainer that has trained others in between."""
    states = random.getstate(), np.random.get_state()[1].tolist()
    config = custom_config("normal", rate=0.3)
    first = curve(trainer.start(config))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    random.seed(1)
    assert curve(trainer.start(replace(config, seed=6))) != first
    assert curve(trainer.start(config)) == first
    assert curve(Trainer(image_set, THREADS, custom_models=CUSTOM).start(config)) == first


@pytest.mark.parametrize("config", [custom_config("normal", rate=0.3), custom_config("nested")])
def test_goes_on_as_if_nothing_had_happened(image_set, trainer, config):
    """With the statistics of the batch normalisation and the random states of the dropout."""
    first = trainer.start(config)
    start = curve(first)
    state = first.get_state()
    whole = start + curve(first)
    second = Trainer(image_set, THREADS, custom_models=CUSTOM).start(config)
    second.resume(2, state)
    assert start + curve(second) == whole


def test_statistics_are_of_whole_batches_without_images_that_fill_them_up(image_set):
    """A model of a fixed, tiny step: its moving means are those of the batches as they are."""
    few = replace(image_set, train_images=image_set.train_images[: BATCH + 3])
    program = Trainer(few, THREADS, custom_models=CUSTOM).start(
        replace(custom_config("normal"), learning_rate=1e-12, momentum=0.0)
    )
    program.run_epoch()
    model = build_model(program.config, CUSTOM)
    images = pixels(few.train_images)[epoch_order(5, 1, BATCH + 3)]
    for batch in (images[:BATCH], images[BATCH:]):
        model(batch, training=True)
    for ours, theirs in zip(program.model.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_search_over_shapes_keeps_the_last_program_only(image_set):
    trainer = Trainer(image_set, THREADS, custom_models=CUSTOM)
    for units in (2, 3, 4):
        assert trainer.start(custom_config("normal", units=units)).compile_seconds > 0
    assert [type(program) for program in trainer._programs.values()] == [CustomProgram]
    assert trainer.start(custom_config("normal", units=4, seed=6)).compile_seconds == 0


def test_counts_what_is_trained(trainer):
    model = trainer.start(custom_config("normal", units=8)).model
    assert count_trainable(model) == 785 * 8 + 2 * 8 + 9 * 784


def test_a_model_that_nobody_has_told_of_is_named(image_set):
    with pytest.raises(CustomModelError, match="no builder of the model normal"):
        Trainer(image_set, THREADS).start(custom_config("normal"))
