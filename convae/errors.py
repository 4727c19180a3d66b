"""What can happen to a trial that is a result and not a fault."""


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: a result about the setting, not a fault.

    Attributes:
        epoch: the epoch it happened in, from 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The loss stopped being finite in epoch {epoch}.")
        self.epoch = epoch
