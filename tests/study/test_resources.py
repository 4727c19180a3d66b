"""How many trials run at once on what Ray sees, and what is refused."""

import pytest
import ray

from study.plan.spec import SpecError
from study.tune.resources import Node, Resources, Slots, find_slots, nodes, ray_session


@pytest.fixture
def cluster(monkeypatch):
    """Makes Ray see nodes with these resources."""

    def set_nodes(*seen):
        alive = [{"Alive": True, "Resources": resources} for resources in seen]
        dead = {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}
        names = {name for resources in seen for name in resources}
        sums = {name: sum(resources.get(name, 0) for resources in seen) for name in names}
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])
        monkeypatch.setattr(ray, "cluster_resources", lambda: sums)

    return set_nodes


@pytest.fixture
def ray_sees(cluster):
    """Makes Ray see this machine with these resources."""
    return lambda **seen: cluster(seen)


@pytest.mark.parametrize(
    ("seen", "asked", "expected"),
    [
        ({"CPU": 2}, {}, Slots(2, 1, 0)),
        ({"CPU": 64}, {}, Slots(8, 8, 0)),
        ({"CPU": 2}, {"cpus_per_trial": 2}, Slots(1, 2, 0)),
        ({"CPU": 8}, {"max_concurrent": 3}, Slots(3, 1, 0)),
        ({"CPU": 16, "GPU": 1}, {}, Slots(1, 1, 1)),
        ({"CPU": 16, "GPU": 4}, {}, Slots(4, 1, 1)),
        ({"CPU": 16, "GPU": 4}, {"n_gpus": 2}, Slots(2, 1, 1)),
        ({"CPU": 16, "GPU": 4}, {"n_gpus": 0}, Slots(8, 2, 0)),
    ],
)
def test_slots(ray_sees, seen, asked, expected):
    ray_sees(**seen)
    assert find_slots(Resources(**asked)) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "expected"),
    [
        ({"CPU": 16, "GPU": 1}, {}, Slots(32, 1, 1, 32)),
        ({"CPU": 16, "GPU": 4}, {"n_gpus": 2}, Slots(64, 1, 1, 32)),
        ({"CPU": 16, "GPU": 4}, {"max_concurrent": 5}, Slots(5, 1, 1, 32)),
        ({"CPU": 2, "GPU": 4}, {}, Slots(64, 1, 1, 32)),  # a CPU for each engine
        ({"CPU": 2, "GPU": 1}, {"cpus_per_trial": 2}, Slots(32, 2, 1, 32)),
        ({"CPU": 8}, {}, Slots(32, 8, 0, 32)),  # all of the node
        ({"CPU": 8}, {"cpus_per_trial": 4}, Slots(64, 4, 0, 32)),
    ],
)
def test_slots_of_engines(ray_sees, seen, asked, expected):
    ray_sees(**seen)
    assert find_slots(Resources(**asked), per_engine=32) == expected


def test_engines_that_a_growing_cluster_is_to_have_are_believed(cluster):
    cluster(HEAD)
    assert find_slots(Resources(n_gpus=2, address="a cluster"), per_engine=8) == Slots(16, 1, 1, 8)


def test_an_engine_takes_no_more_cpus_than_the_smallest_node_has(cluster):
    cluster({"CPU": 4}, {"CPU": 2}, HEAD)
    assert find_slots(Resources(), per_engine=8).cpus_per_trial == 2


@pytest.mark.parametrize("n", range(1, 41))
@pytest.mark.parametrize("cpus", [1, 2, 3, 8])
def test_an_engines_trials_fit_its_device_together_and_no_other_beside_them(n, cpus):
    """In ten-thousandths, as Ray counts; of a GPU nothing is left that another could have."""
    share = Slots(n, cpus, 1, n).share
    units = {name: round(value * 10_000, 6) for name, value in share.items()}
    assert all(value == int(value) > 0 for value in units.values())
    assert n * units["cpu"] <= cpus * 10_000
    assert n * units["gpu"] <= 10_000 < (n + 1) * units["gpu"]


def test_a_worker_that_trains_by_itself_has_whole_resources():
    assert Slots(4, 2).share == {"cpu": 2, "gpu": 0}


@pytest.mark.parametrize(
    ("seen", "asked", "named"),
    [
        ({"CPU": 2}, {"n_gpus": 1}, "--gpus 1"),
        ({"CPU": 8, "GPU": 1}, {"n_gpus": 2}, "--gpus 2"),
        ({"CPU": 2}, {"cpus_per_trial": 4}, "--cpus-per-trial 4"),
    ],
)
def test_impossible_requests(ray_sees, seen, asked, named):
    ray_sees(**seen)
    with pytest.raises(SpecError, match=named):
        find_slots(Resources(**asked))


@pytest.mark.parametrize(
    ("seen", "asked", "expected"),
    [
        ({"CPU": 4}, {}, Slots(1, 1, 0)),
        ({"CPU": 4}, {"cpus_per_trial": 2}, Slots(1, 2, 0)),
        ({"CPU": 16, "GPU": 4, "accelerator_type:H100": 1.0}, {}, Slots(4, 1, 1)),
    ],
)
def test_timed_trials_have_a_device_of_their_own(ray_sees, seen, asked, expected):
    ray_sees(**seen)
    assert find_slots(Resources(**asked), timed=True) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "named"),
    [
        ({"CPU": 16}, {"max_concurrent": 2}, "--max-concurrent 2"),
        ({"CPU": 16, "GPU": 1}, {"lanes": 2}, "--lanes 2"),
        (
            {"CPU": 16, "GPU": 2, "accelerator_type:H100": 1.0, "accelerator_type:A100": 1.0},
            {},
            "A100, H100",
        ),
    ],
)
def test_what_cannot_be_timed_is_refused(ray_sees, seen, asked, named):
    ray_sees(**seen)
    find_slots(Resources(**asked))
    with pytest.raises(SpecError, match=named):
        find_slots(Resources(**asked), timed=True)


def on(n, cpus, gpus=0):
    """So many nodes of a kind."""
    return [{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}] * n


HEAD = {"memory": 1.0}  # without room for trials


def test_only_nodes_that_are_alive_count(cluster):
    cluster({"CPU": 4}, HEAD)
    assert nodes() == [Node(4, 0), Node(0, 0)]


@pytest.mark.parametrize(
    ("seen", "asked", "expected"),
    [
        (on(2, 4), {"cpus_per_trial": 3}, Slots(2, 3, 0)),
        (on(3, 8, 1), {}, Slots(3, 1, 1)),
        (on(3, 8, 1), {"n_gpus": 2}, Slots(2, 1, 1)),
        ([*on(1, 8, 1), *on(1, 1, 4)], {}, Slots(2, 1, 1)),  # a CPU for each
        # It may grow: GPUs that were asked for are believed.
        ([HEAD], {"n_gpus": 4}, Slots(4, 1, 1)),
        (on(1, 8, 1), {"n_gpus": 4}, Slots(4, 1, 1)),
        ([HEAD], {"n_gpus": 4, "cpus_per_trial": 16}, Slots(4, 16, 1)),
        ([HEAD], {"n_gpus": 4, "max_concurrent": 3}, Slots(3, 1, 1)),
        # Or trials at once, where no node can hold one yet.
        ([HEAD], {"n_gpus": 0, "max_concurrent": 3}, Slots(3, 1, 0)),
        (on(4, 4), {"cpus_per_trial": 8, "max_concurrent": 2}, Slots(2, 8, 0)),
    ],
)
def test_slots_of_clusters(cluster, seen, asked, expected):
    cluster(*seen)
    assert find_slots(Resources(address="a cluster", **asked)) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "told"),
    [
        # Sixteen CPUs in all, but no node has more than four: such a trial would wait for ever.
        (on(4, 4), {"cpus_per_trial": 8}, "No node can hold a trial of 8 CPU"),
        ([HEAD], {}, "No node can hold a trial of 1 CPU"),
    ],
)
def test_what_no_node_can_hold_is_refused(cluster, seen, asked, told):
    cluster(*seen)
    with pytest.raises(SpecError, match=told) as caught:
        find_slots(Resources(address="a cluster", **asked))
    if told.startswith("No node"):
        assert "--max-concurrent" in str(caught.value)  # what helps if the cluster grows


@pytest.mark.parametrize(
    ("error", "folder", "told"),
    [
        (Exception("AF_UNIX path length too long"), ".", "set RAY_TMPDIR to a short folder"),
        (OSError("no inodes left"), ".", "Ray keeps its files in .*: see to it, or set RAY_TMPDIR"),
        (
            Exception("node timed out"),
            ".",
            r"\(node timed out\); try again when",
        ),
        (OSError("not a directory"), "file/below", "set RAY_TMPDIR to a short folder"),
    ],
)
def test_where_ray_does_not_start_its_reason_and_the_remedy_are_told(
    error, folder, told, tmp_path, monkeypatch
):
    def init(**_):
        raise error

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
    with pytest.raises(SpecError, match=told), ray_session(None):
        pass
