"""Engines with lanes as Ray actors: one for each GPU, or node, that trials land on.

They belong to an actor of the driver's own node, and through it to the driver: not to the trial
that asked first, which Ray would have them die with, and not detached, which would outlive all.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from convae.errors import UserError
from study.plan.spec import SpecError
from study.tune.engines import LANE_REPORT_SECONDS, Attempt, StudyEngine
from study.tune.resources import Slots

if TYPE_CHECKING:
    from convae.data import ImageSet

# Of an engine at once: one for each trial, and these for checkpoints, models and trials that leave.
SPARE_CALLS = 8
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


class EngineKeeper:
    """Makes an engine when the first trial lands on its device, and another if it has died.

    Args:
        slots: what the study was given.
        engine: the actors' class.
        settings: of the engines.
    """

    def __init__(self, slots: Slots, engine: type = StudyEngine, **settings: Any) -> None:
        self._slots, self._engine, self._settings = slots, engine, settings
        self._engines: dict[tuple[str, str | None], ActorHandle] = {}

    def engine_of(self, node_id: str, visible: str | None) -> ActorHandle:
        """The engine of a device.

        Args:
            node_id: Ray's, of the node.
            visible: the GPU as CUDA_VISIBLE_DEVICES names it; None for the node's CPU.
        """
        key = node_id, visible
        if key in self._engines:
            try:
                works = ray.get(self._engines[key].works.remote())
            except RayActorError:
                works = False
            if not works:
                ray.kill(self._engines.pop(key))
        if key not in self._engines:
            self._engines[key] = self._make(node_id, visible)
        return self._engines[key]

    def _make(self, node_id: str, visible: str | None) -> ActorHandle:
        # It asks Ray for no GPU, since the trials hold its shares: so it is told which one to see.
        environment = {} if visible is None else {GPU_VARIABLE: visible}
        # A GPU has the trials of one engine; a node's CPUs may have those of several, all of which
        # come to the one that is there, and each waits for a report in a call of its own.
        n_trials = self._slots.n_slots if visible is None else self._slots.per_engine
        options = {"num_cpus": 0, "max_concurrency": n_trials + SPARE_CALLS}
        options |= {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}
        kind = ray.remote(self._engine).options(**options, runtime_env={"env_vars": environment})
        n_threads = self._slots.cpus_per_trial
        return kind.remote(gpu=visible is not None, n_threads=n_threads, **self._settings)


class RemoteEngine:
    """The engine of the device that Ray has given this process, called as if it were here.

    Args:
        keeper: of the study's engines.
        gpu: whether the device is a GPU.
    """

    in_lanes = True
    report_seconds = LANE_REPORT_SECONDS

    def __init__(self, keeper: ActorHandle, *, gpu: bool) -> None:
        self._keeper, self._gpu = keeper, gpu

    def describe(self) -> str:
        """Its device.

        Raises:
            UserError: TensorFlow cannot open it.
        """
        # Found for each trial: the engine of the one before may have died with others in it.
        self._actor = engine_here(self._keeper, gpu=self._gpu)
        return str(ray.get(self._actor.describe.remote()))

    def remove(self, attempt: Attempt) -> None:
        """Ends an attempt; an engine that has died needs no telling."""
        with suppress(RayError):
            ray.get(self._actor.remove.remote(attempt))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The actor's method, which waits for its answer."""
        if name.startswith("_"):  # before `describe`, and what pickle looks for
            raise AttributeError(name)
        method = getattr(self._actor, name)
        return lambda *arguments: ray.get(method.remote(*arguments))


def start_keeper(slots: Slots, image_set: "ImageSet", **settings: Any) -> ActorHandle:
    """The study's keeper, on the driver's own node; it ends with the driver, or by `ray.kill`."""
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    kind = ray.remote(num_cpus=0)(EngineKeeper).options(scheduling_strategy=here)
    return kind.remote(slots, image_set=ray.put(image_set), **settings)


def engine_here(keeper: ActorHandle, *, gpu: bool) -> ActorHandle:
    """The engine of the device that Ray has given this process."""
    node = ray.get_runtime_context().get_node_id()
    visible = os.environ.get(GPU_VARIABLE, "") if gpu else None
    engine: ActorHandle = ray.get(keeper.engine_of.remote(node, visible))
    return engine


def start_first_engine(keeper: ActorHandle, slots: Slots) -> str:
    """Has the first engine start and compile, before any trial asks; returns its device.

    Raises:
        SpecError: TensorFlow cannot open it.
    """
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    here = task(engine_here).remote(keeper, gpu=bool(slots.gpus_per_trial))
    try:
        return str(ray.get(ray.get(here).describe.remote()))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise SpecError(str(error.cause)) from error
        raise
