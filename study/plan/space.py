"""The space that Optuna searches, as it follows from the table of hyperparameters."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product, zip_longest
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)

from convae.config import BY_NAME, LogRange, TrialConfig, hyperparameters_of
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import neighbour_values


@cache
def distributions(model: str) -> Mapping[str, BaseDistribution]:
    """What the search proposes for a model, by parameter."""
    return {
        p.parameter: (
            FloatDistribution(p.search.low, p.search.high, log=True)
            if isinstance(p.search, LogRange)
            else CategoricalDistribution(p.search.grid)
        )
        for p in hyperparameters_of(model)
    }


def grid(model: str) -> list[dict[str, Any]]:
    """The points of a grid search over the model's space."""
    parameters = hyperparameters_of(model)
    names = [p.parameter for p in parameters]
    values = product(*(p.search.grid for p in parameters))
    return [dict(zip(names, point, strict=True)) for point in values]


def params_of(config: TrialConfig) -> dict[str, Any]:
    """The point of its model's space that a trial stands for. It may lie outside the space."""
    return {
        p.parameter: p.to_parameter(getattr(config, p.name))
        for p in hyperparameters_of(config.model)
    }


def config_of(
    model: str, params: Mapping[str, Any], spec: StudySpec, split: str = schema.SEARCH_SPLIT
) -> TrialConfig:
    """The trial that a point of the model's space stands for in a study: `params_of`'s inverse."""
    return TrialConfig(
        model=model,
        **{p.name: p.from_parameter(params[p.parameter]) for p in hyperparameters_of(model)},
        epochs=spec.epochs,
        split=split,
        seed=spec.seed,  # one for all: settings are compared on the same footing
        precision=spec.precision,
    )


def first_points(model: str, spec: StudySpec, n: int) -> list[dict[str, Any]]:
    """The reference setting and its neighbours as points of the model's space, at most n.

    Neighbours come in rounds, a value of every factor in each, so that a small n knows most
    factors. There are none if the reference's batch size lies outside the space.
    """
    if spec.batch_size not in BY_NAME["batch_size"].search.grid:
        return []
    reference = TrialConfig(model=model, batch_size=spec.batch_size)
    rounds = zip_longest(
        *(
            [replace(reference, **{name: value}) for value in values]
            for name, values in neighbour_values(reference).items()
        )
    )
    settings = [reference, *(config for configs in rounds for config in configs if config)]
    return [params_of(config) for config in settings[:n]]
