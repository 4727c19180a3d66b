"""Writes a run folder's report again, from its tables alone.

    python -m analysis.report results/NAME

In a few seconds on one core it writes results/NAME/report/: index.html, one self-contained page to
open in a browser; the figures as PNG and SVG; summary.csv, summary.md and claims.csv; of an audit,
audit.csv and audit.md. It prints the page's path. The folder may be a URI (s3://, gs://). Exit 2
for a folder that is not a run.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from analysis import statistics
from analysis.audit.section import CSV_FILE, MARKDOWN_FILE, audit_report
from analysis.claims import judge_claims
from analysis.drawings import draw_reference
from analysis.image_drawings import draw_images
from analysis.load import (
    RunFolderError,
    load_manifest,
    load_reconstructions,
    load_run,
)
from analysis.page import tables
from analysis.page.layout import html_page
from analysis.search.drawings import draw_search
from analysis.words import readings, setting_note
from study.folder import schema
from study.folder.storage import RunFolder

PAGE_FILE: Final = "index.html"
AUDIT_FILES: Final = (CSV_FILE, MARKDOWN_FILE)


def write_report(path: str | os.PathLike[str]) -> str:
    """Writes PATH/report/ from the run folder's manifest and tables.

    Args:
        path: the run folder STORAGE/NAME, a local path or a URI.

    Returns:
        The path or URI of the page, index.html.

    Raises:
        RunFolderError: if the folder is not a whole run, or the report cannot be written.
    """
    manifest = load_manifest(path)
    trials, epochs = load_run(path)
    reconstructions = load_reconstructions(path)
    reference = statistics.reference_trials(trials)
    drawings = draw_reference(manifest, epochs, reference, reconstructions)
    search_drawings = draw_search(manifest, trials)
    image_drawings = draw_images(manifest, trials, reference, reconstructions)
    audited = audit_report(manifest, trials, epochs)
    claims = judge_claims(reference, epochs)
    summary = statistics.summary(reference)
    note = setting_note(manifest, reference, spread=False)

    page = html_page(
        manifest,
        trials,
        reference,
        claims,
        drawings,
        search_drawings,
        image_drawings,
        audited,
        note,
    )
    files = {
        f"{drawing.name}.{suffix}": content
        for drawing in (*drawings, *search_drawings, *image_drawings, *audited.drawings)
        for suffix, content in drawing.files.items()
    }
    files |= audited.files
    files |= {
        "summary.csv": summary.to_csv(index=False).encode(),
        "summary.md": tables.markdown(manifest, tables.summary_rows(reference), note).encode(),
        "claims.csv": tables.claims_csv(claims, readings(reference)).encode(),
        PAGE_FILE: page.encode(),  # the last: once it is there, so is what it belongs to
    }
    folder = RunFolder(path)
    for old in folder.names(schema.REPORT_FOLDER):
        name = old.removeprefix(f"{schema.REPORT_FOLDER}/")
        if (name.startswith("figure-") or name in AUDIT_FILES) and name not in files:
            folder.delete(old)
    for name, content in files.items():
        folder.write(f"{schema.REPORT_FOLDER}/{name}", content)
    return f"{os.fspath(path).rstrip('/')}/{schema.REPORT_FOLDER}/{PAGE_FILE}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 written, 2 not a run folder."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
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
