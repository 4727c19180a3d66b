"""The ratio of the report's two models under every reading: which fits, what each value does.

The rule for the likely reading is fixed here, before any data: it looks at the report's stated
number alone, not at which claims would come true.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.audit import (
    DEFAULT,
    IMAGES,
    MSE_METRICS,
    AuditedClaim,
    Reading,
    readings_of,
    trials_under,
    words_of,
)
from analysis.chapters.claims import (
    REPORT_EPOCHS,
    REPORT_MSE_RATIO,
)
from analysis.chapters.parts import (
    Table,
)
from analysis.figures import DARK, LIGHT, Points
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    RATIO_NAME,
    Estimate,
    metric_by_seed,
    ratio_of,
    ratio_over_seeds,
)
from analysis.words import (
    count,
    devices,
    digits,
    open_label,
    open_values,
    seeds,
    sentence_case,
    short_interval,
    tensorflow,
)
from study.folder import schema

FIGURE: Final = "figure-readings"
ROW_INCHES: Final = 0.3
LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    schema.TRAIN_MSE: {"color": DARK, "marker": "o", "markersize": 5},
    schema.TEST_MSE: {"color": LIGHT, "marker": "s", "markersize": 4.5},
}


@dataclass(frozen=True)
class LikelyReading:
    """Which readings bring about the report's ratio of 0.5, on both sets of images.

    Attributes:
        n_judged: readings with an interval on both sets after the report's 50 epochs; the others
            say nothing here.
        compatible: those whose intervals contain 0.5 and exclude 1 on both sets.
        nearest: the reading whose worse ratio is nearest to 0.5; None if none was judged.
        factor: between its worse ratio and 0.5, from 1 up.
        alike: other readings whose intervals overlap the nearest one's on both sets.
        nearest_value: the reading whose worse ratio is nearest to 0.5, with or without an
            interval; None if none has ratios after the report's 50 epochs.
    """

    n_judged: int
    compatible: tuple[Reading, ...] = ()
    nearest: Reading | None = None
    factor: float = math.nan
    alike: tuple[Reading, ...] = ()
    nearest_value: Reading | None = None


@dataclass(frozen=True)
class Effect:
    """What another value of one open value does, the others as in the default reading.

    Attributes:
        name: of the open value.
        value: instead of the default's.
        metric: of `MSE_METRICS`.
        conv: the convolutional model's MSE ÷ its MSE under the default reading; None if not known.
        dense: the same of dense-512.
        ratio: the ratio conv ÷ dense-512, divided by that under the default reading.
    """

    name: str
    value: Any
    metric: str
    conv: Estimate | None
    dense: Estimate | None
    ratio: Estimate | None


def ratios(audited: pd.DataFrame) -> list[tuple[Reading, dict[str, Estimate | None]]]:
    """Conv ÷ dense-512 in each of `MSE_METRICS` under every reading, paired by seed."""
    found = []
    for reading in readings_of(schema.MODELS):
        under = trials_under(audited, reading)
        by_metric = {metric: ratio_of(under, metric) for metric in MSE_METRICS}
        found.append((reading, by_metric))
    return found


def effects(audited: pd.DataFrame) -> list[Effect]:
    """What each other open value does to the two models and to their ratio, a row a metric."""
    default = trials_under(audited, DEFAULT)
    found = []
    for name, values in schema.OPEN_VALUES.items():
        for value in values:
            if value == DEFAULT[name]:
                continue
            changed = trials_under(audited, {**DEFAULT, name: value})
            for metric in MSE_METRICS:
                conv, dense = (
                    ratio_over_seeds(
                        metric_by_seed(changed, model_name, metric),
                        metric_by_seed(default, model_name, metric),
                    )
                    if model in schema.BY_NAME[name].models
                    else None
                    for model, model_name in ((schema.CONV, CONV_NAME), (schema.DENSE, DENSE_NAME))
                )
                ratio = ratio_over_seeds(
                    _ratio_by_seed(changed, metric), _ratio_by_seed(default, metric)
                )
                found.append(Effect(name, value, metric, conv, dense, ratio))
    return found


def _ratio_by_seed(under: pd.DataFrame, metric: str) -> pd.Series:
    dense, conv = (metric_by_seed(under, name, metric) for name in (DENSE_NAME, CONV_NAME))
    return (conv / dense).dropna()


def likely_reading(audited: pd.DataFrame) -> LikelyReading:
    """The reading that the report most likely used, as far as its ratio of 0.5 tells.

    One seed has no interval, and is left out but for `nearest_value`. The rule is fixed here,
    before any data: it looks at the report's stated number alone, not at which claims would come
    true.
    """
    measured: list[tuple[Reading, list[Estimate]]] = []
    if audited.empty or audited["epochs"].max() < REPORT_EPOCHS:
        return LikelyReading(0)
    for reading, by_metric in ratios(audited):
        found = [ratio for ratio in by_metric.values() if ratio is not None]
        if len(found) == len(by_metric):
            measured.append((reading, found))
    if not measured:
        return LikelyReading(0)
    nearest_value, _ = min(measured, key=lambda item: _distance(item[1]))
    measured = [item for item in measured if all(ratio.n > 1 for ratio in item[1])]
    if not measured:
        return LikelyReading(0, nearest_value=nearest_value)
    compatible = tuple(
        reading
        for reading, known in measured
        if all(ratio.lowest <= REPORT_MSE_RATIO <= ratio.highest < 1 for ratio in known)
    )
    nearest, its_ratios = min(measured, key=lambda item: _distance(item[1]))
    alike = tuple(
        reading
        for reading, known in measured
        if reading is not nearest
        and all(
            one.lowest <= other.highest and other.lowest <= one.highest
            for one, other in zip(known, its_ratios, strict=True)
        )
    )
    factor = math.exp(_distance(its_ratios))
    return LikelyReading(len(measured), compatible, nearest, factor, alike, nearest_value)


def distance(ratio: Estimate, other: float) -> float:
    """How far a ratio is from a number, as a logarithm."""
    return abs(math.log(ratio.mean / other))


def _distance(known: Iterable[Estimate]) -> float:
    """How far the worse of some ratios is from the report's."""
    return max(distance(ratio, REPORT_MSE_RATIO) for ratio in known)


def likely_sentences(
    likely: LikelyReading, audited: pd.DataFrame, claims: Iterable[AuditedClaim]
) -> list[str]:
    """Two sentences on the reading that the report most likely used."""
    total = len(readings_of(schema.MODELS))
    if likely.nearest_value is None:
        return [
            "Which reading the report used cannot be said: under none of them have both models"
            f" completed {REPORT_EPOCHS} epochs.",
            "A shorter training is not the report's.",
        ]
    if likely.nearest is None or likely.n_judged < total:
        value = likely.nearest_value
        return [
            "Which reading the report used cannot be said yet: the ratio conv ÷ dense-512 has an"
            f" interval, which takes two seeds, under {likely.n_judged} of {total} readings.",
            f"By the value alone the nearest to the report's 0.5 is {words_of(value)}"
            f" ({_both_ratios(audited, value)}), and that decides nothing.",
        ]
    judged = f"{total} readings"
    nearest = f"{words_of(likely.nearest)} ({_both_ratios(audited, likely.nearest)})"
    if not likely.compatible:
        first = (
            f"Under none of the {judged} is conv ÷ dense-512 0.5 on both sets, as in the report;"
            f" the nearest is {nearest}, whose worse ratio is a factor of"
            f" {digits(likely.factor)} away from 0.5."
        )
        alike = ""
        if likely.alike:
            n = count(len(likely.alike), "other reading")
            alike = f", although {n} cannot be told apart from it"
        second = (
            f"If the report used one of them, that one is the likeliest{alike}; as none brings"
            f" about the report's number, the evidence does not decide"
            f"{_agreement(likely.nearest, claims)}."
        )
        return [first, second]
    if len(likely.compatible) == 1:
        (only,) = likely.compatible
        first = (
            f"The report most likely used {words_of(only)} ({_both_ratios(audited, only)}): of the"
            f" {judged} it alone has intervals of conv ÷ dense-512 that contain 0.5 on both sets."
        )
        return [first, f"That rests on the ratio alone{_agreement(only, claims)}."]
    listed = "; ".join(map(words_of, likely.compatible))
    return [
        f"The report may have used any of {len(likely.compatible)} of the {judged}, whose intervals"
        f" of conv ÷ dense-512 contain 0.5 on both sets: {listed}.",
        f"The evidence does not decide among them; the nearest is {nearest}.",
    ]


def _both_ratios(audited: pd.DataFrame, reading: Reading) -> str:
    under = trials_under(audited, reading)
    return ", ".join(
        f"{images} {digits(ratio.mean)}"
        for metric, images in IMAGES.items()
        if (ratio := ratio_of(under, metric)) is not None
    )


def _agreement(reading: Reading, claims: Iterable[AuditedClaim]) -> str:
    """How many of the claims are reproduced under a reading."""
    verdicts = [
        claim.verdict
        for audited in claims
        for its_reading, claim in audited.judged
        if its_reading.items() <= reading.items()
        and claim.verdict in ("reproduced", "not reproduced")
    ]
    n = verdicts.count("reproduced")
    return f" (under it {n} of {count(len(verdicts), 'claim')} with a verdict are reproduced)"


def effect_table(found: Iterable[Effect]) -> Table:
    """What each open value does, a row a value and set of images."""

    def factor(effect: Effect, estimate: Estimate | None, model: str) -> str:
        concerned = model in schema.BY_NAME[effect.name].models
        return short_interval(estimate) if concerned else "does not apply"

    header = ("Instead of the default", "Images", "conv's MSE ×", "dense-512's MSE ×")
    rows = [
        (
            f"{open_label(effect.name)} {effect.value}, not {DEFAULT[effect.name]}",
            IMAGES[effect.metric],
            factor(effect, effect.conv, schema.CONV),
            factor(effect, effect.dense, schema.DENSE),
            short_interval(effect.ratio),
        )
        for effect in found
    ]
    return Table((*header, f"{RATIO_NAME} ×"), rows)


def ratio_table(audited: pd.DataFrame) -> pd.DataFrame:
    """Conv ÷ dense-512, a row a reading and set of images, those without a ratio as well.

    Returns:
        Columns label, metric, mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading, by_metric in ratios(audited):
        label = ", ".join(str(reading[name]) for name in schema.OPEN_VALUES)
        for metric, ratio in by_metric.items():
            if ratio is None:
                rows.append((label, metric, None, None, None, 0))
            else:
                rows.append((label, metric, ratio.mean, ratio.low, ratio.high, ratio.n))
    columns = ["label", "metric", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def plot_ratios(data: pd.DataFrame, ax: Axes) -> Axes:
    """The ratio under each reading on a log axis, beside the lines 1 and 0.5.

    `data` is of `ratio_table`.
    """
    kinds = {f"{IMAGES[metric]} set": look for metric, look in LOOKS.items()}
    data = data.assign(kind=[f"{IMAGES[metric]} set" for metric in data["metric"]])
    figures.plot_forest(ax, data, kinds, (1.0, REPORT_MSE_RATIO))
    ax.axvline(REPORT_MSE_RATIO, color="#c2185b", linewidth=1.4, linestyle=(0, (5, 2)))
    above: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": "right", "va": "bottom"}
    for place, words in ((1.0, "equal "), (REPORT_MSE_RATIO, "the report ")):
        ax.text(place, 1.0, words, fontsize=7.5, **above)
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "center", "va": "center"}
    for row, (_, means) in enumerate(data.groupby("label", sort=False)["mean"]):
        if means.isna().all():
            ax.text(0.5, row, "no completed pair of trials", fontsize=7, color="#666666", **beside)
    n_labels = data["label"].nunique()
    group = n_labels // len(next(iter(schema.OPEN_VALUES.values())))
    for last in range(group, n_labels, group):  # between the values of the first
        ax.axhline(last - 0.5, color="#d2d2d2", linewidth=0.8)
    ax.set_xlabel(f"MSE, {RATIO_NAME}, log axis")
    ax.set_ylabel(sentence_case(", ".join(map(open_label, schema.OPEN_VALUES))))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return ax


def draw(run: Run, audited: pd.DataFrame) -> parts.Figure | None:
    """The figure of the ratios; None if no reading has one."""
    data = ratio_table(audited)
    known = data.dropna(subset="mean")
    if known.empty:
        return None
    labels = list(dict.fromkeys(data["label"]))
    figure, ax = figures.new_figure(1.3 + ROW_INCHES * len(labels))
    plot_ratios(data, ax)
    ends = "; ".join(
        f"{IMAGES[str(metric)]} set {digits(rows['mean'].min())} to {digits(rows['mean'].max())}"
        for metric, rows in known.groupby("metric", sort=False)
    )
    points = [
        Points(
            0,
            rows["mean"],
            [labels.index(label) for label in rows["label"]],
            [
                f"{row['label']}, {IMAGES[str(metric)]} set: "
                + short_interval(Estimate(row["mean"], row["n"], None, *_ends(row)))
                for _, row in rows.iterrows()
            ],
        )
        for metric, rows in known.groupby("metric", sort=False)
    ]
    return figures.finish(
        figure,
        FIGURE,
        "The ratio of the two models under every reading",
        f"MSE of {RATIO_NAME} under {known['label'].nunique()} of"
        f" {count(len(labels), 'reading')}: {ends}. Below 1 {CONV_NAME} has the lower MSE; the"
        f" report has {REPORT_MSE_RATIO:g}.",
        f"{seeds(known['n'])} a reading, {count(audited['epochs'].max(), 'epoch')}; hollow: one"
        " seed, no interval; arrows: an interval goes on.",
        f"{devices(audited)}; {tensorflow(run.manifest)}. Readings: {open_values(audited)}.",
        by="point",
        points=[(ax, its) for its in points],
    )


def _ends(row: pd.Series) -> tuple[float | None, float | None]:
    low, high = (None if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return low, high
