"""What a trial reports while it trains. No TensorFlow: it is read where nothing trains."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True)
class EpochResult:
    """What one epoch measured."""

    epoch: int  # counted from 1
    # Mean over the epoch's batches while the weights move, weighted by batch size (what Keras'
    # History calls `loss`), in (pixel / 255)².
    train_mse: float
    # At the epoch's end, on the test or validation images; None if not asked for.
    eval_mse: float | None
    # Weight updates only. A trial that shares its device has its share: the device's seconds over
    # the lanes at work.
    train_seconds: float
    eval_seconds: float  # 0 if not evaluated
    # Trials at work on the device, this one included, averaged over train_seconds.
    n_sharing: float = 1.0


class Status(StrEnum):
    """Where a trial stands in an engine. PAUSED waits for `advance`; REMOVED is not there now."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    DIVERGED = "diverged"
    FAILED = "failed"
    REMOVED = "removed"

    @property
    def stands_still(self) -> bool:
        """Whether the trial has paused or ended."""
        return self not in (Status.WAITING, Status.RUNNING)


class Fallback(NamedTuple):
    """A program that does not work here, and whose trials the plain trainer trains instead."""

    program: str  # in words
    reason: str  # in a line
    error: str  # in full


class Report(NamedTuple):
    """What a trial has to tell since its last report."""

    status: Status
    epochs: list[EpochResult]  # completed since
    diverged_epoch: int | None  # whose loss was not finite, from 1
    # Its share of the device in this engine so far, an epoch that it has not ended or in which it
    # diverged included.
    train_seconds: float = 0.0
    compile_seconds: float = 0.0  # of a program for it alone, since
