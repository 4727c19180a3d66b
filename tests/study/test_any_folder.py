"""Whatever a run folder is called and whatever became of its bytes, it is read or named."""

import random
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulation import Chances, Executor, MemoryFolder

from study.folder import schema
from study.folder.manifest import read_manifest
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import read_tables
from study.plan.ledger import Ledger
from study.plan.spec import StudySpec

READERS = (read_tables, read_manifest, lambda folder: Ledger(folder, resume=True))


@cache
def files_of_a_study():
    """A study that was interrupted, with its tables, a journal and a manifest."""
    spec = StudySpec(preset="test", hidden_units=(64,), epochs=2, n_search_trials=2, n_finalists=0)
    for seed in range(100):
        folder = MemoryFolder()
        Executor(spec, random.Random(seed), Chances(interrupt=0.05)).session(folder)
        last = MemoryFolder(dict(folder.files))
        ledger = Ledger(last, resume=True)
        if ledger.to_do:
            ledger.end(min(ledger.to_do), error="it died")  # left in the journal
        if last.names(schema.JOURNAL_FOLDER):
            return last.files
    raise AssertionError("no study was interrupted")


def read(files):
    for reader in READERS:
        told = None
        try:
            reader(MemoryFolder(dict(files)))
        except RunFolderError as error:
            told = str(error)
        assert told is None or ("/simulated/study" in told and "\n" not in told)


def torn(data, content):
    return content[: data.draw(st.integers(0, len(content)))]


def changed(data, content):
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.binary(min_size=1, max_size=8))
    return content[:at] + other + content[at + len(other) :]


def replaced(data, _):
    return data.draw(st.binary(max_size=64) | st.sampled_from([b"{}", b"[]", b"1", b"", None]))


@pytest.mark.parametrize("broken", [torn, changed, replaced])
def test_a_file_that_is_broken_is_read_or_named(broken):
    @settings(max_examples=400, deadline=None)
    @given(data=st.data())
    def read_or_named(data):
        files = dict(files_of_a_study())
        name = data.draw(st.sampled_from(sorted(files)))
        files[name] = broken(data, files[name])
        read({name: content for name, content in files.items() if content is not None})

    read_or_named()


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@settings(max_examples=200, deadline=None)
@given(name=st.text(min_size=1, max_size=40), content=st.binary(max_size=100))
def test_any_name_is_a_folders_own_or_refused(storage, name, content):
    try:
        folder = RunFolder.of(str(storage), name)
    except RunFolderError:
        assert name in (".", "..") or "/" in name or not name.isprintable()
        return
    assume(len(name.encode()) <= 255)
    folder.create()
    folder.write("journal/1.json", content)
    assert (storage / name / "journal" / "1.json").read_bytes() == content
    assert RunFolder.of(str(storage), name).read("journal/1.json") == content
    assert folder.name == name
