"""TrialConfig: what it admits, what it refuses, and that it survives a round trip."""

import json

import pytest

from convae.config import ConfigError, TrialConfig


def test_defaults_are_the_reference_setting():
    conv = TrialConfig(model="conv")
    assert (conv.learning_rate, conv.momentum, conv.nesterov, conv.epochs) == (1.0, 0.5, True, 50)
    assert (conv.latent_filters, conv.hidden_units, conv.dropout) == (8, None, None)
    dense = TrialConfig(model="dense")
    assert (dense.hidden_units, dense.hidden_activation, dense.dropout) == (512, "relu", 0.0)
    assert dense.latent_filters is None


def test_round_trip_through_json():
    config = TrialConfig(model="dense", hidden_units=64, dropout=0.1, seed=7, split="search")
    assert TrialConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


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
        {"epochs": 0},
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
