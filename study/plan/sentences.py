"""What the tables of a study file have in common: sentences about their keys."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def listed(words: Iterable[str]) -> str:
    """Words as a sentence has them."""
    return " or ".join(words)


def unknown_keys(where: str, keys: Iterable[str], known: Sequence[str]) -> str | None:
    """A sentence on the first key that is not known, or None.

    Args:
        where: the table, as the file has it.
        keys: of the table.
        known: those that it takes.
    """
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
            return f"{where} has the key {key}, which there is not; {hint}"
    return None


def repetition(where: str, values: Sequence[Any]) -> str | None:
    """A sentence on a list that names a value twice, or none at all; else None."""
    if values and len(set(values)) == len(values):
        return None
    return f"{where} names a value twice, or none; name each once."
