"""Writes a run's report and reads its page and its chapters as text."""

import re
from collections.abc import Iterable
from html import unescape
from pathlib import Path

import pandas as pd
from synthetic_runs import MANIFEST, Rows, tables

from analysis.chapters import parts
from analysis.chapters.parts import Chapter
from analysis.load import Run
from analysis.report import write_report
from study.folder import schema


def page_of(folder: Path) -> str:
    """The page of a run folder, newly written."""
    return Path(write_report(folder)).read_text()


def run_of_trials(*pairs: tuple[dict, Rows], images: pd.DataFrame | None = None, **manifest) -> Run:
    """A run of some trials, without a folder."""
    empty = pd.DataFrame(columns=list(schema.RECONSTRUCTION_COLUMNS))
    return Run("nowhere", MANIFEST | manifest, *tables(*pairs), empty if images is None else images)


def text_of(chapter: Chapter) -> str:
    """A chapter's words, a line a part or row, | between cells."""
    return "\n".join(_lines(chapter.parts))


def _lines(content: Iterable[parts.Part]) -> Iterable[str]:
    for part in content:
        match part:
            case parts.Heading(text) | parts.Text(text) | parts.Code(text):
                yield text
            case parts.Items(items):
                yield from items
            case parts.Table(header, rows):
                yield from map("|".join, [header, *rows])
            case parts.SortedTable(_, header, rows):
                yield "|".join(header)
                yield from ("|".join(cell.text for cell in row) for row in rows)
            case parts.Fold(summary, inner):
                yield summary
                yield from _lines(inner)
            case parts.Figures(figures):
                yield from _lines(figures)
            case parts.Figure():
                yield f"{part.title}. {part.alt} {part.caption}"


def section_of(page: str, key: str) -> str:
    """A section of the page as plain text, | for a tag."""
    found = re.search(rf'<section id="{key}">(.*?)</section>', page, re.DOTALL)
    assert found
    content = re.sub(r'<span class="one">(.*?)</span>', r"\1", found[1])
    return unescape(re.sub(r"(\s*<[^>]+>\s*)+", "|", content))
