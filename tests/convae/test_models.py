"""The two architectures as REFERENCE.md reads them: sizes, shapes and range."""

import keras
import numpy as np
import pytest

from convae.config import TrialConfig
from convae.models import LATENT, build_conv_autoencoder, build_dense_autoencoder, build_model


@pytest.fixture
def images():
    return np.random.default_rng(0).random((3, 28, 28, 1), dtype=np.float32)


def test_parameter_counts():
    assert build_conv_autoencoder().count_params() == 4385
    assert build_dense_autoencoder().count_params() == 804_112


@pytest.mark.parametrize("filters", [8, 16])
def test_conv_latent_shape(filters):
    model = build_conv_autoencoder(filters)
    assert model.get_layer(LATENT).output.shape == (None, 4, 4, filters)


def test_conv_layers_are_the_reports():
    layers = build_conv_autoencoder().layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [16, 8, 8, 8, 8, 16, 1]
    assert [layer.padding for layer in convolutions] == ["same"] * 5 + ["valid", "same"]
    assert [layer.activation.__name__ for layer in convolutions] == ["relu"] * 6 + ["sigmoid"]


@pytest.mark.parametrize("build", [build_conv_autoencoder, build_dense_autoencoder])
def test_output_shape_and_range(build, images):
    output = build()(images).numpy()
    assert output.shape == images.shape
    assert output.min() > 0
    assert output.max() < 1


def test_dropout_acts_in_training_only(images):
    model = build_dense_autoencoder(hidden_units=64, dropout=0.5)
    still = model(images, training=False).numpy()
    np.testing.assert_array_equal(still, model(images, training=False).numpy())
    assert np.abs(still - model(images, training=True).numpy()).max() > 1e-3


def test_build_model_follows_the_config():
    model = build_model(TrialConfig(model="dense", hidden_units=64, hidden_activation="sigmoid"))
    assert model.get_layer(LATENT).output.shape == (None, 64)
    assert model.get_layer(LATENT).activation.__name__ == "sigmoid"
    conv = build_model(TrialConfig(model="conv", latent_filters=16))
    assert conv.get_layer(LATENT).output.shape == (None, 4, 4, 16)
