"""Which trials are silent: for how long they are left alone, when people are told, when one ends.

A trial is heard of when it ends epochs, and whenever it says that it waits for a lane or for a
compilation. It knows no Ray, so that tests drive it by a clock of their own.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

AWAY_SECONDS = 5.0  # between two looks; beyond that, nobody was there who could have been told


@dataclass(frozen=True)
class Patience:
    """How long a silent trial is left alone, by its own pace. Studies keep the defaults."""

    least_seconds: float = 60.0  # before it is named
    n_intervals: float = 10.0  # of its longest so far between two epochs, before it is named
    end_factor: float = 5.0  # times as long, before it is ended
    # Before one is ended that has not ended an epoch yet, and whose process answers: an epoch may
    # be long, and nothing is known of the pace.
    first_epoch_seconds: float = 3600.0


@dataclass(frozen=True)
class Silence:
    """A trial that is silent."""

    trial_id: str
    seconds: float
    answers: bool  # its process does, while its training does not get on
    too_long: bool  # it is to be ended

    @property
    def what(self) -> str:
        """In words."""
        return "without an epoch" if self.answers else "silent"


@dataclass
class _Heard:
    """When a trial was heard of, in seconds."""

    answered: float
    got_on: float  # with its training, or waited
    longest: float = 0.0  # between two times that it ended epochs
    has_epochs: bool = False


class Watch:
    """Notes when trials are heard of, and finds those that are not."""

    def __init__(
        self, patience: Patience | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience, self._clock = patience or Patience(), clock
        self._heard: dict[str, _Heard] = {}
        self._looked = clock()

    def begin(self, trial_id: str) -> None:
        """An attempt begins."""
        now = self._clock()
        self._heard[trial_id] = _Heard(now, now)

    def hear(self, trial_id: str, n_new_epochs: int, *, waits: bool) -> None:
        """A trial tells of new epochs, or that it waits, or neither."""
        if (heard := self._heard.get(trial_id)) is None:  # it is being ended
            return
        heard.answered = now = self._clock()
        if n_new_epochs:
            heard.longest, heard.has_epochs = max(heard.longest, now - heard.got_on), True
        if n_new_epochs or waits:
            heard.got_on = now

    def forget(self, trial_id: str) -> None:
        """An attempt has ended."""
        self._heard.pop(trial_id, None)

    def look(self) -> Iterator[Silence]:
        """The trials that are silent. To be called all the time: pauses of the caller don't count.

        As when its process was stopped, or the machine slept.
        """
        now, patience = self._clock(), self._patience
        away, self._looked = now - self._looked, now
        for trial_id, heard in list(self._heard.items()):
            if away > AWAY_SECONDS:
                heard.answered += away
                heard.got_on += away
            seconds = now - heard.got_on
            named = max(patience.least_seconds, patience.n_intervals * heard.longest)
            answers = now - heard.answered < patience.least_seconds
            ended = patience.end_factor * named
            if answers and not heard.has_epochs:
                ended = max(ended, patience.first_epoch_seconds)
            if seconds >= named:
                yield Silence(trial_id, seconds, answers, seconds >= ended)
