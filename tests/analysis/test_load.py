"""Run folders: fixed dtypes, and a clear sentence for whatever is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rows import Trial
from synthetic_runs import MANIFEST, quick_trials, trial, write_run

from analysis.load import DTYPES, load_manifest, load_reconstructions, load_run
from study.folder import schema
from study.folder.storage import RunFolderError


def test_tables_have_the_schemas_columns_and_dtypes(quick_run: Path):
    for table, columns in zip(
        load_run(quick_run), (schema.TRIAL_COLUMNS, schema.EPOCH_COLUMNS), strict=True
    ):
        assert list(table.columns) == list(columns)
        assert [str(dtype) for dtype in table.dtypes] == [DTYPES[kind] for kind in columns.values()]


def test_dtypes_do_not_depend_on_what_is_missing_or_how_it_was_written(tmp_path: Path):
    folder = write_run(tmp_path, trial("conv", 8))
    trials = pd.read_parquet(folder / schema.TRIALS_FILE).astype(object)
    trials["extra"] = 1
    trials = trials[trials.columns[::-1]]
    trials.to_parquet(folder / schema.TRIALS_FILE)
    loaded, _ = load_run(folder)
    assert list(loaded.columns) == list(schema.TRIAL_COLUMNS)
    assert loaded["hidden_units"].dtype == "Int64"
    assert loaded["error"].dtype == "str"
    assert loaded[["hidden_units", "error", "val_mse"]].isna().all(axis=None)
    assert loaded["latent_filters"].tolist() == [8]
    assert loaded["nesterov"].tolist() == [True]


def test_a_run_without_trials_loads(tmp_path: Path):
    trials, epochs = load_run(write_run(tmp_path))
    assert trials.empty
    assert epochs.empty
    assert trials["seed"].dtype == "Int64"


def test_a_uri_reads_the_same(quick_run: Path):
    for from_path, from_uri in zip(load_run(quick_run), load_run(quick_run.as_uri()), strict=True):
        pd.testing.assert_frame_equal(from_path, from_uri)
    assert load_manifest(quick_run.as_uri()) == load_manifest(quick_run)


READ_WITHOUT_CODE = """
import sys
import pickle, _pickle

def refuse(*_, **__):
    raise AssertionError("unpickles")

for module in (pickle, _pickle):
    module.load = module.loads = module.Unpickler = refuse
sys.modules.update(dict.fromkeys(["ray", "tensorflow", "keras", "optuna", "cloudpickle"]))

from analysis.load import load_manifest, load_reconstructions, load_run

trials, epochs = load_run(sys.argv[1])
print(len(trials), len(epochs), len(load_reconstructions(sys.argv[1])))
print(load_manifest(sys.argv[1])["name"])
"""


def test_a_run_is_read_without_pickle_ray_or_tensorflow(quick_run: Path):
    read = [sys.executable, "-c", READ_WITHOUT_CODE, quick_run]
    printed = subprocess.run(read, capture_output=True, text=True, check=True).stdout.split()
    tables = (*load_run(quick_run), load_reconstructions(quick_run))
    assert printed == [*(str(len(table)) for table in tables), load_manifest(quick_run)["name"]]


def test_an_unknown_uri_scheme_is_named():
    with pytest.raises(RunFolderError, match=r"nope://bucket/run cannot be opened.*s3://"):
        load_run("nope://bucket/run")


@pytest.mark.parametrize("name", [schema.TRIALS_FILE, schema.EPOCHS_FILE])
def test_a_missing_table_is_named(quick_run: Path, name: str):
    (quick_run / name).unlink()
    with pytest.raises(RunFolderError, match=rf"{name} does not exist; give a run folder"):
        load_run(quick_run)


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_a_torn_table_is_named(quick_run: Path, keep: int):
    file = quick_run / schema.EPOCHS_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(RunFolderError, match=r"epochs\.parquet is torn, .*; restore"):
        load_run(quick_run)


def test_a_missing_column_is_named(quick_run: Path):
    file = quick_run / schema.TRIALS_FILE
    pd.read_parquet(file).drop(columns=["seed", "state"]).to_parquet(file)
    with pytest.raises(RunFolderError, match=r"trials\.parquet lacks state, seed|seed, state"):
        load_run(quick_run)


ROW, HISTORY = trial("conv", 8, n_epochs=2)


def epochs(*numbers: int | None) -> Trial:
    return ROW, [step | {"epoch": n} for step, n in zip(HISTORY, numbers, strict=True)]


STRANGERS = [HISTORY[0] | {"trial_id": f"stranger-{number}"} for number in range(7)]
EPOCHS_FROM_1 = r"the epochs of trial reference-conv-8-0 from 1"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(ROW | {"state": "exploded"}, [])], r"trials\.parquet has an unknown state, exploded"),
        ([(ROW | {"state": None}, [])], r"trials\.parquet has an unknown state, None"),
        ([(ROW | {"group": "misc"}, [])], r"trials\.parquet has an unknown group, misc"),
        ([(ROW | {"model": "dense2"}, [])], r"trials\.parquet has an unknown model, dense2"),
        ([(ROW, HISTORY), (ROW, [])], "has trial reference-conv-8-0 more than once"),
        *(([epochs(*n)], EPOCHS_FROM_1) for n in ((1, 3), (0, 1), (2, 3), (1, 1), (1, None))),
        ([(ROW, STRANGERS[:1])], r"epochs\.parquet has an unknown trial_id, stranger-0"),
        ([(ROW, STRANGERS)], r"trial_id, stranger-0, .*stranger-4 and 2 more; use"),
    ],
)
def test_what_the_tables_may_not_hold_is_named(tmp_path: Path, pairs: list[Trial], message: str):
    with pytest.raises(RunFolderError, match=message):
        load_run(write_run(tmp_path, *pairs))


def test_epochs_in_any_order_are_accepted(tmp_path: Path):
    row, history = trial("conv", 8)
    _, epochs = load_run(write_run(tmp_path, (row, history[::-1])))
    assert epochs["epoch"].tolist() == [3, 2, 1]


def test_values_of_another_type_are_named(quick_run: Path):
    file = quick_run / schema.TRIALS_FILE
    trials = pd.read_parquet(file)
    trials["batch_size"] = "many"
    trials.to_parquet(file)
    with pytest.raises(RunFolderError, match="values in batch_size that are not int"):
        load_run(quick_run)


def test_the_manifest_is_read(quick_run: Path):
    assert load_manifest(quick_run) == json.loads(json.dumps(MANIFEST))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ('{"name": "to', "is not whole JSON"),
        ("[]", "does not hold a JSON object"),
        (json.dumps({k: v for k, v in MANIFEST.items() if k != "status"}), "has no 'status'"),
        (json.dumps(MANIFEST | {"hardware": {"cpu": "x"}}), r"has no 'hardware\.n_cpus'"),
        (json.dumps(MANIFEST | {"code": None}), r"has no 'code\.version'"),
        (json.dumps(MANIFEST | {"form": 1}), "is that of a run folder of form 1, .* fb18ede"),
    ],
)
def test_a_bad_manifest_is_named(quick_run: Path, content: str | None, message: str):
    file = quick_run / schema.MANIFEST_FILE
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(RunFolderError, match=rf"study\.json {message}"):
        load_manifest(quick_run)


def test_reconstructions_of_all_trials_are_put_together(quick_run: Path):
    images = load_reconstructions(quick_run)
    assert list(images.columns) == list(schema.RECONSTRUCTION_COLUMNS)
    assert images["trial_id"].unique().tolist() == ["reference-conv-8-0", "reference-dense-512-0"]
    assert len(images) == 10


def test_no_reconstructions_are_an_empty_table(tmp_path: Path):
    images = load_reconstructions(write_run(tmp_path, *quick_trials()))
    assert images.empty
    assert list(images.columns) == list(schema.RECONSTRUCTION_COLUMNS)


def test_a_reconstruction_of_another_size_is_refused(quick_run: Path):
    file = quick_run / schema.RECONSTRUCTIONS_FOLDER / "reference-conv-8-0.parquet"
    images = pd.read_parquet(file)
    images["original"] = [[0] * 783] * len(images)
    images.to_parquet(file)
    with pytest.raises(RunFolderError, match=r"conv-8-0\.parquet has original images that are not"):
        load_reconstructions(quick_run)
