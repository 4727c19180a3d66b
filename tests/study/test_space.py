"""The fixed trials and the search space, and the names that both sides share."""

import json
from dataclasses import fields, replace
from itertools import product

import optuna
import pytest

from convae import config as convae_config
from convae.config import TrialConfig
from study.folder import schema
from study.plan.sampler import check_sampler, make_sampler
from study.plan.spec import RAISABLE, SpecError, StudySpec
from study.plan.study_file import PRESETS
from study.plan.trials import (
    PlannedTrial,
    count_trials,
    first_points,
    fixed_trials,
    neighbour_trials,
    reading_trials,
    reference_trials,
    search_config,
)

STANDARD = PRESETS["standard"]


def test_schema_names_what_convae_has():
    assert list(schema.CONFIG_COLUMNS) == [field.name for field in fields(TrialConfig)]
    assert convae_config.MODELS == schema.MODELS
    assert convae_config.SPLITS == (schema.FULL_SPLIT, schema.SEARCH_SPLIT)
    assert set(schema.LATER_COLUMNS) <= set(schema.TRIAL_COLUMNS)


def test_standard_holds_the_reports_trials():
    trials = reference_trials(STANDARD)
    assert [trial.trial_id for trial in trials] == [
        "reference-conv-s0",
        "reference-dense512-s0",
        "reference-dense256-s0",
        "reference-dense128-s0",
        "reference-dense64-s0",
    ]
    for trial in trials:
        config = trial.config
        assert trial.group == schema.REFERENCE
        assert (config.learning_rate, config.momentum, config.nesterov) == (1.0, 0.5, True)
        assert (config.epochs, config.batch_size, config.split) == (50, 256, "full")


def test_seeds_repeat_each_reference_trial():
    spec = StudySpec(preset="test", models=("conv",), n_seeds=3, seed=10)
    assert [trial.config.seed for trial in reference_trials(spec)] == [10, 11, 12]
    assert [trial.keep_model for trial in reference_trials(spec)] == [True, False, False]


@pytest.mark.parametrize("model", schema.MODELS)
def test_planned_trial_survives_json(model):
    config = TrialConfig(model=model, epochs=7, split="search")
    planned = PlannedTrial("a", schema.SEARCH, config, prunable=True, report_epochs=(1, 3))
    assert PlannedTrial.from_dict(planned.to_dict()) == planned
    assert PlannedTrial.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned


@pytest.mark.parametrize("model", schema.MODELS)
def test_reference_and_neighbours_are_points_of_the_space(model):
    """Enqueued, they must come back as the neighbour trials, the reference first."""
    spec = StudySpec(preset="test", models=(model,))
    points = first_points(model, spec, 100)
    study = optuna.create_study()
    found = []
    for params in points:
        study.enqueue_trial(params)
        assert study.ask(dict(STANDARD.space_of(model).distributions)).params == params
        found.append(search_config(model, params, spec))
    assert found[0] == TrialConfig(model=model, split="search")
    planned = [trial.config for trial in neighbour_trials(spec)]
    assert sorted(map(str, found)) == sorted(map(str, planned))
    assert first_points(model, spec, 3) == points[:3]


def test_a_few_first_points_change_different_factors():
    points = first_points("conv", STANDARD, 6)
    changed = [next(k for k in points[0] if p[k] != points[0][k]) for p in points[1:]]
    assert len(set(changed)) == 5


@pytest.mark.parametrize("model", schema.MODELS)
def test_every_point_is_a_valid_trial(model):
    spec = StudySpec(preset="test", epochs=3, seed=1)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        params = study.ask(dict(STANDARD.space_of(model).distributions)).params
        config = search_config(model, params, spec)
        assert (config.model, config.epochs, config.seed) == (model, 3, 1)
        assert 0 <= config.momentum <= 0.95
        assert spec.space_of(model).params_of(config) == pytest.approx(params)


def test_no_reference_point_outside_the_space():
    assert first_points("conv", StudySpec(preset="test", batch_size=300), 5) == []


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"models": ("conv", "lstm")}, "--models"),
        ({"models": ("conv", "conv")}, "--models"),
        ({"hidden_units": (64, 0)}, "--hidden"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": -1}, "--batch-size"),
        ({"n_seeds": 0}, "--seeds"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**31}, "--seed"),
        ({"seed": 2**31 - 1, "n_seeds": 2}, "--seeds"),
        ({"epochs": 1, "grace_epochs": 5}, "--grace-epochs"),
        ({"n_search_trials": -2}, "--trials"),
        ({"n_search_trials": 5}, "--trials"),
        ({"time_budget_seconds": 0.0}, "--time-budget"),
        ({"time_budget_seconds": float("inf")}, "--time-budget"),
        ({"time_budget_seconds": float("nan")}, "--time-budget"),
        ({"objective": "time"}, "--objective"),
        ({"objective": "mse,time"}, "--scheduler none"),
        ({"objective": "mse,time", "scheduler": "none", "warm_start": "old"}, "--warm-start"),
    ],
)
def test_spec_refuses_and_names_the_option(wrong, option):
    with pytest.raises(SpecError, match=option):
        StudySpec(preset="test", **wrong)


def test_neighbours_change_one_factor_at_a_time():
    spec = StudySpec(preset="test", neighbours=True)
    trials = neighbour_trials(spec)
    assert len({trial.trial_id for trial in trials}) == len(trials)
    assert len({trial.config for trial in trials}) == len(trials)
    for trial in trials:
        reference = TrialConfig(model=trial.config.model, split="search").to_dict()
        changed = {k for k, v in trial.config.to_dict().items() if v != reference[k]}
        assert len(changed) == ("-reference-" not in trial.trial_id)
        assert all(name in trial.trial_id for name in changed)
    names = {trial.trial_id.split("=")[0] for trial in trials}
    assert "neighbour-conv-latent_filters" in names
    assert "neighbour-dense-hidden_activation" in names
    assert "neighbour-conv-nesterov" in names


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 50}, (20,)),
        ({"epochs": 50, "grace_epochs": 5}, (5, 15, 45)),
        ({"epochs": 3}, (1, 3)),
        ({"epochs": 9, "grace_epochs": 2, "reduction_factor": 2}, (2, 4, 8)),
        ({"epochs": 4, "scheduler": "median", "grace_epochs": 2}, (2, 3, 4)),
        ({"epochs": 50, "scheduler": "none"}, ()),
    ],
)
def test_rungs(settings, expected):
    assert StudySpec(preset="test", **settings).rungs == expected


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("model", schema.MODELS)
def test_samplers_are_seeded_and_stay_in_the_space(model, sampler):
    def points(seed):
        spec = StudySpec(preset="test", sampler=sampler, n_search_trials=20, seed=seed)
        study = optuna.create_study()
        for number in range(15):
            study.sampler = make_sampler(spec, model, number)
            study.tell(study.ask(dict(STANDARD.space_of(model).distributions)), float(number))
        return [trial.params for trial in study.trials]

    assert points(0) == points(0)
    assert points(0) != points(1)
    assert len({str(params) for params in points(0)}) == 15
    for params in points(0):
        search_config(model, params, STANDARD)


@pytest.mark.parametrize("model", schema.MODELS)
def test_a_grid_has_each_of_its_points_once_and_each_is_a_point_of_the_space(model):
    points = STANDARD.space_of(model).grid
    assert len({str(point) for point in points}) == len(points)
    for point in points:
        search_config(model, point, STANDARD)
        # Refuses a value that its distribution does not hold.
        optuna.create_trial(
            value=0.0, params=point, distributions=dict(STANDARD.space_of(model).distributions)
        )


def test_a_search_larger_than_its_grid_is_refused():
    """The convolutional model has the 300 points."""
    spec = StudySpec(preset="test", sampler="grid", n_search_trials=600)
    check_sampler(spec)
    with pytest.raises(SpecError, match="at most 600"):
        check_sampler(replace(spec, n_search_trials=602))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_spec_survives_json(preset):
    spec = PRESETS[preset]
    assert StudySpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_study_of_before_there_were_finalists_goes_on_without_and_prunes_as_it_did():
    older = StudySpec(preset="test", n_search_trials=6).to_dict()
    for name in (
        "n_finalists",
        "n_finalist_seeds",
        "question",
        "custom_models",
        "custom_trials",
        "spaces",
    ):
        del older[name]
    spec = StudySpec.from_dict(older)
    assert schema.FINALIST not in count_trials(spec)
    assert spec.rungs == (5, 15, 45)
    assert StudySpec.from_dict(older | {"grace_epochs": 7}).grace == 7


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({}, {}),
        ({"n_search_trials": 4}, {"n_search_trials": 6}),
        ({"n_seeds": 1}, {"n_seeds": 2}),
        ({"time_budget_seconds": 12.0}, {"time_budget_seconds": 200.0}),
        ({"time_budget_seconds": 12.0}, {}),
    ],
)
def test_what_a_resumed_study_may_raise(was, now):
    StudySpec(preset="test", **now).check_resumes(StudySpec(preset="test", **was))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ({"n_search_trials": 4}, {"n_search_trials": 2}, "n_search_trials 4 to 2"),
        ({"n_seeds": 2}, {}, "n_seeds 2 to 1"),
        ({}, {"time_budget_seconds": 200.0}, "time_budget_seconds None to 200.0"),
        ({"time_budget_seconds": 9.0}, {"time_budget_seconds": 8.0}, "seconds 9.0 to 8.0"),
        *(
            ({}, {name: value}, f"{name} ")
            for name, value in {
                "models": ("conv",),
                "hidden_units": (64,),
                "epochs": 7,
                "batch_size": 64,
                "seed": 1,
                "readings": True,
                "neighbours": True,
                "warm_start": "old",
                "sampler": "grid",
                "scheduler": "none",
                "grace_epochs": 1,
                "reduction_factor": 2,
                "eval_every": 2,
            }.items()
        ),
    ],
)
def test_what_would_change_trials_already_planned_is_refused_with_the_difference(was, now, told):
    earlier, spec = StudySpec(preset="test", **was), StudySpec(preset="test", **now)
    with pytest.raises(SpecError, match=told):
        spec.check_resumes(earlier)


def test_what_may_be_raised_only_adds_trials():
    spec = StudySpec(preset="test", n_search_trials=4, n_seeds=2, time_budget_seconds=9.0)
    more = replace(spec, n_search_trials=6, n_seeds=3, time_budget_seconds=10.0)
    more = replace(more, n_finalists=4, n_finalist_seeds=4)
    assert {name for name, value in spec.to_dict().items() if value != more.to_dict()[name]} == set(
        RAISABLE
    )
    before = {trial.trial_id: trial for trial in fixed_trials(spec)}
    after = {trial.trial_id: trial for trial in fixed_trials(more)}
    assert before.items() <= after.items()


def test_trials_are_counted_by_group():
    spec = StudySpec(preset="test", hidden_units=(64,), n_search_trials=6, n_seeds=3)
    counts = {schema.REFERENCE: 6, schema.SEARCH: 6, schema.FINALIST: 24, schema.WINNER: 6}
    assert count_trials(spec) == counts  # three settings and the reference, three seeds, two models
    assert count_trials(replace(spec, n_finalists=0)) == {
        group: n for group, n in counts.items() if group != schema.FINALIST
    }
    assert count_trials(replace(spec, n_search_trials=0)) == {schema.REFERENCE: 6}


def test_readings_are_every_combination_but_the_reference():
    spec = StudySpec(preset="test", readings=True, n_seeds=2)
    trials = reading_trials(spec)
    assert len({trial.trial_id for trial in trials}) == len(trials)
    configs = [trial.config for trial in trials]
    assert len(set(configs)) == len(configs)
    references = [trial.config for trial in reference_trials(spec)]
    assert not set(configs) & set(references)
    conv = {
        (c.batch_size, c.latent_filters) for c in configs + references if c.model == schema.CONV
    }
    assert conv == set(product((128, 256, 1000), (8, 16)))
    dense = {
        (c.batch_size, c.hidden_activation, c.hidden_units)
        for c in configs + references
        if c.model == schema.DENSE
    }
    assert dense == set(product((128, 256, 1000), ("relu", "sigmoid"), (64, 128, 256, 512)))
    assert len(configs) + len(references) == 2 * (6 + 24)
    assert {config.split for config in configs} == {schema.FULL_SPLIT}


def test_fixed_trials_go_seed_by_seed():
    trials = fixed_trials(StudySpec(preset="test", readings=True, neighbours=True, n_seeds=3))
    seeds = [trial.config.seed for trial in trials]
    assert seeds == sorted(seeds)
    assert {trial.group for trial in trials[: len(trials) // 3]} == {
        schema.REFERENCE,
        schema.READING,
        schema.NEIGHBOUR,
    }


def test_in_small_searches_the_sampler_has_a_say_before_optunas_ten_random_trials():
    startups = []
    for n_trials in (6, 100):
        spec = StudySpec(preset="test", models=("conv",), n_search_trials=n_trials)
        startups.append(make_sampler(spec, "conv", 0)._sampler._n_startup_trials)
    assert startups == [3, 10]
