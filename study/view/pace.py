"""Estimates how long a study still takes, from what its own epochs and trials have taken so far."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Remaining:
    """What is left of a trial that runs or is still to come."""

    model: str
    epochs: int  # still to train
    epoch_seconds: float | None = None  # of its own epochs so far; None before there are any


class Pace:
    """Collects what epochs and trials take, by model."""

    def __init__(self) -> None:
        self._n_epochs: dict[str, int] = defaultdict(int)
        self._epoch_seconds: dict[str, float] = defaultdict(float)
        self._overheads: dict[str, list[float]] = defaultdict(list)

    def add_epochs(self, model: str, n: int, seconds: float) -> None:
        """Takes n epochs of a model that took so many seconds of training and evaluation."""
        self._n_epochs[model] += n
        self._epoch_seconds[model] += seconds

    def add_trial(self, model: str, overhead_seconds: float) -> None:
        """Takes an ended trial's seconds beside its epochs: start, compilation, saving."""
        self._overheads[model].append(overhead_seconds)

    def seconds_of(self, trial: Remaining) -> float | None:
        """What is left of one trial, in seconds; None before its model has trained an epoch.

        A trial that has trained goes by its own epochs. One that has not goes by the mean of its
        model's, and needs its overhead: the median of its model's ended trials, because the first
        trial of each worker also starts TensorFlow.
        """
        if trial.epoch_seconds is not None:
            return trial.epochs * trial.epoch_seconds
        if not self._n_epochs[trial.model]:
            return None
        overheads = self._overheads[trial.model]
        epoch_seconds = self._epoch_seconds[trial.model] / self._n_epochs[trial.model]
        return trial.epochs * epoch_seconds + (median(overheads) if overheads else 0.0)

    def seconds_left(self, phases: Sequence[Iterable[Remaining]], n_slots: int) -> float | None:
        """Until all trials have ended; None while one of them has nothing to go by.

        Args:
            phases: the trials, each in the order in which they start. Those of a phase start when
                all of the phase before have ended.
            n_slots: trials that train at once; each trial takes the first that is free.
        """
        free_at = [0.0] * n_slots
        for phase in phases:
            for trial in phase:
                seconds = self.seconds_of(trial)
                if seconds is None:
                    return None
                heapq.heapreplace(free_at, free_at[0] + seconds)
            free_at = [max(free_at)] * n_slots
        return free_at[0]


def duration(seconds: float) -> str:
    """A duration as people say it, rounded up: "40 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{5 * max(1, math.ceil(seconds / 5))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
