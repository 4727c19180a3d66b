"""The errors that more than one module raises or catches, without TensorFlow."""

from typing import Any


class UserError(Exception):
    """For people: the message is a sentence that names the thing and the remedy.

    Command lines print it and exit with its code. Anything else that is raised is a fault in here.
    """

    exit_code = 2  # a bad request, unless a subclass says otherwise

    def __reduce__(self) -> Any:
        # Subclasses have constructors of other arguments, which a pickle cannot call.
        return _restore, (type(self), self.args)


def _restore(kind: type[UserError], args: tuple[Any, ...]) -> UserError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: a result about the setting, not a fault."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The loss stopped being finite in epoch {epoch}.")
        self.epoch = epoch  # from 1


class EngineError(RuntimeError):
    """The engine has failed, and every trial in it; the cause is chained."""

    suspect = False  # whether over the trial that was asked for: it was just put into a lane


class TrialError(RuntimeError):
    """A trial has failed, and it alone; the cause is chained."""


class EngineLostError(RuntimeError):
    """The engine has failed or died, and the trial in it is not to blame; the cause is chained."""
