"""A chapter's HTML as text: what the terminal prints, so that it and the page cannot differ."""

from html.parser import HTMLParser
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

HEADINGS = ("h1", "h2", "h3", "summary")
BLOCKS = (*HEADINGS, "p", "li", "pre", "dt", "dd")
HIDDEN = ("figure", "script", "form")


class Block(NamedTuple):
    """A block of text, of one row with one cell, or a table."""

    tag: str
    rows: list[list[str]]

    @property
    def text(self) -> str:
        """Its text, - before an item, | between cells."""
        said = "\n".join("|".join(row) for row in self.rows)
        return f"- {said}" if self.tag == "li" else said


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Block] = []
        self._hidden = 0  # depth inside of drawings and scripts

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in HIDDEN
        if tag in BLOCKS:
            self.found.append(Block(tag, [[""]]))
        elif tag == "table":
            self.found.append(Block(tag, []))
        elif tag == "tr":
            self.found[-1].rows.append([])
        elif tag in ("th", "td"):
            self.found[-1].rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN

    def handle_data(self, data: str) -> None:
        if not self._hidden and self.found and self.found[-1].rows and self.found[-1].rows[-1]:
            self.found[-1].rows[-1][-1] += data


def blocks(html: str) -> list[Block]:
    """The blocks of some HTML that have a text; drawings are left out."""
    parser = _Parser()
    parser.feed(str(html))  # not Markup, which would be escaped again
    parser.close()
    plain = [
        Block(tag, [[c.strip() if tag == "pre" else " ".join(c.split()) for c in r] for r in rows])
        for tag, rows in parser.found
    ]
    return [block for block in plain if any(map(any, block.rows))]


def lines(html: str) -> list[str]:
    """The text of some HTML, a line a block or row."""
    return [line for block in blocks(html) for line in block.text.split("\n")]


def show(console: Console, html: str) -> None:
    """Prints some HTML, its tables folded to the terminal's width so that nothing is cut off."""
    for block in blocks(html):
        if block.tag == "table":
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
            for name, *cells in zip(*block.rows, strict=True):
                are_numbers = any(cells) and all(cell[:1].isdigit() for cell in cells if cell)
                table.add_column(name, overflow="fold", justify="right" if are_numbers else "left")
            for row in block.rows[1:]:
                table.add_row(*row)
            console.print(table)
        else:
            heading = block.tag in HEADINGS
            console.print(f"\n{block.text}" if heading else block.text, style="bold" * heading)
