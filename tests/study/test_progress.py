"""What a person watching is told: lines, the live view, the time left, and the log file."""

import io
import logging
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from simulation import epoch_row, measured, planned

from convae.config import TrialConfig
from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.ledger import Ledger
from study.plan.phases import Plan
from study.plan.spec import StudySpec
from study.view.live import LiveView, RunningTrial, Status
from study.view.log import logging_to
from study.view.pace import Pace, Remaining, duration
from study.view.progress import STATUS_SECONDS, WAIT_SECONDS, Progress

# 2 reference trials, 4 search trials, 2 winners.
SPEC = StudySpec(preset="test", hidden_units=(512,), epochs=10, n_search_trials=4, n_finalists=0)
N_SLOTS = 2


def test_seconds_of_a_trial():
    pace = Pace()
    assert pace.seconds_of(Remaining("conv", 10)) is None
    pace.add_epochs("conv", 3, 6.0)
    pace.add_epochs("conv", 1, 4.0)
    assert pace.seconds_of(Remaining("conv", 10)) == 25.0  # 10 epochs of 2.5 s
    for overhead in (9.0, 1.0, 2.0):
        pace.add_trial("conv", overhead)
    assert pace.seconds_of(Remaining("conv", 10)) == 27.0
    assert pace.seconds_of(Remaining("conv", 4, epoch_seconds=3.0)) == 12.0  # it runs already
    assert pace.seconds_of(Remaining("dense", 1)) is None


def test_seconds_left_by_slots_and_phases():
    def trials(*seconds):
        return [Remaining("conv", 1, float(s)) for s in seconds]

    left = Pace().seconds_left
    assert left([trials(10, 4, 3)], 1) == 17
    assert left([trials(10, 4, 3)], 2) == 10  # the long one alone
    assert left([trials(4, 4, 4)], 2) == 8  # not 12 / 2
    assert left([trials(10, 4, 3), trials(5, 5)], 2) == 15
    assert left([trials(10, 4, 3), trials(5, 5)], 100) == 15
    assert left([[]], 2) == 0
    assert left([trials(10), [Remaining("dense", 1)]], 2) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "5 s"),
        (41, "45 s"),
        (89.9, "90 s"),
        (90, "2 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1 h 30 min"),
        (3 * 3600 + 241, "3 h 05 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


class Watched:
    """A Progress of trials that do what the test says, a clock that stands still, its output."""

    def __init__(self, folder, spec=SPEC, *, resume=False, terminal=False, quiet=False, lags=None):
        self.now = 1000.0
        self.ledger = Ledger(RunFolder(folder), resume=resume)
        self.plan = Plan(spec, self.ledger, enforce_alone=False, lags=lags)
        self.output = io.StringIO()
        size = {"width": 80, "height": 24, "_environ": {"TERM": "xterm"}}
        console = Console(file=self.output, force_terminal=terminal, highlight=False, **size)
        settings = {"quiet": quiet, "console": console, "clock": lambda: self.now}
        settings["seconds_left"] = spec.time_budget_seconds
        self.progress = Progress(self.ledger, self.plan, spec, N_SLOTS, "1 CPU", **settings)
        self.ledger.listeners.append(self.progress)

    def start(self):
        """Lets the next trial of the plan train."""
        planned = self.plan.next()
        self.progress.started(planned.trial_id)
        return planned

    def measure(self, planned, epochs, mse, epoch_seconds, *, diverged=False, overhead=0.0):
        """The trial's only report: epochs, the last with this MSE."""
        times = {"seconds": 0.75 * epoch_seconds, "eval_seconds": 0.25 * epoch_seconds}
        rows = [epoch_row(planned.config, e, mse, 2 * mse, **times) for e in range(1, epochs + 1)]
        ended = epochs + 1 if diverged else None
        told = measured(*rows, diverged_epoch=ended, overhead=overhead)
        self.ledger.measure(planned.trial_id, *told)

    def end(self, planned, *measured, **more):
        self.measure(planned, *measured, **more)
        self.ledger.end(planned.trial_id)

    def lines(self):
        return self.output.getvalue().splitlines()


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def under_way(watched):
    """A conv trial after 4 of 10 epochs of 2 s; dense-512 took 10 of 0.5 s and 1 s besides."""
    conv, dense = watched.start(), watched.start()
    watched.measure(conv, 4, 0.03, 2.0)
    watched.end(dense, 10, 0.01, 0.5, overhead=1.0)


def test_time_left(watched):
    assert watched.progress.status().left == "time left not known yet"
    conv, dense = watched.start(), watched.start()
    watched.measure(conv, 4, 0.03, 2.0)
    # The dense ones have nothing to go by.
    assert watched.progress.status().left == "time left not known yet"
    watched.end(dense, 10, 0.01, 0.5, overhead=1.0)
    # The conv trial: 12 s. Search: conv 20, dense 6, conv 20, dense 6 s; slots free at 12 and 20,
    # then 18, 38, 26. Winners from 38 on: conv 20 s.
    assert watched.progress.status().left == "at most about 60 s left"


def test_nothing_shortens_a_study_without_scheduler(tmp_path):
    watched = Watched(tmp_path, replace(SPEC, scheduler="none"))
    under_way(watched)
    assert watched.progress.status().left == "about 60 s left"


def test_time_left_by_the_budget(tmp_path):
    watched = Watched(tmp_path, replace(SPEC, time_budget_seconds=100.0))
    assert watched.progress.status().left == "at most 2 min left, by --time-budget"
    under_way(watched)
    assert watched.progress.status().left == "at most about 60 s left"
    watched.now += 60
    assert watched.progress.status().left == "at most 40 s left, by --time-budget"


def test_status_counts_every_state_and_takes_the_best_of_completed_trials_only(watched):
    under_way(watched)
    searched = [watched.start() for _ in range(4)]  # conv and dense in turns
    watched.end(searched[0], 10, 0.02, 1.0)
    watched.end(searched[2], 3, 0.001, 1.0)  # is pruned
    watched.end(searched[1], 2, 0.002, 1.0, diverged=True)
    watched.ledger.end(searched[3].trial_id, error="ValueError: no")
    status = watched.progress.status()
    assert status.states == {
        schema.COMPLETED: 2,
        schema.PRUNED: 1,
        schema.DIVERGED: 1,
        schema.FAILED: 1,
        schema.RUNNING: 1,
        "to come": 2,
    }
    assert status.best == {
        "conv": {schema.SEARCH: (0.02, "search-conv-000"), schema.REFERENCE: None},
        "dense": {schema.SEARCH: None, schema.REFERENCE: (0.01, "reference-dense-512-s0")},
    }
    (running,) = status.running
    assert running.planned.trial_id == "reference-conv-s0"
    assert (running.epoch, running.mse) == (4, "test_mse 0.03000")
    # 4 · 2 + 10 · 0.5 + 10 + 3 + 2
    assert status.spent == "29 epochs, 28 device seconds"


def test_a_resumed_study_counts_what_was_spent_before(tmp_path, watched):
    under_way(watched)
    watched.ledger.write()
    status = Watched(tmp_path, resume=True).progress.status()
    assert status.states[schema.COMPLETED] == 1
    assert status.states["to come"] == 7  # what was cut off runs again
    assert status.spent == "14 epochs, 13 device seconds"
    assert status.left == "time left not known yet"


def test_the_time_left_counts_no_trial_twice_that_a_resumed_study_takes_up(tmp_path):
    """Half a search has ended earlier, and one of its trials was cut off."""
    spec = replace(SPEC, models=("conv",), scheduler="none")
    before = Watched(tmp_path, spec)
    for _ in range(3):  # the reference and two of the search
        before.end(before.start(), 10, 0.02, 1.0)
    before.measure(before.start(), 4, 0.02, 1.0)
    again = Watched(tmp_path, spec, resume=True)
    cut_off = again.start()
    assert cut_off.trial_id == "search-conv-002"
    again.measure(cut_off, 5, 0.02, 1.0)
    # 5 s of it beside 10 s of the other, then the winner's 10 s.
    assert again.progress.status().states["to come"] == 2
    assert again.progress.status().left == "about 20 s left"


def test_lines_where_there_is_no_terminal(watched):
    with watched.progress.live():
        under_way(watched)
        watched.start()
        watched.end(watched.start(), 1, 0.5, 0.5, diverged=True)
    assert watched.lines() == [
        "[    0 s] training on a formula",
        "[    0 s] (1/8) reference-dense-512-s0  completed  10 epochs"
        "  train_mse 0.02000  test_mse 0.01000  trained 3.8 s",
        "[    0 s] (2/8) search-dense-000  diverged  1 epoch  train_mse 1.00000  val_mse 0.50000"
        "  trained 0.4 s  The loss stopped being finite in epoch 2.",
    ]


def test_the_status_is_a_line_a_minute(watched):
    under_way(watched)
    n_lines = len(watched.lines())
    for seconds in (0, STATUS_SECONDS - 1, 1, 1, STATUS_SECONDS - 2):
        watched.now += seconds
        watched.progress.tick(stopping=False)
    assert watched.lines()[n_lines:] == [
        "[   60 s] 1 completed, 1 running, 6 to come; 14 epochs, 13 device seconds; "
        "at most about 60 s left"
    ]


def test_a_study_without_a_trial_says_what_it_waits_for(watched):
    planned = watched.plan.next()
    for seconds in (WAIT_SECONDS - 1, 1, 1, WAIT_SECONDS - 1):
        watched.now += seconds
        watched.progress.tick(stopping=False)
    waits = [line for line in watched.lines() if "no trial runs" in line]
    assert len(waits) == 2
    assert waits[1].endswith("for 60 s waiting for a node with 1 CPU to spare")
    watched.progress.started(planned.trial_id)
    watched.now += 2 * WAIT_SECONDS
    watched.progress.tick(stopping=False)
    assert sum("no trial runs" in line for line in watched.lines()) == 2


def test_the_status_names_the_trial_for_which_a_place_waits(tmp_path):
    spec = replace(SPEC, models=("dense",), hidden_units=(512,), n_search_trials=4)
    watched = Watched(tmp_path, spec, lags={"dense": 1})
    watched.end(watched.start(), 10, 0.01, 0.5)  # the reference trial
    waited_for = watched.start()
    assert watched.plan.next() is None
    line = watched.progress.status().line()
    assert line.endswith(f"; the next proposal waits for {waited_for.trial_id}")
    watched.end(waited_for, 10, 0.01, 0.5)
    assert "waits" not in watched.progress.status().line()


def test_a_silent_trial_is_told_of_once_and_stays_in_the_status(watched):
    trial = watched.start().trial_id
    for seconds in (60, 65, 70):
        watched.progress.note_silent({trial: f"silent for {seconds} s (node a, process 7)"})
    (line,) = [line for line in watched.lines() if "silent" in line]
    assert line.endswith(f"{trial}  silent for 60 s (node a, process 7)")
    status = watched.progress.status().line()
    assert status.endswith(f"; {trial} silent for 70 s (node a, process 7)")
    watched.progress.note_silent({})
    assert "silent" not in watched.progress.status().line()


def test_that_a_study_is_being_stopped_is_said_once(watched):
    under_way(watched)
    for _ in range(2):
        watched.progress.tick(stopping=True)
    assert sum("stopping" in line for line in watched.lines()) == 1
    assert watched.progress.status().left == "stopping"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_failure_is_one_line_that_names_the_log(tmp_path, quiet):
    watched = Watched(tmp_path, quiet=quiet)
    watched.progress.say("a plan", always=True)
    under_way(watched)
    trial_id = watched.plan.next().trial_id
    # Its worker failed before it started.
    watched.ledger.fail_once(trial_id, "OSError: disk full", "failed, retry 1 of 2")
    watched.progress.started(trial_id)
    killed = "The actor is dead because its worker process has died. " + "Why? " * 99
    watched.ledger.end(trial_id, error=killed)
    lines = watched.lines()
    log = tmp_path / schema.LOG_FILE
    assert lines[-2].endswith(f"failed, retry 1 of 2  OSError: disk full (in full: {log})")
    assert f"failed  0 epochs  {killed[:55]}" in lines[-1]
    assert lines[-1].endswith(f"… (in full: {log})")
    assert len(lines) == 3 + 2 * (not quiet)
    row = watched.ledger.row(trial_id)
    assert (row["state"], row["error"], row["n_retries"]) == (schema.FAILED, killed, 1)


def drawn(status, width=80, height=24):
    console = Console(file=io.StringIO(), width=width, height=height, _environ={})
    console.print(LiveView(lambda: status))
    return console.file.getvalue().splitlines()


def test_the_view_fits_whatever_runs():
    def status(n):
        names = [f"search-conv-{i:03d}" for i in range(n)]
        trials = [planned(name, schema.SEARCH, TrialConfig(model="conv")) for name in names]
        running = [RunningTrial(trial, i, f"val_mse {i}") for i, trial in enumerate(trials)]
        long_name = planned("neighbour-" + "dense" * 20, schema.SEARCH, TrialConfig(model="dense"))
        running[2] = RunningTrial(long_name, 13, "val_mse 0.01234")
        states = dict.fromkeys((*schema.STATES, "to come"), 123)
        best = {model: {schema.SEARCH: (0.5, "conv-000")} for model in schema.MODELS}
        return Status(states, "1,000 epochs", "about 60 s left", best, running)

    few = drawn(status(3))
    assert [line.split()[0] for line in few[-3:-1]] == ["search-conv-000", "search-conv-001"]
    assert re.match(r"neighbour-dense\w*… .* 13/50 +val_mse 0.01234$", few[-1])
    for width, height in ((80, 24), (80, 60), (60, 12)):
        many = drawn(status(64), width, height)
        shown = sum("/50 " in line for line in many)
        assert many[-1] == f"and {64 - shown} more"
        assert shown >= 1
        assert max(map(len, many)) <= width
        if height >= 24:
            assert len(many) <= height - 8  # the finished trials above it stay in sight
            assert len(many) >= height - 9
    assert any("123 pruned" in line for line in many)


def test_a_terminal_gets_the_view_below_the_lines_and_its_cursor_back(tmp_path):
    watched = Watched(tmp_path, terminal=True)

    def interrupted():
        with watched.progress.live():
            under_way(watched)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    output = watched.output.getvalue()
    assert "reference-dense-512-s0  completed" in output
    assert "4/10  test_mse 0.03000" in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_a_quiet_terminal_gets_no_view(tmp_path):
    watched = Watched(tmp_path, terminal=True, quiet=True)
    with watched.progress.live():
        under_way(watched)
    assert watched.output.getvalue() == ""


def test_the_log_takes_what_ray_says_and_gives_everything_back(tmp_path, capsys):
    ray_logger = logging.getLogger("ray")
    before = ray_logger.handlers, ray_logger.level, ray_logger.propagate, sys.stdout
    for word in ("first", "second"):
        with logging_to(RunFolder(tmp_path)):
            logging.getLogger("ray.tune").warning("%s warning", word)
            logging.getLogger("study.view.progress").info("%s line", word)
            print("(raylet)", word, "complaint")
            print(word, "error", file=sys.stderr)
    assert capsys.readouterr() == ("", "")
    after = ray_logger.handlers, ray_logger.level, ray_logger.propagate, sys.stdout
    assert after == before
    log = (tmp_path / schema.LOG_FILE).read_text()
    for word in ("first", "second"):
        for what in ("warning", "line", "complaint", "error"):
            assert f"{word} {what}\n" in log
