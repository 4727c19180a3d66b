"""The fixed trials and the search space, and the names that both sides share."""

import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import optuna
import pytest
from optuna.search_space import IntersectionSearchSpace
from test_plan import Hand

from convae import config as convae_config
from convae.config import TrialConfig, hyperparameters_of
from study.folder import schema
from study.plan.sampler import make_sampler
from study.plan.space import space_from
from study.plan.spec import RAISABLE, SpecError, StudySpec
from study.plan.study_file import PRESETS, parse_study
from study.plan.trials import count_trials, first_points, fixed_trials, search_config

STANDARD = PRESETS["standard"]


def test_schema_names_what_convae_has():
    assert list(schema.CONFIG_COLUMNS) == [field.name for field in fields(TrialConfig)]
    assert convae_config.MODELS == schema.MODELS
    assert convae_config.SPLITS == (schema.FULL_SPLIT, schema.SEARCH_SPLIT)


@pytest.mark.parametrize("model", schema.MODELS)
def test_reference_and_neighbours_are_points_of_the_space(model):
    """Enqueued, they must come back as the neighbour trials, the reference first."""
    tables = tuple(table for table in PRESETS["full"].trial_tables if table.model == model)
    spec = StudySpec(preset="test", models=(model,), trial_tables=tables)
    points = first_points(model, spec, 100)
    study = optuna.create_study()
    found = []
    for params in points:
        study.enqueue_trial(params)
        assert study.ask(dict(STANDARD.space_of(model).distributions)).params == params
        found.append(search_config(model, params, spec))
    assert found[0] == TrialConfig(model=model, split="search")
    planned = [trial.config for trial in fixed_trials(spec) if trial.group == "neighbour"]
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
        assert 0 <= config.momentum <= 0.99
        assert spec.space_of(model).params_of(config) == pytest.approx(params)


def test_no_reference_point_outside_the_space():
    assert first_points("conv", StudySpec(preset="test", batch_size=300), 5) == []


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"models": ("conv", "conv")}, "--models"),
        ({"hidden_units": (64, 0)}, "--hidden"),
        ({"batch_size": -1}, "--batch-size"),
        ({"n_seeds": 0}, "--seeds"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**31}, "--seed"),
        ({"seed": 2**31 - 1, "n_seeds": 2}, "--seeds"),
        ({"grace_epochs": 0}, "--grace-epochs"),
        ({"reduction_factor": 1}, "--reduction-factor"),
        ({"n_search_trials": -2}, "--trials"),
        ({"time_budget_seconds": 0.0}, "--time-budget"),
        ({"time_budget_seconds": float("inf")}, "--time-budget"),
        ({"time_budget_seconds": float("nan")}, "--time-budget"),
        ({"objective": "time"}, "--objective"),
        ({"objective": "mse,time"}, "--scheduler none"),
    ],
)
def test_spec_refuses_and_names_the_option(wrong, option):
    with pytest.raises(SpecError, match=option):
        StudySpec(preset="test", **wrong)


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
def test_samplers_are_seeded_and_stay_in_the_space(monkeypatch, model, sampler):
    looked, look = [], IntersectionSearchSpace.calculate
    monkeypatch.setattr(
        IntersectionSearchSpace, "calculate", lambda *told: looked.append(1) or look(*told)
    )

    def points(seed, inferred=None):
        spec = StudySpec(preset="test", sampler=sampler, n_search_trials=20, seed=seed)
        study = optuna.create_study()
        for number in range(15):
            study.sampler = make_sampler(spec, model, number, inferred=inferred)
            study.tell(study.ask(dict(STANDARD.space_of(model).distributions)), float(number))
        return [trial.params for trial in study.trials]

    assert points(0) == points(0)
    # All trials are looked through until a first one is known, and then no more: the same points.
    looked.clear()
    assert points(0, {}) == points(0)
    assert len(looked) == (0 if sampler == "random" else 2 + 15)
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
        distributions = dict(STANDARD.space_of(model).distributions)
        # Refuses a value that its distribution does not hold.
        optuna.create_trial(value=0.0, params=point, distributions=distributions)


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_search_ends_with_its_space_and_tries_no_setting_twice(sampler):
    """The dense space has six settings, one of them the reference; conv has what is left."""
    table = {"hidden_units": [64, 512], "batch_size": [64, 128, 256]}
    parameters = hyperparameters_of(schema.DENSE)
    spec = StudySpec(
        preset="test",
        sampler=sampler,
        n_search_trials=24,
        epochs=1,
        n_finalists=0,
        spaces=(space_from(schema.DENSE, table, parameters),),
    )
    assert count_trials(spec)[schema.SEARCH] == 12 + 6
    planned = [p for p in Hand(spec).run() if p.group == schema.SEARCH]
    settings = Counter((p.config.model, p.setting) for p in planned)
    assert set(settings.values()) == {1}
    assert Counter(model for model, _ in settings) == {schema.CONV: 12, schema.DENSE: 6}


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
    more = replace(spec, n_search_trials=6, n_searches=2, n_seeds=3, time_budget_seconds=10.0)
    more = replace(more, n_finalists=4, n_finalist_seeds=4, trial_time_limit_seconds=9.0)
    raised = {name for name, value in spec.to_dict().items() if value != more.to_dict()[name]}
    assert raised == set(RAISABLE)
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


def test_in_small_searches_the_sampler_has_a_say_before_optunas_ten_random_trials():
    startups = []
    for n_trials in (6, 100):
        spec = StudySpec(preset="test", models=("conv",), n_search_trials=n_trials)
        startups.append(make_sampler(spec, "conv", 0)._sampler._n_startup_trials)
    assert startups == [3, 10]


def widened(spec, text):
    """The same study with a wider space."""
    models = "models = ['dense']\n"
    return replace(spec, spaces=parse_study(models + text, "w.toml", "w", Path()).spec.spaces)


NARROW = "[search.dense]\nlearning_rate = {low = 0.1, high = 1, scale = 'log'}\nbatch_size = "


def test_a_space_is_as_its_manifest_says_when_it_is_read_again():
    for model in convae_config.MODELS:
        space = StudySpec(preset="mine").space_of(model).to_dict()
        assert json.loads(json.dumps(space)) == space


@pytest.mark.parametrize(
    ("sizes", "refused"),
    [
        ("[32, 64, 128]", False),
        ("[64, 32]", True),  # without 128
        ("{low = 32, high = 256}", True),  # a range is no longer list
        ("[64, 128]\nnesterov = [true, false]", True),
    ],
)
def test_a_resumed_study_may_widen_its_space_but_never_narrow_it(sizes, refused):
    earlier = widened(StudySpec(preset="mine", models=("dense",)), NARROW + "[64, 128]")
    now = replace(widened(earlier, NARROW + sizes), preset="wider")
    if refused:
        with pytest.raises(SpecError, match=r"cannot change the study \(spaces\)"):
            now.check_resumes(earlier)
    else:
        now.check_resumes(earlier)
        with pytest.raises(SpecError, match="spaces"):
            replace(now, sampler="grid").check_resumes(replace(earlier, sampler="grid"))
        with pytest.raises(SpecError, match="spaces"):
            earlier.check_resumes(now)


def test_the_ends_of_a_range_may_move_outwards_alone():
    earlier = widened(StudySpec(preset="mine", models=("dense",)), NARROW + "[64, 128]")
    for low, high, scale, ok in (
        (0.1, 2, "log", True),
        (0.01, 1, "log", True),
        (0.2, 2, "log", False),
        (0.1, 2, "linear", False),
    ):
        ends = f"low = {low}, high = {high}, scale = '{scale}'"
        now = NARROW.replace("low = 0.1, high = 1, scale = 'log'", ends)
        space = widened(earlier, now + "[64, 128]").space_of("dense")
        assert space.covers(earlier.space_of("dense")) is ok
