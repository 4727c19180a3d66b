"""Texts that a test compares with a file: the whole of what is said of a synthetic run.

UPDATE_GOLDEN=1 writes the files again; read their difference before it is committed.
"""

import os
from difflib import unified_diff
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "golden"


def agrees(name: str, text: str) -> None:
    """Asserts that a text is that of `golden/NAME.txt`."""
    file = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    expected = file.read_text(encoding="utf-8").splitlines()
    difference = "\n".join(unified_diff(expected, text.splitlines(), name, "said", lineterm=""))
    assert not difference, difference
