"""What holds for every test of a study."""

import pytest
from ray_nodes import ray_cluster
from running import STARTED


@pytest.fixture(scope="module")
def cluster():
    """A head without trials and a node with a slot; studies are driven from outside."""
    with ray_cluster() as cluster:
        cluster.add("--num-cpus=1")
        yield cluster


@pytest.fixture(autouse=True)
def no_study_outlives_its_test():
    """Of a test that fails, none disturbs the next ones."""
    yield
    for study in [*STARTED]:
        study.kill()
