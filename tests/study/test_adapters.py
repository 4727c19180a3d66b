"""What Ray Tune is given to ask and to tell, without Ray's processes: fake trials, real errors."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from simulation import MemoryFolder, totals

from convae.errors import EngineLostError
from convae.results import EpochResult
from study.folder import schema
from study.folder.storage import RunFolderError
from study.plan.ledger import Ledger, Listener
from study.plan.phases import Plan
from study.plan.silence import Watch
from study.plan.spec import StudySpec
from study.tune.adapters import (
    INTERRUPTS,
    MAX_LOST_NODES,
    LedgerCallback,
    PlanSearcher,
    SearchScheduler,
    StudyStopper,
    error_line,
    places_by_signals,
)
from study.tune.trainable import ENGINE, N_EPOCHS, NODE, OVER_TIME, PLANNED, WAITS

SPEC = StudySpec(
    preset="test", models=("conv",), epochs=9, n_search_trials=8, grace_epochs=3, n_finalists=0
)


def result(n_epochs, mse, node="a", n_sharing=1.0):
    """What a trial reports that has trained so far, all of its epochs.

    A trial on a CPU says nothing of others.
    """
    history = [EpochResult(epoch, 0.1, mse, 1.0, 0.0) for epoch in range(1, n_epochs + 1)]
    values = {N_EPOCHS: n_epochs, NODE: node, ENGINE: 3, WAITS: False}
    values |= {"history": history, schema.OBJECTIVE: mse}
    values |= totals(n_epochs) | {"n_sharing": n_sharing}
    return {name: value for name, value in values.items() if (name, value) != ("n_sharing", None)}


class Trial(SimpleNamespace):
    """What the adapters, and Ray's schedulers, look at of a trial."""

    __hash__ = object.__hash__


class Tune(Listener):
    """Ray Tune's side of a study."""

    def __init__(self, spec, folder, files=None, alive=(), n_places=None):
        self.folder = folder
        self.ledger = Ledger(MemoryFolder(files), resume=files is not None)
        self.plan = plan = Plan(spec, self.ledger, enforce_alone=False, n_places=n_places)
        self.stopper = StudyStopper(self.ledger, None)
        self.searcher, self.scheduler = PlanSearcher(plan, self.stopper), SearchScheduler(plan)
        self.clock, self.said, self.silent, self.killed = 0.0, [], {}, []
        self.ends_engine = False  # with a silent trial
        self.engines = {}
        self.node_of_worker = None
        watcher = SimpleNamespace(
            started=lambda _: None,
            say=lambda line, **_: self.said.append(line),
            note_silent=lambda silent: setattr(self, "silent", silent),
            tick=lambda **_: None,
        )
        self.callback = LedgerCallback(
            plan,
            self.ledger,
            self.searcher,
            self.stopper,
            watcher,
            lambda: set(alive),
            workers=SimpleNamespace(
                started=lambda _: None,
                place_of=lambda _: "node a, process 7",
                heard=lambda trial, engine, _: self.engines.update({trial.trial_id: engine}),
                node_of=lambda _: self.node_of_worker,
                engine_of=lambda trial: self.engines.get(trial.trial_id),
                end=self.end_silent,
            ),
            watch=Watch(clock=lambda: self.clock),
        )
        self.notes = []
        self.ledger.listeners.append(self)

    def failed_once(self, row, note):
        self.notes.append(note)

    def end_silent(self, trial, silence):
        self.killed.append((trial.trial_id, self.engines.get(trial.trial_id)))
        return self.ends_engine

    def wait(self, seconds):
        """Time passes, in which Tune looks at nothing but the clock."""
        for _ in range(int(seconds)):
            self.clock += 1.0
            self.callback.on_step_end()

    def start(self):
        trial = self.hand_out()
        self.callback.on_trial_start(trial=trial)
        return trial

    def hand_out(self):
        config = self.searcher.suggest("a name of Tune's")
        return Trial(
            trial_id=config[PLANNED].trial_id,
            status="RUNNING",
            config=config,
            last_result={},
            error_file=str(self.folder / "error.txt"),
            pickled_error_file=str(self.folder / "error.pkl"),
        )

    def report(self, trial, *reported, **more):
        """Returns whether the trial goes on."""
        trial.last_result = result(*reported, **more)
        decision = self.scheduler.on_trial_result(None, trial, trial.last_result)
        self.callback.on_trial_result(trial=trial, result=trial.last_result)
        return decision

    def end(self, trial):
        self.callback.on_trial_complete(trial=trial)

    def complete(self, trial):
        self.report(trial, 9, 0.02)
        self.end(trial)

    def fail(self, trial, error):
        """An attempt fails, the error as Tune leaves it."""
        with Path(trial.error_file).open("a", encoding="utf-8") as file:
            file.write("Failure # 1 (occurred at noon)\nTraceback:\n  File\n")
            file.write(f"{error}\n\n")
        Path(trial.pickled_error_file).write_bytes(cloudpickle.dumps(error))
        self.callback.on_trial_error(trial=trial)

    def fail_once(self, trial, error):
        """It does, and the trial is handed out again."""
        self.fail(trial, error)
        again = self.hand_out()
        assert again.trial_id == trial.trial_id
        return again


@pytest.fixture
def alive():
    """The nodes that Ray has: to be changed by the test."""
    return {"a", "b"}


@pytest.fixture
def tune(tmp_path, alive):
    return Tune(SPEC, tmp_path, alive=alive)


def died():
    return ActorDiedError()


def unavailable():
    return ActorUnavailableError("RpcError: Socket closed rpc_code: 14", None)


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known yet"])
def test_a_lost_node_uses_up_none_of_a_trials_retries_up_to_a_bound(tune, alive, known):
    trial = tune.hand_out()
    for _ in range(MAX_LOST_NODES + 2):
        alive.add("a")  # anew
        tune.callback.on_trial_start(trial=trial)
        tune.report(trial, 8, 0.5)
        if known:
            alive.remove("a")
        trial = tune.fail_once(trial, died() if known else unavailable())
    assert tune.notes == ["lost its node, starts again"] * MAX_LOST_NODES + [
        "failed, retry 1 of 2",
        "failed, retry 2 of 2",
    ]
    assert tune.ledger.row(trial.trial_id)["n_retries"] == MAX_LOST_NODES + 2


@pytest.mark.parametrize("told", [True, False], ids=["on its node", "before it told where it is"])
def test_a_worker_that_dies_alone_costs_a_retry(tune, alive, told):
    trial = tune.start()
    if told:
        tune.report(trial, 1, 0.5)
        alive.remove("b")  # another node's end is not the cause
    trial = tune.fail_once(trial, died())
    assert tune.notes == ["failed, retry 1 of 2"]
    if not told:
        alive.remove("b")  # perhaps its own
        tune.fail(trial, died())
        assert tune.notes[1:] == ["lost its node, starts again"]


def test_an_engine_that_ended_over_another_trial_costs_no_retry(tune):
    error = EngineLostError("The engine of a trial is gone.")
    trial = tune.start()
    tune.fail(trial, RayTaskError("step", "a traceback", error, "", 1, "").as_instanceof_cause())
    assert tune.notes == ["lost its engine, starts again"]


NO_MEMORY = OSError("killed: the node running low on memory")


def test_trials_that_run_out_of_memory_are_fewer_from_then_on(tmp_path):
    """Those that were ended start again once others end, which costs them no retry."""
    tune = Tune(replace(SPEC, n_seeds=8), tmp_path, n_places=3)
    first, second, third = (tune.start() for _ in range(3))
    for trial in (first, second):
        tune.fail(trial, NO_MEMORY)
        assert tune.searcher.suggest("none") is None
    assert tune.notes == [
        "starts again when another ends: at most 2 at once from now on",
        "starts again when another ends: at most 1 at once from now on",
    ]
    for ends, starts in ((third, first), (first, second)):
        tune.complete(ends)
        assert tune.start().trial_id == starts.trial_id
        assert tune.searcher.suggest("none") is None


def test_a_trial_that_runs_out_of_memory_by_itself_waits_and_uses_its_retries(tmp_path):
    tune = Tune(SPEC, tmp_path, n_places=1)
    trial = tune.start()
    for n in (1, 2):
        tune.fail(trial, NO_MEMORY)
        assert tune.notes[-1] == f"failed, retry {n} of 2 in {30 * n} s"
        assert tune.searcher.suggest("none") is None
        tune.searcher.rests_until -= 30 * n
        assert tune.start().trial_id == trial.trial_id
    tune.fail(trial, NO_MEMORY)
    assert tune.ledger.row(trial.trial_id)["state"] == schema.FAILED


def test_a_study_stops_while_it_waits_for_memory(tune):
    tune.fail(tune.start(), NO_MEMORY)
    tune.stopper.interrupted = True
    assert tune.searcher.suggest("none") == PlanSearcher.FINISHED


def test_a_node_may_be_lost_before_the_worker_has_started(tune, alive):
    """In the trial's first attempt and in a later one, which may be elsewhere than the first."""
    trial = tune.hand_out()
    tune.report(trial, 1, 0.5)
    alive.remove("a")
    trial = tune.fail_once(trial, died())
    trial = tune.fail_once(trial, died())  # of the nodes that are left, none is lost
    alive.remove("b")
    tune.fail(trial, died())
    assert tune.notes == [
        "lost its node, starts again",
        "failed, retry 1 of 2",
        "lost its node, starts again",
    ]


def test_a_free_worker_may_be_lost_with_its_node_before_a_trial_is_given_it(tune, alive):
    alive.add("b")
    tune.node_of_worker = "b"
    alive.remove("b")
    trial = tune.hand_out()  # while the worker's node is gone already
    tune.callback.on_trial_reuse(trial)
    tune.fail(trial, died())
    assert tune.notes == ["lost its node, starts again"]


def test_a_trial_on_a_cpu_shares_the_machine_with_its_neighbours_on_the_same_node(tune):
    """On average over its results; who is on another node, or has ended, is no neighbour."""
    trials = [tune.start() for _ in range(3)]

    def n_sharing(trial, n_epochs, node):
        tune.report(trial, n_epochs, 0.5, node=node, n_sharing=None)
        return tune.ledger.row(trial.trial_id)["n_sharing"]

    first, neighbour, elsewhere = trials
    assert n_sharing(first, 1, "a") == 1
    assert n_sharing(elsewhere, 1, "b") == 1
    assert n_sharing(neighbour, 1, "a") == 2
    assert n_sharing(first, 2, "a") == 1.5
    tune.end(neighbour)
    assert n_sharing(first, 3, "a") == pytest.approx(4 / 3)


def test_what_an_engine_says_of_a_trials_neighbours_is_believed(tune):
    trial = tune.start()
    for told in (3.5, 2.25):
        tune.report(trial, 1, 0.5, n_sharing=told)
        assert tune.ledger.row(trial.trial_id)["n_sharing"] == told


def test_an_error_of_the_training_is_no_lost_node_whatever_it_says(tune, alive):
    trial = tune.start()
    alive.clear()
    tune.fail(trial, OSError("The actor died because its node has died."))
    assert tune.notes == ["failed, retry 1 of 2"]
    assert tune.ledger.row(trial.trial_id)["error"] == "The actor died because its node has died."


def test_a_trial_over_its_time_limit_is_not_tried_again(tune):
    trial = tune.start()
    trial.last_result = result(2, 0.5) | {OVER_TIME: "It trained for too long."}
    tune.callback.on_trial_result(trial=trial, result=trial.last_result)
    tune.callback.on_trial_error(trial=trial)
    row = tune.ledger.row(trial.trial_id)
    assert (row["state"], row["error"]) == (schema.FAILED, "It trained for too long.")
    assert (row["epochs_completed"], row["n_retries"]) == (2, 0)


def test_a_silent_trial_is_named_and_then_ended_which_costs_it_a_retry(tune):
    trial, other = tune.start(), tune.start()
    tune.report(trial, 1, 0.5)
    for n_epochs in range(1, 7):
        tune.report(other, n_epochs, 0.5)
        tune.wait(50)
    assert list(tune.silent) == [trial.trial_id]
    assert tune.silent[trial.trial_id] == "silent for 5 min (node a, process 7)"
    assert tune.killed == [(trial.trial_id, 3)]
    assert tune.said == [
        f"{trial.trial_id}  silent for 300 s (node a, process 7): its worker is ended"
    ]
    tune.fail(trial, died())
    assert tune.notes == ["failed, retry 1 of 2"]
    error = tune.ledger.row(trial.trial_id)["error"]
    assert error == "It was silent for 300 s (node a, process 7)."
    tune.wait(1)
    assert tune.silent == {}


def test_an_engine_that_does_not_answer_is_ended_once_for_all_its_trials(tune):
    tune.ends_engine = True
    first, second = tune.start(), tune.start()
    for trial in (first, second):
        tune.report(trial, 1, 0.5)
    tune.wait(310)
    assert tune.killed == [(first.trial_id, 3)]
    for trial in (first, second):
        tune.fail(trial, EngineLostError("It did not answer."))
    assert tune.notes == ["lost its engine, starts again"] * 2


OF_A_MODEL = """(at 2026-11-29 18:00:00)
Traceback (most recent call last):
  File "trainable.py", line 1, in step
tensorflow.python.framework.errors_impl.InvalidArgumentError: Graph execution error:

ValueError: out of range: 42
Traceback (most recent call last):

  File "mine.py", line 7, in check
    if n > 6: raise ValueError("out of range: 42")
              ^^^^

ValueError: out of range: 42


\t [[{{node while/functional_1/check_1/EagerPyFunc}}]] [Op:__inference__train_epoch_370]
"""
DIED = "ray.exceptions.ActorDiedError: The actor is dead because its worker process has died. "


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (OF_A_MODEL, "ValueError: out of range: 42"),
        (DIED + "Worker exit type: SYSTEM_ERROR", "too little memory; train fewer trials at once"),
        (DIED + "the node running low on memory", "Its node ran out of memory and Ray ended"),
        ("TrialError: x: OOM when allocating tensor with shape[9,9]", "shape[9,9]); train fewer"),
    ],
)
def test_an_error_is_told_by_its_cause_and_remedy(text, line):
    assert line in error_line(text)


def test_the_searcher_waits_for_the_searches_and_says_when_it_is_finished(tmp_path):
    tune = Tune(replace(SPEC, n_search_trials=1), tmp_path)
    reference, searched = tune.start(), tune.start()
    assert tune.searcher.suggest("winner") is None
    tune.complete(reference)
    tune.report(searched, 9, 0.02)
    tune.end(searched)
    tune.complete(tune.start())
    assert tune.searcher.suggest("none") == Searcher.FINISHED
    states = [row["state"] for row in tune.ledger.rows()]
    assert states == [schema.COMPLETED] * 3


def test_only_prunable_trials_are_ended_early(tune):
    reference, yardstick = tune.start(), tune.start()
    others = [tune.start() for _ in range(4)]
    for trial in others:
        assert tune.report(trial, 3, 0.01) == TrialScheduler.CONTINUE
    for trial in (reference, yardstick):
        assert tune.report(trial, 3, 0.9) == TrialScheduler.CONTINUE
    bad = tune.start()
    assert tune.report(bad, 3, 0.9) == TrialScheduler.STOP
    tune.end(bad)
    assert tune.ledger.row(bad.trial_id)["state"] == schema.PRUNED


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_trials_are_compared_with_those_of_earlier_sessions(tmp_path, scheduler):
    spec = replace(SPEC, scheduler=scheduler)
    tune = Tune(spec, tmp_path)
    tune.complete(tune.start())
    tune.start()  # the yardstick, which is cut off
    for mse in (0.01, 0.02, 0.03, 0.04, 0.05):
        trial = tune.start()
        tune.report(trial, 3, mse)
        tune.end(trial)
    again = Tune(spec, tmp_path, dict(tune.ledger.folder.files))
    again.start()
    assert again.report(again.start(), 3, 0.9) == TrialScheduler.STOP
    assert again.report(again.start(), 3, 0.001) == TrialScheduler.CONTINUE


def test_a_trial_whose_loss_was_not_finite_has_nothing_to_compare(tune):
    tune.complete(tune.start())
    tune.start()
    trial = tune.start()
    trial.last_result = result(0, None) | {"history": [], "diverged_epoch": 1}
    tune.callback.on_trial_result(trial=trial, result=trial.last_result)
    decision = tune.scheduler.on_trial_result(None, trial, trial.last_result)
    assert decision == TrialScheduler.CONTINUE
    tune.end(trial)
    assert tune.ledger.row(trial.trial_id)["state"] == schema.DIVERGED


@pytest.fixture(params=INTERRUPTS)
def number(request):
    """Of a signal that ends this process, also where nohup has it ignored."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


def test_an_interrupt_stops_in_an_orderly_way_and_a_second_one_at_once(tune, number):
    before = signal.getsignal(number)
    trial = tune.start()
    with tune.stopper.catching_interrupts():
        assert not tune.stopper.stop_all()
        os.kill(os.getpid(), number)
        assert tune.stopper.stop_all()
        tune.end(trial)
        assert tune.ledger.row(trial.trial_id)["state"] == schema.RUNNING
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_signals_change_how_many_trials_train_at_once(tmp_path):
    tune = Tune(replace(SPEC, n_seeds=8), tmp_path, n_places=2)
    before = signal.getsignal(signal.SIGUSR1)
    trials = [tune.start(), tune.start()]
    with places_by_signals(tune.plan, most=3):
        assert tune.searcher.suggest("a third") is None
        for _ in range(2):  # the second finds no room
            os.kill(os.getpid(), signal.SIGUSR1)
        trials.append(tune.start())
        assert tune.searcher.suggest("a fourth") is None
        for _ in range(3):  # there is always one
            os.kill(os.getpid(), signal.SIGUSR2)
        for n_left in (2, 1, 0):
            tune.complete(trials.pop())
            assert (tune.plan.n_places, len(trials)) == (1, n_left)
            assert n_left == 0 or tune.searcher.suggest("none") is None
        tune.start()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_the_system_is_told_to_ignore_stays_ignored(tune):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with tune.stopper.catching_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not tune.stopper.stop_all()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_budget_and_a_storage_that_fails_stop_the_study(tune):
    assert StudyStopper(tune.ledger, 0.0).stop_all()
    assert not StudyStopper(tune.ledger, 1000.0).stop_all()
    tune.ledger.trouble = RunFolderError("disk full")
    assert tune.stopper.stop_all()
    assert not tune.stopper.interrupted


def test_nothing_of_a_study_is_copied_into_tunes_own_files(tune, tmp_path):
    for part in (tune.searcher, tune.scheduler, tune.stopper, tune.callback):
        assert len(cloudpickle.dumps(part)) < 200
    tune.searcher.save(str(tmp_path / "searcher"))
    assert (tmp_path / "searcher").read_bytes() == b""
    with pytest.raises(NotImplementedError):
        tune.searcher.restore(str(tmp_path / "searcher"))
