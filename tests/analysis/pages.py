"""Writes a run's report, and reads its page and its chapters as text."""

import importlib
import re
from html import unescape
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
from rows import Trial, tables
from synthetic_runs import MANIFEST

from analysis import plots
from analysis.answer import answer
from analysis.load import Run
from analysis.page import Book, Chapter
from analysis.page.text import lines
from analysis.report import write_report
from study.folder import schema


def page_of(folder: Path) -> str:
    """The page of a run folder, newly written."""
    return Path(write_report(folder)).read_text()


def run_of_trials(*pairs: Trial, images: pd.DataFrame | None = None, **manifest: Any) -> Run:
    """A run of some trials, without a folder."""
    empty = pd.DataFrame(columns=list(schema.RECONSTRUCTION_COLUMNS))
    return Run("nowhere", MANIFEST | manifest, *tables(*pairs), empty if images is None else images)


def chapter_of(run: Run, key: str) -> tuple[Chapter, Book]:
    """A chapter of a run's report, and the book that holds its figures."""
    book = Book("on this machine")
    with plots.style():
        values = importlib.import_module(f"analysis.chapters.{key}").chapter(run)
        return book.chapter(key, run=run, **values), book


def screen(*pairs: Trial, question: str = "", **manifest: Any) -> str:
    """The first screen as HTML."""
    spec = manifest.pop("spec", MANIFEST["spec"]) | {"question": question}
    its = answer(run_of_trials(*pairs, **{"spec": spec} | manifest))
    return Book("here").chapter(f"answer_{its['kind']}", **its).html


def unsaved(*_: Any, **words: str) -> plots.Finished:
    """A figure's words alone; for `plots.finish`."""
    whole = {"report": "", "svg": "", "files": {}, "series": [], "readout": None}
    return plots.Finished(**whole | words)


def text_of(run: Run, key: str) -> str:
    """A chapter's words: a line a block or row, | between cells; then figures, and gaps."""
    with patch.object(plots, "finish", unsaved):  # as files, figures have tests of their own
        chapter, book = chapter_of(run, key)
    figures = [f"[{f.title}. {f.alt} {f.caption}]" for f in book.figures.values()]
    gaps = [f"gap: {gap}" for gap in chapter.gaps]
    return "\n".join([f"# {chapter.title}", *lines(chapter.html), *figures, *gaps, ""])


def section_of(page: str, key: str) -> str:
    """A section of the page as plain text, | for a tag."""
    found = re.search(rf'<section id="{key}">(.*?)</section>', page, re.DOTALL)
    assert found
    content = re.sub(r'<span class="one">(.*?)</span>', r"\1", found[1])
    return unescape(re.sub(r"(\s*<[^>]+>\s*)+", "|", content))
