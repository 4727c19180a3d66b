"""The command that trains one trial without Ray: what it prints, saves and refuses."""

import errno
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from convae.config import TrialConfig
from convae.data import load_images
from convae.errors import EngineError, TrialError, UserError
from convae.pinned import tf
from convae.train import _beside, _memory_told, main


def test_trains_prints_and_saves(tmp_path):
    """The printed test MSE is what plain Keras finds with the saved model."""
    path = tmp_path / "dense.keras"
    command = [sys.executable, "-m", "convae.train", "--model", "dense", "--hidden-units", "64"]
    command += ["--epochs", "3", "--threads", "1", "--device", "cpu", "--save", str(path)]
    command += ["--eval-every", "2"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    printed = re.findall(r"epoch (\d)/3  train_mse ([\d.]+)(?:  test_mse ([\d.]+))?", run.stdout)
    assert [(epoch, bool(test_mse)) for epoch, _, test_mse in printed] == [
        ("1", False),
        ("2", True),
        ("3", True),
    ]
    assert float(printed[1][1]) < float(printed[0][1])

    import keras

    images = (load_images().test_images[..., None] / 255).astype(np.float32)
    output = keras.models.load_model(path).predict(images, batch_size=1000, verbose=0)
    assert np.mean((output - images) ** 2) == pytest.approx(float(printed[2][2]), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "conv", "--hidden-units", "64"], "hidden_units"),
        (["--model", "conv", "--learning-rate", "-1"], "learning_rate"),
        (["--model", "conv", "--momentum", "1"], "momentum"),
        (["--model", "conv", "--epochs", "0"], "epochs"),
        (["--model", "conv", "--threads", "0"], "--threads"),
        (["--model", "conv", "--threads", "100000"], "the CPUs that there are"),
        (["--model", "conv", "--threads", "9" * 20], "--threads"),
        (["--model", "conv", "--batch-size", "9" * 20], "batch_size"),
        (["--model", "conv", "--epochs", "9" * 20], "epochs"),
        (["--model", "dense", "--hidden-units", "9" * 20], "hidden_units"),
        (["--model", "conv", "--eval-every", "0"], "--eval-every"),
        (["--model", "conv", "--save", "\udce9.keras"], "printable"),
        (["--model", "conv", "--save", "model.h5"], "--save"),
        (["--model", "conv", "--save", "no/such/folder/model.keras"], "no/such/folder"),
        (["--model", "conv", "--data", "no/such/mnist.npz"], "no/such/mnist.npz"),
    ],
)
def test_refuses_in_one_sentence(arguments, named, capsys):
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert named in lines[0]


def test_a_folder_is_no_file_to_save_to(tmp_path, capsys):
    (tmp_path / "a.keras").mkdir()
    assert main(["--model", "conv", "--save", str(tmp_path / "a.keras")]) == 2
    assert capsys.readouterr().err.endswith("a.keras is a folder; name a file in it.\n")


def test_a_save_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.keras"
    path.write_text("earlier")

    def fail():
        with _beside(path) as whole:
            whole.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = r"--save .*a.keras cannot be written \(No space left on device\); name"
    with pytest.raises(UserError, match=told):
        fail()
    assert path.read_text() == "earlier"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("kind", [TrialError, EngineError])
@pytest.mark.parametrize("cause", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "")])
def test_a_trial_too_large_has_its_remedy(kind, cause):
    told = "hidden_units 512 with batch_size 256 .* smaller hidden_units or batch_size"
    with pytest.raises(UserError, match=told), _memory_told(TrialConfig(model="dense")):
        raise kind from cause
    with pytest.raises(kind), _memory_told(TrialConfig(model="dense")):
        raise kind from ValueError()
