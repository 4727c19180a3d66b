"""What the report leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from analysis import plots
from analysis.audit import (
    DEFAULT,
    IMAGES,
    Audit,
    Effect,
    csv,
    is_audited,
    likely_sentences,
    readings_of,
    spread_words,
    why,
)
from analysis.claims import REPORT_MSE_RATIO, concerns_report
from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    digits,
    open_label,
    sentence_case,
    short_interval,
    values_of,
)
from analysis.plots import DARK, LIGHT, Drawing, Look
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME
from study.folder import schema

FIGURE: Final = "figure-readings"
CSV_FILE: Final = "audit.csv"
ROW_INCHES: Final = 0.3
LOOKS: Final[Mapping[str, Look]] = {
    "training set": {"color": DARK, "marker": "o", "markersize": 5},
    "test set": {"color": LIGHT, "marker": "s", "markersize": 4.5},
}


def chapter(run: Run) -> dict[str, Any]:
    """The claims under every reading, of a run that trained them, and what is left open."""
    audit = Audit(run) if concerns_report(run) and is_audited(run) else None
    return {
        "concerned": concerns_report(run),
        "open": [(sentence_case(open_label(p.name)), *_open(run, p)) for p in _OPEN],
        "sizes": [name for name in run.named if name not in (CONV_NAME, DENSE_NAME)],
        "audit": _audit(audit) if audit else None,
    }


def files(run: Run) -> dict[str, bytes]:
    """audit.csv, of an audit."""
    audited = concerns_report(run) and is_audited(run)
    return {CSV_FILE: csv(Audit(run).claims()).encode()} if audited else {}


_OPEN: Final = [p for p in schema.HYPERPARAMETERS if not p.stated]


def _open(run: Run, p: schema.Hyperparameter) -> tuple[str, str]:
    """The reference's values of something that is left open, and the others that were trained."""
    reference = [s for s in run.reference if s.model in p.models]
    its = {s.value(p.name) for s in reference}
    tried = []
    for model in p.models:
        for group in (schema.READING, schema.NEIGHBOUR):
            settings = [s for s in run.of(group, model) if schema.COMPLETED in s.states]
            others = {s.value(p.name) for s in settings} - its
            if others:
                tried.append(f"{model}, {group} trials: {values_of(pd.Series([*others]))}")
    return values_of(pd.Series([*its])) or NO_VALUE, "; ".join(tried) or "not tested"


def _audit(audit: Audit) -> dict[str, Any]:
    claims = audit.claims()
    rows = ratio_rows(audit)
    known = rows.dropna(subset="mean")
    ends = known.groupby("kind", sort=False)["mean"].agg(["min", "max"])
    return {
        "trials": audit.trials,
        "claims": [
            (c.claim.claim, c.claim.report, spread_words(c), c.verdict, why(c)) for c in claims
        ],
        "likely": likely_sentences(audit, claims),
        "effects": list(map(_effect, audit.effects())),
        "lacks": audit.lacks(),
        "drawing": draw(rows) if len(known) else None,
        "n_with": known["label"].nunique(),
        "n_readings": rows["label"].nunique(),
        "ends": [
            f"{kind} {digits(low)} to {digits(high)}" for kind, low, high in ends.itertuples()
        ],
        "n": sorted(known["n"]),
        "n_epochs": audit.n_epochs,
    }


def _effect(effect: Effect) -> tuple[str, ...]:
    """A row on what an open value does."""
    models = [
        short_interval(effect.models[name]) if name in effect.models else "does not apply"
        for name in (CONV_NAME, DENSE_NAME)
    ]
    what = f"{open_label(effect.name)} {effect.value}, not {DEFAULT[effect.name]}"
    return what, IMAGES[effect.metric], *models, short_interval(effect.ratio)


def ratio_rows(audit: Audit) -> pd.DataFrame:
    """Conv ÷ dense-512, a row a reading and set of images, those without a ratio as well.

    Returns:
        Columns label (the open values), kind (the images), mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading in readings_of(schema.MODELS):
        label = ", ".join(map(str, reading.values()))
        for metric, pair in audit.ratios(reading).items():
            measured = (pair.mean, pair.low, pair.high, pair.n) if pair else (None,) * 3 + (0,)
            rows.append((label, f"{IMAGES[metric]} set", *measured))
    columns = ["label", "kind", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def draw(rows: pd.DataFrame) -> Drawing:
    """The ratio under each reading on a log axis, beside the lines 1 and 0.5."""
    labels = list(dict.fromkeys(rows["label"]))
    figure, ax = plots.new_figure(1.3 + ROW_INCHES * len(labels))
    part = len(labels) // len(next(iter(schema.OPEN_VALUES.values())))
    breaks = range(part, len(labels), part)  # between the values of the first
    points = plots.forest(ax, rows, LOOKS, always=(1.0, REPORT_MSE_RATIO), breaks=breaks)
    plots.line_at(ax.axvline, REPORT_MSE_RATIO)
    above: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": "right", "va": "bottom"}
    for place, words in ((1.0, "equal "), (REPORT_MSE_RATIO, "the report ")):
        ax.text(place, 1.0, words, fontsize=7.5, **above)
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "center", "va": "center"}
    for row, (_, means) in enumerate(rows.groupby("label", sort=False)["mean"]):
        if means.isna().all():
            ax.text(0.5, row, "no completed pair of trials", fontsize=7, color="#666666", **beside)
    ax.set_xlabel(f"MSE, {RATIO_NAME}, log axis")
    ax.set_ylabel(sentence_case(", ".join(map(open_label, schema.OPEN_VALUES))))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return Drawing(FIGURE, figure, points, by="point")
