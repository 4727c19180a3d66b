"""Words: what must not be told of a home folder, and commands that a shell takes."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from analysis.statistics import mean_over_seeds
from analysis.words import interval, shell_line, without_home


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/luisa/.cache/mnist.npz", "~/.cache/mnist.npz"),
        ("/root/.cache/mnist.npz", "~/.cache/mnist.npz"),
        ("/Users/luisa/data", "~/data"),
        (r"C:\Users\luisa\data", r"~\data"),
        ("OSError: /home/luisa/x is full", "OSError: ~/x is full"),
        ("keras.datasets.mnist", "keras.datasets.mnist"),
        ("s3://bucket/home/luisa", "s3://bucket/home/luisa"),
        ("/data/root/x", "/data/root/x"),
    ],
)
def test_a_home_folder_is_a_tilde(text: str, expected: str):
    assert without_home(text) == expected


def test_the_readers_own_home_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert without_home(f"{tmp_path}/data") == "~/data"


def test_a_shell_expands_the_home_folder_again():
    line = shell_line(
        ["printf", "%s|", "/home/luisa/my data", "--data=/home/luisa/x", "a b", "~/y"]
    )
    assert "luisa" not in line
    done = subprocess.run(
        ["bash", "-c", line], env={"HOME": "/h"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "/h/my data|--data=/h/x|a b|~/y|"


def test_no_error_is_said_to_be_below_nothing():
    wide = mean_over_seeds(pd.Series([0.001, 0.002, 0.009]))
    assert wide.low < 0
    assert interval(wide) == "0.00400 (95 % interval 0.00 to 0.0148, n = 3)"
