"""Learning curves of the reference trials: MSE against the epoch, and who is ahead when."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import plots, settings
from analysis.claims import IMAGES, concerns_paper
from analysis.load import Run
from analysis.phrases import sentence_case
from analysis.plots import Drawing, Line, Look
from analysis.settings import curve, histories
from study.folder import schema
from study.folder.paper import EARLY_FALL, Paper

TEST: Final = "figure-test-mse"
FIGURES: Final = {schema.TEST_MSE: TEST, schema.TRAIN_MSE: "figure-training-mse"}
CONV: Final = "figure-conv-mse"
IMAGES_LOOKS: Final[Mapping[str, Look]] = {
    "training": plots.LOOKS[schema.CONV],
    "test": {"color": "#5ba3d9", "linestyle": "--", "marker": "^", "zorder": 3.1},
}


def chapter(run: Run) -> dict[str, Any]:
    """All reference settings on a log axis, the ratio of two by epoch, and conv on a linear one."""
    conv, paper = run.named.get(schema.CONV), run.paper if concerns_paper(run) else None
    pairs = {
        images: data
        for metric, images in IMAGES.items()
        if len(data := settings.ratio_curve(*run.two(run.named), run.epochs, metric))
    }
    alone = {images: curve(conv, run.epochs, m) for m, images in IMAGES.items()} if conv else {}
    falls = [c for c in (paper.claims if paper else ()) if c.measure == EARLY_FALL]
    return {
        "paper": paper,
        "fall": next((c for c in falls if c.of == schema.CONV), None),
        "overtaking": overtaking(pairs["test"], *run.pair) if "test" in pairs else "",
        "pairs": pairs,
        "logs": [
            {
                "images": IMAGES[m],
                "ratio": run.pair_ratio(m),
                "claim": paper.numbers.get(m) if paper else None,
                "lines": lines,
                "drawing": plots.curves_drawing(
                    name, lines, f"{IMAGES[m].capitalize()} MSE, {plots.MSE_UNIT}"
                ),
            }
            for m, name in FIGURES.items()
            if (lines := lines_of(run, m))
        ],
        "ratio": _draw_ratio(pairs, run.ratio_name, paper) if pairs else None,
        "alone": alone,
        "conv": plots.curves_drawing(CONV, _of_images(alone), f"MSE, {plots.MSE_UNIT}", log=False)
        if alone and all(map(len, alone.values()))
        else None,
    }


def overtaking(data: pd.DataFrame, top: str, bottom: str) -> str:
    """Who is ahead at which epochs of a `ratio_curve`, in the geometric mean over seeds."""
    ahead = (data["mean"] < 1).to_numpy()
    changes = np.flatnonzero(ahead[1:] != ahead[:-1])
    first, second = (top, bottom) if ahead[0] else (bottom, top)
    first = sentence_case(first)
    if not len(changes):
        return f"{first} is ahead throughout"
    if len(changes) > 1:
        return f"The two change places {len(changes)} times"
    return f"{first} is ahead up to epoch {data['epoch'].iloc[changes[0]]}, {second} after it"


def looks(run: Run) -> dict[str, Look]:
    """How each reference setting's line is drawn: the two compared and custom ones stand out.

    A model has its colour of elsewhere; further settings of it have those that are left.
    """
    of_models, muted = plots.looks_of(run.models), iter(plots.MUTED_LINES * len(run.named))
    found: dict[str, Look] = {}
    for name, setting in run.named.items():
        compared = name in run.pair or setting.model != schema.DENSE
        if compared and of_models[setting.model] not in found.values():
            found[name] = of_models[setting.model]
        elif compared:
            found[name] = plots.custom_look(len(of_models) + len(found))
        else:
            found[name] = plots.muted(next(muted))
    return found


def lines_of(run: Run, metric: str) -> list[Line]:
    """A line for each reference setting that has epochs of a metric, by its label."""
    its_looks = looks(run)
    return [
        Line(s.label, its_looks[s.label], data, histories(s, run.epochs, metric))
        for s in run.reference
        if len(data := curve(s, run.epochs, metric))
    ]


def _draw_ratio(pairs: Mapping[str, pd.DataFrame], name: str, paper: Paper | None) -> Drawing:
    """The ratio of two settings by epoch, log axis, beside the lines 1 and the paper's number."""
    drawing = plots.curves_drawing("figure-ratio-by-epoch", _of_images(pairs), f"MSE, {name}")
    (ax,), means = drawing.figure.axes, pd.concat(pairs.values())["mean"]
    after = f", after {paper.epochs} epochs" if paper and paper.epochs else ""
    stated = {c.value: f"{paper.called}{after}" for c in paper.numbers.values()} if paper else {}
    ax.set_ylim(0.9 * min(means.min(), *stated, 1.0), 1.1 * max(means.max(), 1.0))
    plots.log_axis(ax.yaxis)
    plots.mark_ratios(ax, stated)
    plots.legend_above(ax)
    return drawing


def _of_images(data: Mapping[str, pd.DataFrame]) -> list[Line]:
    """A line for the training and the test set."""
    return [Line(images, IMAGES_LOOKS[images], its) for images, its in data.items()]
