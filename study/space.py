"""Which trials a study is made of: the report's fixed ones, and the space that Optuna searches.

The space functions only suggest; `config_from_params` turns what they suggested into a trial.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna

from convae.config import HIDDEN_ACTIVATIONS, TrialConfig
from study import schema
from study.presets import DENSE_SIZES, StudySpec

BATCH_SIZES = (64, 128, 256, 512, 1000)


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its name and the reason why it is in the study.

    Attributes:
        trial_id: unique in the study and readable, such as "reference-dense512-s0".
        group: of `schema.GROUPS`.
        config: what to train.
        keep_model: whether to save the trained model and show what it reconstructs.
        report_epochs: after these epochs the study wants to hear of it at once.
    """

    trial_id: str
    group: str
    config: TrialConfig
    keep_model: bool = False
    report_epochs: tuple[int, ...] = ()

    def to_tune(self) -> dict[str, Any]:
        """As the plain dictionary that Ray Tune hands to the worker."""
        return {
            "trial_id": self.trial_id,
            "group": self.group,
            "trial": self.config.to_dict(),
            "keep_model": self.keep_model,
            "report_epochs": self.report_epochs,
        }

    @classmethod
    def from_tune(cls, config: Mapping[str, Any]) -> "PlannedTrial":
        """The inverse of `to_tune`."""
        return cls(
            config["trial_id"],
            config["group"],
            TrialConfig.from_dict(config["trial"]),
            config["keep_model"],
            tuple(config["report_epochs"]),
        )


def reference_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's trials as fixed trials, on all 60,000 training images.

    Long ones come first, so that no slot waits for one at the end; the first seed keeps its models.
    """
    architectures: list[tuple[str, dict[str, Any]]] = []
    if schema.CONV in spec.models:
        architectures.append((schema.CONV, {"model": schema.CONV}))
    if schema.DENSE in spec.models:
        architectures += [
            (f"{schema.DENSE}{units}", {"model": schema.DENSE, "hidden_units": units})
            for units in sorted(spec.hidden_units, reverse=True)
        ]
    return [
        PlannedTrial(
            f"{schema.REFERENCE}-{label}-s{seed}",
            schema.REFERENCE,
            TrialConfig(**architecture, epochs=spec.epochs, batch_size=spec.batch_size, seed=seed),
            keep_model=seed == spec.seed,
        )
        for label, architecture in architectures
        for seed in range(spec.seed, spec.seed + spec.n_seeds)
    ]


# One factor changed at a time, by the architecture that has it; None stands for both.
_NEIGHBOURS: tuple[tuple[str | None, str, tuple[Any, ...]], ...] = (
    (None, "learning_rate", (0.25, 0.5, 2.0, 4.0)),
    (None, "momentum", (0.0, 0.9)),
    (None, "nesterov", (False,)),
    (None, "batch_size", BATCH_SIZES),
    (schema.CONV, "latent_filters", (16,)),
    (schema.DENSE, "hidden_activation", ("sigmoid",)),
    (schema.DENSE, "dropout", (0.1,)),
)


def neighbour_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The conv and dense-512 reference with one factor changed at a time, for each seed.

    The other dense sizes are reference trials already.
    """
    trials = []
    for model in spec.models:
        for seed in range(spec.seed, spec.seed + spec.n_seeds):
            reference = TrialConfig(
                model=model, epochs=spec.epochs, batch_size=spec.batch_size, seed=seed
            )
            for owner, name, values in _NEIGHBOURS:
                for value in values:
                    if owner not in (None, model) or value == getattr(reference, name):
                        continue
                    trial_id = f"{schema.NEIGHBOUR}-{model}-{name}={value}-s{seed}"
                    config = replace(reference, **{name: value})
                    trials.append(PlannedTrial(trial_id, schema.NEIGHBOUR, config))
    return trials


def _suggest_shared(trial: optuna.Trial) -> None:
    # Both act multiplicatively, so they are searched on a log scale, momentum as 1 − momentum.
    trial.suggest_float("learning_rate", 0.05, 5.0, log=True)
    trial.suggest_float("one_minus_momentum", 0.05, 1.0, log=True)
    trial.suggest_categorical("nesterov", (True, False))
    trial.suggest_categorical("batch_size", BATCH_SIZES)


def suggest_conv(trial: optuna.Trial) -> None:
    """The neighbourhood of the report's convolutional autoencoder."""
    _suggest_shared(trial)
    trial.suggest_categorical("latent_filters", (8, 16))


def suggest_dense(trial: optuna.Trial) -> None:
    """The neighbourhood of the report's dense autoencoder."""
    _suggest_shared(trial)
    trial.suggest_categorical("hidden_units", DENSE_SIZES)
    trial.suggest_categorical("hidden_activation", HIDDEN_ACTIVATIONS)
    trial.suggest_categorical("dropout", (0.0, 0.1))


SPACES: dict[str, Callable[[optuna.Trial], None]] = {
    schema.CONV: suggest_conv,
    schema.DENSE: suggest_dense,
}


def grid(model: str) -> dict[str, list[Any]]:
    """The values of a grid search over the model's neighbourhood."""
    values: dict[str, list[Any]] = {
        "learning_rate": [0.25, 0.5, 1.0, 2.0, 4.0],
        "one_minus_momentum": [0.1, 0.5, 1.0],
        "nesterov": [True, False],
        "batch_size": list(BATCH_SIZES),
    }
    if model == schema.CONV:
        return {**values, "latent_filters": [8, 16]}
    return {
        **values,
        "hidden_units": list(DENSE_SIZES),
        "hidden_activation": list(HIDDEN_ACTIVATIONS),
        "dropout": [0.0, 0.1],
    }


def reference_params(model: str, spec: StudySpec) -> dict[str, Any] | None:
    """The reference setting as a point of the model's space; None if it lies outside."""
    config = TrialConfig(model=model, batch_size=spec.batch_size).to_dict()
    if config["batch_size"] not in BATCH_SIZES:
        return None
    params = {"one_minus_momentum": 1 - config["momentum"]}
    own = {schema.CONV: ("latent_filters",), schema.DENSE: ("hidden_units", "hidden_activation")}
    for name in ("learning_rate", "nesterov", "batch_size", *own[model]):
        params[name] = config[name]
    if model == schema.DENSE:
        params["dropout"] = config["dropout"]
    return params


def config_from_params(
    model: str, params: Mapping[str, Any], *, epochs: int, split: str, seed: int
) -> TrialConfig:
    """The trial that a point of the model's space stands for."""
    values = dict(params)
    # Rounded, so that 1 − 0.95 and back is 0.05 and not 0.05000000000000004.
    values["momentum"] = round(1 - values.pop("one_minus_momentum"), 12)
    return TrialConfig(model=model, **values, epochs=epochs, split=split, seed=seed)
