"""The run folder's tables: what is measured is there, what is not is missing, nothing is half."""

import json
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulation import epoch_row, measured, planned

from convae.config import TrialConfig
from study.folder import schema
from study.folder.manifest import Manifest, read_manifest
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import TableWriter, read_reconstructions, read_tables
from study.plan.ledger import Ledger
from study.tune.kept_model import reconstruction_table

PLANNED = planned("reference-conv-s0", schema.REFERENCE, TrialConfig(model="conv", epochs=3))
NAME = PLANNED.trial_id

DIES_WRITING = """
import os, signal, sys
from pathlib import Path
from study.folder.storage import RunFolder

Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
RunFolder(sys.argv[1]).write("journal/00000009.json", b"[]")
"""


def epoch(number, train, test):
    return epoch_row(PLANNED.config, number, test, train)


def measure(ledger, *epochs):
    """Epochs that follow one another, not always from the first."""
    _, rows, totals = measured(*epochs)
    ledger.measure(NAME, epochs[-1]["epoch"], rows, totals)


@pytest.fixture
def ledger(tmp_path):
    """One that rewrites its tables when it is told to, however busy the machine."""
    ledger = Ledger(RunFolder(tmp_path), write_seconds=1000.0)
    ledger.plan(PLANNED)
    return ledger


def tables(ledger):
    ledger.write()
    return [
        pq.read_table(ledger.folder.local / name).to_pylist()
        for name in (schema.TRIALS_FILE, schema.EPOCHS_FILE)
    ]


def resumed(ledger):
    """The next session's, after this one was killed."""
    return Ledger(ledger.folder, resume=True)


def test_final_and_best(ledger):
    measure(ledger, epoch(1, 0.09, 0.05))
    measure(ledger, epoch(2, 0.05, 0.03), epoch(3, 0.04, 0.035))
    ledger.end(NAME)
    (trial,), epochs = tables(ledger)
    found = ("test_mse", "best_test_mse", "best_test_mse_epoch", "state", "epochs_completed")
    assert [trial[name] for name in found] == [0.035, 0.03, 2, "completed", 3]
    assert trial["trial_id"] == NAME
    assert {trial[name] for name in ("val_mse", "best_val_mse_epoch", "hidden_units")} == {None}
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert [row["val_mse"] for row in epochs] == [None] * 3


def test_a_retried_trial_has_each_epoch_once(ledger):
    measure(ledger, epoch(1, 0.9, 0.5), epoch(2, 0.8, 0.4))
    ledger.fail_once(NAME, "worker died", "failed, retry 1 of 2")
    measure(ledger, epoch(1, 0.7, 0.3))
    (trial,), epochs = tables(ledger)
    assert [(row["epoch"], row["train_mse"]) for row in epochs] == [(1, 0.7)]
    assert (trial["n_retries"], trial["error"]) == (1, "worker died")
    assert (trial["best_test_mse"], trial["epochs_completed"]) == (0.3, 1)


def test_epochs_that_are_left_out_are_a_fault(ledger):
    with pytest.raises(ValueError, match=NAME):
        measure(ledger, epoch(2, 0.9, 0.5))


def test_a_start_that_died_before_its_manifest_leaves_nothing_to_the_next(ledger):
    measure(ledger, epoch(1, 0.9, 0.5))
    assert Ledger(ledger.folder).rows() == []
    trials, epochs = read_tables(ledger.folder)
    assert (len(trials), len(epochs)) == (0, 0)


@pytest.mark.parametrize("name", [schema.TRIALS_FILE, schema.EPOCHS_FILE])
def test_a_lost_table_is_named_unless_its_csv_is_there(ledger, name):
    measure(ledger, epoch(1, 0.9, 0.5))
    before = tables(ledger)
    ledger.folder.delete(name)
    assert tables(resumed(ledger)) == before
    for lost in (name, name.replace("parquet", "csv")):
        ledger.folder.delete(lost)
    with pytest.raises(RunFolderError, match=rf"{name} does not exist"):
        resumed(ledger)


def test_the_journals_numbers_go_on_after_it_was_cleared(ledger):
    """Or a reader would take a new entry for one that the tables hold."""
    ledger.write()
    ledger.end(NAME, stopping=True)
    ledger.write()
    assert not ledger.folder.names(schema.JOURNAL_FOLDER)
    TableWriter(ledger.folder).append([])
    (name,) = ledger.folder.names(schema.JOURNAL_FOLDER)
    assert name > f"{schema.JOURNAL_FOLDER}/00000001.json"


def test_a_torn_journal_is_named(ledger):
    ledger.folder.write("journal/00000009.json", b'[{"trial": {"tri')
    with pytest.raises(RunFolderError, match=r"journal/00000009\.json is torn"):
        resumed(ledger)


@pytest.mark.parametrize("content", [b"[[]]", b'[{"trial": 1}]', b'[{"trial": {"epochs": "x"}}]'])
def test_a_journal_that_holds_something_else_is_named(ledger, content):
    ledger.folder.write("journal/00000009.json", content)
    with pytest.raises(RunFolderError, match="journal"):
        read_tables(ledger.folder)


def test_a_torn_csv_is_named(ledger):
    measure(ledger, epoch(1, 0.9, 0.5))
    ledger.close()
    ledger.folder.delete(schema.EPOCHS_FILE)
    assert len(read_tables(ledger.folder)[1]) == 1
    content = ledger.folder.read(schema.EPOCHS_CSV_FILE)
    ledger.folder.write(schema.EPOCHS_CSV_FILE, content.replace(b"0.5", b"half"))
    with pytest.raises(RunFolderError, match=r"epochs\.csv is torn"):
        read_tables(ledger.folder)


def test_a_death_in_the_middle_of_a_write_stops_no_later_session(ledger):
    """What such a write leaves is no torn file, and does not stay."""
    ledger.write()
    command = [sys.executable, "-c", DIES_WRITING, str(ledger.folder.local)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    journal = ledger.folder.local / schema.JOURNAL_FOLDER
    (left,) = journal.iterdir()
    assert left.name.startswith(".writing-")
    again = resumed(ledger)
    assert [row["trial_id"] for row in again.rows()] == [NAME]
    assert not again.is_done(NAME)
    assert not list(journal.iterdir())


def test_columns_are_the_schemas(ledger):
    ledger.write()
    for name, columns in (
        (schema.TRIALS_FILE, schema.TRIAL_COLUMNS),
        (schema.EPOCHS_FILE, schema.EPOCH_COLUMNS),
    ):
        assert pq.read_schema(ledger.folder.local / name).names == list(columns)
    header = (ledger.folder.local / schema.TRIALS_CSV_FILE).read_text().splitlines()[0]
    assert header.replace('"', "").split(",") == list(schema.TRIAL_COLUMNS)


@pytest.mark.parametrize("entries", [{"schema_version": 1}, {"form": 1}, {"form": 3}])
def test_a_folder_of_another_form_is_refused_with_the_commit_that_reads_it(tmp_path, entries):
    (tmp_path / "study.json").write_text(json.dumps(entries))
    with pytest.raises(
        RunFolderError, match=r"of form [13], .* reads form 2; .* commit fb18ede\.$"
    ):
        read_manifest(RunFolder(tmp_path))


def test_a_resumed_study_keeps_its_first_command_and_adds_its_time(tmp_path):
    path = tmp_path / schema.MANIFEST_FILE
    manifest = Manifest(RunFolder(tmp_path), command=["first"])
    assert json.loads(path.read_text())["status"] == "running"
    manifest.finish("interrupted")
    earlier = json.loads(path.read_text()) | {"wall_seconds": 1000.0}
    Manifest(RunFolder(tmp_path), command=["again", "--resume"], earlier=earlier).finish("finished")
    entries = json.loads(path.read_text())
    assert (entries["status"], entries["command"]) == ("finished", ["first"])
    assert entries["versions"]["ray"]
    commands = [session["command"] for session in entries["sessions"]]
    assert commands == [["first"], ["again", "--resume"]]
    assert entries["started_utc"] == earlier["started_utc"]
    assert entries["wall_seconds"] >= 1000


@pytest.mark.parametrize("labels", [None, np.arange(10, dtype=np.uint8)], ids=["none", "some"])
def test_labels_of_reconstructions_are_whole_numbers_or_missing(tmp_path, labels):
    images = np.zeros((10, 28, 28), np.uint8)
    table = reconstruction_table("t", images, labels, images / np.float32(255))
    path = tmp_path / schema.RECONSTRUCTIONS_FOLDER / "t.parquet"
    path.parent.mkdir()
    pq.write_table(table, path)
    read = read_reconstructions(RunFolder(tmp_path))
    assert read.schema.field("label").type == pa.int64()
    expected = [None if labels is None else index for index in read["test_index"].to_pylist()]
    assert read["label"].to_pylist() == expected
