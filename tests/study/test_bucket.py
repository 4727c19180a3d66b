"""A study whose run folder lies in a bucket: a real S3 API on loopback, simulated by moto."""

import io
import os
import subprocess
import sys
from pathlib import Path

import boto3
import optuna
import pandas as pd
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from ray_nodes import Started

from analysis.load import load_manifest, load_run
from analysis.report import write_report
from study.folder import schema

pytestmark = pytest.mark.cluster

BUCKET, SECRET = "studies", "not-to-be-told-0123456789"
PROGRAM = Path(__file__).with_name("closed_form_study.py")
N_EPOCHS = 10
RESOURCES = ["--gpus", "0", "--cpus-per-trial", "1"]
OPTIONS = f"--preset quick --models dense --hidden 64 --epochs {N_EPOCHS}".split() + RESOURCES


class Bucket:
    """The bucket on its server, as storage and as a client sees it."""

    def __init__(self, port):
        self.storage = (
            f"s3://{BUCKET}/all?endpoint_override=127.0.0.1%3A{port}&scheme=http&region=us-east-1"
        )
        self.folder = self.storage.replace("/all?", "/all/study?")
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
        self.client.create_bucket(Bucket=BUCKET)

    def objects(self):
        """Every object's content, by its name in the run folder."""
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {
            item["Key"].removeprefix("all/study/"): self.client.get_object(
                Bucket=BUCKET, Key=item["Key"]
            )["Body"].read()
            for item in found
        }


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "simulated")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        yield Bucket(server.get_host_and_port()[1])
    finally:
        server.stop()
        # Servers of one process share what they hold.
        s3_backends.reset()


def start(storage, *options):
    return Started(
        [sys.executable, PROGRAM, "--storage", storage, "--name", "study", *options],
        {"EPOCH_SECONDS": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def rest(study):
    output = study.process.stdout.read()
    code = study.process.wait()
    study.kill()
    return code, output


def test_a_study_in_a_bucket_is_killed_resumed_and_read(bucket, tmp_path):
    study = start(bucket.storage, *OPTIONS)
    seen = ""
    for line in study.process.stdout:
        seen += line
        if "search-" in line and "completed" in line:
            break
    study.kill()
    before, _ = load_run(bucket.folder)
    assert schema.COMPLETED in set(before.state), seen

    code, resumed = rest(start(bucket.storage, "--resume", *RESOURCES))
    assert code == 0, resumed
    assert "taking over from process" in resumed
    trials, epochs = load_run(bucket.folder)
    assert set(trials.state) <= {schema.COMPLETED, schema.PRUNED, schema.DIVERGED}
    assert len(load_manifest(bucket.folder)["sessions"]) == 2
    completed = trials[trials.state == schema.COMPLETED].trial_id
    assert (epochs.groupby("trial_id").size()[completed] == N_EPOCHS).all()
    ended = before[before.state == schema.COMPLETED].set_index("trial_id")
    pd.testing.assert_frame_equal(trials.set_index("trial_id").loc[ended.index], ended)

    objects = bucket.objects()
    tables = {
        schema.TRIALS_FILE,
        schema.TRIALS_CSV_FILE,
        schema.EPOCHS_FILE,
        schema.EPOCHS_CSV_FILE,
    }
    assert {*objects} >= tables | {schema.MANIFEST_FILE, schema.OPTUNA_FILE, schema.LOG_FILE}
    kept = [name for name in objects if not name.endswith("/")]  # names of folders are objects too
    assert not [name for name in kept if name.startswith(("journal/", "checkpoints/", "."))]
    assert schema.LOCK_FILE not in kept
    (tmp_path / "optuna.db").write_bytes(objects[schema.OPTUNA_FILE])
    known = optuna.load_study(study_name="dense", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    searched = trials[(trials.group == schema.SEARCH) & (trials.model == "dense")]
    assert known.best_value == searched.val_mse[searched.state == schema.COMPLETED].min()
    table = pd.read_csv(io.BytesIO(objects[schema.TRIALS_CSV_FILE]))
    assert list(table.trial_id) == list(trials.trial_id)

    write_report(bucket.folder)
    objects = bucket.objects()
    assert b"</html>" in objects["report/index.html"]
    assert not [name for name in objects if name.endswith(".tmp")]
    told = [seen.encode(), resumed.encode(), *objects.values()]
    assert not any(SECRET.encode() in content for content in told)


def test_a_bucket_that_is_not_there_is_refused_before_anything_starts(bucket):
    code, output = rest(start(bucket.storage.replace(BUCKET, "no-such-bucket"), *OPTIONS))
    assert code == 2, output
    assert "no-such-bucket" in output.splitlines()[-1]
    assert SECRET not in output
    assert bucket.objects() == {}
    assert "AWS_SECRET_ACCESS_KEY" in os.environ  # it was there to be told
