"""The frozen description of one trial, and the one table of hyperparameters that it rests on.

`HYPERPARAMETERS` says once of each: values, default, models, its neighbours and how it is searched.
All else derives these from it.
A `TrialConfig` validates itself when it is made: every one that exists can be trained.
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_type_hints

from convae.errors import UserError

Kind = Literal["text", "int", "float", "bool"]

CONV: Final = "conv"
DENSE: Final = "dense"
MODELS: Final = (CONV, DENSE)
IMAGE_SHAPE: Final = (28, 28, 1)  # rows, columns, channels; all else derives it from here
# "full": all training and test images, of MNIST 60,000 and 10,000, as in the report.
# "search": training images alone, validated on their last sixth, of MNIST 10,000; no test image.
FULL_SPLIT: Final = "full"
SEARCH_SPLIT: Final = "search"
SPLITS: Final = (FULL_SPLIT, SEARCH_SPLIT)
# What a trial is judged by: training images that are left out of training validate.
EVAL_METRICS: Final = MappingProxyType({FULL_SPLIT: "test_mse", SEARCH_SPLIT: "val_mse"})
IMAGE_SIZE: Final = "{} × {}".format(*IMAGE_SHAPE)  # for people
DATA_HELP: Final = (
    f"images of {IMAGE_SIZE}: an .npz with x_train and x_test, or a folder of IDX files; default:"
    " MNIST, from CONVAE_DATA, a cache or a download"
)
MOST: Final = 2**31 - 1  # of a whole number: TensorFlow counts in 32 bits
N_SEEDS: Final = MOST + 1  # seeds run from 0 to below this
# Of custom models: names become files' and columns' parts.
CUSTOM_NAME: Final = rf"(?!(?:{'|'.join(MODELS)})$)[A-Za-z][A-Za-z0-9_]{{0,39}}"


def n_fitted(n_train: int) -> int:
    """Of so many training images, those that the search split trains on: all but the last sixth."""
    return n_train * 5 // 6


class ConfigError(UserError):
    """A trial that cannot run; the message names the field and what it takes."""


@dataclass(frozen=True)
class Range:
    """Searched between two values, both included."""

    low: float
    high: float
    grid: tuple[float, ...] = ()  # a grid search's values; empty for some that are spread evenly
    log: bool = True  # on a log scale, for what acts multiplicatively
    whole: bool = False  # values are whole numbers


@dataclass(frozen=True)
class Choices:
    """Searched among these values, which are also a grid search's."""

    grid: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Which values are valid."""

    kind: Kind
    low: float = -math.inf  # the least number, or length of a text, that is valid
    high: float = math.inf  # the greatest
    excluded: float | None = None  # one of the two, if it is not valid itself
    words: tuple[str, ...] = ()  # the texts that are valid; empty if all are
    takes: str  # the valid values in words, to end the sentence "dropout is 2, but takes …"

    def admits(self, value: Any) -> bool:
        """Whether a value is valid."""
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "text":
            in_words = not self.words or value in self.words
            return isinstance(value, str) and in_words and len(value) >= self.low
        right = is_number(value) and (self.kind == "float" or isinstance(value, int))
        return right and self.low <= value <= self.high and value != self.excluded


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(Domain):
    """One hyperparameter of a model or of its optimiser."""

    name: str  # the field of `TrialConfig` and the column of the tables
    models: tuple[str, ...] = MODELS  # those that have it
    default: Any  # the reference setting's value
    # Values around it, which a search is given at its start; first those that a small one should
    # try.
    neighbours: tuple[Any, ...]
    search: Range | Choices
    complement: bool = False  # searched and shown as 1 − value
    of_architecture: bool = False  # shapes the model, so that its parameters are others

    def applies_to(self, model: str) -> bool:
        """Whether a model has it: a custom model has those that all built-in ones have."""
        return model in self.models or (model not in MODELS and self.models == MODELS)

    @property
    def parameter(self) -> str:
        """Its name as a parameter of the search space."""
        return f"one_minus_{self.name}" if self.complement else self.name

    def to_parameter(self, value: Any) -> Any:
        """A value as the search space has it."""
        # Rounded, so that 1 − 0.95 is 0.05 and not 0.05000000000000004.
        return round(1 - value, 12) if self.complement else value

    def from_parameter(self, value: Any) -> Any:
        """The inverse of `to_parameter`."""
        return self.to_parameter(value)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, also as a float, and no truth value."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


# What a hyperparameter takes: kind, limits and takes of `Hyperparameter`.
_COUNT: Final[dict[str, Any]] = {
    "kind": "int",
    "low": 1,
    "high": MOST,
    "takes": "a whole number from 1 below 2**31",
}
_SHARE: Final[dict[str, Any]] = {
    "kind": "float",
    "low": 0,
    "high": 1,
    "excluded": 1,
    "takes": "a number from 0 up to, not including, 1",
}
_FLAG: Final[dict[str, Any]] = {"kind": "bool", "takes": "true or false"}

# A small search is given the first neighbours of the first ones only.
HYPERPARAMETERS: Final = (
    Hyperparameter(
        name="batch_size",
        **_COUNT,
        default=256,
        neighbours=(64, 128, 256, 512, 1000),
        search=Choices((8, 16, 32, 64, 128, 256, 512, 1000)),
    ),
    Hyperparameter(
        name="latent_filters",
        **_COUNT,
        models=(CONV,),
        default=8,  # the report's code is 4×4×8, though it writes 16 filters
        neighbours=(8, 16),
        search=Choices((8, 16)),
        of_architecture=True,
    ),
    Hyperparameter(
        name="hidden_activation",
        kind="text",
        words=("relu", "sigmoid"),
        takes="one of relu, sigmoid",
        models=(DENSE,),
        default="relu",
        neighbours=("relu", "sigmoid"),
        search=Choices(("relu", "sigmoid")),
    ),
    Hyperparameter(
        name="dropout",
        **_SHARE,
        models=(DENSE,),
        default=0.0,
        neighbours=(0.0, 0.1),
        search=Choices((0.0, 0.1)),
    ),
    Hyperparameter(
        name="hidden_units",
        **_COUNT,
        models=(DENSE,),
        default=512,
        # The report does not name 512's competitors: a guess.
        neighbours=(64, 128, 256, 512),
        search=Choices((64, 128, 256, 512)),
        of_architecture=True,
    ),
    Hyperparameter(
        name="learning_rate",
        kind="float",
        low=0,
        excluded=0,
        takes="a finite number above 0",
        default=1.0,
        neighbours=(2.0, 0.5, 4.0, 0.25),
        search=Range(0.005, 50.0, (0.25, 0.5, 1.0, 2.0, 4.0)),
    ),
    Hyperparameter(
        name="momentum",
        **_SHARE,
        default=0.5,
        neighbours=(0.9, 0.0),
        # A step of 1 − momentum acts as a factor on the effective learning rate.
        search=Range(0.01, 1.0, (0.1, 0.5, 1.0)),
        complement=True,
    ),
    Hyperparameter(
        name="nesterov",
        **_FLAG,
        default=True,
        neighbours=(True, False),
        search=Choices((True, False)),
    ),
)
BY_NAME: Final[Mapping[str, Hyperparameter]] = MappingProxyType(
    {parameter.name: parameter for parameter in HYPERPARAMETERS}
)
BY_PARAMETER: Final[Mapping[str, Hyperparameter]] = MappingProxyType(
    {hyperparameter.parameter: hyperparameter for hyperparameter in HYPERPARAMETERS}
)


def shapes_model(name: str) -> bool:
    """Whether a hyperparameter or parameter changes how many weights there are.

    A builder's argument may.
    """
    known = BY_NAME.get(name) or BY_PARAMETER.get(name)
    return known is None or known.of_architecture


def is_custom_name(name: str) -> bool:
    """Whether a custom model may be called so."""
    return re.fullmatch(CUSTOM_NAME, name) is not None


def argument_of(model: str, name: str, default: Any) -> Hyperparameter:
    """An argument of a custom model's builder as a hyperparameter.

    Its default is a number, a text, true or false, whose kind all values have.
    """
    kinds: dict[type, dict[str, Any]] = {
        bool: _FLAG,
        int: {"kind": "int", "low": -(2**63), "takes": "a whole number"},
        float: {"kind": "float", "takes": "a finite number"},
        str: {"kind": "text", "takes": "a text"},
    }
    return Hyperparameter(
        name=name,
        **kinds[type(default)],
        models=(model,),
        default=default,
        neighbours=(),
        search=Choices((default,)),
        of_architecture=True,
    )


def hyperparameters_of(model: str) -> tuple[Hyperparameter, ...]:
    """Those that a model has, in the table's order."""
    return tuple(parameter for parameter in HYPERPARAMETERS if parameter.applies_to(model))


def _default(name: str) -> Any:
    return BY_NAME[name].default


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial: a model, its hyperparameters, and how long and on what it trains.

    A hyperparameter that the model does not have is None.

    Raises:
        ConfigError: for a value out of range or a hyperparameter of the other model.
    """

    model: str  # of `MODELS`, or a custom model's name
    latent_filters: int | None = None  # of the third convolution (8: a 4×4×8 latent)
    hidden_units: int | None = None  # of the dense hidden layer
    hidden_activation: str | None = None  # of the dense hidden layer, "relu" or "sigmoid"
    dropout: float | None = None  # rate on the dense hidden layer
    # Of a custom model's builder, as a JSON object with sorted keys, if only "{}"; None tells a
    # built-in model from a custom one.
    arguments: str | None = None
    learning_rate: float = _default("learning_rate")  # of SGD
    momentum: float = _default("momentum")  # of SGD, in [0, 1)
    nesterov: bool = _default("nesterov")  # whether the momentum is Nesterov's
    batch_size: int = _default("batch_size")  # images a step
    epochs: int = 50  # passes over the training images
    split: str = FULL_SPLIT  # of `SPLITS`
    seed: int = 0  # of initial weights, order of the images and dropout; below `N_SEEDS`

    def __post_init__(self) -> None:
        if self.is_custom:
            self._check_custom()
        else:
            _require(self.model in MODELS, "model", self.model, "one of " + ", ".join(MODELS))
        _require(self.split in SPLITS, "split", self.split, "one of " + ", ".join(SPLITS))
        _require(Domain(**_COUNT).admits(self.epochs), "epochs", self.epochs, _COUNT["takes"])
        seed = Domain(kind="int", low=0, high=MOST, takes="a whole number from 0 below 2**31")
        _require(seed.admits(self.seed), "seed", self.seed, seed.takes)
        for parameter in HYPERPARAMETERS:
            name, value = parameter.name, getattr(self, parameter.name)
            if parameter.applies_to(self.model):
                if value is None:
                    object.__setattr__(self, name, value := parameter.default)
                _require(parameter.admits(value), name, value, parameter.takes)
            elif value is not None:
                raise ConfigError(f"{name} does not apply to the {self.model} model; leave it out.")

    def _check_custom(self) -> None:
        takes = "a name of letters, digits and _, not a built-in"
        _require(is_custom_name(self.model), "model", self.model, takes)
        try:
            arguments = json.loads(self.arguments or "")
            plain = isinstance(arguments, dict) and all(
                isinstance(value, str | bool | int) or is_number(value)
                for value in arguments.values()
            )
        except ValueError:
            plain = False
        takes = "a JSON object of numbers, texts, true and false"
        _require(plain, "arguments", self.arguments, takes)
        object.__setattr__(self, "arguments", as_arguments(arguments))

    @property
    def is_custom(self) -> bool:
        """Whether the model is a custom one."""
        return self.arguments is not None

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of a custom model's builder; else none."""
        return {} if self.arguments is None else json.loads(self.arguments)

    def value(self, name: str) -> Any:
        """Of a hyperparameter, or of an argument of a custom model's builder."""
        keywords = self.keywords
        return keywords[name] if name in keywords else getattr(self, name)

    def with_values(self, values: Mapping[str, Any]) -> "TrialConfig":
        """The same trial with other values of hyperparameters, or of its builder's arguments.

        Raises:
            ConfigError: for a value out of range.
        """
        keywords = self.keywords
        fields_ = {name: value for name, value in values.items() if name not in keywords}
        if self.is_custom:
            fields_["arguments"] = as_arguments({k: values.get(k, v) for k, v in keywords.items()})
        return replace(self, **fields_)

    @property
    def architecture(self) -> tuple[Any, ...]:
        """What shapes the computation: trials that agree in it can share compiled code."""
        return (
            self.model,
            self.latent_filters,
            self.hidden_units,
            self.hidden_activation,
            self.dropout,
            self.arguments,
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


def as_arguments(keywords: Mapping[str, Any]) -> str:
    """A builder's keyword arguments as `TrialConfig.arguments` has them."""
    return json.dumps(dict(keywords), sort_keys=True)


_KINDS: Final[Mapping[type, Kind]] = {str: "text", int: "int", float: "float", bool: "bool"}
# The kind of each field of TrialConfig, in its order.
FIELD_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        name: _KINDS[next(iter(get_args(hint)), hint)]
        for name, hint in get_type_hints(TrialConfig).items()
    }
)


def n_parameters(config: TrialConfig) -> int:
    """Trainable weights of a built-in model, from its layers' shapes; a test asks Keras."""
    if config.model == CONV:
        code = config.latent_filters or 0
        channels = (1, 16, 8, code, 8, 8, 16, 1)
        return sum((9 * before + 1) * after for before, after in pairwise(channels))
    pixels, hidden = math.prod(IMAGE_SHAPE), config.hidden_units or 0
    return (pixels + 1) * hidden + (hidden + 1) * pixels


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}, but takes {expected}.")
