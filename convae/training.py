"""The fast trainer of one trial: whole epochs in compiled functions over data on the device.

It computes what Keras' `model.fit` computes with `SGD` and the mean squared error, step by step
(the tests hold the two together), without its input pipeline and its per-step Python. A CPU runs
TensorFlow's graph, a GPU a program of one lane, and the graph of a model of a person's own. A
`Trainer` keeps the images and what is compiled: a further trial of a known shape starts at once.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from convae.data import VAL_MSE, ImageSet, split
from convae.device import Device
from convae.errors import DivergenceError
from convae.formulations import Formulation, as_defined, cheaper_on_cpu
from convae.lane_program import WIDTHS, DeviceImages, Evaluator, Shape
from convae.lanes import Lanes, LaneState
from convae.models import build_model, count_trainable, reset, reset_custom
from convae.xla import cached_programs

# Large enough to keep a GPU busy, small enough for 100 MB of activations.
EVAL_BATCH_SIZE = 1000
# Threads take parts of a batch, but none so small that operations cost more than arithmetic.
MIN_PART_SIZE = 32


@dataclass(frozen=True)
class EpochResult:
    """What one epoch measured.

    Attributes:
        epoch: counted from 1.
        train_mse: mean over the epoch's batches while the weights move, weighted by batch size
            (what Keras' History calls `loss`), in (pixel / 255)².
        eval_mse: at the epoch's end, on the test or validation images; None if not asked for.
        train_seconds: weight updates only. A trial that shares its device has its share: the
            device's seconds over the lanes at work.
        eval_seconds: 0 if not evaluated.
        n_sharing: trials at work on the device, this one included, averaged over train_seconds.
    """

    epoch: int
    train_mse: float
    eval_mse: float | None
    train_seconds: float
    eval_seconds: float
    n_sharing: float = 1.0


class EpochProgram:
    """Training and evaluation of one architecture at one batch size on a CPU, compiled once.

    Learning rate, momentum, nesterov and the order of the images are arguments, not constants of
    the graph, so trials that differ only in them share the program.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: tf.Tensor,
        n_train: int,
        eval_images: tf.Tensor,
        *,
        n_threads: int = 1,
        formulation: Formulation = cheaper_on_cpu,
    ) -> None:
        """Traces and compiles.

        Args:
            config: its architecture and batch size.
            images: (n, 28, 28, 1) uint8 on the device; the first n_train are trained on.
            n_train: images an epoch.
            eval_images: (m, 28, 28, 1) uint8 on the device.
            n_threads: parts of a batch to compute at once.
            formulation: how to compute the model.
        """
        self.model = self._build(config)
        self._reconstruct = formulation(self.model)
        self._n_threads = n_threads
        self._batch_size = min(config.batch_size, n_train)
        self._n_train = n_train
        self._n_steps = math.ceil(n_train / self._batch_size)
        self._weights = [weight.value for weight in self.model.trainable_variables]
        self._velocities = [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
        scalar = tf.TensorSpec((), tf.float32)
        # AutoGraph would translate Python that depends on tensors' values, of which there is none.
        compiled = partial(tf.function, autograph=False)
        self._train = compiled(self._train_epoch).get_concrete_function(
            _spec(images),
            learning_rate=scalar,
            momentum=scalar,
            nesterov=tf.TensorSpec((), tf.bool),
            shuffle_seed=tf.TensorSpec((2,), tf.int32),
            n_steps=tf.TensorSpec((), tf.int32),
        )
        self._evaluate = compiled(self._evaluate_images).get_concrete_function(_spec(eval_images))
        # The first call compiles what XLA does of it.
        self._call_train(images, 0.0, 0.0, True, (0, 0), n_steps=1)
        self.evaluate(eval_images)

    def _build(self, config: TrialConfig) -> keras.Model:
        return build_model(config)

    def reset(self, seed: int) -> None:
        """Sets fresh initial weights, a pure function of the seed, and zero velocities."""
        self._reset_model(seed)
        for velocity in self._velocities:
            velocity.assign(tf.zeros_like(velocity))

    def _reset_model(self, seed: int) -> None:
        reset(self.model, seed)

    @property
    def _state(self) -> list[Any]:
        """Whatever training changes: weights, velocities, and random states and the like."""
        others = [variable.value for variable in self.model.non_trainable_variables]
        return [*self._weights, *self._velocities, *others]

    def get_state(self) -> list[np.ndarray]:
        """Copies of the weights, the velocities, and random states and the like."""
        return [variable.numpy() for variable in self._state]

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """The inverse of `get_state`, for a program of the same shape."""
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)

    def train_epoch(
        self,
        images: tf.Tensor,
        *,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        shuffle_seed: tuple[int, int],
    ) -> float:
        """Trains on the first n_train images, each once, and returns the epoch's mean MSE.

        Args:
            images: (n, 28, 28, 1) uint8, n ≥ n_train.
            learning_rate: of SGD.
            momentum: of SGD.
            nesterov: whether the momentum is Nesterov's.
            shuffle_seed: of the order of the images.
        """
        return self._call_train(
            images, learning_rate, momentum, nesterov, shuffle_seed, self._n_steps
        )

    def evaluate(self, images: tf.Tensor) -> float:
        """Mean squared error over all pixels of images (n, 28, 28, 1) uint8."""
        return float(self._evaluate(images).numpy())

    def _call_train(
        self,
        images: tf.Tensor,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        shuffle_seed: tuple[int, int],
        n_steps: int,
    ) -> float:
        mse = self._train(
            images,
            learning_rate=tf.constant(learning_rate, tf.float32),
            momentum=tf.constant(momentum, tf.float32),
            nesterov=tf.constant(nesterov),
            shuffle_seed=tf.constant(shuffle_seed, tf.int32),
            n_steps=tf.constant(n_steps),
        )
        return float(mse.numpy())

    def _train_epoch(
        self,
        images: tf.Tensor,
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        nesterov: tf.Tensor,
        shuffle_seed: tf.Tensor,
        n_steps: tf.Tensor,
    ) -> tf.Tensor:
        # Philox on every device: the same seed gives the same order everywhere.
        # (Sorting random keys, because XLA lacks TensorFlow's shuffle.)
        keys = tf.random.stateless_uniform(
            (self._n_train,), shuffle_seed, None, None, tf.int32, alg="philox"
        )
        order = tf.argsort(keys)
        update = partial(
            self._update, learning_rate=learning_rate, momentum=momentum, nesterov=nesterov
        )
        return self._sum_over_batches(images, order, n_steps, update) / self._n_train

    def _sum_over_batches(
        self,
        images: tf.Tensor,
        order: tf.Tensor,
        n_steps: tf.Tensor,
        update: Callable[[list[tf.Tensor]], None],
    ) -> tf.Tensor:
        """Trains so many steps; Σ over their images of the mean squared error."""
        size = self._batch_size
        # The last batch is filled up with an image of weight 0, so that all have one shape: a
        # second one would take as long to compile again.
        missing = self._n_steps * size - self._n_train
        order = tf.pad(order, [[0, missing]])

        def step(i: tf.Tensor) -> tf.Tensor:
            start = i * size
            n_left = tf.minimum(size, self._n_train - start)
            weights = tf.cast(tf.range(size) < n_left, tf.float32) / tf.cast(n_left, tf.float32)

            def part(first: int, n: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
                chosen = tf.gather(images, tf.slice(order, [start + first], [n]))
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(self._weights)
                    errors = self._mse_by_image(chosen, training=True)
                    mse = tf.tensordot(weights[first : first + n], errors, 1)
                return mse, tape.gradient(mse, self._weights)

            mse, gradients = self._sum_over_parts(size, part)
            update(gradients)
            return mse * tf.cast(n_left, tf.float32)

        return _sum_over(n_steps, step)

    def _mse_by_image(self, images: tf.Tensor, *, training: bool) -> tf.Tensor:
        targets = _as_float(images)
        outputs = tf.cast(self._reconstruct(targets, training), tf.float32)
        return tf.reduce_mean(tf.math.squared_difference(outputs, targets), axis=(1, 2, 3))

    def _sum_over_parts(self, size: int, share: Callable[[int, int], Any]) -> Any:
        """Σ share(first, n) over a batch's parts [first, first + n).

        TensorFlow computes the parts at once where it has threads; their order in the sum is fixed.
        """
        n_parts = max(1, min(self._n_threads, size // MIN_PART_SIZE))
        bounds = [i * size // n_parts for i in range(n_parts + 1)]
        shares = [share(first, end - first) for first, end in pairwise(bounds)]
        return tf.nest.map_structure(lambda *terms: tf.add_n(terms), *shares)

    def _update(
        self,
        gradients: list[tf.Tensor],
        learning_rate: tf.Tensor,
        momentum: tf.Tensor,
        nesterov: tf.Tensor,
    ) -> None:
        """Keras' SGD: v ← momentum·v − lr·g; w ← w + v, or w + momentum·v − lr·g (Nesterov)."""
        triples = list(zip(self._weights, self._velocities, gradients, strict=True))

        def fused(use_nesterov: bool) -> Callable[[], tf.Tensor]:
            def apply() -> tf.Tensor:
                for weight, velocity, gradient in triples:
                    tf.raw_ops.ResourceApplyKerasMomentum(
                        var=weight.handle,
                        accum=velocity.handle,
                        lr=tf.cast(learning_rate, weight.dtype),
                        grad=gradient,
                        momentum=tf.cast(momentum, weight.dtype),
                        use_nesterov=use_nesterov,
                    )
                return tf.constant(0)

            return apply

        # One pass over memory instead of eight: on a CPU the update is bound by it.
        tf.cond(nesterov, fused(True), fused(False))

    def _evaluate_images(self, images: tf.Tensor) -> tf.Tensor:
        n_images = images.shape[0]

        def sum_of_errors(start: tf.Tensor, size: int) -> tf.Tensor:
            def part(first: int, n: int) -> tf.Tensor:
                chosen = tf.slice(images, [start + first, 0, 0, 0], [n, *images.shape[1:]])
                return tf.reduce_sum(self._mse_by_image(chosen, training=False))

            return self._sum_over_parts(size, part)

        size = min(EVAL_BATCH_SIZE, n_images)
        n_full = n_images // size
        total = _sum_over(n_full, lambda i: sum_of_errors(i * size, size))
        if rest := n_images - n_full * size:
            total += sum_of_errors(tf.constant(n_full * size), rest)
        return total / n_images


class CustomProgram(EpochProgram):
    """The same of a model of a person's own, which Keras computes: nothing is known of its layers.

    So a batch is neither split nor filled up, since its images may depend on each other, as those
    of a batch normalisation do. What the model adds to the loss is minimised, but not reported.
    """

    def __init__(
        self,
        config: TrialConfig,
        custom_models: Iterable[CustomModel],
        images: tf.Tensor,
        n_train: int,
        eval_images: tf.Tensor,
    ) -> None:
        """Traces and compiles; see `EpochProgram`."""
        self._config, self._custom_models = config, tuple(custom_models)
        super().__init__(config, images, n_train, eval_images, formulation=as_defined)

    def _build(self, config: TrialConfig) -> keras.Model:
        # One seed for all, for what a builder makes random that is no variable.
        return build_model(replace(config, seed=0), self._custom_models)

    def _reset_model(self, seed: int) -> None:
        reset_custom(self.model, replace(self._config, seed=seed), self._custom_models)

    def _sum_over_batches(
        self,
        images: tf.Tensor,
        order: tf.Tensor,
        n_steps: tf.Tensor,
        update: Callable[[list[tf.Tensor]], None],
    ) -> tf.Tensor:
        def batch(start: tf.Tensor, n: int) -> tf.Tensor:
            chosen = tf.gather(images, tf.slice(order, [start], [n]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._weights)
                mse = tf.reduce_mean(self._mse_by_image(chosen, training=True))
                added = [tf.reduce_sum(tf.cast(x, tf.float32)) for x in self.model.losses]
                loss = tf.add_n([mse, *added])
            zero = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(loss, self._weights, unconnected_gradients=zero)
            update([tf.convert_to_tensor(gradient) for gradient in gradients])  # not its slices
            for weight in self.model.trainable_variables:
                if weight.constraint is not None:
                    weight.assign(weight.constraint(weight))
            return mse * n

        size = self._batch_size
        n_full, rest = divmod(self._n_train, size)
        total = _sum_over(tf.minimum(n_steps, n_full), lambda i: batch(i * size, size))
        if rest:
            start = tf.constant(n_full * size)
            total += tf.cond(n_steps > n_full, lambda: batch(start, rest), lambda: tf.constant(0.0))
        return total


class Training(ABC):
    """One trial in progress. Made by `Trainer.start`.

    Attributes:
        config: the trial's.
        epoch: epochs completed.
        compile_seconds: tracing, XLA and autotuning; 0 if the program was there already.
        eval_metric: `TEST_MSE` or `VAL_MSE`.
        n_parameters: trainable weights.
        n_weights: arrays of them.
    """

    def __init__(
        self, config: TrialConfig, eval_metric: str, compile_seconds: float, model: keras.Model
    ) -> None:
        self.config = config
        self.epoch = 0
        self.compile_seconds = compile_seconds
        self.eval_metric = eval_metric
        self.n_parameters = count_trainable(model)
        self.n_weights = len(model.trainable_variables)

    @property
    @abstractmethod
    def model(self) -> keras.Model:
        """The Keras model with the present weights. It is the program's: save it, don't keep it."""

    def run_epoch(self, *, evaluate: bool = True) -> EpochResult:
        """Trains one epoch and, if asked, evaluates at its end.

        Raises:
            DivergenceError: a loss is not finite.
        """
        epoch = self.epoch + 1
        with _stopwatch() as train_time:
            train_mse = self._train_epoch()
        eval_mse = None
        eval_seconds = 0.0
        if evaluate and math.isfinite(train_mse):
            with _stopwatch() as eval_time:
                eval_mse = self.evaluate()
            eval_seconds = eval_time()
        if not math.isfinite(train_mse) or not math.isfinite(eval_mse or 0.0):
            raise DivergenceError(epoch)
        self.epoch = epoch
        return EpochResult(epoch, train_mse, eval_mse, train_time(), eval_seconds)

    @abstractmethod
    def get_state(self) -> list[np.ndarray]:
        """What training has changed so far. `resume` goes on from it, in any process."""

    def resume(self, epoch: int, state: Sequence[np.ndarray]) -> None:
        """Goes on after so many epochs, as if it had trained them.

        Raises:
            ValueError: the state is that of another shape.
        """
        self._set_state(epoch, state)
        self.epoch = epoch

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Reconstructions in (0, 1) of uint8 images (n, 28, 28), as float32 of the same shape."""
        return reconstruct(self.model, images)

    @abstractmethod
    def _train_epoch(self) -> float:
        """Trains the next epoch and returns its mean MSE."""

    @abstractmethod
    def evaluate(self) -> float:
        """The mean squared error of the evaluation images."""

    @abstractmethod
    def _set_state(self, epoch: int, state: Sequence[np.ndarray]) -> None:
        """The inverse of `get_state`."""


def reconstruct(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A model's reconstructions in (0, 1) of uint8 images (n, 28, 28), as float32 of that shape."""
    outputs = [
        tf.cast(model(_as_float(chunk[..., np.newaxis]), training=False), tf.float32)
        for chunk in np.split(images, range(EVAL_BATCH_SIZE, len(images), EVAL_BATCH_SIZE))
    ]
    return np.concatenate(outputs)[..., 0]


class _GraphTraining(Training):
    """On a CPU, by an `EpochProgram`, whose weights are the trial's as long as it trains."""

    def __init__(
        self,
        config: TrialConfig,
        program: EpochProgram,
        images: tf.Tensor,
        eval_images: tf.Tensor,
        eval_metric: str,
        compile_seconds: float,
    ) -> None:
        super().__init__(config, eval_metric, compile_seconds, program.model)
        self._program = program
        self._images = images
        self._eval_images = eval_images
        program.reset(config.seed)

    @property
    def model(self) -> keras.Model:
        return self._program.model

    def get_state(self) -> list[np.ndarray]:
        return self._program.get_state()

    def _train_epoch(self) -> float:
        return self._program.train_epoch(
            self._images,
            learning_rate=self.config.learning_rate,
            momentum=self.config.momentum,
            nesterov=self.config.nesterov,
            shuffle_seed=(self.config.seed, self.epoch + 1),
        )

    def evaluate(self) -> float:
        return self._program.evaluate(self._eval_images)

    def _set_state(self, epoch: int, state: Sequence[np.ndarray]) -> None:
        self._program.set_state(state)


class _LaneTraining(Training):
    """On a GPU, in a program of one lane."""

    def __init__(
        self, config: TrialConfig, lanes: Lanes, eval_metric: str, compile_seconds: float
    ) -> None:
        self._model = build_model(config)
        super().__init__(config, eval_metric, compile_seconds, self._model)
        self._lanes = lanes
        self._put(lanes.start(config))

    @property
    def model(self) -> keras.Model:
        weights = self._lanes.get(0).weights
        for variable, weight in zip(self._model.trainable_variables, weights, strict=True):
            variable.assign(weight)
        return self._model

    def get_state(self) -> list[np.ndarray]:
        state = self._lanes.get(0)
        return [*state.weights, *state.velocities]

    def _train_epoch(self) -> float:
        while True:
            result = self._lanes.run()[0]
            if result.train_mse is not None:
                return result.train_mse

    def evaluate(self) -> float:
        return self._lanes.evaluate([0])[0]

    def _set_state(self, epoch: int, state: Sequence[np.ndarray]) -> None:
        fresh = self._lanes.start(self.config)
        n_weights = len(fresh.weights)
        weights, velocities = list(state[:n_weights]), list(state[n_weights:])
        self._put(replace(fresh, epoch=epoch, weights=weights, velocities=velocities))

    def _put(self, state: LaneState) -> None:
        self._lanes.clear(0)
        self._lanes.put(0, self.config, state)


class Trainer:
    """Holds the images on a device and what is compiled in a process.

    One trial trains at a time: trials of one shape share the program's weights.

    Attributes:
        device: to train on.
        image_set: the images.
        custom_models: that trials may name.
    """

    def __init__(
        self,
        image_set: ImageSet,
        device: Device,
        formulation: Formulation = cheaper_on_cpu,
        custom_models: Iterable[CustomModel] = (),
    ) -> None:
        """Takes the images, which go to the device with the first trial.

        Args:
            image_set: the images.
            device: to train on.
            formulation: how a CPU computes the built-in models.
            custom_models: that trials may name.
        """
        self.device = device
        self.image_set = image_set
        self._formulation = formulation
        self.custom_models = tuple(custom_models)
        self._programs: dict[tuple[Any, ...], EpochProgram] = {}
        self._lanes: dict[Shape, Lanes] = {}

    # 55 MB of uint8 for the process's whole life; batches are scaled on the device.
    @cached_property
    def _images(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Training and test images for TensorFlow's graph."""
        train, test = self.image_set.train_images, self.image_set.test_images
        return tf.constant(train[..., np.newaxis]), tf.constant(test[..., np.newaxis])

    @cached_property
    def _lane_images(self) -> DeviceImages:
        return DeviceImages(self.image_set)

    def start(self, config: TrialConfig) -> Training:
        """Prepares a trial: its images, its program (compiled if new), its initial weights.

        Raises:
            CustomModelError: it names a model that is not among a person's own.
        """
        in_lane = self.device.jit_compile and not config.is_custom
        with tf.device(self.device.name):
            return self._in_lane(config) if in_lane else self._in_graph(config)

    def _in_graph(self, config: TrialConfig) -> Training:
        images, test_images = self._images
        part = split(self.image_set, config.split)
        n_train = len(part.train_images)
        eval_images = images[n_train:] if part.eval_metric == VAL_MSE else test_images
        key = (config.architecture, config.batch_size, n_train)
        compile_seconds = 0.0
        program = self._programs.get(key)
        if program is None:
            with _stopwatch() as compile_time:
                program = self._program(config, images, n_train, eval_images)
            compile_seconds = compile_time()
            self._programs[key] = program
        return _GraphTraining(
            config, program, images, eval_images, part.eval_metric, compile_seconds
        )

    def _program(
        self, config: TrialConfig, images: tf.Tensor, n_train: int, eval_images: tf.Tensor
    ) -> EpochProgram:
        if config.is_custom:
            # A search may give each trial a shape of its own: the last one's is kept.
            for key in [key for key in self._programs if key[0][0] == config.model]:
                del self._programs[key]
            return CustomProgram(config, self.custom_models, images, n_train, eval_images)
        return EpochProgram(
            config,
            images,
            n_train,
            eval_images,
            n_threads=self.device.n_threads,
            formulation=self._formulation,
        )

    def _in_lane(self, config: TrialConfig) -> Training:
        shape = Shape.for_trials(
            config.model,
            n_lanes=1,
            widths=[getattr(config, WIDTHS[config.model])],
            batch_sizes=[config.batch_size],
            n_train=self._lane_images.n_train,
        )
        compile_seconds = 0.0
        lanes = self._lanes.get(shape)
        if lanes is None:
            evaluator = Evaluator(config.model, self._lane_images)
            lanes = Lanes(shape, self._lane_images, evaluator)
            with cached_programs():
                compile_seconds = lanes.compile()
            self._lanes[shape] = lanes
        eval_metric = self._lane_images.part(config.split).eval_metric
        return _LaneTraining(config, lanes, eval_metric, compile_seconds)


def _spec(images: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec(images.shape, images.dtype)


def _as_float(images: Any) -> tf.Tensor:
    """Pixels 0..255 as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def _sum_over(n: int | tf.Tensor, term: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Σ term(i) for i < n, one after the other on the device."""
    _, total = tf.while_loop(
        lambda i, _: i < n,
        lambda i, total: (i + 1, total + term(i)),
        (tf.constant(0), tf.constant(0.0)),
        parallel_iterations=1,  # each step needs the weights of the one before
    )
    return total


@contextmanager
def _stopwatch() -> Iterator[Callable[[], float]]:
    """Yields a function that tells the seconds from entering the block to leaving it."""
    start = time.perf_counter()
    end: list[float] = []
    yield lambda: end[0] - start
    end.append(time.perf_counter())
