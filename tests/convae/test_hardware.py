"""The cores that a process may use: its affinity's, and its container's."""

import os
import subprocess
import sys

import pytest

from convae.hardware import usable_cpus

PRINT = "from convae.hardware import usable_cpus; print(usable_cpus())"


def test_affinity_counts():
    one = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", one, sys.executable, "-c", PRINT]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("version_2", "version_1", "expected"),
    [
        ("100000 100000", None, 1),
        ("150000 100000", None, 2),
        ("50000 100000", None, 1),
        ("max 100000", None, 8),
        (None, ("300000", "100000"), 3),
        (None, ("-1", "100000"), 8),
        ("torn", None, 8),
        (None, None, 8),
    ],
)
def test_a_containers_quota_counts(tmp_path, monkeypatch, version_2, version_1, expected):
    names = ("cpu.max", "quota", "period")
    for name, content in zip(names, (version_2, *(version_1 or (None, None))), strict=True):
        if content is not None:
            (tmp_path / name).write_text(content + "\n")
    quotas = ((tmp_path / "cpu.max", None), (tmp_path / "quota", tmp_path / "period"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cpus(quotas) == expected
