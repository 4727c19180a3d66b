"""Which programs a study's engines get, from the plan alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from convae.config import BY_NAME, TrialConfig
from convae.custom_models import CustomModel
from convae.shapes import ProgramId, Size, program_of
from convae.sharing import GPU_LANES, DeviceSharing
from study.plan.lanes import (
    ModelLanes,
    lanes_of,
    programs_from_json,
    programs_to_json,
    shapes_of,
)
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
        # The winners come when all others have ended.
        ({"n_search_trials": 10, "n_finalists": 0}, {"conv": 5, "dense": 5}),
        ({"n_search_trials": 10, "n_seeds": 2, "n_finalists": 0}, {"conv": 6, "dense": 7}),
        # And so do two settings and the reference's, with three seeds.
        ({"n_search_trials": 4, "n_finalists": 4}, {"conv": 9, "dense": 9}),
    ],
)
def test_no_more_lanes_than_the_plan_has_trials_for_at_once(settings, expected):
    assert widths(replace(REFERENCE, **settings)) == expected
    assert widths(replace(REFERENCE, **settings), lanes=100, gpu=False) == expected


def test_a_cpu_has_lanes_only_if_they_are_asked_for():
    assert widths(SEARCH, gpu=False) == {"conv": 0, "dense": 0}
    assert widths(SEARCH, gpu=False, lanes=4) == {"conv": 4, "dense": 4}
    assert widths(SEARCH, lanes=4) == {"conv": 4, "dense": 4}


@pytest.mark.parametrize(("n_devices", "expected"), [(1, 16), (4, 13), (16, 4), (1000, 0)])
def test_devices_share_out_the_trials(n_devices, expected):
    """More GPUs gain nothing where the lanes of the first one hold all trials."""
    spec = replace(SEARCH, n_search_trials=100, n_seeds=2)
    assert widths(spec, n_devices=n_devices)["conv"] == expected
    assert widths(spec, n_devices=n_devices, lanes=8)["conv"] == 8


def test_a_gpu_has_more_places_than_lanes_where_the_trials_suffice():
    """Beyond them, places would keep trials from the lanes of the next GPU."""

    def places(n_devices, **settings):
        settings = {"lanes": None, "gpu": True, **settings}
        return lanes_of(SEARCH, n_devices=n_devices, **settings)["conv"].n_places

    assert places(1) == 24
    assert places(3) == 17  # of 50 trials
    assert places(10) == 5
    assert places(1, gpu=False, lanes=16) == 16


N_TRAIN = 60_000
CHUNKS = {"conv": 32, "dense": 128}  # of batches of 8 to 1,000


def test_trials_that_are_alone_have_programs_of_their_own_size():
    """Whatever the others need: on their times the comparison of training times rests."""
    lanes = lanes_of(replace(SEARCH, n_seeds=3), lanes=None, gpu=True)
    shapes = shapes_of(lanes, N_TRAIN)
    alone = {program.size: shape for program, shape in shapes.items() if program.size}
    assert set(alone) == {Size(n, 256, accumulates=False) for n in (8, 64, 512)}
    for size, shape in alone.items():
        assert (shape.width, shape.chunk_size, shape.accumulates, shape.drops) == size
        assert shape.n_lanes == 1
    shared = {model: shapes[ProgramId(model, single=False)] for model in ("conv", "dense")}
    assert {model: shape.chunk_size for model, shape in shared.items()} == CHUNKS
    assert shared["conv"].width == 16
    assert shared["dense"].drops
    assert not shared["conv"].drops
    for planned in fixed_trials(SEARCH):
        if planned.sharing is DeviceSharing.ALONE:
            program = program_of(planned.config, planned.sharing, shapes)
            assert program.size == Size.of_trial(planned.config)


def test_large_batches_alone_are_added_up_in_chunks():
    spec = replace(REFERENCE, batch_size=1000)
    for shape in shapes_of(lanes_of(spec, lanes=None, gpu=True), N_TRAIN).values():
        assert (shape.chunk_size, shape.accumulates) == (256, True)


def test_a_timed_search_has_a_program_for_each_size_that_it_lists():
    timed = replace(SEARCH, objective="mse,time", scheduler="none")
    lanes = lanes_of(timed, lanes=1, gpu=True)
    conv = lanes["conv"]
    assert {size.width for size in conv.alone} == set(conv.widths)
    assert {n for sizes in conv.alone.values() for n in sizes} == set(conv.batch_sizes)
    # Those without dropout do not pay for its random numbers.
    assert {size.drops for size in lanes["dense"].alone} == {False, True}
    assert {size.drops for size in conv.alone} == {False}


def test_a_trial_with_dropout_has_no_program_without():
    shared, alone = ProgramId("dense", single=False), Size.of(512, 256)
    plain = shapes_of(lanes_of(replace(REFERENCE, n_seeds=4), lanes=4, gpu=False), N_TRAIN)
    assert not any(shape.drops for shape in plain.values())
    dropping = TrialConfig(model="dense", dropout=0.1, batch_size=256)
    assert Size.of_trial(dropping) == alone._replace(drops=True)
    assert program_of(dropping, DeviceSharing.ALONE, plain) not in plain
    # Once the study may have such trials, the programs that it kept are not for them.
    searched = shapes_of(lanes_of(replace(SEARCH, n_seeds=4), lanes=4, gpu=False), N_TRAIN, plain)
    assert searched[shared].drops
    assert not searched[ProgramId("dense", single=True, size=alone)].drops


def test_a_program_keeps_its_shape_while_it_holds_the_studys_trials():
    first = shapes_of(lanes_of(replace(REFERENCE, n_seeds=4), lanes=4, gpu=False), N_TRAIN)
    kept = programs_from_json(json.loads(json.dumps(programs_to_json(first))))
    assert kept == first
    shared = ProgramId("dense", single=False)
    assert first[shared].chunk_size == 256
    # Batches of 64 would have chunks of 64, and those of 1,000 are not for a program without sums.
    for spec, holds in (
        (replace(REFERENCE, n_seeds=4, batch_size=64), True),
        (replace(REFERENCE, n_seeds=4, batch_size=1000), False),
        (replace(REFERENCE, n_seeds=4, hidden_units=(1024,)), False),
    ):
        lanes = lanes_of(spec, lanes=4, gpu=False)
        assert shapes_of(lanes, N_TRAIN)[shared] != first[shared]
        assert (shapes_of(lanes, N_TRAIN, kept)[shared] == first[shared]) is holds


def test_a_resumed_study_keeps_its_widths_whatever_it_is_asked_for_or_prolonged_to():
    kept = widths(replace(REFERENCE, n_seeds=2))
    more = replace(REFERENCE, n_seeds=20, n_search_trials=100)
    for settings in ({}, {"lanes": 8}, {"gpu": False}):
        assert widths(more, kept=kept, **settings) == kept


def test_what_is_alone_has_a_single_program_and_what_is_not_needs_none():
    spec = replace(REFERENCE, n_seeds=3)
    found = lanes_of(spec, lanes=4, gpu=False)
    assert not any(custom.single for custom in found.values())
    assert set(found["dense"].alone) == {Size.of(64, 256), Size.of(512, 256)}
    timed = replace(SEARCH, objective="mse,time", scheduler="none")
    for spec in (SEARCH, timed):  # one lane is the single program, and takes all trials
        for custom in lanes_of(spec, lanes=1, gpu=True).values():
            assert (custom.n_lanes, custom.single) == (0, True)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("lanes", [None, 1, 4])
def test_every_planned_trial_has_a_program_that_can_train_it(preset, lanes):
    spec = PRESETS[preset]
    shapes = shapes_of(lanes_of(spec, lanes=lanes, gpu=True), N_TRAIN)
    for planned in fixed_trials(spec):
        program = program_of(planned.config, planned.sharing, shapes)
        assert program.single or planned.sharing is DeviceSharing.LANES
        width = "hidden_units" if planned.config.model == "dense" else "latent_filters"
        config = planned.config
        drops = bool(config.dropout)
        assert shapes[program].holds(getattr(config, width), config.batch_size, drops=drops)


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
