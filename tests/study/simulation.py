"""A study without Ray: plan, ledger and folder, driven by an executor that can do everything.

Trials train in a random order on a few slots, and are pruned, diverge, fail and are retried; the
process dies in the middle of any write, or the study is interrupted, and a later session goes on.
"""

import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field

from closed_form import final_mse

from convae.config import TrialConfig
from convae.sharing import DeviceSharing
from study.folder import schema
from study.folder.manifest import Manifest, read_manifest
from study.folder.storage import RunFolder
from study.folder.tables import read_tables
from study.plan.labels import label_of
from study.plan.ledger import ENDS, Ledger, config_of_row
from study.plan.phases import Plan
from study.plan.spec import StudySpec
from study.plan.trials import (
    PlannedTrial,
    count_trials,
    reference_config,
    searching_trials,
    setting_of,
)

AS_OPTUNA = {
    schema.COMPLETED: "COMPLETE",
    schema.PRUNED: "PRUNED",
    schema.DIVERGED: "FAIL",
    schema.FAILED: "FAIL",
}


class Death(BaseException):
    """The process is gone: nothing catches it."""


class MemoryFolder(RunFolder):
    """A run folder in memory, whose process dies over the n-th change, before or after it.

    Args:
        dies_at: the number of the change; None to live.
        done: whether that change is made.
    """

    def __init__(self, files=None, dies_at=None, *, done=False):
        super().__init__("/simulated/study")
        self.files = {} if files is None else files
        self.n_changes, self._dies_at, self._done = 0, dies_at, done

    def _change(self, change):
        self.n_changes += 1
        if self.n_changes == self._dies_at:
            if self._done:
                change()
            raise Death
        change()

    def write(self, name, content):
        self._change(lambda: self.files.__setitem__(name, content))

    def delete(self, name):
        if name in self.files:
            self._change(lambda: self.files.pop(name))

    def read(self, name):
        return self.files.get(name)

    def names(self, folder):
        return sorted(name for name in self.files if name.startswith(f"{folder}/"))

    def tidy(self):
        pass

    def sweep(self):
        pass


@dataclass
class Chances:
    """Of what may happen to a trial at each of its epochs, and to the study at each step."""

    prune: float = 0.0
    diverge: float = 0.0
    fail: float = 0.0
    fail_for_good: float = 0.0
    interrupt: float = 0.0


@dataclass
class Executor:
    """What Ray Tune and the workers do, in an order that chance decides."""

    spec: StudySpec
    rng: random.Random
    chances: Chances = field(default_factory=Chances)
    n_slots: int = 2
    # A worker's checkpoints outlive it and the driver.
    checkpoints: dict = field(default_factory=dict)
    n_trained: Counter = field(default_factory=Counter)
    lag: int | None = None  # of the searches, which then end trials by the study's own scheduler

    def session(self, folder):
        """Runs or resumes the study; returns the plan and the ledger. Death passes through."""
        resume = folder.read(schema.MANIFEST_FILE) is not None
        earlier = read_manifest(folder) if resume else None
        # A quarter of a second goes by whenever it looks, so that tables come now and then.
        ledger = Ledger(folder, resume=resume, clock=itertools.count(0, 0.25).__next__)
        manifest = Manifest(
            folder,
            ["simulated"],
            earlier=earlier,
            code=dict.fromkeys(("version", "git_commit", "git_dirty")),
            versions={"simulated": "1"},
            spec=self.spec.to_dict(),
            spaces=[[]],
            data={"source": "none"},
            hardware=dict.fromkeys(("cpu", "n_cpus", "memory_gib", "gpus")),
            resources=dict.fromkeys(("cpus_per_trial", "gpus_per_trial", "max_concurrent")),
        )
        ledger.on_write = manifest.write
        lags = self.lag and dict.fromkeys(self.spec.models, self.lag)
        self.plan = plan = Plan(self.spec, ledger, lags=lags)
        self.running = {}
        while self._step(plan, ledger):
            pass
        ledger.close()
        manifest.finish("finished")
        return plan, ledger

    def _step(self, plan, ledger):
        """Starts a trial or trains one for an epoch; False when there is nothing left."""
        if self.rng.random() < self.chances.interrupt:
            for trial_id in self.running:
                ledger.end(trial_id, stopping=True)
            return False
        if len(self.running) < self.n_slots and (planned := plan.next()):
            assert planned.trial_id not in self.running
            at_work = [planned, *(trial for trial, *_ in self.running.values())]
            assert len(at_work) == 1 or DeviceSharing.ALONE not in {
                trial.sharing for trial in at_work
            }
            kept = self.checkpoints.get(planned.trial_id, [])
            self.running[planned.trial_id] = [planned, list(kept), list(kept)]
            if planned.prunable and len(kept) in planned.report_epochs:
                self._tell(planned.trial_id, ledger)  # the driver may have died before it decided
            return True
        if not self.running:
            assert plan.is_finished
            return False
        assert set(plan.waits_for) <= set(self.running)
        self._train(self.rng.choice(list(self.running)), ledger)
        return True

    def _train(self, trial_id, ledger):
        planned, epochs, unsent = self.running[trial_id]
        happens = self.rng.random()
        for chance, what in (
            (self.chances.fail, self._fail),
            (self.chances.fail_for_good, self._fail_for_good),
            (self.chances.diverge, self._diverge),
        ):
            if happens < chance:
                what(trial_id, ledger)
                return
            happens -= chance
        epoch = len(epochs) + 1
        row = epoch_row(planned.config, epoch, final_mse(planned.config) * (1 + 1 / epoch))
        epochs.append(row)
        unsent.append(row)
        self.n_trained[trial_id, epoch] += 1
        ends = epoch == planned.config.epochs
        if not ends and self.rng.random() < 0.3:
            self.checkpoints[trial_id] = list(epochs)
        # Some results carry several epochs.
        if ends or epoch in planned.report_epochs or self.rng.random() < 0.5:
            self._tell(trial_id, ledger)

    def _tell(self, trial_id, ledger):
        planned, epochs, unsent = self.running[trial_id]
        pruned = planned.prunable and self.rng.random() < self.chances.prune
        if self.lag is not None:
            metric = metric_of(planned.config)
            pruned = not self.plan.goes_on(planned, {row["epoch"]: row[metric] for row in unsent})
        ledger.measure(trial_id, len(epochs), list(unsent), totals(len(epochs)))
        unsent.clear()
        if pruned or len(epochs) == planned.config.epochs:
            ledger.end(trial_id)
            del self.running[trial_id]

    def _fail(self, trial_id, ledger):
        ledger.fail_once(trial_id, "it died", "failed, retry 1 of 2")
        del self.running[trial_id]

    def _fail_for_good(self, trial_id, ledger):
        ledger.end(trial_id, error="it died")
        del self.running[trial_id]

    def _diverge(self, trial_id, ledger):
        _, epochs, unsent = self.running[trial_id]
        diverged = totals(len(epochs), diverged_epoch=len(epochs) + 1)
        ledger.measure(trial_id, len(epochs), list(unsent), diverged)
        ledger.end(trial_id)
        del self.running[trial_id]


def planned(trial_id, group, config, **more):
    """A trial that no study has planned, labelled beside the report's setting."""
    setting = label_of(config, TrialConfig(model=config.model, arguments=config.arguments))
    return PlannedTrial(trial_id, group, config, setting, "", **more)


def metric_of(config):
    """What the trial is judged by."""
    return schema.EVAL_METRICS[config.split]


def epoch_row(config, epoch, mse, train_mse=None, *, seconds=1.0, eval_seconds=0.0):
    """An epoch of a trial; `mse` is what the evaluation finds, None where it did not look."""
    row = {"epoch": epoch, schema.TRAIN_MSE: mse if train_mse is None else train_mse}
    times = {"train_seconds": seconds, "eval_seconds": eval_seconds}
    return row | {metric_of(config): mse} | times


def totals(n_epochs, diverged_epoch=None, **changes):
    """A trial's totals after so many epochs, of a second each."""
    found = {"diverged_epoch": diverged_epoch, "n_parameters": 1, "n_sharing": 1.0}
    found |= dict.fromkeys(("train_seconds", "wall_seconds"), float(n_epochs))
    found |= dict.fromkeys(("eval_seconds", "compile_seconds"), 0.0)
    return found | {"device": "a formula"} | changes


def measured(*rows, overhead=0.0, **changes):
    """What a trial tells after these epochs, from the first."""
    seconds = {name: sum(row[name] for row in rows) for name in ("train_seconds", "eval_seconds")}
    seconds["wall_seconds"] = sum(seconds.values()) + overhead
    return (len(rows), list(rows), totals(len(rows), **seconds | changes))


def known_ends(folder):
    """The rows and epochs of the trials that a folder knows to have ended, by trial."""
    trials, epochs = read_tables(folder)
    rows = {row["trial_id"]: row for row in trials.to_pylist() if row["state"] in ENDS}
    histories = {trial_id: [] for trial_id in rows}
    for epoch in epochs.to_pylist():
        if epoch["trial_id"] in rows:
            histories[epoch["trial_id"]].append(epoch)
    return {trial_id: (rows[trial_id], histories[trial_id]) for trial_id in rows}


def reference_label(model, spec):
    """The label of a model's reference setting."""
    return setting_of(reference_config(model, spec), spec)


def assert_whole(spec, folder, plan):
    """Every trial is there once, with every epoch, and Optuna knows the same."""
    trials, epochs = read_tables(folder)
    rows = trials.to_pylist()
    counts = Counter(row["group"] for row in rows)
    expected = Counter(count_trials(spec))
    searched = {model: [] for model in spec.models}
    for row in rows:
        assert row["state"] in ENDS
        if row["group"] == schema.SEARCH:
            searched[row["model"]].append(row)
    for model in spec.models if spec.share else ():
        seeds = Counter(row["seed"] for row in searched[model])
        assert seeds == {seed: spec.share for _, seed in spec.searches}  # the budget is kept
        completed = [row for row in searched[model] if row["state"] == schema.COMPLETED]
        if not completed:
            expected[schema.WINNER] -= spec.n_seeds
        if per_model := searching_trials(spec, model).get(schema.FINALIST):
            settings = {row["setting"] for row in completed} - {reference_label(model, spec)}
            n_settings = min(spec.n_finalists, len(settings)) + 1 if completed else 0
            expected[schema.FINALIST] -= per_model - n_settings * spec.n_finalist_seeds
    if schema.FINALIST in expected:
        # Finalists that failed train again in a later session, which may name a second winner: it
        # has all seeds, the first one those that had begun.
        winners = [row for row in rows if row["group"] == schema.WINNER]
        names = Counter(row["setting"] for row in winners)
        n_whole = list(names.values()).count(spec.n_seeds)
        assert n_whole * spec.n_seeds >= expected[schema.WINNER]
        expected[schema.WINNER] = counts[schema.WINNER]
    assert counts == +expected
    histories = Counter(epoch["trial_id"] for epoch in epochs.to_pylist())
    for row in rows:
        assert histories[row["trial_id"]] == (row["epochs_completed"] or 0)
        if row["state"] == schema.COMPLETED:
            assert row["epochs_completed"] == spec.epochs
        if row["state"] == schema.DIVERGED:
            assert row["diverged_epoch"] == row["epochs_completed"] + 1
    for model in spec.models if spec.share else ():
        for number, (_, seed) in enumerate(spec.searches):
            its = [row for row in searched[model] if row["seed"] == seed]
            assert_optuna_agrees(spec, plan, model, number, its)
    assert not folder.names(schema.JOURNAL_FOLDER)
    assert json.loads(folder.read(schema.MANIFEST_FILE))["status"] == "finished"


def assert_optuna_agrees(spec, plan, model, number, rows):
    study, space = plan.study_of(model, number), spec.space_of(model)
    rows = sorted(rows, key=lambda row: row["trial_id"])
    name = f"search-{model}-{number + 1}" if number else f"search-{model}"
    assert [f"{name}-{t.number:03d}" for t in study.trials] == [row["trial_id"] for row in rows]
    for trial, row in zip(study.trials, rows, strict=True):
        assert trial.state.name == AS_OPTUNA[row["state"]]
        assert trial.params == space.params_of(config_of_row(row))
        assert trial.value == (
            row[schema.VAL_MSE] if row["state"] in (schema.COMPLETED, schema.PRUNED) else None
        )
        assert trial.user_attrs.get("diverged_epoch") == row["diverged_epoch"]
