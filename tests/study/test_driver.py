"""The whole driver, Ray Tune included, with a closed form in place of the training."""

import json
import signal
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import closed_form
import numpy as np
import optuna
import pandas as pd
import pytest
import ray
from closed_form import (
    BreaksBetweenTrials,
    CannotStart,
    CannotTrain,
    ClosedFormEngine,
    NeverStops,
    SlowToStart,
)
from ray import cloudpickle
from ray.tune.execution.tune_controller import TuneController
from simulation import AS_OPTUNA

from convae.data import ImageSet, load_images
from study.folder import schema
from study.folder.lock import DriverLock
from study.folder.manifest import read_manifest
from study.folder.storage import RunFolder, RunFolderError
from study.plan.ledger import Ledger
from study.plan.silence import Patience
from study.plan.spec import StudySpec
from study.plan.study_file import PRESETS
from study.tune.driver import TUNE_SETTINGS, StudyFailedError, run_study
from study.tune.resources import Resources
from study.tune.trainable import WorkerSettings

# Workers cannot import from the tests' folder: the module travels with its class.
cloudpickle.register_pickle_by_value(closed_form)

pytestmark = pytest.mark.usefixtures("session")

NO_IMAGES = np.zeros((1, 28, 28), np.uint8)
NO_MNIST = ImageSet(NO_IMAGES, np.zeros(1, np.uint8), NO_IMAGES, np.zeros(1, np.uint8), "a formula")


def one_at_a_time():
    """All of the CPUs for a trial."""
    return Resources(n_gpus=0, cpus_per_trial=int(ray.cluster_resources()["CPU"]))


def run(
    folder, *, resources=None, resume=False, images=NO_MNIST, engine=ClosedFormEngine, **settings
):
    """Runs a study of the dense model, by default one trial at a time and to its end.

    Returns its tables.
    """
    defaults = {"preset": "test", "models": ("dense",), "hidden_units": (64,), "epochs": 9}
    defaults["n_finalists"] = 0  # test_custom_study has some
    status, n_failed = settings.pop("ends", ("finished", 0))
    workers = WorkerSettings(engine=engine, patience=settings.pop("patience", None))
    there, spec = RunFolder(folder), StudySpec(**{**defaults, **settings})
    lock = DriverLock(there) if resume else None
    with ExitStack() as stack:
        if lock:
            stack.callback(lock.release)
        told = {"command": ["test"], "lock": lock, "workers": workers}
        outcome = run_study(spec, resources or one_at_a_time(), images, there, **told)
    assert (outcome.status, outcome.n_failed) == (status, n_failed)
    return [pd.read_parquet(folder / name) for name in (schema.TRIALS_FILE, schema.EPOCHS_FILE)]


def search_of(trials):
    return trials[trials.group == schema.SEARCH]


def test_a_sequential_search_repeats_itself(tmp_path):
    columns = ["trial_id", "learning_rate", "momentum", "batch_size", "state", "val_mse"]
    first, again, other = (
        search_of(run(tmp_path / name, n_search_trials=n, seed=seed)[0])[columns]
        for name, n, seed in (("first", 8, 0), ("again", 8, 0), ("other", 3, 1))
    )
    pd.testing.assert_frame_equal(first, again)
    assert set(first.learning_rate) & set(other.learning_rate) == {1.0}  # the reference setting


def test_states_agree_between_tables_and_optuna(tmp_path):
    """Pruned, diverged and completed trials, each with the epochs it had."""
    folder = tmp_path / "study"
    trials, epochs = run(folder, n_search_trials=30, sampler="random", seed=2)
    trials = search_of(trials).set_index("trial_id")
    assert set(trials.state) == {"completed", "pruned", "diverged"}
    counts = epochs.groupby("trial_id").size()
    for trial_id, trial in trials.iterrows():
        assert trial.epochs_completed == counts[trial_id]
        if trial.state == "completed":
            assert trial.epochs_completed == 9
        if trial.state == "pruned":
            assert trial.epochs_completed in (1, 3)
        if trial.state == "diverged":
            assert trial.diverged_epoch == 2
            assert trial.epochs_completed == 1
            assert "epoch 2" in trial.error
    study = load_optuna(folder)
    for frozen in study.trials:
        trial = trials.loc[f"search-dense-{frozen.number:03d}"]
        assert frozen.state.name == AS_OPTUNA[trial.state]
        assert frozen.params["learning_rate"] == trial.learning_rate
        assert list(frozen.intermediate_values) == list(range(1, trial.epochs_completed + 1))
        if trial.state == "completed":
            assert frozen.value == trial.val_mse
    completed = trials[trials.state == "completed"]
    assert study.best_value == completed.val_mse.min()
    assert f"search-dense-{study.best_trial.number:03d}" == completed.val_mse.idxmin()


def test_fixed_trials_and_winners_are_never_ended_early(tmp_path):
    tables = tuple(table for table in PRESETS["full"].trial_tables if table.model == "dense")
    trials, _ = run(tmp_path / "study", n_search_trials=6, trial_tables=tables)
    others = trials[trials.group != schema.SEARCH]
    assert set(others.group) == {"reference", "neighbour", "winner"}
    expected = others.hidden_units.map(lambda units: "diverged" if units == 128 else "completed")
    assert list(others.state) == list(expected)


def test_evaluation_only_as_often_as_asked_and_where_trials_are_compared(tmp_path):
    """Nine epochs, one in four evaluated, ASHA's rungs and the last one too; no gap becomes 0."""
    settings = {"n_search_trials": 4, "sampler": "random", "grace_epochs": 1}
    trials, epochs = run(tmp_path / "study", eval_every=4, **settings)
    assert not trials.state.eq("running").any()
    expected = {"full": {4, 8, 9}, "search": {1, 3, 4, 8, 9}}
    for trial in trials[trials.state == "completed"].itertuples():
        custom = epochs[epochs.trial_id == trial.trial_id]
        metric = custom.val_mse if trial.split == "search" else custom.test_mse
        assert set(custom.epoch[metric.notna()]) == expected[trial.split]
        assert custom.train_mse.notna().all()
        assert list(custom.eval_seconds.notna()) == list(metric.notna())
        assert metric.iloc[-1] == (trial.val_mse if trial.split == "search" else trial.test_mse)


@pytest.mark.cluster
def test_a_time_budget_ends_the_study_with_what_it_has(tmp_path):
    """A busy machine may spend all of a short budget on starting its workers."""
    settings = {"epochs": 2, "n_search_trials": 10_000}
    ends, resources = ("out of time", 0), Resources(n_gpus=0)
    for seconds in (7, 20, 60, 180):
        settings["time_budget_seconds"] = seconds
        trials, _ = run(tmp_path / f"{seconds}", resources=resources, ends=ends, **settings)
        assert set(trials.state) <= {"completed", "pruned", "running", "diverged"}
        if (trials.state == "completed").any():
            return
    pytest.fail("no trial ended in three minutes")


def load_optuna(folder):
    return optuna.load_study(study_name="dense", storage=f"sqlite:///{folder / 'optuna.db'}")


def test_time_as_an_objective_runs_one_trial_at_a_time(tmp_path):
    folder = tmp_path / "study"
    settings = {"n_search_trials": 8, "objective": "mse,time", "scheduler": "none"}
    trials, _ = run(folder, resources=Resources(n_gpus=0), **settings)
    assert json.loads((folder / "study.json").read_text())["resources"]["max_concurrent"] == 1
    completed = search_of(trials)[search_of(trials).state == "completed"]
    values = {tuple(trial.values) for trial in load_optuna(folder).trials if trial.values}
    assert values == set(zip(completed.val_mse, completed.train_seconds, strict=True))


def test_a_worker_that_starts_is_not_dropped_for_one_that_is_free(tmp_path):
    """Two slots, and trials that are shorter than the start of a worker."""
    settings = {"engine": SlowToStart, "epochs": 2, "n_seeds": 4}
    trials, _ = run(tmp_path, resources=Resources(n_gpus=0, max_concurrent=2), **settings)
    assert list(trials.state) == ["completed"] * 4
    assert trials.device.nunique() == 2  # the second slot has got its worker


@pytest.mark.cluster
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP, None])
def test_a_worker_that_fails_between_two_trials_costs_a_retry(tmp_path, by):
    engine = partial(BreaksBetweenTrials, sign=tmp_path / "broke", by=by)
    patience = Patience(least_seconds=4.0, end_factor=2.0)
    trials, _ = run(tmp_path / "study", engine=engine, epochs=2, n_seeds=4, patience=patience)
    assert list(trials.n_retries) == [0, 1, 0, 0]
    assert list(trials.state) == ["completed"] * 4


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_worker_that_fails_and_does_not_stop_is_killed_and_its_place_is_free(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(TUNE_SETTINGS, "TUNE_FORCE_TRIAL_CLEANUP_S", "3")
    engine = partial(NeverStops, sign=tmp_path / "failed")
    trials, _ = run(tmp_path / "study", engine=engine, epochs=2, n_seeds=2)
    assert sorted(trials.n_retries) == [0, 1]
    assert list(trials.state) == ["completed"] * 2


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("engine", "error"),
    [(CannotStart, "OSError: no device"), (CannotTrain, "ValueError: no number")],
)
def test_a_trial_that_always_fails_is_tried_again_and_then_kept_as_failed(
    tmp_path, capfd, engine, error
):
    folder = tmp_path / "failing"
    trials, _ = run(folder, engine=engine, epochs=2, ends=("finished", 1))
    output, errors = capfd.readouterr()
    assert errors == ""
    log = folder / schema.LOG_FILE
    (trial,) = trials.itertuples()
    assert (trial.state, trial.n_retries) == ("failed", 2)
    assert error in trial.error
    told = [line for line in output.splitlines() if trial.trial_id in line]
    assert len(told) == 3
    assert all(line.endswith(f"{error} (in full: {log})") for line in told)
    assert log.read_text().count(f"{trial.trial_id}: an attempt failed:") == 3
    assert log.read_text().splitlines().count(error) == 3
    # It is needed: --resume trains it.
    trials, _ = run(folder, resume=True, epochs=2)
    assert list(trials.state) == ["completed"]


def test_a_finished_study_is_prolonged_with_more_trials_and_seeds(tmp_path):
    """What there is stays; only what is new is trained, and Optuna knows all of it."""
    folder = tmp_path / "study"
    before, _ = run(folder, n_search_trials=4, sampler="random")
    (folder / schema.OPTUNA_FILE).write_bytes(b"torn" * 100)
    after, _ = run(folder, resume=True, n_search_trials=12, sampler="random", n_seeds=2)
    kept = after.set_index("trial_id").loc[before.trial_id].reset_index()
    pd.testing.assert_frame_equal(kept, before)
    counts = after.groupby("group").size()
    assert (counts["reference"], counts["search"]) == (2, 12)
    searched = search_of(after)
    best = searched[searched.state == "completed"].val_mse.idxmin()
    winners = after[(after.group == "winner") & (after.seed == 1)]
    assert list(winners.learning_rate) == [searched.learning_rate[best]]
    study = load_optuna(folder)
    assert [trial.params["learning_rate"] for trial in study.trials] == list(searched.learning_rate)


def test_an_error_that_may_not_be_the_storages_is_in_the_log_in_full(tmp_path, monkeypatch):
    def step(_):
        raise OSError("no socket left")

    monkeypatch.setattr(TuneController, "step", step)
    with pytest.raises(StudyFailedError, match="The study stopped: no socket left"):
        run(tmp_path / "study")
    log = (tmp_path / "study" / schema.LOG_FILE).read_text()
    assert "Traceback" in log
    assert "in step\n" in log


def test_a_study_whose_last_write_fails_has_not_finished(tmp_path, monkeypatch):
    def full(ledger):
        ledger.trouble = RunFolderError("disk full")

    monkeypatch.setattr(Ledger, "close", full)
    with pytest.raises(StudyFailedError, match="disk full"):
        run(tmp_path / "study")
    assert read_manifest(RunFolder(tmp_path / "study"))["status"] == "storage failed"


PARTS = ("images", "labels")


def test_poisoned_test_images_change_neither_search_nor_winner(tmp_path):
    """Real training on real images: what the test set holds must not reach any choice."""
    every = load_images()
    train = {f"train_{what}": getattr(every, f"train_{what}")[:6000] for what in PARTS}
    test = {f"test_{what}": getattr(every, f"test_{what}")[:1000] for what in PARTS}
    real = replace(every, **train, **test)
    poisoned = replace(real, test_images=255 - real.test_images[::-1], source="poisoned")
    settings = {"epochs": 1, "n_search_trials": 4, "n_finalists": 1, "n_finalist_seeds": 1}
    clean, dirty = (
        run(tmp_path / images.source, images=images, engine=None, **settings)[0]
        for images in (replace(real, source="real"), poisoned)
    )
    settings = [*schema.CONFIG_COLUMNS, "state", schema.TRAIN_MSE, schema.VAL_MSE]
    pd.testing.assert_frame_equal(clean[settings], dirty[settings])
    # The poison was real: what is measured on the test images is another number.
    tested = clean.test_mse.notna()
    assert tested.sum() == 2
    assert (clean.test_mse[tested] != dirty.test_mse[tested]).all()
    assert search_of(clean).test_mse.isna().all()
