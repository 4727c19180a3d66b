"""What is wrong with a study, in a sentence; and the checks that all its tables have in common."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from convae.config import Hyperparameter
from convae.errors import UserError


class SpecError(UserError):
    """A study that cannot run; the message names the option, or the table and the key."""


def listed(words: Iterable[str]) -> str:
    """Words as a sentence has them."""
    return " or ".join(words)


def check_keys(where: str, keys: Iterable[str], known: Sequence[str]) -> None:
    """Makes sure that a table, which people know as `where`, has no other keys than these.

    Raises:
        SpecError: it has one.
    """
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
            raise SpecError(f"{where} has the key {key}, which there is not; {hint}")


def checked_values(where: str, value: Any, p: Hyperparameter) -> list[Any]:
    """The values of a hyperparameter that a table gives, one or a list, in the kind that it has.

    Raises:
        SpecError: it does not take one of them, or they repeat one, or there is none.
    """
    values = value if isinstance(value, list) else [value]
    for item in values:
        if not p.admits(item):
            raise SpecError(f"{where} is {item!r}, but takes {p.takes}.")
    if not values or len(set(values)) < len(values):
        raise SpecError(f"{where} names a value twice, or none; name each once.")
    return [float(item) if p.kind == "float" else item for item in values]
