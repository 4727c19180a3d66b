"""Labels: one a setting, readable, exact, the same in every group; and what a trial is beside."""

import pytest

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from study.folder import schema
from study.plan.labels import architecture_of, label_of
from study.plan.spec import StudySpec
from study.plan.trials import base_of, reference_config, setting_of

NET = CustomModel(
    name="net",
    function="build",
    files=(("net.py", ""),),
    defaults='{"activation": "relu", "depth": 2, "rate": 1.0, "skip": false}',
)
SPEC = StudySpec(
    preset="test",
    hidden_units=(64, 512),
    batch_size=128,
    models=("conv", "dense", "net"),
    custom_models=(NET,),
)


@pytest.mark.parametrize(
    ("model", "values", "label"),
    [
        ("conv", {}, "conv"),
        (
            "conv",
            {"latent_filters": 16, "batch_size": 256},
            "conv batch_size=256 latent_filters=16",
        ),
        ("conv", {"learning_rate": 0.1 + 0.2}, "conv learning_rate=0.30000000000000004"),
        ("conv", {"nesterov": False, "learning_rate": 2}, "conv learning_rate=2.0 nesterov=false"),
        ("dense", {}, "dense-512"),
        ("dense", {"hidden_units": 77, "dropout": 0.1}, "dense-77 dropout=0.1"),
        ("net", {"seed": 7, "split": "search", "epochs": 3}, "net"),
        ("net", {"depth": 3, "batch_size": 64}, "net depth=3 batch_size=64"),
        ("net", {"rate": 2, "skip": True}, "net rate=2.0 skip=true"),
        ("net", {"activation": "two words=1"}, 'net activation="two words=1"'),
    ],
)
def test_label(model: str, values: dict, label: str) -> None:
    config = reference_config(model, SPEC).with_values(values)
    assert setting_of(config, SPEC) == label
    assert setting_of(config.with_values({"seed": 9, "epochs": 1}), SPEC) == label


def test_a_study_without_the_reports_size_has_another_reference() -> None:
    spec = StudySpec(preset="test", hidden_units=(2, 3))
    assert architecture_of(reference_config("dense", spec)) == "dense-3"
    config = TrialConfig(model="dense", hidden_units=3)
    assert label_of(config, reference_config("dense", spec)) == "dense-3"


@pytest.mark.parametrize(
    ("group", "model", "values", "base"),
    [
        (schema.REFERENCE, "conv", {}, "dense-512"),
        (schema.REFERENCE, "net", {}, "dense-512"),
        (schema.REFERENCE, "dense", {"hidden_units": 64}, "dense-512"),
        (schema.REFERENCE, "dense", {}, ""),
        (schema.READING, "dense", {"hidden_units": 64, "dropout": 0.1}, "dense-64"),
        (schema.CUSTOM, "dense", {"hidden_units": 64, "dropout": 0.1}, "dense-64"),
        (schema.CUSTOM, "dense", {"hidden_units": 64}, "dense-512"),
        (schema.CUSTOM, "dense", {"hidden_units": 77, "dropout": 0.1}, "dense-512"),
        (schema.CUSTOM, "dense", {}, ""),
        (schema.CUSTOM, "net", {"depth": 3}, "net"),
        # These train beside the model's reference on other images than the reference trials.
        (schema.NEIGHBOUR, "dense", {"hidden_units": 64}, "dense-512"),
        (schema.SEARCH, "dense", {"hidden_units": 64, "dropout": 0.1}, "dense-512"),
        (schema.FINALIST, "conv", {"nesterov": False}, "conv"),
        (schema.WINNER, "conv", {}, ""),
    ],
)
def test_base(group: str, model: str, values: dict, base: str) -> None:
    config = reference_config(model, SPEC).with_values(values)
    assert base_of(group, config, SPEC) == base


def test_a_study_without_dense_judges_its_reference_beside_nothing() -> None:
    spec = StudySpec(preset="test", models=("conv",))
    assert base_of(schema.REFERENCE, reference_config("conv", spec), spec) == ""
