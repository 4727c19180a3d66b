"""A terminal that goes away, or lacks characters, is no reason to stop."""

import os
import subprocess
import sys

CODE = """
import sys, time
from study.view.terminal import forgiving_terminal
from rich.console import Console

with forgiving_terminal():
    for number in range(2000):
        print("line", number, "é ≤", flush=True)
        Console(file=sys.stdout).print("rich")
    print("to the end", file=sys.stderr)
"""


def run(**settings):
    return subprocess.Popen([sys.executable, "-c", CODE], stderr=subprocess.PIPE, **settings)


def test_a_reader_that_goes_ends_nothing():
    with run(stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"to the end\n"
        assert process.wait() == 0


def test_output_that_was_never_open_ends_nothing():
    with run(stdout=None, preexec_fn=lambda: os.close(1)) as process:
        assert process.stderr.read() == b"to the end\n"
        assert process.wait() == 0


def test_what_the_terminal_cannot_show_is_a_question_mark():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with run(stdout=subprocess.PIPE, env=environment) as process:
        output = process.stdout.read().decode("ascii")
        assert process.wait() == 0
    assert "line 0 ? ?\n" in output
