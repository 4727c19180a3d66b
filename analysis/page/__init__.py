"""The page: templates, a style sheet and a script, filled with what the chapters computed.

    page.html.j2          what is where
    chapters/NAME.html.j2 what a chapter says: its title, words, captions, gaps and their order
    macros.html.j2        tables, lists and figures
    page.css              how it looks: light, dark, on a phone, in print
    page.js               what it does beyond that; without it the page is whole, but still

All of it goes into one file that asks for nothing else. Jinja2 escapes every text.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis import phrases, plots, verdicts
from study.folder import schema

# What stays on one line: ids of trials, sizes of models, numbers with their n.
_UNBROKEN: Final = re.compile(
    rf"\b(?:{'|'.join(schema.GROUPS)})-[A-Za-z][\w=.+-]*\w|\bdense-\d+|\bn = \d+|\d+ %"
)
# Where nothing is kept together: tags, and what has its own rules.
_APART: Final = re.compile(
    r"(<(pre|form|summary|h\d)\b.*?</\2>|<table class=\"sortable\">.*?</table>|<figure>.*?</figure>"
    r"|<[^>]*>)",
    re.DOTALL,
)
_NO_FIGURES: Final = re.compile(r'<div class="figures">\s*</div>')


class Chapter(NamedTuple):
    """A chapter in the page's words."""

    key: str  # of its anchor
    title: str
    html: Markup
    gaps: list[str]  # what the run cannot show of the topic


class Book:
    """A page in the making: chapters fill their templates, and figures are finished on the way.

    Args:
        rests_on: what all of its numbers rest on, which the figures' files say.
    """

    def __init__(self, rests_on: str) -> None:
        self.rests_on = rests_on
        self.chapters: list[Chapter] = []
        self.figures: dict[str, plots.Finished] = {}
        self._seen: dict[str, str] = {}  # figures as HTML
        self._gaps: list[str] = []

    def chapter(self, key: str, **values: Any) -> Chapter:
        """Fills `chapters/KEY.html.j2` with some values, and adds the chapter to the page."""
        self._gaps = []
        its = {"gap": self._gap, "figure": self._figure} | values
        module = _template(f"chapters/{key}").make_module(its)
        title = str(getattr(module, "title", ""))  # the first screen has none
        html = _NO_FIGURES.sub("", str(module)).strip()
        found = Chapter(key, title, _unbroken(html), self._gaps)
        self.chapters.append(found)
        return found

    def _gap(self, sentence: str) -> str:
        self._gaps.append(sentence)
        return ""

    def _figure(
        self, drawing: plots.Drawing, *, seen: bool = True, rests_on: str = "", **words: str
    ) -> Markup:
        """Finishes a drawing and shows it; one that is not seen has files alone.

        `words` are those of `analysis.plots.finish`.
        """
        plain = {name: " ".join(str(text).split()) for name, text in words.items()}
        finished = plots.finish(drawing, rests_on or self.rests_on, **plain)
        self.figures[drawing.name] = finished
        html = str(_template("macros").module.figure(finished)) if seen else ""
        self._seen[drawing.name] = html
        return Markup(html)

    def render(
        self, title: str, name: str, first: Chapter, figure: str, basis: list[tuple[str, str]]
    ) -> str:
        """The page as HTML that asks for nothing else.

        Args:
            title: of the browser's tab.
            name: of the study.
            first: the first screen.
            figure: the name of its figure, which no chapter shows then; "" for none.
            basis: what holds for the whole page, by name.
        """
        script = _resource("page.js")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        shown = self._seen.get(figure, "")
        # It stands there and in no chapter.
        rest = [
            c._replace(html=Markup(_NO_FIGURES.sub("", str(c.html).replace(shown, ""))))
            for c in self.chapters
            if c is not first
        ]
        html: str = _template("page").render(
            title=title,
            name=name,
            first=first,
            figure=Markup(shown),
            basis=basis,
            chapters=rest,
            gaps=[gap for chapter in rest for gap in chapter.gaps],
            style=Markup(_resource("page.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
        return html.lstrip()  # macros leave empty lines

    @property
    def files(self) -> dict[str, bytes]:
        """The files of its figures, by name."""
        return {
            f"{name}.{suffix}": content
            for name, figure in self.figures.items()
            for suffix, content in figure.files.items()
        }


@cache
def _environment() -> Environment:
    """The templates, each of which a process compiles once, and what all of them use."""
    its = Environment(
        loader=PackageLoader("analysis", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    its.filters |= phrases.PHRASES | {"unbroken": _escaped}
    its.filters["drawn"] = Markup  # SVG of this project's making
    its.filters["verdict"] = verdicts.verdict
    its.globals |= phrases.PHRASES | {"NO_VALUE": phrases.NO_VALUE, "table_of": _table_of}
    its.globals |= {"compared": verdicts.compared, "bounds": verdicts.bounds}
    macros: Any = its.get_template("macros.html.j2").module
    for name in ("table", "items", "sorted_table", "image_table"):
        its.globals[name] = getattr(macros, name)
    return its


def _template(name: str) -> Any:
    return _environment().get_template(f"{name}.html.j2")


def _table_of(
    header: Sequence[str], some: Iterable[Any], right: Sequence[int] = (), *, caller: Any
) -> Markup:
    """A table with a row an item: the caller gives its cells, with | between them."""
    rows = [[Markup(cell.strip()) for cell in str(caller(one)).split("|")] for one in some]
    return Markup(_template("macros").module.table(header, rows, right))


def _unbroken(html: str) -> Markup:
    """HTML with what belongs together kept on one line."""
    pieces, last = [], 0
    for tag in _APART.finditer(html):
        pieces += [_one_line(html[last : tag.start()]), tag[0]]
        last = tag.end()
    return Markup("".join([*pieces, _one_line(html[last:])]))


def _escaped(text: str) -> Markup:
    return _unbroken(str(escape(text)))


def _one_line(text: str) -> str:
    return _UNBROKEN.sub(r'<span class="one">\g<0></span>', text)


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
