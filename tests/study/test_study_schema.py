"""The schema of a study file: up to date, holds what runs, and refuses what the study refuses."""

import json
import math
import tomllib
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import tomlkit
from test_study_file import MISTAKES

from convae.config import HYPERPARAMETERS
from study.plan.papers import CLAIM_KEYS, PAPER_KEYS
from study.plan.space import LIMIT
from study.plan.spec import SpecError, spec_options
from study.plan.study_file import PRESETS, SCHEMA, key_of, parse_study, to_toml
from study.plan.study_schema import schema_text
from study.plan.trial_tables import KEYS

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "examples").glob("*.toml"), *(ROOT / "study" / "presets").glob("*.toml")]
VALIDATOR = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text()))


def as_json(value):
    """Of what TOML holds; a number that JSON lacks is null there, as editors have it."""
    if isinstance(value, dict):
        return {key: as_json(part) for key, part in value.items()}
    if isinstance(value, list):
        return [as_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fits(text):
    return VALIDATOR.is_valid(as_json(tomllib.loads(text)))


def refusal(text):
    """The sentence by which the program refuses a study, or None."""
    try:
        parse_study(text, "my.toml", "my", Path())
    except SpecError as error:
        return str(error)
    return None


def test_the_file_is_what_the_tables_say():
    VALIDATOR.check_schema(VALIDATOR.schema)
    assert SCHEMA.read_text() == schema_text(), "run python -m study.plan.study_schema"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_examples_and_presets_fit(file):
    assert fits(file.read_text())
    if file.parent.name == "examples":
        line = file.read_text().splitlines()[0]
        assert (file.parent / line.removeprefix("#:schema ")).samefile(str(SCHEMA))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_printed_study_fits_and_names_the_schema(preset):
    text = to_toml(PRESETS[preset])
    assert fits(text)
    assert text.startswith(f"#:schema {SCHEMA.as_uri()}\n")


@pytest.mark.parametrize(
    "text",
    [
        "[[trial]]\nmodel = 'mine'\nwords = ['a', 'b']\nlearning_rate = 1\nseeds = 2",
        "[model.mine]\nbuild = 'folder/file.py:build'\n[search.mine]\nwidth = {low = 1, high = 2}",
        "[search.conv]\none_minus_momentum = {low = 0.1, high = 1, scale = 'log'}",
        "[search.conv]\nmomentum = {low = 0, high = 0.9, grid = [0.5]}\nmax_parameters = 5000",
    ],
)
def test_what_a_custom_study_says_fits(text):
    assert fits(text)


# Beside those that have a sentence in test_study_file, and those that `files` makes.
MORE_MISTAKES = [
    "hidden = []",
    "hidden = [64, 64]",
    "[[trial]]\nmodel = 'u-net'",
    "[[trial]]\nmodel = 'dense'\nlatent_filters = 1",
    "[[trial]]\nmodel = 'conv'\nlearning_rate = [1, 1.0]",
    "[search.conv]\nhidden_units = [1, 2]",
    "[model.unet]\nbuild = 1",
    "[model.unet]\nbuild = 'unet'",
    "[model.unet]\nbuild = 'a.py:f'\ndepth = 1",
]


@pytest.mark.parametrize("text", [*(text for text, _ in MISTAKES), *MORE_MISTAKES])
def test_both_refuse_a_mistake(text):
    assert refusal(text)
    assert not fits(text)


# Around the limits of all that there is.
NUMBERS = [-1, 0, 0.0, 1e-10, 0.5, 1, 1.0, 1.5, 2, 1000, 1001, 10**5, 10**5 + 1, 2**31 - 1, 2**31]
WORDS = ["", "x", "relu", "asha", "tpe", "mse", "log", "full", "custom", "each", "conv", "dense"]
ONES = [*NUMBERS, math.inf, math.nan, True, *WORDS]
VALUES = [*ONES, *([one] for one in ONES), [], [1, 2], [1, 1.0], [0.5, "x"], ["x", "x"], [[1]], {}]
RANGES = [{"low": low, "high": high} for low in ONES for high in (0.5, 2)]
KEYED = [("grid", one) for one in VALUES] + [("scale", one) for one in WORDS] + [("x", 1)]
RANGES += [{"low": 0.25, "high": 0.5, key: one} for key, one in KEYED]
HYPERPARAMETER_NAMES = {name for p in HYPERPARAMETERS for name in (p.name, p.parameter)}
OPTIONS = [key_of(option) for option in spec_options()]


def files():
    """Studies that say one thing."""
    for key, value in product((*OPTIONS, "question", "data", "x"), VALUES):
        yield {key: value}
    for key, value in product((*KEYS, *HYPERPARAMETER_NAMES, "x"), VALUES):
        yield {"trial": [{"model": "dense", key: value}]}
    for key, value in product((*CLAIM_KEYS, "x"), VALUES):
        yield {"claim": [{"says": "x", key: value}]}
    for key, value in product((*PAPER_KEYS, "x"), VALUES):
        yield {"paper": {key: value}}
    for key, value in product((*HYPERPARAMETER_NAMES, "x"), VALUES):
        yield {"open": {"dense": {key: value}}}
    for key, value in product((*HYPERPARAMETER_NAMES, LIMIT), VALUES + RANGES):
        yield {"search": {"dense": {"batch_size": [1, 2], "nesterov": [True, False], key: value}}}


def test_the_schema_refuses_only_what_the_program_does_and_all_that_is_wrong_by_itself():
    n_refused = 0
    for file in files():
        text = tomlkit.dumps(file)
        told = refusal(text)
        if told is None:
            assert fits(text), text
        # The names of models, and whatever depends on another key, the program alone can judge.
        elif "but takes" in told and " models has " not in told and " has the model " not in told:
            assert not fits(text), told
            n_refused += 1
    assert n_refused > 1000
