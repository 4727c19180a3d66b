"""Fixed trials that a person asks for, `[[trial]]` in a study file or `--trial`: each value a list.

A list as a value makes a trial for each, several lists their product, and the study's seeds repeat
all. What is not named is the reference setting's.
"""

import math
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import product
from typing import Any, Final

from convae.config import FULL_SPLIT, SPLITS, Hyperparameter
from convae.errors import UserError
from study.plan.sentences import listed, repetition, unknown_keys

MOST_TRIALS: Final = 10_000
LONGEST_LABEL: Final = 150  # characters of a trial's name: a file's name has 255 bytes

Parameters = Callable[[str], Sequence[Hyperparameter]]


class CustomTrialError(UserError):
    """Trials that cannot be trained; the message names the table and the key."""


@dataclass(frozen=True, kw_only=True)
class CustomTrials:
    """Some settings of a model.

    Attributes:
        model: its name.
        values: of hyperparameters, by name; every combination of them is a setting.
        split: "full", tested on the test images, or "search", on the search's validation images.
    """

    model: str
    values: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    split: str = FULL_SPLIT

    @property
    def settings(self) -> list[dict[str, Any]]:
        """What each of them sets, by hyperparameter."""
        names = [name for name, _ in self.values]
        combinations = product(*(values for _, values in self.values))
        return [dict(zip(names, values, strict=True)) for values in combinations]

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "CustomTrials":
        """The inverse of `to_dict`, also after a trip through JSON."""
        values = tuple((name, tuple(of_name)) for name, of_name in fields["values"])
        return cls(**{**fields, "values": values})

    def to_table(self) -> dict[str, Any]:
        """As a study file has it."""
        values = {name: list(of) if len(of) > 1 else of[0] for name, of in self.values}
        split = {} if self.split == FULL_SPLIT else {"split": self.split}
        return {"model": self.model, **values, **split}


def custom_trials_from(
    where: str, table: Any, models: Sequence[str], parameters: Parameters
) -> CustomTrials:
    """Fixed trials as a study file has them.

    Args:
        where: they stand, for people.
        table: `model`, perhaps `split`, and values or lists of values by hyperparameter.
        models: that there are.
        parameters: a model's hyperparameters.

    Raises:
        CustomTrialError: they cannot be trained.
    """
    if not isinstance(table, dict):
        raise CustomTrialError(f"{where} is {table!r}, but takes a table with the key model.")
    model = str(table.get("model"))
    if model not in models:
        has = f"has the model {table['model']!r}" if "model" in table else "has no model"
        raise CustomTrialError(f"{where} {has}; give model = {listed(models)}.")
    split = table.get("split", FULL_SPLIT)
    if split not in SPLITS:
        raise CustomTrialError(f"{where} split is {split!r}, but takes {listed(SPLITS)}.")
    known = {p.name: p for p in parameters(model)}
    given = {name: value for name, value in table.items() if name not in ("model", "split")}
    if problem := unknown_keys(where, given, (*known, "model", "split")):
        raise CustomTrialError(problem)
    values = tuple(
        (name, _checked(f"{where} {name}", given[name], p))
        for name, p in known.items()
        if name in given
    )
    n = math.prod(len(of_name) for _, of_name in values)
    if n > MOST_TRIALS:
        raise CustomTrialError(
            f"{where} makes {n:,} trials, but at most {MOST_TRIALS:,} are taken."
        )
    return CustomTrials(model=model, values=values, split=split)


def table_of(words: str) -> dict[str, Any]:
    """A table of words such as "model=conv learning_rate=0.25,0.5".

    Raises:
        CustomTrialError: a word is not NAME=VALUE, or there twice.
    """
    table: dict[str, Any] = {}
    try:
        pairs = shlex.split(words)
    except ValueError as error:
        raise CustomTrialError(f"--trial {words!r} cannot be read ({error}).") from error
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value or name in table:
            raise CustomTrialError(
                f"--trial has {pair!r}, but takes each name once, as in"
                ' "model=conv learning_rate=0.25,0.5".'
            )
        items = value.removeprefix("[").removesuffix("]").split(",")
        read = [_literal(item.strip()) for item in items]
        table[name] = read if len(read) > 1 else read[0]
    return table


def label_of(model: str, values: Mapping[str, Any]) -> str:
    """A setting's part of its trials' names: readable, a file's name, and no one else's."""
    label = "-".join([model, *(f"{name}={_word(value)}" for name, value in values.items())])
    plain = re.sub(r"[^\w.=+-]", "_", label, flags=re.ASCII)
    if plain == label and len(label) <= LONGEST_LABEL:
        return label
    digest = sha256(label.encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_LABEL - len(digest) - 1]}-{digest}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _literal(text: str) -> Any:
    """A number, true or false as TOML has them; else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _checked(where: str, value: Any, p: Hyperparameter) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not p.admits(item):
            raise CustomTrialError(f"{where} is {item!r}, but takes {p.takes}.")
    if problem := repetition(where, values):
        raise CustomTrialError(problem)
    return tuple(float(item) if p.kind == "float" else item for item in values)
