"""One driver a run folder: between processes, between machines, and with leases alone."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
from running import wait_until

from study.folder import lock, schema
from study.folder.lock import DriverLock, FolderInUseError, guard_for, read_lease
from study.folder.storage import RunFolder, RunFolderError

QUICK = {"lease_seconds": 1.0, "beat_seconds": 0.1, "confirm_seconds": 0.3}
# As in a bucket, or on a shared disk that locks each machine apart.
LEASES_ALONE = {**QUICK, "os_lock": False}
HOLD = """
import sys, time
from study.folder.lock import DriverLock
from study.folder.storage import RunFolder

lock = DriverLock(RunFolder(sys.argv[1]))
print(lock.lease.owner, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "study")


@pytest.fixture
def other(folder):
    """Another process that drives the study."""
    command = [sys.executable, "-c", HOLD, folder.where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_second_driver_is_refused_and_told_who_the_first_is(folder, other):
    started = time.monotonic()
    with pytest.raises(FolderInUseError) as refused:
        DriverLock(folder)
    assert time.monotonic() - started < 1.0
    lease = read_lease(folder)
    for named in (f"process {other.pid} on {lease.host}", f"since {lease.since_utc}"):
        assert named in str(refused.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_drivers_lock_is_taken_over_at_once(folder, other, number):
    other.send_signal(number)
    other.wait()
    told = []
    started = time.monotonic()
    mine = DriverLock(folder, told.append)
    assert time.monotonic() - started < 1.0
    assert told == [line for line in told if f"process {other.pid}" in line and "died" in line]
    assert read_lease(folder).pid == os.getpid()
    mine.release()


def test_a_released_folder_holds_no_lease_and_is_free(folder):
    DriverLock(folder).release()
    assert read_lease(folder) is None
    DriverLock(folder).release()


def test_the_lease_is_renewed_as_long_as_its_driver_lives(folder):
    mine = DriverLock(folder, **QUICK)
    before = read_lease(folder)
    wait_until(lambda: read_lease(folder).beat >= before.beat + 3)
    mine.release()
    assert replace(read_lease(folder) or before, beat=0) == replace(before, beat=0)


def lease_of_another_host(folder, **changes):
    lease = lock.Lease("theirs", "elsewhere", "boot-2", 7, "2026-01-01T00:00:00+00:00", 5)
    lease = replace(lease, **changes)
    folder.create()
    folder.write(schema.LOCK_FILE, json.dumps(asdict(lease)).encode())
    return lease


def test_a_driver_that_died_elsewhere_is_taken_over_when_its_lease_has_run_out(folder):
    """Whatever its clock says: only that nobody renews it counts."""
    lease_of_another_host(folder, since_utc="2999-01-01T00:00:00+00:00")
    told = []
    started = time.monotonic()
    mine = DriverLock(folder, told.append, **QUICK)
    assert time.monotonic() - started >= QUICK["lease_seconds"]
    assert "waiting up to 1 s for a sign of life of process 7 on elsewhere" in told[0]
    assert told[-1].startswith("taking over from process 7 on elsewhere")
    mine.release()


def test_a_driver_that_lives_elsewhere_is_left_alone(folder):
    lease = lease_of_another_host(folder)

    def meanwhile(_):
        lease_of_another_host(RunFolder(folder.where), beat=lease.beat + 1)

    with pytest.raises(FolderInUseError, match="process 7 on elsewhere"):
        DriverLock(folder, **QUICK, sleep=meanwhile)
    assert folder.guard is None
    folder.delete(schema.LOCK_FILE)
    DriverLock(folder).release()  # nor is the file locked


def test_of_two_that_take_a_lease_at_once_one_has_it(folder):
    """The other's lease comes after this one's was written: the later one is the owner."""
    with pytest.raises(FolderInUseError, match="elsewhere"):
        DriverLock(folder, **LEASES_ALONE, sleep=lambda _: lease_of_another_host(folder))


def test_a_study_whose_lease_is_taken_stops_writing(folder):
    mine = DriverLock(folder, **LEASES_ALONE)
    folder.write("before", b"")
    lease_of_another_host(RunFolder(folder.where))
    # The next beat finds out, and is the last.
    wait_until(lambda: all(thread.name != "lease" for thread in threading.enumerate()))
    with pytest.raises(FolderInUseError, match="process 7 on elsewhere"):
        folder.write("after", b"")
    with pytest.raises(FolderInUseError):
        folder.delete("before")
    mine.release()
    assert read_lease(folder).owner == "theirs"  # nor is another's lease taken away
    assert RunFolder(folder.where).read("before") == b""


def test_a_driver_that_was_stopped_for_long_asks_before_it_writes(folder):
    now = [0.0]
    times = {"lease_seconds": 30.0, "beat_seconds": 30.0, "confirm_seconds": 0.0}
    mine = DriverLock(folder, os_lock=False, clock=lambda: now[0], **times)
    lease_of_another_host(RunFolder(folder.where))
    folder.write("still", b"")  # it was confirmed a moment ago
    now[0] += 11
    with pytest.raises(FolderInUseError):
        folder.write("later", b"")
    mine.release()


def test_a_worker_writes_only_for_the_driver_at_work(folder):
    mine = DriverLock(folder)
    worker = RunFolder(folder.where)
    guard_for(worker, mine.lease.owner)
    worker.write("checkpoint", b"")
    guard_for(worker, "an earlier driver")
    with pytest.raises(FolderInUseError):
        worker.write("checkpoint", b"")
    mine.release()
    worker.write("checkpoint", b"")  # nobody is at work


def test_a_torn_lease_is_nobodys(folder):
    folder.create()
    folder.write(schema.LOCK_FILE, b'{"owner": "th')
    DriverLock(folder).release()


def test_the_lock_does_not_outlive_its_driver_in_a_child(folder):
    """Ray's processes are children of the driver, and outlive it for a while."""
    code = (
        "import subprocess, sys; from study.folder.lock import DriverLock;"
        "from study.folder.storage import RunFolder; lock = DriverLock(RunFolder(sys.argv[1]));"
        "print(subprocess.Popen(['sleep', '30'], stdout=-3, stderr=-3).pid, flush=True);"
        "import os; os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, folder.where]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        DriverLock(folder).release()
    finally:
        os.kill(int(run.stdout), signal.SIGKILL)


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has none."""

    def acquire(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)


@pytest.mark.usefixtures("no_locks")
def test_where_files_cannot_be_locked_the_lease_alone_says_whose_it_is(folder, caplog):
    mine = DriverLock(folder, **QUICK)
    assert "cannot be locked" in caplog.text
    told = []
    with pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
        DriverLock(RunFolder(folder.where), told.append, **QUICK)
    assert "waiting up to 1 s for a sign of life" in told[0]
    mine.release()
    DriverLock(folder, told.append, **QUICK).release()
    assert len(told) == 1


@pytest.mark.usefixtures("no_locks")
def test_a_folder_that_cannot_be_written_to_is_refused(folder, monkeypatch):
    folder.create()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RunFolderError, match=r"cannot be written to: .*No locks available"):
        DriverLock(folder)


def test_who_gives_the_folder_up_is_not_waited_for_any_longer(folder):
    lease_of_another_host(folder)
    leaves = threading.Timer(0.2, lambda: RunFolder(folder.where).delete(schema.LOCK_FILE))
    leaves.start()
    started = time.monotonic()
    DriverLock(folder, **(QUICK | {"lease_seconds": 60.0})).release()
    assert time.monotonic() - started < 30
    leaves.join()


def test_a_lease_that_cannot_be_renewed_once_is_renewed_the_next_time(folder, caplog):
    mine = DriverLock(folder, **QUICK)
    path = folder.local / schema.LOCK_FILE
    beat = read_lease(folder).beat
    path.unlink()
    path.mkdir()
    wait_until(lambda: "the lease was not renewed" in caplog.text)
    path.rmdir()
    wait_until(lambda: (lease := read_lease(folder)) and lease.beat > beat)
    mine.release()
