"""The plain trainer as one lane of an engine: for custom models, and for all models on a CPU.

Its trials follow one another in the engine's process, so that nothing else opens the device. A
slice is an epoch, and a program is compiled when the first trial of its shape comes.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial

from convae.config import TrialConfig
from convae.errors import DivergenceError
from convae.lanes import LaneState, SliceResult
from convae.training import Trainer, Training


class TrainedEpoch:
    """A slice of a trainer, which it has done; see `convae.lanes.Slice`."""

    def __init__(self, result: SliceResult, training: Training | None) -> None:
        """Takes what the epoch brought, and what trained it."""
        self._result, self._training = result, training
        self._state = None
        self.ended = {} if result.train_mse is None else {0: result.epoch}
        if training is not None and self.ended:
            arrays, n = training.get_state(), training.n_weights
            parts = arrays[:n], arrays[n : 2 * n], arrays[2 * n :]
            self._state = LaneState(result.epoch, 0, 0.0, *parts)

    def evaluate(self, lanes: Iterable[int]) -> None:
        """Evaluates the trial, if it is among these lanes'."""
        if self._training is None or 0 not in lanes:
            return
        started = time.perf_counter()
        mse = self._training.evaluate()
        seconds = time.perf_counter() - started
        self._result = self._result._replace(eval_mse=mse, eval_seconds=seconds)

    def results(self) -> dict[int, SliceResult]:
        """What it brought the trial."""
        return {0: self._result}

    def state(self, lane: int) -> LaneState:
        """The trial's state after the epoch."""
        assert self._state is not None
        return self._state

    def keep(self, lane: int) -> Callable[[], LaneState]:
        """That state, for later."""
        return partial(self.state, lane)


class TrainerLane:
    """Has a trainer train the trial in its lane; its methods are those of `convae.lanes.Lanes`."""

    n_lanes = 1
    runs_ahead = False  # an epoch may take minutes, and its results must not wait for the next

    def __init__(self, model: str, trainer: Trainer) -> None:
        """Takes the model's name, and the trainer, which has the builder of a custom one."""
        self._model = model
        self._trainer = trainer
        self._occupant: tuple[TrialConfig, LaneState] | None = None
        self._training: Training | None = None

    def trace(self) -> None:
        """Does nothing: a program is traced for its first trial."""

    def compile(self) -> float:
        """Does nothing, in 0 s."""
        return 0.0

    def check(self, config: TrialConfig, state: LaneState | None = None) -> None:
        """Whether it is a trial of the model; a state is only checked when the trial starts.

        Raises:
            ValueError: it is not.
        """
        if config.model != self._model:
            raise ValueError(f"This lane trains {self._model}, not {config.model}.")

    def start(self, config: TrialConfig) -> LaneState:
        """A trial's state before its first epoch, which has no weights yet."""
        return LaneState(0, 0, 0.0, [], [], [])

    def put(self, lane: int, config: TrialConfig, state: LaneState) -> None:
        """Puts a trial into the lane, to go on from this state.

        Raises:
            ValueError: it is another model's, or the lane is taken.
        """
        self.check(config, state)
        if self._occupant is not None:
            raise ValueError(f"Lane {lane} is taken.")
        self._occupant, self._training = (config, state), None

    def clear(self, lane: int) -> None:
        """Takes the trial out of the lane."""
        self._occupant = self._training = None

    def launch(self) -> TrainedEpoch:
        """Trains the trial for an epoch, and before its first one here prepares it.

        An exception, as of a custom model's code, is the trial's failure and not the engine's.

        Raises:
            ValueError: the lane is empty.
        """
        if self._occupant is None:
            raise ValueError("The lane is empty.")
        config, state = self._occupant
        epoch = 1 + (self._training.epoch if self._training else state.epoch)
        result = SliceResult(epoch, None, finite=True)
        try:
            if self._training is None:
                training = self._trainer.start(config)
                result = result._replace(compile_seconds=training.compile_seconds)
                if state.weights:
                    arrays = [*state.weights, *state.velocities, *state.others]
                    training.resume(state.epoch, arrays)
                self._training = training
            started = time.perf_counter()
            try:
                train_mse = self._training.run_epoch(evaluate=False).train_mse
                result = result._replace(train_mse=train_mse)
            except DivergenceError:
                result = result._replace(finite=False)
            result = result._replace(train_seconds=time.perf_counter() - started)
        except Exception as error:
            result = result._replace(failure=error)
        return TrainedEpoch(result, self._training)
