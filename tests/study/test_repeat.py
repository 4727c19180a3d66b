"""Two real studies with one seed leave the same tables, but for times: whatever disturbs one.

Also with fewer trials at once than the lag, by a signal or when it is resumed.
"""

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
from running import Study

from analysis.load import load_run

pytestmark = pytest.mark.cluster

RESOURCES = ["--gpus", "0", "--cpus-per-trial", "1"]
# One batch size: each of its own would be compiled anew.
STUDY = """
hidden = [64]
epochs = 3
trials = 8
grace_epochs = 1
reduction_factor = 2
finalists = 0

[search.conv]
learning_rate = {low = 0.1, high = 4, scale = "log"}
momentum = {low = 0, high = 0.9}

[search.dense]
learning_rate = {low = 0.1, high = 4, scale = "log"}
momentum = {low = 0, high = 0.9}
"""
TIMES = ["train_seconds", "eval_seconds", "compile_seconds", "wall_seconds", "n_sharing"]


def start(storage, *options):
    return Study("noise_study.py", storage, *options, *RESOURCES)


def tables(study):
    """All of its trials and epochs, but for the times."""
    code, lines = study.rest()
    assert code == 0, lines
    return [table.drop(columns=TIMES, errors="ignore") for table in load_run(study.folder)]


def test_a_study_beside_a_busy_loop_that_is_killed_and_resumed_repeats_another(tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    options = [str(tmp_path / "study.toml"), "--max-concurrent", "2"]
    calm = tables(start(tmp_path / "calm", *options))
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        study = start(tmp_path / "busy", *options)
        study.wait_for("search-conv-001  ")
        study.kill()
    finally:
        loop.kill()
        loop.wait()
    study = start(tmp_path / "busy", "--resume", "--max-concurrent", "2")
    study.wait_for("search-conv-002  ")
    os.kill(study.process.pid, signal.SIGUSR2)
    study.wait_for("1 at once from now on")
    disturbed = tables(study)
    for was, now in zip(calm, disturbed, strict=True):
        pd.testing.assert_frame_equal(was, now)
    trials, _ = calm
    assert (trials.state == "pruned").any()
    assert trials.group.eq("winner").sum() == 2
