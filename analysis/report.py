"""Writes a run folder's report again, from its tables alone.

    python -m analysis.report results/NAME

In a few seconds on one core it writes results/NAME/report/: index.html, one self-contained page to
open in a browser; the figures as PNG and SVG; summary.csv and claims.csv; of an audit, audit.csv
and specifications.csv. It prints the page's path. The folder may be a URI (s3://, gs://). Exit 2
for a folder that is not a run.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from analysis import plots
from analysis.answer import answer
from analysis.chapters import provenance, readings
from analysis.load import Run, read_run
from analysis.page import Book
from analysis.phrases import custom_question, image_set, listed, rests_on
from convae.errors import program, run_command
from study.folder import schema
from study.folder.storage import RunFolder

PAGE_FILE: Final = "index.html"
# In the order of the page. A module computes what its template, of the same name, says.
CHAPTERS: Final = (
    *("claims", "curves", "custom", "times", "reconstructions", "search", "tuning"),
    *("parameters", "pareto", "sensitivity", "readings", "trials", "provenance"),
)


def title(run: Run) -> str:
    """What the page is about."""
    images = image_set(run.manifest)
    if set(run.models) in ({schema.CONV, schema.DENSE}, set()):
        return f"Convolutional and dense autoencoders on {images}"
    return f"Autoencoders on {images}: {listed(run.models)}"


def files_of(run: Run) -> dict[str, bytes]:
    """The files of a run's report by name: the page, the last of them, rests on all others."""
    book = Book(rests_on(run))
    files: dict[str, bytes] = {}
    chapters = list(CHAPTERS)
    if custom_question(run.manifest):  # what was done to answer it comes first
        chapters.sort(key=lambda key: key not in ("custom", "search"))
    with plots.style():
        for key in chapters:
            chapter = import_module(f"analysis.chapters.{key}")
            book.chapter(key, run=run, **chapter.chapter(run))
            if hasattr(chapter, "files"):
                files |= chapter.files(run)
    its = answer(run)
    first = book.chapter(f"answer_{its['kind']}", **its)
    name = f"Study {run.manifest['name']}"
    page = book.render(title(run), name, first, its["figure"], provenance.basis(run))
    return {**book.files, **files, PAGE_FILE: page.encode()}


def write_report(path: str | os.PathLike[str]) -> str:
    """Writes PATH/report/ of a run folder, a path or a URI, from its manifest and tables.

    Returns:
        The path or URI of the page, index.html.

    Raises:
        RunFolderError: if the folder is not a whole run, or the report cannot be written.
    """
    files = files_of(read_run(path))
    folder = RunFolder(path)
    for old in folder.names(schema.REPORT_FOLDER):
        name = old.removeprefix(f"{schema.REPORT_FOLDER}/")
        if (name.startswith("figure-") or name in readings.FILES) and name not in files:
            folder.delete(old)
    for name, content in files.items():
        folder.write(f"{schema.REPORT_FOLDER}/{name}", content)
    return f"{os.fspath(path).rstrip('/')}/{schema.REPORT_FOLDER}/{PAGE_FILE}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 written, 2 not a run folder."""
    parser = argparse.ArgumentParser(
        prog=program("convae-report", "analysis.report"),
        description="Write a run folder's report again: figures, tables and one page.",
    )
    parser.add_argument("folder", metavar="DIR", help="STORAGE/NAME, a path or a URI")
    folder = parser.parse_args(arguments).folder
    return run_command(lambda: print(write_report(folder)) or 0)


if __name__ == "__main__":
    sys.exit(main())
