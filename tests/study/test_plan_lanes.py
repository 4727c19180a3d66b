"""Which programs a study's engines get, from the plan alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from convae.config import BY_NAME
from convae.custom_models import CustomModel
from convae.sharing import GPU_LANES, DeviceSharing
from study.plan.lanes import ModelLanes, lanes_of
from study.plan.spec import StudySpec
from study.plan.study_file import PRESETS, parse_study
from study.plan.trials import fixed_trials

REFERENCE = StudySpec(preset="test", hidden_units=(64, 512), batch_size=256)
SEARCH = replace(REFERENCE, n_search_trials=100, n_finalists=0)


def widths(spec, **settings):
    settings = {"lanes": None, "gpu": True, **settings}
    return {model: custom.n_lanes for model, custom in lanes_of(spec, **settings).items()}


@pytest.mark.parametrize("preset", ["audit", "full"])
def test_a_gpu_has_the_lanes_of_the_rule_where_the_plan_can_fill_them(preset):
    assert widths(PRESETS[preset]) == GPU_LANES


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"conv": 0, "dense": 0}),  # the reference trials of the first seed are alone
        ({"n_seeds": 2}, {"conv": 0, "dense": 2}),  # one lane needs no program beside the single
        ({"n_seeds": 4}, {"conv": 3, "dense": 6}),
        ({"n_seeds": 4, "models": ("conv",)}, {"conv": 3}),
        # The winners of a seed come last.
        ({"n_search_trials": 10, "n_finalists": 0}, {"conv": 5, "dense": 5}),
        ({"n_search_trials": 10, "n_seeds": 2, "n_finalists": 0}, {"conv": 8, "dense": 9}),
        # Two settings and the reference's, with three seeds.
        ({"n_search_trials": 4, "n_finalists": 4}, {"conv": 11, "dense": 11}),
    ],
)
def test_no_more_lanes_than_the_plan_has_trials_for(settings, expected):
    assert widths(replace(REFERENCE, **settings)) == expected
    assert widths(replace(REFERENCE, **settings), lanes=100, gpu=False) == expected


def test_a_cpu_has_lanes_only_if_they_are_asked_for():
    assert widths(SEARCH, gpu=False) == {"conv": 0, "dense": 0}
    assert widths(SEARCH, gpu=False, lanes=4) == {"conv": 4, "dense": 4}
    assert widths(SEARCH, lanes=4) == {"conv": 4, "dense": 4}


def test_one_lane_is_the_single_program_and_takes_all_trials():
    for custom in lanes_of(SEARCH, lanes=1, gpu=True).values():
        assert (custom.n_lanes, custom.single) == (0, True)
        assert {custom.sharing(place) for place in DeviceSharing} == {
            DeviceSharing.SINGLE,
            DeviceSharing.ALONE,
        }


def test_lanes_take_the_trials_that_may_share():
    custom = ModelLanes(4, single=True, widths=(64,), batch_sizes=(64,))
    assert [custom.sharing(place) for place in DeviceSharing] == list(DeviceSharing)


def test_a_resumed_study_keeps_its_widths_whatever_it_is_asked_for_or_prolonged_to():
    kept = widths(replace(REFERENCE, n_seeds=2))
    more = replace(REFERENCE, n_seeds=20, n_search_trials=100)
    for settings in ({}, {"lanes": 8}, {"gpu": False}):
        assert widths(more, kept=kept, **settings) == kept


def test_what_is_alone_has_a_single_program_and_what_is_not_needs_none():
    spec = replace(REFERENCE, n_seeds=3)
    assert all(custom.single for custom in lanes_of(spec, lanes=4, gpu=False).values())
    timed = replace(SEARCH, objective="mse,time", scheduler="none")
    for custom in lanes_of(timed, lanes=1, gpu=True).values():
        assert (custom.n_lanes, custom.single) == (0, True)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("lanes", [None, 1, 4])
def test_every_planned_trial_has_a_program_that_can_train_it(preset, lanes):
    spec = PRESETS[preset]
    programs = lanes_of(spec, lanes=lanes, gpu=True)
    for planned in fixed_trials(spec):
        custom = programs[planned.config.model]
        place = custom.sharing(planned.sharing)
        assert custom.n_lanes if place is DeviceSharing.LANES else custom.single
        width = "hidden_units" if planned.config.model == "dense" else "latent_filters"
        assert getattr(planned.config, width) in custom.widths
        assert planned.config.batch_size in custom.batch_sizes


def test_widths_and_batch_sizes_are_those_that_may_occur_and_no_more():
    fixed, searched = (lanes_of(spec, lanes=4, gpu=False) for spec in (REFERENCE, SEARCH))
    assert fixed["dense"].widths == (64, 512)
    assert fixed["dense"].batch_sizes == fixed["conv"].batch_sizes == (256,)
    for model, width in (("dense", "hidden_units"), ("conv", "latent_filters")):
        assert set(searched[model].widths) >= set(BY_NAME[width].search.grid)
        assert set(searched[model].batch_sizes) >= set(BY_NAME["batch_size"].search.grid)


def test_programs_are_as_wide_as_a_custom_space_and_trials_need_and_custom_models_have_none():
    text = "hidden = [64]\ntrials = 4\n[search.dense]\nhidden_units = {low = 1, high = 99}\n"
    text += "batch_size = [32, 48]\n[[trial]]\nmodel = 'conv'\nlatent_filters = 20"
    spec = parse_study(text, "my.toml", "my", Path()).spec
    found = lanes_of(spec, lanes=4, gpu=False)
    assert found["dense"].widths == (1, 64, 99)  # the reference setting has 64
    assert found["dense"].batch_sizes == (32, 48, 256)
    assert max(found["conv"].widths) == 20
    custom = CustomModel(name="mine", function="build", files=(("m.py", ""),), defaults="{}")
    mine = replace(spec, models=(*spec.models, "mine"), n_search_trials=6, custom_models=(custom,))
    assert lanes_of(mine, lanes=4, gpu=False)["mine"] == ModelLanes(0, True, (), ())
