"""The run folder's tables: what is measured is there, what is not is missing, nothing is half."""

import json
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from convae.config import TrialConfig
from study.folder import schema
from study.records import Manifest, Records
from study.space import PlannedTrial
from study.storage import RunFolder, StorageError

PLANNED = PlannedTrial("reference-conv-s0", schema.REFERENCE, TrialConfig(model="conv", epochs=3))

DIES_WRITING = """
import os, signal, sys
from pathlib import Path
from study.storage import RunFolder

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
RunFolder(sys.argv[1]).write("journal/reference-conv-s0.json", b"{}")
"""


def epoch(number, train, test):
    times = {"train_seconds": 1.0, "eval_seconds": 0.1}
    return {"epoch": number, schema.TRAIN_MSE: train, schema.TEST_MSE: test, **times}


def result(*epochs, **totals):
    totals = {"n_parameters": 4385, "state": schema.RUNNING, "diverged_epoch": None, **totals}
    times = {f"{part}_seconds": 3.0 for part in ("train", "eval", "compile", "wall")}
    return {"history": list(epochs), "trial_id": "Ray's", "device": "CPU", **times, **totals}


@pytest.fixture
def records(tmp_path):
    records = Records(RunFolder(tmp_path))
    records.start(PLANNED)
    return records


def tables(records):
    records.write()
    return [
        pq.read_table(records.folder.local / name).to_pylist()
        for name in (schema.TRIALS_FILE, schema.EPOCHS_FILE)
    ]


def test_final_and_best(records):
    records.report(PLANNED.trial_id, result(epoch(1, 0.09, 0.05)))
    records.report(PLANNED.trial_id, result(epoch(2, 0.05, 0.03), epoch(3, 0.04, 0.035)))
    records.end(PLANNED.trial_id, schema.COMPLETED)
    (trial,), epochs = tables(records)
    assert (trial["test_mse"], trial["best_test_mse"], trial["best_test_mse_epoch"]) == (
        0.035,
        0.03,
        2,
    )
    assert (trial["state"], trial["epochs_completed"]) == ("completed", 3)
    assert trial["trial_id"] == PLANNED.trial_id
    assert trial["val_mse"] is None
    assert trial["best_val_mse_epoch"] is None
    assert trial["hidden_units"] is None
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert [row["val_mse"] for row in epochs] == [None] * 3


def test_a_retried_trial_has_each_epoch_once(records):
    records.report(PLANNED.trial_id, result(epoch(1, 0.9, 0.5), epoch(2, 0.8, 0.4)))
    records.retry(PLANNED.trial_id, "worker died")
    records.report(PLANNED.trial_id, result(epoch(1, 0.7, 0.3)))
    (trial,), epochs = tables(records)
    assert [(row["epoch"], row["train_mse"]) for row in epochs] == [(1, 0.7)]
    assert (trial["n_retries"], trial["error"]) == (1, "worker died")


def test_goes_on_after_a_death_over_the_first_tables(records):
    Records(records.folder).write()
    records.folder.delete(schema.EPOCHS_FILE)
    assert Records(records.folder, resume=True).rows() == []


def test_a_lost_epochs_table_is_named(records):
    records.write()
    records.folder.delete(schema.EPOCHS_FILE)
    with pytest.raises(StorageError, match=r"epochs\.parquet is missing"):
        Records(records.folder, resume=True)


def test_unfinished_trials_keep_their_rows_until_they_run_again(records):
    """Else a second death, before they have started again, would lose them."""
    records.report(PLANNED.trial_id, result(epoch(1, 0.9, 0.5)))
    records.retry(PLANNED.trial_id, "worker died")
    before = tables(records)
    again = Records(records.folder, resume=True)
    assert again.ended == frozenset()
    assert tables(again) == before
    again = Records(records.folder, resume=True)
    again.start(PLANNED)
    again.retry(PLANNED.trial_id, "worker died")
    assert again.row(PLANNED.trial_id)["n_retries"] == 2


def test_an_older_sessions_rows_get_the_columns_it_lacked(records):
    path = records.folder.local / schema.TRIALS_FILE
    records.end(PLANNED.trial_id, schema.COMPLETED)
    records.write()
    pq.write_table(pq.read_table(path).drop_columns(["precision"]), path)
    (trial,), _ = tables(Records(records.folder, resume=True))
    assert trial["precision"] == "float32"


def test_what_ended_since_the_last_table_is_known_after_a_death(records):
    records.write()
    records.report(PLANNED.trial_id, result(epoch(1, 0.8, 0.4), state=schema.COMPLETED))
    records.end(PLANNED.trial_id, schema.COMPLETED)
    again = Records(records.folder, resume=True)
    assert again.ended == {PLANNED.trial_id}
    assert [row["test_mse"] for row in again.epochs_of(PLANNED.trial_id)] == [0.4]


def test_a_torn_journal_is_named(records):
    records.write()
    records.folder.write("journal/a.json", b'{"trial": {"tri')
    with pytest.raises(StorageError, match=r"journal/a\.json is torn"):
        Records(records.folder, resume=True)


def test_a_death_in_the_middle_of_a_write_stops_no_later_session(records):
    """What such a write leaves is no torn file, and does not stay."""
    records.write()
    command = [sys.executable, "-c", DIES_WRITING, str(records.folder.local)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    journal = records.folder.local / schema.JOURNAL_FOLDER
    (left,) = journal.iterdir()
    assert left.name.startswith(".writing-")
    again = Records(records.folder, resume=True)
    assert again.trial_ids == {PLANNED.trial_id}
    assert not again.ended
    assert not list(journal.iterdir())


def test_columns_are_the_schemas(records):
    records.write()
    for name, columns in (
        (schema.TRIALS_FILE, schema.TRIAL_COLUMNS),
        (schema.EPOCHS_FILE, schema.EPOCH_COLUMNS),
    ):
        assert pq.read_schema(records.folder.local / name).names == list(columns)
    header = (records.folder.local / schema.TRIALS_CSV_FILE).read_text().splitlines()[0]
    assert header.replace('"', "").split(",") == list(schema.TRIAL_COLUMNS)


def test_manifest_tells_how_it_ended(tmp_path):
    manifest = Manifest(RunFolder(tmp_path), command=["python"])
    assert json.loads((tmp_path / "study.json").read_text())["status"] == "running"
    manifest.finish("finished")
    entries = json.loads((tmp_path / "study.json").read_text())
    assert (entries["status"], entries["command"]) == ("finished", ["python"])
    assert entries["wall_seconds"] >= 0
    assert entries["versions"]["ray"]


def test_a_resumed_study_keeps_its_first_command(tmp_path):
    Manifest(RunFolder(tmp_path), command=["first"]).finish("interrupted")
    Manifest(RunFolder(tmp_path), command=["again", "--resume"], resume=True).finish("finished")
    entries = json.loads((tmp_path / "study.json").read_text())
    assert entries["command"] == ["first"]
    assert [session["command"] for session in entries["sessions"]] == [
        ["first"],
        ["again", "--resume"],
    ]
