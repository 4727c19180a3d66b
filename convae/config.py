"""The frozen description of one trial: architecture, optimiser, data split, epochs and seed.

A `TrialConfig` validates itself when it is made, so whoever holds one holds a trial that can run.
The defaults are the 2021 report's reference setting, and this project's reading where it is silent.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MODELS = ("conv", "dense")
HIDDEN_ACTIVATIONS = ("relu", "sigmoid")
# "full": 60,000 training and 10,000 test images, as in the report.
# "search": the first 50,000 training images, validated on the other 10,000; no test image.
SPLITS = ("full", "search")
# "bfloat16" is Keras' mixed_bfloat16: weights, optimiser and loss stay float32.
PRECISIONS = ("float32", "bfloat16")


class ConfigError(ValueError):
    """A trial that cannot run; the message names the field and what it takes."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial. A field that the model does not have stays None.

    Attributes:
        model: "conv" or "dense".
        latent_filters: conv only; filters of the third convolution (default 8: a 4×4×8 latent).
        hidden_units: dense only (default 512).
        hidden_activation: dense only, "relu" (default) or "sigmoid"; the report does not say.
        dropout: dense only, rate on the hidden layer (default 0).
        learning_rate: of SGD.
        momentum: of SGD, in [0, 1).
        nesterov: whether the momentum is Nesterov's.
        batch_size: images a step; the report does not say.
        epochs: passes over the training images.
        split: "full" or "search", see `SPLITS`.
        seed: of the initial weights, the order of the images and the dropout.
        precision: of the layers' arithmetic, see `PRECISIONS`.

    Raises:
        ConfigError: for a value out of range or a field of the other model.
    """

    model: str
    latent_filters: int | None = None
    hidden_units: int | None = None
    hidden_activation: str | None = None
    dropout: float | None = None
    learning_rate: float = 1.0
    momentum: float = 0.5
    nesterov: bool = True
    batch_size: int = 256
    epochs: int = 50
    split: str = "full"
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        _require(self.model in MODELS, "model", self.model, "one of " + ", ".join(MODELS))
        conv_fields: dict[str, Any] = {"latent_filters": 8}
        dense_fields: dict[str, Any] = {
            "hidden_units": 512,
            "hidden_activation": "relu",
            "dropout": 0.0,
        }
        own, foreign = conv_fields, dense_fields
        if self.model == "dense":
            own, foreign = foreign, own
        for name in foreign:
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} does not apply to the {self.model} model; leave it out.")
        for name, default in own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("latent_filters", "hidden_units", "batch_size", "epochs"):
            value = getattr(self, name)
            _require(value is None or _is_int(value, 1), name, value, "a whole number from 1")
        _require(
            self.hidden_activation in (None, *HIDDEN_ACTIVATIONS),
            "hidden_activation",
            self.hidden_activation,
            "one of " + ", ".join(HIDDEN_ACTIVATIONS),
        )
        for name in ("dropout", "momentum"):
            value = getattr(self, name)
            in_range = value is None or 0 <= value < 1
            _require(in_range, name, value, "a number from 0 up to, not including, 1")
        in_range = math.isfinite(self.learning_rate) and self.learning_rate > 0
        _require(in_range, "learning_rate", self.learning_rate, "a finite number above 0")
        _require(isinstance(self.nesterov, bool), "nesterov", self.nesterov, "true or false")
        _require(self.split in SPLITS, "split", self.split, "one of " + ", ".join(SPLITS))
        expected = "one of " + ", ".join(PRECISIONS)
        _require(self.precision in PRECISIONS, "precision", self.precision, expected)
        in_range = _is_int(self.seed, 0) and self.seed < 2**31
        _require(in_range, "seed", self.seed, "a whole number from 0 below 2**31")

    @property
    def architecture(self) -> tuple[Any, ...]:
        """What shapes the computation: trials that agree in it can share compiled code."""
        return (
            self.model,
            self.latent_filters,
            self.hidden_units,
            self.hidden_activation,
            self.dropout,
            self.precision,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in plain types that JSON holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: for an unknown or missing field, or a value out of range.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ConfigError(f"Unknown trial field {', '.join(sorted(unknown))}; remove it.")
        if "model" not in values:
            raise ConfigError("A trial needs the field model: conv or dense.")
        return cls(**values)


def _is_int(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}, but takes {expected}.")
