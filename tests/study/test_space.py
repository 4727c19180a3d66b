"""The fixed trials and the search space, and the names that both sides share."""

from dataclasses import fields
from itertools import product

import optuna
import pytest

from convae import config as convae_config
from convae.config import TrialConfig
from study.folder import schema
from study.presets import PRESETS, SpecError, StudySpec
from study.scheduling import check_sampler, make_sampler, rungs
from study.search import fixed_trials
from study.space import (
    SPACES,
    PlannedTrial,
    config_from_params,
    first_points,
    neighbour_trials,
    params_from_config,
    reading_trials,
    reference_trials,
)

STANDARD = PRESETS["standard"]


def test_schema_names_what_convae_has():
    assert list(schema.CONFIG_COLUMNS) == [field.name for field in fields(TrialConfig)]
    assert convae_config.MODELS == schema.MODELS
    assert convae_config.SPLITS == (schema.FULL_SPLIT, schema.SEARCH_SPLIT)
    assert set(schema.LATER_COLUMNS) <= set(schema.CONFIG_COLUMNS)
    assert schema.LATER_COLUMNS["precision"] == TrialConfig(model="conv").precision


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


def test_planned_trial_survives_tune():
    planned = reference_trials(STANDARD)[1]
    assert PlannedTrial.from_tune(planned.to_tune()) == planned


@pytest.mark.parametrize("model", schema.MODELS)
def test_reference_and_neighbours_are_points_of_the_space(model):
    """Enqueued, they must come back as the neighbour trials, the reference first."""
    spec = StudySpec(preset="test", models=(model,))
    points = first_points(model, spec, 100)
    study = optuna.create_study()
    found = []
    for params in points:
        study.enqueue_trial(params)
        trial = study.ask()
        SPACES[model](trial)
        assert trial.params == params
        found.append(config_from_params(model, params, epochs=50, split="search", seed=0))
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
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        SPACES[model](trial)
        config = config_from_params(model, trial.params, epochs=3, split="search", seed=1)
        assert config.model == model
        assert 0 <= config.momentum <= 0.95
        assert params_from_config(config) == pytest.approx(trial.params)


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
        ({"n_search_trials": -2}, "--trials"),
        ({"n_search_trials": 5}, "--trials"),
        ({"time_budget_seconds": 0.0}, "--time-budget"),
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
        ({"epochs": 50}, (5, 15, 45)),
        ({"epochs": 3}, (1, 3)),
        ({"epochs": 9, "grace_epochs": 2, "reduction_factor": 2}, (2, 4, 8)),
        ({"epochs": 4, "scheduler": "median", "grace_epochs": 2}, (2, 3, 4)),
        ({"epochs": 50, "scheduler": "none"}, ()),
    ],
)
def test_rungs(settings, expected):
    assert rungs(StudySpec(preset="test", **settings)) == expected


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("model", schema.MODELS)
def test_samplers_are_seeded_and_stay_in_the_space(model, sampler):
    spec = StudySpec(preset="test", sampler=sampler, n_search_trials=20)

    def points(seed):
        study = optuna.create_study(sampler=make_sampler(spec, model, seed))
        found = []
        for i in range(15):
            trial = study.ask()
            SPACES[model](trial)
            study.tell(trial, float(i))
            found.append(trial.params)
        return found

    assert points(0) == points(0)
    assert points(0) != points(1)
    for params in points(0):
        config_from_params(model, params, epochs=1, split="search", seed=0)


def test_a_grid_gives_each_of_its_points_once_and_no_more():
    """The 300 points of the convolutional model; Optuna's own grid would stop its study here."""
    spec = StudySpec(preset="test", models=("conv",), sampler="grid", n_search_trials=300)
    check_sampler(spec)
    study = optuna.create_study(sampler=make_sampler(spec, "conv", 0))
    found = set()
    for i in range(spec.share):
        trial = study.ask()
        SPACES["conv"](trial)
        study.tell(trial, float(i))
        found.add(tuple(sorted(trial.params.items())))
    assert len(found) == spec.share
    with pytest.raises(SpecError, match="at most 600"):
        check_sampler(StudySpec(preset="test", sampler="grid", n_search_trials=602))


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
