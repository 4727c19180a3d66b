"""A study handed in with `ray job submit`, as docs/cluster.md says it, through to its end."""

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from ray_nodes import ray_cluster

from analysis.load import load_run
from study.folder import schema

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
DOCUMENTED = "python -m study.run --address auto --gpus 4 --storage s3://BUCKET/studies --name NAME"
STUDY = "python tests/study/closed_form_study.py --address auto "
STUDY += (
    "--preset quick --models dense --hidden 64 --seeds 1 --trials 2 --cpus-per-trial 1 --gpus 0"
)


@pytest.fixture(scope="module")
def cluster():
    # One node: two on one machine would share, and clear away, the job's working directory.
    with ray_cluster(dashboard=True, cpus=1) as cluster:
        yield cluster


def documented(cluster, storage):
    """The command of the page with this cluster's address, and a study that ends in seconds."""
    page = (ROOT / "docs/cluster.md").read_text().replace("\\\n", "")
    (line,) = re.findall("^ray job submit .*$", page, re.MULTILINE)
    line = line.replace("http://localhost:8265", cluster.dashboard)
    line = " ".join(line.split())
    assert line.endswith(DOCUMENTED)
    return shlex.split(line.replace(DOCUMENTED, f"{STUDY} --storage {storage} --name study"))


def submit(cluster, command, **environment):
    """Runs it; a head that has just started takes no jobs yet."""
    while True:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **cluster.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if "No available agent to submit job" not in run.stdout:
            return run
        time.sleep(1)


def test_a_job_runs_the_study_to_its_end(cluster, tmp_path):
    run = submit(cluster, documented(cluster, tmp_path))
    assert run.returncode == 0, run.stdout
    assert "study finished" in run.stdout
    trials, _ = load_run(tmp_path / "study")
    assert set(trials.group) == {schema.REFERENCE, schema.SEARCH, schema.WINNER}
    assert set(trials.state) <= {schema.COMPLETED, schema.PRUNED}


def test_nobody_hands_in_a_job_without_the_token(cluster, tmp_path):
    run = submit(cluster, documented(cluster, tmp_path), RAY_AUTH_TOKEN="0" * 32)
    assert run.returncode != 0
    assert "token" in run.stdout
    assert not any(tmp_path.iterdir())
