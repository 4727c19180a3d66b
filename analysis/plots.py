"""Figures: one style, three ways to draw, and every form in which a report needs a figure.

`curves`, `forest` and `marks` take data and an `Axes`, draw, and return the points that can be read
on the page. A chapter hands a `Drawing` to its template, which names and explains it; `finish`
makes the files and the page's form of it. Nothing is set at import: draw and finish inside
`style()`. Models differ by lightness, line and marker as well as by hue, so that figures survive
colour blindness and grey print.
"""

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.phrases import digits, short_interval
from analysis.settings import Estimate
from study.folder.schema import CONV, DENSE

Look: TypeAlias = dict[str, Any]  # keywords of matplotlib's lines

MSE_UNIT: Final = "(pixel/255)²"
WIDTH_INCHES: Final = 4.8
POINTS: Final = 72  # an inch
PNG_DPI: Final = 200
PADDING: Final = {"w_pad": 0.1, "h_pad": 0.08}  # inches around the axes
FOOTNOTE_POINTS: Final = 6.5
SMALL_POINTS: Final = 7
FOOTNOTE_COLUMNS: Final = 92  # characters of that size on a figure's width
SERIES: Final = "series-"  # what the id of a series' artists begins with

DARK, LIGHT, MUTED = "#0b4a7f", "#e08a00", "#8c8c8c"
REFERENCE_LINES: Final = ("-", "--", ":", "-.")
MUTED_LINES: Final = (":", "-.", (0, (6, 2)), (0, (1, 3)))
LOOKS: Final[Mapping[str, Look]] = {
    CONV: {"color": DARK, "linestyle": "-", "marker": "o", "zorder": 3.2},
    DENSE: {"color": LIGHT, "linestyle": "--", "marker": "s", "zorder": 3.1},
}
# Of custom models, and of settings side by side: a line is told by two of the three.
CUSTOM_COLORS: Final = ("#2f7d4f", "#b0144f", "#6a4c93", "#8a5a2b", "#12848f")
CUSTOM_LINES: Final = ("-.", ":", (0, (6, 2)), (0, (4, 1, 1, 1)))
CUSTOM_MARKERS: Final = ("^", "D", "v")
# Of marks on a row: a mean, and a value of another kind.
TICK: Final[Look] = {"marker": "|", "markersize": 15, "markeredgewidth": 2.2}
HOLLOW: Final[Look] = {"marker": "o", "markersize": 7.5, "markerfacecolor": "none"}
_STYLES: Final = ("default", Path(__file__).parent / "page/figures.mplstyle")
# Draw and finish inside it: `with style():`. A person's own settings of matplotlib do not count.
style: Final = partial(matplotlib.style.context, _STYLES)


class Points(NamedTuple):
    """Points of a figure that can be read on the page, of one series."""

    ax: Axes
    series: int  # its place in the legend
    x: Any  # in the units of the axes, as `y`
    y: Any
    texts: Sequence[str]  # what is said of each
    name: str = ""  # of the trial that they are of; "" for the series itself


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn, but not yet explained."""

    name: str  # of its files, without suffix
    figure: Figure
    points: Sequence[Points] = ()  # that can be read
    # What a legend on the page, in place of the figure's own, names, shows and hides.
    series: Sequence[tuple[str, Look]] = ()
    by: Literal["x", "point"] = "x"  # how a pointer finds points: all at an x, or the nearest one


class Finished(NamedTuple):
    """A figure in every form that the report needs."""

    title: str
    alt: str  # what it shows, in words and numbers
    caption: str  # n, epochs, how to read it
    report: str  # what the paper shows or states in its place
    svg: str  # for the page
    files: Mapping[str, bytes]  # by suffix; these also say what they rest on
    series: Sequence[Mapping[str, Any]]  # of the legend: name, color, dashes (None: none), marker
    readout: Mapping[str, Any] | None  # points that can be read, for the page's script


class Line(NamedTuple):
    """A line of `curves`."""

    label: str
    look: Look
    data: pd.DataFrame  # epoch, mean, low, high, n
    trials: pd.DataFrame | None = None  # trial_id, epoch and value of each trial behind it


class Marks(NamedTuple):
    """Some marks, or a line, of `marks`."""

    look: Look
    x: Any
    y: Any
    label: str = ""  # in the legend; "" for none
    texts: Sequence[str] = ()  # what can be read of each; none for nothing
    series: int | None = None  # which the page's legend shows and hides


def new_figure(height_inches: float = 3.4) -> tuple[Figure, Axes]:
    """An empty figure of the report's width."""
    figure = empty_figure(height_inches)
    return figure, figure.add_subplot()


def empty_figure(height_inches: float) -> Figure:
    """The same without axes."""
    # 72 dots an inch: what is drawn has the coordinates of the SVG file.
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=POINTS)
    figure.set_layout_engine("constrained", **PADDING)
    return figure


def tag(artist: Artist, series: int) -> None:
    """Marks what the page's legend shows and hides as the series of that place."""
    assert artist.axes is not None
    n = sum(str(other.get_gid()).startswith(SERIES) for other in artist.axes.get_children())
    artist.set_gid(f"{SERIES}{series}-{n}")


def finish(
    drawing: Drawing, rests_on: str, title: str, alt: str, caption: str, report: str = ""
) -> Finished:
    """Saves a figure in every form that the report needs; for its words see `Finished`."""
    figure, name = drawing.figure, drawing.name
    found = [ax.get_legend() for ax in figure.axes] if drawing.series else []
    replaced = [legend for legend in found if legend is not None]
    for legend in replaced:
        legend.set_visible(False)
    _lay_out(figure)
    svg = _inline(_svg(figure, name, "none", "none"), f"{title}. {alt}")
    readout = _readout(drawing) if drawing.points else None
    for legend in replaced:
        legend.set_visible(True)
    add_footnote(figure, f"{caption} {rests_on}")
    _lay_out(figure)
    file = _svg(figure, name, "path", "white")
    figure.set_dpi(PNG_DPI)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
    saved = {"svg": file.encode(), "png": png.getvalue()}
    series = [_swatch(*one) for one in drawing.series]
    return Finished(title, alt, caption, report, svg, saved, series, readout)


def _lay_out(figure: Figure) -> None:
    """Lays a figure out once, not again each time that it is saved."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")


def _svg(figure: Figure, name: str, font_type: str, background: str) -> str:
    """The same text for the same figure: a fixed salt for the ids, and no date."""
    for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
        patch.set_facecolor(background)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": font_type}):
        # By itself, since `savefig` draws everything twice.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue().decode()


def _inline(svg: str, label: str) -> str:
    """An SVG for the page: without ids that nothing refers to, with a label, as wide as its box."""
    svg = re.sub(r"<(metadata|style).*?</\1>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))

    def marked(found: re.Match[str]) -> str:
        series = re.match(SERIES + r"(\d+)", found[1])
        return found[0] * (found[1] in used) + (f' data-series="{series[1]}"' if series else "")

    svg = re.sub(r' id="([^"]*)"', marked, svg)
    begin, end, rest = svg.partition(">")
    begin = re.sub(r' (width|height|version)="[^"]*"', "", begin)
    return f'{begin} role="img" aria-label="{escape(label)}"{end}{rest}'


def _swatch(name: str, look: Look) -> dict[str, Any]:
    """The legend's entry for a line that is drawn in this look."""
    line = look.get("linestyle", "-")
    dashes = {"-": "", "--": "5 2", ":": "1.5 2", "-.": "6 2 1.5 2"}
    drawn = " ".join(map(str, line[1])) if isinstance(line, tuple) else dashes.get(line)
    its = {"name": name, "color": look["color"]}
    return its | {"dashes": drawn, "marker": look.get("marker", "")}


def _readout(drawing: Drawing) -> dict[str, Any]:
    """Plain values for the page's script; coordinates are those of the SVG."""
    height = POINTS * drawing.figure.get_figheight()
    rows = []
    for its in drawing.points:
        values = np.column_stack([np.asarray(its.x, float), np.asarray(its.y, float)])
        x, y = its.ax.transData.transform(values).T.round(1)
        y = (height - y).round(1)
        row = {"series": its.series, "name": its.name, "x": x.tolist(), "y": y.tolist()}
        at = {"at": [f"{value:g}" for value in values[:, 0]]} if drawing.by == "x" else {}
        rows.append(row | at | {"text": list(its.texts)})
    box = drawing.points[0].ax.get_window_extent()
    span = [round(height - box.y1, 1), round(height - box.y0, 1)]
    return {"by": drawing.by, "span": span, "rows": rows}


def add_footnote(figure: Figure, text: str) -> None:
    """Writes what a figure rests on below it; the figure grows by as much."""
    lines = textwrap.wrap(text, FOOTNOTE_COLUMNS)
    line_inches = 1.3 * FOOTNOTE_POINTS / POINTS
    height = figure.get_figheight() + (len(lines) + 1) * line_inches
    share = (len(lines) + 1) * line_inches / height
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share), **PADDING)
    figure.text(
        PADDING["w_pad"] / WIDTH_INCHES,
        0.5 * line_inches / height,
        "\n".join(lines),
        fontsize=FOOTNOTE_POINTS,
        linespacing=1.3,
        color="#444444",
        va="bottom",
    )


def looks_of(models: Iterable[str]) -> dict[str, Look]:
    """How each model is drawn: the built-in ones as ever, a custom one by its place."""
    others = [model for model in models if model not in LOOKS]
    return {**LOOKS, **{model: custom_look(place) for place, model in enumerate(others)}}


def custom_look(place: int) -> dict[str, Any]:
    """A look that neither built-in model has, of ten or more that differ."""
    return {
        "color": CUSTOM_COLORS[place % len(CUSTOM_COLORS)],
        "linestyle": CUSTOM_LINES[place % len(CUSTOM_LINES)],
        "marker": CUSTOM_MARKERS[place % len(CUSTOM_MARKERS)],
        "zorder": 3.0,
    }


def look_of(place: int) -> Look:
    """The look of one of ten lines or more, of settings side by side."""
    firsts = ({"color": DARK, "marker": "o"}, {"color": LIGHT, "marker": "s", "linestyle": "--"})
    return firsts[place] if place < len(firsts) else custom_look(place - len(firsts))


def muted(line: Any) -> Look:
    """The look of a line that does not stand out."""
    return {"color": MUTED, "linestyle": line, "linewidth": 1.0, "zorder": 2.5}


def legend_above(ax: Axes, columns: int = 2) -> None:
    """A legend where no data can lie."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, columnspacing=1.5)


def curves(ax: Axes, lines: Sequence[Line], *, log: bool = True) -> list[Points]:
    """A line for each model or setting against the epoch, with the band from low to high.

    There is a line at least, of an epoch or more. Without `log` the axis of values begins at 0.
    """
    points = []
    for place, (label, look, data, trials) in enumerate(lines):
        epoch, n = data["epoch"].to_numpy(dtype=float), int(data["n"].max())
        step = max(1, len(epoch) // 8)
        every = (min(place * step // 2, len(epoch) - 1), step)
        (line,) = ax.plot(epoch, data["mean"], markevery=every, label=f"{label}, n = {n}", **look)
        tag(line, place)
        if n > 1:
            low, high = (data[end].to_numpy(dtype=float) for end in ("low", "high"))
            band = ax.fill_between(epoch, low, high, color=look["color"], alpha=0.22, linewidth=0)
            tag(band, place)
        texts = [
            digits(mean) + (f" ({digits(low)} to {digits(high)})" if n > 1 else "")
            for mean, low, high, n in data[["mean", "low", "high", "n"]].itertuples(index=False)
        ]
        points.append(Points(ax, place, epoch, data["mean"], texts))
        if trials is not None:
            for name, one in trials.sort_values("epoch").groupby("trial_id"):
                texts = list(map(digits, one["value"]))
                points.append(Points(ax, place, one["epoch"], one["value"], texts, str(name)))
    epoch_axis(ax, max(line.data["epoch"].max() for line in lines))
    if log:
        log_axis(ax.yaxis)
    else:
        ax.set_ylim(bottom=0)
    return points


def curves_drawing(
    name: str,
    lines: Sequence[Line],
    label: str,
    height_inches: float = 3.4,
    *,
    log: bool = True,
    above: bool = False,
) -> Drawing:
    """A figure of `curves`; `label` is of its y axis, `above` puts the legend there."""
    figure, ax = new_figure(height_inches)
    points = curves(ax, lines, log=log)
    ax.set_ylabel(f"{label}, log axis" if log else label)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "fontsize": 6.5}
    ax.legend(**(place if above else {"loc": "upper right"}))
    return Drawing(name, figure, points, [line[:2] for line in lines])


def forest(
    ax: Axes,
    rows: pd.DataFrame,
    looks: Mapping[str, Look],
    *,
    always: Sequence[float] = (1.0,),
    beside: Sequence[str] = (),
    breaks: Sequence[int] = (),
) -> list[Points]:
    """Ratios with their intervals, a row a label, on a log axis beside the line 1.

    A mark without an interval is hollow. An interval from few seeds can be so wide that nothing
    else would be seen: it is cut off, with an arrow.

    Args:
        ax: where to draw.
        rows: columns label, kind, mean, low, high and n; what is missing is not drawn.
        looks: of the marks, by kind.
        always: ratios to show in any case.
        beside: what to write at the right edge of each row.
        breaks: the rows before which a line is drawn.
    """
    labels = list(dict.fromkeys(rows["label"]))
    ends = rows["low"].dropna(), rows["high"].dropna()
    left, right = room_for([*always, *rows["mean"].dropna()], *ends)
    padding = 1.08 * (right / left) ** 0.03
    limits = (left / padding, right * padding)
    ax.set(xscale="log", xlim=limits)
    ax.axvline(1, color="#444444", linewidth=1)
    points = []
    for place, (kind, look) in enumerate(looks.items()):
        its = rows[(rows["kind"] == kind) & rows["mean"].notna()]
        offset = 0.34 / len(looks) * (2 * place + 1 - len(looks))
        height = its["label"].map(labels.index) + offset
        mark = {"color": look["color"], "linestyle": "none"}
        known, low, high = its["low"].notna(), its["low"].clip(*limits), its["high"].clip(*limits)
        ax.hlines(height[known], low[known], high[known], color=look["color"], linewidth=1.4)
        for end, edge, arrow in ((its["low"], limits[0], "<"), (its["high"], limits[1], ">")):
            off = height[end < edge if arrow == "<" else end > edge]
            if len(off):  # what is not clipped takes room, be it empty
                ax.plot([edge] * len(off), off, arrow, **mark, markersize=5, clip_on=False)
        for of, face in ((known, look["color"]), (~known, "white")):
            ax.plot(its["mean"][of], height[of], **{**look, **mark}, markerfacecolor=face)
        ax.plot([], [], label=kind, **{**look, **mark})
        ratios = its[["label", "mean", "n", "low", "high"]].itertuples(index=False)
        texts = [
            f"{label}{f', {kind}' if len(looks) > 1 else ''}: "
            + short_interval(Estimate(mean, n, None, *((low, high) if low == low else ())))
            for label, mean, n, low, high in ratios
        ]
        points.append(Points(ax, 0, its["mean"], height, texts))
    rows_axis(ax, labels, beside=beside, breaks=breaks)
    log_axis(ax.xaxis)
    return points


def room_for(
    means: Sequence[float], lows: Iterable[float], highs: Iterable[float]
) -> tuple[float, float]:
    """From where to where ratios are shown: intervals of few seeds may be too wide for the rest."""
    least, most, margin = min(means), max(means), 4.0
    left, right = min([least, *lows]), max([most, *highs])
    return max(left, least / margin), min(right, most * margin)


def marks(ax: Axes, some: Iterable[Marks]) -> list[Points]:
    """Marks, or lines through them, of each series; `look` without a line style has no line."""
    points = []
    for look, x, y, label, texts, series in some:
        (drawn,) = ax.plot(x, y, **{"linestyle": "none", **look}, label=label or None)
        if series is not None:
            tag(drawn, series)
        if texts:
            points.append(Points(ax, series or 0, x, y, texts))
    return points


def seeds_and_mean(
    look: Look, by_seed: pd.Series, row: int, label: str, unit: str = ""
) -> list[Marks]:
    """A dot a seed and a tick at their mean, on a row of `rows_drawing`; both can be read."""
    mean, look = by_seed.mean(), look | {"linestyle": "none"}
    texts = [f"{label}, seed {seed}: {digits(value)}{unit}" for seed, value in by_seed.items()]
    dots = Marks(look | {"alpha": 0.6}, by_seed, [row] * len(by_seed), texts=texts)
    text = f"{label}: {digits(mean)}{unit}, n = {len(by_seed)}"
    return [dots, Marks(look | TICK, [mean], [row], texts=[text])] if len(by_seed) else []


def rows_drawing(
    name: str,
    some: Iterable[Marks],
    labels: Sequence[str],
    unit: str,
    key: Sequence[str],
    *,
    beside: Sequence[str] = (),
    breaks: Sequence[int] = (),
) -> Drawing:
    """A figure of rows of `seeds_and_mean` and, hollow, something to compare them with; log axis.

    `key` says what a dot is, and what a hollow mark is, for the legend; see `forest` for the rest.
    """
    looks = ({"marker": "o", "alpha": 0.6}, TICK, HOLLOW)
    legend = zip(looks, (key[0], "their mean", *key[1:]), strict=False)
    figure, ax = new_figure(1.2 + 0.32 * len(labels))
    points = marks(ax, some)
    marks(ax, [Marks(look | {"color": "#444444"}, [], [], label) for look, label in legend])
    rows_axis(ax, labels, beside=beside, breaks=breaks)
    log_scale(ax.xaxis)
    ax.margins(x=0.08)
    log_axis(ax.xaxis, unit)
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.1, 1), "ncols": 3}
    ax.legend(**place, columnspacing=0.8, handlelength=1.2)
    return Drawing(name, figure, points, by="point")


def rows_axis(
    ax: Axes, labels: Sequence[str], *, beside: Sequence[str] = (), breaks: Sequence[int] = ()
) -> None:
    """A y axis of labelled rows, the first on top; see `forest` for what else."""
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    for first in breaks:
        ax.axhline(first - 0.5, color="#d2d2d2", linewidth=0.8)
    if beside:
        right = ax.secondary_yaxis("right")
        right.set_yticks(range(len(labels)), beside)
        right.tick_params(length=0, labelsize=SMALL_POINTS)
        right.spines[:].set_visible(False)


def mark_ratios(ax: Axes, stated: Mapping[float, str]) -> None:
    """Lines across a y axis of ratios, where two are equal and at stated ones, with their words."""
    ax.axhline(1, color="#444444", linewidth=1)
    for value in stated:
        ax.axhline(value, color="#c2185b", linewidth=1.4, linestyle=(0, (5, 2)))
    small: dict[str, Any] = {"fontsize": SMALL_POINTS, "ha": "right", "va": "bottom"}
    for value, words in ({1.0: "equal"} | dict(stated)).items():
        ax.text(1, value, f"{words} ", transform=ax.get_yaxis_transform(), **small)


def epoch_axis(ax: Axes, n: int) -> None:
    """An x axis of whole numbers from 1 to n."""
    padding = min(max(0.015 * n, 0.1), 0.9)  # below 1: there is no epoch 0
    ax.set_xlim(1 - padding, n + padding)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set_xlabel("Epoch")


def log_axis(axis: Axis, label: str = "") -> None:
    """A log axis with ticks written as plain decimals; its limits are already set."""
    if label:
        axis.set_label_text(f"{label}, log axis")
    log_scale(axis)
    if axis.get_scale() != "log":
        return
    low, high = axis.get_view_interval()
    # A short range is nearly linear, and in a long one there is room for the decades alone.
    subs = (1,) if high > 100 * low else (1, 2, 5) if high > 10 * low else (1, 2, 3, 5, 7)
    steps = LogLocator(subs=subs)
    axis.set_major_locator(steps if high > 3 * low else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def log_scale(axis: Axis) -> None:
    """A log scale, unless no value above 0 is drawn: MSEs may be exactly 0."""
    ax = axis.axes
    name, least = ("x", ax.dataLim.minposx) if axis is ax.xaxis else ("y", ax.dataLim.minposy)
    if np.isfinite(least):
        ax.set(**{f"{name}scale": "log"})


def plain(value: float) -> str:
    """A number as a plain decimal of six significant digits, without trailing zeros."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")
