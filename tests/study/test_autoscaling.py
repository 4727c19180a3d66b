"""Studies on a cluster that starts its nodes when trials ask for them: Ray's own autoscaler.

Its cloud is Ray's stand-in for one, which starts the nodes on this machine, with GPUs that are
declared.
"""

import re

import pytest
from ray_nodes import ray_cluster
from running import Study
from test_faults import OPTIONS, PROGRAM, assert_complete

pytestmark = pytest.mark.cluster

WORKERS = {"CPU": 1, "GPU": 1}


@pytest.fixture(scope="module", params=["1", "2"])
def cluster(request):
    with ray_cluster(workers=WORKERS, max_workers=2, version=request.param) as cluster:
        yield cluster


def start(cluster, storage, *gpus):
    return Study(PROGRAM, storage, *OPTIONS, *gpus, on=cluster, WAIT_SECONDS="1")


def test_a_cluster_without_a_node_is_asked_how_many_trials_it_shall_hold(cluster, tmp_path):
    code, lines = start(cluster, tmp_path).rest()
    assert code == 2, lines
    assert "No node can hold a trial of 1 CPU" in lines[-1]
    assert "--max-concurrent" in lines[-1]
    assert not (tmp_path / "study").exists()


def test_a_study_waits_for_its_nodes_says_so_and_ends_complete(cluster, tmp_path):
    code, lines = start(cluster, tmp_path, "--gpus", "2").rest()
    assert code == 0, lines
    waits = r"no trial runs: for \d+ s waiting for a node with 1 GPU and 1 CPU to spare"
    assert [line for line in lines if re.search(waits, line)], lines
    assert_complete(tmp_path / "study")
