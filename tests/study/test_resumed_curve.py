"""Real training under the real driver: a curve does not show that its study was killed."""

import pandas as pd
import pytest
from running import Study, checkpointed

from study.folder import schema

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OPTIONS = [
    "--preset",
    "reference",
    "--models",
    "dense",
    "--hidden",
    "64",
    "--epochs",
    "5",
    "--batch-size",
    "64",
]
N_TRIALS, N_EPOCHS = 1, 5


def start(storage, *options):
    resources = ["--gpus", "0", "--cpus-per-trial", "1", "--max-concurrent", "1"]
    return Study("noise_study.py", storage, *resources, *options)


def finish(study):
    code, lines = study.rest()
    assert code == 0, lines


def curves(storage):
    epochs = pd.read_parquet(storage / "study" / schema.EPOCHS_FILE)
    return epochs.set_index(["trial_id", "epoch"]).sort_index()


def test_a_killed_study_draws_the_curves_of_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole, *OPTIONS))
    study = start(killed, *OPTIONS)
    study.wait_until(lambda: max(map(len, checkpointed(study.folder).values()), default=0) >= 2)
    study.kill()
    kept = checkpointed(killed / "study")
    assert 2 <= max(map(len, kept.values())) < N_EPOCHS
    finish(start(killed, "--resume"))

    metrics = [schema.TRAIN_MSE, schema.TEST_MSE]
    assert len(curves(whole)) == N_TRIALS * N_EPOCHS
    pd.testing.assert_frame_equal(curves(killed)[metrics], curves(whole)[metrics], check_exact=True)
    # Their first epochs are those that the killed process trained: also the times are its own.
    for trial_id, rows in kept.items():
        seconds = curves(killed).train_seconds.loc[trial_id]
        assert [row["train_seconds"] for row in rows] == list(seconds.head(len(rows)))
