"""A study that runs as a process of its own, to be watched and disturbed."""

import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from ray_nodes import Started, marked

from study.folder import schema

HERE = Path(__file__).parent
RESUME = " -m study.run "
# What Ray calls the processes of a study, after "ray::".
TRIAL, ENGINE, KEEPER = "ResourceTrainable", "StudyEngine", "EngineKeeper"

STARTED = []  # studies that nobody has waited for or killed


def write_images(path, n_train=60, n_test=12, seed=0):
    """Noise, as a file that `--data` takes."""
    rng = np.random.default_rng(seed)
    train, test = (rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (n_train, n_test))
    np.savez(path, x_train=train, x_test=test)


def wait_until(condition, seconds=300, *, meanwhile=lambda: None):
    """Waits for a condition, and returns what it gives; `meanwhile` is called as long."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        meanwhile()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def command(program, storage, *options):
    """A study's command line; its program is one of the tests' own."""
    return [sys.executable, str(HERE / program), f"--storage={storage}", "--name=study", *options]


class Study:
    """A study that runs, on a cluster or on this machine, and the lines that it prints."""

    def __init__(self, program, storage, *options, on=None, **environment):
        self.folder = storage / "study"
        if on:
            options = ["--address", on.address, *options]
            environment = {**on.environment, **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._started = Started(command(program, storage, *options), environment, **pipes)
        self.process, self.mark = self._started.process, self._started.mark
        STARTED.append(self)

    def wait_for(self, sign):
        """Reads on until a line matches."""
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if re.search(sign, line):
                return
        raise AssertionError(f"ended without {sign!r}: {''.join(lines)}")

    def wait_until(self, condition, seconds=240):
        """Waits for a condition while the study runs; returns what it gives."""

        def runs():
            assert self.process.poll() is None, self.process.stdout.read()

        return wait_until(condition, seconds, meanwhile=runs)

    def rest(self):
        """The exit code, and all lines that are left; nothing may run on."""
        lines = self.process.stdout.read().splitlines()
        code = self.process.wait()
        self.kill()
        return code, lines

    def kill(self):
        """Ends the driver and all that it has started, at once and without a word."""
        self._started.kill()
        if self in STARTED:
            STARTED.remove(self)


def processes(name, *marks):
    """The processes of an actor's class, of a study or a node that carries one of these marks."""
    pids = [pid for mark in marks for pid in marked(mark)]
    return [pid for pid in pids if cmdline(pid).startswith(f"ray::{name}".encode())]


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def checkpointed(folder):
    """The epochs in the checkpoints, by trial."""
    epochs = {}
    for path in (folder / schema.CHECKPOINTS_FOLDER).glob("*.npz"):
        try:
            with np.load(path) as arrays:
                epochs[path.stem] = json.loads(str(arrays["rest"]))["epochs"]
        except (FileNotFoundError, zipfile.BadZipFile):  # replaced at this moment
            continue
    return epochs
