"""How commands end early: one line and an exit code, whatever the reason."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray_nodes import as_from_a_terminal

from convae.data import cache_folder
from convae.errors import UserError, run_command
from convae.hardware import can_be_made, home_folder

WITHOUT_HOME = """
import os, pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
del os.environ["HOME"]
from convae.data import load_images
from convae.errors import run_command
from convae.hardware import home_folder
assert run_command(lambda: load_images("~/none.npz")) == 2
print(home_folder(), os.environ["HOME"])
"""


NO_PROCESS = (
    "No process can be started here (no more); end others, or raise the limits (ulimit -u, ulimit"
    " -v)."
)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("No such thing."), 2, "No such thing."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BlockingIOError(11, "no more"), 2, NO_PROCESS),
        (FileNotFoundError(2, "none"), 2, "The working folder is gone; run this from another one."),
    ],
)
def test_what_ends_a_command_early_has_one_line(error, code, line, capsys):
    def fail():
        raise error

    assert run_command(fail) == code
    assert capsys.readouterr() == ("", f"{line}\n")
    assert run_command(lambda: 1) == 1


def test_what_is_not_the_outputs_is_told_without_an_output(monkeypatch, capsys):
    def fail():
        raise BlockingIOError(11, "no more")

    monkeypatch.setattr("sys.stdout", None)
    assert run_command(fail) == 2
    assert capsys.readouterr().err == f"{NO_PROCESS}\n"


def test_an_output_that_takes_nothing_has_one_line():
    code = "from convae.errors import run_command; exit(run_command(lambda: print(1) or 0))"
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=-1, text=True)
    told = "The output cannot be written (No space left on device).\n"
    assert (ran.returncode, ran.stderr) == (1, told)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("program", ["-m", "/usr/bin/convae-report", "notebook.py"])
def test_an_interrupt_while_our_programs_import_has_one_line(program, number):
    code = f"import os, sys; sys.argv = [{program!r}]; from convae.errors import tell_interrupts"
    code += f"; tell_interrupts(); os.kill(os.getpid(), {number:d})"
    killed = {"capture_output": True, "text": True, "preexec_fn": as_from_a_terminal}
    ran = subprocess.run([sys.executable, "-c", code], **killed)
    if program == "notebook.py":
        assert ran.returncode == -number
        assert ran.stderr != "interrupted\n"
    else:
        assert (ran.returncode, ran.stderr) == (-signal.SIGINT, "interrupted\n")


def test_a_user_without_a_home_has_a_temporary_one():
    ran = subprocess.run([sys.executable, "-c", WITHOUT_HOME], capture_output=True, text=True)
    folder = f"{tempfile.gettempdir()}/convae-home-{os.getuid()}"
    assert ran.stdout.split() == [folder, folder], ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_cache_is_where_it_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a" / "convae"
    (tmp_path / "a").write_text("in the way")
    assert not can_be_made(tmp_path / "a" / "b")
    assert cache_folder().parent == Path(tempfile.gettempdir())
    assert home_folder() == Path.home()
