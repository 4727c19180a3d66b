"""A trial's checkpoint: what was saved, or nothing, whatever has happened to its file."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convae.results import EpochResult
from study.folder.checkpoints import Checkpoint, checkpoint_name, load_checkpoint, save_checkpoint
from study.folder.storage import RunFolder

SETTING = {"model": "conv", "seed": 0}
SAVED = Checkpoint(
    epochs=[EpochResult(1, 0.1, None, 1.5, 0.0), EpochResult(2, 1 / 3, 0.2, 1.5, 0.1, 2.5)],
    compile_seconds=1.5,
    wall_seconds=2.0,
    state=[np.arange(12, dtype=np.float32).reshape(3, 4), np.array(7)],
)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, "a", SETTING, SAVED)
    return folder


def assert_saved(found):
    for name in ("epochs", "compile_seconds", "wall_seconds"):
        assert getattr(found, name) == getattr(SAVED, name)
    for array, expected in zip(found.state, SAVED.state, strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)


def test_it_comes_back_for_its_very_setting(folder):
    assert_saved(load_checkpoint(folder, "a", SETTING))
    assert load_checkpoint(folder, "a", SETTING | {"seed": 1}) is None
    assert load_checkpoint(folder, "b", SETTING) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_or_changed_one_is_as_saved_or_none(folder, data):
    save_checkpoint(folder, "a", SETTING, SAVED)
    content = bytearray(folder.read(checkpoint_name("a")))
    place = data.draw(st.integers(0, len(content) - 1), "place")
    if data.draw(st.booleans(), "torn"):
        del content[place:]
    else:
        content[place] = data.draw(st.integers(0, 255), "byte")
    folder.write(checkpoint_name("a"), bytes(content))
    found = load_checkpoint(folder, "a", SETTING)
    if found is not None:
        assert_saved(found)


def test_a_torn_one_is_named_in_the_log(folder, caplog):
    folder.write(checkpoint_name("a"), b"PK torn")
    assert load_checkpoint(folder, "a", SETTING) is None
    assert f"{checkpoint_name('a')} is torn; the trial starts anew" in caplog.text
