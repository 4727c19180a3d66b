"""Trials of a person's own model as a study trains them: with real Ray, on noise, and kept models.

Its files are on no disk: the workers have their text.
"""

import io
import json
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import ray
from ray import cloudpickle, tune

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from convae.data import ImageSet
from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.lanes import ModelLanes, lanes_of
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial
from study.tune.dry_run import _measure
from study.tune.engines import start_keeper
from study.tune.lane_trial import LaneTrial
from study.tune.resources import Slots
from study.tune.trainable import AutoencoderTrial

pytestmark = pytest.mark.timeout(400)  # real Ray processes, perhaps on a busy machine
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
PLANNED = PlannedTrial("custom-mine-s0", schema.CUSTOM, CONFIG, keep_model=True)
N_PARAMETERS = 785 * 3 + 2 * 3 + 4 * 784


def noise():
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (200, 50))
    return ImageSet(train, np.zeros(200, np.uint8), test, np.zeros(50, np.uint8), "noise")


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


def on_cpu(folder):
    return tune.with_parameters(
        AutoencoderTrial, image_set=noise(), folder=folder, custom_models=SPEC.custom_models
    )


class OftenTelling(LaneTrial):
    report_seconds = 0.05


# Or the workers would import this module, and with it TensorFlow.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def in_engine(folder, trainable=LaneTrial):
    lanes = lanes_of(SPEC, lanes=1, gpu=False)
    assert lanes["mine"] == ModelLanes(0, single=True, widths=(), batch_sizes=())
    keeper = start_keeper(
        Slots(1, 1, 0, 1),
        noise(),
        lanes={"mine": lanes["mine"]},
        folder=folder,
        owner="",
        custom_models=SPEC.custom_models,
    )
    return tune.with_parameters(trainable, keeper=keeper, folder=folder)


@pytest.mark.parametrize("kind", [on_cpu, pytest.param(in_engine, marks=pytest.mark.cluster)])
def test_trains_tells_and_keeps_the_model(folder, kind):
    trial = ray.remote(num_cpus=1)(kind(folder)).remote(config=PLANNED.to_dict())
    rows = []
    while True:
        result = ray.get(trial.train.remote())
        rows += result["history"]
        if result["done"]:
            break
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[2]["train_mse"] < rows[0]["train_mse"]
    assert result["n_parameters"] == N_PARAMETERS
    assert result["compile_seconds"] > 0
    assert result["diverged_epoch"] is None
    content = folder.read(f"{schema.MODELS_FOLDER}/custom-mine-s0.keras")
    path = folder.local / "kept.keras"
    path.write_bytes(content)
    images = (noise().test_images[..., None] / 255).astype(np.float32)
    model = keras.models.load_model(path)
    error = np.mean((model(images, training=False) - images) ** 2)
    assert error == pytest.approx(rows[-1]["test_mse"], rel=1e-5)
    table = folder.read(f"{schema.RECONSTRUCTIONS_FOLDER}/custom-mine-s0.parquet")
    assert len(pd.read_parquet(io.BytesIO(table))) == 25
    ray.get(trial.stop.remote())


@pytest.mark.cluster
def test_a_worker_that_leaves_takes_nothing_of_the_one_that_goes_on(folder):
    """Several of one trial, on one engine with one lane: as Ray Tune has it after a failure."""
    config = {**PLANNED.to_dict(), "config": {**CONFIG.to_dict(), "epochs": 400}}
    kind = ray.remote(num_cpus=0)(in_engine(folder, OftenTelling))
    first, second, third = (kind.remote(config=config) for _ in range(3))
    ray.get(first.train.remote())
    assert ray.get(second.train.remote())["epoch"] == 0  # it waits for the lane
    ray.get(first.stop.remote())
    while ray.get(second.train.remote())["epoch"] < 3:
        pass
    ray.kill(second)
    rows = []
    while not rows or rows[-1]["epoch"] < 400:
        rows += ray.get(third.train.remote())["history"]  # its coming sets the lane free
    assert [row["epoch"] for row in rows] == list(range(1, 401))
    ray.get(third.stop.remote())


def test_the_dry_run_measures_it():
    costs = _measure([CONFIG], Slots(1, 1, 0), noise(), SPEC.custom_models)
    assert costs[CONFIG].epoch_seconds > 0
    assert costs[CONFIG].compile_seconds > 0


def test_the_spec_goes_through_json_with_the_code():
    assert StudySpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
