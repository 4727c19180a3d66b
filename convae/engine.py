"""Fills a device's lanes: trials come, train, pause and end, and the next take their lanes at once.

Inference servers call it continuous batching; here it trains. A `Scheduler` holds the queues and
knows no device, `Lanes` hold the device and know no queue, and a step of the `Engine` is: give free
lanes to waiting trials, train each program's lanes for a slice, and free the lanes of trials that
pause or end. Slices are fractions of a second, so that a lane is soon free. `convae/README.md` is
the map.
"""

import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from convae.config import MODELS, TrialConfig
from convae.custom_models import CustomModel
from convae.data import ImageSet
from convae.device import Device
from convae.errors import EngineError, TrialError
from convae.hardware import usable_cpus
from convae.lane_program import DeviceImages, Evaluator, Shape
from convae.lanes import Lanes, LaneState, SliceResult
from convae.models import build_model
from convae.pinned import keras, tf
from convae.proof import prove
from convae.results import EpochResult, Fallback, Report, Status
from convae.shapes import WIDTHS, ProgramId, program_of
from convae.sharing import DeviceSharing
from convae.trainer_lane import TrainerLane
from convae.training import Trainer
from convae.xla import cached_programs

# Threads that compile, at least: a GPU study has four programs to begin with.
MIN_COMPILERS = 4
MAX_REASON = 200  # characters of it


@dataclass(eq=False)
class Trial:
    """A trial in the engine."""

    trial_id: str  # unique among those in the engine
    config: TrialConfig
    sharing: DeviceSharing
    program: ProgramId  # that trains it
    until_epoch: int  # it pauses after so many epochs
    evaluates: Callable[[int], bool]  # whether at the end of an epoch, counted from 1
    # From which it goes on when it gets a lane; None for its beginning.
    state: LaneState | None = None
    status: Status = Status.WAITING
    lane: int = 0  # while it runs
    epochs: list[EpochResult] = field(default_factory=list)  # completed since the last report
    diverged_epoch: int | None = None
    failure: Exception | None = None
    train_seconds: float = 0.0  # its share of the device so far
    compile_seconds: float = 0.0  # for it alone, since the last report
    _epoch_seconds: float = 0.0
    _sharing: float = 0.0

    def report(self) -> Report:
        """What is new since the last one."""
        epochs, self.epochs = self.epochs, []
        seconds, self.compile_seconds = self.compile_seconds, 0.0
        return Report(self.status, epochs, self.diverged_epoch, self.train_seconds, seconds)

    def spend(self, seconds: float, n_sharing: int) -> None:
        """Counts its share of a slice's device seconds, with so many at work on the device."""
        self.train_seconds += seconds
        self._epoch_seconds += seconds
        self._sharing += seconds * n_sharing

    def end_slice(self, result: SliceResult, eval_mse: float | None, eval_seconds: float) -> None:
        """Takes in what a slice brought, and stops running where it must."""
        self.compile_seconds += result.compile_seconds
        if result.failure is not None:
            self.status, self.failure = Status.FAILED, result.failure
        elif not result.finite or not math.isfinite(eval_mse or 0.0):
            self.status, self.diverged_epoch = Status.DIVERGED, result.epoch
        elif result.train_mse is not None:
            seconds = self._epoch_seconds
            measured = (result.epoch, result.train_mse, eval_mse, seconds, eval_seconds)
            self.epochs.append(EpochResult(*measured, n_sharing=self._sharing / seconds))
            self._epoch_seconds = self._sharing = 0.0
            if result.epoch >= self.config.epochs:
                self.status = Status.COMPLETED
            elif result.epoch >= self.until_epoch:
                self.status = Status.PAUSED


class Scheduler:
    """Queues for lanes: first come, first served, those that go on after a pause before others."""

    def __init__(self, n_lanes: Mapping[ProgramId, int]) -> None:
        self.waiting: dict[ProgramId, deque[Trial]] = {program: deque() for program in n_lanes}
        self.running: dict[ProgramId, dict[int, Trial]] = {program: {} for program in n_lanes}
        self._free = {program: deque(range(n)) for program, n in n_lanes.items()}

    def add(self, trial: Trial, *, first: bool = False) -> None:
        """Queues a trial."""
        trial.status = Status.WAITING
        queue = self.waiting[trial.program]
        if first:
            queue.appendleft(trial)
        else:
            queue.append(trial)

    def schedule(self, ready: Collection[ProgramId], *, compiling: bool) -> list[Trial]:
        """Gives free lanes to waiting trials, and returns those that got one.

        Args:
            ready: programs that are compiled.
            compiling: whether a compiler uses the device too, so that no trial is alone there.
        """
        arrivals = []
        for program in ready:
            for trial in self._next(program, compiling=compiling):
                trial.status, trial.lane = Status.RUNNING, self._free[program].popleft()
                self.waiting[program].remove(trial)
                self.running[program][trial.lane] = trial
                arrivals.append(trial)
        return arrivals

    def restart(self, program: ProgramId, n_lanes: int) -> list[Trial]:
        """Gives a program that never ran so many lanes, and returns the trials that wait for it."""
        self._free[program] = deque(range(n_lanes))
        return list(self.waiting[program])

    def leave(self, trial: Trial) -> None:
        """Frees the lane of a trial that has stopped running."""
        del self.running[trial.program][trial.lane]
        self._free[trial.program].append(trial.lane)

    def at_work(self) -> list[ProgramId]:
        """The programs to run next: one whose trial is alone, or all that have trials."""
        programs = [program for program, trials in self.running.items() if trials]
        for program in programs:
            trials = self.running[program].values()
            if any(trial.sharing is DeviceSharing.ALONE for trial in trials):
                return [program]
        return programs

    def removed(self) -> list[Trial]:
        """Removed trials that still have lanes."""
        running = [trial for trials in self.running.values() for trial in trials.values()]
        return [trial for trial in running if trial.status is Status.REMOVED]

    def has_work(self, ready: Collection[ProgramId], *, compiling: bool) -> bool:
        """Whether a step would do anything."""
        return any(self.running[p] or self._next(p, compiling=compiling) for p in ready)

    def _next(self, program: ProgramId, *, compiling: bool) -> list[Trial]:
        """The trials that get the program's free lanes."""
        alone = DeviceSharing.ALONE
        waiting = [t for t in self.waiting[program] if not compiling or t.sharing is not alone]
        return waiting[: len(self._free[program])]


class Engine:
    """Owns a device, its programs and the queues for them.

    Its methods may be called from any thread and wait for a slice at most, but for `report`. Either
    `start` lets it work in two threads, or a caller drives it by `compile` and `step`.

    Methods that take a trial's name raise KeyError where there is no such trial, EngineError once
    the engine has failed, and TrialError once the trial has.
    """

    def __init__(
        self,
        programs: Mapping[ProgramId, Lanes | TrainerLane],
        custom_models: Iterable[CustomModel] = (),
        clock: Callable[[], float] = time.perf_counter,
        *,
        trainer: Trainer | None = None,
        prove: Callable[[Lanes], None] | None = None,
    ) -> None:
        """Takes programs that are not compiled yet; `open` makes them."""
        self._trainer, self._prove = trainer, prove
        # By what does not work here: another trainer has its place.
        self.fallbacks: dict[ProgramId, Fallback] = {}
        self._clock = clock
        self.compile_seconds: dict[ProgramId, float] = {}  # of each program that is ready
        self._programs = dict(programs)
        self._custom_models = tuple(custom_models)
        self._scheduler = Scheduler({id_: lanes.n_lanes for id_, lanes in programs.items()})
        self._trials: dict[str, Trial] = {}
        self._changed = threading.Condition()  # guards all that follows, and the trials
        self._in_slice: ProgramId | None = None
        self._n_asked = self._n_answered = 0  # calls that wait for the end of a slice
        self._stopped = False
        self._failure: BaseException | None = None
        self._arrivals: list[Trial] = []  # that got their lanes in the step in progress
        self._threads: list[threading.Thread] = []

    @classmethod
    def open(
        cls,
        image_set: ImageSet,
        shapes: Mapping[ProgramId, Shape],
        trainer: Trainer | None = None,
        *,
        prove: Callable[[Lanes], None] | None = None,
        lanes: type[Lanes] = Lanes,
    ) -> "Engine":
        """Puts the images on this process's device and lays out the programs' lanes.

        `convae.device.open_device` comes first.

        Args:
            image_set: the images.
            shapes: of the programs.
            trainer: of the same device; it trains all models that have no shape here, its custom
                models among them, one trial of each at a time, and those of programs that do not
                compile or do not pass `prove`. Without one, such a program ends the engine.
            prove: tries a program's lanes and raises an error if they are not to be trusted.
            lanes: the kind; tests give others.
        """
        programs: dict[ProgramId, Lanes | TrainerLane] = {}
        custom_models = () if trainer is None else trainer.custom_models
        if trainer is not None:
            known = {program.model for program in shapes}
            for model in (*MODELS, *(custom.name for custom in custom_models)):
                if model not in known:
                    programs[ProgramId(model, single=True)] = TrainerLane(model, trainer)
        if shapes:
            images = DeviceImages(image_set)
            evaluators = {
                model: Evaluator(model, images)
                for model in dict.fromkeys(shape.model for shape in shapes.values())
            }
        for program, shape in shapes.items():
            of_shape = lanes(shape, images, evaluators[shape.model])
            # Here, not in the threads that compile: XLA's cache knows functions by their order.
            of_shape.trace()
            programs[program] = of_shape
        return cls(programs, custom_models, trainer=trainer, prove=prove)

    @classmethod
    def for_trial(cls, config: TrialConfig, image_set: ImageSet, device: Device) -> "Engine":
        """An engine for one trial of a built-in model, to `submit` as not `DeviceSharing.LANES`.

        On a GPU it trains in a program of one lane, on a CPU by the plain trainer.
        """
        if not device.jit_compile:
            return cls.open(image_set, {}, Trainer(image_set, device))
        shape = Shape.for_trials(
            config.model,
            n_lanes=1,
            widths=[config.value(WIDTHS[config.model])],
            batch_sizes=[config.batch_size],
            n_train=len(image_set.train_images),
        )
        shapes = {ProgramId(config.model, single=True): shape}
        return cls.open(image_set, shapes, Trainer(image_set, device), prove=prove)

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def proves(self) -> bool:
        """Whether programs must prove themselves."""
        return self._prove is not None

    @property
    def failure(self) -> BaseException | None:
        """What it has failed over, and every trial in it; None as long as it works."""
        return self._failure

    def start(self) -> None:
        """Compiles and works in two threads, until `close`."""
        for work in (self.compile, self._serve):
            # As daemons, so that nothing outlives the process.
            thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stops after the slice and the compilation in progress."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def program_for(
        self, config: TrialConfig, sharing: DeviceSharing, timeout_seconds: float | None = None
    ) -> ProgramId | None:
        """The program that trains such a trial, once it is ready; None if it is not within a time.

        Raises:
            EngineError: the engine has failed.
        """
        program = program_of(config, sharing, self._programs)
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or program in self.compile_seconds,
                timeout_seconds,
            )
            self._check()
            return program if program in self.compile_seconds else None

    def wait_until_compiled(self) -> None:
        """Waits for all programs.

        Raises:
            EngineError: the engine has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or not self._compiling)
            self._check()

    def submit(
        self,
        trial_id: str,
        config: TrialConfig,
        *,
        sharing: DeviceSharing = DeviceSharing.LANES,
        until_epoch: int | None = None,
        evaluates: Callable[[int], bool] = lambda _: True,
        state: LaneState | None = None,
    ) -> None:
        """Queues a trial.

        Args:
            trial_id: unique among the trials in the engine.
            config: what to train.
            sharing: how it shares the device, by the plan; see `convae.shapes.program_of`.
            until_epoch: it pauses after so many epochs; None for its end.
            evaluates: whether it is evaluated at the end of an epoch, counted from 1.
            state: from which it goes on, of `state` of an engine with programs of the same shapes.

        Raises:
            ValueError: the name is taken, no program can train the trial or take its state, or it
                is there already.
        """
        until_epoch = config.epochs if until_epoch is None else until_epoch
        program = program_of(config, sharing, self._programs)
        trial = Trial(trial_id, config, sharing, program, until_epoch, evaluates, state)
        with self._changed:
            self._check()
            if trial_id in self._trials:
                raise ValueError(f"There is a trial {trial_id} already.")
            if trial.program not in self._programs:
                raise ValueError(f"There is no program for {trial.program}.")
            self._programs[trial.program].check(config, state)
            _check_target(until_epoch, trial)
            self._trials[trial_id] = trial
            self._scheduler.add(trial)
            self._changed.notify_all()

    def advance(self, trial_id: str, until_epoch: int) -> None:
        """Lets a trial train on until it has completed so many epochs.

        Raises:
            ValueError: it has completed them already, or has not so many.
        """
        with self._changed:
            self._check()
            trial = self._trials[trial_id]
            _check_target(until_epoch, trial)
            trial.until_epoch = until_epoch
            if trial.status is Status.PAUSED:
                self._scheduler.add(trial, first=True)
                self._changed.notify_all()

    def report(self, trial_id: str, timeout_seconds: float | None = None) -> Report:
        """Waits until the trial has paused or ended, or so long, and tells what is new."""
        with self._changed:
            trial = self._trials[trial_id]
            self._changed.wait_for(
                lambda: self._failure is not None or trial.status.stands_still, timeout_seconds
            )
            self._check(trial)
            return trial.report()

    def state(self, trial_id: str) -> LaneState | None:
        """All that training has changed, to go on from exactly; None before its first slice.

        Of a running trial, as it is after the slice in progress. A diverged one has none.
        """
        with self._between_slices(self._trials[trial_id]) as state:
            return state

    def checkpoint(self, trial_id: str) -> tuple[Report, LaneState | None]:
        """A report without waiting for a pause, and the state that belongs to it."""
        trial = self._trials[trial_id]
        with self._between_slices(trial) as state:
            return trial.report(), state

    def model(self, trial_id: str) -> keras.Model:
        """A new Keras model with the weights that `state` has.

        Raises:
            ValueError: it has no state.
        """
        config, state = self._trials[trial_id].config, self.state(trial_id)
        if state is None:
            raise ValueError(f"{trial_id} has no weights.")
        with tf.device("/CPU:0"):  # where initial values do not wait for a GPU's slices
            model = build_model(config, self._custom_models)
        variables, values = model.trainable_variables, state.weights
        if config.is_custom:
            variables = [*variables, *model.non_trainable_variables]
            values = [*values, *state.others]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return model

    def remove(self, trial_id: str) -> None:
        """Ends a trial, wherever it stands, and forgets it. Its lane is free after the slice."""
        with self._changed:
            trial = self._trials.pop(trial_id)
            if trial.status is Status.WAITING:
                self._scheduler.waiting[trial.program].remove(trial)
            trial.status = Status.REMOVED
            self._changed.notify_all()

    def compile(self) -> None:
        """Compiles all programs at once, those with lanes first if there are not enough threads."""
        programs = sorted(self._programs, key=lambda program: program.single)
        if not programs or self._stopped:
            return
        n_threads = min(len(programs), max(MIN_COMPILERS, usable_cpus()))
        with cached_programs(), ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(self._compile, programs))

    def step(self) -> bool:
        """Fills free lanes and trains a slice; returns whether any trial was at work."""
        with self._changed:
            n_asked = self._n_asked  # those come first, or they would hardly ever get a turn
            self._changed.wait_for(lambda: self._n_answered >= n_asked)
            self._move()
            programs = self._scheduler.at_work()
            n_sharing = sum(len(self._scheduler.running[program]) for program in programs)
        for program in programs:
            try:
                self._train(program, n_sharing)
            finally:
                self._in_slice = None
        return bool(programs)

    def _move(self) -> None:
        """Clears the lanes of removed trials and gives free ones to waiting trials."""
        self._arrivals = []
        for trial in self._scheduler.removed():
            self._programs[trial.program].clear(trial.lane)
            self._scheduler.leave(trial)
        for trial in self._scheduler.schedule(self.compile_seconds, compiling=self._compiling):
            self._arrivals.append(trial)
            lanes = self._programs[trial.program]
            lanes.put(trial.lane, trial.config, trial.state or lanes.start(trial.config))
            trial.state = None

    def _train(self, program: ProgramId, n_sharing: int) -> None:
        """Trains a program's lanes for a slice and frees those of trials that pause or end."""
        lanes = self._programs[program]
        with self._changed:
            trials = dict(self._scheduler.running[program])
            self._in_slice = program
        started = self._clock()
        results = lanes.run()
        trained = self._clock()
        due = [
            lane
            for lane, result in results.items()
            if result.train_mse is not None
            and result.finite
            and trials[lane].evaluates(result.epoch)
        ]
        eval_mses = lanes.evaluate(due)
        eval_seconds = (self._clock() - trained) / max(1, len(due))
        with self._changed:
            for lane, trial in trials.items():
                if trial.status is Status.REMOVED:
                    continue
                result = results[lane]
                seconds = result.train_seconds
                seconds = trained - started if seconds is None else seconds
                trial.spend(seconds / len(trials), n_sharing)
                is_due = lane in eval_mses
                trial.end_slice(result, eval_mses.get(lane), eval_seconds if is_due else 0.0)
                if trial.status is not Status.RUNNING:
                    if trial.status not in (Status.DIVERGED, Status.FAILED):
                        trial.state = lanes.get(lane)
                    lanes.clear(lane)
                    self._scheduler.leave(trial)
            self._in_slice = None
            self._changed.notify_all()

    @contextmanager
    def _between_slices(self, trial: Trial) -> Iterator[LaneState | None]:
        """The trial's state, at a moment when its lanes and its results tell of the same slices."""
        with self._changed:
            self._n_asked += 1
            try:
                self._changed.wait_for(
                    lambda: self._in_slice != trial.program or self._failure is not None
                )
                self._check(trial)
                running = trial.status is Status.RUNNING
                yield self._programs[trial.program].get(trial.lane) if running else trial.state
            finally:
                self._n_answered += 1
                self._changed.notify_all()

    @property
    def _compiling(self) -> bool:
        return len(self.compile_seconds) < len(self._programs)

    def _compile(self, program: ProgramId) -> None:
        lanes = self._programs[program]
        try:
            seconds = lanes.compile()
            if self._prove is not None and isinstance(lanes, Lanes):
                self._prove(lanes)
        except Exception as error:
            if self._trainer is None or not isinstance(lanes, Lanes):
                raise
            self._fall_back(program, lanes, error)
            return
        with self._changed:
            self.compile_seconds[program] = seconds
            self._changed.notify_all()

    def _fall_back(self, program: ProgramId, lanes: Lanes, error: Exception) -> None:
        """Has the plain trainer in the place of a program that does not work here."""
        assert self._trainer is not None
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        in_full = "".join(traceback.format_exception(error))
        with self._changed:
            self.fallbacks[program] = Fallback(str(lanes.shape), reason[:MAX_REASON], in_full)
            self._programs[program] = TrainerLane(program.model, self._trainer)
            for trial in self._scheduler.restart(program, 1):
                if trial.state is not None:
                    self._scheduler.waiting[program].remove(trial)
                    trial.status = Status.FAILED
                    trial.failure = ValueError("the plain trainer cannot go on from a lane's state")
            self.compile_seconds[program] = 0.0
            self._changed.notify_all()

    def _serve(self) -> None:
        def must_act() -> bool:
            ended = self._stopped or self._failure is not None
            return ended or self._scheduler.has_work(
                self.compile_seconds, compiling=self._compiling
            )

        while True:
            with self._changed:
                self._changed.wait_for(must_act)
                if self._stopped or self._failure is not None:
                    return
            self.step()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # told by every method that is called from now on
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _check(self, trial: Trial | None = None) -> None:
        if self._failure is not None:
            error = EngineError(f"The engine has failed: {self._failure}")
            error.suspect = trial in self._arrivals
            raise error from self._failure
        if trial is not None and trial.failure is not None:
            raise TrialError(f"{trial.trial_id} has failed: {trial.failure}") from trial.failure


def _check_target(until_epoch: int, trial: Trial) -> None:
    completed = 0 if trial.state is None else trial.state.epoch
    if not completed < until_epoch <= trial.config.epochs:
        raise ValueError(
            f"{trial.trial_id} cannot train until epoch {until_epoch}: "
            f"it has completed {completed} of {trial.config.epochs}."
        )
