"""Which trials a study is made of: the report's fixed ones, and the space that Optuna searches.

The space functions only suggest; `config_from_params` turns what they suggested into a trial.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from typing import Any

from optuna.trial import BaseTrial

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
        prunable: whether the scheduler may end it early.
        report_epochs: after these epochs the study wants to hear of it at once.
        eval_every: epochs from one evaluation to the next.
    """

    trial_id: str
    group: str
    config: TrialConfig
    keep_model: bool = False
    prunable: bool = False
    report_epochs: tuple[int, ...] = ()
    eval_every: int = 1

    def evaluates(self, epoch: int) -> bool:
        """Whether the trial is evaluated at the end of this epoch, counted from 1."""
        due = epoch % self.eval_every == 0 or epoch == self.config.epochs
        return due or epoch in self.report_epochs

    def to_tune(self) -> dict[str, Any]:
        """As the plain dictionary that Ray Tune hands to the worker."""
        return {
            "trial_id": self.trial_id,
            "group": self.group,
            "trial": self.config.to_dict(),
            "keep_model": self.keep_model,
            "prunable": self.prunable,
            "report_epochs": self.report_epochs,
            "eval_every": self.eval_every,
        }

    @classmethod
    def from_tune(cls, config: Mapping[str, Any]) -> "PlannedTrial":
        """The inverse of `to_tune`."""
        return cls(
            config["trial_id"],
            config["group"],
            TrialConfig.from_dict(config["trial"]),
            config["keep_model"],
            config["prunable"],
            tuple(config["report_epochs"]),
            config["eval_every"],
        )


def reference_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's trials as fixed trials, on all 60,000 training images.

    Long ones come first, so that no slot waits for one at the end; the first seed keeps its models.
    """
    return [
        PlannedTrial(
            f"{schema.REFERENCE}-{label}-s{seed}",
            schema.REFERENCE,
            replace(config, seed=seed),
            keep_model=seed == spec.seed,
        )
        for label, config in _architectures(spec).items()
        for seed in range(spec.seed, spec.seed + spec.n_seeds)
    ]


def _architectures(spec: StudySpec) -> dict[str, TrialConfig]:
    """The report's models at its setting, by a short name, long ones first."""
    found = {}
    if schema.CONV in spec.models:
        found[schema.CONV] = reference_config(schema.CONV, spec)
    if schema.DENSE in spec.models:
        for units in sorted(spec.hidden_units, reverse=True):
            dense = reference_config(schema.DENSE, spec, hidden_units=units)
            found[f"{schema.DENSE}{units}"] = dense
    return found


def reference_config(model: str, spec: StudySpec, **changes: Any) -> TrialConfig:
    """The report's model at the study's setting, with these fields changed."""
    return TrialConfig(
        model=model,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        precision=spec.precision,
        **changes,
    )


def reading_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's models under every other combination of readings, for each seed.

    Trained and tested like the reference trials, which are the one combination left out here.
    """
    trials = []
    for label, reference in _architectures(spec).items():
        factors = {
            name: values
            for name, values in schema.OPEN_VALUES.items()
            if reference.model in schema.OPEN_VALUE_MODELS[name]
        }
        for values in product(*factors.values()):
            reading: dict[str, Any] = dict(zip(factors, values, strict=True))
            config = replace(reference, **reading)
            name = "-".join(f"{factor}={value}" for factor, value in reading.items())
            trials += [
                PlannedTrial(
                    f"{schema.READING}-{label}-{name}-s{seed}",
                    schema.READING,
                    replace(config, seed=seed),
                )
                for seed in range(spec.seed, spec.seed + spec.n_seeds)
                if config != reference
            ]
    return trials


# One factor changed at a time, by the architecture that has it; None stands for both. What the
# report leaves open comes before its optimiser: a small search is given the first ones only.
_NEIGHBOURS: tuple[tuple[str | None, str, tuple[Any, ...]], ...] = (
    (None, "batch_size", BATCH_SIZES),
    (schema.CONV, "latent_filters", (16,)),
    (schema.DENSE, "hidden_activation", ("sigmoid",)),
    (schema.DENSE, "dropout", (0.1,)),
    (schema.DENSE, "hidden_units", DENSE_SIZES),
    (None, "learning_rate", (2.0, 0.5, 4.0, 0.25)),
    (None, "momentum", (0.9, 0.0)),
    (None, "nesterov", (False,)),
)


def _changes(reference: TrialConfig) -> dict[str, list[Any]]:
    """The values to change to, by factor, of a model's reference setting."""
    return {
        name: [value for value in values if value != getattr(reference, name)]
        for owner, name, values in _NEIGHBOURS
        if owner in (None, reference.model)
    }


def neighbour_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The conv and dense-512 reference, and each with one factor changed, for each seed.

    Settings are compared here, so they train on the search's 50,000 images and are judged by the
    validation images; the test images stay out of it.
    """
    trials = []
    for model in spec.models:
        for seed in range(spec.seed, spec.seed + spec.n_seeds):
            reference = reference_config(model, spec, split=schema.SEARCH_SPLIT, seed=seed)
            settings = {"reference": reference} | {
                f"{name}={value}": replace(reference, **{name: value})
                for name, values in _changes(reference).items()
                for value in values
            }
            trials += [
                PlannedTrial(
                    f"{schema.NEIGHBOUR}-{model}-{label}-s{seed}", schema.NEIGHBOUR, config
                )
                for label, config in settings.items()
            ]
    return trials


def _suggest_shared(trial: BaseTrial) -> None:
    # Both act multiplicatively, so they are searched on a log scale, momentum as 1 − momentum.
    trial.suggest_float("learning_rate", 0.05, 5.0, log=True)
    trial.suggest_float("one_minus_momentum", 0.05, 1.0, log=True)
    trial.suggest_categorical("nesterov", (True, False))
    trial.suggest_categorical("batch_size", BATCH_SIZES)


def suggest_conv(trial: BaseTrial) -> None:
    """The neighbourhood of the report's convolutional autoencoder."""
    _suggest_shared(trial)
    trial.suggest_categorical("latent_filters", (8, 16))


def suggest_dense(trial: BaseTrial) -> None:
    """The neighbourhood of the report's dense autoencoder."""
    _suggest_shared(trial)
    trial.suggest_categorical("hidden_units", DENSE_SIZES)
    trial.suggest_categorical("hidden_activation", HIDDEN_ACTIVATIONS)
    trial.suggest_categorical("dropout", (0.0, 0.1))


SPACES: dict[str, Callable[[BaseTrial], None]] = {
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


# The parameters that only one architecture has; both have the others.
_OWN_PARAMS = {
    schema.CONV: ("latent_filters",),
    schema.DENSE: ("hidden_units", "hidden_activation", "dropout"),
}


def params_from_config(config: TrialConfig) -> dict[str, Any]:
    """The inverse of `config_from_params`. The point may lie outside the space."""
    names = ("learning_rate", "nesterov", "batch_size", *_OWN_PARAMS[config.model])
    # Rounded for the same reason as there.
    return {"one_minus_momentum": round(1 - config.momentum, 12)} | {
        name: getattr(config, name) for name in names
    }


def first_points(model: str, spec: StudySpec, n: int) -> list[dict[str, Any]]:
    """The reference setting and its neighbours as points of the model's space, at most n.

    Neighbours come in rounds, a value of every factor in each, so that a small n knows most
    factors. There are none if the reference's batch size lies outside the space.
    """
    reference = TrialConfig(model=model, batch_size=spec.batch_size)
    if spec.batch_size not in BATCH_SIZES:
        return []
    rounds = zip_longest(
        *([replace(reference, **{k: v}) for v in vs] for k, vs in _changes(reference).items())
    )
    settings = [reference, *(config for configs in rounds for config in configs if config)]
    return [params_from_config(config) for config in settings[:n]]


def config_from_params(
    model: str,
    params: Mapping[str, Any],
    *,
    epochs: int,
    split: str,
    seed: int,
    precision: str = "float32",
) -> TrialConfig:
    """The trial that a point of the model's space stands for."""
    values = dict(params)
    # Rounded, so that 1 − 0.95 and back is 0.05 and not 0.05000000000000004.
    values["momentum"] = round(1 - values.pop("one_minus_momentum"), 12)
    return TrialConfig(
        model=model, **values, epochs=epochs, split=split, seed=seed, precision=precision
    )


def searched_config(
    model: str, params: Mapping[str, Any], spec: StudySpec, split: str = schema.SEARCH_SPLIT
) -> TrialConfig:
    """The same for a trial of a study's search, or of its winner."""
    # One seed for all: settings are compared on the same footing.
    return config_from_params(
        model,
        params,
        epochs=spec.epochs,
        split=split,
        seed=spec.seed,
        precision=spec.precision,
    )
