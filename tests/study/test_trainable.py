"""What a trial's worker tells Ray Tune, with an engine that pretends, and with the CPU's."""

import os
import time
from dataclasses import replace

import pytest
from closed_form import ClosedFormEngine
from ray.exceptions import ActorDiedError, RayTaskError
from simulation import MemoryFolder

from convae.config import TrialConfig
from convae.errors import EngineError, EngineLostError
from convae.results import EpochResult, Fallback, Report, Status
from study.folder import schema
from study.folder.checkpoints import checkpoint_name
from study.plan.trials import PlannedTrial
from study.tune.engines import Attempt, Ready
from study.tune.trainable import (
    FALLBACK,
    N_EPOCHS,
    OVER_TIME,
    PLANNED,
    OverTimeError,
    StudyTrial,
    WorkerSettings,
)

CONFIG = TrialConfig(model="dense", epochs=9, split="search")
PLAN = PlannedTrial(
    "search-dense-001", schema.SEARCH, CONFIG, "dense-512", "", prunable=True, report_epochs=(3, 6)
)
ATTEMPT = Attempt(PLAN.trial_id, os.getpid(), "a")


class PretendedEngine:
    """Trains whenever it is looked at: `pace` epochs for a report, one more for a checkpoint."""

    in_lanes = True
    report_seconds = 5.0
    is_ready = True
    fallback = None

    def __init__(self, pace, diverges_at=None, chunk_size=64):
        self._pace, self._diverges_at, self._chunk_size = pace, diverges_at, chunk_size
        self.targets, self.removed = [], []

    def describe(self):
        return "a device"

    def ready(self, planned, timeout_seconds):
        if self.is_ready:
            return Ready({"chunk_size": self._chunk_size}, self.fallback)
        self.is_ready = True
        return None

    def submit(self, attempt, planned, until_epoch, state):
        self.epoch = 0 if state is None else int(state[0])
        self._told, self._diverged_epoch = self.epoch, None
        self.targets.append(until_epoch)
        return 7

    def advance(self, attempt, until_epoch):
        assert self.epoch == self.targets[-1] < until_epoch
        self.targets.append(until_epoch)

    def report(self, attempt, timeout_seconds):
        return self._report(self._pace)

    def checkpoint(self, attempt):
        return self._report(1), [self.epoch]

    def remove(self, attempt):
        self.removed.append(attempt)

    def _report(self, n_epochs):
        for _ in range(n_epochs):
            if self.epoch + 1 == self._diverges_at:
                self._diverged_epoch = self._diverges_at
            elif self.epoch < self.targets[-1]:
                self.epoch += 1
        epochs = [
            EpochResult(epoch, 0.2, 0.1, 2.0, 0.5, n_sharing=float(epoch % 2 + 1))
            for epoch in range(self._told + 1, self.epoch + 1)
        ]
        self._told = self.epoch
        status = Status.PAUSED if self.epoch == self.targets[-1] else Status.RUNNING
        if self._diverged_epoch is not None:
            status = Status.DIVERGED
        return Report(status, epochs, self._diverged_epoch, train_seconds=float(self.epoch))


def begin(engine, folder, checkpoint_seconds=0.0, planned=PLAN, **more):
    """Begins the planned trial on an engine; by default every result leaves a checkpoint."""
    folder.files.setdefault(schema.MANIFEST_FILE, b"{}")
    trial = StudyTrial.__new__(StudyTrial)  # without Ray Tune's logs
    settings = WorkerSettings(checkpoint_seconds=checkpoint_seconds)
    trial.setup({PLANNED: planned}, lambda: engine, folder, settings=settings, node="a", **more)
    return trial


def results_of(trial):
    results = [trial.step()]
    while not results[-1]["done"]:
        results.append(trial.step())
    return results


def assert_told_once(results, n_epochs):
    told = [epoch.epoch for result in results for epoch in result["history"]]
    assert told == list(range(1, n_epochs + 1))
    so_far = 0
    for result in results:
        so_far += len(result["history"])
        assert result[N_EPOCHS] == so_far
        assert result["train_seconds"] == 2.0 * so_far


@pytest.mark.parametrize("pace", [0, 1, 2, 3, 9])
def test_every_epoch_is_told_once_and_the_scheduler_decides_at_its_epochs(pace):
    engine = PretendedEngine(pace)
    results = results_of(begin(engine, MemoryFolder()))
    assert_told_once(results, 9)
    assert {3, 6, 9} <= {result[N_EPOCHS] for result in results}
    assert engine.targets == [3, 6, 9]
    assert results[-1]["n_sharing"] == pytest.approx(14 / 9)
    assert results[-1]["n_parameters"] == 7


@pytest.mark.parametrize("diverges_at", [1, 4, 5])
@pytest.mark.parametrize("pace", [0, 2])
def test_a_trial_that_diverges_ends_with_the_epochs_before(pace, diverges_at):
    results = results_of(begin(PretendedEngine(pace, diverges_at), MemoryFolder()))
    assert_told_once(results, diverges_at - 1)
    assert results[-1]["diverged_epoch"] == diverges_at


def test_a_checkpoint_goes_on_in_another_engine_and_tells_its_epochs_again():
    folder = MemoryFolder()
    trial = begin(PretendedEngine(1), folder)
    trial.step()
    trial.step()
    other = PretendedEngine(2)
    results = results_of(begin(other, folder))
    assert other.epoch == 9
    assert_told_once(results, 9)


def test_a_lane_and_a_cpus_trainer_do_not_take_each_others_checkpoints():
    folder = MemoryFolder()
    kept_one = begin(ClosedFormEngine(), folder)
    kept_one.step()
    kept_one.cleanup()
    assert checkpoint_name(PLAN.trial_id) in folder.files
    engine = PretendedEngine(1)
    assert begin(engine, folder).step()[N_EPOCHS] == 1
    assert engine.targets == [3]
    assert begin(ClosedFormEngine(), folder).step()[N_EPOCHS] == 3  # it is of a lane now


def test_nothing_goes_on_in_a_program_of_another_shape():
    """Its steps would be of other images, and the sums of its epoch too."""
    folder = MemoryFolder()
    begin(PretendedEngine(2), folder).step()
    other = PretendedEngine(1, chunk_size=128)
    assert_told_once(results_of(begin(other, folder)), 9)
    assert other.targets == [3, 6, 9]
    assert begin(PretendedEngine(1, chunk_size=128), folder).step()[N_EPOCHS] > 3


def test_a_trial_waits_for_its_program_and_goes_on_by_what_takes_its_place():
    """Nothing of it is lost, though its checkpoint is for the program, which does not work here."""
    engine, folder = PretendedEngine(2), MemoryFolder()
    engine.is_ready = False
    trial = begin(engine, folder)
    waiting = trial.step()
    assert (waiting[N_EPOCHS], waiting["done"], waiting[FALLBACK]) == (0, False, None)
    assert not engine.targets
    assert trial.step()[N_EPOCHS] == 2
    instead = PretendedEngine(9, chunk_size=None)
    instead.fallback = Fallback("conv in 16 lanes", "no tiles", "Traceback")
    (result, *_) = results = results_of(begin(instead, folder))
    assert_told_once(results, 9)
    assert result["device"] == "a device (plain trainer)"
    assert result[FALLBACK] == instead.fallback


class EndingEngine(PretendedEngine):
    """Ends after so many reports."""

    def __init__(self, n_reports, error, pace=1):
        super().__init__(pace)
        self._n_left, self._error = n_reports, error

    def report(self, attempt, timeout_seconds):
        if not self._n_left:
            raise self._error
        self._n_left -= 1
        return super().report(attempt, timeout_seconds)


def failed(*, suspect):
    """An engine's failure as Ray tells of it."""
    error = EngineError("The engine has failed.")
    error.suspect = suspect
    return RayTaskError("report", "a traceback", error, "", 1, "").as_instanceof_cause()


@pytest.mark.parametrize(
    ("n_reports", "error", "is_suspect"),
    [
        (0, ActorDiedError(), True),  # perhaps it was being put into its lane
        (1, ActorDiedError(), False),
        (0, failed(suspect=True), True),
        (0, failed(suspect=False), False),
    ],
)
def test_an_engines_end_is_only_blamed_on_a_trial_that_is_suspect(n_reports, error, is_suspect):
    trial = begin(EndingEngine(n_reports, error), MemoryFolder(), checkpoint_seconds=1000.0)
    for _ in range(n_reports):
        trial.step()
    with pytest.raises(type(error) if is_suspect else EngineLostError):
        trial.step()
    if not n_reports:
        return
    mine = replace(PLAN, config=TrialConfig(model="mine", arguments="{}", epochs=9))
    custom = begin(EndingEngine(1, error), MemoryFolder(), 1000.0, mine)
    custom.step()
    with pytest.raises(type(error)):
        custom.step()


def test_a_cpus_trial_pauses_where_the_scheduler_decides_and_says_nothing_of_others():
    results = results_of(begin(ClosedFormEngine(), MemoryFolder(), checkpoint_seconds=1000.0))
    assert [result[N_EPOCHS] for result in results] == [3, 6, 9]
    assert "n_sharing" not in results[-1]
    assert [len(result["history"]) for result in results] == [3, 3, 3]


def test_a_trial_that_is_cut_off_keeps_what_it_has_and_leaves_its_lane():
    engine, folder = PretendedEngine(1), MemoryFolder()
    trial = begin(engine, folder, checkpoint_seconds=1000.0)
    trial.step()
    trial.cleanup()
    assert engine.removed == [ATTEMPT]
    assert checkpoint_name(PLAN.trial_id) in folder.files
    assert_told_once(results_of(begin(PretendedEngine(1), folder)), 9)


def test_a_trial_leaves_its_lane_when_another_takes_its_place():
    engine = PretendedEngine(1)
    trial = begin(engine, MemoryFolder())
    trial.step()
    assert trial.reset_config({PLANNED: PLAN})
    assert engine.removed == [ATTEMPT]


def test_a_worker_that_is_dropped_before_it_trains_asks_for_no_lane():
    """Ray Tune starts one for a trial, and drops it if another has become free meanwhile."""
    engine, folder = PretendedEngine(1), MemoryFolder()
    begin(engine, folder).cleanup()
    assert not engine.targets
    assert not engine.removed
    assert checkpoint_name(PLAN.trial_id) not in folder.files


def test_a_trial_that_goes_on_at_a_rung_lets_the_scheduler_decide_first():
    """The driver may have died before it decided; afterwards the trial trains on from there."""
    folder = MemoryFolder()
    trial = begin(PretendedEngine(pace=3), folder)
    trial.step()
    again = PretendedEngine(pace=3)
    trial = begin(again, folder)
    result = trial.step()
    assert (result[N_EPOCHS], len(result["history"]), again.targets) == (3, 3, [])
    results = results_of(trial)
    assert [epoch.epoch for result in results for epoch in result["history"]] == list(range(4, 10))
    assert again.targets == [6, 9]


def test_a_trial_over_its_time_limit_ends_with_the_epochs_that_it_had():
    """An epoch takes 2.5 s, every other one 4.5 s since it shares its device."""
    folder = MemoryFolder()
    trial = begin(PretendedEngine(pace=1), folder, checkpoint_seconds=60.0, limit_seconds=10.0)
    results = [trial.step() for _ in range(3)]
    assert [result[OVER_TIME] for result in results[:2]] == [None, None]
    assert results[2][OVER_TIME] == "It trained for longer than the 10 s of --trial-time-limit."
    assert (results[2][N_EPOCHS], results[2]["done"]) == (3, False)
    with pytest.raises(OverTimeError, match="longer than the 10 s"):
        trial.step()


def test_a_trial_that_waits_uses_up_none_of_its_time():
    """For a compilation, for a lane, for the scheduler; then an epoch that does not end does."""
    engine = WaitingEngine()
    trial = begin(engine, MemoryFolder(), checkpoint_seconds=60.0, limit_seconds=0.3)
    for status in (Status.WAITING, Status.WAITING, Status.RUNNING):
        engine.status = status
        time.sleep(0.4)
        assert trial.step()[OVER_TIME] is None
    time.sleep(0.4)
    assert trial.step()[OVER_TIME]


class WaitingEngine(PretendedEngine):
    """Never ends an epoch."""

    is_ready = False

    def __init__(self):
        super().__init__(pace=0)

    def _report(self, n_epochs):
        return Report(self.status, [], None)
