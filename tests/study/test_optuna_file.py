"""optuna.db is a copy: whatever becomes of it, or whoever holds it, the study has its own."""

import os
import sqlite3
import time
from contextlib import closing

import optuna
import pytest

from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.optuna_file import OptunaFile

SEARCH_ROW = {"group": schema.SEARCH}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.of(str(tmp_path), "a?b#c%2F=é")
    folder.create()
    return folder


@pytest.fixture
def file(folder):
    file = OptunaFile(folder, wait_seconds=0.2, copy_seconds=0.0)
    study = optuna.create_study(storage=file.storage, study_name="conv")
    study.tell(study.ask(), 1.0)
    return file


def values(folder):
    with closing(sqlite3.connect(folder.local / schema.OPTUNA_FILE)) as connection:
        return [value for (value,) in connection.execute("select value from trial_values")]


def test_it_is_brought_up_to_date_in_place_whatever_the_folder_is_called(folder, file):
    file.ended(SEARCH_ROW)
    path = folder.local / schema.OPTUNA_FILE
    inode = path.stat().st_ino
    assert values(folder) == [1.0]
    study = optuna.load_study(study_name="conv", storage=file.storage)
    study.tell(study.ask(), 2.0)
    file.close()
    assert values(folder) == [1.0, 2.0]
    assert path.stat().st_ino == inode  # a dashboard that has it open sees it


def test_it_has_trials_that_run_and_the_curves_of_those_that_have_ended(tmp_path, folder, file):
    study = optuna.load_study(study_name="conv", storage=file.storage)
    space = {"rate": optuna.distributions.FloatDistribution(0, 1)}
    first, second, pruned, failed = (study.ask(space) for _ in range(4))
    file.planned(None, SEARCH_ROW)
    for epoch, value in enumerate((0.5, 0.25), start=1):
        for trial in (first, second, pruned):
            trial.report(value, epoch)
    failed.set_user_attr("diverged_epoch", 3)
    study.tell(second, 0.25)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    file.ended(SEARCH_ROW)
    copy = tmp_path / "copy.db"  # under a name that is no trouble in a URL
    copy.write_bytes((folder.local / schema.OPTUNA_FILE).read_bytes())
    there = optuna.load_study(study_name="conv", storage=f"sqlite:///{copy}")
    of_both = zip(there.trials, study.trials, strict=True)
    for copied, trial in of_both:
        if trial.number == first.number:  # its curve is told when it has ended
            trial.intermediate_values = {}
        for field in ("number", "state", "params", "distributions", "values", "user_attrs"):
            assert getattr(copied, field) == getattr(trial, field)
        assert copied.intermediate_values == trial.intermediate_values
        assert copied.datetime_start == trial.datetime_start
    file.close()


def test_another_program_that_locks_it_holds_up_nothing(folder, file):
    file.ended(SEARCH_ROW)
    path = folder.local / schema.OPTUNA_FILE
    study = optuna.load_study(study_name="conv", storage=file.storage)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        file.ended(SEARCH_ROW)
        assert time.monotonic() - started < 0.2
        study.tell(study.ask(), 2.0)
        file.close()  # it waits a while, then another file takes the place
    assert values(folder) == [1.0, 2.0]


@pytest.mark.parametrize("content", [b"", b"torn" * 1000, b"SQLite format 3\x00"])
def test_a_torn_one_is_made_again_at_once(folder, file, content):
    folder.write(schema.OPTUNA_FILE, content)
    file.ended(SEARCH_ROW)
    assert values(folder) == [1.0]
    file.close()


def test_a_folder_in_its_place_costs_the_copy_alone(folder, file):
    (folder.local / schema.OPTUNA_FILE).mkdir()
    file.ended(SEARCH_ROW)
    file.close()


def test_it_is_for_those_that_the_umask_admits(folder, file):
    before = os.umask(0o027)
    try:
        file.close()
    finally:
        os.umask(before)
    assert (folder.local / schema.OPTUNA_FILE).stat().st_mode & 0o777 == 0o640
