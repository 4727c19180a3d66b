"""The table of hyperparameters, and trials: what is admitted and refused, there and back."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convae.config import (
    HYPERPARAMETERS,
    MODELS,
    N_SEEDS,
    SPLITS,
    ConfigError,
    Range,
    TrialConfig,
    as_arguments,
    hyperparameters_of,
    n_parameters,
)
from convae.models import build_model
from study.plan.space import built_in
from study.plan.spec import StudySpec
from study.plan.trials import search_config

VALUES = {
    "int": st.integers(1, 5000),
    "float": st.floats(0, 10) | st.sampled_from([0.05, 0.95, 0.1, 1e-300]),
    "bool": st.booleans(),
    "text": st.sampled_from(["relu", "sigmoid"]),
}
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text()


@st.composite
def configs(draw, models=(*MODELS, "mine")):
    model = draw(st.sampled_from(models))
    fields = {p.name: draw(VALUES[p.kind].filter(p.admits)) for p in hyperparameters_of(model)}
    if model not in MODELS:
        names = st.text(min_size=1, max_size=5)
        fields["arguments"] = as_arguments(draw(st.dictionaries(names, plain, max_size=3)))
    return TrialConfig(
        model=model,
        epochs=draw(st.integers(1, 1000)),
        split=draw(st.sampled_from(SPLITS)),
        seed=draw(st.integers(0, N_SEEDS - 1)),
        **fields,
    )


@settings(deadline=None, max_examples=200)
@given(config=configs())
def test_a_trial_survives_json_and_setting_its_own_values(config):
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    names = [*config.keywords, *(p.name for p in hyperparameters_of(config.model))]
    assert config.with_values({name: config.value(name) for name in names}) == config


@settings(deadline=None, max_examples=200)
@given(config=configs(MODELS))
def test_a_trial_and_its_point_of_the_space_are_each_others_inverse(config):
    assume(config.momentum < 1 - 1e-9)  # rounded, it would be 1, which is no momentum
    space = built_in(config.model)
    again = config.with_values(space.values_of(space.params_of(config)))
    for p in hyperparameters_of(config.model):
        value = config.value(p.name)
        # A complement is rounded, so that 1 − 0.95 is 0.05.
        assert again.value(p.name) == (round(value, 12) if p.complement else value)
    assert space.params_of(again) == space.params_of(config)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), model=st.sampled_from(MODELS))
def test_every_point_of_the_space_is_a_trial_of_it(data, model):
    space = built_in(model)
    point = {
        name: data.draw(
            st.floats(how.low, how.high) if isinstance(how, Range) else st.sampled_from(how.grid)
        )
        for name, how in space.searched
    }
    point = {name: space.rounded(name, value) for name, value in point.items()}
    config = search_config(model, point, StudySpec(preset="test"))
    assert space.params_of(config) == point
    assert space.holds(config, search_config(model, space.grid[0], StudySpec(preset="test")))


@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 300))
def test_parameters_are_counted_as_keras_does(size):
    for config in (
        TrialConfig(model="conv", latent_filters=size),
        TrialConfig(model="dense", hidden_units=size),
    ):
        assert n_parameters(config) == build_model(config).count_params()


def test_each_hyperparameter_admits_what_it_says_of_itself():
    for p in HYPERPARAMETERS:
        grid = p.search.grid
        plain_grid = [p.from_parameter(value) for value in grid] if p.complement else grid
        for value in (p.default, *p.neighbours, *plain_grid):
            assert p.admits(value), (p.name, value)
        for value in (None, [], {}, "nonsense", float("nan")):
            assert not p.admits(value), (p.name, value)


def test_defaults_are_the_reference_setting():
    conv = TrialConfig(model="conv")
    assert (conv.learning_rate, conv.momentum, conv.nesterov, conv.epochs) == (1.0, 0.5, True, 50)
    assert (conv.latent_filters, conv.hidden_units, conv.dropout) == (8, None, None)
    dense = TrialConfig(model="dense")
    assert (dense.hidden_units, dense.hidden_activation, dense.dropout) == (512, "relu", 0.0)
    assert dense.latent_filters is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "resnet"},
        {"model": "conv", "hidden_units": 64},
        {"model": "dense", "latent_filters": 8},
        {"model": "dense", "hidden_activation": "tanh"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"model": "dense", "dropout": 1.0},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": 2**31},
        {"latent_filters": 2**31},
        {"learning_rate": 10**400},
        {"epochs": 0},
        {"epochs": 2**31},
        {"epochs": True},
        {"seed": -1},
        {"seed": 2**31},
        {"split": "test"},
        {"nesterov": 1},
        {"colour": "red"},
    ],
)
def test_refuses_and_names_the_field(wrong):
    name = list(wrong)[-1]
    with pytest.raises(ConfigError, match=name):
        TrialConfig.from_dict({"model": "conv", **wrong})


def test_model_is_required():
    with pytest.raises(ConfigError, match="model"):
        TrialConfig.from_dict({})


def test_architecture_ignores_what_does_not_shape_the_graph():
    one = TrialConfig(model="conv", learning_rate=0.1, momentum=0.9, nesterov=False, seed=3)
    assert one.architecture == TrialConfig(model="conv").architecture
    assert one.architecture != TrialConfig(model="conv", latent_filters=16).architecture
