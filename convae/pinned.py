"""TensorFlow and Keras with the settings that all numbers of this project rest on.

Import both from here, `from convae.pinned import keras, tf`: neither a person's environment, nor
`keras.json`, nor what a builder sets for its own model then changes another model's numbers.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from convae.errors import UserError

__all__ = ["Settings", "keras", "settings", "tf", "with_settings"]

Settings = tuple[Any, ...]  # a value for each of `_GLOBAL`

# These go before what keras.json says.
os.environ.update(KERAS_BACKEND="tensorflow", KERAS_NNX_ENABLED="false")
# Keras imports matplotlib where it can, for half a second, and fails over some settings of it.
_modules: dict[str, Any] = sys.modules
_hides_matplotlib = "matplotlib" not in _modules
if _hides_matplotlib:
    _modules["matplotlib"] = None
try:
    import keras
    import tensorflow as tf
finally:
    if _hides_matplotlib:
        del _modules["matplotlib"]

if keras.backend.backend() != "tensorflow":
    raise UserError(
        f"Keras already runs here on {keras.backend.backend()}, but the models are trained with"
        " TensorFlow; start a new process for them."
    )

# How each global setting that changes a model's numbers is read and set, and our value.
_GLOBAL = (
    (keras.config.floatx, keras.config.set_floatx, "float32"),
    (keras.config.dtype_policy, keras.config.set_dtype_policy, "float32"),
    (keras.config.epsilon, keras.config.set_epsilon, 1e-7),
    (keras.config.image_data_format, keras.config.set_image_data_format, "channels_last"),
    (tf.config.functions_run_eagerly, tf.config.run_functions_eagerly, False),
    (tf.config.optimizer.get_jit, tf.config.optimizer.set_jit, ""),
    (
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
        True,
    ),
)


def settings() -> Settings:
    """The present global settings."""
    return tuple(read() for read, _, _ in _GLOBAL)


def _apply(values: Settings) -> None:
    for (read, write, _), value in zip(_GLOBAL, values, strict=True):
        if read() != value:
            write(value)


@contextmanager
def with_settings(values: Settings | None = None) -> Iterator[None]:
    """While the block runs, these settings hold, or None for ours; whatever it sets is undone.

    So are the filters of warnings: one that raises what Keras warns of would break all after it.
    """
    before = settings()
    _apply(PINNED if values is None else values)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        _apply(before)


PINNED: Settings = tuple(ours for _, _, ours in _GLOBAL)
# Nothing is read: to read jit has TensorFlow read its flags, which `convae.xla` sets later.
for _, write, ours in _GLOBAL:
    write(ours)
