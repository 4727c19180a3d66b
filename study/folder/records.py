"""Frozen dataclasses from the JSON that `dataclasses.asdict` made of them."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import repeat
from typing import Any, get_args, get_type_hints


def from_json(kind: Any, value: Any) -> Any:
    """A value of a kind: a dataclass, a union, a tuple of such, or what JSON holds itself.

    Fields that are left out have their defaults. A tuple of pairs may be an object.

    Raises:
        KeyError, TypeError: it is of another kind.
    """
    kinds = get_args(kind)
    if isinstance(value, list | tuple):
        alike = not kinds or kinds[-1] is ...
        return tuple(map(from_json, repeat(kinds[0] if kinds else Any) if alike else kinds, value))
    if not isinstance(value, Mapping):
        return value
    records: list[Any] = [one for one in kinds or (kind,) if is_dataclass(one)]
    if not records:
        return tuple(value.items())
    one = next((one for one in records if _required(one) <= value.keys()), records[0])
    hints = get_type_hints(one)
    return one(**{name: from_json(hints[name], its) for name, its in value.items()})


def _required(kind: Any) -> set[str]:
    return {field.name for field in fields(kind) if field.default is MISSING}
