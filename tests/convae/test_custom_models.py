"""Reading a builder from real files, what is said of a bad one, and that its code travels."""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from convae import custom_check
from convae.config import TrialConfig
from convae.custom_check import BuilderError, check_model
from convae.custom_models import (
    CustomModel,
    CustomModelError,
    count_parameters,
    load_builder,
    read_custom_model,
)
from convae.models import build_model, count_trainable
from convae.pinned import settings

# Keras', when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

GOOD = """
import keras
from keras import layers

def build(units=8, activation="relu"):
    from {sibling} import decode
    x = image = keras.Input((28, 28, 1))
    x = layers.Dense(units, activation=activation)(layers.Flatten()(x))
    return keras.Model(image, decode(x))
"""
SIBLING = """
from keras import layers

WIDTH = {width}

def decode(x):
    x = layers.Dense(WIDTH, activation="relu")(x)
    return layers.Reshape((28, 28, 1))(layers.Dense(784, activation="sigmoid")(x))
"""


def write(folder, width=5):
    """A builder that imports a module beside it, and one of a package there."""
    (folder / "parts").mkdir(parents=True)
    (folder / "mine.py").write_text("import parts.deep\n" + GOOD.format(sibling="blocks"))
    (folder / "blocks.py").write_text(SIBLING.format(width=width))
    (folder / "parts" / "__init__.py").touch()
    (folder / "parts" / "deep.py").write_text("from .deeper import X\nfrom blocks import WIDTH\n")
    (folder / "parts" / "deeper.py").write_text("X = 1\n")
    (folder / "unused.py").write_text("raise RuntimeError\n")


def n_parameters(units, width):
    return 785 * units + (units + 1) * width + (width + 1) * 784


def test_reads_builds_and_counts_without_tensorflow_here(tmp_path):
    """In a new process, as a driver does."""
    write(tmp_path)
    code = """
import json, sys
from pathlib import Path
from convae.custom_models import *
custom = read_custom_model("mine", "mine.py:build", Path(sys.argv[1]))
counts = count_parameters(custom, [{}, {"units": 3}])
assert not {"keras", "tensorflow", "mine", "blocks"} & set(sys.modules)
print(json.dumps([custom.to_dict(), counts]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    # What takes longer than 15 s, as on a busy machine, says that it is being checked.
    told = "[model.mine] is being checked, for "
    assert [line for line in run.stderr.splitlines() if not line.startswith(told)] == []
    values, counts = json.loads(run.stdout)
    custom = CustomModel.from_dict(values)
    names = [name for name, _ in custom.files]
    assert names[0] == "mine.py"
    assert set(names) == {"mine.py", "blocks.py", "parts/__init__.py", "parts/deep.py"} | {
        "parts/deeper.py"
    }
    assert custom.function == "build"
    assert json.loads(custom.defaults) == {"units": 8, "activation": "relu"}
    assert counts == [n_parameters(8, 5), n_parameters(3, 5)]


def read(folder, file="mine.py", function="build", name="mine"):
    """What the other process does, in this one."""
    return custom_check.read(name, str(folder / file), function)


def test_code_travels_to_a_process_that_has_no_such_files(tmp_path):
    folder = tmp_path / "here"
    write(folder)
    told = json.dumps(read(folder).to_dict())
    for path in sorted(folder.rglob("*.py")):
        path.unlink()
    code = """
import json, sys
from convae.config import TrialConfig
from convae.models import build_model, count_trainable
from convae.custom_models import CustomModel
custom = CustomModel.from_dict(json.loads(sys.argv[1]))
config = TrialConfig(model="mine", arguments='{"units": 4}', seed=1)
print(count_trainable(build_model(config, [custom])))
"""
    run = subprocess.run([sys.executable, "-c", code, told], capture_output=True, text=True)
    assert run.stdout.strip() == str(n_parameters(4, 5)), run.stderr


def test_files_of_a_process_that_was_killed_go_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left, others = (tmp_path / f"convae-custom-{pid}-abc" for pid in (gone.pid, os.getppid()))
    for folder in (left, others):
        folder.mkdir()
    write(tmp_path / "a", 8)
    load_builder(read(tmp_path / "a"))
    assert not left.exists()
    assert others.exists()


def test_files_of_the_same_names_do_not_clash_and_hide_nobodys_modules(tmp_path):
    """Also where a builder imports when it builds, and after others have built."""
    for name, width in (("a", 5), ("b", 6)):
        write(tmp_path / name, width)
    one, other = (load_builder(read(tmp_path / name)) for name in "ab")
    blocks = sys.modules["blocks"] = type(sys)("blocks")
    try:
        for _ in range(2):
            assert count_trainable(one(units=2)) == n_parameters(2, 5)
            assert count_trainable(other(units=2)) == n_parameters(2, 6)
            assert sys.modules["blocks"] is blocks
    finally:
        del sys.modules["blocks"]
    assert not {"mine", "parts", "parts.deep"} & set(sys.modules)
    assert not [path for path in sys.path if Path(path).is_relative_to(tmp_path)]
    assert load_builder(read(tmp_path / "a")) is one


def test_a_file_may_have_the_name_of_a_module_that_is_in_use(tmp_path):
    (tmp_path / "keras_models.py").write_text(SIBLING.format(width=2))
    (tmp_path / "queue.py").write_text(GOOD.format(sibling="keras_models"))
    import queue

    custom = read(tmp_path, "queue.py")
    assert count_trainable(build_model(TrialConfig(model="mine", arguments="{}"), [custom])) > 0
    assert sys.modules["queue"] is queue


HEAD = "import keras\nfrom keras import layers\nimage = keras.Input((28, 28, 1))\n"
IDENTITY = "def build(): return keras.Sequential([image, layers.Dense(1)])\n"
BAD = {
    "import nothing_like_it": r"m.py cannot be imported in m.py, line 4 \(ModuleNotFoundError: No",
    "def build(:": r"m.py cannot be imported .*SyntaxError.*m.py, line 4",
    "import sys; sys.exit(3)": "m.py cannot be imported .*SystemExit: 3",
    "x = 1": "m.py has no function build; define it",
    "def build(): 1 / 0": r"the builder fails in m.py, line 4 \(ZeroDivisionError",
    "def build(): pass": "returns a NoneType; it must return a keras.Model",
    "def build(units): pass": "the argument units has no default; give it one",
    "def build(*units): pass": "the argument units .* keyword arguments only",
    "def build(units=1, /): pass": "the argument units .* keyword arguments only",
    "def build(units=(1, 2)): pass": r"the argument units has the default \(1, 2\); take numbers",
    "def build(rate=float('nan')): pass": "the argument rate has the default nan",
    "def build(learning_rate=1.0): pass": "the argument learning_rate is called like",
    "def build(): return keras.Sequential([keras.Input((784,)), layers.Dense(784)])": (
        r"takes \(None, 784\), but must take images \(28, 28, 1\)"
    ),
    "def build():\n i = keras.Input(batch_shape=(2, 28, 28, 1))\n return keras.Model(i, 2 * i)": (
        r"takes \(2, 28, 28, 1\), but must take"
    ),
    "def build():\n i = keras.Input((28, 28, 1))\n return keras.Model([image, i], image + i)": (
        r"takes \(None, 28, 28, 1\) and \(None, 28, 28, 1\), but must"
    ),
    "def build(): return keras.Sequential([image, layers.Dense(2)])": (
        r"returns \(2, 28, 28, 2\) from \(2, 28, 28, 1\); it must return images of the same shape"
    ),
    "def build(): return keras.Model(image, [image, image])": "returns list from",
    "def build(): return keras.Sequential([image, layers.Rescaling(float('nan'))])": "no finite",
    "def build(): return keras.Sequential([image, layers.Rescaling(1.0)])": "no trainable weights",
    "from pathlib import Path\nWIDTH = Path(__file__).with_name('w.txt').read_text()\n"
    + IDENTITY: r"the builder fails \(FileNotFoundError.*only Python modules go along with it",
    "class Bad(layers.Layer):\n"
    " def __init__(self, f): super().__init__(); self.f = f\n"
    " def build(self, shape): self.w = self.add_weight(shape=(1,))\n"
    " def call(self, x): return x * self.w\n"
    "def build(): return keras.Sequential([image, Bad(object())])": "cannot be saved .*get_config",
    "class Eager(layers.Layer):\n"
    " def build(self, shape): self.w = self.add_weight(shape=(1,))\n"
    " def compute_output_shape(self, shape): return shape\n"
    " def call(self, x): return x * self.w * float(x.numpy().max())\n"
    "def build(): return keras.Sequential([image, Eager()])": "fails .*TensorFlow's graph",
    "class Mine(keras.Model):\n"
    " def __init__(self): super().__init__(); self.layer = layers.Dense(1)\n"
    " def call(self, x): return self.layer(x)\n"
    "def build(): return Mine()": "cannot be loaded again .*@keras.saving.register_keras_serial",
    "@keras.saving.register_keras_serializable()\n"
    "class Times(layers.Layer):\n"
    " def __init__(self, n=1, **rest): super().__init__(**rest); self.n = n\n"
    " def call(self, x): return x * self.n\n"
    " def get_config(self): return {}\n"
    "def build(): return keras.Sequential([image, layers.Dense(1), Times(3)])": (
        "computes something else once it is saved; .* get_config with its arguments"
    ),
}


@pytest.mark.parametrize("code", BAD, ids=range(len(BAD)))
def test_a_bad_builder_has_its_sentence(tmp_path, code):
    (tmp_path / "w.txt").write_text("1")
    (tmp_path / "m.py").write_text(HEAD + code)
    with pytest.raises(BuilderError, match=BAD[code]) as caught:
        read(tmp_path, "m.py")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "m" not in sys.modules


REGISTERED = """
@keras.saving.register_keras_serializable()
class Registered(keras.Model):
    def __init__(self, n=1, **rest):
        super().__init__(**rest)
        self.n, self.layer = n, layers.Dense(n)
    def call(self, x): return self.layer(x)
    def get_config(self): return {**super().get_config(), "n": self.n}
"""
# Builders whose weights differ from seed to seed, and some whose do not.
CONV = IDENTITY.replace("Dense(1)", "Conv2D(1, 3, padding='same')")
RANDOM = [REGISTERED + "def build(): return Registered()", CONV]
RANDOM += ["def build(): return keras.Sequential([image, layers.Dense(1, 'relu', False, 'ones')])"]
FIXED = ["import numpy as np\n" + CONV.replace(": ", ": keras.utils.set_random_seed(42); ")]
SEEDED = "Conv2D(1, 3, padding='same', kernel_initializer=keras.initializers.HeNormal(3))"
FIXED += [IDENTITY.replace("Dense(1)", SEEDED)]
FIXED += [IDENTITY.replace("Dense(1)", f"{SEEDED}, layers.Dense(3), layers.Dense(1)")]  # some


@pytest.mark.parametrize("code", [*RANDOM, *FIXED])
def test_a_builder_that_seeds_itself_is_known(tmp_path, code):
    (tmp_path / "m.py").write_text(HEAD + code)
    assert read(tmp_path, "m.py").seeds_itself == (code in FIXED)


@pytest.mark.parametrize("top", [True, False])
def test_what_a_builder_sets_globally_holds_for_its_own_models_alone(tmp_path, top):
    """In its file, or when it builds."""
    sets = (
        "keras.config.set_floatx('float64')",
        "keras.config.set_dtype_policy('float64')",
        "keras.config.set_image_data_format('channels_first')",
        "keras.config.set_epsilon(0.1)",
        "__import__('tensorflow').config.run_functions_eagerly(True)",
    )
    line = "; ".join(sets)
    lines = [HEAD, line if top else "", "def build():", f" {'pass' if top else line}"]
    lines += [" return keras.Sequential([image, layers.Dense(1)])"]
    (tmp_path / "m.py").write_text("\n".join(lines))
    before = settings()
    custom = read(tmp_path, "m.py")
    for _ in range(2):
        (layer,) = build_model(TrialConfig(model="mine", arguments="{}"), [custom]).layers
        assert layer.dtype == "float64"
        assert settings() == before


def test_a_file_that_hides_a_module_of_ours_is_to_be_called_otherwise(tmp_path):
    (tmp_path / "keras.py").write_text(HEAD + IDENTITY)
    with pytest.raises(BuilderError, match=r"keras.py .* call it otherwise: it hides .* keras$"):
        read(tmp_path, "keras.py")


@pytest.mark.parametrize("body", ["", "warnings.simplefilter('error'); "])
def test_a_builder_that_turns_warnings_into_errors_does_so_for_itself(tmp_path, body):
    top = "import warnings\n" + ("" if body else "warnings.simplefilter('error')\n")
    (tmp_path / "m.py").write_text(HEAD + top + IDENTITY.replace(": ", f": {body}"))
    before = [*warnings.filters]
    read(tmp_path, "m.py")
    assert warnings.filters == before


def test_a_file_that_is_no_utf_8_is_told(tmp_path):
    (tmp_path / "m.py").write_bytes(b"# coding: latin-1\n# \xe9\n")
    with pytest.raises(BuilderError, match=r"m.py is no UTF-8 .*; save it as UTF-8"):
        read(tmp_path, "m.py")


def test_a_model_that_is_not_built_is_built_for_any_number_of_images(tmp_path):
    (tmp_path / "m.py").write_text(
        HEAD + "def build(): return keras.Sequential([layers.Dense(1), layers.ReLU()])"
    )
    custom = read(tmp_path, "m.py")
    model = build_model(TrialConfig(model="mine", arguments="{}"), [custom])
    assert model.input_shape == (None, 28, 28, 1)
    check_model(model)


@pytest.mark.parametrize(
    ("name", "build", "told"),
    [
        ("mine", "mine.py", 'build takes "file.py:function"'),
        ("mine", "mine:build", 'build takes "file.py:function"'),
        ("mine", "mine.py:", 'build takes "file.py:function"'),
        ("mine", "net_v1.2.py:build", "cannot import net_v1.2.py; give it a name without a"),
        ("mine", "none.py:build", "there is no file .*none.py; name one relative to"),
        ("conv", "mine.py:build", "a name is a letter.*call it otherwise"),
        ("a-b", "mine.py:build", "a name is a letter.*call it otherwise"),
    ],
)
def test_a_bad_line_is_refused_before_any_process(tmp_path, name, build, told, monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    with pytest.raises(CustomModelError, match=told) as caught:
        read_custom_model(name, build, tmp_path)
    assert str(caught.value).startswith(f'[model.{name}] build = "{build}": ')


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os._exit(7)", r"its process ended with code 7 \(.*\); let it return"),
        ("import time; time.sleep(60)", "was not done after 4 s"),
        (
            "print('noise')\ntry: input()\nexcept EOFError: import tensorflow as tf\n"
            "tf.config.threading.set_inter_op_parallelism_threads(9)",
            r"cannot be imported in m.py, line 4 \(RuntimeError: Inter op .* after initialization",
        ),
    ],
)
def test_what_a_builder_does_to_its_process_is_told(tmp_path, code, told):
    (tmp_path / "m.py").write_text(code)
    with pytest.raises(CustomModelError, match=told) as caught:
        read_custom_model("mine", "m.py:build", tmp_path, 4.0 if "sleep" in code else 500.0)
    assert str(caught.value).startswith('[model.mine] build = "m.py:build": ')
    assert "\n" not in str(caught.value)


def test_a_setting_that_cannot_be_built_is_named(tmp_path):
    write(tmp_path)
    custom = read(tmp_path)
    with pytest.raises(
        CustomModelError, match=r'"mine.py:build": with units = -1, the builder fails'
    ):
        count_parameters(custom, [{"units": 2}, {"units": -1}])
    with pytest.raises(BuilderError, match=r"with width = 1, the builder fails .*keyword"):
        custom_check.count(custom, [{"width": 1}])
    assert custom_check.count(custom, [{}]) == [n_parameters(8, 5)]
    assert count_parameters(custom, []) == []
