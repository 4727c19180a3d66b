"""What the actor of a trial in a lane tells Ray Tune, with an engine that pretends."""

import os
import time
from types import SimpleNamespace

import pytest
from simulation import MemoryFolder

from convae.config import TrialConfig
from study.folder import schema
from study.folder.checkpoints import Checkpoint, Spent, load_checkpoint, save_checkpoint
from study.plan.trials import PlannedTrial
from study.tune import lane_trial
from study.tune.engines import Attempt
from study.tune.lane_trial import LaneTrial
from study.tune.trainable import EPOCH

CONFIG = TrialConfig(model="dense", epochs=9, split="search")
PLANNED = PlannedTrial(
    "search-dense-001", schema.SEARCH, CONFIG, "", "", prunable=True, report_epochs=(3, 6)
)


ATTEMPT = Attempt(PLANNED.trial_id, os.getpid())


class PretendedEngine:
    """Trains whenever it is looked at: `pace` epochs for a report, one more for a checkpoint."""

    def __init__(self, pace, diverges_at=None):
        self._pace, self._diverges_at = pace, diverges_at
        self.targets, self.removed = [], []

    def describe(self):
        return "a device"

    def submit(self, attempt, planned, until_epoch, state):
        self.epoch = 0 if state is None else int(state[0])
        self._told, self._diverged_epoch = self.epoch, None
        self.targets.append(until_epoch)
        return 7

    def advance(self, attempt, until_epoch):
        assert self.epoch == self.targets[-1] < until_epoch
        self.targets.append(until_epoch)

    def report(self, attempt, timeout_seconds):
        self._train(self._pace)
        epochs = [
            {
                "epoch": epoch,
                "train_mse": 0.2,
                "eval_mse": 0.1,
                "train_seconds": 2.0,
                "eval_seconds": 0.5,
                "n_sharing": float(epoch % 2 + 1),
            }
            for epoch in range(self._told + 1, self.epoch + 1)
        ]
        self._told = self.epoch
        stands_still = self.epoch == self.targets[-1] or self._diverged_epoch is not None
        return {
            "epochs": epochs,
            "stands_still": stands_still,
            "diverged_epoch": self._diverged_epoch,
            "compile_seconds": 0.0,
        }

    def checkpoint(self, attempt):
        pace, self._pace = self._pace, 1
        report = self.report(attempt, 0.0)
        self._pace = pace
        return report, [self.epoch]

    def remove(self, attempt):
        self.removed.append(attempt)

    def _train(self, n_epochs):
        for _ in range(n_epochs):
            if self.epoch + 1 == self._diverges_at:
                self._diverged_epoch = self._diverges_at
            elif self.epoch < self.targets[-1]:
                self.epoch += 1


class Remote:
    """An object as Ray's handle of it; what it returns is there at once."""

    def __init__(self, actor):
        self._actor = actor

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self._actor, name))


@pytest.fixture
def begin(monkeypatch):
    """Begins the planned trial on an engine; every result leaves a checkpoint."""
    monkeypatch.setattr(lane_trial.ray, "get", lambda result: result)
    monkeypatch.setattr(LaneTrial, "checkpoint_seconds", 0.0)

    def begin_on(engine, folder):
        monkeypatch.setattr(lane_trial, "engine_here", lambda *_, **__: Remote(engine))
        trial = LaneTrial.__new__(LaneTrial)
        trial._folder, trial._node, trial._keeper, trial._gpu = folder, "a", None, False
        trial._begin(PLANNED.to_dict(), time.perf_counter())
        return trial

    return begin_on


def results_of(trial):
    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())
    return results


def assert_told_once(results, n_epochs):
    told = [row["epoch"] for result in results for row in result["history"]]
    assert told == list(range(1, n_epochs + 1))
    so_far = 0
    for result in results:
        so_far += len(result["history"])
        assert result[EPOCH] == so_far
        assert result["train_seconds"] == 2.0 * so_far


@pytest.mark.parametrize("pace", [0, 1, 2, 3, 9])
def test_every_epoch_is_told_once_and_the_scheduler_decides_at_its_epochs(begin, pace):
    engine, folder = PretendedEngine(pace), MemoryFolder()
    results = results_of(begin(engine, folder))
    assert_told_once(results, 9)
    assert {3, 6, 9} <= {result[EPOCH] for result in results}
    assert engine.targets == [3, 6, 9]
    assert results[-1]["n_sharing"] == pytest.approx(14 / 9)
    assert results[-1]["n_parameters"] == 7


@pytest.mark.parametrize("diverges_at", [1, 4, 5])
@pytest.mark.parametrize("pace", [0, 2])
def test_a_trial_that_diverges_ends_with_the_epochs_before(begin, pace, diverges_at):
    results = results_of(begin(PretendedEngine(pace, diverges_at), MemoryFolder()))
    assert_told_once(results, diverges_at - 1)
    assert results[-1]["diverged_epoch"] == diverges_at


def test_a_checkpoint_goes_on_in_another_engine_and_tells_its_epochs_again(begin):
    folder = MemoryFolder()
    trial = begin(PretendedEngine(1), folder)
    trial.step()
    trial.step()
    other = PretendedEngine(2)
    results = results_of(begin(other, folder))
    assert other.epoch == 9
    assert_told_once(results, 9)


def test_a_lane_and_a_cpus_trainer_do_not_take_each_others_checkpoints(begin):
    folder, checkpoint = MemoryFolder(), Checkpoint([{"epoch": 1}], Spent(), [])
    save_checkpoint(folder, PLANNED.trial_id, CONFIG.to_dict(), checkpoint)
    engine = PretendedEngine(1)
    trial = begin(engine, folder)
    assert trial.step()[EPOCH] == 1
    assert engine.targets == [3]
    assert load_checkpoint(folder, PLANNED.trial_id, CONFIG.to_dict()) is None


def test_a_trial_that_is_cut_off_keeps_what_it_has_and_leaves_its_lane(begin, monkeypatch):
    monkeypatch.setattr(LaneTrial, "checkpoint_seconds", 1000.0)
    engine, folder = PretendedEngine(1), MemoryFolder()
    trial = begin(engine, folder)
    trial.step()
    trial.cleanup()
    assert engine.removed == [ATTEMPT]
    assert_told_once(results_of(begin(PretendedEngine(1), folder)), 9)
    (name,) = folder.files
    assert PLANNED.trial_id in name


def test_a_trial_leaves_its_lane_when_another_takes_its_place(begin):
    engine = PretendedEngine(1)
    trial = begin(engine, MemoryFolder())
    trial.step()
    assert trial.reset_config(PLANNED.to_dict())
    assert engine.removed == [ATTEMPT]


def test_a_worker_that_is_dropped_before_it_trains_asks_for_no_lane(begin):
    """Ray Tune starts one for a trial, and drops it if another has become free meanwhile."""
    engine, folder = PretendedEngine(1), MemoryFolder()
    begin(engine, folder).cleanup()
    assert not engine.targets
    assert not engine.removed
    assert not folder.files
