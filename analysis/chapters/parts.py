"""What a chapter is made of. The page, the terminal and the files are pictures of these values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

NO_VALUE: Final = "–"


@dataclass(frozen=True)
class Heading:
    """A heading within a chapter."""

    kind: ClassVar = "heading"
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str
    soft: bool = False  # explains what is beside it


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
    """A small table of words; the first cell of a row names it."""

    kind: ClassVar = "table"
    header: Sequence[str]  # a cell a column; empty for none
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()  # the columns of numbers, by place


@dataclass(frozen=True)
class Cell:
    """A cell of a table that sorts."""

    text: str
    key: str = ""  # sorts in the text's place


@dataclass(frozen=True)
class SortedTable:
    """A long table that sorts, and filters by some columns."""

    kind: ClassVar = "sorted_table"
    label: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    filters: Mapping[int, Sequence[str]]  # the values of a column, by its place
    folded: bool = False  # away at first


@dataclass(frozen=True)
class Series:
    """Something that a figure's legend names, shows and hides."""

    name: str
    color: str  # as #rrggbb
    dashes: str | None = ""  # of its line, as SVG's stroke-dasharray; None for no line
    marker: str = ""  # one of matplotlib's o, s, ^, v and D


@dataclass(frozen=True)
class Figure:
    """A finished figure."""

    kind: ClassVar = "figure"
    name: str  # of its files, without suffix
    title: str
    alt: str  # what it shows, in words and numbers
    caption: str  # what is its own: n, epochs, how to read it
    svg: str  # for the page
    files: Mapping[str, bytes]  # by suffix; these also say what they rest on
    report: str = ""  # what the reference report shows or states in its place
    series: Sequence[Series] = ()  # of the legend on the page
    readout: Mapping[str, Any] | None = None  # points that can be read, for the page's script


@dataclass(frozen=True)
class Figures:
    """Figures side by side where there is room."""

    kind: ClassVar = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Image:
    """A small picture."""

    source: str  # a data: URI
    alt: str
    note: str = ""  # below it


@dataclass(frozen=True)
class ImageTable:
    """Pictures in rows and columns, by the row's label."""

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
    """What a report has on one topic."""

    key: str  # of its anchor
    title: str
    parts: Sequence[Part] = ()  # in order; a chapter without any is left out
    gaps: Sequence[str] = ()  # what the run cannot show of the topic, in sentences
    files: Mapping[str, bytes] = field(default_factory=dict)  # by name
    unseen: Sequence[Figure] = ()  # for files alone: the page shows the same in another way

    @property
    def figures(self) -> list[Figure]:
        """Its figures, in order."""
        return [*_figures(self.parts), *self.unseen]


def _figures(parts: Sequence[Part]) -> Iterator[Figure]:
    for part in parts:
        if isinstance(part, Figure):
            yield part
        elif isinstance(part, Figures):
            yield from part.figures


@dataclass(frozen=True)
class Fact:
    """A number on the first screen, with its name and what it rests on."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """The first screen."""

    question: str
    asked_by: str  # where the question is from
    short: str  # the answer in a few words
    sentences: Sequence[str]  # the answer in two or three sentences
    sure: str  # how sure it is
    facts: Sequence[Fact] = ()  # the numbers that it rests on
    figure: str = ""  # the name of the one figure that shows it
