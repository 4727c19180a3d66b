"""Errors that are for people, by their root, and what can happen to a trial that is a result."""

from typing import Any


class UserError(Exception):
    """For people: the message is a sentence that names the thing and the remedy.

    Command lines print it and exit with its code. Whatever else is raised is a fault of this code.
    """

    exit_code = 2  # a bad request, unless a kind of its own says otherwise

    def __reduce__(self) -> Any:
        # Kinds of their own have constructors of their own, which a pickle cannot call.
        return _restore, (type(self), self.args)


def _restore(kind: type[UserError], args: tuple[Any, ...]) -> UserError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: a result about the setting, not a fault.

    Attributes:
        epoch: the epoch it happened in, from 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The loss stopped being finite in epoch {epoch}.")
        self.epoch = epoch
