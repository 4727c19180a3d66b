"""What a chapter is made of. The page, the terminal and the files are pictures of these values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, TypeAlias

NO_VALUE: Final = "–"


@dataclass(frozen=True)
class Heading:
    """A heading within a chapter."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; a soft one explains what is beside it."""

    kind: ClassVar = "text"
    text: str
    soft: bool = False


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    kind: ClassVar = "items"
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines for a terminal."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Table:
    """A small table of words; the first cell of a row names it.

    Attributes:
        header: a cell a column; empty for none.
        rows: as long as each other.
        right: the columns of numbers, by place.
    """

    kind: ClassVar = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


@dataclass(frozen=True)
class Cell:
    """A cell of a table that sorts.

    Attributes:
        text: shown.
        key: sorts in its place; "" if the text does.
    """

    text: str
    key: str = ""


@dataclass(frozen=True)
class SortedTable:
    """A long table that sorts, and filters by some columns.

    Attributes:
        label: what it lists.
        header: a cell a column.
        rows: as long as the header.
        filters: the values of some columns, by the column's place.
        folded: whether it is folded away at first.
    """

    kind: ClassVar = "sorted_table"
    label: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    filters: Mapping[int, Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Series:
    """Something that a figure's legend names, shows and hides.

    Attributes:
        name: in the legend.
        color: as #rrggbb.
        dashes: of its line, as SVG's stroke-dasharray; "" for a whole line, None for no line.
        marker: of matplotlib's "o", "s", "^"; "" for none.
    """

    name: str
    color: str
    dashes: str | None = ""
    marker: str = ""


@dataclass(frozen=True)
class Figure:
    """A finished figure.

    Attributes:
        name: of its files, without suffix.
        title: in a few words.
        alt: what it shows, in words and numbers.
        caption: what is this figure's own: n, epochs, how to read it.
        svg: for the page, without legend if `series` has one.
        files: contents by suffix; these also say what they rest on.
        report: what the reference report shows or states in its place; "" for nothing.
        series: of the legend.
        readout: points that can be read, for the page's script; see `analysis.figures.readout`.
    """

    kind: ClassVar = "figure"
    name: str
    title: str
    alt: str
    caption: str
    svg: str
    files: Mapping[str, bytes]
    report: str = ""
    series: Sequence[Series] = ()
    readout: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Figures:
    """Figures side by side where there is room."""

    kind: ClassVar = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Image:
    """A small picture.

    Attributes:
        source: a data: URI.
        alt: what it shows.
        note: below it.
    """

    source: str
    alt: str
    note: str = ""


@dataclass(frozen=True)
class ImageTable:
    """Pictures in rows and columns.

    Attributes:
        title: of it.
        rows: pictures by the row's label, as many in each.
        caption: how to read it.
    """

    kind: ClassVar = "image_table"
    title: str
    rows: Mapping[str, Sequence[Image]]
    caption: str


@dataclass(frozen=True)
class Fold:
    """Parts that are folded away until asked for."""

    kind: ClassVar = "fold"
    summary: str
    parts: "Sequence[Part]"


Part: TypeAlias = (
    Heading | Text | Items | Code | Table | SortedTable | Figure | Figures | ImageTable | Fold
)


@dataclass(frozen=True)
class Chapter:
    """What a report has on one topic.

    Attributes:
        key: of its anchor.
        title: of it.
        parts: in the order of the page; a chapter without any is left out.
        gaps: what the run cannot show of the topic, in sentences.
        files: further files of the report, by name.
        unseen: figures for files alone, as the page shows the same in another way.
    """

    key: str
    title: str
    parts: Sequence[Part] = ()
    gaps: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    unseen: Sequence[Figure] = ()

    @property
    def figures(self) -> list[Figure]:
        """Its figures, in order."""
        return [*_figures(self.parts), *self.unseen]

    def without(self, name: str) -> "Chapter":
        """The same without a figure that is shown elsewhere on the page."""
        return replace(self, parts=[part for part in map(_without(name), self.parts) if part])


def _figures(parts: Sequence[Part]) -> Iterator[Figure]:
    for part in parts:
        if isinstance(part, Figure):
            yield part
        elif isinstance(part, Figures):
            yield from part.figures
        elif isinstance(part, Fold):
            yield from _figures(part.parts)


def _without(name: str) -> Any:
    def kept(part: Part) -> Part | None:
        if isinstance(part, Figure) and part.name == name:
            return None
        if isinstance(part, Figures):
            rest = [figure for figure in part.figures if figure.name != name]
            return replace(part, figures=rest) if rest else None
        return part

    return kept


@dataclass(frozen=True)
class Fact:
    """A number on the first screen, with its name and what it rests on."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """The first screen.

    Attributes:
        question: that the page answers.
        asked_by: where the question is from, in a sentence.
        short: the answer in a few words.
        sentences: the answer in two or three sentences.
        sure: how sure it is.
        facts: the numbers that it rests on.
        figure: the name of the one figure that shows it; "" for none.
    """

    question: str
    asked_by: str
    short: str
    sentences: Sequence[str]
    sure: str
    facts: Sequence[Fact] = ()
    figure: str = ""
