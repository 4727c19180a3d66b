"""Draws the audit: the ratio of the report's two models under every reading, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.audit import results, tables
from analysis.claims import REPORT_MSE_RATIO
from analysis.drawings import Drawing, finish
from analysis.figures import DARK, LIGHT
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import count, devices, digits, readings, tensorflow
from study.folder import schema

READINGS: Final = "figure-13-readings"
ROW_INCHES: Final = 0.3
LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    schema.TRAIN_MSE: {"color": DARK, "marker": "o", "markersize": 5},
    schema.TEST_MSE: {"color": LIGHT, "marker": "s", "markersize": 4.5},
}


def draw_audit(manifest: Mapping[str, Any], audited: pd.DataFrame) -> list[Drawing]:
    """The figure of the audit; none if no reading has a ratio.

    Args:
        manifest: of `analysis.load.load_manifest`.
        audited: of `analysis.audit.results.audited_trials`.
    """
    data = ratio_table(audited)
    known = data.dropna(subset="mean")
    if known.empty:
        return []
    with figures.style():
        n_rows = data["label"].nunique()
        figure, ax = figures.new_figure(1.3 + ROW_INCHES * n_rows)
        plot_ratios(data, ax)
        ends = "; ".join(
            f"{tables.IMAGES[str(metric)]} set {digits(rows['mean'].min())} to"
            f" {digits(rows['mean'].max())}"
            for metric, rows in known.groupby("metric", sort=False)
        )
        n_known = known["label"].nunique()
        seeds = sorted(set(known["n"]))
        n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        return [
            finish(
                figure,
                READINGS,
                "Figure 13. The ratio of the two models under every reading",
                f"MSE of {DENSE_NAME} ÷ {CONV_NAME} under {n_known} of"
                f" {count(n_rows, 'reading')}: {ends}. Below 1 {DENSE_NAME} has the lower MSE;"
                f" the report has {REPORT_MSE_RATIO:g}.",
                "Geometric means of ratios paired by seed with 95 % t-intervals; one seed has no"
                " interval, and its mark is hollow; arrows: an interval goes on."
                f" n = {n} seeds a reading; {count(audited['epochs'].max(), 'epoch')};"
                f" {devices(audited)}; {tensorflow(manifest)}. {readings(audited)}",
            )
        ]


def ratio_table(audited: pd.DataFrame) -> pd.DataFrame:
    """Dense-512 ÷ conv, a row a reading and set of images, those without a ratio as well.

    Returns:
        Columns label, metric, mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading, by_metric in results.ratios(audited):
        label = ", ".join(str(reading[name]) for name in schema.OPEN_VALUES)
        for metric, ratio in by_metric.items():
            if ratio is None:
                rows.append((label, metric, None, None, None, 0))
            else:
                rows.append((label, metric, ratio.mean, ratio.low, ratio.high, ratio.n))
    columns = ["label", "metric", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def plot_ratios(data: pd.DataFrame, ax: Axes) -> Axes:
    """The ratio under each reading on a log axis, beside the lines 1 and 2.

    Args:
        data: of `ratio_table`.
        ax: where to draw.
    """
    labels: Sequence[str] = list(dict.fromkeys(data["label"]))
    limits = figures.interval_limits(data, (1.0, REPORT_MSE_RATIO))
    ax.set_xscale("log")
    ax.set_xlim(limits)
    ax.axvline(1, color="#444444", linewidth=1)
    ax.axvline(REPORT_MSE_RATIO, color="#c2185b", linewidth=1.4, linestyle=(0, (5, 2)))
    for place, at, words in ((1.0, "right", "equal "), (REPORT_MSE_RATIO, "right", "the report ")):
        ax.text(
            place,
            1.0,
            words,
            transform=ax.get_xaxis_transform(),
            ha=at,
            va="bottom",
            fontsize=7.5,
        )
    for metric, offset in zip(results.MSE_METRICS, (-0.17, 0.17), strict=True):
        rows = data[data["metric"] == metric].reset_index(drop=True)
        heights = np.arange(len(rows)) + offset
        look = LOOKS[metric]
        figures.plot_intervals(rows, ax, heights, limits, look["color"])
        alone = (rows["n"] == 1).to_numpy()
        for chosen, face in ((~alone, look["color"]), (alone, "white")):
            ax.plot(
                rows["mean"].to_numpy()[chosen],
                heights[chosen],
                linestyle="none",
                markerfacecolor=face,
                **look,
            )
        ax.plot([], [], linestyle="none", label=f"{tables.IMAGES[metric]} set", **look)
    for row, label in enumerate(labels):
        if data.loc[data["label"] == label, "mean"].isna().all():
            ax.text(
                0.5,
                row,
                "no completed pair of trials",
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=7,
                color="#666666",
            )
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    group = len(schema.OPEN_VALUES["latent_filters"]) * len(schema.OPEN_VALUES["hidden_activation"])
    for last in range(group, len(labels), group):  # between the batch sizes
        ax.axhline(last - 0.5, color="#e4e4e4", linewidth=0.8)
    figures.log_axis(ax.xaxis, 6)
    ax.set_xlabel(f"MSE, {DENSE_NAME} ÷ {CONV_NAME}, log axis")
    ax.set_ylabel("Batch size, latent filters, dense activation")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return ax
