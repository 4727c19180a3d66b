"""Silent trials: when they are named and ended by a clock, and real processes that are stopped."""

import os
import re
import signal
from types import SimpleNamespace

import pytest
import ray
from running import ENGINE, TRIAL, Study, processes

from analysis.load import load_run
from study.folder import schema
from study.plan.silence import Patience, Silence, Watch
from study.tune.workers import Workers

PATIENCE = Patience(60.0, 10.0, 5.0, 3600.0)


class Clock:
    """Time that passes when it is told to, looked at every second."""

    def __init__(self):
        self.now = 100.0
        self.watch = Watch(PATIENCE, lambda: self.now)

    def wait(self, seconds, answers=()):
        """Returns the last look; the trials that answer tell nothing new."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for trial_id in answers:
                self.watch.hear(trial_id, 0, waits=False)
            found = {silence.trial_id: silence for silence in self.watch.look()}
        return found


def test_a_trial_is_named_after_a_minute_and_ended_after_five():
    clock = Clock()
    clock.watch.begin("a")
    assert not clock.wait(59)
    silence = clock.wait(1)["a"]
    assert (silence.seconds, silence.answers, silence.too_long) == (60.0, False, False)
    assert not clock.wait(239)["a"].too_long
    assert clock.wait(1)["a"].too_long
    clock.watch.forget("a")
    assert not clock.wait(1)


def test_a_first_epoch_may_take_an_hour_as_long_as_its_process_answers():
    clock = Clock()
    clock.watch.begin("a")
    silence = clock.wait(3599, answers=["a"])["a"]
    assert silence.answers
    assert not silence.too_long
    assert clock.wait(1, answers=["a"])["a"].too_long


def test_later_the_longest_epoch_so_far_says_how_long():
    clock = Clock()
    clock.watch.begin("a")
    for seconds in (5, 20, 10):
        clock.wait(seconds)
        clock.watch.hear("a", 1, waits=False)
    assert not clock.wait(199, answers=["a"])
    assert not clock.wait(1, answers=["a"])["a"].too_long
    assert clock.wait(800, answers=["a"])["a"].too_long


def test_one_that_waits_for_a_lane_is_not_silent_as_long_as_it_says_so():
    clock = Clock()
    clock.watch.begin("a")
    for _ in range(20):
        assert not clock.wait(50)
        clock.watch.hear("a", 0, waits=True)
    assert clock.wait(60)


def test_time_in_which_nobody_listened_does_not_count():
    """As when the driver is stopped with its workers, or the machine sleeps."""
    clock = Clock()
    clock.watch.begin("a")
    clock.wait(50)
    clock.now += 10_000
    assert not clock.wait(10)
    assert clock.wait(1)["a"].seconds == 60.0


def trial_on(worker):
    return SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=worker))


def test_a_trial_that_takes_over_a_worker_hangs_on_the_engine_of_the_one_before(monkeypatch):
    """Or its worker is ended, which costs it a retry, as it waits for an engine that is stopped."""
    ended = []
    keeper = SimpleNamespace(
        end_silent=SimpleNamespace(remote=lambda engine, seconds: ended.append((engine, seconds)))
    )
    monkeypatch.setattr(ray, "get", lambda _: True)
    workers = Workers(keeper, ping_seconds=7.0)
    workers.heard(trial_on("a worker"), 3, "a node")
    silence = Silence("next", 300.0, answers=False, too_long=True)
    assert workers.end(trial_on("a worker"), silence)
    assert ended == [(3, 7.0)]


OPTIONS = ["--preset", "reference", "--models", "dense", "--hidden", "64", "128", "256"]
OPTIONS += ["--epochs", "4", "--gpus", "0", "--cpus-per-trial", "1", "--max-concurrent", "2"]


def stop_one_of(study, kind, trial):
    """Stops a process of a study, of a kind, which must be told of with the trial."""
    study.wait_for("training on")
    stopped = study.wait_until(lambda: processes(kind, study.mark))[0]
    os.kill(stopped, signal.SIGSTOP)
    study.wait_for(rf"{trial}  (silent|without an epoch) for .* \(node .*, process \d+\)$")


def finish(study):
    """Lets it end; returns its exit code, its lines, and its trials by size."""
    code, lines = study.rest()
    return code, lines, load_run(study.folder)[0].set_index("hidden_units")


@pytest.mark.cluster
def test_a_stopped_worker_and_a_trial_that_sleeps_for_ever_cost_the_others_nothing(tmp_path):
    limit = ["--trial-time-limit", "20"]
    environment = {"PATIENCE_SECONDS": "8", "SLEEPS_AT": "64 3"}
    study = Study("noise_study.py", tmp_path, *OPTIONS, *limit, **environment)
    stop_one_of(study, TRIAL, "dense-256-s0")
    study.wait_for(r"dense-256-s0  silent for \d+ s .* is ended$")
    code, lines, trials = finish(study)
    assert code == 1, lines
    assert (trials.state[256], trials.n_retries[256]) == (schema.COMPLETED, 1)
    assert (trials.state[128], trials.n_retries[128]) == (schema.COMPLETED, 0)
    sleeper = trials.loc[64]
    assert (sleeper.state, sleeper.n_retries) == (schema.FAILED, 0)
    assert sleeper.error == "It trained for longer than the 20 s of --trial-time-limit."
    assert sleeper.epochs_completed == 2


@pytest.mark.cluster
def test_an_engine_that_is_stopped_is_replaced(tmp_path):
    options = [*OPTIONS, "--lanes", "3", "--epochs", "300"]  # or they end before it is stopped
    study = Study("noise_study.py", tmp_path, *options, PATIENCE_SECONDS="8")
    stop_one_of(study, ENGINE, r"dense-\d+-s0")  # whose turn it was
    code, lines, trials = finish(study)
    assert code == 0, lines
    # By the driver, or by another trial that asks for an engine and is told that it is unavailable.
    again = [line for line in lines if re.search(", starts again|, retry ", line)]
    assert all("lost its engine, starts again" in line for line in again), lines
    assert len(again) == trials.n_retries.sum() >= 1
    assert set(trials.state) == {schema.COMPLETED}
    assert trials.n_retries.max() == 1
