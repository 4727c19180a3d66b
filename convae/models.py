"""The report's two autoencoders as Keras models: the definition that all faster code must equal.

Both map images of `IMAGE_SHAPE` with pixels in [0, 1] to images of that shape, in (0, 1). Custom
models, which a user's builder defines, are made here too.
"""

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from convae.config import CONV, DENSE, IMAGE_SHAPE, TrialConfig
from convae.custom_models import CustomModel, CustomModelError, load_builder
from convae.formulations import Formulation, as_defined, conv_on_cpu
from convae.pinned import keras

layers = keras.layers
LATENT: Final = "latent"  # name of the layer whose output is the code
_BUILDING = threading.RLock()  # builders draw from random states that the whole process shares


def build_conv_autoencoder(latent_filters: int = 8) -> keras.Model:
    """The convolutional autoencoder: a 4×4×latent_filters code, 4,385 parameters with 8 filters.

    The report's text contradicts itself twice. Its third convolution has 16 filters but its code
    is 4×4×8: read as 8. Its decoder is "same" throughout, which would give 32×32 images: the third
    convolution of the decoder is read as "valid" (16×16 → 14×14 → 28×28).
    """
    image = keras.Input(IMAGE_SHAPE, name="image")
    x = image
    for i, (filters, pool) in enumerate(
        ((16, "encoder_pool_1"), (8, "encoder_pool_2"), (latent_filters, LATENT)), start=1
    ):
        conv = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"encoder_conv_{i}"
        )
        x = layers.MaxPooling2D(2, padding="same", name=pool)(conv(x))
    for i, (filters, padding) in enumerate(((8, "same"), (8, "same"), (16, "valid")), start=1):
        conv = layers.Conv2D(
            filters, 3, padding=padding, activation="relu", name=f"decoder_conv_{i}"
        )
        x = layers.UpSampling2D(2, name=f"decoder_upsampling_{i}")(conv(x))
    x = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="output")(x)
    return keras.Model(image, x, name="conv_autoencoder")


def build_dense_autoencoder(
    hidden_units: int = 512, hidden_activation: str = "relu", dropout: float = 0.0
) -> keras.Model:
    """The dense autoencoder: one hidden layer; 804,112 parameters with 512 units.

    The activation of the hidden layer and the absence of dropout are this project's reading.
    """
    image = keras.Input(IMAGE_SHAPE, name="image")
    x = layers.Flatten(name="pixels")(image)
    x = layers.Dense(hidden_units, activation=hidden_activation, name=LATENT)(x)
    if dropout > 0:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(math.prod(IMAGE_SHAPE), activation="sigmoid", name="output_pixels")(x)
    x = layers.Reshape(IMAGE_SHAPE, name="output")(x)
    return keras.Model(image, x, name="dense_autoencoder")


class BuiltIn(NamedTuple):
    """A built-in model."""

    build: Callable[..., keras.Model]
    hyperparameters: tuple[str, ...]  # the fields of `TrialConfig` that `build` takes
    on_cpu: Formulation  # how a CPU computes it


BUILT_IN: Final[Mapping[str, BuiltIn]] = MappingProxyType(
    {
        CONV: BuiltIn(build_conv_autoencoder, ("latent_filters",), conv_on_cpu),
        DENSE: BuiltIn(
            build_dense_autoencoder, ("hidden_units", "hidden_activation", "dropout"), as_defined
        ),
    }
)


def build_model(config: TrialConfig, custom_models: Iterable[CustomModel] = ()) -> keras.Model:
    """The model that a trial trains.

    A built-in one has Keras' default initial weights, of no fixed seed; all variables of a custom
    one are a pure function of the trial's seed.

    Raises:
        CustomModelError: a custom model is not among these.
    """
    if config.is_custom:
        with _BUILDING, _seeded(config.seed):
            model = _builder_of(config.model, custom_models)(**config.keywords)
            if not getattr(model, "built", True):
                model(keras.Input(IMAGE_SHAPE))
        return model
    built_in = BUILT_IN[config.model]
    with _BUILDING:
        return built_in.build(**{name: getattr(config, name) for name in built_in.hyperparameters})


def count_trainable(model: keras.Model) -> int:
    """The number of its trainable weights."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def reset_custom(
    model: keras.Model, config: TrialConfig, custom_models: Iterable[CustomModel]
) -> None:
    """Sets all variables of a custom model as `build_model` makes them."""
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
