"""A Keras model of a person's own: a builder in a Python file, which travels as its text.

A builder is a function whose keyword arguments are the model's hyperparameters, and which returns
a model of images (28, 28, 1) in [0, 1] to the same. It needs no TensorFlow until it builds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from convae.errors import UserError


class OwnModelError(UserError):
    """A builder that cannot be used; the message names it and says what it must be."""


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A builder, with all that it needs to be run on another machine.

    Attributes:
        name: of the model, as `TrialConfig.model` has it.
        function: the builder's name in the first of the files.
        files: path and text of the Python files that it takes from its own folder, relative to it.
        defaults: of its keyword arguments, as `TrialConfig.arguments` has them.
    """

    name: str
    function: str
    files: tuple[tuple[str, str], ...]
    defaults: str

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        return {**asdict(self), "files": dict(self.files)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "OwnModel":
        """The inverse of `to_dict`, also after a trip through JSON."""
        return cls(**{**values, "files": tuple(values["files"].items())})


def read_own_model(name: str, build: str, folder: Any) -> OwnModel:
    """STUB."""
    raise NotImplementedError


def count_parameters(own: OwnModel, settings: Any) -> list[int]:
    """STUB."""
    raise NotImplementedError
