"""How many trials run at once on what Ray sees, and what is refused."""

import pytest

from study import resources
from study.presets import SpecError
from study.resources import Resources, Slots, claim


@pytest.fixture
def ray_sees(monkeypatch):
    def set_resources(**seen):
        monkeypatch.setattr(resources.ray, "cluster_resources", lambda: seen)

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
