"""The plain trainer as one lane of an engine: for custom models, and for all models on a CPU.

Its trials follow one another in the engine's process, so that nothing else opens the device. A
slice is an epoch, and a program is compiled when the first trial of its shape comes.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from convae.config import TrialConfig
from convae.errors import DivergenceError
from convae.lanes import LaneState, SliceResult
from convae.training import Trainer, Training


class DoneSlice:
    """A slice that is done when it is launched; see `convae.lanes.Slice`."""

    def __init__(
        self,
        results: dict[int, SliceResult],
        states: Mapping[int, LaneState],
        evaluate: Callable[[int], float],
    ) -> None:
        """Takes what it brought and the states after it, by lane, and what evaluates a lane."""
        self._results, self._states, self._evaluate = results, states, evaluate
        self.ended = {lane: r.epoch for lane, r in results.items() if r.train_mse is not None}

    def evaluate(self, lanes: Iterable[int]) -> None:
        """Evaluates these trials as well."""
        for lane in lanes:
            started = time.perf_counter()
            mse = self._evaluate(lane)
            seconds = time.perf_counter() - started
            evaluated = self._results[lane]._replace(eval_mse=mse, eval_seconds=seconds)
            self._results[lane] = evaluated

    def results(self) -> dict[int, SliceResult]:
        """What it brought each trial."""
        return self._results

    def state(self, lane: int) -> LaneState:
        """The state of a trial after it."""
        return self._states[lane]

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
        """Raises ValueError if it is another model's; a state is checked when the trial starts."""
        if config.model != self._model:
            raise ValueError(f"This lane trains {self._model}, not {config.model}.")

    def start(self, config: TrialConfig) -> LaneState:
        """A trial's state before its first epoch, which has no weights yet."""
        return LaneState(0, 0, 0.0, [], [], [])

    def put(self, lane: int, config: TrialConfig, state: LaneState) -> None:
        """Puts a trial that was checked into the empty lane, to go on from this state."""
        self._occupant, self._training = (config, state), None

    def clear(self, lane: int) -> None:
        """Takes the trial out of the lane."""
        self._occupant = self._training = None

    def launch(self) -> DoneSlice:
        """Trains the trial for an epoch, and before its first one here prepares it.

        An exception, as of a custom model's code, is the trial's failure and not the engine's.
        """
        assert self._occupant is not None
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
        states: dict[int, LaneState] = {}
        if self._training is not None and result.train_mse is not None:
            arrays, n = self._training.get_state(), self._training.n_weights
            parts = arrays[:n], arrays[n : 2 * n], arrays[2 * n :]
            states[0] = LaneState(epoch, 0, 0.0, *parts)
        return DoneSlice({0: result}, states, self._evaluate)

    def _evaluate(self, lane: int) -> float:
        """Mean squared error over all pixels of the trial's evaluation images."""
        assert self._training is not None
        return self._training.evaluate()
