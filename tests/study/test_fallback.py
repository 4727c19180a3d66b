"""A device on which lanes do not work: faults are planted in the engine, under real Ray."""

import json

import pandas as pd
import pytest
from running import Study

from study.folder import schema

pytestmark = pytest.mark.cluster

PROGRAM = "noise_study.py"
OPTIONS = ["--preset", "reference", "--models", "dense", "--hidden", "64", "--epochs", "2"]
OPTIONS += ["--batch-size", "64", "--gpus", "0", "--cpus-per-trial", "1"]
REASONS = {
    "compile": "no tiles for this dot",
    "memory": "MemoryError",
    "wrong": "weights' change in a few steps differs from Keras'",
}


def run(cluster, storage, *options, fault=""):
    return Study(PROGRAM, storage, *OPTIONS, *options, on=cluster, FAULT=fault)


@pytest.fixture(scope="module")
def begun(cluster, tmp_path_factory):
    """The storage of a study of one trial that is alone and two that share lanes."""
    storage = tmp_path_factory.mktemp("begun")
    code, lines = run(cluster, storage, "--seeds", "3", "--lanes", "2").rest()
    assert code == 0, lines
    return storage


@pytest.mark.parametrize("fault", REASONS)
def test_the_study_goes_on_by_the_plain_trainer_and_says_why(cluster, begun, fault):
    """Lanes that nobody asked for in this session, but an earlier one."""
    n_seeds = 4 + list(REASONS).index(fault)
    study = run(cluster, begun, "--resume", "--seeds", str(n_seeds), fault=fault)
    code, lines = study.rest()
    assert code == 0, lines
    (said,) = [line for line in lines if "does not work here" in line]
    assert "dense in 2 lanes" in said
    assert REASONS[fault] in said
    (found,) = json.loads((study.folder / schema.MANIFEST_FILE).read_text())["resources"][
        "fallbacks"
    ].values()
    assert REASONS[fault] in found
    assert "Traceback" in (study.folder / schema.LOG_FILE).read_text()
    trials = pd.read_parquet(study.folder / schema.TRIALS_FILE).set_index("trial_id")
    assert set(trials.state) == {schema.COMPLETED}
    assert trials.device[f"reference-dense-64-s{n_seeds - 1}"].endswith("(plain trainer)")
    assert not trials.device["reference-dense-64-s0"].endswith("(plain trainer)")


@pytest.mark.parametrize("fault", ["wrong"])
def test_lanes_that_were_asked_for_are_refused(cluster, tmp_path, fault):
    study = run(cluster, tmp_path, "--seeds", "3", "--lanes", "2", fault=fault)
    code, lines = study.rest()
    assert code == 2, lines
    assert REASONS[fault] in lines[-1]
    assert not any(tmp_path.glob("*/"))
