"""The processes of trials at work, for the driver: where they are, and how to end silent ones."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.tune.experiment import Trial

from study.plan.silence import Silence

PING_SECONDS = 10.0  # for an engine to answer


class Workers:
    """Of a study that runs.

    Args:
        keeper: of the engines with lanes; None without.
        ping_seconds: for an engine to answer, before it is taken for silent.
    """

    def __init__(
        self, keeper: ActorHandle | None = None, ping_seconds: float = PING_SECONDS
    ) -> None:
        self._keeper, self._ping_seconds = keeper, ping_seconds
        self._places: dict[Any, Any] = {}  # by worker, or what will tell of it
        # By worker, what its trials have told: the number of an engine with lanes, and Ray's node.
        self._engines: dict[Any, int | None] = {}
        self._nodes: dict[Any, str] = {}

    def started(self, trial: Trial) -> None:
        """Asks where a trial's worker is, before it trains: later it might not answer."""
        actor = trial.temporary_state.ray_actor
        if actor not in self._places:
            self._places[actor] = actor.get_current_ip_pid.remote()

    def heard(self, trial: Trial, engine: int | None, node: str) -> None:
        """A trial tells which engine with lanes trains it, and where; so of its worker's next."""
        actor = trial.temporary_state.ray_actor
        self._engines[actor], self._nodes[actor] = engine, node

    def engine_of(self, trial: Trial) -> int | None:
        """The number of the engine that a trial's worker has last told of."""
        return self._engines.get(trial.temporary_state.ray_actor)

    def node_of(self, trial: Trial) -> str | None:
        """Ray's id of the node that a trial's worker is on; None if it has not told."""
        return self._nodes.get(trial.temporary_state.ray_actor)

    def place_of(self, trial: Trial) -> str:
        """The node and the process, in words."""
        actor = trial.temporary_state.ray_actor
        place = self._places.get(actor)
        if isinstance(place, ray.ObjectRef) and ray.wait([place], timeout=0)[0]:
            try:
                place = "node {}, process {}".format(*ray.get(place))
            except ray.exceptions.RayError:  # it is gone
                place = None
            self._places[actor] = place
        return place if isinstance(place, str) else "node and process not known"

    def end(self, trial: Trial, silence: Silence) -> bool:
        """Ends what a silent trial hangs on; returns whether that was its engine.

        Its engine with lanes, if that does not answer, or answers though the training does not get
        on; else the worker. Ray Tune finds that out and starts trials again.
        """
        engine = self.engine_of(trial)
        if self._keeper is not None and engine is not None:
            seconds = 0.0 if silence.answers else self._ping_seconds
            if ray.get(self._keeper.end_silent.remote(engine, seconds)):
                return True
        actor = trial.temporary_state.ray_actor
        if actor is not None:
            ray.kill(actor)  # also one that is stopped, if in five seconds
        return False
