"""What a study is: one frozen `StudySpec`, whatever it runs on.

Each field says here what it takes and what its option is called: the command line is made from it,
and so are the keys of a study file.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from convae.config import (
    BY_NAME,
    N_SEEDS,
    Domain,
    Hyperparameter,
    argument_of,
    hyperparameters_of,
)
from convae.custom_models import CustomModel
from study.folder import schema
from study.folder.paper import Paper
from study.folder.records import from_json
from study.plan.errors import FLAG, TEXT, above_0, checked_values, listed, one_of, whole
from study.plan.errors import SpecError as SpecError
from study.plan.space import Space, built_in
from study.plan.trial_tables import MOST_SEEDS, TrialTable

SAMPLERS = ("tpe", "gp", "random", "grid")
SCHEDULERS = ("asha", "median", "none")
# What `--resume` may raise: it adds trials, and changes none that is planned.
RAISABLE = (
    *("n_search_trials", "n_searches", "n_seeds", "n_finalists", "n_finalist_seeds"),
    *("time_budget_seconds", "trial_time_limit_seconds"),
)
NAMES = ("preset", "question")  # what it may change without changing a trial
# More would fill the driver's memory before the first trial.
MOST_EPOCHS, MOST_TRIALS = 100_000, 100_000


def _option(default: Any, flag: str, values: Domain, help_: str) -> Any:
    """A field of the spec with its option, which takes one of these values, or a list of them."""
    return field(default=default, metadata={"flag": flag, "values": values, "help": help_})


_SAMPLER = one_of(SAMPLERS)
_SECONDS = above_0("a number of seconds above 0")


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A study, whatever it runs on. Each field's help says what it is.

    Raises:
        SpecError: for a value out of range.
    """

    preset: str  # the name it came from
    question: str = ""  # that the study answers, for its page
    models: tuple[str, ...] = _option(
        schema.MODELS, "--models", TEXT, "the architectures: conv, dense and those of a study file"
    )
    hidden_units: tuple[int, ...] = _option(
        BY_NAME["hidden_units"].neighbours, "--hidden", BY_NAME["hidden_units"], "dense sizes"
    )
    epochs: int = _option(50, "--epochs", whole(1, MOST_EPOCHS), "of every trial")
    batch_size: int = _option(
        BY_NAME["batch_size"].default,
        "--batch-size",
        BY_NAME["batch_size"],
        "of the reference trials",
    )
    n_seeds: int = _option(
        1, "--seeds", whole(1, MOST_SEEDS), "seeds of each reference trial and winner"
    )
    seed: int = _option(0, "--seed", whole(0, N_SEEDS - 1), "the first seed, also the search's")
    n_search_trials: int = _option(
        0, "--trials", whole(0, MOST_TRIALS), "trials of a search, all models together"
    )
    n_finalists: int = _option(
        3,
        "--finalists",
        whole(0, MOST_TRIALS),
        "best search settings of each model that train again, with the reference setting and fresh"
        " seeds, before one wins; 0: the best trial wins",
    )
    n_finalist_seeds: int = _option(
        3, "--finalist-seeds", whole(1, MOST_SEEDS), "fresh seeds of each finalist"
    )
    until_decided: int | None = _option(
        None,
        "--until-decided",
        whole(5, MOST_SEEDS),
        "add seeds to the reference settings and finalists, up to so many, until a test with a"
        " fixed error rate decides each comparison",
    )
    readings: bool = _option(
        False, "--readings", FLAG, "the reference under every reading of what the paper leaves open"
    )
    objective: str = _option(
        schema.MSE_ALONE, "--objective", one_of(schema.OBJECTIVES), "of the search"
    )
    given_trials: bool = _option(
        True,
        "--given-trials",
        FLAG,
        "a search begins with the reference setting and its neighbours",
    )
    sampler: str = _option("tpe", "--sampler", _SAMPLER, "of the search")
    samplers: tuple[str, ...] = _option(
        (), "--samplers", _SAMPLER, "a search by each of these, in place of --sampler"
    )
    n_searches: int = _option(
        1, "--searches", whole(1, MOST_SEEDS), "of each model and sampler, with seeds of their own"
    )
    scheduler: str = _option("asha", "--scheduler", one_of(SCHEDULERS), "ends search trials early")
    grace_epochs: int | None = _option(
        None, "--grace-epochs", whole(1), "that every search trial gets; default: two fifths"
    )
    reduction_factor: int = _option(
        3,
        "--reduction-factor",
        whole(2),
        "of asha: one in so many trials goes on from each rung",
    )
    repeatable: bool = _option(
        True,
        "--repeatable",
        FLAG,
        "the search is the same again whatever trial ends first, for which free places wait",
    )
    search_lag: int | None = _option(
        None,
        "--search-lag",
        whole(1),
        "a repeatable search proposes trial i knowing those up to i - N; default: the trials at"
        " once, or twice as many in a large search",
    )
    # The last epoch is always evaluated, and so is each at which a scheduler compares trials.
    eval_every: int = _option(1, "--eval-every", whole(1), "epochs between evaluations")
    time_budget_seconds: float | None = _option(
        None, "--time-budget", _SECONDS, "seconds, after which the study stops with what it has"
    )
    trial_time_limit_seconds: float | None = _option(
        None,
        "--trial-time-limit",
        _SECONDS,
        "seconds of training and evaluation, after which a trial ends as failed",
    )
    # What only a study file has, and `--trial`.
    custom_models: tuple[CustomModel, ...] = ()
    trial_tables: tuple[TrialTable, ...] = ()
    spaces: tuple[Space, ...] = ()  # in place of the built-in ones
    paper: Paper | None = None  # whose claims the study tests

    def __post_init__(self) -> None:
        for option in spec_options():
            value, about = getattr(self, option.name), option.metadata
            if not (value is None is option.default or value == option.default == ()):
                values = value if isinstance(option.default, tuple) else (value,)
                checked_values(about["flag"], [*values], about["values"])
        for model in self.all_models:
            if model not in (known := self.known_models):
                raise SpecError(f"--models has {model!r}, but takes {listed(known)}.")
        if self.readings and not (self.paper and self.paper.open):
            raise SpecError(
                "--readings needs a paper that leaves something open; name it in a study file"
                ' (paper = "report-2021"), or give a table [open.MODEL].'
            )
        if self.timed and self.scheduler != "none":
            raise SpecError(
                f"--objective {self.objective} needs --scheduler none: a trial that was ended early"
                " has no training time to compare."
            )
        if self.grace > self.epochs:
            raise SpecError(
                f"--grace-epochs is {self.grace}, but --epochs is {self.epochs}; give at most as"
                " many."
            )
        n_seeds = max([self.n_seeds, *(table.n_seeds or 0 for table in self.trial_tables)])
        n_seeds = max(n_seeds, self.until_decided or 0)
        n_fresh = max(self.n_finalist_seeds, self.until_decided or 0)
        last = self.finalist_seeds.start + n_fresh - 1
        last = last if self.n_search_trials and self.n_finalists else 0
        last = max(last, self.searches[-1][1])
        if max(self.seed + n_seeds - 1, last) >= N_SEEDS:
            raise SpecError(
                f"--seed {self.seed} with --seeds {self.n_seeds} or the finalists' seeds runs past"
                f" {N_SEEDS - 1}, the last seed there is; start lower."
            )
        if self.n_search_trials % len(self.models):
            raise SpecError(
                f"--trials is {self.n_search_trials}, but must share out equally among "
                f"{len(self.models)} models."
            )

    @property
    def known_models(self) -> tuple[str, ...]:
        """The built-in models, and the study's custom ones."""
        return (*schema.MODELS, *(custom.name for custom in self.custom_models))

    @property
    def all_models(self) -> tuple[str, ...]:
        """Every model that the study trains."""
        return tuple(dict.fromkeys((*self.models, *(table.model for table in self.trial_tables))))

    def hyperparameters(self, model: str) -> tuple[Hyperparameter, ...]:
        """Those of a model; of a custom one, its builder's arguments first."""
        return hyperparameters(model, self.custom_models)

    def space_of(self, model: str) -> Space:
        """What is searched of a model."""
        return next((space for space in self.spaces if space.model == model), built_in(model))

    @property
    def finalist_seeds(self) -> range:
        """The seeds of the finalists, which no reference trial, search trial or winner has."""
        first = self.seed + MOST_SEEDS
        return range(first, first + self.n_finalist_seeds)

    @property
    def grace(self) -> int:
        """Epochs that every search trial gets before a scheduler may end it."""
        # The least at which nine of ten searches keep the trial that would be their best, at equal
        # MSE (benchmarks/results/grace-cpu.json).
        return max(1, 2 * self.epochs // 5) if self.grace_epochs is None else self.grace_epochs

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which the scheduler compares trials, ascending; none without one."""
        if self.scheduler == "median":
            return tuple(range(self.grace, self.epochs + 1))
        found, epoch = [], self.grace
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
    def searches(self) -> tuple[tuple[str, int], ...]:
        """The searches of each model: by which sampler, and with which seed, that of its trials."""
        samplers = self.samplers or (self.sampler,)
        seeds = itertools.count(self.seed)
        return tuple((name, next(seeds)) for _ in range(self.n_searches) for name in samplers)

    @property
    def share(self) -> int:
        """Trials of each search of an architecture, if its space has so many settings."""
        return self.n_search_trials // len(self.models)

    def n_searched(self, model: str, sampler: str) -> int:
        """Trials of a search of an architecture, no two of which have the same setting."""
        if not self.share:
            return 0
        space = self.space_of(model)
        return int(min(self.share, len(space.grid) if sampler == "grid" else space.n_points))

    def check_resumes(self, earlier: "StudySpec") -> None:
        """Makes sure that a study planned by an earlier spec can go on with this one.

        Raises:
            SpecError: it would change trials that are planned; the difference is named.
        """
        was, now = earlier.to_dict(), self.to_dict()
        changed = [name for name in was if was[name] != now[name] and name not in NAMES]
        refused = [name for name in changed if name not in RAISABLE or not _raised(was, now, name)]
        # A grid's points are numbered: others would come in the place of planned ones.
        widened = all(self.space_of(m).covers(earlier.space_of(m)) for m in self.models)
        if "spaces" in refused and widened and self.sampler != "grid":
            refused.remove("spaces")
        if refused:
            told = "; ".join(
                name if name in _WHOLE else f"{name} {was[name]} to {now[name]}" for name in refused
            )
            raise SpecError(
                f"--resume cannot change the study ({told}); leave these options out. It may"
                " raise --trials, --searches, --seeds, --finalists, --finalist-seeds, --time-budget"
                " and --trial-time-limit, and a study file may widen the ranges and lists that are"
                " searched."
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        custom_models = [custom.to_dict() for custom in self.custom_models]
        return asdict(self) | {"custom_models": custom_models}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StudySpec":
        """The inverse of `to_dict`, also after a trip through JSON."""
        spec: StudySpec = from_json(cls, values)
        return spec


# Too long for a sentence.
_WHOLE = ("custom_models", "trial_tables", "spaces", "paper")


def hyperparameters(model: str, custom_models: Sequence[CustomModel]) -> tuple[Hyperparameter, ...]:
    """Those of a model; of a custom one, its builder's arguments first."""
    defaults = {custom.name: json.loads(custom.defaults) for custom in custom_models}
    arguments = defaults.get(model, {}).items()
    return (*(argument_of(model, *item) for item in arguments), *hyperparameters_of(model))


def spec_options() -> list[Field[Any]]:
    """The fields of a spec that have an option."""
    return [option for option in fields(StudySpec) if option.metadata]


def _raised(was: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Whether a number went up; None is no limit."""
    return now[name] is None or (was[name] is not None and now[name] > was[name])
