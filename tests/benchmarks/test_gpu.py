"""The script for a GPU: every step in its smallest form on the CPU, and steps that fail."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def check(python, *arguments):
    return subprocess.run(
        ["bash", SCRIPT, "--check", *arguments],
        env={**os.environ, "PYTHON": str(python)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", ["1", "2"])
def test_every_step_works_and_packs_its_result(tmp_path, part):
    done = check(sys.executable, part, tmp_path)
    assert done.returncode == 0, done.stdout
    steps = [line.split("\t") for line in (tmp_path / f"gpu-{part}.tsv").read_text().splitlines()]
    with tarfile.open(tmp_path / f"gpu-{part}.tgz") as packed:
        names = packed.getnames()
    found = {Path(name).parent.name for name in names if name.endswith(".json")}
    # What benchmarks.aot reads of a program.
    assert (part == "1") == any("profile/xla/" in name for name in names)
    assert {name for name, *_ in steps[1:]} <= found
    assert len(steps) > 5


def test_a_step_that_fails_is_told_of_and_ends_no_other(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *engine_pace*) exit 7;; esac\n')
    python.chmod(0o755)
    done = check(python, "2", tmp_path, "standard", "warm")
    assert done.returncode == 1, done.stdout
    assert done.stdout.endswith("FAILED: standard (failed: exit status 7)\n")
    lines = (tmp_path / "gpu-2.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines[1:]] == [
        ["standard", "failed: exit status 7"],
        ["warm", "ok"],
    ]


def test_it_asks_for_a_part():
    done = check(sys.executable)
    assert done.returncode == 2
    assert done.stdout.startswith("usage:")
