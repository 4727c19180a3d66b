"""Draws the report's figures: each function takes data and an `Axes` and returns the `Axes`.

One style, applied only inside `style()`; nothing is set at import. Models differ by lightness,
line and marker as well as by hue, so that the figures survive colour blindness and grey print.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.statistics import CONV_NAME, DENSE_NAME
from study.folder.schema import CHOICES

MSE_UNIT: Final = "(pixel/255)²"
WIDTH_INCHES: Final = 4.8
MAX_DIGITS: Final = 10
PADDING: Final = {"w_pad": 0.1, "h_pad": 0.08}  # inches around the axes
FOOTNOTE_POINTS: Final = 6.5
FOOTNOTE: Final = "footnote"  # its id in SVG files
FOOTNOTE_COLUMNS: Final = 92  # characters of that size on a figure's width

STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",
    "savefig.facecolor": "white",
}

DARK, LIGHT, MUTED = "#0b4a7f", "#e08a00", "#8c8c8c"
# Line styles; a model that is not named here is muted.
MODEL_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    CONV_NAME: {"color": DARK, "linestyle": "-", "marker": "o", "zorder": 3.2},
    DENSE_NAME: {"color": LIGHT, "linestyle": "--", "marker": "s", "zorder": 3.1},
}
MUTED_LINES: Final = (":", "-.", (0, (6, 2)), (0, (1, 3)))
BAR_HATCHES: Final = {CONV_NAME: "", DENSE_NAME: "///"}


@dataclass(frozen=True)
class TimeBar:
    """A bar of the training-time chart.

    Attributes:
        source: who measured, a label that may have several lines.
        name: the model.
        mean_seconds: the bar's height.
        seed_seconds: the seeds' own values, drawn as dots; empty if not known.
    """

    source: str
    name: str
    mean_seconds: float
    seed_seconds: tuple[float, ...] = ()


@contextmanager
def style() -> Iterator[None]:
    """The figures' style; draw and save inside it."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(height_inches: float = 3.4) -> tuple[Figure, Axes]:
    """An empty figure of the report's width."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    figure.set_layout_engine("constrained", **PADDING)
    return figure, figure.add_subplot()


def add_footnote(figure: Figure, text: str) -> None:
    """Writes what a figure rests on below it; the figure grows by as much."""
    lines = textwrap.wrap(text, FOOTNOTE_COLUMNS)
    line_inches = 1.3 * FOOTNOTE_POINTS / 72
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
        gid=FOOTNOTE,
        zorder=10,  # drawn last, so that nothing else refers to its glyphs
    )


def shown_trials(reconstructions: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """The reference trials of figure 1: of the report's models, the least seed with images."""
    kept = reference["name"].isin([CONV_NAME, DENSE_NAME])
    saved = reference["trial_id"].isin(reconstructions["trial_id"])
    return reference[kept & saved].groupby("name").head(1)


def digit_rows(
    reconstructions: pd.DataFrame, shown: pd.DataFrame
) -> dict[str, npt.NDArray[np.float64]]:
    """The random test digits of figure 1 and what the models make of them.

    Args:
        reconstructions: of `analysis.load.load_reconstructions`.
        shown: of `shown_trials`.

    Returns:
        Images of shape (n, 28, 28), pixels 0..255, by row: "original", "conv" and, if it saved
        the same digits, "dense-512". Empty if there are none of the convolutional model.
    """
    random = reconstructions[reconstructions["choice"] == CHOICES[0]]
    saved = {
        name: random[random["trial_id"] == trial_id].set_index("test_index")
        for name, trial_id in zip(shown["name"], shown["trial_id"], strict=True)
    }
    if CONV_NAME not in saved or saved[CONV_NAME].empty:
        return {}
    digits = list(saved[CONV_NAME].index[:MAX_DIGITS])
    rows = {"original": _images(saved[CONV_NAME].loc[digits, "original"])}
    for name, frame in saved.items():
        if set(digits) <= set(frame.index):
            rows[name] = _images(frame.loc[digits, "reconstruction"])
    return rows


def _images(pixels: pd.Series) -> npt.NDArray[np.float64]:
    return np.stack([np.asarray(image, dtype=float) for image in pixels]).reshape(-1, 28, 28)


def plot_reconstructions(data: Mapping[str, npt.NDArray[np.float64]], ax: Axes) -> Axes:
    """Test digits above their reconstructions, a labelled row each; see `digit_rows`."""
    gap = 2
    tile = 28 + gap
    n_digits = len(next(iter(data.values())))
    mosaic = np.full((len(data) * tile + gap, n_digits * tile + gap), np.nan)
    for row, images in enumerate(data.values()):
        for column, image in enumerate(images):
            top, left = row * tile + gap, column * tile + gap
            mosaic[top : top + 28, left : left + 28] = image
    ax.imshow(mosaic, cmap="gray_r", vmin=0, vmax=255, interpolation="none")
    ax.set_facecolor("#d9d9d9")
    ax.set_xticks([])
    ax.set_yticks([row * tile + gap + 14 for row in range(len(data))], list(data))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


def plot_conv_curves(data: Mapping[str, pd.DataFrame], ax: Axes) -> Axes:
    """The convolutional model's MSE against the epoch, linear axis.

    Args:
        data: `analysis.statistics.curves` of the convolutional model, by the images' name.
        ax: where to draw.
    """
    looks: Sequence[Mapping[str, Any]] = (
        MODEL_STYLES[CONV_NAME],
        {"color": "#5ba3d9", "linestyle": "--", "marker": "^", "zorder": 3.1},
    )
    for offset, ((label, curve), look) in enumerate(zip(data.items(), looks, strict=True)):
        _plot_curve(curve, ax, label, look, offset)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"MSE, {MSE_UNIT}")
    epoch_axis(ax, max(curve["epoch"].max() for curve in data.values()))
    ax.legend(loc="upper right")
    return ax


def plot_log_mse(data: pd.DataFrame, ax: Axes, images: str) -> Axes:
    """MSE of every model against the epoch, log axis.

    Args:
        data: of `analysis.statistics.curves`; the report's two models stand out.
        ax: where to draw.
        images: "Training" or "Test", for the axis label.
    """
    muted = iter(MUTED_LINES * len(data))
    for offset, (name, curve) in enumerate(data.groupby("name", sort=False)):
        look = MODEL_STYLES.get(str(name))
        if look is None:
            look = {"color": MUTED, "linestyle": next(muted), "linewidth": 1.0, "zorder": 2.5}
        _plot_curve(curve, ax, str(name), look, offset)
    ax.set_ylabel(f"{images} MSE, {MSE_UNIT}, log axis")
    epoch_axis(ax, data["epoch"].max())
    log_axis(ax.yaxis)
    ax.legend(loc="upper right")
    return ax


def plot_times(data: Sequence[TimeBar], ax: Axes) -> Axes:
    """Training times as bars side by side for each source, the seeds as dots."""
    sources = list(dict.fromkeys(bar.source for bar in data))
    models = [name for name in MODEL_STYLES if any(bar.name == name for bar in data)]
    width = 0.36
    for bar in data:
        center = sources.index(bar.source) + (models.index(bar.name) - (len(models) - 1) / 2) * (
            width + 0.04
        )
        first = bar.source == next(other.source for other in data if other.name == bar.name)
        ax.bar(
            center,
            bar.mean_seconds,
            width,
            color=MODEL_STYLES[bar.name]["color"],
            hatch=BAR_HATCHES[bar.name],
            edgecolor="white",
            label=bar.name if first else None,
        )
        n = len(bar.seed_seconds)
        spread = np.linspace(-0.1, 0.1, n) if n > 1 else np.zeros(n)
        ax.plot(
            center + spread,
            bar.seed_seconds,
            "o",
            markersize=4,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=0.8,
        )
        ax.annotate(
            f"{bar.mean_seconds:.3g} s",
            (center, max(bar.mean_seconds, *bar.seed_seconds, 0.0)),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
        )
    ax.set_xticks(range(len(sources)), sources)
    ax.set_xlim(-0.6, len(sources) - 0.4)
    ax.margins(y=0.14)
    ax.grid(visible=False, axis="x")
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("Training time (s)")
    legend_above(ax)
    return ax


def legend_above(ax: Axes) -> None:
    """A legend where no data can lie."""
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1.5)


def interval_limits(data: pd.DataFrame, always: Sequence[float]) -> tuple[float, float]:
    """The ends of a log axis on which ratios and their intervals are seen.

    An interval from few seeds can be so wide that nothing else would be seen: it is cut off.

    Args:
        data: columns mean, low and high; what is missing has no say.
        always: values to show in any case.
    """
    margin = 4.0
    low, high = min([*always, *data["low"].dropna()]), max([*always, *data["high"].dropna()])
    means = [*always, *data["mean"].dropna()]
    left = min(max(low, min(means) / margin), min(means))
    right = max(min(high, max(means) * margin), max(means))
    padding = 1.08 * (right / left) ** 0.03
    return left / padding, right * padding


def plot_intervals(
    data: pd.DataFrame,
    ax: Axes,
    heights: npt.NDArray[Any],
    limits: tuple[float, float],
    color: str,
) -> None:
    """Horizontal intervals, with an arrow where one goes on beyond the axis.

    Args:
        data: columns low and high; a row without them gets no line.
        ax: where to draw.
        heights: of the rows.
        limits: of the x axis.
        color: of the lines.
    """
    left, right = limits
    for height, ends in zip(heights, data[["low", "high"]].to_numpy(dtype=float), strict=True):
        if np.isfinite(ends).all():
            ax.plot(np.clip(ends, left, right), [height, height], color=color, linewidth=1.4)
            for end, edge, arrow in zip(ends, limits, ("<", ">"), strict=True):
                if (end < left) if arrow == "<" else (end > right):
                    ax.plot(edge, height, arrow, color=color, markersize=5, clip_on=False)


def _plot_curve(
    curve: pd.DataFrame, ax: Axes, name: str, look: Mapping[str, Any], offset: int
) -> None:
    """The mean over seeds as a line and, for several seeds, their range as a band."""
    epoch = curve["epoch"].astype(float).to_numpy()
    step = max(1, len(epoch) // 8)
    n = int(curve["n"].max())
    mark_every = (min(offset * step // 2, len(epoch) - 1), step)
    ax.plot(epoch, curve["mean"], markevery=mark_every, label=f"{name}, n = {n}", **look)
    if n > 1:
        band = curve["low"].to_numpy(), curve["high"].to_numpy()
        ax.fill_between(epoch, *band, color=look["color"], alpha=0.22, linewidth=0)


def epoch_axis(ax: Axes, n: int) -> None:
    """An x axis of whole numbers from 1 to n."""
    padding = min(max(0.015 * n, 0.1), 0.9)  # below 1: there is no epoch 0
    ax.set_xlim(1 - padding, n + padding)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.set_xlabel("Epoch")


def log_axis(axis: Axis, most: int = 8) -> None:
    """A log axis with a few ticks written as plain decimals.

    Args:
        axis: x or y of an `Axes`, its limits already set.
        most: ticks.
    """
    axis.axes.set(**{"xscale" if axis is axis.axes.xaxis else "yscale": "log"})
    ticks = log_ticks(*axis.get_view_interval(), most)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers between two positive ones, as many as fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 2, 4, 6),
        (1, 1.5, 2, 3, 4, 6, 8),
        tuple(np.arange(1, 10, 0.5)),
    ):
        candidates = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in candidates if low <= tick <= high]
        gaps = np.diff(np.log(inside)) / math.log(high / low)  # as shares of the axis
        if len(inside) <= most and (gaps > 0.6 / most).all():
            ticks = inside
    if high / low < 2 or len(ticks) < 3:  # there a log axis is nearly linear
        linear = MaxNLocator(min(5, most)).tick_values(low, high)
        ticks = [tick for tick in linear if low <= tick <= high]
    return ticks


def plain(value: float) -> str:
    """A number as a plain decimal of six significant digits, without trailing zeros."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")
