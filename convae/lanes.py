"""Many trials of one model, each in a lane of one XLA program: who is where, and how far.

A trial's numbers depend on the trial alone: not on its lane, its neighbours or pauses, to the bit
in a program of a given shape. Its state goes out and in exactly. `convae.lane_program` computes.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from convae.config import TrialConfig
from convae.data import ImageSet
from convae.lane_program import (
    Arguments,
    DeviceImages,
    Evaluator,
    Program,
    Shape,
    SplitSizes,
    State,
    hidden_layer,
    lane_of,
    weight_shapes,
    widest_trial,
)
from convae.models import build_model, reset
from convae.pinned import keras, tf
from convae.shapes import WIDTHS, n_chunks


@dataclass(frozen=True)
class LaneState:
    """All that training has changed, from which it goes on exactly.

    Arrays have the shapes of the trial's own Keras model, without what fills up a wider program.
    """

    epoch: int  # epochs completed
    step: int  # chunks done of the next one
    error_sum: float  # Σ over that epoch's images so far of their mean squared error
    weights: list[np.ndarray]  # in the order of the Keras model's trainable variables
    velocities: list[np.ndarray]  # of the momentum
    # In lanes the gradients of a batch in progress, none where a chunk is a batch; by the plain
    # trainer all variables that are not trained, such as random states.
    others: list[np.ndarray]

    def to_arrays(self) -> list[np.ndarray]:
        """It as arrays, for a checkpoint."""
        head = np.array([self.epoch, self.step, len(self.weights)])
        return [head, np.array(self.error_sum), *self.weights, *self.velocities, *self.others]

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray]) -> "LaneState":
        """The inverse of `to_arrays`."""
        (epoch, step, n), error_sum, rest = arrays[0].tolist(), float(arrays[1]), list(arrays[2:])
        return cls(epoch, step, error_sum, rest[:n], rest[n : 2 * n], rest[2 * n :])


class SliceResult(NamedTuple):
    """What a slice brought a lane."""

    epoch: int  # the epoch it belongs to, from 1
    # Of that epoch if the slice ended it, the mean over its batches while the weights move.
    train_mse: float | None
    finite: bool  # whether the losses were
    train_seconds: float | None = None  # that it trained; None for the whole slice
    compile_seconds: float = 0.0  # for the trial before that
    failure: Exception | None = None  # what the trial has failed over


@dataclass(frozen=True)
class _Occupant:
    """A trial in a lane, and how far it is, as in `LaneState`."""

    config: TrialConfig
    sizes: SplitSizes
    shapes: list[tuple[int, ...]]  # of its weights
    epoch: int
    step: int
    error_sum: float


class Lanes:
    """A program's lanes.

    The state is never changed in place but replaced whole, so that `get` in one thread finds a
    consistent one while `run` in another computes the next. All else is for one thread at a time.
    """

    def __init__(self, shape: Shape, images: DeviceImages, evaluator: Evaluator) -> None:
        """Lays out empty lanes on the current device; `compile` is still to come.

        Args:
            shape: what to compile.
            images: on the device.
            evaluator: of the same model.
        """
        self.shape = shape  # what the program is compiled for
        self.n_lanes = shape.n_lanes
        self._images = images
        self._evaluator = evaluator
        self._program = Program(shape, images)
        self._models: dict[tuple[Any, ...], keras.Model] = {}
        self._orders = self._program.no_orders()
        self._now: tuple[State, tuple[_Occupant | None, ...]] = (
            self._program.zeros(),
            (None,) * shape.n_lanes,
        )

    def trace(self) -> None:
        """Traces what `compile` would, so that several can compile at once in a known order."""
        state, occupants = self._now
        widest = widest_trial(self.shape)
        self._program.trace(self._orders, state, self._arguments(occupants))
        self._evaluator.trace(lane_of(state, 0), widest, self._images.sizes(widest.split))

    def compile(self) -> float:
        """Compiles all that a trial needs and returns the seconds it took."""
        start = time.perf_counter()
        widest = widest_trial(self.shape)
        self.put(0, widest, self.start(widest))
        self._begin_epoch(0)
        self.clear(0)
        state, occupants = self._now
        self._program.train(self._orders, state, self._arguments(occupants))
        self._evaluator(lane_of(state, 0), widest, self._images.sizes(widest.split)).numpy()
        return time.perf_counter() - start

    def hlo(self) -> str:
        """What XLA makes of a slice, as text; compiles it once more."""
        state, occupants = self._now
        return self._program.hlo(self._orders, state, self._arguments(occupants))

    def check(self, config: TrialConfig, state: LaneState | None = None) -> None:
        """Whether the program can train this trial, from this state.

        Raises:
            ValueError: it cannot, and why.
        """
        shape = self.shape
        n_train = self._images.sizes(config.split).n_train
        width = getattr(config, WIDTHS[shape.model])
        batch_size = min(config.batch_size, n_train)
        for name, fits in (
            (f"model {config.model}", config.model == shape.model),
            (f"{WIDTHS[shape.model]} {width}", shape.holds(width, 1)),
            (f"batch size {config.batch_size}", shape.holds(shape.width, batch_size)),
        ):
            if not fits:
                raise ValueError(f"This program cannot train {name}: {shape}.")
        if state is None:
            return
        shapes = weight_shapes(self._model(config))
        parts = (state.weights, state.velocities, state.others)
        expected = [shapes[: len(part)] for part in self._now[0]]
        if [[x.shape for x in part] for part in parts] != expected:
            raise ValueError(f"The state's shapes are not those of {config.architecture}.")

    def start(self, config: TrialConfig) -> LaneState:
        """A trial's state before its first epoch: the initial weights of its Keras model."""
        model = self._model(config)
        with tf.device("/CPU:0"):
            reset(model, config.seed)
        weights = [weight.numpy() for weight in model.trainable_variables]
        zeros = [np.zeros_like(weight) for weight in weights]
        return LaneState(0, 0, 0.0, weights, zeros, zeros if self.shape.accumulates else [])

    @property
    def image_set(self) -> ImageSet:
        """The images on the device, in the host's memory."""
        return self._images.image_set

    def put(
        self, lane: int, config: TrialConfig, state: LaneState, sizes: SplitSizes | None = None
    ) -> None:
        """Puts a trial into a lane, to go on from this state.

        Args:
            lane: an empty one.
            config: the trial's.
            state: its state.
            sizes: images that it has; None for those of its split.

        Raises:
            ValueError: the program cannot train the trial, the state is another model's, or the
                lane is taken.
        """
        self.check(config, state)
        now, occupants = self._now
        if occupants[lane] is not None:
            raise ValueError(f"Lane {lane} is taken.")
        parts = (state.weights, state.velocities, state.others)
        padded = State(
            *(
                [_padded(x, to) for x, to in zip(part, self._program.weight_shapes, strict=False)]
                for part in parts
            )
        )
        sizes = sizes or self._images.sizes(config.split)
        shapes = weight_shapes(self._model(config))
        occupant = _Occupant(config, sizes, shapes, state.epoch, state.step, state.error_sum)
        after = self._program.place(now, np.int32(lane), padded)
        self._now = after, _replaced(occupants, lane, occupant)
        if state.step:
            self._begin_epoch(lane)

    def get(self, lane: int) -> LaneState:
        """The state of the trial in a lane, at the end of the last slice.

        Raises:
            ValueError: the lane is empty.
        """
        state, occupants = self._now
        occupant = _taken(occupants, lane)
        arrays = [
            [x[lane].numpy()[_corner(of)] for x, of in zip(part, occupant.shapes, strict=False)]
            for part in state
        ]
        return LaneState(occupant.epoch, occupant.step, occupant.error_sum, *arrays)

    def clear(self, lane: int) -> None:
        """Takes the trial out of a lane. What is left there is computed on, but never counted."""
        state, occupants = self._now
        self._now = state, _replaced(occupants, lane, None)

    def run(self) -> dict[int, SliceResult]:
        """Trains every trial for a slice, or less where its epoch ends before.

        Returns when the device has done it, with a result for each lane that has a trial.
        """
        state, occupants = self._now
        for lane, occupant in enumerate(occupants):
            if occupant is not None and occupant.step == 0:
                self._begin_epoch(lane)
        state, sums = self._program.train(self._orders, state, self._arguments(occupants))
        results = {}
        for lane, error_sum in enumerate(sums.numpy()):  # reading synchronises with the device
            occupant = occupants[lane]
            if occupant is None:
                continue
            total = occupant.error_sum + float(error_sum)
            train_mse, epoch = None, occupant.epoch + 1
            after = replace(occupant, step=occupant.step + self.shape.n_steps, error_sum=total)
            if after.step >= self._n_chunks(occupant):
                train_mse = total / occupant.sizes.n_train
                after = replace(occupant, epoch=epoch, step=0, error_sum=0.0)
            occupants = _replaced(occupants, lane, after)
            results[lane] = SliceResult(epoch, train_mse, math.isfinite(total))
        self._now = state, occupants
        return results

    def evaluate(self, lanes: Iterable[int]) -> dict[int, float]:
        """Mean squared error over all pixels of each trial's evaluation images.

        Raises:
            ValueError: a lane is empty.
        """
        state, occupants = self._now
        trials = {lane: _taken(occupants, lane) for lane in lanes}
        sums = {
            lane: self._evaluator(lane_of(state, lane), trial.config, trial.sizes)
            for lane, trial in trials.items()
        }
        return {lane: float(sums[lane].numpy()) / trials[lane].sizes.n_eval for lane in trials}

    def _n_chunks(self, occupant: _Occupant) -> int:
        return n_chunks(occupant.sizes.n_train, occupant.config.batch_size, self.shape.chunk_size)

    def _model(self, config: TrialConfig) -> keras.Model:
        """A Keras model of the trial's architecture, for shapes and initial weights."""
        key = config.architecture
        if key not in self._models:
            with tf.device("/CPU:0"):
                self._models[key] = build_model(config)
        return self._models[key]

    def _begin_epoch(self, lane: int) -> None:
        occupant = _taken(self._now[1], lane)
        seed = np.array([occupant.config.seed, occupant.epoch + 1], np.int32)
        n_train = np.int32(occupant.sizes.n_train)
        self._orders = self._program.shuffle(self._orders, np.int32(lane), seed, n_train)

    def _arguments(self, occupants: Sequence[_Occupant | None]) -> Arguments:
        return Arguments.by_lane(
            None if occupant is None else _arguments_of(occupant) for occupant in occupants
        )


def _arguments_of(occupant: _Occupant) -> Arguments:
    config = occupant.config
    width, sigmoid = hidden_layer(config)
    return Arguments(
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        batch_size=min(config.batch_size, occupant.sizes.n_train),
        n_train=occupant.sizes.n_train,
        first_step=occupant.step,
        dropout=config.dropout or 0.0,
        width=width,
        sigmoid=sigmoid,
        seed=config.seed,
        epoch=occupant.epoch + 1,
    )


def _taken(occupants: Sequence[_Occupant | None], lane: int) -> _Occupant:
    occupant = occupants[lane]
    if occupant is None:
        raise ValueError(f"Lane {lane} is empty.")
    return occupant


def _replaced(
    occupants: tuple[_Occupant | None, ...], lane: int, occupant: _Occupant | None
) -> tuple[_Occupant | None, ...]:
    return (*occupants[:lane], occupant, *occupants[lane + 1 :])


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(n) for n in shape)


def _padded(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X in the corner of zeros of a larger shape: a narrow trial in a wide program."""
    padded = np.zeros(shape, x.dtype)
    padded[_corner(x.shape)] = x
    return padded
