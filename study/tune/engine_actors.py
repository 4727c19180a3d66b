"""Engines with lanes as Ray actors: one for each GPU, or node, that trials land on.

They belong to an actor of the driver's own node, and through it to the driver: not to the trial
that asked first, which Ray would have them die with, and not detached, which would outlive all.
"""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from convae.errors import EngineError, UserError
from study.plan.spec import SpecError
from study.tune.engines import LANE_REPORT_SECONDS, Attempt, StudyEngine
from study.tune.resources import Slots

if TYPE_CHECKING:
    from convae.data import ImageSet

# Of an engine at once: one for each trial, and these for checkpoints, models and trials that leave.
SPARE_CALLS = 8
RESULTS_PER_SECOND = 10  # of all trials, at most
OPEN_SECONDS = 600.0  # for an engine to open its device
ANSWER_SECONDS = 60.0  # for one that has, to say so again
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


Device = tuple[str, str | None]  # a node, and its GPU if that is one


class NumberedEngine(NamedTuple):
    """An engine, and which of all that its keeper has made."""

    number: int
    actor: ActorHandle


class EngineKeeper:
    """Makes an engine when the first trial lands on its device, and another if it has died.

    Args:
        slots: what the study was given.
        engine: the actors' class.
        settings: of the engines.
    """

    def __init__(self, slots: Slots, engine: type = StudyEngine, **settings: Any) -> None:
        self._slots, self._engine, self._settings = slots, engine, settings
        self._engines: dict[Device, NumberedEngine] = {}
        self._n_made = 0
        self._silent: set[int] = set()  # numbers of those that did not answer
        self._n_asked: Counter[Device] = Counter()

    def engine_of(
        self, node_id: str, visible: str | None, ended: int | None = None, *, silent: bool = False
    ) -> "NumberedEngine":
        """The engine of a device, at once, even if it is still opening the device.

        A GPU beyond those that the study may use, as trials on a cluster may land on, has no engine
        but trials for that of another.

        Args:
            node_id: Ray's, of the node.
            visible: the GPU as CUDA_VISIBLE_DEVICES names it; None for the node's CPU.
            ended: the number of an engine that has died or failed,
            silent: or that does not answer.
        """
        if silent and ended is not None:
            self._silent.add(ended)
        device = node_id, visible
        for other, engine in list(self._engines.items()):
            if engine.number == ended:
                ray.kill(engine.actor)
                del self._engines[other]
        if device not in self._engines:
            if visible is None or len(self._engines) < self._slots.n_devices:
                self._n_made += 1
                self._engines[device] = NumberedEngine(self._n_made, self._make(*device))
            else:
                device = min(self._engines, key=lambda other: self._n_asked[other])
        self._n_asked[device] += 1
        return self._engines[device]

    def end_silent(self, number: int, ping_seconds: float) -> bool:
        """Ends an engine that does not answer within a time, 0 for at once; whether it did so."""
        for device, engine in list(self._engines.items()):
            if engine.number == number:
                ping = engine.actor.describe.remote()
                if ping_seconds and ray.wait([ping], timeout=ping_seconds)[0]:
                    return False
                self._silent.add(number)
                ray.kill(engine.actor)
                del self._engines[device]
                return True
        return False

    def was_silent(self, number: int) -> bool:
        """Whether an engine was ended since it did not answer."""
        return number in self._silent

    def _make(self, node_id: str, visible: str | None) -> ActorHandle:
        # It asks Ray for no GPU, since the trials hold its shares: so it is told which one to see.
        environment = {} if visible is None else {GPU_VARIABLE: visible}
        # Each trial waits for a report in a call of its own, and all may come to one engine.
        options = {"num_cpus": 0, "max_concurrency": self._slots.most + SPARE_CALLS}
        options |= {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
        kind = ray.remote(self._engine).options(**options, runtime_env={"env_vars": environment})
        n_threads = self._slots.cpus_per_trial
        return kind.remote(gpu=visible is not None, n_threads=n_threads, **self._settings)


class RemoteEngine:
    """The engine of the device that Ray has given this process, called as if it were here.

    Args:
        keeper: of the study's engines.
        gpu: whether the device is a GPU.
        n_slots: trials at once, of whose results Ray Tune takes in some tens a second.
    """

    in_lanes = True

    def __init__(self, keeper: ActorHandle, *, gpu: bool, n_slots: int = 1) -> None:
        self._keeper, self._gpu = keeper, gpu
        self.report_seconds = max(LANE_REPORT_SECONDS, n_slots / RESULTS_PER_SECOND)
        self._engine: NumberedEngine | None = None

    def describe(self) -> str:
        """Its device, once it is open; of another engine if this one has ended or does not answer.

        Raises:
            UserError: TensorFlow cannot open it.
        """
        seconds = ANSWER_SECONDS if self._engine else OPEN_SECONDS
        self._engine = self._engine or engine_here(self._keeper, gpu=self._gpu)
        try:
            return str(ray.get(self._engine.actor.describe.remote(), timeout=seconds))
        except (RayActorError, EngineError, GetTimeoutError) as error:
            ended = self._engine.number
            silent = isinstance(error, ActorUnavailableError | GetTimeoutError)
            self._engine = engine_here(self._keeper, gpu=self._gpu, ended=ended, silent=silent)
            return str(ray.get(self._engine.actor.describe.remote()))

    @property
    def number(self) -> int | None:
        """Of the engine, among all that its keeper has made."""
        return None if self._engine is None else self._engine.number

    def was_silent(self) -> bool:
        """Whether the engine was ended since it did not answer, and not over any of its trials."""
        return bool(ray.get(self._keeper.was_silent.remote(self.number)))

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt; an engine that has died needs no telling."""
        assert self._engine is not None
        with suppress(RayError):
            ray.get(self._engine.actor.remove.remote(attempt))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The actor's method, which waits for its answer."""
        if name.startswith("_") or self._engine is None:  # what pickle looks for; no `describe` yet
            raise AttributeError(name)
        method = getattr(self._engine.actor, name)
        return lambda *arguments: ray.get(method.remote(*arguments))


def start_keeper(slots: Slots, image_set: "ImageSet", **settings: Any) -> ActorHandle:
    """The study's keeper, on the driver's own node; it ends with the driver, or by `ray.kill`."""
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    kind = ray.remote(num_cpus=0)(EngineKeeper).options(scheduling_strategy=here)
    return kind.remote(slots, image_set=ray.put(image_set), **settings)


def engine_here(
    keeper: ActorHandle, *, gpu: bool, ended: int | None = None, silent: bool = False
) -> NumberedEngine:
    """The engine for the device that Ray has given this process; see `EngineKeeper.engine_of`."""
    node = ray.get_runtime_context().get_node_id()
    visible = os.environ.get(GPU_VARIABLE, "") if gpu else None
    engine: NumberedEngine = ray.get(keeper.engine_of.remote(node, visible, ended, silent=silent))
    return engine


def start_first_engine(keeper: ActorHandle, slots: Slots, *, by_hand: bool = False) -> str:
    """Has the first engine start and compile, before any trial asks; returns its device.

    Args:
        keeper: of the study's engines.
        slots: what the study was given.
        by_hand: whether its lanes were asked for, so that they must prove themselves first.

    Raises:
        SpecError: TensorFlow cannot open it, or such lanes do not work there.
    """
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    here = task(engine_here).remote(keeper, gpu=bool(slots.gpus_per_trial))
    try:
        actor = ray.get(here).actor
        device = str(ray.get(actor.describe.remote()))
        for fallback in ray.get(actor.proven.remote()) if by_hand else ():
            raise SpecError(
                f"--lanes: {fallback.program} does not work on {device} ({fallback.reason}); leave"
                " --lanes out, so that the plain trainer trains such trials one at a time."
            )
        return device
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise SpecError(str(error.cause)) from error
        raise
