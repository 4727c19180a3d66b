"""Learning curves of the reference trials: MSE against the epoch, and who is ahead when."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import plots, settings
from analysis.claims import IMAGES, REPORT_MSE_RATIO, concerns_report
from analysis.load import Run
from analysis.plots import Drawing, Line, Look
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME, curve, histories
from study.folder import schema

TEST: Final = "figure-test-mse"
FIGURES: Final = {schema.TEST_MSE: TEST, schema.TRAIN_MSE: "figure-training-mse"}
IMAGES_LOOKS: Final[Mapping[str, Look]] = {
    "training": plots.MODEL_STYLES[CONV_NAME],
    "test": {"color": "#5ba3d9", "linestyle": "--", "marker": "^", "zorder": 3.1},
}


def chapter(run: Run) -> dict[str, Any]:
    """The report's figures 2, 3 and 4, and the ratio of its two models by epoch."""
    conv, dense = run.named.get(CONV_NAME), run.named.get(DENSE_NAME)
    pairs = {
        images: data
        for metric, images in IMAGES.items()
        if len(data := settings.ratio_curve(conv, dense, run.epochs, metric))
    }
    alone = {images: curve(conv, run.epochs, m) for m, images in IMAGES.items()} if conv else {}
    return {
        "concerned": concerns_report(run),
        "any_reference": bool(run.reference),
        "overtaking": overtaking(pairs["test"]) if "test" in pairs else "",
        "pairs": pairs,
        "logs": [
            {
                "images": IMAGES[m],
                "ratio": settings.report_ratio(run.named, m),
                "lines": lines,
                "drawing": plots.log_curves(name, lines, f"{IMAGES[m].capitalize()} MSE"),
            }
            for m, name in FIGURES.items()
            if (lines := lines_of(run, m))
        ],
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
    changes = np.flatnonzero(ahead[1:] != ahead[:-1])
    first, second = ("Conv", "dense-512") if ahead[0] else ("Dense-512", "conv")
    if not len(changes):
        return f"{first} is ahead throughout"
    if len(changes) > 1:
        return f"The two change places {len(changes)} times"
    return f"{first} is ahead up to epoch {data['epoch'].iloc[changes[0]]}, {second} after it"


def looks(run: Run) -> dict[str, Look]:
    """How each reference architecture's line is drawn: the report's two and custom ones stand out.

    A custom model has its colour of elsewhere; further settings of it have those that are left.
    """
    of_models, muted = plots.looks_of(run.models), iter(plots.MUTED_LINES * len(run.named))
    found: dict[str, Look] = {}
    for name, setting in run.named.items():
        if name in plots.MODEL_STYLES:
            found[name] = plots.MODEL_STYLES[name]
        elif setting.model in schema.MODELS:
            found[name] = plots.muted(next(muted))
        elif of_models[setting.model] in found.values():
            found[name] = plots.custom_look(len(of_models) + len(found))
        else:
            found[name] = of_models[setting.model]
    return found


def lines_of(run: Run, metric: str) -> list[Line]:
    """A line for each reference setting that has epochs of a metric, by its label."""
    its_looks = looks(run)
    return [
        Line(s.label, its_looks[s.label], data, histories(s, run.epochs, metric))
        for s in run.reference
        if len(data := curve(s, run.epochs, metric))
    ]


def _draw_ratio(pairs: Mapping[str, pd.DataFrame], *, report: bool) -> Drawing:
    """Conv ÷ dense-512 against the epoch, log axis, beside the lines 1 and the report's 0.5."""
    figure, ax = plots.new_figure()
    lines = [Line(images, IMAGES_LOOKS[images], data) for images, data in pairs.items()]
    points = plots.curves(ax, lines)
    means = pd.concat(pairs.values())["mean"]
    marked = {1.0: "equal"} | ({REPORT_MSE_RATIO: "the report, after 50 epochs"} if report else {})
    ax.set_ylim(0.9 * min(means.min(), *marked, 1.0), 1.1 * max(means.max(), 1.0))
    plots.log_axis(ax.yaxis)
    ax.axhline(1, color="#444444", linewidth=1)
    if report:
        plots.line_at(ax.axhline, REPORT_MSE_RATIO)
    for at, words in marked.items():
        plots.note(ax, 1.0, at, words, ax.get_yaxis_transform())
    ax.set_ylabel(f"MSE, {RATIO_NAME}, log axis")
    plots.legend_above(ax)
    return Drawing("figure-ratio-by-epoch", figure, points, [line[:2] for line in lines])


def _draw_conv(data: Mapping[str, pd.DataFrame]) -> Drawing:
    """The convolutional model's MSE against the epoch, linear axis."""
    figure, ax = plots.new_figure()
    lines = [Line(images, IMAGES_LOOKS[images], its) for images, its in data.items()]
    points = plots.curves(ax, lines, log=False)
    ax.set_ylabel(f"MSE, {plots.MSE_UNIT}")
    ax.legend(loc="upper right")
    return Drawing("figure-conv-mse", figure, points, [line[:2] for line in lines])
