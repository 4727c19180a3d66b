"""Files of a run folder, on a disk; secrets in the URIs of buckets are never shown."""

import os
import pickle
import re
import subprocess
from pathlib import Path

import pytest

from study.folder.manifest import code_identity
from study.folder.storage import RunFolder, RunFolderError, without_secrets


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of(str(tmp_path), "study")


def test_files_come_and_go(folder):
    assert not folder.exists()
    folder.create()
    assert folder.exists()
    assert folder.read("a/b.json") is None
    assert folder.names("a") == []
    folder.write("a/b.json", b"first")
    folder.write("a/b.json", b"second")
    folder.write("a/c.json", b"")
    assert folder.read("a/b.json") == b"second"
    assert folder.names("a") == ["a/b.json", "a/c.json"]
    folder.delete("a/b.json")
    folder.delete("a/b.json")
    assert folder.names("a") == ["a/c.json"]


def test_where_a_file_is_in_the_way_there_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "study")
    assert not folder.exists()
    assert folder.read("table") is None
    with pytest.raises(RunFolderError, match="Not a directory"):
        folder.create()


def test_another_process_opens_the_same_folder(folder):
    folder.create()
    folder.write("file", b"content")
    other = pickle.loads(pickle.dumps(folder))
    assert other.read("file") == b"content"
    assert other.name == folder.name
    assert other.parent.read(f"{folder.name}/file") == b"content"


def test_secrets_are_blotted_out():
    folder = RunFolder.of("s3://key:secret@bucket?region=us-east-1", "study")
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
    with pytest.raises(RunFolderError, match="No space left on device"):
        folder.write("table", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert folder.read("table") == b"old"


def test_a_folder_that_was_taken_away_is_not_made_anew(folder):
    folder.create()
    folder.write("table", b"old")
    folder.local.rename(folder.local.with_name("elsewhere"))
    for name in ("table", "journal/1.json"):
        with pytest.raises(RunFolderError, match="No such file"):
            folder.write(name, b"new")
    with pytest.raises(RunFolderError, match="No such file"):
        folder.tidy()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["feature%2Fx", "a?b", "a#b", "é", "~", "a b", "%41", ":memory:"])
def test_a_legal_name_means_itself(tmp_path, name):
    folder = RunFolder.of(str(tmp_path / name), name)
    folder.create()
    folder.write("file", b"content")
    assert (tmp_path / name / name / "file").read_bytes() == b"content"
    assert folder.name == name
    assert pickle.loads(pickle.dumps(folder)).read("file") == b"content"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\0b"])
def test_a_name_that_is_no_folders_is_refused(tmp_path, name):
    with pytest.raises(RunFolderError, match="--name"):
        RunFolder.of(str(tmp_path), name)


def test_a_leading_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder.of("~/results", "study").local == tmp_path / "results" / "study"


def test_the_umask_holds_for_every_file(folder):
    before = os.umask(0o077)
    try:
        folder.create()
        folder.write("journal/1.json", b"")
    finally:
        os.umask(before)
    for path in (folder.local, folder.local / "journal", folder.local / "journal" / "1.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_storage_that_cannot_be_opened_is_refused_in_a_sentence_without_its_secrets():
    with pytest.raises(RunFolderError, match="nonsense://") as caught:
        RunFolder.of("nonsense://key:secret@bucket?token=secret", "study")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_may_not_write_changes_nothing(folder):
    folder.create()
    folder.write("file", b"old")

    def guard():
        raise RunFolderError("it is another's.")

    folder.guard = guard
    for change in (lambda: folder.write("file", b"new"), lambda: folder.delete("file")):
        with pytest.raises(RunFolderError, match="another's"):
            change()
    assert folder.read("file") == b"old"


def test_a_path_that_is_no_utf_8_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="no UTF-8; give another"):
        RunFolder(tmp_path / "\udce9")


def test_the_commit_is_that_of_the_code_or_none(tmp_path, monkeypatch):
    """Not of a repository around an installation, nor of the one that GIT_DIR names."""
    ours, installed = tmp_path / "study" / "code.py", tmp_path / ".venv" / "code.py"
    for path in (ours, installed):
        path.parent.mkdir()
        path.touch()
    for words in ("init -q", "add study/code.py", "-c user.name=a -c user.email=a commit -qm x"):
        subprocess.run(["git", "-C", tmp_path, *words.split()], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    found = code_identity(ours)
    assert re.fullmatch("[0-9a-f]{40}", found["git_commit"])
    assert found["git_dirty"] is False  # what is installed or kept beside it changes no code
    (ours.parent / "more.py").touch()
    assert code_identity(ours)["git_dirty"]
    (ours.parent / "more.py").unlink()
    ours.write_text("1")
    assert code_identity(ours)["git_dirty"]
    assert code_identity(installed) | {"version": ""} == {
        "version": "",
        "git_commit": None,
        "git_dirty": None,
    }
