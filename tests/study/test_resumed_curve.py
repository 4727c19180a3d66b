"""Real training under the real driver: a curve does not show that its study was killed."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray_nodes import Started

from study.folder import schema

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PROGRAM = Path(__file__).with_name("noise_study.py")
OPTIONS = ["--preset", "reference", "--hidden", "64", "--epochs", "8", "--batch-size", "64"]
N_TRIALS, N_EPOCHS = 2, 8


def start(storage, *options):
    command = [sys.executable, str(PROGRAM), "--storage", str(storage), "--name", "study"]
    return Started(
        [*command, "--gpus", "0", "--cpus-per-trial", "1", *options],
        {},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(study):
    output = study.process.stdout.read()
    code = study.process.wait()
    study.kill()
    assert code == 0, output


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


def curves(storage):
    epochs = pd.read_parquet(storage / "study" / schema.EPOCHS_FILE)
    return epochs.set_index(["trial_id", "epoch"]).sort_index()


def test_a_killed_study_draws_the_curves_of_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, *OPTIONS))
    study = start(killed, *OPTIONS)
    while not (kept := checkpointed(killed / "study")) or min(map(len, kept.values())) < 3:
        assert study.process.poll() is None
        time.sleep(0.05)
    study.kill()
    kept = checkpointed(killed / "study")
    assert 3 <= max(map(len, kept.values())) < N_EPOCHS
    finish(start(killed, "--resume"))

    metrics = [schema.TRAIN_MSE, schema.TEST_MSE]
    assert len(curves(whole)) == N_TRIALS * N_EPOCHS
    pd.testing.assert_frame_equal(curves(killed)[metrics], curves(whole)[metrics], check_exact=True)
    # Their first epochs are those that the killed process trained: also the times are its own.
    for trial_id, rows in kept.items():
        seconds = curves(killed).train_seconds.loc[trial_id]
        assert [row["train_seconds"] for row in rows] == list(seconds.head(len(rows)))
