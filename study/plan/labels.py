"""The label of a setting: how tables, names of trials and joins tell one setting from another.

A label is the architecture, then each value that differs from the study's reference setting of the
model: `conv`, `dense-512`, `dense-64 hidden_activation=sigmoid`, `strided depth=2 dropout=0.1`. It
says nothing of seed, split and epochs, and one setting has one label in every group.
"""

import json
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from convae.config import DENSE, TrialConfig, hyperparameters_of

LONGEST_NAME: Final = 150  # characters: a file's name has 255 bytes
_PLAIN_TEXT: Final = re.compile(r"[\w.+-]+")


def architecture_of(config: TrialConfig) -> str:
    """The first word of a label: `conv`, `dense-512`, or the name of a custom model."""
    return f"{DENSE}-{config.hidden_units}" if config.model == DENSE else config.model


def model_of(architecture: str, models: Iterable[str]) -> str | None:
    """The inverse of `architecture_of`, as far as these models go; None for no architecture."""
    if DENSE in models and re.fullmatch(rf"{DENSE}-[1-9]\d*", architecture):
        return DENSE
    return architecture if architecture in models and architecture != DENSE else None


def label_of(config: TrialConfig, reference: TrialConfig) -> str:
    """The label of a setting: unique in a study with this reference setting of the same model."""
    values, expected = _values(config), _values(reference)
    words = [architecture_of(config)]
    for name, value in values.items():
        if value != expected.get(name):
            is_float = isinstance(expected.get(name), float)  # for which 2 and 2.0 are one value
            words.append(f"{name}={_word(float(value) if is_float else value)}")
    return " ".join(words)


def _values(config: TrialConfig) -> dict[str, Any]:
    """The values of a setting that its architecture's name does not say."""
    names = [p.name for p in hyperparameters_of(config.model) if p.name != "hidden_units"]
    return config.keywords | {name: config.value(name) for name in names}


def _word(value: Any) -> str:
    """A value in a label: floats exactly, and texts in quotes if a word could not hold them."""
    if isinstance(value, str):
        return value if _PLAIN_TEXT.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def file_name_of(label: str) -> str:
    """A label as a part of a file's name, which belongs to no other label."""
    words = label.replace(" ", "-")
    plain = re.sub(r"[^\w.=+-]", "_", words, flags=re.ASCII)
    if plain == words and len(words) <= LONGEST_NAME:
        return words
    digest = sha256(label.encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - len(digest) - 1]}-{digest}"
