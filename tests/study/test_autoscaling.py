"""Studies on a cluster that starts its nodes when trials ask for them: Ray's own autoscaler.

Its cloud is Ray's stand-in for one, which starts the nodes on this machine, with GPUs that are
declared.
"""

import re

import pytest
from ray_nodes import ray_cluster
from test_faults import OPTIONS, Study, assert_complete

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WORKERS = {"CPU": 1, "GPU": 1}


@pytest.fixture(scope="module", params=["1", "2"])
def cluster(request):
    with ray_cluster(workers=WORKERS, max_workers=2, version=request.param) as cluster:
        yield cluster


def start(cluster, storage, *gpus):
    arguments = [*OPTIONS, "--address", cluster.address, *gpus]
    environment = {**cluster.environment, "WAIT_SECONDS": "1"}
    return Study(storage, *arguments, environment=environment)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--gpus", "3"], "--gpus 3 asks for more GPUs than Ray has or may start (2)"),
        (["--gpus", "2", "--cpus-per-trial", "2"], "No node can hold a trial of 1 GPU and 2 CPU"),
    ],
)
def test_what_no_node_to_come_could_hold_ends_at_once(cluster, tmp_path, asked, told):
    code, lines = start(cluster, tmp_path, *asked).rest()
    assert code == 2, lines
    assert told in lines[-1]
    assert not (tmp_path / "study").exists()


def test_a_study_waits_for_its_nodes_says_so_and_ends_complete(cluster, tmp_path):
    code, lines = start(cluster, tmp_path, "--gpus", "2").rest()
    assert code == 0, lines
    waits = r"no trial runs: for \d+ s waiting for a node with 1 GPU and 1 CPU to spare"
    assert [line for line in lines if re.search(waits, line)], lines
    assert_complete(tmp_path / "study")
