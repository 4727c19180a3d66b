"""The fixed trials of every preset and option in their order, and the labels of any trial."""

from dataclasses import replace
from itertools import groupby

import pytest

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from convae.sharing import DeviceSharing
from study.folder import schema
from study.plan.labels import LONGEST_NAME, architecture_of, file_name_of, label_of
from study.plan.spec import StudySpec
from study.plan.study_file import PRESETS
from study.plan.trial_tables import TrialTable
from study.plan.trials import base_of, fixed_trials, reference_config, setting_of

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
        ("conv", {"latent_filters": 9, "batch_size": 256}, "conv batch_size=256 latent_filters=9"),
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


# What was planned when each kind of trial had a function: labels, in the order of their start.
REFERENCE = "conv, dense-512, dense-256, dense-128, dense-64"
CONV_READINGS = """
conv batch_size=128, conv batch_size=128 latent_filters=16, conv latent_filters=16,
conv batch_size=1000, conv batch_size=1000 latent_filters=16,
"""
DENSE_READINGS = """
dense-{0} batch_size=128, dense-{0} batch_size=128 hidden_activation=sigmoid,
dense-{0} hidden_activation=sigmoid,
dense-{0} batch_size=1000, dense-{0} batch_size=1000 hidden_activation=sigmoid,
"""
READINGS = CONV_READINGS + "".join(map(DENSE_READINGS.format, (512, 256, 128, 64)))
CONV_NEIGHBOURS = """
conv, conv batch_size=64, conv batch_size=128, conv batch_size=512, conv batch_size=1000,
conv latent_filters=16, conv learning_rate=2.0, conv learning_rate=0.5, conv learning_rate=4.0,
conv learning_rate=0.25, conv momentum=0.9, conv momentum=0.0, conv nesterov=false,
"""
DENSE_NEIGHBOURS = """
dense-512, dense-512 batch_size=64, dense-512 batch_size=128, dense-512 batch_size=512,
dense-512 batch_size=1000, dense-512 hidden_activation=sigmoid, dense-512 dropout=0.1,
dense-64, dense-128, dense-256,
dense-512 learning_rate=2.0, dense-512 learning_rate=0.5, dense-512 learning_rate=4.0,
dense-512 learning_rate=0.25, dense-512 momentum=0.9, dense-512 momentum=0.0,
dense-512 nesterov=false,
"""
NEIGHBOURS = CONV_NEIGHBOURS + DENSE_NEIGHBOURS
STEPS = TrialTable(model="conv", values=(("learning_rate", (0.25, 0.5)), ("nesterov", (False,))))
OWN_READINGS = replace(STEPS, group=schema.READING)


@pytest.mark.parametrize(
    ("preset", "changes", "expected"),
    [
        ("reference", {}, {schema.REFERENCE: REFERENCE}),
        ("standard", {}, {schema.REFERENCE: REFERENCE}),
        ("quick", {}, {schema.REFERENCE: "conv, dense-512"}),
        ("audit", {}, {schema.REFERENCE: REFERENCE, schema.READING: READINGS}),
        ("full", {}, {schema.REFERENCE: REFERENCE, schema.NEIGHBOUR: NEIGHBOURS}),
        ("full", {"trial_tables": ()}, {schema.REFERENCE: REFERENCE}),
        ("audit", {"models": ("conv",)}, {schema.REFERENCE: "conv", schema.READING: CONV_READINGS}),
        (
            "full",
            {"models": ("dense", "conv"), "hidden_units": (2, 512)},
            {
                schema.REFERENCE: "conv, dense-512, dense-2",
                schema.NEIGHBOUR: NEIGHBOURS,
            },
        ),
        (
            "audit",
            {"models": ("dense",), "hidden_units": (2, 3), "trial_tables": (STEPS, STEPS)},
            {
                schema.REFERENCE: "dense-3, dense-2",
                schema.READING: DENSE_READINGS.format(3) + DENSE_READINGS.format(2),
                schema.CUSTOM: "conv learning_rate=0.25 nesterov=false,"
                " conv learning_rate=0.5 nesterov=false",
            },
        ),
        (
            "audit",
            {"models": ("net", "dense"), "custom_models": (NET,), "hidden_units": (512,)},
            {schema.REFERENCE: "net, dense-512", schema.READING: DENSE_READINGS.format(512)},
        ),
        (  # a table of the file's in place of what the option stands for
            "audit",
            {"trial_tables": (OWN_READINGS,), "hidden_units": (512,)},
            {
                schema.REFERENCE: "conv, dense-512",
                schema.READING: DENSE_READINGS.format(512)
                + "conv learning_rate=0.25 nesterov=false, conv learning_rate=0.5 nesterov=false",
            },
        ),
    ],
)
def test_fixed_trials(preset, changes, expected):
    """The same with each seed, seed by seed, and the first seed's reference trials first."""
    spec = replace(PRESETS[preset], n_search_trials=0, **changes)
    planned = fixed_trials(spec)
    assert len({trial.trial_id for trial in planned}) == len(planned)
    seeds = [list(trials) for _, trials in groupby(planned, lambda trial: trial.config.seed)]
    assert [trials[0].config.seed for trials in seeds] == list(spec.seeds)
    for seed, trials in zip(spec.seeds, seeds, strict=True):
        found = {g: [t.setting for t in of] for g, of in groupby(trials, lambda t: t.group)}
        assert found == {
            group: [label.strip() for label in labels.split(",") if label.strip()]
            for group, labels in expected.items()
        }
        for trial in trials:
            config = trial.config
            is_first = seed == spec.seed
            assert config.epochs == spec.epochs
            assert (config.split == "search") == (trial.group == schema.NEIGHBOUR)
            assert trial.keep_model == (is_first and trial.group in ("reference", "custom"))
            alone = is_first and trial.group == "reference"
            assert (trial.sharing is DeviceSharing.ALONE) == alone
            assert trial.setting == setting_of(config, spec)
            assert trial.base == base_of(trial.group, config, spec)


def test_a_reference_trial_has_the_reports_setting():
    for trial in fixed_trials(PRESETS["reference"]):
        config = trial.config
        assert (config.learning_rate, config.momentum, config.nesterov) == (1.0, 0.5, True)
        assert (config.epochs, config.batch_size, config.split) == (50, 256, "full")


def test_a_table_says_its_split_and_its_seeds_and_the_name_tells_them_apart():
    tables = (
        TrialTable(model="conv", n_seeds=3),
        TrialTable(model="conv", split="search"),
        TrialTable(model="conv"),  # once more
    )
    spec = StudySpec(preset="test", models=("dense",), hidden_units=(64,), trial_tables=tables)
    custom = [trial for trial in fixed_trials(spec) if trial.group == schema.CUSTOM]
    assert [trial.trial_id for trial in custom] == [
        "custom-conv-s0",
        "custom-conv-split=search-s0",
        "custom-conv-s1",
        "custom-conv-s2",
    ]
    assert {trial.setting for trial in custom} == {"conv"}


def test_a_name_is_a_files_and_no_other_settings():
    kinds = ("a/b", "a b", "a_b", "ä" * 300)
    configs = [reference_config("net", SPEC).with_values({"activation": kind}) for kind in kinds]
    names = {file_name_of(setting_of(config, SPEC)) for config in configs}
    assert len(names) == 4
    assert all(len(name) <= LONGEST_NAME and not set("/ ") & set(name) for name in names)
