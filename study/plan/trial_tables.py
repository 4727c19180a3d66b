"""Fixed trials as data: a `[[trial]]` table of a study file, or the words of `--trial`.

    [[trial]]
    group = "custom"            # or reference, reading, neighbour; default: custom
    model = "conv"
    vary = "product"            # or "each": the reference setting, and each with one value changed
    split = "full"              # or "search", the default of neighbours
    seeds = 3                   # default: the study's
    learning_rate = [0.25, 0.5] # a hyperparameter, or an argument of a custom model's builder
    batch_size = 128

What is not named is the reference setting's.
"""

import math
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from convae.config import FULL_SPLIT, SEARCH_SPLIT, SPLITS, Domain, Hyperparameter, TrialConfig
from study.folder import schema
from study.plan.errors import (
    TEXT,
    SpecError,
    checked_hyperparameters,
    checked_table,
    listed,
    one_of,
    whole,
)

PRODUCT: Final = "product"
EACH: Final = "each"
FIXED_GROUPS: Final = (schema.CUSTOM, schema.REFERENCE, schema.READING, schema.NEIGHBOUR)
MOST_TRIALS: Final = 10_000  # of a table, for each seed
MOST_SEEDS: Final = 1_000
KEYS: Final[Mapping[str, Domain]] = {
    "model": TEXT,
    "group": one_of(FIXED_GROUPS),
    "vary": one_of((PRODUCT, EACH)),
    "split": one_of(SPLITS),
    "seeds": whole(1, MOST_SEEDS),
}

Values = tuple[tuple[str, tuple[Any, ...]], ...]
Parameters = Callable[[str], Sequence[Hyperparameter]]


def combinations(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every choice of a value for each name."""
    return [dict(zip(values, one, strict=True)) for one in product(*values.values())]


@dataclass(frozen=True, kw_only=True)
class TrialTable:
    """Some settings of a model."""

    model: str
    values: Values = ()  # by hyperparameter, in the order of the table of hyperparameters
    group: str = schema.CUSTOM  # of `FIXED_GROUPS`
    vary: str = PRODUCT
    split: str = FULL_SPLIT
    n_seeds: int | None = None  # None for the study's

    def configs(self, reference: TrialConfig) -> list[TrialConfig]:
        """Its settings, as trials of the reference setting with other values."""
        if self.vary == PRODUCT:
            return [reference.with_values(values) for values in combinations(dict(self.values))]
        each = [{name: value} for name, values in self.values for value in values]
        changed = [reference.with_values(values) for values in each]
        return [reference, *(config for config in changed if config != reference)]

    def to_table(self) -> dict[str, Any]:
        """As a study file has it, without what goes without saying."""
        given = {key: getattr(self, key) for key in ("group", "model", "vary", "split")}
        given |= {} if self.n_seeds is None else {"seeds": self.n_seeds}
        defaults = {"group": schema.CUSTOM, "vary": PRODUCT, "split": split_of(self.group)}
        values = {name: list(of) if len(of) > 1 else of[0] for name, of in self.values}
        return {k: v for k, v in given.items() if defaults.get(k) != v} | values


def split_of(group: str) -> str:
    """The images of a group's tables that do not say theirs.

    Neighbours are compared with one another, so the test images stay out of it.
    """
    return SEARCH_SPLIT if group == schema.NEIGHBOUR else FULL_SPLIT


def trial_table_from(
    where: str, table: Mapping[str, Any], models: Sequence[str], parameters: Parameters
) -> TrialTable:
    """A table of a study file, see this module's docstring; `where` is what messages call it.

    Raises:
        SpecError: its trials cannot be trained.
    """
    model = str(table.get("model"))
    if model not in models:
        has = f"has the model {table['model']!r}" if "model" in table else "has no model"
        raise SpecError(f"{where} {has}; give model = {listed(models)}.")
    its = checked_table(where, {key: table[key] for key in KEYS if key in table}, KEYS)
    given = {name: value for name, value in table.items() if name not in KEYS}
    values = checked_hyperparameters(where, given, parameters(model), KEYS)
    group, vary = its.get("group", schema.CUSTOM), its.get("vary", PRODUCT)
    sizes = [len(of_name) for _, of_name in values]
    n = math.prod(sizes) if vary == PRODUCT else sum(sizes)
    if n > MOST_TRIALS:
        raise SpecError(f"{where} makes {n:,} trials, but at most {MOST_TRIALS:,} are taken.")
    split, n_seeds = its.get("split", split_of(group)), its.get("seeds")
    return TrialTable(
        model=model, values=values, group=group, vary=vary, split=split, n_seeds=n_seeds
    )


def table_of(words: str) -> dict[str, Any]:
    """A table of words such as "model=conv learning_rate=0.25,0.5".

    Raises:
        SpecError: a word is not NAME=VALUE, or there twice.
    """
    table: dict[str, Any] = {}
    try:
        pairs = shlex.split(words)
    except ValueError as error:
        raise SpecError(f"--trial {words!r} cannot be read ({error}).") from error
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value or name in table:
            raise SpecError(
                f"--trial has {pair!r}, but takes each name once, as in"
                ' "model=conv learning_rate=0.25,0.5".'
            )
        items = value.removeprefix("[").removesuffix("]").split(",")
        read = [_literal(item.strip()) for item in items]
        table[name] = read if len(read) > 1 else read[0]
    return table


def _literal(text: str) -> Any:
    """A number, true or false as TOML has them; else the text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return text
