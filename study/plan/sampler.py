"""Samplers by name: who proposes the next search trial."""

import importlib.util
import zlib
from collections.abc import Set
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from convae.config import MODELS
from study.plan.space import Point, Space
from study.plan.spec import SpecError, StudySpec

MOST_PROPOSALS = 200  # until one is new, and has few enough parameters


class NewSettings(BaseSampler):
    """Proposes what another sampler does, but no setting twice, and none that is too large.

    A point is proposed as a whole, and rounded to what a trial's setting holds. Otherwise Optuna
    would know other numbers than the ledger, and a study that was interrupted would go on with
    slightly different proposals.

    Args:
        sampler: the other one.
        space: of the search.
        known: points of the settings that the search has had.
        inferred: of the search; filled with what a sampler infers from its trials, all of which
            have the same distributions: they stay, and it would look through all trials each time.
        seed: of the random points that come in the place of known ones.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space,
        known: Set[Point],
        inferred: dict[str, BaseDistribution],
        seed: int,
    ) -> None:
        self._sampler, self._space, self._known = sampler, space, known
        self._inferred, self._seed = inferred, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters, since they are proposed together."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point."""
        space, sampler, inferred = self._space, self._sampler, self._inferred
        if not inferred:
            inferred.update(sampler.infer_relative_search_space(study, trial))
        for _ in range(MOST_PROPOSALS):
            proposed = sampler.sample_relative(study, trial, inferred)
            for name, distribution in search_space.items():
                if name not in proposed:
                    proposed[name] = sampler.sample_independent(study, trial, name, distribution)
            proposed = {name: space.rounded(name, value) for name, value in proposed.items()}
            if space.is_small_enough(proposed):
                if space.point(proposed) not in self._known:
                    return proposed
                if sampler is self._sampler:  # it might propose the same for ever
                    sampler, inferred = optuna.samplers.RandomSampler(self._seed), {}
        return space.any_point(proposed, trial.number, self._known)

    def sample_independent(self, *_: Any) -> Any:
        """Is never asked."""
        raise NotImplementedError

    def before_trial(self, *known: Any) -> None:
        """Tells the other sampler."""
        self._sampler.before_trial(*known)

    def after_trial(self, *known: Any) -> None:
        """Tells the other sampler."""
        self._sampler.after_trial(*known)


def check_sampler(spec: StudySpec) -> None:
    """Finds out before a study starts that its sampler cannot work.

    Raises:
        SpecError: the sampler needs a package that is not installed.
    """
    if "gp" in dict(spec.searches) and importlib.util.find_spec("torch") is None:
        raise SpecError("--sampler gp needs PyTorch; install it with pip install -e '.[gp]'.")


def make_sampler(
    spec: StudySpec,
    model: str,
    number: int,
    known: Set[Point] = frozenset(),
    inferred: dict[str, BaseDistribution] | None = None,
) -> BaseSampler:
    """The sampler for one proposal: the trial of this number in an architecture's search.

    Each proposal has a seed of its own, so that a study that was interrupted proposes what it
    would have proposed without that, if its trials ended in the same order. What is `known`, it
    does not propose; `inferred` is one dict for all proposals of a search.
    """
    # A custom model has a stream by its name, so that another one beside it changes nothing.
    place = MODELS.index(model) if model in MODELS else zlib.crc32(model.encode())
    stream = np.random.SeedSequence((spec.seed, place, number))
    seed = int(stream.generate_state(1)[0])
    found = {} if inferred is None else inferred
    return NewSettings(_make(spec, seed), spec.space_of(model), known, found, seed)


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
