"""The command that trains one trial without Ray: what it prints, saves and refuses."""

import re
import subprocess
import sys

import numpy as np
import pytest

from convae.data import load_images
from convae.train import main


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
        (["--model", "conv", "--eval-every", "0"], "--eval-every"),
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
