"""What Ray Tune is given to ask and to tell: thin adapters to the plan, the ledger and the view.

Tune finds trials their workers; it keeps nothing that a study needs, and an attempt that fails is
the last one of its trial there: the plan hands a trial out again. What Tune copies of these
objects, to restore an experiment from, is never used.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, getsignal
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from convae.errors import EngineLostError
from convae.processes import handling_signals
from convae.results import EpochResult, Fallback
from study.folder import schema
from study.folder.tables import Row
from study.plan.ledger import Ledger, Listener
from study.plan.phases import Plan
from study.plan.silence import Watch
from study.plan.trials import PlannedTrial
from study.tune.trainable import ENGINE, FALLBACK, N_EPOCHS, NODE, OVER_TIME, PLANNED, WAITS
from study.tune.workers import Workers
from study.view.pace import duration
from study.view.progress import Progress

_log = logging.getLogger(__name__)
_OF_GRAPH = re.compile(r"\s*\[\[\{\{node |\s*\[\[.*\]\]$")  # TensorFlow's, below its errors
_TOO_LARGE = re.compile(r"OOM when allocating tensor with shape\S*|\bMemoryError\b.*|bad_alloc")
_MORE_MEMORY = "train fewer trials at once with --max-concurrent, or smaller ones"
_NO_MEMORY = f"Its node ran out of memory and Ray ended its process; {_MORE_MEMORY}."
MEMORY_SECONDS = 30.0  # in which no trial starts after one ran out of memory with none beside it
# In a session:
MAX_RETRIES = 2  # of a trial that failed with an error, or whose worker died
MAX_LOST_NODES = 10  # or engines, that a trial may lose without using up its retries
# From a person at the terminal, from a machine that is about to be taken away, and from a
# terminal that is gone.
INTERRUPTS = (SIGINT, SIGTERM, SIGHUP)


class _Uncopied:
    """Leaves nothing of itself in Ray Tune's own copies."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PlanSearcher(_Uncopied, Searcher):
    """Hands out the plan's trials, until the study stops."""

    def __init__(self, plan: Plan, stopper: "StudyStopper") -> None:
        super().__init__(metric=schema.OBJECTIVE, mode=schema.MODE)
        self._plan, self._stopper = plan, stopper
        self.rests_until = 0.0  # of `time.monotonic`

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial; None if there is none at present; FINISHED at the end."""
        if self._stopper.stop_all():  # while no trial is at work, Ray Tune asks nothing else
            return str(Searcher.FINISHED)
        if time.monotonic() < self.rests_until:
            return None
        if planned := self._plan.next():
            return {PLANNED: planned}
        return str(Searcher.FINISHED) if self._plan.is_finished else None

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """The ledger hears of it from `LedgerCallback`."""

    def save(self, checkpoint_path: str) -> None:
        """Leaves an empty file, which Ray Tune moves into place."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuses, see above."""
        raise NotImplementedError("A study is not restored from Ray Tune's own files.")


class SearchScheduler(_Uncopied, FIFOScheduler):
    """Ends trials early where the plan says so, by the rules of `study.plan.stopping`."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        # An epoch whose loss was not finite has no value to compare.
        if result.get(schema.OBJECTIVE) is None:
            return str(TrialScheduler.CONTINUE)
        epochs = {epoch.epoch: epoch.eval_mse for epoch in result["history"]}
        measured = {epoch: mse for epoch, mse in epochs.items() if mse is not None}
        goes_on = self._plan.goes_on(planned_of(trial), measured)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)


class StudyStopper(_Uncopied, tune.Stopper):
    """Stops the whole study at its time budget, at an interrupt, or when its storage fails."""

    stopping = False  # the study stops, so that nobody judges the trials that are cut off
    interrupted = False  # by a person or the system
    out_of_time = False  # its budget is spent

    def __init__(self, ledger: Ledger, budget_seconds: float | None) -> None:  # from now on
        self._ledger = ledger
        self._deadline = None if budget_seconds is None else time.monotonic() + budget_seconds

    @property
    def status(self) -> str:
        """How the study ended, if nothing broke."""
        if self.interrupted:
            return "interrupted"
        return "out of time" if self.out_of_time else "finished"

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended here."""
        return False

    def stop_all(self) -> bool:
        """Asked by Ray Tune all the time."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.out_of_time = True
        # For good: storage that works again must not have trials judged that were cut off.
        self.stopping |= self.interrupted or self.out_of_time or self._ledger.trouble is not None
        return self.stopping

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """While the block runs, the first interrupt stops the study in an orderly way."""

        def interrupt(*_: Any) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        # What nohup has the system ignore stays ignored.
        caught = [n for n in INTERRUPTS if n != SIGHUP or getsignal(n) != SIG_IGN]
        with handling_signals(dict.fromkeys(caught, interrupt)):
            yield


@contextmanager
def places_by_signals(plan: Plan, most: int) -> Iterator[None]:
    """While the block runs, SIGUSR1 lets one more trial train at once and SIGUSR2 one fewer.

    As xargs does with its processes. Trials that train are not ended for it.
    """

    def change(number: int, *_: Any) -> None:
        step = 1 if number == SIGUSR1 else -1
        plan.n_places = min(most, max(1, (plan.n_places or most) + step))

    with handling_signals(dict.fromkeys((SIGUSR1, SIGUSR2), change)):
        yield


def nodes_alive() -> set[str]:
    """The ids of Ray's nodes."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


class LedgerCallback(_Uncopied, tune.Callback, Listener):
    """Enters in the ledger what becomes of trials; the only place where Ray Tune reaches it.

    It listens to the ledger, and tells the progress of workers, and of time that passes.
    `on_fallback` is told once of each program that does not work on a device.
    """

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        searcher: PlanSearcher,
        stopper: StudyStopper,
        progress: Progress,
        nodes_alive: Callable[[], set[str]] = nodes_alive,
        on_fallback: Callable[[Fallback], None] = lambda _: None,
        workers: Workers | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._plan, self._searcher, self._on_fallback = plan, searcher, on_fallback
        self._workers, self._watch = workers or Workers(), watch or Watch()
        self._trials: dict[str, Trial] = {}  # that have a worker
        self._fallbacks: set[str] = set()  # programs that it was told of
        self._ledger, self._stopper, self._progress = ledger, stopper, progress
        self._nodes_alive = nodes_alive
        self._nodes: dict[str, set[str]] = {}  # that a trial's latest attempt may be on
        self._node_of: dict[str, str] = {}  # of the trials at work
        self._shared: dict[str, list[int]] = {}  # trials at work on its node, at each result
        self._reasons: dict[str, str] = {}  # why an attempt is about to be ended
        # Attempts by trial: that lost a node or engine, and those that used up a retry.
        self._n_lost, self._n_failed = Counter[str](), Counter[str]()
        ledger.listeners.append(self)

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """Notes which nodes there are as an attempt begins, should one of them be lost."""
        self._nodes[planned.trial_id] = self._nodes_alive()

    def on_trial_reuse(self, trial: Trial) -> None:
        """Watches a trial that is given the worker of another one, before that begins with it."""
        trial_id = trial_id_of(trial)
        self._trials[trial_id] = trial
        if node := self._workers.node_of(trial):  # which may have been lost since
            self._node_of[trial_id] = node
        self._watch.begin(trial_id)

    def on_trial_start(self, *, trial: Trial, **info: Any) -> None:
        """Tells of the worker; that of another trial may have been taken for it."""
        trial_id = trial_id_of(trial)
        self._progress.started(trial_id)
        self._nodes[trial_id] = self._nodes_alive()
        self._trials[trial_id] = trial
        self._workers.started(trial)
        self._watch.begin(trial_id)

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **info: Any) -> None:
        """Enters the epochs that a result brings."""
        trial_id = trial_id_of(trial)
        self._node_of[trial_id] = result[NODE]
        self._workers.heard(trial, result[ENGINE], result[NODE])
        self._watch.hear(trial_id, len(result["history"]), waits=result[WAITS])
        fallback = result.get(FALLBACK)
        if fallback is not None and fallback.program not in self._fallbacks:
            self._fallbacks.add(fallback.program)
            self._on_fallback(fallback)
        totals: dict[str, Any] = {n: result[n] for n in schema.TOTALS if n in result}
        if "n_sharing" not in totals:  # without lanes, trials share the CPUs of their node
            at_once = list(self._node_of.values()).count(result[NODE])
            seen = self._shared.setdefault(trial_id, [])
            seen.append(at_once)
            totals["n_sharing"] = sum(seen) / len(seen)
        rows = [row_of(epoch, planned_of(trial)) for epoch in result["history"]]
        self._ledger.measure(trial_id, result[N_EPOCHS], rows, totals)

    def on_trial_complete(self, *, trial: Trial, **info: Any) -> None:
        """Ends the trial; one that is cut off because the study stops goes on later."""
        self._forget(trial_id_of(trial))
        self._ledger.end(trial_id_of(trial), stopping=self._stopper.stopping)

    def on_trial_error(self, *, trial: Trial, **info: Any) -> None:
        """Enters a failed attempt, and that the trial starts again, if it may."""
        trial_id = trial_id_of(trial)
        # Over its time, a trial fails with the next step, so that nothing of it trains on.
        over_time = trial.last_result.get(OVER_TIME)
        error = over_time or self._reasons.get(trial_id) or _error_of(trial)
        note = None if over_time else self._why_again(trial, error)
        self._forget(trial_id)
        if note is None:
            self._ledger.end(trial_id, error=error)
        else:
            self._ledger.fail_once(trial_id, error, note)

    def _why_again(self, trial: Trial, error: str) -> str | None:
        """Why a trial starts again, in words; None if it has failed for good.

        A lost node, or engine, is no fault of the trial's, nor is memory that others used.
        """
        trial_id, n_at_work = trial_id_of(trial), self._plan.n_at_work
        if self._n_lost[trial_id] < MAX_LOST_NODES and (lost := self._lost(trial)):
            self._n_lost[trial_id] += 1
            return f"lost its {lost}, starts again"
        if error == _NO_MEMORY and n_at_work > 1:
            n = min(self._plan.n_places or n_at_work, n_at_work) - 1
            self._plan.n_places = n
            return f"starts again when another ends: at most {n} at once from now on"
        if self._n_failed[trial_id] == MAX_RETRIES:
            return None
        self._n_failed[trial_id] += 1
        note = f"failed, retry {self._n_failed[trial_id]} of {MAX_RETRIES}"
        if error == _NO_MEMORY:
            seconds = MEMORY_SECONDS * self._n_failed[trial_id]
            self._searcher.rests_until = time.monotonic() + seconds
            note += f" in {seconds:.0f} s"
        return note

    def on_step_end(self, **info: Any) -> None:
        """Looks for silent trials, and lets the view look at the clock."""
        silent: dict[str, str] = {}
        gone: set[int | None] = set()  # engines that were ended just now
        for silence in self._watch.look():
            trial_id, seconds = silence.trial_id, silence.seconds
            trial = self._trials[trial_id]
            place = self._workers.place_of(trial)
            silent[trial_id] = f"{silence.what} for {duration(seconds)} ({place})"
            engine = self._workers.engine_of(trial)
            if silence.too_long and engine in gone:
                self._watch.begin(trial_id)
            elif silence.too_long:
                told = f"{silence.what} for {seconds:.0f} s ({place})"
                if self._workers.end(trial, silence):
                    ended = "engine"
                    gone.add(engine)
                    # Its attempt ends, or goes on with another engine if it had not begun.
                    self._watch.begin(trial_id)
                else:
                    ended = "worker"
                    self._reasons[trial_id] = f"It was {told}."
                    self._watch.forget(trial_id)
                self._progress.say(f"{trial_id}  {told}: its {ended} is ended", always=True)
        self._progress.note_silent(silent)
        self._progress.tick(stopping=self._stopper.stopping)

    def _forget(self, trial_id: str) -> None:
        self._watch.forget(trial_id)
        by_trial: tuple[dict[str, Any], ...] = (self._nodes, self._node_of, self._reasons)
        for known in (*by_trial, self._trials):
            known.pop(trial_id, None)

    def _lost(self, trial: Trial) -> str | None:
        """What ended the attempt, if not the trial: the loss of its engine, or of a node."""
        # A worker that never told where it is was on a node that was there as its attempt began.
        known = self._node_of.get(trial_id_of(trial))
        nodes = self._nodes[trial_id_of(trial)] if known is None else {known}
        if trial.pickled_error_file is None:
            return None
        with Path(trial.pickled_error_file).open("rb") as file:  # this process wrote it just now
            error = cloudpickle.load(file)
        if isinstance(error, ActorUnavailableError):  # its node does not answer, Ray knows not why
            return "node"
        if isinstance(error, ActorDiedError) and not self._nodes_alive() >= nodes:
            return "node"
        return "engine" if isinstance(error, EngineLostError) else None


def planned_of(trial: Trial) -> PlannedTrial:
    """The plan of one of Ray Tune's trials."""
    planned: PlannedTrial = trial.config[PLANNED]
    return planned


def trial_id_of(trial: Trial) -> str:
    """The plan's name of a trial; Ray Tune has one of its own."""
    return planned_of(trial).trial_id


def row_of(epoch: EpochResult, planned: PlannedTrial) -> Row:
    """An epoch as the ledger has it."""
    return {
        "epoch": epoch.epoch,
        schema.TRAIN_MSE: epoch.train_mse,
        schema.EVAL_METRICS[planned.config.split]: epoch.eval_mse,
        "train_seconds": epoch.train_seconds,
        "eval_seconds": None if epoch.eval_mse is None else epoch.eval_seconds,
    }


def _error_of(trial: Trial) -> str:
    """The error of an attempt, in a line; the whole of it is logged.

    Ray Tune's get_error() reads a copy that is written later.
    """
    text = Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure # ")[2]
    error = text.partition("\n")[2]
    _log.error("%s: an attempt failed:\n%s", trial_id_of(trial), error.rstrip())
    return error_line(error)


def error_line(text: str) -> str:
    """The error that a traceback tells, in a line: of an operation of TensorFlow's, its cause.

    Where a process ran out of memory, or most likely did, what to do about it.
    """
    lines = [line for line in text.splitlines() if line.strip() and not _OF_GRAPH.match(line)]
    indented = [i for i, line in enumerate(lines) if line.startswith((" ", "\t"))]
    line = lines[min(max(indented, default=-1) + 1, len(lines) - 1)].strip()
    if "low on memory" in text:
        return _NO_MEMORY
    if "worker process has died" in text:
        why = "by a custom model's own doing or, most likely, of too little memory"
        return f"Its process died, {why}; {_MORE_MEMORY}. {line}"
    if found := _TOO_LARGE.search(text):
        return f"It needs more memory than there is ({found[0].strip()}); {_MORE_MEMORY}."
    return line
