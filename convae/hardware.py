"""What machine and software this is, for manifests and tables. Imports none of what it names."""

import importlib.metadata
import math
import os
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# The files with a control group's quota and its period, in microseconds; version 2 has one.
CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"), None),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
# A control group's limit of processes and threads, and how many it has; versions 2 and 1.
PROCESS_LIMITS = ("/sys/fs/cgroup{}/pids", "/sys/fs/cgroup/pids{}/pids")
PACKAGES = ("tensorflow", "keras", "ray", "optuna", "numpy", "pandas", "pyarrow")


def cpu_name() -> str:
    """The processor's model name, as the operating system tells it."""
    return _told_of_cpu("model name") or platform.processor() or platform.machine()


def cpu_features() -> str:
    """The instructions that the processor has, as Linux tells them; elsewhere nothing."""
    return _told_of_cpu("flags", "Features")


def _told_of_cpu(*fields: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith(fields)), "")


def home_folder() -> Path:
    """The user's home folder, be it there or not.

    A user without one, as of a container that has no entry for them, gets a folder of theirs among
    the temporary ones, which HOME names from then on: Ray and Keras look for one, too.
    """
    try:
        return Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(Path(tempfile.gettempdir()) / f"convae-home-{os.getuid()}")
        return Path.home()


def can_be_made(path: Path) -> bool:
    """Whether this user may write the folder, or make it where it is missing."""
    there = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def free_processes(
    limits: Iterable[str] = PROCESS_LIMITS, groups: Path = Path("/proc/self/cgroup")
) -> int | None:
    """How many more processes and threads the control groups allow; None for any number.

    From Linux' Documentation/admin-guide: cgroup-v2.rst, `pids.max`; cgroup-v1/pids.rst.
    """
    free = []
    lines = groups.read_text().splitlines() if groups.exists() else []
    own = {group for line in lines if (group := line.rpartition(":")[2].rstrip("/"))}
    for stem in (limit.format(group) for limit in limits for group in ("", *own)):
        try:
            free.append(
                int(Path(f"{stem}.max").read_text()) - int(Path(f"{stem}.current").read_text())
            )
        except (OSError, ValueError):  # another version, or "max"
            continue
    return min(free, default=None)


def usable_cpus(quotas: Iterable[tuple[Path, Path | None]] = CPU_QUOTAS) -> int:
    """The cores that this process may use: by its affinity, and by its container's quota.

    The quota is that of its control group, version 2 or 1 (Linux' Documentation/admin-guide:
    cgroup-v2.rst, `cpu.max`; scheduler/sched-bwc.rst); a part of a core counts as one.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota_file, period_file in quotas:
        try:
            words = quota_file.read_text().split()
            period = int(period_file.read_text() if period_file else words[1])
            quota = int(words[0])  # "max" or -1 is none
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0:
            n = min(n, math.ceil(quota / period))
    return max(1, n)


def describe_machine() -> dict[str, Any]:
    """Processor, cores that may be used, and memory (GiB) of this machine."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "n_cpus": usable_cpus(),
        "memory_gib": round(memory_bytes / 2**30, 1),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on, as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # a machine that only trains needs neither Optuna nor pandas
    return found
