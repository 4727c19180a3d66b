"""How many trials run at once on what Ray sees, and what is refused."""

import pytest

from study import resources
from study.presets import SpecError
from study.resources import Nodes, Resources, Slots, claim


@pytest.fixture
def ray_sees(monkeypatch):
    def set_resources(**seen):
        node = Nodes(1, seen["CPU"], seen.get("GPU", 0))
        monkeypatch.setattr(resources.ray, "cluster_resources", lambda: seen)
        monkeypatch.setattr(resources, "nodes_alive", lambda: [node])

    return set_resources


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
        ({"CPU": 16, "GPU": 1}, {"gpus_per_trial": 0.25}, Slots(4, 1, 0.25)),
        ({"CPU": 16, "GPU": 2}, {"gpus_per_trial": 0.3}, Slots(6, 1, 0.3)),
        ({"CPU": 16, "GPU": 4}, {"gpus_per_trial": 2}, Slots(2, 1, 2)),
        ({"CPU": 2, "GPU": 1}, {"gpus_per_trial": 0.1}, Slots(2, 1, 0.1)),
    ],
)
def test_slots(ray_sees, seen, asked, expected):
    ray_sees(**seen)
    assert claim(Resources(**asked)) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "named"),
    [
        ({"CPU": 2}, {"n_gpus": 1}, "--gpus 1"),
        ({"CPU": 8, "GPU": 1}, {"n_gpus": 2}, "--gpus 2"),
        ({"CPU": 2}, {"cpus_per_trial": 4}, "--cpus-per-trial 4"),
        ({"CPU": 8, "GPU": 1}, {"gpus_per_trial": 2}, "--gpus-per-trial 2"),
        ({"CPU": 8, "GPU": 4}, {"gpus_per_trial": 1.5}, "--gpus-per-trial 1.5"),
    ],
)
def test_impossible_requests(ray_sees, seen, asked, named):
    ray_sees(**seen)
    with pytest.raises(SpecError, match=named):
        claim(Resources(**asked))


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
    assert claim(Resources(**asked), timed=True) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "named"),
    [
        ({"CPU": 16, "GPU": 1}, {"gpus_per_trial": 0.5}, "--gpus-per-trial 0.5"),
        ({"CPU": 16}, {"max_concurrent": 2}, "--max-concurrent 2"),
        (
            {"CPU": 16, "GPU": 2, "accelerator_type:H100": 1.0, "accelerator_type:A100": 1.0},
            {},
            "A100, H100",
        ),
    ],
)
def test_what_cannot_be_timed_is_refused(ray_sees, seen, asked, named):
    ray_sees(**seen)
    claim(Resources(**asked))
    with pytest.raises(SpecError, match=named):
        claim(Resources(**asked), timed=True)


@pytest.mark.parametrize(
    ("alive", "asked", "expected"),
    [
        ([Nodes(1, 4, 0)] * 2, {"cpus_per_trial": 3}, Slots(2, 3, 0)),
        ([Nodes(1, 8, 1)] * 3, {}, Slots(3, 1, 1)),
        ([Nodes(1, 8, 1), Nodes(1, 1, 4)], {"n_gpus": 5}, Slots(2, 1, 1)),
    ],
)
def test_slots_of_clusters(on_cluster, alive, asked, expected):
    assert claim(on_cluster(alive, None, **asked)) == expected


@pytest.fixture
def on_cluster(monkeypatch):
    """Resources on a cluster of these nodes, whose autoscaler goes by this configuration."""

    def ask(alive, config, **asked):
        monkeypatch.setattr(resources, "nodes_alive", lambda: alive)
        monkeypatch.setattr(resources.autoscaler, "configuration", lambda: config)
        return Resources(address="a cluster", **asked)

    return ask


def scaling(*workers, max_workers):
    """An autoscaler's configuration: a head without trials, and these kinds of workers."""
    kinds = {"head": {"resources": {"CPU": 0}, "max_workers": 0}}
    return {
        "head_node_type": "head",
        "max_workers": max_workers,
        "available_node_types": kinds | {f"kind {i}": kind for i, kind in enumerate(workers)},
    }


HEAD = [Nodes(1, 0, 0)]
GPU = {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}
CPU = {"resources": {"CPU": 32}}


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [
        (scaling(GPU, max_workers=9), {}, Slots(4, 1, 1)),
        (scaling(GPU, max_workers=9), {"n_gpus": 2}, Slots(2, 1, 1)),
        (scaling(GPU, GPU, max_workers=6), {}, Slots(6, 1, 1)),  # both kinds together
        (scaling(GPU, CPU, max_workers=6), {}, Slots(4, 1, 1)),
        (scaling(GPU, CPU, max_workers=6), {"n_gpus": 0}, Slots(48, 4, 0)),
    ],
)
def test_slots_of_clusters_that_grow(on_cluster, config, asked, expected):
    assert claim(on_cluster(HEAD, config, **asked)) == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"n_gpus": 7}, "--gpus 7"),
        ({"gpus_per_trial": 2}, "No node can hold a trial of 2 GPU and 1 CPU"),
        ({"cpus_per_trial": 16}, "No node can hold a trial of 1 GPU and 16 CPU"),
        ({"n_gpus": 0, "cpus_per_trial": 9}, "No node can hold a trial of 9 CPU"),
    ],
)
def test_what_no_node_to_come_could_hold_is_refused(on_cluster, asked, told):
    with pytest.raises(SpecError, match=told):
        claim(on_cluster(HEAD, scaling(GPU, GPU, max_workers=6), **asked))


def test_what_no_node_can_hold_is_refused(on_cluster):
    """Sixteen CPUs in all, but no node has more than four: such a trial would wait for ever."""
    with pytest.raises(SpecError, match="No node can hold a trial of 8 CPU"):
        claim(on_cluster([Nodes(1, 4, 0)] * 4, None, cpus_per_trial=8))
