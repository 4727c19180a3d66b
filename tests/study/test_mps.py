"""Whether NVIDIA MPS is found, and what the plan says when GPUs are to be shared without it."""

from types import SimpleNamespace

import pytest

from study.tune import mps
from study.tune.resources import Slots


@pytest.fixture
def control(tmp_path, monkeypatch):
    """A control program in the place of NVIDIA's, that fails as it does without a daemon."""

    def install(answer):
        path = tmp_path / mps.CONTROL
        path.write_text(f'#!/bin/sh\nread command\n[ "$command" = get_server_list ] && {answer}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return install


def test_mps_runs_where_its_daemon_answers(control):
    control("echo 4711")
    assert mps.mps_runs()


def test_mps_does_not_run_where_no_daemon_answers(control):
    control("exit 1")
    assert not mps.mps_runs()


def test_mps_does_not_run_where_it_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not mps.mps_runs()


@pytest.mark.parametrize(
    ("share", "runs", "warns"),
    [(0.25, False, True), (0.25, True, False), (1.0, False, False), (0, False, False)],
)
def test_the_plan_warns_of_gpus_shared_without_mps(monkeypatch, share, runs, warns):
    task = SimpleNamespace(remote=lambda: runs)
    monkeypatch.setattr(mps, "fits_now", lambda _: True)
    monkeypatch.setattr(mps.ray, "remote", lambda **_: lambda _: task)
    monkeypatch.setattr(mps.ray, "get", lambda value: value)
    assert ("NVIDIA MPS" in mps.sharing_note(Slots(4, 1, share))) == warns
