"""Two real studies with one seed leave the same tables, but for times: whatever disturbs one."""

import subprocess
import sys

import pandas as pd
import pytest
from running import Study

from analysis.load import load_run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

RESOURCES = ["--gpus", "0", "--cpus-per-trial", "1", "--max-concurrent", "2"]
OPTIONS = ["--preset", "quick", "--hidden", "64", "--epochs", "4", "--grace-epochs", "1"]
OPTIONS += ["--trials", "10", "--reduction-factor", "2"]
TIMES = ["train_seconds", "eval_seconds", "compile_seconds", "wall_seconds", "n_sharing"]


def start(storage, *options):
    return Study("noise_study.py", storage, *options, *RESOURCES)


def tables(study):
    """All of its trials and epochs, but for the times."""
    code, lines = study.rest()
    assert code == 0, lines
    return [table.drop(columns=TIMES, errors="ignore") for table in load_run(study.folder)]


def test_a_study_beside_a_busy_loop_that_is_killed_and_resumed_repeats_another(tmp_path):
    calm = tables(start(tmp_path / "calm", *OPTIONS))
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        study = start(tmp_path / "busy", *OPTIONS)
        study.wait_for("search-conv-002  ")
        study.kill()
        disturbed = tables(start(tmp_path / "busy", "--resume"))
    finally:
        loop.kill()
        loop.wait()
    for was, now in zip(calm, disturbed, strict=True):
        pd.testing.assert_frame_equal(was, now)
    trials, _ = calm
    assert (trials.state == "pruned").any()
    assert trials.group.eq("winner").sum() == 2
