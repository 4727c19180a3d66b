"""Trials of a custom model as a study trains them: with real Ray, on noise, and kept models.

Its files are on no disk: the workers have their text.
"""

import io
import json
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import ray
from noise_study import noise
from ray import tune

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.lanes import ModelLanes, lanes_of
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial
from study.tune.dry_run import measure
from study.tune.engine_actors import RemoteEngine, start_keeper
from study.tune.engines import StudyEngine
from study.tune.resources import Slots
from study.tune.trainable import N_EPOCHS, PLANNED, StudyTrial, WorkerSettings

FILES = {
    "mine.py": """
import keras
from blocks import block
from keras import layers

def build(units=4):
    image = keras.Input((28, 28, 1))
    x = layers.Dense(784, activation="sigmoid")(block(units)(image))
    return keras.Model(image, layers.Reshape((28, 28, 1))(x))
""",
    "blocks.py": """
import keras
from keras import layers

def block(units):
    norm = layers.BatchNormalization()
    return keras.Sequential([layers.Flatten(), layers.Dense(units), norm, layers.Dropout(0.1)])
""",
}
OWN = CustomModel(
    name="mine", function="build", files=tuple(FILES.items()), defaults='{"units": 4}'
)
SPEC = StudySpec(preset="test", models=("conv", "dense", "mine"), custom_models=(OWN,))
CONFIG = TrialConfig(model="mine", arguments='{"units": 3}', batch_size=64, epochs=3)
PLAN = PlannedTrial(
    "custom-mine-s0", schema.CUSTOM, CONFIG, "mine units=3", "mine", keep_model=True
)
N_PARAMETERS = 785 * 3 + 2 * 3 + 4 * 784


@pytest.fixture(scope="module", autouse=True)
def session():
    settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    ray.init(address="local", num_cpus=2, **settings)
    yield
    ray.shutdown()


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.write(schema.MANIFEST_FILE, b"{}")
    return folder


def on_cpu():
    return partial(StudyEngine, noise(), SPEC.custom_models)


def in_lanes():
    lanes = lanes_of(SPEC, lanes=1, gpu=False)
    assert lanes["mine"] == ModelLanes(0, single=True, widths=(), batch_sizes=())
    settings = {"shapes": {}, "custom_models": SPEC.custom_models}
    keeper = start_keeper(Slots(1, 1, 0, 1), noise(), **settings)
    return partial(RemoteEngine, keeper, gpu=False)


def worker(folder, engine, **settings):
    """A kind of actor, to be started."""
    settings = WorkerSettings(**settings)
    return tune.with_parameters(StudyTrial, engine=engine, folder=folder, settings=settings)


@pytest.mark.parametrize("engine", [on_cpu, pytest.param(in_lanes, marks=pytest.mark.cluster)])
def test_trains_tells_and_keeps_the_model(folder, engine):
    kind = worker(folder, engine())
    trial = ray.remote(num_cpus=1)(kind).remote(config={PLANNED: PLAN})
    rows = []
    while True:
        result = ray.get(trial.train.remote())
        rows += result["history"]
        if result["done"]:
            break
    assert [row.epoch for row in rows] == [1, 2, 3]
    assert rows[2].train_mse < rows[0].train_mse
    assert result["n_parameters"] == N_PARAMETERS
    assert result["compile_seconds"] > 0
    assert result["diverged_epoch"] is None
    content = folder.read(f"{schema.MODELS_FOLDER}/custom-mine-s0.keras")
    path = folder.local / "kept.keras"
    path.write_bytes(content)
    images = (noise().test_images[..., None] / 255).astype(np.float32)
    model = keras.models.load_model(path)
    error = np.mean((model(images, training=False) - images) ** 2)
    assert error == pytest.approx(rows[-1].eval_mse, rel=1e-5)
    table = folder.read(f"{schema.RECONSTRUCTIONS_FOLDER}/custom-mine-s0.parquet")
    assert len(pd.read_parquet(io.BytesIO(table))) == 25
    ray.get(trial.stop.remote())


@pytest.mark.cluster
def test_a_worker_that_leaves_takes_nothing_of_the_one_that_goes_on(folder):
    """Several of one trial, on one engine with one lane: as Ray Tune has it after a failure."""
    config = {PLANNED: replace(PLAN, config=replace(CONFIG, epochs=400))}
    kind = ray.remote(num_cpus=0)(worker(folder, in_lanes(), report_seconds=0.05))
    first, second, third = (kind.remote(config=config) for _ in range(3))
    ray.get(first.train.remote())
    assert ray.get(second.train.remote())[N_EPOCHS] == 0  # it waits for the lane
    ray.get(first.stop.remote())
    while ray.get(second.train.remote())[N_EPOCHS] < 3:
        pass
    ray.kill(second)
    rows = []
    while not rows or rows[-1].epoch < 400:
        rows += ray.get(third.train.remote())["history"]  # its coming sets the lane free
    assert [row.epoch for row in rows] == list(range(1, 401))
    ray.get(third.stop.remote())


def test_the_dry_run_measures_it():
    costs = ray.get(ray.remote(measure).remote(SPEC, Slots(1, 1, 0), noise()))
    assert costs.keys() == {"conv", "dense", "mine"}
    assert all(cost.epoch_seconds > 0 < cost.compile_seconds for cost in costs.values())


def test_the_spec_goes_through_json_with_the_code():
    assert StudySpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
