"""Learning curves of the reference trials: MSE against the epoch, and who is ahead when."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.claims import REPORT_EPOCHS, REPORT_MSE_RATIO, concerns_report
from analysis.chapters.parts import Chapter, Figures, Part, Text
from analysis.figures import MODEL_STYLES, MSE_UNIT, MUTED, MUTED_LINES, Points
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    RATIO_NAME,
    curves,
    models_of,
    names,
    ratio_curve,
    ratio_of,
    reference_epochs,
)
from analysis.words import count, digits, interval, rests_on, seeds
from study.folder import schema
from study.folder.schema import TEST_MSE, TRAIN_MSE

TEST: Final = "figure-test-mse"
TRAINING: Final = "figure-training-mse"
CONV_ALONE: Final = "figure-conv-mse"
RATIO: Final = "figure-ratio-by-epoch"
IMAGES: Final[Mapping[str, str]] = {TRAIN_MSE: "training", TEST_MSE: "test"}
REPORTED: Final = {TRAIN_MSE: "3", TEST_MSE: "4"}  # the report's figures
CONV_LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "training": MODEL_STYLES[CONV_NAME],
    "test": {"color": "#5ba3d9", "linestyle": "--", "marker": "^", "zorder": 3.1},
}


Looks = Mapping[str, Mapping[str, Any]]


def looks(
    found: Sequence[str], custom: Looks = MappingProxyType({})
) -> dict[str, Mapping[str, Any]]:
    """How each architecture's line is drawn: the report's two and a person's own stand out."""
    muted = iter(MUTED_LINES * len(found))
    return {
        name: MODEL_STYLES.get(name)
        or custom.get(name)
        or {"color": MUTED, "linestyle": next(muted), "linewidth": 1.0, "zorder": 2.5}
        for name in found
    }


def custom_looks(run: Run) -> dict[str, Mapping[str, Any]]:
    """The looks of the reference trials of a person's own models, by name.

    A model has its colour of elsewhere; further settings of it have the colours that are left.
    """
    model_looks = figures.looks_of(models_of(run.trials))
    place = len(model_looks) - len(schema.MODELS)
    found: dict[str, Mapping[str, Any]] = {}
    rows = run.reference[~run.reference["model"].isin(schema.MODELS)]
    for model, of_model in rows.groupby("model"):
        first, *others = names(of_model)
        found[first] = model_looks[str(model)]
        for name in others:
            found[name] = figures.custom_look(place)
            place += 1
    return found


def plot_log_mse(data: pd.DataFrame, ax: Axes, images: str, its_looks: Looks | None = None) -> Axes:
    """MSE of every architecture against the epoch, log axis.

    Args:
        data: of `analysis.statistics.curves`.
        ax: where to draw.
        images: "training" or "test", for the axis label.
        its_looks: of the lines by name; the report's two stand out if not given.
    """
    its_looks = its_looks or looks(list(data["name"].unique()))
    for place, (name, curve) in enumerate(data.groupby("name", sort=False)):
        plot_curve(curve, ax, str(name), its_looks[str(name)], place)
    ax.set_ylabel(f"{images.capitalize()} MSE, {MSE_UNIT}, log axis")
    figures.epoch_axis(ax, data["epoch"].max())
    figures.log_axis(ax.yaxis)
    ax.legend(loc="upper right")
    return ax


def plot_conv(data: Mapping[str, pd.DataFrame], ax: Axes) -> Axes:
    """The convolutional model's MSE against the epoch, linear axis.

    Args:
        data: `analysis.statistics.curves` of the convolutional model, by the images' name.
        ax: where to draw.
    """
    for place, (label, curve) in enumerate(data.items()):
        plot_curve(curve, ax, label, CONV_LOOKS[label], place)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(f"MSE, {MSE_UNIT}")
    figures.epoch_axis(ax, max(curve["epoch"].max() for curve in data.values()))
    ax.legend(loc="upper right")
    return ax


def plot_ratio(data: Mapping[str, pd.DataFrame], ax: Axes, *, report: bool = True) -> Axes:
    """Conv ÷ dense-512 against the epoch, log axis, beside the lines 1 and the report's 0.5.

    Args:
        data: of `analysis.statistics.ratio_curve`, by the images' name.
        ax: where to draw.
        report: whether the report has a word on it: on other images than its own it has none.
    """
    lines = [(1.0, "equal"), *([(REPORT_MSE_RATIO, "the report, after 50 epochs")] * report)]
    for place, (label, curve) in enumerate(data.items()):
        plot_curve(curve, ax, label, CONV_LOOKS[label], place)
    everything = pd.concat(data.values())
    low, high = everything["mean"].min(), everything["mean"].max()
    ax.set(yscale="log", ylim=(0.9 * min(low, *(at for at, _ in lines), 1.0), 1.1 * max(high, 1.0)))
    ax.axhline(1, color="#444444", linewidth=1)
    if report:
        ax.axhline(REPORT_MSE_RATIO, color="#c2185b", linewidth=1.4, linestyle=(0, (5, 2)))
    for at, words in lines:
        ax.text(
            1.0,
            at,
            words,
            transform=ax.get_yaxis_transform(),
            fontsize=7.5,
            ha="right",
            va="bottom",
        )
    figures.epoch_axis(ax, everything["epoch"].max())
    figures.log_axis(ax.yaxis)
    ax.set_ylabel(f"MSE, {RATIO_NAME}, log axis")
    figures.legend_above(ax)
    return ax


def plot_curve(
    curve: pd.DataFrame, ax: Axes, name: str, look: Mapping[str, Any], place: int
) -> None:
    """A line and, for several seeds, the band from low to high; series `place` of the legend."""
    epoch = curve["epoch"].astype(float).to_numpy()
    step = max(1, len(epoch) // 8)
    n = int(curve["n"].max())
    mark_every = (min(place * step // 2, len(epoch) - 1), step)
    (line,) = ax.plot(epoch, curve["mean"], markevery=mark_every, label=f"{name}, n = {n}", **look)
    figures.tag(line, place)
    if n > 1:
        low, high = (curve[end].astype(float).to_numpy() for end in ("low", "high"))
        band = ax.fill_between(epoch, low, high, color=look["color"], alpha=0.22, linewidth=0)
        figures.tag(band, place)


def overtaking(data: pd.DataFrame) -> str:
    """Who is ahead at which epochs, in the geometric mean over seeds.

    `data` is of `analysis.statistics.ratio_curve`.
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


def chapter(run: Run) -> Chapter:
    """The report's figures 2, 3 and 4, and the ratio of its two models by epoch."""
    title = "Learning curves"
    if run.reference.empty:
        return Chapter("curves", title, gaps=["No learning curves: no reference trial completed."])
    content: list[Part] = []
    ratios = {
        images: data
        for metric, images in IMAGES.items()
        if not (data := ratio_curve(run.reference, run.epochs, metric)).empty
    }
    if (of_test := ratios.get("test")) is not None:
        content.append(Text(f"{overtaking(of_test)} (mean test MSE, {seeds(of_test['n'])})."))
    with figures.style():
        drawn = [
            _draw_log(run, TEST_MSE, TEST),
            _draw_log(run, TRAIN_MSE, TRAINING),
            _draw_ratio(run, ratios),
            _draw_conv(run),
        ]
    shown = [figure for figure in drawn if figure is not None]
    gaps = (
        []
        if drawn[3] or not concerns_report(run)
        else ["No learning curve of conv: it has no completed reference trial."]
    )
    return Chapter("curves", title, [*content, Figures(shown)] if shown else [], gaps)


def _draw_log(run: Run, metric: str, name: str) -> parts.Figure | None:
    data = curves(run.reference, run.epochs, metric)
    if data.empty:
        return None
    images = IMAGES[metric]
    its_looks = looks(names(run.reference), custom_looks(run))
    figure, ax = figures.new_figure()
    plot_log_mse(data, ax, images, its_looks)
    ends = data.groupby("name", sort=False).tail(1)
    values = ", ".join(f"{row['name']} {digits(row['mean'])}" for _, row in ends.iterrows())
    found = names(run.reference)
    trials = reference_epochs(run.reference, run.epochs).dropna(subset=metric)
    return figures.finish(
        figure,
        name,
        f"{images.capitalize()} MSE against the epoch",
        f"After {count(data['epoch'].max(), 'epoch')}: {values}.",
        _seeds_note(data),
        rests_on(run),
        report=f"its figure {REPORTED[metric]}: conv at half of dense-512's {images} MSE,"
        f" {RATIO_NAME} {REPORT_MSE_RATIO}; here {interval(ratio_of(run.reference, metric))}."
        if concerns_report(run)
        else "",
        series=[figures.series_of(name, look) for name, look in its_looks.items()],
        points=[
            (ax, points)
            for points in (
                *_mean_points(data, found),
                *_trial_points(trials, metric, found),
            )
        ],
    )


def _draw_ratio(run: Run, ratios: Mapping[str, pd.DataFrame]) -> parts.Figure | None:
    if not ratios:
        return None
    figure, ax = figures.new_figure()
    plot_ratio(ratios, ax, report=concerns_report(run))
    last = {images: data.iloc[-1] for images, data in ratios.items()}
    ends = ", ".join(f"{images} set {digits(row['mean'])}" for images, row in last.items())
    with_interval = any(data["n"].max() > 1 for data in ratios.values())
    band = "; bands are 95 % intervals" if with_interval else ", so without intervals"
    return figures.finish(
        figure,
        RATIO,
        f"{RATIO_NAME} against the epoch",
        f"After {count(int(last[next(iter(last))]['epoch']), 'epoch')}: {ends}."
        " Below 1 conv has the lower MSE.",
        f"Geometric mean of ratios paired by seed,"
        f" {seeds(n for data in ratios.values() for n in data['n'])}{band}.",
        rests_on(run),
        series=[figures.series_of(images, CONV_LOOKS[images]) for images in ratios],
        points=[
            (ax, points)
            for place, data in enumerate(ratios.values())
            for points in _mean_points(data.assign(name=place), [place])
        ],
    )


def _draw_conv(run: Run) -> parts.Figure | None:
    conv = run.reference[run.reference["name"] == CONV_NAME]
    data = {images: curves(conv, run.epochs, metric) for metric, images in IMAGES.items()}
    if any(curve.empty for curve in data.values()):
        return None
    figure, ax = figures.new_figure()
    plot_conv(data, ax)
    ends = " and ".join(
        f"{images} MSE falls from {digits(curve['mean'].iloc[0])} to"
        f" {digits(curve['mean'].iloc[-1])}"
        for images, curve in data.items()
    )
    return figures.finish(
        figure,
        CONV_ALONE,
        "The convolutional autoencoder on a linear axis",
        f"Over {count(data['test']['epoch'].max(), 'epoch')}, {ends}.",
        _seeds_note(data["test"]),
        rests_on(run),
        report=f"its figure 2: over {REPORT_EPOCHS} epochs a great fall at the beginning, then"
        " little by little; it states no value."
        if concerns_report(run)
        else "",
        series=[figures.series_of(images, CONV_LOOKS[images]) for images in data],
        points=[
            (ax, points)
            for place, curve in enumerate(data.values())
            for points in _mean_points(curve.assign(name=place), [place])
        ],
    )


def _seeds_note(data: pd.DataFrame) -> str:
    last = data.groupby("name", sort=False)["n"].max()
    band = "; bands go from the least to the greatest seed" if last.max() > 1 else ""
    return f"Mean over seeds, {seeds(last)}{band}." if band else f"{seeds(last)} each."


def _mean_points(data: pd.DataFrame, found: Sequence[Any]) -> list[Points]:
    """What a pointer reads of each line of a curve."""
    return [
        Points(
            found.index(name),
            curve["epoch"],
            curve["mean"],
            [
                digits(row["mean"])
                + (f" ({digits(row['low'])} to {digits(row['high'])})" if row["n"] > 1 else "")
                for _, row in curve.iterrows()
            ],
        )
        for name, curve in data.groupby("name", sort=False)
    ]


def _trial_points(trials: pd.DataFrame, metric: str, found: Sequence[str]) -> list[Points]:
    """What a pointer reads of each trial behind the lines."""
    return [
        Points(
            found.index(str(name)),
            history["epoch"],
            history[metric],
            [digits(value) for value in history[metric]],
            str(trial_id),
        )
        for (name, trial_id), history in trials.sort_values("epoch").groupby(["name", "trial_id"])
    ]
