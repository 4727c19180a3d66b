"""Phrases and verdicts: what every sentence on two settings has, and what must not be told."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from analysis import phrases, verdicts
from analysis.settings import mean_over_seeds, ratio_over_seeds

errors = st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=6)


@settings(deadline=None)
@given(top=errors, bottom=errors)
def test_a_sentence_on_two_has_n_and_no_verdict_without_an_interval(
    top: list[float], bottom: list[float]
):
    ratio = ratio_over_seeds(pd.Series(top), pd.Series(bottom))
    said = verdicts.compared("conv", ratio, "dense-512")
    assert said.startswith("conv has ")
    assert re.search(rf"\bn = {ratio.n} seed", said)
    assert ("95 % interval" in said) == (ratio.n > 1)
    assert ("beyond chance" in said) <= ("95 % interval" in said)
    assert not re.search(r"nan|None|inf\b|\de[+-]\d", said)


@settings(deadline=None)
@given(top=errors, bottom=errors)
def test_swapping_the_two_inverts_the_verdict(top: list[float], bottom: list[float]):
    a, b = pd.Series(top), pd.Series(bottom)
    n = min(len(top), len(bottom))
    ratio, other = ratio_over_seeds(a, b), ratio_over_seeds(b, a)
    assume(n == 1 or np.ptp(np.log(a[:n]) - np.log(b[:n])) > 1e-9)
    inverse = {
        verdicts.LOWER: verdicts.HIGHER,
        verdicts.HIGHER: verdicts.LOWER,
        verdicts.CHANCE: verdicts.CHANCE,
        verdicts.ONE_SEED: verdicts.ONE_SEED,
    }
    assert verdicts.verdict(other) == inverse[verdicts.verdict(ratio)]


@settings(deadline=None)
@given(values=errors)
def test_every_form_of_an_estimate_is_plain(values: list[float]):
    found = mean_over_seeds(pd.Series(values))
    for form in (phrases.mean_and_sd, phrases.interval, phrases.short_interval, phrases.ends):
        assert not re.search(r"nan|None|inf\b|-", form(found))
    assert f"n = {len(values)}" in phrases.interval(found)


def test_no_error_is_said_to_be_below_nothing():
    wide = mean_over_seeds(pd.Series([0.001, 0.002, 0.009]))
    assert wide.low < 0
    assert phrases.interval(wide) == "0.00400 (95 % interval 0.00 to 0.0148, n = 3)"


def test_what_is_not_known_is_a_dash():
    for form in (phrases.mean_and_sd, phrases.interval, phrases.digits, phrases.value_words):
        assert form(None) == phrases.NO_VALUE


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
    assert phrases.without_home(text) == expected


def test_the_readers_own_home_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert phrases.without_home(f"{tmp_path}/data") == "~/data"


def test_a_shell_expands_the_home_folder_again():
    line = phrases.shell_line(
        ["printf", "%s|", "/home/luisa/my data", "--data=/home/luisa/x", "a b", "~/y"]
    )
    assert "luisa" not in line
    done = subprocess.run(
        ["bash", "-c", line], env={"HOME": "/h"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "/h/my data|--data=/h/x|a b|~/y|"
