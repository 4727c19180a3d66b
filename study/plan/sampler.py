"""Samplers by name: who proposes the next search trial."""

import importlib.util

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from convae.config import MODELS
from study.plan.space import grid
from study.plan.spec import SpecError, StudySpec


def check_sampler(spec: StudySpec) -> None:
    """Finds out before a study starts that its sampler cannot work.

    Raises:
        SpecError: the sampler needs a package that is not installed, or has too few points.
    """
    if spec.sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise SpecError("--sampler gp needs PyTorch; install it with pip install -e '.[gp]'.")
    if spec.sampler == "grid":
        n_points = min(len(grid(model)) for model in spec.models)
        if spec.share > n_points:
            raise SpecError(
                f"--trials {spec.n_search_trials} asks the grid for more points than it has: ask"
                f" for at most {n_points * len(spec.models)}, or use another --sampler."
            )


def make_sampler(spec: StudySpec, model: str, number: int) -> BaseSampler:
    """The sampler for one proposal of a study.

    Each proposal has a seed of its own, so that a study that was interrupted proposes what it
    would have proposed without that, if its trials ended in the same order.

    Args:
        spec: the study.
        model: the architecture.
        number: of the trial in its search.
    """
    stream = np.random.SeedSequence((spec.seed, MODELS.index(model), number))
    seed = int(stream.generate_state(1)[0])
    if spec.sampler == "tpe":
        # Each architecture has its own Optuna study, so there are no groups to tell apart.
        # The constant liar keeps parallel trials from asking for the same point.
        # By default its first ten trials are random, which may be all that there are.
        return optuna.samplers.TPESampler(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=max(1, min(10, spec.share // 2)),
            seed=seed,
        )
    if spec.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid gives all its points itself
