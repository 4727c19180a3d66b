"""The trials of a study that are known before it starts: the report's, and those around them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from convae.config import TrialConfig, hyperparameters_of
from convae.place import Place
from study.folder import schema
from study.plan.spec import StudySpec


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
        place: beside others, or alone so that its times are its own.
    """

    trial_id: str
    group: str
    config: TrialConfig
    keep_model: bool = False
    prunable: bool = False
    report_epochs: tuple[int, ...] = ()
    eval_every: int = 1
    place: Place = Place.LANES

    def evaluates(self, epoch: int) -> bool:
        """Whether the trial is evaluated at the end of this epoch, counted from 1."""
        due = epoch % self.eval_every == 0 or epoch == self.config.epochs
        return due or epoch in self.report_epochs

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in plain types."""
        return {**self.__dict__, "config": self.config.to_dict(), "place": str(self.place)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlannedTrial":
        """The inverse of `to_dict`, also after a trip through JSON."""
        config = TrialConfig.from_dict(values["config"])
        report_epochs = tuple(values["report_epochs"])
        place = Place(values["place"])
        changed = {"config": config, "report_epochs": report_epochs, "place": place}
        return cls(**{**values, **changed})


def fixed_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The trials that are known before the study starts, in the order in which they start.

    Seed by seed: a study that stops early has whole seeds, not whole settings. The reference trials
    of the first seed come first, each alone: on their times the time comparison rests.
    """
    trials = reference_trials(spec)
    trials += reading_trials(spec) if spec.readings else []
    trials += neighbour_trials(spec) if spec.neighbours else []
    return sorted(trials, key=lambda trial: trial.config.seed)


def count_trials(spec: StudySpec) -> dict[str, int]:
    """Trials of the whole study by group, if nothing stops it early."""
    counts = Counter(planned.group for planned in fixed_trials(spec))
    if spec.n_search_trials:
        counts[schema.SEARCH] = spec.n_search_trials
        counts[schema.WINNER] = len(spec.models) * spec.n_seeds
    return {group: counts[group] for group in schema.GROUPS if counts[group]}


def winner_place(spec: StudySpec) -> Place:
    """Where winners train: they come last, those of one seed with nothing to share lanes with."""
    return Place.LANES if spec.n_seeds > 1 else Place.SINGLE


def reference_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's trials as fixed trials, on all 60,000 training images.

    Long ones come first, so that no slot waits for one at the end; the first seed keeps its models
    and trains alone.
    """
    return _for_each_seed(spec, schema.REFERENCE, _architectures(spec), first_special=True)


def reading_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's models under every other combination of readings, for each seed.

    Trained and tested like the reference trials, which are the one combination left out here.
    """
    settings = {}
    for label, reference in _architectures(spec).items():
        factors = [p for p in hyperparameters_of(reference.model) if p.readings]
        for values in product(*(factor.readings for factor in factors)):
            reading = dict(zip((factor.name for factor in factors), values, strict=True))
            name = "-".join(f"{factor}={value}" for factor, value in reading.items())
            settings[f"{label}-{name}"] = _changed(reference, reading)
    references = set(_architectures(spec).values())
    settings = {label: config for label, config in settings.items() if config not in references}
    return _for_each_seed(spec, schema.READING, settings)


def neighbour_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The conv and dense-512 reference, and each with one factor changed, for each seed.

    Settings are compared here, so they train on the search's 50,000 images and are judged by the
    validation images; the test images stay out of it.
    """
    settings = {}
    for model in spec.models:
        reference = reference_config(model, spec, split=schema.SEARCH_SPLIT)
        settings[f"{model}-reference"] = reference
        for name, values in neighbour_values(reference).items():
            for value in values:
                settings[f"{model}-{name}={value}"] = _changed(reference, {name: value})
    return _for_each_seed(spec, schema.NEIGHBOUR, settings)


def neighbour_values(reference: TrialConfig) -> dict[str, list[Any]]:
    """The values to change to, by factor, of a model's reference setting."""
    return {
        p.name: [value for value in p.neighbours if value != getattr(reference, p.name)]
        for p in hyperparameters_of(reference.model)
    }


def reference_config(model: str, spec: StudySpec, **changes: Any) -> TrialConfig:
    """The report's model at the study's setting, with these fields changed."""
    setting: dict[str, Any] = {
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "precision": spec.precision,
    }
    return TrialConfig(model=model, **(setting | changes))


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


def _changed(config: TrialConfig, changes: Mapping[str, Any]) -> TrialConfig:
    return replace(config, **changes)


def _for_each_seed(
    spec: StudySpec, group: str, settings: Mapping[str, TrialConfig], *, first_special: bool = False
) -> list[PlannedTrial]:
    return [
        PlannedTrial(
            f"{group}-{label}-s{seed}",
            group,
            replace(config, seed=seed),
            keep_model=first_special and seed == spec.seed,
            eval_every=spec.eval_every,
            place=Place.ALONE if first_special and seed == spec.seed else Place.LANES,
        )
        for label, config in settings.items()
        for seed in spec.seeds
    ]
