"""Puts run folders side by side: what differs between them, and whether it is more than chance.

    python -m analysis.compare results/A results/B [--csv rows.csv] [--page compared.html]

In a few seconds on one core it prints the differing hardware, versions, code and spec, then, for
every setting that at least two runs completed, each run's MSE and training time with their ratio
to the first run that has it. --page writes the same, with figures, as one self-contained page.
Folders may be URIs (s3://, gs://). Exit 2 for a folder that is not a run.
"""

import argparse
import string
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from analysis.chapters import comparison, parts
from analysis.chapters.parts import Chapter
from analysis.chapters.provenance import MEASURES
from analysis.load import Run, RunFolderError, read_run
from analysis.page import page_of, render
from analysis.words import count


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Reads run folders and labels them A, B, C … in their order.

    Raises:
        RunFolderError: if one of them is not a whole run.
    """
    return [
        read_run(folder, label)
        for label, folder in zip(string.ascii_uppercase, folders, strict=False)
    ]


def show(console: Console, chapters: Iterable[Chapter]) -> None:
    """Prints chapters, but for figures, and the last one, which says of each run what it was."""
    for chapter in list(chapters)[:-1]:
        console.print(f"\n{chapter.title}", style="bold")
        for part in chapter.parts:
            match part:
                case parts.Heading(text):
                    console.print(f"\n{text}", style="bold")
                case parts.Text(text):
                    console.print(text)
                case parts.Items(items):
                    for item in items:
                        console.print(f"- {item}")
                case parts.Table():
                    console.print(_table(part))


def _table(part: parts.Table) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="",
        show_header=bool(part.header),
    )
    for place, _ in enumerate(part.rows[0]):
        head = part.header[place] if part.header else ""
        # Folded, so that nothing is cut off.
        table.add_column(head, justify="right" if place in part.right else "left", overflow="fold")
    for row in part.rows:
        table.add_row(*row)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 compared, 2 not run folders."""
    parser = argparse.ArgumentParser(
        prog="convae-compare"
        if sys.argv[0].endswith("convae-compare")
        else "python -m analysis.compare",
        description="Put two or more run folders side by side.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", help="STORAGE/NAME, a path or a URI")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="also write the rows to a file")
    parser.add_argument("--page", metavar="FILE", type=Path, help="also write a page with figures")
    given = parser.parse_args(arguments)
    if not 2 <= len(given.folders) <= len(string.ascii_uppercase):
        parser.error(
            f"{count(len(given.folders), 'run folder')} given; give two to"
            f" {len(string.ascii_uppercase)} of them."
        )
    try:
        runs = read_runs(given.folders)
    except RunFolderError as error:
        print(error, file=sys.stderr)
        return 2
    rows = comparison.compare(runs)
    chapters = comparison.chapters(runs, rows, with_figures=given.page is not None)
    answer = comparison.answer(runs, rows)
    names = " and ".join(str(run.manifest["name"]) for run in runs)
    page = page_of("Runs compared", names, answer, [("Measures", MEASURES)], chapters)
    for option, file, content in (
        ("--csv", given.csv, rows.to_csv(index=False)),
        ("--page", given.page, render(page)),
    ):
        if file:
            try:
                file.write_text(content, encoding="utf-8")
            except OSError as error:
                print(
                    f"{file} cannot be written ({error}); give another {option}.", file=sys.stderr
                )
                return 2
    # Names of folders and trials are texts, never markup.
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{answer.question}\n{answer.short} {' '.join(answer.sentences)} {answer.sure}")
    show(console, chapters)
    return 0


if __name__ == "__main__":
    sys.exit(main())
