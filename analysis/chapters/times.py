"""Training times, and whether they may be compared at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.claims import (
    REPORT_EPOCHS,
    REPORT_HARDWARE,
    REPORT_TIME_RATIO,
    REPORT_TRAIN_SECONDS,
    concerns_report,
)
from analysis.chapters.curves import Looks, custom_looks
from analysis.chapters.parts import Chapter, Figures, Text
from analysis.figures import MODEL_STYLES
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    RATIO_NAME,
    metric_by_seed,
    names,
    ratio_of,
)
from analysis.words import count, interval, rests_on, seeds, sentence_case
from study.folder import schema

TIMES: Final = "figure-times"
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


def sharing(run: Run) -> str:
    """Whose times these are, as far as the run says; "" if no trial shared its device."""
    known = run.reference["n_sharing"].dropna()
    if len(known):
        n_alone = int((known <= 1).sum())
        shared = len(known) - n_alone
        if not shared:
            return ""
        return (
            f"These are the times of {count(n_alone, 'reference trial')} with the device alone;"
            f" {shared} shared it, so that their times compare with none."
        )
    # Runs of before the trials told.
    resources = run.manifest["resources"]
    n = resources["max_concurrent"]
    if n == 1 or resources["gpus_per_trial"] >= 1:
        return ""
    where = "cluster" if resources.get("address") else "machine"
    what = "a GPU" if resources["gpus_per_trial"] else f"this {where}"
    return f"Up to {n} trials trained at once and shared {what}: these are not times alone."


def bars(run: Run) -> list[TimeBar]:
    """The run's reference trials beside what the report states; none if they have no times.

    They are the report's two models and those of a person's own.
    """
    reference = run.reference
    custom = ~reference["model"].isin(schema.MODELS)
    shown = reference[reference["name"].isin([CONV_NAME, DENSE_NAME]) | custom]
    shown = shown.dropna(subset="train_seconds")
    if shown.empty:
        return []
    here = f"this run\n{count(shown['epochs'].iloc[0], 'epoch')}"
    found = []
    for name in names(shown):
        seconds = metric_by_seed(shown, name, "train_seconds")
        found.append(TimeBar(here, name, float(seconds.mean()), tuple(seconds)))
    if not _beside_report(run, found):
        return found
    report = f"the report\n{REPORT_EPOCHS} epochs\n{REPORT_HARDWARE}"
    stated = REPORT_TRAIN_SECONDS.items()
    return found + [TimeBar(report, name, seconds) for name, seconds in stated]


def _beside_report(run: Run, found: Sequence[TimeBar]) -> bool:
    return concerns_report(run) and any(bar.name in REPORT_TRAIN_SECONDS for bar in found)


def plot_times(data: Sequence[TimeBar], ax: Axes, looks: Looks = MappingProxyType({})) -> Axes:
    """Training times as bars side by side for each source, the seeds as dots.

    Args:
        data: of `bars`.
        ax: where to draw.
        looks: of the models of a person's own, by name.
    """
    sources = list(dict.fromkeys(bar.source for bar in data))
    models = list(dict.fromkeys(bar.name for bar in data))
    colors = {name: look["color"] for name, look in {**looks, **MODEL_STYLES}.items()}
    width = 0.72 / max(len(models), 2)
    for bar in data:
        center = sources.index(bar.source) + (models.index(bar.name) - (len(models) - 1) / 2) * (
            width + 0.04
        )
        first = bar.source == next(other.source for other in data if other.name == bar.name)
        ax.bar(
            center,
            bar.mean_seconds,
            width,
            color=colors[bar.name],
            hatch=BAR_HATCHES.get(bar.name, ""),
            edgecolor="white",
            label=bar.name if first else None,
        )
        n = len(bar.seed_seconds)
        ax.plot(
            center + (np.linspace(-0.1, 0.1, n) * width / 0.36 if n > 1 else np.zeros(n)),
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
    figures.legend_above(ax)
    return ax


def chapter(run: Run) -> Chapter:
    """Training times beside the report's."""
    data = bars(run)
    title = "Training times"
    if not data:
        whose = "conv or dense-512" if concerns_report(run) else "any model"
        gap = f"No training times of {whose}: no reference trial of theirs completed."
        if len(run.reference):
            gap = "No training times to compare: every reference trial shared its device."
        return Chapter("times", title, gaps=[gap])
    ratio = ratio_of(run.reference, "train_seconds")
    beside = _beside_report(run, data)
    reported = f"; the report has {REPORT_TIME_RATIO}" if beside else ""
    words = [
        f"{RATIO_NAME}: {interval(ratio)}{reported}." if ratio else "",
        sharing(run),
        "Hardware and versions differ from the report's, so there is no verdict." if beside else "",
    ]
    with figures.style():
        figure = _draw(run, data)
    said = " ".join(filter(None, words))
    return Chapter("times", title, [*([Text(said)] if said else []), Figures([figure])])


def _draw(run: Run, data: Sequence[TimeBar]) -> parts.Figure:
    figure, ax = figures.new_figure()
    plot_times(data, ax, custom_looks(run))
    values = "; ".join(
        f"{bar.source.splitlines()[0]}, {bar.name}: {bar.mean_seconds:.3g} s" for bar in data
    )
    n = seeds(len(bar.seed_seconds) for bar in data if bar.seed_seconds)
    return figures.finish(
        figure,
        TIMES,
        "Training time, measured and as the report states it"
        if _beside_report(run, data)
        else "Training time",
        f"{sentence_case(values)}.",
        f"Weight updates only, without compilation and evaluation; dots are seeds, {n}.",
        f"{sharing(run)} {rests_on(run)}".strip(),
    )
