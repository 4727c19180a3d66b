"""What machine and software this is, for manifests and tables. Imports none of what it names."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("tensorflow", "keras", "ray", "optuna", "numpy", "pandas", "pyarrow")


def cpu_name() -> str:
    """The processor's model name, as the operating system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """Processor, cores and memory (GiB) of this machine."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "n_cpus": os.cpu_count(),
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
