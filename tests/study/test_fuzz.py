"""Any command line is answered: with a study, or with a sentence, and never with a traceback."""

import argparse
from unittest.mock import patch

import numpy as np
import pytest
import ray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convae.data import ImageSet
from study import run
from study.tune import dry_run
from study.tune.resources import ray_session

N = 300
# Asked of the world outside: a cluster that is not there is waited for.
LEFT_OUT = {"--help", "--address", "--dry-run"}
# The first half is mostly right, so that many command lines get far.
NUMBERS = [*map(str, (1, 2, 4, 8, 64, 1, 2, 4, 0, -1, 10**12, 1.5)), "nan", "x", ""]
TEXTS = ["conv", "dense", "unet", "../..", "a\x00b", "ä b", ""]
TRIALS = ["model=conv", "model=dense hidden_units=2,3", "model=conv momentum=2", "x", "model=", "'"]


def words_of(action):
    """What a person may write of an option."""
    (flag, *_) = action.option_strings
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return st.sampled_from(action.option_strings).map(lambda flag: [flag])
    value = st.sampled_from(NUMBERS + TEXTS)
    if action.choices:
        value = st.sampled_from([*map(str, action.choices)] * 3 + ["x"])
    elif flag == "--trial":
        value = st.sampled_from(TRIALS)
    elif action.type in (int, float):
        value = st.sampled_from(NUMBERS)
    if action.nargs == "+":
        values = st.lists(value, min_size=1, max_size=3)
        return values.map(lambda values: [flag, *values])
    return value.map(lambda value: [f"{flag}={value}"])


ACTIONS = [
    action
    for action in run.build_parser()._actions
    if action.option_strings and not LEFT_OUT & set(action.option_strings)
]
commands = st.lists(st.sampled_from(ACTIONS).flatmap(words_of), max_size=6)


@pytest.fixture(autouse=True, scope="module")
def session():
    """One for all; nothing is measured, since that takes a second each."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    images = ImageSet(noise, None, noise, None, "noise")
    cost = dry_run.Cost(0.001, 0.0)
    with (
        patch("convae.data.load_images", lambda _: images),
        patch.object(dry_run, "measure", lambda spec, *_: dict.fromkeys(spec.all_models, cost)),
        ray_session(None),
    ):
        yield


@pytest.mark.parametrize("form", ["--dry-run", "--print-study"])
def test_any_words_are_answered_with_an_exit_code(form, capfd):
    @settings(
        max_examples=N // 2,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(commands)
    def answered(options):
        words = [word for option in options for word in option]
        try:
            code = run.main([*words, form])
        except SystemExit as stopped:  # argparse's
            code = stopped.code
        told = capfd.readouterr()
        assert code in (0, 2), told.err
        assert "Traceback" not in told.out + told.err
        assert bool(told.err) == (code == 2)
        assert code == 2 or told.out
        codes.append(code)

    codes: list[int] = []
    answered()
    assert len(codes) >= N // 2
    assert codes.count(0) > N // 20  # some got all the way
    assert ray.is_initialized()
