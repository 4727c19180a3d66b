"""Many trials of one model, each in a lane of one XLA program: who is where, and how far.

A trial's numbers depend on the trial alone: not on its lane, its neighbours or pauses, to the bit
in a program of a given shape. Its state goes out and in exactly. `convae.lane_program` computes.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from convae.config import TrialConfig
from convae.data import ImageSet
from convae.lane_program import (
    Arguments,
    DeviceImages,
    Evaluated,
    Program,
    Shape,
    SplitSizes,
    State,
    hidden_layer,
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
    train_seconds: float = 0.0  # the trial's share of the device's
    eval_mse: float | None = None  # after the epoch, if that was asked for
    eval_seconds: float = 0.0
    compile_seconds: float = 0.0  # for the trial before that
    failure: Exception | None = None  # what the trial has failed over


class Computed(NamedTuple):
    """What the device has computed."""

    values: np.ndarray
    seconds: float  # that it took, without what the device did before


class Reader:
    """Reads what a device computes, in the order in which the device was asked to.

    In a thread of its own, which waits while the device is given the next work. A copy to the host
    comes after all that the device has been given until the copy is asked for: so at once.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reader")
        self._free_at = 0.0  # when the device had done what was read last

    def read(self, tensor: tf.Tensor, started: float) -> "Future[Computed]":
        """The values of a tensor that the device was asked for at this `time.perf_counter`."""

        def wait() -> Computed:
            values = tensor.numpy()
            started_at, self._free_at = max(started, self._free_at), time.perf_counter()
            return Computed(values, self._free_at - started_at)

        return self._thread.submit(wait)


@dataclass(frozen=True)
class _Occupant:
    """A trial in a lane, and how far it is, as in `LaneState`."""

    lane: int
    config: TrialConfig
    sizes: SplitSizes
    shapes: list[tuple[int, ...]]  # of its weights
    epoch: int
    step: int
    earlier_sum: float  # the error sum before these slices of the epoch
    slices: "tuple[Future[Computed], ...]" = ()

    @property
    def error_sum(self) -> float:
        """Waits until the device has done the slices."""
        return sum(
            (float(each.result().values[self.lane]) for each in self.slices), self.earlier_sum
        )


class _Moment(NamedTuple):
    """The lanes at a moment. Never changed in place, so that it can be read at any time."""

    state: State
    occupants: tuple[_Occupant | None, ...]


class Slice:
    """A slice of all lanes that the device has been given, whether or not it has done it yet."""

    def __init__(
        self,
        lanes: "Lanes",
        before: Sequence[_Occupant | None],
        after: _Moment,
        sums: "Future[Computed]",
    ) -> None:
        """Takes the lanes, who is there before it, and what they are after it."""
        self._lanes, self._after, self._sums = lanes, after, sums
        self._trials = [occupant for occupant in before if occupant]
        # By lane whose epoch it ends, that epoch, from 1.
        self.ended = {
            now.lane: now.epoch
            for was, now in zip(before, after.occupants, strict=True)
            if was and now and now.epoch > was.epoch
        }
        self._due: list[int] = []

    def evaluate(self, lanes: Iterable[int]) -> None:
        """Asks the device for the evaluation of these trials as well, in one call."""
        self._due = list(lanes)
        if self._due:
            self._evaluated = self._lanes.ask_for_evaluation(self._after, self._due)

    def results(self) -> dict[int, SliceResult]:
        """What it brought each trial, once the device has done it."""
        sums, seconds = self._sums.result()
        results = {}
        for trial in self._trials:
            error_sum = trial.error_sum + float(sums[trial.lane])
            ended = trial.lane in self.ended
            train_mse = error_sum / trial.sizes.n_train if ended else None
            share = seconds / len(self._trials)
            results[trial.lane] = SliceResult(
                trial.epoch + 1, train_mse, math.isfinite(error_sum), share
            )
        if self._due:
            sums, seconds = self._evaluated.result()
            for lane, total in zip(self._due, sums, strict=False):
                trial = _taken(self._after, lane)
                mse, share = float(total) / trial.sizes.n_eval, seconds / len(self._due)
                results[lane] = results[lane]._replace(eval_mse=mse, eval_seconds=share)
        return results

    def state(self, lane: int) -> LaneState:
        """The state of a trial after it."""
        return self.keep(lane)()

    def keep(self, lane: int) -> Callable[[], LaneState]:
        """Has that state read, and waits for it when it is called."""
        return self._lanes.take(self._after, lane)


class Lanes:
    """A program's lanes.

    The state is never changed in place but replaced whole, so that a slice's can be read while the
    device computes the next. What changes it is for one thread at a time. What reads or evaluates a
    lane raises ValueError if it is empty.
    """

    runs_ahead = True  # a slice may be launched before the last one's results are read

    def __init__(self, shape: Shape, images: DeviceImages, reader: Reader | None = None) -> None:
        """Lays out empty lanes on the current device, which has a reader, or gets one.

        `compile` is still to come.
        """
        self.shape = shape  # what the program is compiled for
        self.n_lanes = shape.n_lanes
        self._program = Program(shape, images)
        self._reader = reader or Reader()
        self._models: dict[tuple[Any, ...], keras.Model] = {}
        self._models_lock = threading.Lock()
        self.lay_out(images)

    def lay_out(self, images: DeviceImages) -> None:
        """Empties all lanes, for trials on these images."""
        self._images = images
        self._orders = self._program.no_orders()
        self._now = _Moment(self._program.zeros(), (None,) * self.n_lanes)

    def over(self, images: DeviceImages) -> Self:
        """Empty lanes of the same program over other images, as many as its own."""
        other = copy(self)
        other.lay_out(images)
        return other

    def trace(self) -> None:
        """Traces what `compile` would, so that several can compile at once in a known order."""
        self._program.trace(*self._arguments())

    def compile(self) -> float:
        """Compiles all that a trial needs and returns the seconds it took."""
        start = time.perf_counter()
        widest = widest_trial(self.shape)
        self.put(0, widest, self.start(widest))
        self._begin_epoch(0)
        self.get(0)
        self.evaluate([0])
        self.clear(0)
        self._program.train(*self._arguments())[1].numpy()
        return time.perf_counter() - start

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
            (f"{WIDTHS[shape.model]} {width}", shape.holds(width, 1, drops=False)),
            (f"batch size {config.batch_size}", shape.holds(1, batch_size, drops=False)),
            (f"dropout {config.dropout}", shape.holds(1, 1, drops=bool(config.dropout))),
        ):
            if not fits:
                raise ValueError(f"This program cannot train {name}: {shape}.")
        if state is None:
            return
        shapes = self._shapes(config)
        parts = (state.weights, state.velocities, state.others)
        expected = [shapes[: len(part)] for part in self._program.parts]
        if [[x.shape for x in part] for part in parts] != expected:
            raise ValueError(f"The state's shapes are not those of {config.architecture}.")

    def start(self, config: TrialConfig) -> LaneState:
        """A trial's state before its first epoch: the initial weights of its Keras model."""
        with self._models_lock, tf.device("/CPU:0"):
            model = self._model(config)
            reset(model, config.seed)
            weights = [weight.numpy() for weight in model.trainable_variables]
        zeros = [np.zeros(weight.shape, weight.dtype) for weight in weights]
        return LaneState(0, 0, 0.0, weights, zeros, zeros if self.shape.accumulates else [])

    @property
    def image_set(self) -> ImageSet:
        """The images on the device, in the host's memory."""
        return self._images.image_set

    def put(
        self, lane: int, config: TrialConfig, state: LaneState, sizes: SplitSizes | None = None
    ) -> None:
        """Puts a trial into a lane, to go on from this state; by default on its split's images.

        Raises:
            ValueError: the program cannot train the trial, the state is another model's, or the
                lane is taken.
        """
        self.check(config, state)
        now, occupants = self._now
        if occupants[lane] is not None:
            raise ValueError(f"Lane {lane} is taken.")
        parts = zip(
            (state.weights, state.velocities, state.others), self._program.parts, strict=True
        )
        values = np.concatenate(
            [_padded(x, to).ravel() for part in parts for x, to in zip(*part, strict=False)]
        )
        occupant = _Occupant(
            lane,
            config,
            sizes or self._images.sizes(config.split),
            self._shapes(config),
            state.epoch,
            state.step,
            state.error_sum,
        )
        after = self._program.place(now, np.int32(lane), values)
        self._now = _Moment(after, _replaced(occupants, lane, occupant))
        if state.step:
            self._begin_epoch(lane)

    def get(self, lane: int) -> LaneState:
        """The state of the trial in a lane, at the end of the last slice."""
        return self.take(self._now, lane)()

    def take(self, moment: _Moment, lane: int) -> Callable[[], LaneState]:
        """Has a lane's state read; what is returned waits for it."""
        occupant = _taken(moment, lane)
        started = time.perf_counter()
        computed = self._reader.read(self._program.take(moment.state, np.int32(lane)), started)

        def read() -> LaneState:
            parts = self._program.parts
            ends = np.cumsum([math.prod(shape) for part in parts for shape in part])
            rows = iter(np.split(computed.result().values, ends[:-1]))
            arrays = [
                [
                    next(rows).reshape(shape)[tuple(map(slice, of))]
                    for shape, of in zip(part, occupant.shapes, strict=False)
                ]
                for part in parts
            ]
            return LaneState(occupant.epoch, occupant.step, occupant.error_sum, *arrays)

        return read

    def clear(self, lane: int) -> None:
        """Takes the trial out of a lane. What is left there is computed on, but never counted."""
        state, occupants = self._now
        self._now = _Moment(state, _replaced(occupants, lane, None))

    def launch(self) -> Slice:
        """Has the device train every trial for a slice, or less where its epoch ends before."""
        before = self._now
        for occupant in before.occupants:
            if occupant and occupant.step == 0:
                self._begin_epoch(occupant.lane)
        started = time.perf_counter()
        state, sums = self._program.train(*self._arguments())
        read = self._reader.read(sums, started)
        self._now = _Moment(state, tuple(o and self._advanced(o, read) for o in before.occupants))
        return Slice(self, before.occupants, self._now, read)

    def run(self) -> dict[int, SliceResult]:
        """A slice's results, once the device has done it."""
        return self.launch().results()

    def evaluate(self, lanes: Sequence[int]) -> dict[int, float]:
        """Mean squared error over all pixels of each trial's evaluation images, as of now."""
        sums = self.ask_for_evaluation(self._now, lanes).result().values
        n_images = [_taken(self._now, lane).sizes.n_eval for lane in lanes]
        return {lane: float(x) / n for lane, x, n in zip(lanes, sums, n_images, strict=False)}

    def ask_for_evaluation(self, moment: _Moment, lanes: Sequence[int]) -> "Future[Computed]":
        """Σ over its evaluation images of their mean squared error, of these lanes in order."""
        trials = [_taken(moment, lane) for lane in lanes]
        started = time.perf_counter()
        rows = [Evaluated(t.lane, *hidden_layer(t.config), *t.sizes) for t in trials]
        sums = self._program.evaluate(self._images.pixels, moment.state, rows)
        return self._reader.read(sums, started)

    def _advanced(self, trial: _Occupant, slice_: "Future[Computed]") -> _Occupant:
        """A trial after a slice."""
        n_train, step = trial.sizes.n_train, trial.step + self.shape.n_steps
        if step < n_chunks(n_train, trial.config.batch_size, self.shape.chunk_size):
            return replace(trial, step=step, slices=(*trial.slices, slice_))
        return replace(trial, epoch=trial.epoch + 1, step=0, earlier_sum=0.0, slices=())

    def _model(self, config: TrialConfig) -> keras.Model:
        """A Keras model of the trial's architecture, for shapes and initial weights."""
        key = config.architecture
        if key not in self._models:
            with tf.device("/CPU:0"):
                self._models[key] = build_model(config)
        return self._models[key]

    def _shapes(self, config: TrialConfig) -> list[tuple[int, ...]]:
        with self._models_lock:
            return weight_shapes(self._model(config))

    def _begin_epoch(self, lane: int) -> None:
        occupant = _taken(self._now, lane)
        seed = np.array([occupant.config.seed, occupant.epoch + 1], np.int32)
        n_train = np.int32(occupant.sizes.n_train)
        self._orders = self._program.shuffle(self._orders, np.int32(lane), seed, n_train)

    def _arguments(self) -> tuple[tf.Tensor, tf.Tensor, State, Arguments]:
        """Of the program for the next slice."""
        state, occupants = self._now
        by_lane = Arguments.by_lane(None if o is None else _arguments_of(o) for o in occupants)
        return self._images.pixels, self._orders, state, by_lane


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


def _taken(moment: _Moment, lane: int) -> _Occupant:
    occupant = moment.occupants[lane]
    if occupant is None:
        raise ValueError(f"Lane {lane} is empty.")
    return occupant


def _replaced(
    occupants: tuple[_Occupant | None, ...], lane: int, occupant: _Occupant | None
) -> tuple[_Occupant | None, ...]:
    return (*occupants[:lane], occupant, *occupants[lane + 1 :])


def _padded(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """X in the corner of zeros of a larger shape: a narrow trial in a wide program."""
    return np.pad(x, [(0, to - n) for n, to in zip(x.shape, shape, strict=True)])
