"""A custom study, as a file, wherever it runs: the same plan, and complete tables."""

import shutil
from collections import Counter
from textwrap import dedent

import pandas as pd
import pytest
from ray_nodes import ray_cluster
from running import Study

from study.folder import schema
from study.plan.study_file import read_study
from study.plan.trials import count_trials

# Random settings, since what TPE proposes depends on which trials have ended before.
pytestmark = pytest.mark.cluster

FORMULA = "closed_form_study.py"
STUDY = """
question = "Which step suits which model?"
hidden = [64]
epochs = 4
seeds = 2
trials = 6
sampler = "random"
scheduler = "none"
finalists = 1
finalist_seeds = 2

[[trial]]
model = "conv"
learning_rate = [0.5, 2]
momentum = [0, 0.9]

[search.conv]
learning_rate = {low = 0.1, high = 4, scale = "log"}

[search.small]
width = [4, 8]
learning_rate = {low = 0.1, high = 4, scale = "log"}
max_parameters = 10_000

[model.small]
build = "small.py:build"
"""
BUILDER = """
import keras

import layers_of


def build(width: int = 8):
    image = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(image)
    x = layers_of.hidden(width)(x)
    x = keras.layers.Dense(784, activation="sigmoid")(x)
    return keras.Model(image, keras.layers.Reshape((28, 28, 1))(x))
"""
SIBLING = """
import keras


def hidden(width):
    return keras.layers.Dense(width, activation="relu")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("custom")
    (folder / "mine.toml").write_text(STUDY)
    (folder / "small.py").write_text(dedent(BUILDER))
    (folder / "layers_of.py").write_text(dedent(SIBLING))
    return folder / "mine.toml"


def tables(folder):
    trials = pd.read_parquet(folder / schema.TRIALS_FILE)
    epochs = pd.read_parquet(folder / schema.EPOCHS_FILE)
    assert set(trials.state) <= {schema.COMPLETED, schema.DIVERGED}
    assert dict(epochs.groupby("trial_id").size()) == {
        row.trial_id: row.epochs_completed for row in trials.itertuples() if row.epochs_completed
    }
    return trials


def setting(trials):
    columns = ["trial_id", "group", *schema.CONFIG_COLUMNS]
    return trials[columns].sort_values("trial_id").reset_index(drop=True)


@pytest.fixture(scope="module")
def cluster():
    """A head without trials and two nodes with a slot each."""
    with ray_cluster() as cluster:
        for _ in range(2):
            cluster.add("--num-cpus=1")
        yield cluster


def start(cluster, program, storage, *options, epoch_seconds=0.001):
    options = ["--gpus", "0", "--cpus-per-trial", "1", *options]
    return Study(program, storage, *options, on=cluster, EPOCH_SECONDS=str(epoch_seconds))


def finish(study):
    """Lets it end; returns its trials."""
    code, lines = study.rest()
    assert code == 0, lines
    return tables(study.folder)


@pytest.fixture(scope="module")
def alone(file, tmp_path_factory, cluster):
    """The study, a trial at a time."""
    options = ["--max-concurrent", "1", str(file)]
    return finish(start(cluster, FORMULA, tmp_path_factory.mktemp("alone"), *options))


def test_a_file_runs_the_trials_that_it_plans(alone, file):
    spec = read_study(file).spec
    assert dict(Counter(alone.group)) == count_trials(spec)
    searched = alone[alone.group == schema.SEARCH]
    assert set(searched.model) == {"conv", "dense", "small"}
    small = searched[searched.model == "small"]
    assert set(small.arguments) == {'{"width": 4}'}  # the larger one has too many parameters
    conv = searched[searched.model == "conv"]
    assert (conv.batch_size == 256).all()
    assert conv.learning_rate.between(0.1, 4).all()


def test_two_nodes_run_the_same_plan(alone, file, tmp_path, cluster):
    there = finish(start(cluster, FORMULA, tmp_path, str(file), epoch_seconds=0.01))
    pd.testing.assert_frame_equal(setting(there), setting(alone))


@pytest.mark.parametrize(
    "how", [("--max-concurrent", "1"), ("--lanes", "2")], ids=["by itself", "in an engine"]
)
def test_a_builder_travels_to_the_nodes_with_its_study(file, tmp_path, cluster, how):
    """Real training, after the files are gone."""
    custom = tmp_path / "custom"
    shutil.copytree(file.parent, custom)
    options = [*how, "--models", "small", "--epochs", "2", "--trials", "2", "--seeds", "1"]
    options += ["--finalists", "0", str(custom / file.name)]
    study = start(cluster, "noise_study.py", tmp_path, *options)
    study.wait_for("plan:")
    shutil.rmtree(custom)
    trials = finish(study)
    small = trials[trials.model == "small"]
    assert set(small.group) == {"reference", "search", "winner"}
    assert set(small.n_parameters) == {7_060, 13_336}  # widths 4 and, by default, 8
    assert (tmp_path / "study" / "models" / "winner-small-s0.keras").exists()
