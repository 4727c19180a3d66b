"""A chapter's HTML as text: what the terminal prints, so that it and the page cannot differ."""

from collections.abc import Iterator
from html.parser import HTMLParser

from rich.console import Console
from rich.table import Table

HEADINGS = ("h1", "h2", "h3", "b", "summary")
BLOCKS = (*HEADINGS[:3], "summary", "p", "li", "pre", "figcaption", "dt", "dd")
Rows = list[list[str]]


class _Blocks(HTMLParser):
    """Collects blocks of text by their tag, and tables as rows of cells; drawings are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str | Rows]] = []
        self._tag = ""  # of the block at hand
        self._hidden = 0  # depth inside of drawings and scripts

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("svg", "script", "form"):
            self._hidden += 1
        elif tag == "table":
            self.found.append((tag, []))
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._tag = "cell"
        elif tag in BLOCKS:
            self.found.append((tag, ""))
            self._tag = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "script", "form"):
            self._hidden -= 1
        elif tag in BLOCKS or tag == "table":
            self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._hidden or not self._tag:
            return
        if self._tag == "cell":
            self._rows[-1][-1] += data
        else:
            tag, text = self.found[-1]
            self.found[-1] = (tag, f"{text}{data}")

    @property
    def _rows(self) -> Rows:
        rows = self.found[-1][1]
        assert isinstance(rows, list)
        return rows


def blocks(html: str) -> Iterator[tuple[str, str | Rows]]:
    """The blocks of some HTML: a tag with its text, or "table" with its rows of cells."""
    parser = _Blocks()
    parser.feed(str(html))  # not Markup, which would be escaped again
    parser.close()
    for tag, content in parser.found:
        if isinstance(content, list):
            yield tag, [[" ".join(cell.split()) for cell in row] for row in content]
        else:
            text = content.strip() if tag == "pre" else " ".join(content.split())
            if text:
                yield tag, text


def lines(html: str) -> list[str]:
    """The text of some HTML, a line a block or row, | between cells."""
    found: list[str] = []
    for tag, content in blocks(html):
        if isinstance(content, list):
            found += ["|".join(row) for row in content]
        else:
            found.append(f"- {content}" if tag == "li" else content)
    return found


def show(console: Console, html: str) -> None:
    """Prints some HTML, its tables folded to the terminal's width so that nothing is cut off."""
    for tag, content in blocks(html):
        if isinstance(content, list):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
            head, *rows = content
            for name in head:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(*row)
            console.print(table)
        elif tag in HEADINGS:
            console.print(f"\n{content}", style="bold")
        else:
            console.print(f"- {content}" if tag == "li" else content)
