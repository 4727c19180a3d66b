"""Errors that are for people, by their root, and what can happen to a trial that is a result."""


class UserError(Exception):
    """For people: the message is a sentence that names the thing and the remedy.

    Command lines print it and exit with code 2. Whatever else is raised is a fault of this code.
    """


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: a result about the setting, not a fault.

    Attributes:
        epoch: the epoch it happened in, from 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The loss stopped being finite in epoch {epoch}.")
        self.epoch = epoch
