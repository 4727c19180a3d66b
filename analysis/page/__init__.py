"""The page: a template, a style sheet and a script, filled with the values of the chapters.

    page.html.j2   what is where; whoever wants to change the page begins here
    page.css       how it looks: light, dark, on a phone, in print
    page.js        what it does beyond that; without it the page is whole, but still

All three go into one file that asks for nothing else. Jinja2 escapes every text.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.chapters.parts import Answer, Chapter, Figure
from study.folder import schema

# What stays on one line: ids of trials, sizes of models, numbers with their n.
UNBROKEN: Final = re.compile(
    rf"\b(?:{'|'.join(schema.GROUPS)})-[A-Za-z][\w=.+-]*\w|\bdense-\d+|\bn = \d+|\d+ %"
)


@dataclass(frozen=True)
class Page:
    """What the template is given.

    Attributes:
        title: of the browser's tab.
        name: of the study.
        answer: the first screen.
        figure: the one that shows the answer; None for none.
        basis: what holds for the whole page, by name.
        chapters: in order.
    """

    title: str
    name: str
    answer: Answer
    figure: Figure | None
    basis: Sequence[tuple[str, str]]
    chapters: Sequence[Chapter]

    @property
    def gaps(self) -> list[str]:
        """What the run cannot show, of all chapters."""
        return [gap for chapter in self.chapters for gap in chapter.gaps]


def page_of(
    title: str,
    name: str,
    answer: Answer,
    basis: Sequence[tuple[str, str]],
    chapters: Sequence[Chapter],
) -> Page:
    """A page whose first screen has the figure that the answer names."""
    found = {figure.name: figure for chapter in chapters for figure in chapter.figures}
    return Page(title, name, answer, found.get(answer.figure), basis, chapters)


def render(page: Page) -> str:
    """The page as HTML that asks for nothing else."""
    environment = Environment(
        loader=PackageLoader("analysis", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    environment.filters["drawn"] = Markup  # SVG of this project's own making
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("page.html.j2")
    html = template.render(
        page=page,
        style=Markup(_resource("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
    return html.lstrip()  # macros leave empty lines


def unbroken(text: str) -> Markup:
    """A text with what belongs together kept on one line."""
    whole, last = Markup(""), 0
    for found in UNBROKEN.finditer(text):
        whole += escape(text[last : found.start()])
        whole += Markup('<span class="one">{}</span>').format(found[0])
        last = found.end()
    return whole + escape(text[last:])


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
