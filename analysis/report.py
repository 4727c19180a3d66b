"""Writes a run folder's report again, from its tables alone.

    python -m analysis.report results/NAME

In a few seconds on one core it writes results/NAME/report/: index.html, one self-contained page to
open in a browser; the figures as PNG and SVG; summary.csv and claims.csv; of an audit, audit.csv.
It prints the page's path. The folder may be a URI (s3://, gs://). Exit 2
for a folder that is not a run.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from analysis.chapters import (
    answer,
    claims,
    curves,
    custom,
    parameters,
    pareto,
    provenance,
    readings,
    reconstructions,
    search,
    sensitivity,
    times,
    trials,
)
from analysis.chapters.parts import Chapter
from analysis.load import Run, RunFolderError, read_run
from analysis.page import page_of, render
from analysis.statistics import models_of
from analysis.words import custom_question, image_set, listed
from study.folder import schema
from study.folder.storage import RunFolder

PAGE_FILE: Final = "index.html"
OLD_FILES: Final = (readings.CSV_FILE, "audit.md", "summary.md")  # of this version or before


def title(run: Run) -> str:
    """What the page is about."""
    images = image_set(run.manifest)
    models = models_of(run.trials)
    if set(models) in ({schema.CONV, schema.DENSE}, set()):
        return f"Convolutional and dense autoencoders on {images}"
    return f"Autoencoders on {images}: {listed(models)}"


def chapters_of(run: Run) -> list[Chapter]:
    """What the report has on a run, in the order of the page."""
    found = [
        claims.chapter(run),
        curves.chapter(run),
        custom.chapter(run),
        times.chapter(run),
        reconstructions.chapter(run),
        search.chapter(run, sensitivity.relative_spreads(run.trials)),
        parameters.chapter(run),
        pareto.chapter(run),
        sensitivity.chapter(run),
        readings.chapter(run),
        trials.chapter(run),
        provenance.chapter(run),
    ]
    if custom_question(
        run.manifest
    ):  # what was done to answer it comes before what stands beside it
        found.sort(key=lambda chapter: chapter.key not in ("custom", "search"))
    return found


def write_report(path: str | os.PathLike[str]) -> str:
    """Writes PATH/report/ from the run folder's manifest and tables.

    Args:
        path: the run folder STORAGE/NAME, a local path or a URI.

    Returns:
        The path or URI of the page, index.html.

    Raises:
        RunFolderError: if the folder is not a whole run, or the report cannot be written.
    """
    run = read_run(path)
    chapters = chapters_of(run)
    name = f"Study {run.manifest['name']}"
    page = page_of(title(run), name, answer.answer(run), provenance.basis(run), chapters)
    files = files_of(chapters)
    files[PAGE_FILE] = render(page).encode()  # the last: it is there once what it tells of is
    folder = RunFolder(path)
    for old in folder.names(schema.REPORT_FOLDER):
        name = old.removeprefix(f"{schema.REPORT_FOLDER}/")
        if (name.startswith("figure-") or name in OLD_FILES) and name not in files:
            folder.delete(old)
    for name, content in files.items():
        folder.write(f"{schema.REPORT_FOLDER}/{name}", content)
    return f"{os.fspath(path).rstrip('/')}/{schema.REPORT_FOLDER}/{PAGE_FILE}"


def files_of(chapters: Iterable[Chapter]) -> dict[str, bytes]:
    """The files of the chapters and their figures, by name."""
    files: dict[str, bytes] = {}
    for chapter in chapters:
        for figure in chapter.figures:
            files |= {f"{figure.name}.{suffix}": of for suffix, of in figure.files.items()}
        files |= chapter.files
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 written, 2 not a run folder."""
    parser = argparse.ArgumentParser(
        prog="convae-report"
        if sys.argv[0].endswith("convae-report")
        else "python -m analysis.report",
        description="Write a run folder's report again: figures, tables and one page.",
    )
    parser.add_argument("folder", metavar="DIR", help="STORAGE/NAME, a path or a URI")
    folder = parser.parse_args(arguments).folder
    try:
        print(write_report(folder))
    except RunFolderError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
