"""The trials of a study that are known before it starts: the report's, and those around them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from typing import Any

from convae.config import BY_NAME, Choices, TrialConfig, hyperparameters_of
from convae.place import Place
from study.folder import schema
from study.plan.custom_trials import label_of as name_of
from study.plan.labels import architecture_of, label_of
from study.plan.spec import StudySpec

MOST_CUSTOM_KEPT = 8  # own settings whose reconstructions are kept: more would fill the page


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its name and the reason why it is in the study.

    Attributes:
        trial_id: unique in the study and readable, such as "reference-dense512-s0".
        group: of `schema.GROUPS`.
        config: what to train.
        setting: the label of its setting.
        base: the label of the setting that it is judged beside; empty for none.
        keep_model: whether to save the trained model and show what it reconstructs.
        prunable: whether the scheduler may end it early.
        report_epochs: after these epochs the study wants to hear of it at once.
        eval_every: epochs from one evaluation to the next.
        place: beside others, or alone so that its times are its own.
    """

    trial_id: str
    group: str
    config: TrialConfig
    setting: str = ""
    base: str = ""
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
    trials += custom_trials(spec)
    trials += neighbour_trials(spec) if spec.neighbours else []
    return sorted(trials, key=lambda trial: trial.config.seed)


def count_trials(spec: StudySpec) -> dict[str, int]:
    """Trials of the whole study by group, if nothing stops it early."""
    counts = Counter(planned.group for planned in fixed_trials(spec))
    counts.update({group: n * len(spec.models) for group, n in searching_trials(spec).items()})
    return {group: counts[group] for group in schema.GROUPS if counts[group]}


def searching_trials(spec: StudySpec) -> dict[str, int]:
    """Trials of each model that is searched, in the order of the groups, which wait for another.

    There are fewer finalists if less of the search completes.
    """
    if not spec.share:
        return {}
    finalists = {}
    if n_settings := min(spec.n_finalists, spec.share):
        # Beside them, the reference setting.
        finalists = {schema.FINALIST: (n_settings + 1) * spec.n_finalist_seeds}
    return {schema.SEARCH: spec.share, **finalists, schema.WINNER: spec.n_seeds}


def winner_place(spec: StudySpec) -> Place:
    """Where winners train: they come last, those of one seed with nothing to share lanes with."""
    return Place.LANES if spec.n_seeds > 1 else Place.SINGLE


def reference_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's trials as fixed trials, on all 60,000 training images.

    Long ones come first, so that no slot waits for one at the end; the first seed keeps its models
    and trains alone.
    """
    return _for_each_seed(
        spec, schema.REFERENCE, _architectures(spec), keep_models=True, first_alone=True
    )


def reading_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The report's models under every other combination of readings, for each seed.

    Trained and tested like the reference trials, which are the one combination left out here.
    """
    settings = {}
    for label, reference in _architectures(spec).items():
        if reference.is_custom:
            continue  # the report does not know it
        factors = [p for p in hyperparameters_of(reference.model) if p.readings]
        for values in product(*(factor.readings for factor in factors)):
            reading = dict(zip((factor.name for factor in factors), values, strict=True))
            name = "-".join(f"{factor}={value}" for factor, value in reading.items())
            settings[f"{label}-{name}"] = reference.with_values(reading)
    references = set(_architectures(spec).values())
    settings = {label: config for label, config in settings.items() if config not in references}
    return _for_each_seed(spec, schema.READING, settings)


def custom_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The trials that the study's author asks for, for each seed."""
    settings = {}
    for custom in spec.custom_trials:
        reference = reference_config(custom.model, spec, split=custom.split)
        for values in custom.settings:
            named = (
                values if custom.split == schema.FULL_SPLIT else {**values, "split": custom.split}
            )
            settings[name_of(custom.model, named)] = reference.with_values(values)
    return _for_each_seed(
        spec, schema.CUSTOM, settings, keep_models=len(settings) <= MOST_CUSTOM_KEPT
    )


def neighbour_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The conv and dense reference, and each with one factor changed, for each seed.

    Settings are compared here, so they train on the search's 50,000 images and are judged by the
    validation images; the test images stay out of it.
    """
    settings = {}
    for model in spec.models:
        if model not in schema.MODELS:
            continue  # nothing is known of its surroundings
        reference = reference_config(model, spec, split=schema.SEARCH_SPLIT)
        settings[f"{model}-reference"] = reference
        for name, values in neighbour_values(reference, spec).items():
            for value in values:
                settings[f"{model}-{name}={value}"] = reference.with_values({name: value})
    return _for_each_seed(spec, schema.NEIGHBOUR, settings)


def neighbour_values(reference: TrialConfig, spec: StudySpec) -> dict[str, list[Any]]:
    """The values to change to, by factor, of a model's reference setting.

    Of a person's own model: the values among which the search chooses its builder's arguments.
    """
    found = {}
    searched = dict(spec.space_of(reference.model).searched)
    for p in spec.hyperparameters(reference.model):
        values = p.neighbours
        if p.name in reference.keywords and isinstance(how := searched.get(p.name), Choices):
            values = how.grid
        found[p.name] = [value for value in values if value != reference.value(p.name)]
    return found


def reference_config(model: str, spec: StudySpec, **changes: Any) -> TrialConfig:
    """The report's setting of a model in the study, with these fields changed.

    The dense model has the report's 512 units, or the largest size of a study without them.
    """
    setting: dict[str, Any] = {"epochs": spec.epochs, "batch_size": spec.batch_size}
    if model == schema.DENSE and BY_NAME["hidden_units"].default not in spec.hidden_units:
        setting["hidden_units"] = max(spec.hidden_units)
    for custom in spec.custom_models:
        if custom.name == model:
            setting["arguments"] = custom.defaults
    return TrialConfig(model=model, **(setting | changes))


def setting_of(config: TrialConfig, spec: StudySpec) -> str:
    """The label of a trial's setting in a study, see `study.plan.labels`."""
    return label_of(config, reference_config(config.model, spec))


def base_of(group: str, config: TrialConfig, spec: StudySpec) -> str:
    """The label of the setting that a trial is judged beside; empty if there is none.

    A reference trial is judged beside the reference setting of the dense model. All others are
    judged beside the reference setting of their model, but readings and custom trials of a dense
    size that is among the reference trials beside that one.
    """
    setting = setting_of(config, spec)
    if group == schema.REFERENCE:
        bases = [schema.DENSE] if schema.DENSE in spec.models else []
        found = [setting_of(reference_config(model, spec), spec) for model in bases]
    else:
        found = [setting_of(reference_config(config.model, spec), spec)]
        of_size = architecture_of(config)
        if group in (schema.READING, schema.CUSTOM) and of_size in _architectures(spec):
            found.insert(0, of_size)
    return next((base for base in found if base != setting), "")


def search_config(
    model: str, params: Mapping[str, Any], spec: StudySpec, split: str = schema.SEARCH_SPLIT
) -> TrialConfig:
    """The trial that a point of a model's space stands for in a study."""
    # One seed for all: settings are compared on the same footing.
    reference = reference_config(model, spec, split=split, seed=spec.seed)
    return reference.with_values(spec.space_of(model).values_of(params))


def first_points(model: str, spec: StudySpec, n: int) -> list[dict[str, Any]]:
    """The reference setting and its neighbours as points of the model's space, at most n.

    Neighbours come in rounds, a value of every factor in each, so that a small n knows most
    factors. What the space leaves out is left out, and all if it is the reference setting.
    """
    space = spec.space_of(model)
    reference = reference_config(model, spec).with_values(dict(space.fixed))
    if not space.holds(reference, reference):
        return []
    rounds = zip_longest(
        *(
            [reference.with_values({name: value}) for value in values]
            for name, values in neighbour_values(reference, spec).items()
        )
    )
    settings = [reference, *(config for configs in rounds for config in configs if config)]
    held = [config for config in settings if space.holds(config, reference)]
    return [space.params_of(config) for config in held[:n]]


def _architectures(spec: StudySpec) -> dict[str, TrialConfig]:
    """The study's models at the report's setting, by a short name, long ones first."""
    found = {}
    for model in spec.models:
        if model != schema.DENSE:
            found[model] = reference_config(model, spec)
    if schema.DENSE in spec.models:
        for units in sorted(spec.hidden_units, reverse=True):
            dense = reference_config(schema.DENSE, spec, hidden_units=units)
            found[architecture_of(dense)] = dense
    return found


def _for_each_seed(
    spec: StudySpec,
    group: str,
    settings: Mapping[str, TrialConfig],
    *,
    keep_models: bool = False,
    first_alone: bool = False,
) -> list[PlannedTrial]:
    return [
        PlannedTrial(
            f"{group}-{label}-s{seed}",
            group,
            replace(config, seed=seed),
            keep_model=keep_models and seed == spec.seed,
            eval_every=spec.eval_every,
            place=Place.ALONE if first_alone and seed == spec.seed else Place.LANES,
        )
        for label, config in settings.items()
        for seed in spec.seeds
    ]
