"""How many trials run at once on what Ray sees, and what is refused."""

from contextlib import nullcontext

import pytest
import ray

from convae.hardware import free_processes
from study.plan.spec import SpecError
from study.tune.resources import (
    Node,
    Resources,
    Slots,
    check_limits,
    find_slots,
    nodes,
    ray_session,
)


@pytest.fixture
def cluster(monkeypatch):
    """Makes Ray see nodes with these resources, and a dead one."""

    def set_nodes(*seen):
        alive = [{"Alive": True, "Resources": resources} for resources in seen]
        dead = {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}
        names = {name for resources in seen for name in resources}
        sums = {name: sum(resources.get(name, 0) for resources in seen) for name in names}
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])
        monkeypatch.setattr(ray, "cluster_resources", lambda: sums)

    return set_nodes


def on(n, cpus, gpus=0):
    """So many nodes of a kind."""
    return [{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}] * n


HEAD = {"memory": 1.0}  # without room for trials
THERE = {"address": "a cluster"}  # which may grow
ENGINE = {"per_engine": 32}
TIMED = {"timed": True}
KIND = "accelerator_type:"


@pytest.mark.parametrize(
    ("seen", "asked", "needs", "expected"),
    [
        (on(1, 2), {}, {}, Slots(2, 1, 0)),
        (on(1, 64), {}, {}, Slots(8, 8, 0)),
        (on(1, 2), {"cpus_per_trial": 2}, {}, Slots(1, 2, 0)),
        (on(1, 8), {"max_concurrent": 3}, {}, Slots(3, 1, 0)),
        (on(1, 16, 1), {}, {}, Slots(1, 1, 1)),
        (on(1, 16, 4), {}, {}, Slots(4, 1, 1)),
        (on(1, 16, 4), {"n_gpus": 2}, {}, Slots(2, 1, 1)),
        (on(1, 16, 4), {"n_gpus": 0}, {}, Slots(8, 2, 0)),
        # Engines with lanes: of a GPU each with a CPU, or all of the smallest node.
        (on(1, 16, 1), {}, ENGINE, Slots(32, 1, 1, 32)),
        (on(1, 16, 4), {"n_gpus": 2}, ENGINE, Slots(64, 1, 1, 32)),
        (on(1, 16, 4), {"max_concurrent": 5}, ENGINE, Slots(5, 1, 1, 32)),
        (on(1, 2, 4), {}, ENGINE, Slots(64, 1, 1, 32)),
        (on(1, 2, 1), {"cpus_per_trial": 2}, ENGINE, Slots(32, 2, 1, 32)),
        (on(1, 8), {}, ENGINE, Slots(32, 8, 0, 32)),
        (on(1, 8), {"cpus_per_trial": 4}, ENGINE, Slots(64, 4, 0, 32)),
        ([*on(1, 4), *on(1, 2), HEAD], {}, ENGINE, Slots(96, 2, 0, 32)),
        ([HEAD], {"n_gpus": 2, **THERE}, ENGINE, Slots(64, 1, 1, 32)),
        # Trials that are timed have a device to themselves.
        (on(1, 4), {}, TIMED, Slots(1, 1, 0)),
        (on(1, 4), {"cpus_per_trial": 2}, TIMED, Slots(1, 2, 0)),
        ([{"CPU": 16, "GPU": 4, f"{KIND}H100": 1.0}], {}, TIMED, Slots(4, 1, 1)),
        # Several nodes.
        (on(2, 4), {"cpus_per_trial": 3, **THERE}, {}, Slots(2, 3, 0)),
        (on(3, 8, 1), THERE, {}, Slots(3, 1, 1)),
        (on(3, 8, 1), {"n_gpus": 2, **THERE}, {}, Slots(2, 1, 1)),
        ([*on(1, 8, 1), *on(1, 1, 4)], THERE, {}, Slots(2, 1, 1)),  # a CPU for each
        # GPUs that were asked for are believed.
        ([HEAD], {"n_gpus": 4, **THERE}, {}, Slots(4, 1, 1)),
        (on(1, 8, 1), {"n_gpus": 4, **THERE}, {}, Slots(4, 1, 1)),
        ([HEAD], {"n_gpus": 4, "cpus_per_trial": 16, **THERE}, {}, Slots(4, 16, 1)),
        ([HEAD], {"n_gpus": 4, "max_concurrent": 3, **THERE}, {}, Slots(3, 1, 1)),
        # Or trials at once, where no node can hold one yet.
        ([HEAD], {"n_gpus": 0, "max_concurrent": 3, **THERE}, {}, Slots(3, 1, 0)),
        (on(4, 4), {"cpus_per_trial": 8, "max_concurrent": 2, **THERE}, {}, Slots(2, 8, 0)),
    ],
)
def test_slots(cluster, seen, asked, needs, expected):
    cluster(*seen)
    assert find_slots(Resources(**asked), **needs) == expected


@pytest.mark.parametrize(
    ("seen", "asked", "needs", "told"),
    [
        (on(1, 2), {"n_gpus": 1}, {}, "--gpus 1"),
        (on(1, 8, 1), {"n_gpus": 2}, {}, "--gpus 2"),
        (on(1, 2), {"cpus_per_trial": 4}, {}, "--cpus-per-trial 4"),
        # Sixteen CPUs in all, but no node has more than four: such a trial would wait for ever.
        (on(4, 4), {"cpus_per_trial": 8, **THERE}, {}, "a trial of 8 CPU; .* --max-concurrent"),
        ([HEAD], THERE, {}, "No node can hold a trial of 1 CPU; .* --max-concurrent"),
        (on(1, 16), {"max_concurrent": 2}, TIMED, "--max-concurrent 2 .*; leave it out"),
        (on(1, 16, 1), {"lanes": 2}, TIMED, "--lanes 2 .*; leave it out"),
        ([{"CPU": 8, "GPU": 2, f"{KIND}H100": 1.0, f"{KIND}A100": 1.0}], {}, TIMED, "A100, H100"),
    ],
)
def test_what_cannot_be_had_or_timed_is_refused(cluster, seen, asked, needs, told):
    cluster(*seen)
    with pytest.raises(SpecError, match=told):
        find_slots(Resources(**asked), **needs)
    if needs:
        find_slots(Resources(**asked))


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


def test_only_nodes_that_are_alive_count(cluster):
    cluster({"CPU": 4}, HEAD)
    assert nodes() == [Node(4, 0), Node(0, 0)]


@pytest.mark.parametrize(
    ("error", "folder", "told"),
    [
        (Exception("AF_UNIX path length too long"), ".", "set RAY_TMPDIR to a short folder"),
        (OSError("no inodes left"), ".", "Ray keeps its files in .*: see to it, or set RAY_TMPDIR"),
        (Exception("node timed out"), ".", r"\(node timed out\); try again when"),
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


def test_a_number_of_rays_that_is_none_is_told_before_ray_dies_of_it(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_memory_usage_threshold", "abc")
    with (
        pytest.raises(SpecError, match="threshold is 'abc', but takes a number"),
        ray_session(None),
    ):
        pass


def test_what_fits_is_known_where_fewer_are_asked_for(cluster):
    """More may train at once later, while the study runs."""
    cluster(*on(1, 4))
    slots = find_slots(Resources(max_concurrent=1))
    assert (slots.n_slots, slots.most) == (1, 4)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ((8 * 10**9, None), r"7.5 GiB here \(ulimit -v\), but Ray needs about 12"),
        ((None, 190), r"190 more .* group's pids.max\), but Ray needs about 300 on 2 CPUs"),
        ((12 * 2**30, 300), None),
        ((None, None), None),
    ],
)
def test_limits_under_which_ray_would_hang_are_refused(limits, told):
    with pytest.raises(SpecError, match=told) if told else nullcontext():
        check_limits(*limits, 2, 24.0)


def test_processes_are_counted_in_the_control_group_with_the_least_room(tmp_path):
    for group, most in (("", "max"), ("/job", "100")):
        (tmp_path / f"cgroup{group}").mkdir()
        (tmp_path / f"cgroup{group}/pids.max").write_text(f"{most}\n")
        (tmp_path / f"cgroup{group}/pids.current").write_text("30\n")
    groups = tmp_path / "groups"
    for own, free in (("0::/job", 70), ("0::/", None)):
        groups.write_text(f"1:cpu:/\n{own}\n")
        assert free_processes([f"{tmp_path}/cgroup{{}}/pids"], groups) == free
