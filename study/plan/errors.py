"""What is wrong with a study, in a sentence; and the checks that all its tables have in common.

Each check raises a `SpecError`. `where` is what people know a table by.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from convae.config import Domain, Hyperparameter
from convae.errors import UserError


class SpecError(UserError):
    """A study that cannot run; the message names the option, or the table and the key."""


def listed(words: Iterable[str]) -> str:
    """Words as a sentence has them."""
    return " or ".join(words)


TEXT: Final = Domain(kind="text", takes="a text")
FLAG: Final = Domain(kind="bool", takes="true or false")


def one_of(words: Sequence[str]) -> Domain:
    """One of some words."""
    return Domain(kind="text", words=tuple(words), takes=listed(words))


def whole(low: int, high: float = math.inf) -> Domain:
    """A whole number."""
    to = f" to {high:,}" if high < math.inf else ""
    return Domain(kind="int", low=low, high=high, takes=f"a whole number from {low}{to}")


def above_0(takes: str, high: float = math.inf) -> Domain:
    """A number above 0."""
    return Domain(kind="float", low=0, high=high, excluded=0, takes=takes)


def check_keys(where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Makes sure that a table has no other keys than these."""
    known = [*known]
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
            raise SpecError(f"{where} has the key {key}, which there is not; {hint}")


def check_value(where: str, value: Any, valid: Domain) -> None:
    """Makes sure that a value is valid."""
    if not valid.admits(value):
        quoted = isinstance(value, str) and valid.kind in ("int", "float")
        hint = "; leave the quotes out" if quoted else ""
        raise SpecError(f"{where} is {value!r}, but takes {valid.takes}{hint}.")


def checked_table(
    where: str, table: Mapping[str, Any], keys: Mapping[str, Domain], required: Iterable[str] = ()
) -> dict[str, Any]:
    """A table whose values are valid, with lists as tuples."""
    check_keys(where, table, keys)
    for name, value in table.items():
        check_value(f"{where} {name}", value, keys[name])
    check_has(where, table, required)
    return {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}


def check_has(where: str, table: Mapping[str, Any], required: Iterable[str]) -> None:
    """Makes sure that a table has these keys."""
    for name in required:
        if name not in table:
            raise SpecError(f"{where} has no {name}; give it.")


def checked_values(where: str, value: Any, valid: Domain) -> tuple[Any, ...]:
    """The values that a table gives, one or a list, in the kind that they have."""
    values = value if isinstance(value, list) else [value]
    for item in values:
        check_value(where, item, valid)
    if not values or len(set(values)) < len(values):
        raise SpecError(f"{where} names a value twice, or none; name each once.")
    return tuple(float(item) if valid.kind == "float" else item for item in values)


def checked_hyperparameters(
    where: str,
    table: Mapping[str, Any],
    known: Iterable[Hyperparameter],
    others: Iterable[str] = (),
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The values that a table gives of hyperparameters, in their order; it may have other keys."""
    valid = {p.name: p for p in known}
    check_keys(where, table, (*valid, *others))
    return tuple(
        (name, checked_values(f"{where} {name}", table[name], p))
        for name, p in valid.items()
        if name in table
    )


def tables_by_model(
    key: str, tables: Any, models: Sequence[str] | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """The tables [key.MODEL], by model."""
    if not isinstance(tables, dict) or any(not isinstance(t, dict) for t in tables.values()):
        raise SpecError(f"{key} takes tables by model: write [{key}.NAME].")
    for model in tables:
        if models is not None and model not in models:
            takes = ", ".join(models)
            raise SpecError(f"[{key}.{model}] is of no model that there is; it takes {takes}.")
    return tables


def tables_in_order(key: str, tables: Any) -> Mapping[str, Mapping[str, Any]]:
    """The tables [[key]], by what messages call them."""
    if not isinstance(tables, list) or any(not isinstance(one, dict) for one in tables):
        raise SpecError(f"{key} takes tables: write [[{key}]].")
    return {f"[[{key}]] {i}": table for i, table in enumerate(tables, 1)}
