"""Samplers by name: who proposes the next search trial."""

import importlib.util
import zlib
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from convae.config import MODELS
from study.plan.space import Space
from study.plan.spec import SpecError, StudySpec

MOST_PROPOSALS = 200  # until one has few enough parameters


class _Exact(BaseSampler):
    """Proposes what another sampler does, rounded to what a trial's setting holds.

    Otherwise Optuna would know other numbers than the ledger, and a study that was interrupted
    would go on with slightly different proposals.
    """

    def __init__(self, sampler: BaseSampler, space: Space) -> None:
        self._sampler, self._space = sampler, space
        self._inferred: dict[str, BaseDistribution] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._inferred = self._sampler.infer_relative_search_space(study, trial)
        limited = self._space.max_parameters is not None
        return dict(self._space.distributions) if limited else self._inferred

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = self._propose(study, trial)
        if self._space.max_parameters is None:
            return proposed
        # The values of a point must fit together: it is proposed as a whole, until it does.
        for _ in range(MOST_PROPOSALS):
            for name, distribution in search_space.items():
                if name not in proposed:
                    proposed[name] = self.sample_independent(study, trial, name, distribution)
            if self._space.is_small_enough(proposed):
                return proposed
            proposed = self._propose(study, trial)
        return {**proposed, **self._space.small_point(trial.number)}

    def _propose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        proposed = self._sampler.sample_relative(study, trial, self._inferred)
        return {name: self._space.rounded(name, value) for name, value in proposed.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        value = self._sampler.sample_independent(study, trial, name, distribution)
        return self._space.rounded(name, value)

    def before_trial(self, *known: Any) -> None:
        self._sampler.before_trial(*known)

    def after_trial(self, *known: Any) -> None:
        self._sampler.after_trial(*known)


def check_sampler(spec: StudySpec) -> None:
    """Finds out before a study starts that its sampler cannot work.

    Raises:
        SpecError: the sampler needs a package that is not installed, or has too few points.
    """
    samplers = dict(spec.searches)
    if "gp" in samplers and importlib.util.find_spec("torch") is None:
        raise SpecError("--sampler gp needs PyTorch; install it with pip install -e '.[gp]'.")
    if "grid" in samplers:
        n_points = min(len(spec.space_of(model).grid) for model in spec.models)
        if spec.share > n_points:
            raise SpecError(
                f"--trials {spec.n_search_trials} asks the grid for more points than it has: ask"
                f" for at most {n_points * len(spec.models)}, or use another --sampler."
            )


def make_sampler(spec: StudySpec, model: str, number: int) -> BaseSampler:
    """The sampler for one proposal: the trial of this number in an architecture's search.

    Each proposal has a seed of its own, so that a study that was interrupted proposes what it
    would have proposed without that, if its trials ended in the same order.
    """
    # of a custom model by its name, so that another one beside it changes nothing.
    custom = MODELS.index(model) if model in MODELS else zlib.crc32(model.encode())
    stream = np.random.SeedSequence((spec.seed, custom, number))
    return _Exact(_make(spec, int(stream.generate_state(1)[0])), spec.space_of(model))


def _make(spec: StudySpec, seed: int) -> BaseSampler:
    # By default the first ten trials are random, which may be all that there are.
    n_startup = max(1, min(10, spec.share // 2))
    # None that needs no PyTorch is better (benchmarks/results/samplers-cpu.json).
    if spec.sampler == "tpe":
        # Each architecture has its own Optuna study, so there are no groups to tell apart.
        # The constant liar keeps parallel trials from asking for the same point.
        return optuna.samplers.TPESampler(
            multivariate=True, constant_liar=True, n_startup_trials=n_startup, seed=seed
        )
    if spec.sampler == "gp":
        return optuna.samplers.GPSampler(n_startup_trials=n_startup, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid gives all its points itself
