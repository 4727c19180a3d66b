"""What the report leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from analysis import phrases, plots
from analysis.audit import DEFAULT, Audit, AuditedClaim, csv, is_audited, readings_of
from analysis.claims import (
    IMAGES,
    NOT_REPRODUCED,
    REPORT_MSE_RATIO,
    REPORT_TIME_RATIO,
    REPRODUCED,
    concerns_report,
)
from analysis.load import Run
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME
from study.folder import schema

FIGURE: Final = "figure-readings"
CSV_FILE: Final = "audit.csv"
ROW_INCHES: Final = 0.3
LOOKS: Final[Mapping[str, plots.Look]] = {
    "training set": {"color": plots.DARK, "marker": "o", "markersize": 5},
    "test set": {"color": plots.LIGHT, "marker": "s", "markersize": 4.5},
}


def chapter(run: Run) -> dict[str, Any]:
    """The claims under every reading, of a run that trained them, and what is left open."""
    its: dict[str, Any] = {"concerned": concerns_report(run), "audit": None}
    its["open"] = [_open(run, p) for p in schema.HYPERPARAMETERS if not p.stated]
    its["sizes"] = [name for name in run.named if name not in (CONV_NAME, DENSE_NAME)]
    if not (its["concerned"] and is_audited(run)):
        return its
    audit = Audit(run)
    rows = ratio_rows(audit)
    return its | {
        "audit": audit,
        "audited": (audited := audit.claims()),
        "rarer": {c.claim.claim: _rarer(c) for c in audited if c.depends_on},
        "time_ratio": REPORT_TIME_RATIO,
        "likely": audit.likely(),
        "effects": audit.effects(),
        "lacks": lacks(audit),
        "default": DEFAULT,
        "images": IMAGES,
        "known": (known := rows.dropna(subset="mean")),
        "ends": [
            f"{kind} {phrases.digits(its.min())} to {phrases.digits(its.max())}"
            for kind, its in known.groupby("kind", sort=False)["mean"]
        ],
        "n_readings": rows["label"].nunique(),
        "drawing": draw(rows) if rows["mean"].notna().any() else None,
    }


def files(run: Run) -> dict[str, bytes]:
    """audit.csv, of an audit."""
    audited = concerns_report(run) and is_audited(run)
    return {CSV_FILE: csv(Audit(run).claims()).encode()} if audited else {}


def _open(run: Run, p: schema.Hyperparameter) -> tuple[str, str, str]:
    """The reference's values of something that is left open, and the others that were trained."""
    its = {s.value(p.name) for s in run.reference if s.model in p.models}
    tried = []
    for model in p.models:
        for group in (schema.READING, schema.NEIGHBOUR):
            settings = [s for s in run.of(group, model) if schema.COMPLETED in s.states]
            if others := {s.value(p.name) for s in settings} - its:
                tried.append(f"{model}, {group} trials: {phrases.values_of(pd.Series([*others]))}")
    what = phrases.sentence_case(phrases.open_label(p.name))
    return what, phrases.values_of(pd.Series([*its])) or phrases.NO_VALUE, "; ".join(tried)


def lacks(audit: Audit) -> list[str]:
    """What the audit lacks, a sentence an architecture; none if it lacks nothing."""
    coverage = audit.coverage()
    most = max(n for of in coverage.values() for n in of.n.values())
    sentences = ["Every reading has one seed: no interval."] if most == 1 else []
    for name, (n, lost) in coverage.items():
        said = [
            f"{f'n = {its} of {most}' if its else 'no completed trial'} with {reading}"
            for reading, its in n.items()
            if its < most
        ]
        if not any(n.values()):
            said = ["no completed trial under any reading"]
        said += [f"{k} {phrases.state_words(state)}, in no number" for state, k in lost.items()]
        if said:
            sentences.append(f"{name}: {'; '.join(said)}.")
    return sentences


def _rarer(audited: AuditedClaim) -> tuple[str, str, str]:
    """Of a verdict that depends: the rarer one, the readings that have it, and the other one."""
    fewer, more = sorted((REPRODUCED, NOT_REPRODUCED), key=lambda v: len(audited.under(v)))
    cells = [{n: r[n] for n in audited.depends_on[0]} for r in audited.under(fewer)]
    return fewer, " / ".join(dict.fromkeys(map(phrases.reading_words, cells))), more


def ratio_rows(audit: Audit) -> pd.DataFrame:
    """Conv ÷ dense-512, a row a reading and set of images, those without a ratio as well.

    Returns:
        Columns label (the open values), kind (the images), mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading in readings_of(*schema.MODELS):
        label = ", ".join(map(str, reading.values()))
        for metric, pair in audit.ratios(reading).items():
            measured = (pair.mean, pair.low, pair.high, pair.n) if pair else (None, None, None, 0)
            rows.append((label, f"{IMAGES[metric]} set", *measured))
    columns = ["label", "kind", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def draw(rows: pd.DataFrame) -> plots.Drawing:
    """The ratio under each reading on a log axis, beside the lines 1 and 0.5."""
    labels = list(dict.fromkeys(rows["label"]))
    figure, ax = plots.new_figure(1.3 + ROW_INCHES * len(labels))
    part = len(labels) // len(next(iter(schema.OPEN_VALUES.values())))
    breaks = range(part, len(labels), part)  # between the values of the first
    points = plots.forest(ax, rows, LOOKS, always=(1.0, REPORT_MSE_RATIO), breaks=breaks)
    plots.line_at(ax.axvline, REPORT_MSE_RATIO)
    for place, words in ((1.0, "equal "), (REPORT_MSE_RATIO, "the report ")):
        plots.note(ax, place, 1.0, words, ax.get_xaxis_transform())
    absent = rows.groupby("label", sort=False)["mean"].count() == 0
    for row in [labels.index(label) for label in absent.index[absent]]:
        words = "no completed pair of trials "
        plots.note(ax, 1.0, row, words, ax.get_yaxis_transform(), va="center")
    ax.set_xlabel(f"MSE, {RATIO_NAME}, log axis")
    ax.set_ylabel(phrases.sentence_case(", ".join(map(phrases.open_label, schema.OPEN_VALUES))))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return plots.Drawing(FIGURE, figure, points, by="point")
