"""The fast trainer of one trial: whole epochs in compiled functions over data on the device.

It computes what Keras' `model.fit` computes with `SGD` and the mean squared error, step by step
(the tests hold the two together), without its input pipeline and its per-step Python. It is for a
CPU, and for custom models everywhere; a GPU trains built-in ones in lanes (`convae.engine`). A
`Trainer` keeps the images and what is compiled: a further trial of a known shape starts at once.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from convae.config import SEARCH_SPLIT, TrialConfig
from convae.custom_models import CustomModel
from convae.data import ImageSet, split
from convae.device import Device
from convae.errors import DivergenceError
from convae.formulations import Formulation, as_defined
from convae.models import BUILT_IN, build_model, reset, reset_custom
from convae.pinned import keras, tf
from convae.results import EpochResult

# Large enough to keep a GPU busy, small enough for 100 MB of activations.
EVAL_BATCH_SIZE = 1000
# Threads take parts of a batch, but none so small that operations cost more than arithmetic.
MIN_PART_SIZE = 32


class Sgd(NamedTuple):
    """Keras' SGD: v ← momentum·v − lr·g; w ← w + v, or w + momentum·v − lr·g (Nesterov)."""

    learning_rate: Any
    momentum: Any
    nesterov: Any


class EpochProgram:
    """Training and evaluation of one architecture at one batch size, compiled once.

    SGD's settings and the order of the images are arguments, not constants of the graph, so trials
    that differ only in them share the program.
    """

    def __init__(
        self,
        config: TrialConfig,
        images: tf.Tensor,
        n_train: int,
        eval_images: tf.Tensor,
        *,
        n_threads: int = 1,
        formulation: Formulation = as_defined,
    ) -> None:
        """Traces and compiles.

        Args:
            config: its architecture and batch size.
            images: (n, *IMAGE_SHAPE) uint8 on the device; the first n_train are trained on.
            n_train: images an epoch.
            eval_images: (m, *IMAGE_SHAPE) uint8 on the device.
            n_threads: parts of a batch to compute at once.
            formulation: how to compute the model.
        """
        self.model = self._build(config)
        self._images, self._eval_images = images, eval_images
        self._reconstruct = formulation(self.model)
        self._n_threads = n_threads
        self._batch_size = min(config.batch_size, n_train)
        self._n_train = n_train
        self._n_steps = math.ceil(n_train / self._batch_size)
        self._weights = [weight.value for weight in self.model.trainable_variables]
        self._velocities = [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
        # AutoGraph would translate Python that depends on tensors' values, of which there is none.
        self._train = tf.function(self._train_epoch, autograph=False)
        self._evaluate = tf.function(self._evaluate_images, autograph=False)
        # The first calls trace, and compile what XLA does of it.
        self.warm_up()
        self.evaluate()

    def _build(self, config: TrialConfig) -> keras.Model:
        return build_model(config)

    def warm_up(self) -> None:
        """Shuffles for an epoch and takes one step, which a learning rate of 0 makes empty."""
        self._call_train(Sgd(0.0, 0.0, True), (0, 0), n_steps=1)

    def reset(self, seed: int) -> None:
        """Sets fresh initial weights, a pure function of the seed, and zero velocities."""
        self._reset_model(seed)
        for velocity in self._velocities:
            velocity.assign(tf.zeros_like(velocity))

    def _reset_model(self, seed: int) -> None:
        reset(self.model, seed)

    @property
    def state(self) -> list[Any]:
        """The variables that training changes: weights, velocities, random states and the like."""
        others = [variable.value for variable in self.model.non_trainable_variables]
        return [*self._weights, *self._velocities, *others]

    def train_epoch(self, sgd: Sgd, shuffle_seed: tuple[int, int]) -> float:
        """Trains on the first n_train images, each once, and returns the epoch's mean MSE."""
        return self._call_train(sgd, shuffle_seed, self._n_steps)

    def evaluate(self) -> float:
        """Mean squared error over all pixels of the evaluation images."""
        return float(self._evaluate(self._eval_images).numpy())

    def _call_train(self, sgd: Sgd, shuffle_seed: tuple[int, int], n_steps: int) -> float:
        # Tensors, since TensorFlow would trace anew for another number.
        sgd = Sgd(
            tf.constant(sgd.learning_rate, tf.float32),
            tf.constant(sgd.momentum, tf.float32),
            tf.constant(sgd.nesterov),
        )
        seed = tf.constant(shuffle_seed, tf.int32)
        return float(self._train(self._images, sgd, seed, tf.constant(n_steps)).numpy())

    def _train_epoch(
        self, images: tf.Tensor, sgd: Sgd, shuffle_seed: tf.Tensor, n_steps: tf.Tensor
    ) -> tf.Tensor:
        # Philox on every device: the same seed gives the same order everywhere.
        # (Sorting random keys, because XLA lacks TensorFlow's shuffle.)
        keys = tf.random.stateless_uniform(
            (self._n_train,), shuffle_seed, None, None, tf.int32, alg="philox"
        )
        order = tf.argsort(keys)
        return self._sum_over_batches(images, order, n_steps, sgd) / self._n_train

    def _sum_over_batches(
        self, images: tf.Tensor, order: tf.Tensor, n_steps: tf.Tensor, sgd: Sgd
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
            self._update(gradients, sgd)
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

    def _update(self, gradients: list[tf.Tensor], sgd: Sgd) -> None:
        def apply(use_nesterov: bool) -> tf.Tensor:
            for weight, velocity, gradient in zip(
                self._weights, self._velocities, gradients, strict=True
            ):
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=weight.handle,
                    accum=velocity.handle,
                    lr=tf.cast(sgd.learning_rate, weight.dtype),
                    grad=gradient,
                    momentum=tf.cast(sgd.momentum, weight.dtype),
                    use_nesterov=use_nesterov,
                )
            return tf.constant(0)

        # One pass over memory instead of eight: on a CPU the update is bound by it.
        tf.cond(sgd.nesterov, lambda: apply(True), lambda: apply(False))

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
    """The same of a custom model, which Keras computes: nothing is known of its layers.

    So a batch is neither split nor filled up, since its images may depend on each other, as those
    of a batch normalisation do. What the model adds to the loss is minimised, but not reported.
    """

    def __init__(
        self, config: TrialConfig, custom_models: tuple[CustomModel, ...], *images: Any
    ) -> None:
        """Traces and compiles; images as of `EpochProgram`."""
        self._config, self._custom_models = config, custom_models
        super().__init__(config, *images)

    def _build(self, config: TrialConfig) -> keras.Model:
        # One seed for all, for what a builder makes random that is no variable.
        return build_model(replace(config, seed=0), self._custom_models)

    def _reset_model(self, seed: int) -> None:
        reset_custom(self.model, replace(self._config, seed=seed), self._custom_models)

    def _sum_over_batches(
        self, images: tf.Tensor, order: tf.Tensor, n_steps: tf.Tensor, sgd: Sgd
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
            # Whole: a layer may give slices of one.
            self._update([tf.convert_to_tensor(gradient) for gradient in gradients], sgd)
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


class Training:
    """One trial in progress, made by `Trainer.start`; its program has its weights."""

    def __init__(self, config: TrialConfig, program: EpochProgram, compile_seconds: float) -> None:
        self.config = config
        self.epoch = 0  # epochs completed
        self.compile_seconds = compile_seconds  # 0 if the program was there already
        self.n_weights = len(program.model.trainable_variables)  # arrays of them
        self._program = program
        program.reset(config.seed)

    @property
    def model(self) -> keras.Model:
        """The Keras model with the present weights. It is the program's: save it, don't keep it."""
        return self._program.model

    def run_epoch(self, *, evaluate: bool = True) -> EpochResult:
        """Trains one epoch and, if asked, evaluates at its end.

        Raises:
            DivergenceError: a loss is not finite.
        """
        epoch, config = self.epoch + 1, self.config
        started = time.perf_counter()
        sgd = Sgd(config.learning_rate, config.momentum, config.nesterov)
        train_mse = self._program.train_epoch(sgd, (config.seed, epoch))
        trained = time.perf_counter()
        eval_mse = self.evaluate() if evaluate and math.isfinite(train_mse) else None
        eval_seconds = 0.0 if eval_mse is None else time.perf_counter() - trained
        if not math.isfinite(train_mse) or not math.isfinite(eval_mse or 0.0):
            raise DivergenceError(epoch)
        self.epoch = epoch
        return EpochResult(epoch, train_mse, eval_mse, trained - started, eval_seconds)

    def evaluate(self) -> float:
        """The mean squared error of the evaluation images."""
        return self._program.evaluate()

    def get_state(self) -> list[np.ndarray]:
        """What training has changed so far. `resume` goes on from it, in any process."""
        return [variable.numpy() for variable in self._program.state]

    def resume(self, epoch: int, state: Sequence[np.ndarray]) -> None:
        """Goes on after so many epochs, as if it had trained them.

        Raises:
            ValueError: the state is that of another shape.
        """
        for variable, value in zip(self._program.state, state, strict=True):
            variable.assign(value)
        self.epoch = epoch


def reconstruct(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A model's reconstructions in (0, 1) of uint8 images (n, rows, columns), as float32."""
    outputs = [
        tf.cast(model(_as_float(chunk[..., np.newaxis]), training=False), tf.float32)
        for chunk in np.split(images, range(EVAL_BATCH_SIZE, len(images), EVAL_BATCH_SIZE))
    ]
    return np.concatenate(outputs)[..., 0]


class Trainer:
    """Holds the images on a device and what is compiled in a process.

    One trial trains at a time: trials of one shape share the program's weights.
    """

    def __init__(
        self,
        image_set: ImageSet,
        device: Device,
        formulation: Formulation | None = None,
        custom_models: Iterable[CustomModel] = (),
    ) -> None:
        """Takes the images, which go to the device with the first trial.

        Built-in models are computed by the formulation; None for `BUILT_IN`'s on a CPU, and as they
        are defined on a GPU. Trials may name the custom models.
        """
        self.device = device
        self.image_set = image_set
        self.custom_models = tuple(custom_models)
        self._formulation = formulation
        self._programs: dict[tuple[Any, ...], EpochProgram] = {}

    # 55 MB of uint8 for the process's whole life; batches are scaled on the device.
    @cached_property
    def _images(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Training and test images, (n, *IMAGE_SHAPE) each."""
        train, test = self.image_set.train_images, self.image_set.test_images
        return tf.constant(train[..., np.newaxis]), tf.constant(test[..., np.newaxis])

    def start(self, config: TrialConfig) -> Training:
        """Prepares a trial: its images, its program (compiled if new), its initial weights.

        Raises:
            CustomModelError: it names a custom model that is not among these.
        """
        with tf.device(self.device.name):
            images, test_images = self._images
            n_train = len(split(self.image_set, config.split).train_images)
            eval_images = images[n_train:] if config.split == SEARCH_SPLIT else test_images
            key = (config.architecture, config.batch_size, n_train)
            compile_seconds = 0.0
            if key not in self._programs:
                started = time.perf_counter()
                self._programs[key] = self._program(config, images, n_train, eval_images)
                compile_seconds = time.perf_counter() - started
            return Training(config, self._programs[key], compile_seconds)

    def _program(self, config: TrialConfig, *images: Any) -> EpochProgram:
        if config.is_custom:
            # A search may give each trial a shape of its own: only the last one's is kept.
            for key in [key for key in self._programs if key[0][0] == config.model]:
                del self._programs[key]
            return CustomProgram(config, self.custom_models, *images)
        on_gpu = self.device.jit_compile
        formulation = as_defined if on_gpu else BUILT_IN[config.model].on_cpu
        formulation = self._formulation or formulation
        n_threads = self.device.n_threads
        return EpochProgram(config, *images, n_threads=n_threads, formulation=formulation)


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
