"""Which engine a trial gets, and what of the machine that engine sees: with Ray, without training.

Ray believes in GPUs that it is told of; a probe in the engine's place says what it was told.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayActorError
from running import wait_until

from convae.config import TrialConfig, n_parameters
from convae.errors import EngineError, UserError
from convae.processes import process_exists
from convae.shapes import ProgramId, ProgramShape
from study.folder import schema
from study.plan.trials import PlannedTrial
from study.tune.engine_actors import GPU_VARIABLE, EngineKeeper, RemoteEngine
from study.tune.engines import LANE_REPORT_SECONDS, Attempt, StudyEngine
from study.tune.resources import Slots

# Workers cannot import from the tests' folder: the probes travel with their classes.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Probe:
    """In an engine's place."""

    def __init__(self, *, gpu, n_threads):
        self._told = gpu, n_threads
        self.fails = False

    def describe(self):
        if self.fails:
            raise EngineError("The engine has failed.")
        return "a device"

    def fail(self):
        self.fails = True

    def die(self):
        os._exit(1)

    def sees(self):
        """Which engine it is; whether it is to use a GPU, and which of them it sees."""
        return os.getpid(), *self._told, os.environ.get(GPU_VARIABLE)


class Holder:
    """In a trial's place: holds a share of a device."""

    def __init__(self, keeper, gpu):
        self._engine = RemoteEngine(keeper, gpu=gpu)

    def end(self, how):
        getattr(self._engine, how)()

    def sees(self):
        assert self._engine.describe() == "a device"
        return os.environ.get(GPU_VARIABLE), self._engine.sees()


@pytest.fixture(scope="module", autouse=True)
def session():
    """Two CPUs and two GPUs, whatever this machine has."""
    settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    ray.init(address="local", num_cpus=2, num_gpus=2, **settings)
    yield
    ray.shutdown()


class Trials:
    """Makes trials of an engine's lanes, and the keeper of their engines."""

    def __init__(self):
        self._made = []

    def __call__(self, n, slots):
        keeper = ray.remote(num_cpus=0)(EngineKeeper).remote(slots, Probe)
        share = {f"num_{name}s": value for name, value in slots.share.items()}
        holder = ray.remote(**share)(Holder)
        found = [holder.remote(keeper, slots.gpus_per_trial > 0) for _ in range(n)]
        self._made += [*found, keeper]
        return found

    def end(self):
        while self._made:
            ray.kill(self._made.pop())


@pytest.fixture
def trials():
    made = Trials()
    yield made
    made.end()


def what_they_see(trials):
    return ray.get([trial.sees.remote() for trial in trials])


def test_trials_on_two_gpus_have_two_engines_each_of_which_sees_its_own_gpu(trials):
    seen = what_they_see(trials(2, Slots(2, 1, 1, 1)))
    assert {gpu for gpu, _ in seen} == {"0", "1"}
    assert all(custom == gpu for gpu, (*_, custom) in seen)
    assert len({pid for _, (pid, *_) in seen}) == 2
    assert all((gpu, n_threads) == (True, 1) for _, (_, gpu, n_threads, _) in seen)


def test_trials_that_share_a_gpu_have_one_engine_and_others_another(trials):
    """Six trials of engines of three lanes: Ray fills a GPU before it turns to the next."""
    seen = what_they_see(trials(6, Slots(6, 1, 1, 3)))
    assert sorted(gpu for gpu, _ in seen) == ["0"] * 3 + ["1"] * 3
    assert all(custom == gpu for gpu, (*_, custom) in seen)
    assert len({(gpu, pid) for gpu, (pid, *_) in seen}) == 2


def test_trials_on_a_cpu_have_one_engine_a_node_which_sees_no_gpu(trials):
    seen = what_they_see(trials(4, Slots(4, 2, 0, 4)))
    assert len({engine for _, engine in seen}) == 1
    _, gpu, n_threads, visible = seen[0][1]
    assert (gpu, n_threads) == (False, 2)
    assert not visible


@pytest.mark.parametrize("ends", ["die", "fail"])
def test_an_engine_that_has_died_or_failed_is_made_anew_for_whoever_asks_next(trials, ends):
    first, second = trials(2, Slots(2, 1, 0, 2))
    (_, (before, *_)), (_, (same, *_)) = what_they_see([first, second])
    assert same == before
    with suppress(RayActorError):
        ray.get(first.end.remote(ends))
    (_, (after, *_)), (_, (same, *_)) = what_they_see([first, second])
    assert after != before
    assert same == after


def test_an_engine_outlives_the_trial_that_asked_first_and_ends_with_its_keeper(trials):
    first, second = trials(2, Slots(2, 1, 0, 2))
    pid, *_ = ray.get(first.sees.remote())[1]
    ray.kill(first)
    assert ray.get(second.sees.remote())[1][0] == pid
    trials.end()
    wait_until(lambda: not process_exists(pid))


class PretendedEngine:
    """In the place of convae's: knows who is in it."""

    def __init__(self):
        self.names = set()

    def submit(self, name, *_, **__):
        assert name not in self.names
        self.names.add(name)

    def remove(self, name):
        self.names.remove(name)  # a KeyError, as the engine's own


CONFIG = TrialConfig(model="dense", hidden_units=64)
PLAN = PlannedTrial("custom-dense-64-s0", schema.CUSTOM, CONFIG, "dense-64", "dense-512")
SHAPE = ProgramShape.for_trials("dense", n_lanes=2, widths=[64], batch_sizes=[256], n_train=512)
SHAPES = {ProgramId("dense", single=False): SHAPE}


@pytest.fixture
def pretended():
    return PretendedEngine()


@pytest.fixture
def engine(pretended):
    return StudyEngine(
        None, shapes=SHAPES, node="here", open_engine=lambda *_, **__: ("a device", pretended)
    )


def test_a_worker_that_leaves_takes_nothing_of_the_one_that_goes_on(engine, pretended):
    """Ray Tune does not wait for a failed attempt's worker before it begins the next one."""
    leaves, goes_on = (Attempt(PLAN.trial_id, pid, "here") for pid in (os.getpid(), os.getppid()))
    for attempt in (leaves, goes_on):
        assert engine.submit(attempt, PLAN, 9, None) == n_parameters(CONFIG)
    engine.remove(leaves)
    engine.remove(leaves)
    (left,) = pretended.names
    engine.remove(goes_on)
    assert not pretended.names
    assert PLAN.trial_id in left


def test_a_worker_that_is_gone_keeps_no_lane(engine, pretended):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    engine.submit(Attempt("another", gone.pid, "here"), PLAN, 9, None)
    engine.submit(Attempt(PLAN.trial_id, os.getpid(), "here"), PLAN, 9, None)
    (left,) = pretended.names
    assert PLAN.trial_id in left


def test_a_worker_on_a_node_without_an_engine_leaves_when_its_trial_begins_again(engine, pretended):
    """Its process is not seen from here, whatever has its number."""
    first, other, again = (
        Attempt(name, pid, "there")
        for name, pid in ((PLAN.trial_id, 1), ("another", 2), (PLAN.trial_id, 3))
    )
    for attempt in (first, other, again):
        engine.submit(attempt, PLAN, 9, None)
    assert pretended.names == {other.name, again.name}


class StuckProbe(Probe):
    """Never opens its device."""

    def __init__(self, **settings):
        super().__init__(**settings)
        threading.Event().wait()


def test_the_keeper_waits_for_no_engine_and_makes_no_more_than_it_may():
    """Or the test would not end."""
    keeper = EngineKeeper(Slots(4, 1, 1, 2), StuckProbe)
    node = ray.get_runtime_context().get_node_id()
    first, second = (keeper.engine_of(node, visible) for visible in "01")
    assert first.actor != second.actor
    beyond = [keeper.engine_of(node, visible) for visible in "0234"]
    assert beyond == [first, second, first, second]
    again = keeper.engine_of(node, "0", ended=first.number)
    assert again.number not in (first.number, second.number)
    assert keeper.engine_of(node, "0", ended=first.number) == again  # who asks later
    last = keeper.engine_of(node, "1", ended=second.number, silent=True)
    assert [keeper.was_silent(engine.number) for engine in (first, second, last)] == [0, 1, 0]
    for engine in (last, again):
        ray.kill(engine.actor)


def test_many_trials_tell_less_often():
    assert RemoteEngine(None, gpu=True, n_slots=32).report_seconds == LANE_REPORT_SECONDS
    assert RemoteEngine(None, gpu=True, n_slots=256).report_seconds == 25.6


def test_a_device_that_cannot_be_opened_is_told_of_to_whoever_asks():
    def refuses(*_, **__):
        raise UserError("no GPU")

    engine = StudyEngine(None, shapes=SHAPES, node="here", open_engine=refuses)
    with pytest.raises(UserError, match="no GPU"):
        engine.describe()


A_GPU_OF_RAYS = """
import ray, sys
from study.run import main

ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False,
         logging_level="error")
sys.exit(main(["--gpus", "1", "--models", "dense", "--hidden", "64", "--epochs", "1",
               "--storage", sys.argv[1], "--no-report"]))
"""


@pytest.mark.cluster
def test_a_gpu_that_tensorflow_cannot_open_refuses_the_study_before_a_folder_exists(tmp_path):
    """Ray is told of a GPU; where there is none, the first engine names what to install."""
    command = [sys.executable, "-c", A_GPU_OF_RAYS, str(tmp_path / "results")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        assert "training on GPU: " in ran.stdout
        return
    assert ran.returncode == 2
    (told,) = [line for line in ran.stderr.splitlines() if line]
    assert "'.[gpu]'" in told
    assert not any((tmp_path / "results").glob("*"))
