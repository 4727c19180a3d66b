"""The report's two autoencoders as Keras models: the definition that all faster code must equal.

Both map images of shape (batch, 28, 28, 1) with pixels in [0, 1] to the same shape, in (0, 1). A
model of a person's own, which its builder defines, is made here too.
"""

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import layers

from convae.config import TrialConfig
from convae.custom_models import CustomModel, CustomModelError, load_builder

IMAGE_SHAPE = (28, 28, 1)
LATENT = "latent"  # name of the layer whose output is the code
_BUILDING = threading.RLock()  # builders draw from random states that the whole process shares


def build_conv_autoencoder(latent_filters: int = 8) -> keras.Model:
    """The convolutional autoencoder: a 4×4×latent_filters code, 4,385 parameters with 8 filters.

    The report's text contradicts itself twice. Its third convolution has 16 filters but its code
    is 4×4×8: read as 8. Its decoder is "same" throughout, which would give 32×32 images: the third
    convolution of the decoder is read as "valid" (16×16 → 14×14 → 28×28).
    """
    image = keras.Input(IMAGE_SHAPE, name="image")
    x = image
    for filters, name in ((16, None), (8, None), (latent_filters, LATENT)):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2, padding="same", name=name)(x)
    for filters, padding in ((8, "same"), (8, "same"), (16, "valid")):
        x = layers.Conv2D(filters, 3, padding=padding, activation="relu")(x)
        x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
    return keras.Model(image, x, name="conv_autoencoder")


def build_dense_autoencoder(
    hidden_units: int = 512,
    hidden_activation: str = "relu",
    dropout: float = 0.0,
) -> keras.Model:
    """The dense autoencoder: one hidden layer; 804,112 parameters with 512 units.

    The activation of the hidden layer and the absence of dropout are this project's reading.
    """
    image = keras.Input(IMAGE_SHAPE, name="image")
    x = layers.Flatten()(image)
    x = layers.Dense(hidden_units, activation=hidden_activation, name=LATENT)(x)
    if dropout > 0:
        x = layers.Dropout(dropout)(x)
    x = layers.Dense(image.shape[1] * image.shape[2], activation="sigmoid")(x)
    x = layers.Reshape(IMAGE_SHAPE)(x)
    return keras.Model(image, x, name="dense_autoencoder")


def build_model(config: TrialConfig, custom_models: Iterable[CustomModel] = ()) -> keras.Model:
    """The model that a trial trains.

    A built-in one has Keras' default initial weights, whatever they are; all variables of a
    person's own are a pure function of the trial's seed.

    Raises:
        CustomModelError: the model is not among a person's own.
    """
    if config.is_custom:
        with _BUILDING, _seeded(config.seed):
            model = _builder_of(config.model, custom_models)(**config.keywords)
            if not getattr(model, "built", True):
                model(keras.Input(IMAGE_SHAPE))
        return model
    with _BUILDING:
        if config.model == "conv":
            assert config.latent_filters is not None
            return build_conv_autoencoder(config.latent_filters)
        assert config.hidden_units is not None
        assert config.hidden_activation is not None
        assert config.dropout is not None
        return build_dense_autoencoder(
            config.hidden_units, config.hidden_activation, config.dropout
        )


def count_trainable(model: keras.Model) -> int:
    """The number of its trainable weights."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def reset_custom(
    model: keras.Model, config: TrialConfig, custom_models: Iterable[CustomModel]
) -> None:
    """Sets all variables of a person's own model as `build_model` makes them."""
    # A second model, since initialisers are what layers make of them; on one device for all.
    with keras.device("cpu:0"):
        fresh = build_model(config, custom_models)
    for variable, value in zip(model.variables, fresh.variables, strict=True):
        variable.assign(value)


def reset(model: keras.Model, seed: int) -> None:
    """Sets fresh initial weights and random states of dropout, a pure function of the seed."""
    streams = iter(np.random.SeedSequence(seed).spawn(2 * len(model.layers)))
    for layer in model.layers:
        layer_seed = int(next(streams).generate_state(1)[0] >> 1)
        for variable in layer.trainable_variables:
            initializer = getattr(layer, f"{variable.name}_initializer")
            settings = initializer.get_config()
            if "seed" in settings:
                settings["seed"] = layer_seed
            fresh = type(initializer).from_config(settings)
            variable.assign(fresh(variable.shape, dtype=variable.dtype))
        if isinstance(layer, keras.layers.Dropout):
            state = layer.seed_generator.state
            state.assign(np.array([layer_seed, 0], dtype=state.dtype))


def _builder_of(name: str, custom_models: Iterable[CustomModel]) -> Callable[..., keras.Model]:
    for custom in custom_models:
        if custom.name == name:
            return load_builder(custom)
    raise CustomModelError(f"There is no builder of the model {name}; name it in a study file.")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """While the block runs, whatever is random follows from the seed."""
    python, numpy = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:  # TensorFlow's own cannot be told
        random.setstate(python)
        np.random.set_state(numpy)
