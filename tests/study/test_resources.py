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
        monkeypatch.setattr(resources, "nodes_to_come", list)

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
    ("alive", "to_come", "asked", "expected"),
    [
        ([Nodes(1, 4, 0)] * 2, [], {"cpus_per_trial": 3}, Slots(2, 3, 0)),
        ([Nodes(1, 8, 1)] * 3, [], {}, Slots(3, 1, 1)),
        ([Nodes(1, 8, 1), Nodes(1, 1, 4)], [], {"n_gpus": 5}, Slots(2, 1, 1)),
        # The head alone is there; GPU nodes start when trials ask for them.
        ([Nodes(1, 0, 0)], [Nodes(1, 0, 0), Nodes(10, 8, 1)], {}, Slots(10, 1, 1)),
        ([Nodes(1, 0, 0)], [Nodes(10, 8, 1)], {"n_gpus": 4}, Slots(4, 1, 1)),
    ],
)
def test_slots_of_clusters(monkeypatch, alive, to_come, asked, expected):
    monkeypatch.setattr(resources, "nodes_alive", lambda: alive)
    monkeypatch.setattr(resources, "nodes_to_come", lambda: to_come)
    assert claim(Resources(**asked)) == expected


def test_what_no_node_can_hold_is_refused(monkeypatch):
    """Sixteen CPUs in all, but no node has more than four: such a trial would wait for ever."""
    monkeypatch.setattr(resources, "nodes_alive", lambda: [Nodes(1, 4, 0)] * 4)
    monkeypatch.setattr(resources, "nodes_to_come", lambda: [Nodes(9, 4, 0)])
    with pytest.raises(SpecError, match="No node can hold a trial of 8 CPU"):
        claim(Resources(cpus_per_trial=8))
