"""What XLA compiles of a model: an epoch's slice of many lanes, and the evaluation of some.

Everything that is a number is an argument by lane, so that a model needs one program for all its
trials. A lane works on chunks of images, adds up its gradient, and updates when its own batch is
full; images that fill up a batch's last chunk weigh nothing. `convae.models` is the definition.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from convae import banded
from convae.config import CONV, DENSE, IMAGE_SHAPE, SPLITS, TrialConfig
from convae.data import ImageSet, split
from convae.lane_operations import (
    add_bias,
    conv,
    last_conv,
    narrowing_conv,
    pool,
    pooled_conv,
    threefry,
    upsampled_conv,
    upsampled_valid_conv,
)
from convae.models import build_model
from convae.pinned import keras, tf
from convae.shapes import WIDTHS, ProgramShape

# How the conv model is computed: pixel by pixel on a CPU (`convae.lane_operations`), whole rows and
# images at once on a GPU (`convae.banded`).
Form = Literal["pixels", "rows"]
# Large enough to keep a GPU busy with one lane, small enough for its memory.
EVAL_CHUNK_SIZES: Mapping[str, int] = MappingProxyType({CONV: 1000, DENSE: 10_000})
N_PIXELS = math.prod(IMAGE_SHAPE)  # of an image


def form_on(device: str) -> Form:
    """The form for a device, by TensorFlow's name of it."""
    return "rows" if "GPU" in device else "pixels"


@dataclass(frozen=True, kw_only=True)
class Shape(ProgramShape):
    """A program's shape, and how its layers are computed."""

    form: Form | None = None  # of the conv model; None for the device's


class SplitSizes(NamedTuple):
    """How many images a trial trains on, the first ones, and how many after them evaluate it."""

    n_train: int
    n_eval: int


class DeviceImages:
    """The images on the current device."""

    def __init__(self, image_set: ImageSet) -> None:
        self.image_set = image_set  # in the host's memory
        # (n, rows, columns) uint8, training images first; batches are scaled on the device.
        self.pixels = tf.constant(np.concatenate([image_set.train_images, image_set.test_images]))
        sizes = [self.sizes(name) for name in SPLITS]
        self.n_train = max(size.n_train for size in sizes)  # of the longest epoch
        self.n_eval = max(size.n_eval for size in sizes)  # of the largest evaluation

    def sizes(self, split_name: str) -> SplitSizes:
        """Of a split, whose evaluation images follow its training images here."""
        return SplitSizes(*map(len, split(self.image_set, split_name)))


class HiddenLayer(NamedTuple):
    """A dense model's hidden layer, by lane."""

    width: tf.Tensor  # (k,) int32, units in use
    sigmoid: tf.Tensor  # (k,) bool, whether that is the activation, and not ReLU


class Arguments(NamedTuple):
    """Of the trials in the lanes: a value each, or arrays (k,) of them."""

    learning_rate: Any
    momentum: Any
    nesterov: Any
    batch_size: Any
    n_train: Any
    first_step: Any  # chunks of the epoch that are done
    dropout: Any
    width: Any
    sigmoid: Any
    seed: Any
    epoch: Any  # from 1

    @classmethod
    def by_lane(cls, rows: "Iterable[Arguments | None]") -> "Arguments":
        """The arrays of lanes, some of which are empty: those have no images."""
        empty = cls(0, 0, False, 1, 0, 0, 0, 1, False, 0, 0)
        columns = zip(*(row or empty for row in rows), strict=True)
        floats, integers, words = np.float32, np.int32, np.uint32
        types: list[Any] = [floats, floats, np.bool_, integers, integers, integers]
        types += [floats, integers, np.bool_, words, words]
        return cls(*map(np.array, columns, types))


class Evaluated(NamedTuple):
    """Lanes to evaluate, in their order: arrays (k,), of which the first ones count."""

    lane: Any  # int32
    width: Any  # int32, as in `HiddenLayer`
    sigmoid: Any  # bool
    first: Any  # int32, the first evaluation image
    n_images: Any  # int32, how many there are

    @classmethod
    def of(cls, rows: Sequence["Evaluated"], n_lanes: int) -> "Evaluated":
        """The arrays of these lanes, filled up."""
        filled = [*rows, *[cls(0, 1, False, 0, 1)] * (n_lanes - len(rows))]
        types: list[Any] = [np.int32, np.int32, np.bool_, np.int32, np.int32]
        return cls(*map(np.array, zip(*filled, strict=True), types))


_Dropout = Callable[[tf.Tensor], tf.Tensor]
# (weights, images (k, n, rows, columns) in [0, 1], hidden layer, dropout) -> reconstructions
_Network = Callable[[list[tf.Tensor], tf.Tensor, HiddenLayer, _Dropout], tf.Tensor]


def _conv(
    weights: list[tf.Tensor], images: tf.Tensor, hidden: HiddenLayer, dropout: _Dropout
) -> tf.Tensor:
    """The convolutional autoencoder. Filters that a lane lacks are 0, and stay so through ReLU."""
    del hidden, dropout
    first, second, third, fourth, fifth, sixth, last = zip(weights[::2], weights[1::2], strict=True)
    x = pooled_conv(images, *first)
    x = pool(tf.nn.relu(add_bias(narrowing_conv(x, second[0]), second[1])))
    x = pool(tf.nn.relu(add_bias(conv(x, third[0]), third[1])))
    x = tf.nn.relu(add_bias(conv(x, fourth[0]), fourth[1]))
    x = upsampled_conv(x, *fifth)
    x = upsampled_valid_conv(x, *sixth)
    return tf.sigmoid(last_conv(x, *last))


def _conv_by_rows(
    weights: list[tf.Tensor], images: tf.Tensor, hidden: HiddenLayer, dropout: _Dropout
) -> tf.Tensor:
    """The same for a GPU."""
    n_lanes, n_images = images.shape[:2]
    if n_lanes == 1 and n_images % 2 == 0:
        # Of a single lane XLA transposes more, and takes half as many kernels again: two halves.
        halves = tf.reshape(images, (2, n_images // 2, *images.shape[2:]))
        twice = [tf.concat([x, x], axis=0) for x in weights]
        return tf.reshape(_conv_by_rows(twice, halves, hidden, dropout), images.shape)
    del hidden, dropout
    first, second, third, fourth, fifth, sixth, last = zip(weights[::2], weights[1::2], strict=True)
    x = banded.pooled_conv(images, *first)
    x = banded.relu_pool(banded.row_conv(x, second[0]), second[1])
    x = banded.relu_pool(banded.same_conv(x, third[0]), third[1])
    x = tf.nn.relu(add_bias(banded.same_conv(x, fourth[0]), fourth[1]))
    x = tf.nn.relu(add_bias(banded.up_same_conv(x, fifth[0]), fifth[1]))
    x = banded.relu(banded.up_valid_conv(x, sixth[0]), sixth[1])
    return tf.sigmoid(banded.last_conv(x, *last))


def _dense(
    weights: list[tf.Tensor], images: tf.Tensor, hidden: HiddenLayer, dropout: _Dropout
) -> tf.Tensor:
    """The dense autoencoder. Units that a lane lacks are masked: a sigmoid of 0 is not 0."""
    encoder, encoder_bias, decoder, decoder_bias = weights
    x = tf.reshape(images, (*images.shape[:2], -1))
    x = add_bias(tf.matmul(x, encoder), encoder_bias)
    x = tf.where(hidden.sigmoid[:, tf.newaxis, tf.newaxis], tf.sigmoid(x), tf.nn.relu(x))
    in_use = tf.range(x.shape[-1]) < hidden.width[:, tf.newaxis]
    x = dropout(tf.where(in_use[:, tf.newaxis], x, 0.0))
    x = add_bias(tf.matmul(x, decoder), decoder_bias)
    return tf.reshape(tf.sigmoid(x), images.shape)


def lane_network(model: str, form: Form) -> _Network:
    """What reconstructs the images of all lanes of a model.

    Raises:
        KeyError: the model has no lanes.
    """
    conv = {"pixels": _conv, "rows": _conv_by_rows}[form]
    return {DENSE: _dense, CONV: conv}[model]


def _errors(outputs: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """The mean squared error by image, (k, n)."""
    return tf.reduce_mean(tf.math.squared_difference(outputs, images), axis=(2, 3))


def _gather(pixels: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.gather(pixels, places), tf.float32) / 255.0


class State(NamedTuple):
    """What the program changes, each (k, …)."""

    weights: list[tf.Tensor]
    velocities: list[tf.Tensor]
    gradients: list[tf.Tensor]


class Program:
    """The compiled functions of a shape; pure, of tensors that they never change."""

    def __init__(self, shape: Shape, images: DeviceImages) -> None:
        """Compiles nothing yet: a function's first call does."""
        self.shape = shape
        # Of the widest trial, in the order of the Keras model's.
        self.weight_shapes = weight_shapes(build_model(widest_trial(shape)))
        self._n_images = images.n_train
        self._eval_chunk_size = min(EVAL_CHUNK_SIZES[shape.model], images.n_eval)
        self._n_eval_steps = math.ceil(images.n_eval / self._eval_chunk_size)
        self._network = lane_network(shape.model, shape.form or form_on(images.pixels.device))
        self._train_slice = _by_xla(self._slice)
        self._evaluate = _by_xla(self._error_sums)
        self.place = _by_xla(_with_lane)
        self.take = _by_xla(_of_lane)
        self.shuffle = _by_xla(_with_order)

    @property
    def parts(self) -> list[list[tuple[int, ...]]]:
        """The shapes of a lane's values: weights, velocities and gradients."""
        return [self.weight_shapes] * 2 + [self.weight_shapes if self.shape.accumulates else []]

    def zeros(self) -> State:
        """The state of empty lanes."""

        def each() -> list[tf.Tensor]:
            return [tf.zeros((self.shape.n_lanes, *weight)) for weight in self.weight_shapes]

        return State(each(), each(), each() if self.shape.accumulates else [])

    def no_orders(self) -> tf.Tensor:
        """The orders of empty lanes, (k, n).

        In 64 bits: TensorFlow keeps tensors of int32 in the host's memory.
        """
        return tf.zeros((self.shape.n_lanes, self._n_images), tf.int64)

    def trace(self, pixels: tf.Tensor, orders: tf.Tensor, state: State, by_lane: Arguments) -> None:
        """Traces what the first calls would; XLA compiles then."""
        lane, seed = np.int32(0), np.zeros(2, np.int32)
        n_values = sum(math.prod(shape) for part in self.parts for shape in part)
        evaluated = Evaluated.of([], self.shape.n_lanes)
        self._train_slice.get_concrete_function(pixels, orders, state, by_lane)
        self._evaluate.get_concrete_function(pixels, state.weights, np.int32(0), evaluated)
        self.place.get_concrete_function(state, lane, np.zeros(n_values, np.float32))
        self.take.get_concrete_function(state, lane)
        self.shuffle.get_concrete_function(orders, lane, seed, np.int32(0))

    def train(
        self, pixels: tf.Tensor, orders: tf.Tensor, state: State, by_lane: Arguments
    ) -> tuple[State, tf.Tensor]:
        """The state after a slice, and Σ over its images of their mean squared error, (k,)."""
        after: tuple[State, tf.Tensor] = self._train_slice(pixels, orders, state, by_lane)
        return after

    def evaluate(self, pixels: tf.Tensor, state: State, rows: Sequence[Evaluated]) -> tf.Tensor:
        """Σ over the evaluation images of these lanes of their mean squared error, (k,).

        In the order of the rows; what follows counts for nothing. One lane after the other: they
        are seldom due at once. XLA asks the host before each, and so waits for what came before.
        """
        evaluated = Evaluated.of(rows, self.shape.n_lanes)
        sums: tf.Tensor = self._evaluate(pixels, state.weights, np.int32(len(rows)), evaluated)
        return sums

    def hlo(
        self,
        pixels: tf.Tensor,
        orders: tf.Tensor,
        state: State,
        by_lane: Arguments,
        stage: str = "optimized_hlo",
        platform: str | None = None,
    ) -> str:
        """What XLA makes of a slice of any values, as text; compiles it once more.

        Stages are those of TensorFlow's `experimental_get_compiler_ir`; up to "stablehlo" the
        platform may be "GPU" where there is none.
        """
        lower = self._train_slice.experimental_get_compiler_ir(pixels, orders, state, by_lane)
        text: str = lower(stage=stage, platform_name=platform)
        return text

    def _slice(
        self, pixels: tf.Tensor, orders: tf.Tensor, state: State, by_lane: Arguments
    ) -> tuple[State, tf.Tensor]:
        n_lanes, chunk_size = self.shape.n_lanes, self.shape.chunk_size
        batch_size, n_train = by_lane.batch_size, by_lane.n_train
        chunks_per_batch = (batch_size + chunk_size - 1) // chunk_size
        in_chunk = tf.range(chunk_size)

        def step(
            i: tf.Tensor,
            sums: tf.Tensor,
            weights: list[tf.Tensor],
            velocities: list[tf.Tensor],
            gradients: list[tf.Tensor],
        ) -> tuple[Any, ...]:
            done = by_lane.first_step + i
            batch_start = done // chunks_per_batch * batch_size
            batch_end = tf.minimum(batch_start + batch_size, n_train)
            start = batch_start + done % chunks_per_batch * chunk_size
            n_left = tf.clip_by_value(batch_end - start, 0, chunk_size)
            counts = in_chunk < n_left[:, tf.newaxis]
            n_in_batch = tf.cast(tf.maximum(batch_end - batch_start, 1), tf.float32)
            positions = start[:, tf.newaxis] + in_chunk
            places = tf.gather(orders, tf.minimum(positions, orders.shape[1] - 1), batch_dims=1)
            images = _gather(pixels, places)
            dropout = _keep_all
            if self.shape.drops:
                dropout = partial(_drop, by_lane=by_lane, positions=positions)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                hidden = HiddenLayer(by_lane.width, by_lane.sigmoid)
                outputs = self._network(weights, images, hidden, dropout)
            difference = outputs - images
            # Of the mean squared error of a batch. By hand, so that no sum by image is needed:
            # XLA would do that in few blocks of a GPU, and the gradient with it.
            shares = tf.where(counts, 2.0 / N_PIXELS / n_in_batch[:, tf.newaxis], 0.0)
            of_outputs = shares[..., tf.newaxis, tf.newaxis] * difference
            new = tape.gradient(outputs, weights, of_outputs)
            full = (n_left > 0) & (start + n_left == batch_end)
            if gradients:
                new = [old + more for old, more in zip(gradients, new, strict=True)]
            weights, velocities = _update(weights, velocities, new, full, by_lane)
            if gradients:
                gradients = [tf.where(_by(full, x), 0.0, x) for x in new]
            errors = tf.where(counts[..., tf.newaxis, tf.newaxis], tf.square(difference), 0.0)
            sums += tf.reduce_sum(errors, axis=(1, 2, 3)) / N_PIXELS
            return i + 1, sums, weights, velocities, gradients

        sums, *after = _repeat(self.shape.n_steps, step, tf.zeros(n_lanes), *map(list, state))
        return State(*after), sums

    def _error_sums(
        self, pixels: tf.Tensor, weights: list[tf.Tensor], n: tf.Tensor, evaluated: Evaluated
    ) -> tf.Tensor:
        def evaluate(i: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            one = Evaluated(*(tf.gather(x, i) for x in evaluated))
            of_lane = [tf.gather(x, one.lane)[tf.newaxis] for x in weights]
            hidden = HiddenLayer(one.width[tf.newaxis], one.sigmoid[tf.newaxis])

            def step(j: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                places = j * self._eval_chunk_size + tf.range(self._eval_chunk_size)
                at = one.first + tf.minimum(places, one.n_images - 1)
                x = _gather(pixels, at[tf.newaxis])
                errors = _errors(self._network(of_lane, x, hidden, _keep_all), x)[0]
                return j + 1, total + tf.reduce_sum(tf.where(places < one.n_images, errors, 0.0))

            total = _repeat(self._n_eval_steps, step, tf.constant(0.0))
            return i + 1, _with_row(sums, i, total)

        start = tf.constant(0), tf.zeros(self.shape.n_lanes)
        _, sums = tf.while_loop(lambda i, _: i < n, evaluate, start, parallel_iterations=1)
        return sums


def _with_lane(state: State, lane: tf.Tensor, values: tf.Tensor) -> State:
    """The state with values in a lane, as `_of_lane` gives them."""
    shapes = [x.shape[1:] for part in state for x in part]
    rows = iter(tf.split(values, [shape.num_elements() for shape in shapes]))
    return State(
        *([_with_row(x, lane, tf.reshape(next(rows), x.shape[1:])) for x in p] for p in state)
    )


def _of_lane(state: State, lane: tf.Tensor) -> tf.Tensor:
    """All values of a lane, one array after the other."""
    return tf.concat([tf.reshape(tf.gather(x, lane), [-1]) for part in state for x in part], axis=0)


def _with_order(
    orders: tf.Tensor, lane: tf.Tensor, seed: tf.Tensor, n_train: tf.Tensor
) -> tf.Tensor:
    """The orders with a lane's shuffled anew: its first n_train images, then the others."""
    n_images = orders.shape[1]
    # As in `convae.training`, for any number of images: Philox numbers its values, so that those of
    # fewer are the first of those of more, and the sort is stable.
    keys = tf.random.stateless_uniform((n_images,), seed, None, None, tf.int32, alg="philox")
    keys = tf.where(tf.range(n_images) < n_train, keys, tf.int32.max)
    order = tf.cast(tf.argsort(keys, stable=True), orders.dtype)
    return _with_row(orders, lane, order)


def _update(
    weights: list[tf.Tensor],
    velocities: list[tf.Tensor],
    gradients: list[tf.Tensor],
    full: tf.Tensor,
    by_lane: Arguments,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Keras' SGD where a lane's batch is full.

    v ← momentum·v − lr·g; w ← w + v, or w + momentum·v − lr·g (Nesterov).
    """
    new_weights, new_velocities = [], []
    for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
        momentum = _by(by_lane.momentum, weight)
        change = _by(by_lane.learning_rate, weight) * gradient
        new_velocity = momentum * velocity - change
        ahead = momentum * new_velocity - change
        step = tf.where(_by(by_lane.nesterov, weight), ahead, new_velocity)
        is_full = _by(full, weight)
        new_velocities.append(tf.where(is_full, new_velocity, velocity))
        new_weights.append(tf.where(is_full, weight + step, weight))
    return new_weights, new_velocities


def _drop(x: tf.Tensor, *, by_lane: Arguments, positions: tf.Tensor) -> tf.Tensor:
    """Keras' dropout of x (k, n, units): a pure function of seed, epoch, position and unit."""
    seed, epoch = (_by(key, x) for key in (by_lane.seed, by_lane.epoch))
    position = tf.cast(positions, tf.uint32)[..., tf.newaxis]
    unit = tf.cast(tf.range(x.shape[-1]), tf.uint32)
    bits, _ = threefry((seed, epoch), (position, unit))
    # 24 bits are as many as a float32 has.
    uniform = tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2**-24
    rate = _by(by_lane.dropout, x)
    scaled = x * tf.cast(1.0 / (1.0 - rate), x.dtype)
    return tf.where(uniform >= rate, scaled, tf.zeros((), x.dtype))


def _keep_all(x: tf.Tensor) -> tf.Tensor:
    """No dropout."""
    return x


def _by(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Values (k,) in the shape that meets x (k, …)."""
    return tf.reshape(values, (-1, *[1] * (x.shape.rank - 1)))


def _with_row(x: tf.Tensor, lane: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    # A choice by lane, not a product with 0 and 1: an empty lane may hold anything.
    return tf.where(_by(tf.range(x.shape[0]) == lane, x), row[tf.newaxis], x)


def _by_xla(function: Callable[..., Any]) -> Any:
    """The function, to be compiled at its first call."""
    # AutoGraph would translate Python that depends on tensors' values, of which there is none. A
    # partial, because TensorFlow counts the traces of each function, and warns when there are five:
    # here every program has one.
    return tf.function(partial(function), jit_compile=True, autograph=False)


def _repeat(n: int, step: Callable[..., Any], *start: Any) -> Any:
    """The last values of a loop of n steps, a number that XLA knows: it makes better loops so."""
    _, *values = tf.while_loop(
        lambda i, *_: i < n,
        step,
        (tf.constant(0), *start),
        parallel_iterations=1,  # each step needs the one before
        maximum_iterations=n,
    )
    return values if len(start) > 1 else values[0]


def hidden_layer(config: TrialConfig) -> tuple[np.int32, np.bool_]:
    """Width and whether the activation is a sigmoid."""
    width = getattr(config, WIDTHS[config.model])
    return np.int32(width), np.bool_(config.hidden_activation == "sigmoid")


def widest_trial(shape: Shape) -> TrialConfig:
    """A trial that fills the program's width."""
    width: dict[str, Any] = {WIDTHS[shape.model]: shape.width}
    return TrialConfig(model=shape.model, batch_size=shape.chunk_size, **width)


def weight_shapes(model: keras.Model) -> list[tuple[int, ...]]:
    """Of the trainable variables, in their order."""
    return [tuple(weight.shape) for weight in model.trainable_variables]
