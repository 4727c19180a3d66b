"""One driver a run folder: a lock that holds between processes, machines and buckets.

On a disk it is a lock of the operating system, which ends with its process. Beside it lies a lease
that the driver renews as long as it lives: it says who writes here, and is all there is in a bucket
or on a shared disk that locks each machine apart. Nobody's clock is compared with another's: a
lease has run out if it was watched for its whole term and not renewed.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from study.folder import schema
from study.folder.manifest import utc_now
from study.folder.storage import RunFolder, RunFolderError

LEASE_SECONDS = 30.0  # without renewal, after which a driver that cannot be asked counts as dead
BEAT_SECONDS = 5.0  # between renewals
CONFIRM_SECONDS = 2.0  # after which two that took a lease at once know whose it is
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # another one for each start of a machine

_log = logging.getLogger(__name__)


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Lease:
    """Who drives a study."""

    owner: str  # unique to the driver
    host: str  # its machine's name
    machine: str  # unique to its machine since that started
    pid: int
    since_utc: str
    beat: int = 0  # counts its renewals

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since_utc}"


class FolderInUseError(RunFolderError):
    """Another driver has the run folder."""

    def __init__(self, folder: RunFolder, lease: Lease | None) -> None:
        who = f"another driver ({lease})" if lease else "another driver"
        super().__init__(
            f"{folder} is in use by {who}; wait until it has ended, or choose another --name."
        )


class DriverLock:
    """Makes this process the only driver of a run folder, until it is released or dies.

    From then on the folder's guard refuses writes once another driver has taken over.

    Args:
        folder: the run folder; it is made if need be.
        tell: is given sentences about waiting for another driver, and taking over from it.
        lease_seconds, beat_seconds, confirm_seconds: see the constants above.
        os_lock: lock a file, too, where there is a disk.
        clock, sleep: tell seconds, and wait for so many.

    Raises:
        FolderInUseError: another driver has it.
        RunFolderError: the folder cannot be used.
    """

    def __init__(
        self,
        folder: RunFolder,
        tell: Callable[[str], None] = lambda _: None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        confirm_seconds: float = CONFIRM_SECONDS,
        os_lock: bool = True,
        clock: Callable[[], float] = _now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._bare = RunFolder(folder.where)  # without the guard
        self._lease_seconds, self._beat_seconds = lease_seconds, beat_seconds
        self._clock, self._sleep = clock, sleep
        self.lease = Lease(
            secrets.token_hex(8), socket.gethostname(), _machine(), os.getpid(), utc_now()
        )
        folder.create()
        with ExitStack() as locked:
            file_lock = self._lock_file() if os_lock else None
            if file_lock is not None:
                locked.callback(file_lock.release)
            self._wait_for_another(tell, alone_here=file_lock is not None)
            self._renew()
            if file_lock is None:
                sleep(confirm_seconds)
                self._confirm()
            self._locked = locked.pop_all()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        folder.guard = self._guard

    def release(self) -> None:
        """Lets another driver have the folder."""
        self._folder.guard = None
        self._ended.set()
        self._thread.join()
        with suppress(RunFolderError):
            if (now := read_lease(self._bare)) and now.owner == self.lease.owner:
                self._bare.delete(schema.LOCK_FILE)
        self._locked.close()

    def _lock_file(self) -> FileLock | None:
        """The operating system's lock; None where there is none to be had."""
        if self._bare.local is None:
            return None
        lock = FileLock(self._bare.local / schema.OS_LOCK_FILE, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise FolderInUseError(self._folder, read_lease(self._bare)) from error
        except (OSError, NotImplementedError) as error:
            if not os.access(self._bare.local, os.W_OK):
                raise RunFolderError(f"{self._folder} cannot be written to: {error}.") from error
            _log.warning("%s cannot be locked (%s); its lease alone says whose it is", lock, error)
            return None
        return lock

    def _wait_for_another(self, tell: Callable[[str], None], *, alone_here: bool) -> None:
        """Returns once no other driver lives; `alone_here`: none does on this machine."""
        other = read_lease(self._bare)
        if other is None:
            return
        if alone_here and other.machine == self.lease.machine:
            tell(f"taking over from {other}, which has died")
            return
        tell(f"waiting up to {self._lease_seconds:.0f} s for a sign of life of {other}")
        deadline = self._clock() + self._lease_seconds
        while self._clock() < deadline:
            self._sleep(min(1.0, self._beat_seconds))
            now = read_lease(self._bare)
            if now is None:
                return
            if now != other:
                raise FolderInUseError(self._folder, now)
        tell(f"taking over from {other}: no sign of life for {self._lease_seconds:.0f} s")

    def _renew(self) -> None:
        self.lease = replace(self.lease, beat=self.lease.beat + 1)
        self._bare.write(schema.LOCK_FILE, json.dumps(asdict(self.lease)).encode())
        self._confirmed = self._clock()

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                self._confirm()
                self._renew()
            except FolderInUseError:
                return  # the next write finds out
            except RunFolderError as error:  # the study's own writes will tell
                _log.warning("the lease was not renewed: %s", error)

    def _confirm(self) -> None:
        now = read_lease(self._bare)
        if now is not None and now.owner != self.lease.owner:
            self._confirmed = -self._lease_seconds
            raise FolderInUseError(self._folder, now)
        self._confirmed = self._clock()

    def _guard(self) -> None:
        # A process that was stopped for a while does not know what happened meanwhile.
        if self._clock() - self._confirmed > self._lease_seconds / 3:
            self._confirm()


def read_lease(folder: RunFolder) -> Lease | None:
    """The lease of the driver at work, or of one that died; None if there is none.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        return Lease(**json.loads(folder.read(schema.LOCK_FILE) or b""))
    except (ValueError, TypeError):
        return None


def guard_for(folder: RunFolder, owner: str) -> None:
    """Makes a worker's folder refuse writes once its driver, `Lease.owner`, is another one."""

    def guard() -> None:
        lease = read_lease(folder)
        if lease is not None and lease.owner != owner:
            raise FolderInUseError(folder, lease)

    folder.guard = guard


def _machine() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else socket.gethostname()
