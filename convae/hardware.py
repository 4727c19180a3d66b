"""What machine this is, for manifests and tables. Imports neither TensorFlow nor Ray."""

import os
import platform
from pathlib import Path
from typing import Any


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
