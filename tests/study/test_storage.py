"""Files of a run folder, on a disk; secrets in the URIs of buckets are never shown."""

import pickle
from pathlib import Path

import pytest

from study.storage import RunFolder, StorageError, inside, without_secrets


@pytest.fixture
def folder(tmp_path):
    return RunFolder(inside(str(tmp_path), "study"))


def test_files_come_and_go(folder):
    assert not folder.exists()
    assert folder.read("a/b.json") is None
    assert folder.names("a") == []
    folder.write("a/b.json", b"first")
    folder.write("a/b.json", b"second")
    folder.write("a/c.json", b"")
    assert folder.exists()
    assert folder.read("a/b.json") == b"second"
    assert folder.names("a") == ["a/b.json", "a/c.json"]
    folder.delete("a/b.json")
    folder.delete("a/b.json")
    assert folder.names("a") == ["a/c.json"]


def test_another_process_opens_the_same_folder(folder):
    folder.write("file", b"content")
    other = pickle.loads(pickle.dumps(folder))
    assert other.read("file") == b"content"
    assert other.name == folder.name
    assert other.parent.read(f"{folder.name}/file") == b"content"


def test_secrets_are_blotted_out():
    folder = RunFolder(inside("s3://key:secret@bucket?region=us-east-1", "study"))
    assert "secret" not in str(folder)
    assert str(folder).startswith("s3://***@bucket/study?")
    assert without_secrets("s3://b/c?secret_key=abc&region=x") == "s3://b/c?secret_key=***&region=x"
    assert without_secrets("a path/with@sign and https://host/x") == (
        "a path/with@sign and https://host/x"
    )


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write("table", b"old")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(StorageError, match="No space left on device"):
        folder.write("table", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert folder.read("table") == b"old"
