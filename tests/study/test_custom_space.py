"""The space of a custom model: its builder's arguments, and a limit on parameters."""

import json
from dataclasses import replace

import pytest
from test_plan import Hand

from convae.config import Choices, Range
from convae.custom_models import CustomModel
from study.folder import schema
from study.folder.records import from_json
from study.plan import sampler, study_file
from study.plan.space import Space, space_from
from study.plan.spec import SpecError, StudySpec, hyperparameters
from study.plan.trial_tables import TrialTable

DEFAULTS = {"width": 8, "depth": 2, "rate": 0.5, "norm": False, "kind": "relu"}
OWN = CustomModel(
    name="mine", function="build", files=(("mine.py", ""),), defaults=json.dumps(DEFAULTS)
)
MINE = {"models": ("mine",), "custom_models": (OWN,)}
PARAMETERS = hyperparameters("mine", (OWN,))


def size(setting):
    return setting["width"] * 10 ** setting["depth"]


def space(limit=None, size=size, **table):
    """As its table in a study file would be read."""
    limits = {} if limit is None else {"max_parameters": limit}
    return space_from("mine", {**table, **limits}, PARAMETERS, lambda found: list(map(size, found)))


def test_arguments_come_first_and_have_the_kinds_of_their_defaults():
    assert [p.name for p in PARAMETERS[:5]] == list(DEFAULTS)
    of_training = {"batch_size", "learning_rate", "momentum", "nesterov"}
    assert {p.name for p in PARAMETERS[5:]} == of_training
    valid = {"width": [4, -1], "depth": [1], "rate": [0.1, 1], "norm": [True], "kind": ["x"]}
    invalid = {
        "width": (4.5, "a whole number"),
        "depth": (True, "a whole number"),
        "rate": (float("nan"), "a finite number"),
        "norm": (1, "true or false"),
        "kind": (1, "a text"),
    }
    by_name = {p.name: p for p in PARAMETERS}
    for name, values in valid.items():
        assert all(map(by_name[name].admits, values))
    for name, (value, takes) in invalid.items():
        with pytest.raises(SpecError, match=rf"{name} is .*, but takes {takes}"):
            space(**{name: [DEFAULTS[name], value]})


def test_a_limit_takes_what_is_too_large_whatever_the_others_are():
    found = space(
        4_000, width=[4, 40, 400, 4_000], depth={"low": 1, "high": 5, "grid": [1, 3, 5]}, rate=0.1
    )
    assert dict(found.searched) == {
        "width": Choices((4, 40, 400)),
        "depth": Range(1, 3, (1, 3), log=False, whole=True),
    }
    assert dict(found.fixed) == {"rate": 0.1, "norm": False, "kind": "relu"}
    assert found.ends_of("depth") == (1, 3)
    assert found.ends_of("rate") == (0.1,)
    assert found.ends_of("batch_size") == ()
    small = {(4, 1), (4, 2), (4, 3), (40, 1), (40, 2), (400, 1)}
    assert found.n_points == len(small)
    points = [found.point(found.any_point({}, n)) for n in range(12)]
    assert set(points) == small
    assert found.point(found.any_point({}, 7, small - {(40, 2)})) == (40, 2)
    assert {(point["width"], point["depth"]) for point in found.grid} == small - {(4, 2), (40, 2)}
    again = space_from("mine", found.to_table(), PARAMETERS, lambda of: list(map(size, of)))
    assert replace(again, sizes=found.sizes) == found  # which counts what is left
    assert from_json(Space, json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("limit", "table", "told"),
    [
        (9, {"width": [4, 8]}, "max_parameters is 9, but its smallest setting has 400"),
        (9, {"rate": {"low": 0.1, "high": 1}}, "rate is a range of fractions, whose sizes max_"),
        (9, {"width": {"low": 1, "high": 201}}, "needs the sizes of 201 settings, but counts at"),
        (True, {"width": [4, 8]}, "max_parameters is True, but takes a whole number from 1"),
        (None, {"width": {"low": 1, "high": 9, "grid": 3}}, "grid is 3, but takes a list"),
        (None, {"kind": {"low": 1, "high": 9}}, "kind is a range, but takes a list or a text"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_a_sentence(limit, table, told):
    with pytest.raises(SpecError, match=told):
        space(limit, **table)


@pytest.mark.parametrize(("name", "n_proposals"), [("tpe", 3), ("random", 3), ("random", 200)])
def test_a_search_proposes_nothing_above_its_limit(name, n_proposals, monkeypatch):
    """Four pairs of 124 are small enough: of a few proposals seldom one is."""
    monkeypatch.setattr(sampler, "MOST_PROPOSALS", n_proposals)
    limited = {"width": {"low": 1, "high": 40}, "depth": {"low": 1, "high": 4}}
    found = space(1, lambda setting: 1 + abs(setting["width"] - 10 * setting["depth"]), **limited)
    assert dict(found.searched)["width"] == Range(10, 40, log=False, whole=True)
    found = replace(found, searched=(*found.searched, ("learning_rate", Range(0.1, 1.0))))
    settings = {"sampler": name, "n_search_trials": 40, "epochs": 1, "n_finalists": 0}
    spec = StudySpec(preset="test", spaces=(found,), **MINE, **settings)
    searched = [p.config for p in Hand(spec).run() if p.group == schema.SEARCH]
    assert len(searched) == 40
    pairs = {(config.keywords["width"], config.keywords["depth"]) for config in searched}
    assert pairs == {(10, 1), (20, 2), (30, 3), (40, 4)}
    assert len({config.learning_rate for config in searched}) > 30
    assert {config.keywords["rate"] for config in searched} == {0.5}


def test_a_point_of_another_version_of_the_builder_lies_outside():
    spec = StudySpec(preset="test", spaces=(space(width=[4, 8]),), **MINE)
    (reference, *_) = [p.config for p in Hand(spec).run() if p.group == schema.REFERENCE]
    custom = spec.space_of("mine")
    assert custom.holds(reference, reference)
    older = type(reference).from_dict({**reference.to_dict(), "arguments": '{"width": 8}'})
    assert not custom.holds(older, reference)


def test_a_builder_is_tried_with_what_the_study_will_ask_of_it(monkeypatch):
    tried = []
    monkeypatch.setattr(study_file, "count_parameters", lambda _, settings: tried.extend(settings))
    table = {"width": {"low": 2, "high": 9}, "depth": [1, 3], "kind": "x"}
    custom = TrialTable(model="mine", values=(("width", (7,)),))
    for limit, searched in ((None, [(2, 2), (9, 2), (8, 1), (8, 3)]), (10**9, [])):
        tried.clear()
        spaces = (space(limit, **table),)
        study_file.check_builders(
            StudySpec(preset="test", spaces=spaces, trial_tables=(custom,), **MINE)
        )
        pairs = [(one["width"], one["depth"]) for one in tried if one["kind"] == "x"]
        assert sorted(set(pairs) - {(8, 2)}) == sorted(searched)
        assert [one["kind"] for one in tried if one["width"] == 7] == ["relu"]
