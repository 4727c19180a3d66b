"""Writes a run's report and reads its page as text."""

import re
from html import escape, unescape
from pathlib import Path

from analysis.report import write_report


def page_of(folder: Path) -> str:
    """The page of a run folder, newly written."""
    return Path(write_report(folder)).read_text()


def section_of(page: str, title: str) -> str:
    """A section of the page as plain text."""
    found = re.search(rf"<h2>{escape(title)}</h2>(.*?)</section>", page, re.DOTALL)
    assert found
    content = re.sub(r'<span class="trial">(.*?)</span>', r"\1", found[1])
    return unescape(re.sub(r"<[^>]+>", "|", content)).replace("\N{NO-BREAK SPACE}", " ")
