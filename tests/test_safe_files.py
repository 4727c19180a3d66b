"""Reading files runs no code of theirs: models in Keras' safe mode, nothing else needs pickle."""

import ast
from pathlib import Path

import keras
import pytest

from convae.config import TrialConfig
from convae.models import build_model

ROOT = Path(__file__).parent.parent
UNSAFE = {"enable_unsafe_deserialization", "pickle", "read_pickle"}
# A model that the same process has just saved, and a published data set of a known digest.
KNOWN = ["convae/custom_check.py", "convae/data.py"]


def unsafe(code):
    """Whether the code reads files in a way that may run code of theirs."""
    for node in ast.walk(ast.parse(code)):
        names = {getattr(node, kind, None) for kind in ("id", "attr", "name", "module")}
        if names & UNSAFE:
            return True
        if isinstance(node, ast.keyword) and node.arg in ("safe_mode", "allow_pickle"):
            safe = node.arg == "safe_mode"
            if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                return True
    return False


@pytest.mark.parametrize(
    "code",
    [
        "load_model(path, safe_mode=False)",
        "load_model(path, safe_mode=safe)",
        "keras.config.enable_unsafe_deserialization()",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "import pickle",
        "from pickle import loads",
    ],
)
def test_code_that_may_run_what_it_reads_is_found(code):
    assert unsafe(code)


def test_no_module_runs_what_it_reads():
    packages = ("analysis", "benchmarks", "convae", "study")
    paths = [path for package in packages for path in sorted((ROOT / package).glob("**/*.py"))]
    found = [str(path.relative_to(ROOT)) for path in paths if unsafe(path.read_text())]
    assert found == KNOWN


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own, of its variables
@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_models_open_in_safe_mode_and_ones_with_code_in_them_do_not(kind, tmp_path):
    path = tmp_path / "model.keras"
    model = build_model(TrialConfig(model=kind))
    model.save(path)
    assert keras.models.load_model(path).count_params() == model.count_params()

    lambda_layer = keras.layers.Lambda(lambda x: x)(model.output)
    keras.Model(model.input, lambda_layer).save(path)
    with pytest.raises(ValueError, match="safe"):
        keras.models.load_model(path)
