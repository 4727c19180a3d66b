"""What is kept off the terminal, and what is not; in processes with descriptors of their own."""

import subprocess
import sys

import pytest

NOTE = "I0000 00:00:1795584651.323942   22244 port.cc:153] oneDNN custom operations are on."
OTHER = "corrupted size vs. prev_size"
PROGRAM = f"""
import os, sys
from convae.stderr_filter import filtered_stderr
with filtered_stderr():
    os.write(2, b"{NOTE}\\n{OTHER}\\n")
    print("a warning of Python's", file=sys.stderr)
    print(1 / int(sys.argv[1]))
print("after", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("divisor", "kept"),
    [
        ("1", [OTHER, "a warning of Python's", "after"]),
        ("0", [NOTE, OTHER, "a warning of Python's"]),  # they may tell why it failed
    ],
)
def test_notes_are_dropped_unless_the_block_fails(divisor, kept):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, divisor], capture_output=True, text=True, check=False
    )
    assert run.stderr.splitlines()[: len(kept)] == kept
    assert (run.returncode == 0) == (divisor == "1")


def test_a_closed_stderr_is_none_of_the_files_that_are_opened():
    program = f"""
import os, tempfile
from convae.stderr_filter import filtered_stderr
with filtered_stderr(), tempfile.TemporaryFile() as file:
    os.write(2, b"{NOTE}")
    print(os.stat(file.fileno()).st_size)
"""
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "0\n")
