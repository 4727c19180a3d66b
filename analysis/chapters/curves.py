"""Learning curves of the reference trials: MSE against the epoch, and who is ahead when."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import plots
from analysis.claims import REPORT_MSE_RATIO, concerns_report
from analysis.load import Run
from analysis.phrases import digits, interval
from analysis.plots import MODEL_STYLES, MSE_UNIT, MUTED, MUTED_LINES, Drawing, Line, Look
from analysis.settings import (
    CONV_NAME,
    DENSE_NAME,
    RATIO_NAME,
    curve,
    histories,
    ratio,
    ratio_curve,
)
from study.folder import schema
from study.folder.schema import TEST_MSE, TRAIN_MSE

TEST: Final = "figure-test-mse"
TRAINING: Final = "figure-training-mse"
CONV_ALONE: Final = "figure-conv-mse"
RATIO: Final = "figure-ratio-by-epoch"
IMAGES: Final[Mapping[str, str]] = {TRAIN_MSE: "training", TEST_MSE: "test"}
IMAGES_LOOKS: Final[Mapping[str, Look]] = {
    "training": MODEL_STYLES[CONV_NAME],
    "test": {"color": "#5ba3d9", "linestyle": "--", "marker": "^", "zorder": 3.1},
}


def looks(run: Run) -> dict[str, Look]:
    """How each reference architecture's line is drawn: the report's two and custom ones stand out.

    A custom model has its colour of elsewhere; further settings of it have those that are left.
    """
    of_models = plots.looks_of(run.models)
    places = iter(range(len(of_models) - len(schema.MODELS), 10 * len(run.named) + 10))
    muted = iter(MUTED_LINES * len(run.named))
    found: dict[str, Look] = {}
    for name, setting in run.named.items():
        if name in MODEL_STYLES:
            found[name] = MODEL_STYLES[name]
        elif setting.model in schema.MODELS:
            found[name] = {
                "color": MUTED,
                "linestyle": next(muted),
                "linewidth": 1.0,
                "zorder": 2.5,
            }
        else:
            first = setting.model not in {run.named[other].model for other in found}
            found[name] = of_models[setting.model] if first else plots.custom_look(next(places))
    return found


def chapter(run: Run) -> dict[str, Any]:
    """The report's figures 2, 3 and 4, and the ratio of its two models by epoch."""
    conv, dense = run.named.get(CONV_NAME), run.named.get(DENSE_NAME)
    pairs = {
        images: data
        for metric, images in IMAGES.items()
        if len(data := ratio_curve(conv, dense, run.epochs, metric))
    }
    alone = {images: curve(conv, run.epochs, m) for m, images in IMAGES.items()} if conv else {}
    return {
        "concerned": concerns_report(run),
        "any_reference": bool(run.reference),
        "overtaking": overtaking(pairs["test"]) if "test" in pairs else "",
        "pairs": pairs,
        "pair_epochs": max((data["epoch"].iloc[-1] for data in pairs.values()), default=0),
        "pair_ends": ", ".join(
            f"{images} set {digits(data['mean'].iloc[-1])}" for images, data in pairs.items()
        ),
        "pair_n": [n for data in pairs.values() for n in data["n"]],
        "logs": [_draw_log(run, TEST_MSE, TEST), _draw_log(run, TRAIN_MSE, TRAINING)],
        "ratio": _draw_ratio(pairs, report=concerns_report(run)) if pairs else None,
        "alone": alone,
        "conv": _draw_conv(alone) if alone and all(map(len, alone.values())) else None,
    }


def overtaking(data: pd.DataFrame) -> str:
    """Who is ahead at which epochs, in the geometric mean over seeds.

    Args:
        data: of `analysis.settings.ratio_curve`.
    """
    ahead = (data["mean"] < 1).to_numpy()
    if ahead.all() or not ahead.any():
        return f"{'Conv' if ahead.all() else 'Dense-512'} is ahead throughout"
    changes = np.flatnonzero(ahead[1:] != ahead[:-1])
    first, second = ("Conv", "dense-512") if ahead[0] else ("Dense-512", "conv")
    if len(changes) > 1:
        return f"The two change places {len(changes)} times"
    epoch = data["epoch"].iloc[changes[0]]
    return f"{first} is ahead up to epoch {epoch}, {second} after it"


def lines_of(run: Run, metric: str) -> list[Line]:
    """A line for each reference architecture that has epochs of a metric."""
    found = []
    for (name, setting), look in zip(run.named.items(), looks(run).values(), strict=True):
        trials = histories(setting, run.epochs).dropna(subset=metric)
        if len(trials):
            trials = trials.assign(value=trials[metric])
            found.append(Line(name, look, curve(setting, run.epochs, metric), trials))
    return found


def _draw_log(run: Run, metric: str, name: str) -> dict[str, Any] | None:
    """The MSE of every architecture against the epoch, log axis, and what to say of it."""
    lines, images = lines_of(run, metric), IMAGES[metric]
    if not lines:
        return None
    figure, ax = plots.new_figure()
    points = plots.curves(ax, lines)
    ax.set_ylabel(f"{images.capitalize()} MSE, {MSE_UNIT}, log axis")
    ax.legend(loc="upper right")
    series = [plots.series_of(line.label, line.look) for line in lines]
    conv, dense = run.named.get(CONV_NAME), run.named.get(DENSE_NAME)
    return {
        "drawing": Drawing(name, figure, points, series),
        "images": images,
        "n_epochs": max(line.data["epoch"].max() for line in lines),
        "ends": [f"{line.label} {digits(line.data['mean'].iloc[-1])}" for line in lines],
        "n": [line.data["n"].max() for line in lines],
        "ratio": interval(ratio(conv, dense, metric)),
    }


def _draw_ratio(pairs: Mapping[str, pd.DataFrame], *, report: bool) -> Drawing:
    """Conv ÷ dense-512 against the epoch, log axis, beside the lines 1 and the report's 0.5."""
    figure, ax = plots.new_figure()
    lines = [Line(images, IMAGES_LOOKS[images], data) for images, data in pairs.items()]
    points = plots.curves(ax, lines)
    means = pd.concat(pairs.values())["mean"]
    marked = [(1.0, "equal"), *([(REPORT_MSE_RATIO, "the report, after 50 epochs")] * report)]
    low = min(means.min(), *(at for at, _ in marked), 1.0)
    ax.set_ylim(0.9 * low, 1.1 * max(means.max(), 1.0))
    plots.log_axis(ax.yaxis)
    ax.axhline(1, color="#444444", linewidth=1)
    if report:
        plots.line_at(ax.axhline, REPORT_MSE_RATIO)
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    for at, words in marked:
        ax.text(1.0, at, words, fontsize=7.5, **beside)
    ax.set_ylabel(f"MSE, {RATIO_NAME}, log axis")
    plots.legend_above(ax)
    series = [plots.series_of(images, IMAGES_LOOKS[images]) for images in pairs]
    return Drawing(RATIO, figure, points, series)


def _draw_conv(data: Mapping[str, pd.DataFrame]) -> Drawing:
    """The convolutional model's MSE against the epoch, linear axis."""
    figure, ax = plots.new_figure()
    lines = [Line(images, IMAGES_LOOKS[images], its) for images, its in data.items()]
    points = plots.curves(ax, lines, log=False)
    ax.set_ylabel(f"MSE, {MSE_UNIT}")
    ax.legend(loc="upper right")
    series = [plots.series_of(images, IMAGES_LOOKS[images]) for images in data]
    return Drawing(CONV_ALONE, figure, points, series)
