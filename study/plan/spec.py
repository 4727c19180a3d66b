"""What a study is: one frozen `StudySpec`, and the named ones that the command line offers."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from convae.config import BY_NAME, N_SEEDS, PRECISIONS
from convae.errors import UserError
from study.folder import schema

SAMPLERS = ("tpe", "gp", "random", "grid")
SCHEDULERS = ("asha", "median", "none")
# What `--resume` may raise: it adds trials, and changes none that is planned.
RAISABLE = ("n_search_trials", "n_seeds", "time_budget_seconds")


class SpecError(UserError):
    """A study that cannot run; the message names the option and what it takes."""


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study, whatever it runs on.

    Attributes:
        preset: the name it came from.
        models: the architectures, of `schema.MODELS`.
        hidden_units: sizes of the dense reference trials.
        epochs: of every trial.
        batch_size: of the reference trials; the report does not say.
        n_seeds: the reference and the winners are trained with seeds seed, seed + 1, …
        seed: of the first reference trial, and of the samplers.
        n_search_trials: search trials together; the architectures get equal shares.
        readings: also train the reference under the other readings of what the report leaves open.
        neighbours: also train the reference with one factor changed at a time.
        objective: of the search, of `schema.OBJECTIVES`.
        warm_start: an older run folder, whose search trials the sampler learns from.
        sampler: of the search, of `SAMPLERS`.
        scheduler: ends search trials early, of `SCHEDULERS`.
        grace_epochs: that every search trial gets; None for a tenth of `epochs`, at least one.
        reduction_factor: of ASHA: one in so many trials goes on from each rung.
        precision: of every trial's arithmetic, of `convae.config.PRECISIONS`.
        eval_every: epochs from one evaluation to the next; the last one is always evaluated, and so
            is each at which a scheduler compares trials.
        time_budget_seconds: the study stops then with what it has; None for no limit.

    Raises:
        SpecError: for a value out of range.
    """

    preset: str
    models: tuple[str, ...] = schema.MODELS
    hidden_units: tuple[int, ...] = BY_NAME["hidden_units"].neighbours
    epochs: int = 50
    batch_size: int = BY_NAME["batch_size"].default
    n_seeds: int = 1
    seed: int = 0
    n_search_trials: int = 0
    readings: bool = False
    neighbours: bool = False
    objective: str = schema.MSE_ALONE
    warm_start: str | None = None
    sampler: str = "tpe"
    scheduler: str = "asha"
    grace_epochs: int | None = None
    reduction_factor: int = 3
    precision: str = "float32"
    eval_every: int = 1
    time_budget_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in self.models:
            if name not in schema.MODELS:
                raise SpecError(f"--models has {name!r}, but takes {' and '.join(schema.MODELS)}.")
        for option, values, minimum in (
            ("--hidden", self.hidden_units, 1),
            ("--epochs", (self.epochs,), 1),
            ("--batch-size", (self.batch_size,), 1),
            ("--seeds", (self.n_seeds,), 1),
            ("--seed", (self.seed,), 0),
            ("--trials", (self.n_search_trials,), 0),
            ("--grace-epochs", (self.grace,), 1),
            ("--reduction-factor", (self.reduction_factor,), 2),
            ("--eval-every", (self.eval_every,), 1),
        ):
            if any(value < minimum for value in values):
                listed = " ".join(map(str, values))
                raise SpecError(f"{option} is {listed}, but takes whole numbers from {minimum}.")
        for option, value, known in (
            ("--objective", self.objective, schema.OBJECTIVES),
            ("--sampler", self.sampler, SAMPLERS),
            ("--scheduler", self.scheduler, SCHEDULERS),
            ("--precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise SpecError(f"{option} is {value!r}, but takes one of {', '.join(known)}.")
        if self.timed and self.scheduler != "none":
            raise SpecError(
                f"--objective {self.objective} needs --scheduler none: a trial that was ended early"
                " has no training time to compare."
            )
        if self.timed and self.warm_start is not None:
            raise SpecError(
                f"--objective {self.objective} cannot go with --warm-start: the times of another"
                " run are not comparable."
            )
        if self.grace > self.epochs:
            raise SpecError(
                f"--grace-epochs is {self.grace}, but the trials have {self.epochs} epochs; give at"
                " most as many."
            )
        if self.seed + self.n_seeds > N_SEEDS:
            raise SpecError(
                f"--seed {self.seed} with --seeds {self.n_seeds} runs past {N_SEEDS - 1}, the last"
                " seed there is; start lower."
            )
        budget = self.time_budget_seconds
        if budget is not None and not 0 < budget < math.inf:
            raise SpecError("--time-budget takes a number of seconds above 0.")
        for option, items in (("--models", self.models), ("--hidden", self.hidden_units)):
            if len(set(items)) != len(items):
                raise SpecError(f"{option} names something twice; name it once.")
        if self.n_search_trials % len(self.models):
            raise SpecError(
                f"--trials is {self.n_search_trials}, but must share out equally among "
                f"{len(self.models)} models."
            )

    @property
    def grace(self) -> int:
        """Epochs that every search trial gets before a scheduler may end it."""
        return max(1, self.epochs // 10) if self.grace_epochs is None else self.grace_epochs

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which the scheduler compares trials, ascending; none without one."""
        if self.scheduler == "median":
            return tuple(range(self.grace, self.epochs + 1))
        found = []
        epoch = self.grace
        while self.scheduler == "asha" and epoch <= self.epochs:
            found.append(epoch)
            epoch *= self.reduction_factor
        return tuple(found)

    @property
    def seeds(self) -> range:
        """The seeds of the reference and of the winners."""
        return range(self.seed, self.seed + self.n_seeds)

    @property
    def timed(self) -> bool:
        """Whether the training time is an objective."""
        return self.objective == schema.MSE_AND_TIME

    @property
    def share(self) -> int:
        """Search trials of each architecture."""
        return self.n_search_trials // len(self.models)

    def check_resumes(self, earlier: "StudySpec") -> None:
        """Makes sure that a study planned by an earlier spec can go on with this one.

        Raises:
            SpecError: it would change trials that are planned; the difference is named.
        """
        was, now = earlier.to_dict(), self.to_dict()
        changed = [name for name in was if was[name] != now[name]]
        refused = [name for name in changed if name not in RAISABLE or not _raised(was, now, name)]
        if refused:
            listed = "; ".join(f"{name} {was[name]} to {now[name]}" for name in refused)
            raise SpecError(
                f"--resume cannot change the study ({listed}); leave these options out. It may"
                " raise --trials, --seeds and --time-budget."
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StudySpec":
        """The inverse of `to_dict`, also after a trip through JSON."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**plain)


def _raised(was: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Whether a number went up; None is no limit."""
    return now[name] is None or (was[name] is not None and now[name] > was[name])


PRESETS = MappingProxyType(
    {
        spec.preset: spec
        for spec in (
            # Everything once, small: about two minutes on two cores.
            StudySpec(preset="quick", hidden_units=(512,), epochs=3, n_search_trials=6),
            # The report's trials alone.
            StudySpec(preset="reference"),
            # The report's trials and a small search.
            StudySpec(preset="standard", n_search_trials=12),
            # The report's claims under every reading of what it leaves open.
            StudySpec(preset="audit", n_seeds=5, readings=True),
            # For a GPU: spread over seeds, and a search worth its name.
            StudySpec(preset="full", n_seeds=5, neighbours=True, n_search_trials=100),
        )
    }
)
