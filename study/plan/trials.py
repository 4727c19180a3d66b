"""The trials of a study: those that are known before it starts, and how any of them is planned."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from convae.config import BY_NAME, FULL_SPLIT, Choices, TrialConfig
from convae.sharing import DeviceSharing
from study.folder import schema
from study.plan.labels import architecture_of, file_name_of, label_of
from study.plan.spec import StudySpec
from study.plan.trial_tables import TrialTable, Values, combinations, split_of

MOST_CUSTOM_KEPT = 8  # custom settings whose models are kept: more would fill the folder


@dataclass(frozen=True)
class PlannedTrial:
    """A trial with its name and the reason why it is in the study."""

    trial_id: str  # unique in the study and readable: nothing is to be read from it
    group: str  # of `schema.GROUPS`
    config: TrialConfig
    setting: str  # the label of its setting, see `study.plan.labels`
    base: str  # the label of the setting that it is judged beside; empty for none
    keep_model: bool = False  # save the trained model, and what it reconstructs
    prunable: bool = False  # the scheduler may end it early
    report_epochs: tuple[int, ...] = ()  # the study wants to hear of these at once
    eval_every: int = 1  # epochs from one evaluation to the next
    sharing: DeviceSharing = DeviceSharing.LANES  # of its device with other trials

    def evaluates(self, epoch: int) -> bool:
        """Whether the trial is evaluated at the end of this epoch, counted from 1."""
        due = epoch % self.eval_every == 0 or epoch == self.config.epochs
        return due or epoch in self.report_epochs


def plan_trial(
    spec: StudySpec, group: str, trial_id: str, config: TrialConfig, **more: Any
) -> PlannedTrial:
    """A trial of a study, labelled; `more` are further fields of `PlannedTrial`."""
    setting, base = setting_of(config, spec), base_of(group, config, spec)
    return PlannedTrial(trial_id, group, config, setting, base, eval_every=spec.eval_every, **more)


def tables_of(spec: StudySpec) -> list[TrialTable]:
    """All tables of fixed trials by group, long trials first: no slot waits for one at the end.

    What the options stand for, and the study's custom tables, which take the place of an option's
    tables of the same group and model.
    """
    tables = [
        TrialTable(group=schema.REFERENCE, model=model, values=values)
        for model, values in _architectures(spec)
    ]
    open_ = {one.model: one.values for one in spec.paper.open} if spec.paper else {}
    for model, values in _architectures(spec) if spec.readings else ():
        if model in open_:
            values += open_[model]
            tables.append(TrialTable(group=schema.READING, model=model, values=values))
    replaced = {(table.group, table.model) for table in spec.trial_tables}
    tables = [table for table in tables if (table.group, table.model) not in replaced]
    return sorted([*tables, *spec.trial_tables], key=lambda t: schema.GROUPS.index(t.group))


def fixed_trials(spec: StudySpec, wanted: Mapping[str, int] | None = None) -> list[PlannedTrial]:
    """The trials that are known before the study starts, in the order in which they start.

    Reference settings have as many seeds as are wanted of them by label, if those are more.

    Seed by seed: a study that stops early has whole seeds, not whole settings. The reference trials
    of the first seed come first, each alone: on their times the time comparison rests. A reading
    that is a reference setting is left out.
    """
    settings = [
        (table, config)
        for table in tables_of(spec)
        for config in table.configs(reference_config(table.model, spec, split=table.split))
    ]
    references = {config for table, config in settings if table.group == schema.REFERENCE}
    n_custom = len({config for table, config in settings if table.group == schema.CUSTOM})
    kept = {schema.REFERENCE} | ({schema.CUSTOM} if n_custom <= MOST_CUSTOM_KEPT else set())
    found: dict[str, PlannedTrial] = {}
    for table, setting in settings:
        if table.group == schema.READING and setting in references:
            continue
        label = setting_of(setting, spec)
        label += "" if table.split == split_of(table.group) else f" split={table.split}"
        n_seeds = table.n_seeds or spec.n_seeds
        if table.group == schema.REFERENCE and table.split == FULL_SPLIT:
            n_seeds = max(n_seeds, (wanted or {}).get(setting_of(setting, spec), 0))
        for seed in range(spec.seed, spec.seed + n_seeds):
            trial_id = f"{table.group}-{file_name_of(label)}-s{seed}"
            is_first = seed == spec.seed
            alone = is_first and table.group == schema.REFERENCE
            found.setdefault(
                trial_id,
                plan_trial(
                    spec,
                    table.group,
                    trial_id,
                    replace(setting, seed=seed),
                    keep_model=is_first and table.group in kept,
                    sharing=DeviceSharing.ALONE if alone else DeviceSharing.LANES,
                ),
            )
    return sorted(found.values(), key=lambda planned: planned.config.seed)


def count_trials(spec: StudySpec) -> dict[str, int]:
    """Trials of the whole study by group, if nothing stops it early."""
    counts = Counter(planned.group for planned in fixed_trials(spec))
    for model in spec.models:
        counts.update(searching_trials(spec, model))
    return {group: counts[group] for group in schema.GROUPS if counts[group]}


def searching_trials(spec: StudySpec, model: str) -> dict[str, int]:
    """Trials of a model that is searched, in the order of the groups, which wait for another.

    There are fewer finalists if less of the search completes.
    """
    if not spec.share:
        return {}
    finalists = {}
    searched = [spec.n_searched(model, sampler) for sampler, _ in spec.searches]
    if n_settings := min(spec.n_finalists, sum(searched)):
        # Beside them, the reference setting.
        finalists = {schema.FINALIST: (n_settings + 1) * spec.n_finalist_seeds}
    return {
        schema.SEARCH: sum(searched),
        **finalists,
        schema.WINNER: spec.n_seeds,
    }


def winner_sharing(spec: StudySpec) -> DeviceSharing:
    """Where winners train: they come last, those of one seed with nothing to share lanes with."""
    return DeviceSharing.LANES if spec.n_seeds > 1 else DeviceSharing.SINGLE


def reference_config(model: str, spec: StudySpec, **changes: Any) -> TrialConfig:
    """The reference setting of a model in the study, with these fields changed.

    The dense model has the default's 512 units, or the largest size of a study without them.
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


def named_settings(spec: StudySpec) -> dict[str, TrialConfig]:
    """The reference settings and the custom ones on all training images, by label."""
    configs = [
        config
        for table in tables_of(spec)
        if table.group in (schema.REFERENCE, schema.CUSTOM) and table.split == schema.FULL_SPLIT
        for config in table.configs(reference_config(table.model, spec))
    ]
    configs.sort(key=lambda c: (spec.known_models.index(c.model), c.hidden_units or 0))
    return {setting_of(config, spec): config for config in configs}


def readings_of(spec: StudySpec) -> list[dict[str, Any]]:
    """Every reading of what the study's paper leaves open, for the manifest.

    Returns:
        Of each reading `levels`, the values by name; `settings`, the label under it of each of
        `named_settings`; and `default`, whether it is the reference's.
    """
    if spec.paper is None:
        return []
    factors, found = spec.paper.factors, []
    references = [reference_config(model, spec) for model in spec.known_models]
    default = {
        name: next((v for c in references if (v := _has(c, name)) in values), values[0])
        for name, values in factors.items()
    }
    for levels in combinations(factors):
        labels = {}
        for label, config in named_settings(spec).items():
            its = {n: levels[n] for n in spec.paper.factors_of([config.model])}
            labels[label] = setting_of(config.with_values(its), spec)
        found.append({"levels": levels, "settings": labels, "default": levels == default})
    return found


def _has(config: TrialConfig, name: str) -> Any:
    """A trial's value of a hyperparameter or argument; None without it."""
    return config.keywords.get(name, getattr(config, name, None))


def base_of(group: str, config: TrialConfig, spec: StudySpec) -> str:
    """The label of the setting that a trial is judged beside; empty if there is none.

    A reference trial is judged beside the reference setting of the dense model. All others are
    judged beside the reference setting of their model, but readings and custom trials of a dense
    size that is among the reference trials beside that one.
    """
    setting = setting_of(config, spec)
    if group == schema.REFERENCE:
        dense = architecture_of(reference_config(schema.DENSE, spec))
        found = [dense] if schema.DENSE in spec.models else []
    else:
        found = [architecture_of(reference_config(config.model, spec))]
        size = architecture_of(config)
        if group in (schema.READING, schema.CUSTOM) and size in _reference_labels(spec):
            found.insert(0, size)
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
    factors. A builder's argument has the values among which the search chooses. What the space
    leaves out is left out, and all if it is the reference setting.
    """
    space = spec.space_of(model)
    reference = reference_config(model, spec).with_values(dict(space.fixed))
    if not space.holds(reference, reference):
        return []
    by_factor = []
    for p in spec.hyperparameters(model):
        how = dict(space.searched).get(p.name)
        values = p.neighbours
        if p.name in reference.keywords and isinstance(how, Choices):
            values = how.grid
        others = [value for value in values if value != reference.value(p.name)]
        by_factor.append([reference.with_values({p.name: value}) for value in others])
    rounds = zip_longest(*by_factor)
    settings = [reference, *(config for configs in rounds for config in configs if config)]
    held = [config for config in settings if space.holds(config, reference)]
    return [space.params_of(config) for config in held[:n]]


def _architectures(spec: StudySpec) -> list[tuple[str, Values]]:
    """The study's models, and the values by which they are at the reference setting."""
    found: list[tuple[str, Values]] = [(m, ()) for m in spec.models if m != schema.DENSE]
    sizes = sorted(spec.hidden_units, reverse=True) if schema.DENSE in spec.models else []
    return [*found, *((schema.DENSE, (("hidden_units", (units,)),)) for units in sizes)]


@lru_cache(maxsize=16)
def _reference_labels(spec: StudySpec) -> frozenset[str]:
    """The labels of the reference trials."""
    tables = [table for table in tables_of(spec) if table.group == schema.REFERENCE]
    configs = (c for t in tables for c in t.configs(reference_config(t.model, spec)))
    return frozenset(setting_of(config, spec) for config in configs)
