"""On a cluster `--gpus N` means at most N devices, wherever Ray puts the trials: two Ray nodes."""

import sys

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster
from test_engines import Holder, Probe, what_they_see

from study.tune.engine_actors import EngineKeeper
from study.tune.resources import Slots

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # as in test_engines
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", autouse=True)
def session():
    """Two nodes, each of which Ray is told has two GPUs."""
    has = {"num_cpus": 4, "num_gpus": 2, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**has, "include_dashboard": False})
    cluster.add_node(**has)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    cluster.wait_for_nodes()
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("n_gpus", [1, 2, 3])
def test_trials_on_all_gpus_have_engines_on_no_more_than_the_study_may_use(n_gpus):
    slots = Slots(4 * n_gpus, cpus_per_trial=1, gpus_per_trial=1, per_engine=4)
    keeper = ray.remote(num_cpus=0)(EngineKeeper).remote(slots, Probe)
    # As the trials of a study may: more than one node, and more GPUs than it may use.
    held = {"num_cpus": 0.25, "num_gpus": 0.5, "scheduling_strategy": "SPREAD"}
    trials = [ray.remote(Holder).options(**held).remote(keeper, True) for _ in range(8)]
    seen = what_they_see(trials)
    nodes = ray.get([trial.__ray_call__.remote(node_of) for trial in trials])
    for actor in (*trials, keeper):
        ray.kill(actor)
    assert len({(node, gpu) for node, (gpu, _) in zip(nodes, seen, strict=True)}) == 4
    engines = [engine for _, engine in seen]
    assert len(set(engines)) == n_gpus
    assert {visible for *_, visible in engines} <= {"0", "1"}


def node_of(_):
    return ray.get_runtime_context().get_node_id()
