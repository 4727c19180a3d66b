"""Fills a device's lanes: trials come, train, pause and end, and the next take their lanes at once.

Inference servers call it continuous batching; here it trains. A `Scheduler` holds the queues and
knows no device, `Lanes` hold the device and know no queue, and a step of the `Engine` is: give free
lanes to waiting trials, train each program's lanes for a slice, and free the lanes of trials that
pause or end. Slices are fractions of a second, so that a lane is soon free. `convae/README.md` is
the map.
"""

import math
import threading
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from convae.config import MODELS, TrialConfig
from convae.data import ImageSet
from convae.device import Device
from convae.errors import EngineError, TrialError
from convae.hardware import usable_cpus
from convae.lane_program import DeviceImages, Shape
from convae.lanes import Lanes, LaneState, Reader, Slice, SliceResult
from convae.models import build_model
from convae.pinned import keras, tf
from convae.proof import prove
from convae.results import EpochResult, Fallback, Report, Status
from convae.shapes import WIDTHS, ProgramId, program_of
from convae.sharing import DeviceSharing
from convae.trainer_lane import DoneSlice, TrainerLane
from convae.training import Trainer
from convae.xla import cached_programs

# Threads that compile, at least: a GPU study has five programs or more.
MIN_COMPILERS = 4
MAX_REASON = 200  # characters of it
NOT_FROM_A_LANE = "the plain trainer cannot go on from a lane's state"


@dataclass(eq=False)
class Trial:
    """A trial in the engine."""

    trial_id: str  # unique among those in the engine
    config: TrialConfig
    is_alone: bool  # whether nothing else may be at work on the device
    program: ProgramId  # that trains it
    until_epoch: int  # it pauses after so many epochs
    evaluates: Callable[[int], bool]  # whether at the end of an epoch, counted from 1
    # Reads its state after the last slice whose results it has; None for its beginning.
    state: Callable[[], LaneState] | None = None
    beginning: LaneState | None = None  # made before it gets a lane, so that no device waits
    n_epochs: int = 0  # completed, of which it has the results
    last_slice: Slice | DoneSlice | None = None  # after which it left its lane
    is_new: bool = False  # in its lane: no slice there is known to have ended well
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

    def stops_after(self, epoch: int) -> bool:
        """Whether it pauses or ends then."""
        return epoch >= min(self.until_epoch, self.config.epochs)

    def end_slice(self, result: SliceResult) -> None:
        """Takes in what a slice brought, and stops running where it must."""
        self.compile_seconds += result.compile_seconds
        self.is_new = False
        if result.failure is not None:
            self.status, self.failure = Status.FAILED, result.failure
        elif not result.finite or not math.isfinite(result.eval_mse or 0.0):
            self.status, self.diverged_epoch = Status.DIVERGED, result.epoch
        elif result.train_mse is not None:
            seconds = self._epoch_seconds
            evaluated = result.eval_mse, seconds, result.eval_seconds
            measured = (result.epoch, result.train_mse, *evaluated)
            self.n_epochs = result.epoch
            self.epochs.append(EpochResult(*measured, n_sharing=self._sharing / seconds))
            self._epoch_seconds = self._sharing = 0.0
            if self.stops_after(result.epoch):
                ended = result.epoch >= self.config.epochs
                self.status = Status.COMPLETED if ended else Status.PAUSED


@dataclass(frozen=True)
class Launched:
    """A slice of a program that the device has been given."""

    trials: dict[int, Trial]  # by lane
    n_sharing: int  # trials at work on the device
    slice: Slice | DoneSlice


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

    def restart(self, program: ProgramId) -> list[Trial]:
        """Gives one lane to a program that never ran, and returns the trials that wait for it."""
        self._free[program] = deque([0])
        return list(self.waiting[program])

    def has_lane(self, trial: Trial) -> bool:
        """Whether it is in a lane, and does not only wait for the results of its last slice."""
        return self.running[trial.program].get(trial.lane) is trial

    def leave(self, trial: Trial) -> None:
        """Frees the lane of a trial that stops running."""
        del self.running[trial.program][trial.lane]
        self._free[trial.program].append(trial.lane)

    def at_work(self) -> list[ProgramId]:
        """The programs to run next: one whose trial is alone, or all that have trials."""
        programs = [program for program, trials in self.running.items() if trials]
        alone = [p for p in programs if any(t.is_alone for t in self.running[p].values())]
        return alone[:1] or programs

    def removed(self) -> list[Trial]:
        """Removed trials that still have lanes."""
        running = [trial for trials in self.running.values() for trial in trials.values()]
        return [trial for trial in running if trial.status is Status.REMOVED]

    def has_lonely(self, ready: Collection[ProgramId]) -> bool:
        """Whether a trial that must be alone is at work, or could be."""
        return any(t.is_alone for p in ready for t in (*self.waiting[p], *self.running[p].values()))

    def has_work(self, ready: Collection[ProgramId], *, compiling: bool) -> bool:
        """Whether a step would do anything."""
        return any(self.running[p] or self._next(p, compiling=compiling) for p in ready)

    def _next(self, program: ProgramId, *, compiling: bool) -> list[Trial]:
        """The trials that get the program's free lanes."""
        waiting = [t for t in self.waiting[program] if not (compiling and t.is_alone)]
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
        *,
        trainer: Trainer | None = None,
        prove: Callable[[Lanes], None] | None = None,
    ) -> None:
        """Takes programs that are not compiled yet; `open` makes them."""
        self._trainer, self._prove = trainer, prove
        self.proves = prove is not None  # whether programs must prove themselves
        # What it has failed over, and every trial in it; None as long as it works.
        self.failure: BaseException | None = None
        # By what does not work here: another trainer has its place.
        self.fallbacks: dict[ProgramId, Fallback] = {}
        self.compile_seconds: dict[ProgramId, float] = {}  # of each program that is ready
        self._programs = dict(programs)
        self._scheduler = Scheduler({id_: lanes.n_lanes for id_, lanes in programs.items()})
        self._trials: dict[str, Trial] = {}
        self._in_flight: deque[Launched] = deque()  # for the stepping thread alone
        self._changed = threading.Condition()  # guards all that follows, and the trials
        self._n_compiling = 0
        self._stopped = False
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
        if trainer is not None:
            known = {program.model for program in shapes}
            for model in (*MODELS, *(custom.name for custom in trainer.custom_models)):
                if model not in known:
                    programs[ProgramId(model, single=True)] = TrainerLane(model, trainer)
        if shapes:
            images, reader = DeviceImages(image_set), Reader()
        for program, shape in shapes.items():
            of_shape = lanes(shape, images, reader)
            # Here, not in the threads that compile: XLA's cache knows functions by their order.
            of_shape.trace()
            programs[program] = of_shape
        return cls(programs, trainer=trainer, prove=prove)

    @classmethod
    def for_trial(cls, config: TrialConfig, image_set: ImageSet, device: Device) -> "Engine":
        """An engine for one trial of a built-in model, to `submit` as not `DeviceSharing.LANES`.

        On a GPU it trains in a program of one lane, on a CPU by the plain trainer.
        """
        trainer = Trainer(image_set, device)
        if not device.jit_compile:
            return cls.open(image_set, {}, trainer)
        shape = Shape.for_trials(
            config.model,
            n_lanes=1,
            widths=[config.value(WIDTHS[config.model])],
            batch_sizes=[config.batch_size],
            n_train=len(image_set.train_images),
            drops=bool(config.dropout),
        )
        programs = {ProgramId(config.model, single=True): shape}
        return cls.open(image_set, programs, trainer, prove=prove)

    def __enter__(self) -> "Engine":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
            self._wait_for(lambda: program in self.compile_seconds, timeout_seconds)
            return program if program in self.compile_seconds else None

    def wait_until_compiled(self) -> None:
        """Waits for all programs.

        Raises:
            EngineError: the engine has failed.
        """
        with self._changed:
            self._wait_for(lambda: self.compile_seconds.keys() >= self._programs.keys())

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
        program = program_of(config, sharing, self._programs)
        lanes = self._programs.get(program)
        if lanes is None:
            raise ValueError(f"There is no program for {program}.")
        lanes.check(config, state)
        trial = Trial(
            trial_id,
            config,
            sharing is DeviceSharing.ALONE,
            program,
            config.epochs if until_epoch is None else until_epoch,
            evaluates,
            state=None if state is None else lambda: state,
            n_epochs=0 if state is None else state.epoch,
            beginning=lanes.start(config) if state is None else None,
        )
        with self._changed:
            self._check()
            if trial_id in self._trials:
                raise ValueError(f"There is a trial {trial_id} already.")
            if self._programs[program] is not lanes:  # it has failed meanwhile
                if state is not None:
                    raise ValueError(NOT_FROM_A_LANE)
                trial.beginning = None
            _check_target(trial.until_epoch, trial)
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
            self._wait_for(lambda: trial.status.stands_still, timeout_seconds, trial)
            return trial.report()

    def state(self, trial_id: str) -> LaneState | None:
        """All that training has changed, to go on from exactly; None before its first slice.

        Of a running trial as it was after the last slice whose results are known. A diverged one
        has none.
        """
        with self._changed:
            trial = self._trials[trial_id]
            self._check(trial)
            read = trial.state
        return read() if read else None

    def checkpoint(self, trial_id: str) -> tuple[Report, LaneState | None]:
        """A report without waiting for a pause, and the state that belongs to it."""
        with self._changed:
            trial = self._trials[trial_id]
            self._check(trial)
            report, read = trial.report(), trial.state
        return report, read() if read else None

    def model(self, trial_id: str) -> keras.Model:
        """A new Keras model with the weights that `state` has.

        Raises:
            ValueError: it has no state.
        """
        config, state = self._trials[trial_id].config, self.state(trial_id)
        if state is None:
            raise ValueError(f"{trial_id} has no weights.")
        custom_models = self._trainer.custom_models if self._trainer else ()
        with tf.device("/CPU:0"):  # where initial values do not wait for a GPU's slices
            model = build_model(config, custom_models)
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
        """Fills free lanes, launches a slice, and takes in what the slice before it brought.

        So the device has work while that is read. Returns whether there was anything to do.
        """
        with self._changed:
            self._move()
            running = {p: dict(self._scheduler.running[p]) for p in self._scheduler.at_work()}
        n_sharing, n_earlier = sum(map(len, running.values())), len(self._in_flight)
        ahead = [program for program in running if self._programs[program].runs_ahead]
        for program in ahead:
            self._launch(program, running[program], n_sharing)
        # After all launches: an evaluation waits for the slice before it.
        for launched in islice(self._in_flight, n_earlier, None):
            self._end_epochs(launched)
        self._take_in(n_earlier)
        for program in [each for each in running if each not in ahead]:
            self._take_in(len(self._in_flight))
            self._launch(program, running[program], n_sharing)
            self._end_epochs(self._in_flight[-1])
            self._take_in(1)
        return bool(running) or n_earlier > 0

    def _move(self) -> None:
        """Clears the lanes of removed trials and gives free ones to waiting trials."""
        for trial in self._scheduler.removed():
            self._free(trial)
        ready, compiling = self.compile_seconds, self._n_compiling > 0
        for trial in self._scheduler.schedule(ready, compiling=compiling):
            trial.is_new, trial.last_slice = True, None
            lanes = self._programs[trial.program]
            beginning = trial.state() if trial.state else trial.beginning
            lanes.put(trial.lane, trial.config, beginning or lanes.start(trial.config))
            trial.beginning = None

    def _free(self, trial: Trial) -> None:
        self._programs[trial.program].clear(trial.lane)
        self._scheduler.leave(trial)

    def _launch(self, program: ProgramId, trials: dict[int, Trial], n_sharing: int) -> None:
        """Has the device train a program's lanes for a slice."""
        slice_ = self._programs[program].launch()
        self._in_flight.append(Launched(trials, n_sharing, slice_))

    def _end_epochs(self, launched: Launched) -> None:
        """Asks for evaluations at the end of epochs, and frees lanes of trials that stop there."""
        ended, trials = launched.slice.ended, launched.trials
        launched.slice.evaluate([n for n, epoch in ended.items() if trials[n].evaluates(epoch)])
        with self._changed:
            for lane, epoch in ended.items():
                trial = trials[lane]
                if trial.status is Status.RUNNING and trial.stops_after(epoch):
                    trial.last_slice = launched.slice
                    self._free(trial)

    def _take_in(self, n: int) -> None:
        """Takes in what the first slices in flight brought, once the device has done them."""
        for _ in range(n):
            launched = self._in_flight.popleft()
            results = launched.slice.results()
            with self._changed:
                for lane, trial in launched.trials.items():
                    # One that was removed, or diverged in an earlier slice, has no more results.
                    if trial.status is Status.RUNNING:
                        trial.spend(results[lane].train_seconds, launched.n_sharing)
                        trial.end_slice(results[lane])
                        self._settle(trial, launched.slice, lane)
                self._changed.notify_all()

    def _settle(self, trial: Trial, slice_: Slice | DoneSlice, lane: int) -> None:
        """Gives a trial the state that belongs to its results, and lets it stop or go on."""
        if trial.status is Status.RUNNING and trial.last_slice is not slice_:
            trial.state = partial(slice_.state, lane)
            return
        failed = trial.status in (Status.DIVERGED, Status.FAILED)
        trial.state = None if failed else slice_.keep(lane)
        if self._scheduler.has_lane(trial):
            self._free(trial)
        if trial.status is Status.RUNNING:  # `advance` came after its lane was freed
            self._scheduler.add(trial, first=True)

    def _compile(self, program: ProgramId) -> None:
        lanes = self._programs[program]
        with self._changed:
            # A trial that must be alone waits for compilers at work, others of them wait for it.
            self._changed.wait_for(
                lambda: (
                    not self._threads
                    or self._has_ended
                    or not self._scheduler.has_lonely(self.compile_seconds)
                )
            )
            if self._has_ended:
                return
            self._n_compiling += 1
        try:
            seconds = lanes.compile()
            if self._prove is not None and isinstance(lanes, Lanes):
                self._prove(lanes)
        except Exception as error:
            if self._trainer is None or not isinstance(lanes, Lanes):
                self._fail(error)
                raise
            self._fall_back(program, lanes, error)
            seconds = 0.0
        with self._changed:
            self._n_compiling -= 1
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
            for trial in self._scheduler.restart(program):
                trial.beginning = None
                if trial.state is not None:
                    self._scheduler.waiting[program].remove(trial)
                    trial.status, trial.failure = Status.FAILED, ValueError(NOT_FROM_A_LANE)

    def _serve(self) -> None:
        def must_act() -> bool:
            ready, compiling = self.compile_seconds, self._n_compiling > 0
            has_work = self._scheduler.has_work(ready, compiling=compiling)
            return self._has_ended or has_work or bool(self._in_flight)

        while True:
            with self._changed:
                self._changed.wait_for(must_act)
                if self._has_ended:
                    return
            self.step()

    @property
    def _has_ended(self) -> bool:
        return self._stopped or self.failure is not None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Has every method that is called from now on tell of it."""
        with self._changed:
            self.failure = error
            self._changed.notify_all()

    def _wait_for(
        self,
        done: Callable[[], bool],
        timeout_seconds: float | None = None,
        trial: Trial | None = None,
    ) -> None:
        """Waits, with the lock held, until this is done, or so long, or for a failure to raise."""
        self._changed.wait_for(lambda: self.failure is not None or done(), timeout_seconds)
        self._check(trial)

    def _check(self, trial: Trial | None = None) -> None:
        if self.failure is not None:
            error = EngineError(f"The engine has failed: {self.failure}")
            error.suspect = trial is not None and trial.is_new
            raise error from self.failure
        if trial is not None and trial.failure is not None:
            raise TrialError(f"{trial.trial_id} has failed: {trial.failure}") from trial.failure


def _check_target(until_epoch: int, trial: Trial) -> None:
    completed = trial.n_epochs
    if not completed < until_epoch <= trial.config.epochs:
        raise ValueError(
            f"{trial.trial_id} cannot train until epoch {until_epoch}: "
            f"it has completed {completed} of {trial.config.epochs}."
        )
