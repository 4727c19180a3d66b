"""The cache of compiled programs: by files in TensorFlow's place, then by TensorFlow itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convae import xla

NAME = "xla_compile_cache__1__2__XLA_GPU_JIT.pb"
# Both programs of the dense model, small, in threads; a trial in each lane.
TRAIN = """
import hashlib
import numpy as np
from convae.config import TrialConfig
from convae.data import ImageSet
from convae.device import open_device
from convae.engine import Engine
from convae.lane_program import Shape
from convae.sharing import DeviceSharing
from convae.shapes import ProgramId

open_device(gpu=False, lanes=True)
train, test = (np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8) for n in (200, 50))
image_set = ImageSet(train, np.zeros(200, np.uint8), test, np.zeros(50, np.uint8), "noise")
engine = Engine.open(image_set, {
    ProgramId("dense", single=n == 1): Shape.for_trials(
        "dense", n_lanes=n, widths=[24], batch_sizes=[16, 64], n_train=200)
    for n in (2, 1)
})
engine.compile()
for seed, sharing in enumerate((DeviceSharing.LANES, DeviceSharing.LANES, DeviceSharing.SINGLE)):
    config = TrialConfig(model="dense", hidden_units=24, batch_size=64, epochs=2, seed=seed)
    engine.submit(str(seed), config, sharing=sharing)
while engine.step():
    pass
digest = hashlib.sha256()
for seed in "012":
    digest.update(repr([(e.train_mse, e.eval_mse) for e in engine.report(seed).epochs]).encode())
    for weight in engine.state(seed).weights:
        digest.update(weight.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture
def process(monkeypatch, tmp_path):
    """Returns a function that does as a process does, and returns the programs that it found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(xla.SWITCH, "1")

    def run(compiles=b"program", device="GPU", fails=False):
        monkeypatch.setattr(xla, "_cache", None)
        with xla.offered_cache(gpu_only=True):
            flags = dict(flag.split("=") for flag in os.environ.get("TF_XLA_FLAGS", "").split())
        assert os.environ.get("TF_XLA_FLAGS", "") == ""
        xla.fit_cache(device)
        folder = Path(flags.get("--tf_xla_persistent_cache_directory", "/nowhere"))
        with xla.cached_programs():
            found = [path.read_bytes() for path in folder.glob("*.pb")]
            if fails:
                raise RuntimeError
            if not found and folder.is_dir():
                (folder / NAME).write_bytes(compiles)
        return found

    return run


def files(tmp_path, pattern="*"):
    return [path for path in (tmp_path / "convae").rglob(pattern) if path.is_file()]


def test_a_program_is_found_by_the_processes_to_come(process):
    assert [process(), process(), process()] == [[], [b"program"], [b"program"]]


def test_not_on_another_device_nor_with_other_flags(process, monkeypatch):
    process()
    assert process(device="another") == []
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    assert process() == []


@pytest.mark.parametrize("content", [b"", b"torn", b"x" * 100])
def test_a_torn_or_foreign_file_is_replaced(process, tmp_path, content):
    process()
    (path,) = files(tmp_path)
    path.write_bytes(content)
    assert process() == []
    assert process() == [b"program"]


def test_it_is_off_unless_it_is_switched_on(process, monkeypatch, tmp_path):
    monkeypatch.delenv(xla.SWITCH)
    process()
    assert files(tmp_path) == []


def test_after_a_failure_all_is_forgotten_and_the_next_goes_without(process, tmp_path):
    process()
    with pytest.raises(RuntimeError):
        process(fails=True)
    (mark,) = files(tmp_path, "*.compiling")
    assert process() == [b"program"]  # its process lives: it may still be compiling
    mark.touch()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mark.rename(mark.with_stem(str(ended.pid)))
    assert process() == []
    assert files(tmp_path) == []
    assert [process(), process()] == [[], [b"program"]]


def test_it_does_without_a_folder(process, caplog, tmp_path):
    (tmp_path / "convae").write_text("a file in its place")
    assert [process(), process()] == [[], []]
    assert "cannot be kept" in caplog.text


def test_it_keeps_the_newest_alone(process, monkeypatch, tmp_path):
    monkeypatch.setattr(xla, "N_KEPT", 2)
    for device in "abc":
        process(device=device)
    assert len(files(tmp_path)) == 2
    assert process(device="c") == [b"program"]


@pytest.mark.cluster
def test_programs_that_tensorflow_finds_train_the_same_numbers(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), xla.SWITCH: "1"}

    def start():
        command = [sys.executable, "-c", TRAIN]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    at_once = [process.communicate()[0] for process in (start(), start())]
    kept = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    after, notes = start().communicate()
    assert at_once == [after, after]
    assert after, notes
    # How TensorFlow says that it found one; and nothing was compiled anew under another name.
    assert notes.count("XlaSerializedCacheEntry") >= len(kept) > 0
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path)} == kept
