"""What the report leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import phrases, plots
from analysis.audit import (
    Audit,
    AuditedClaim,
    Specification,
    csv,
    curve_csv,
    is_audited,
    readings_of,
)
from analysis.claims import (
    IMAGES,
    NOT_REPRODUCED,
    REPORT_MSE_RATIO,
    REPORT_TIME_RATIO,
    REPRODUCED,
    concerns_report,
)
from analysis.load import Run
from analysis.plots import Marks
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME
from analysis.specifications import SEEDS, by_value, rounded, shares
from study.folder import schema

FIGURE: Final = "figure-readings"
CSV_FILE: Final = "audit.csv"
CURVE_FILE: Final = "specifications.csv"
FILES: Final = (CSV_FILE, CURVE_FILE)  # that only an audit has
ROW_INCHES: Final = 0.16
LOOKS: Final[Mapping[str, plots.Look]] = {
    schema.TRAIN_MSE: plots.HOLLOW | {"color": plots.LIGHT, "marker": "s", "markersize": 5},
    schema.TEST_MSE: {"color": plots.DARK, "marker": "o", "markersize": 4.5},
}


def chapter(run: Run) -> dict[str, Any]:
    """The claims under every reading, of a run that trained them, and what is left open."""
    its: dict[str, Any] = {"concerned": concerns_report(run), "audit": None}
    its["open"] = [_open(run, p) for p in schema.HYPERPARAMETERS if not p.stated]
    its["sizes"] = [name for name in run.named if name not in (CONV_NAME, DENSE_NAME)]
    if not (its["concerned"] and is_audited(run)):
        return its
    audit = Audit(run)
    curve, cells = audit.curve(), audit.cells()
    ratios = [one.together.mean for one in curve]
    of = {m: [one.ratios[m].mean for one in curve] for m in IMAGES}
    return its | {
        "audit": audit,
        "audited": (audited := audit.claims()),
        "rarer": {c.claim.claim: _rarer(c) for c in audited if c.depends_on},
        "time_ratio": REPORT_TIME_RATIO,
        "curve": curve,
        "n_below": sum(ratio < 1 for ratio in ratios),
        "n_claimed": sum(ratio <= REPORT_MSE_RATIO for ratio in ratios),
        "median": float(np.median(ratios)) if ratios else None,
        "cells": cells,
        "shares": shares(cells),
        "by_value": by_value,
        "SEEDS": SEEDS,
        "rounded": [phrases.digits(end, 2) for end in rounded(REPORT_MSE_RATIO)],
        "lacks": lacks(audit),
        "ends": [
            f"{IMAGES[m]} set {phrases.digits(min(its))} to {phrases.digits(max(its))}"
            for m, its in of.items()
            if its
        ],
        "n_readings": len(readings_of(*schema.MODELS)),
        "drawing": draw(curve, schema.OPEN_VALUES) if curve else None,
    }


def files(run: Run) -> dict[str, bytes]:
    """audit.csv and specifications.csv, of an audit."""
    if not (concerns_report(run) and is_audited(run)):
        return {}
    audit = Audit(run)
    tables = {CSV_FILE: csv(audit.claims()), CURVE_FILE: curve_csv(audit.curve())}
    return {name: table.encode() for name, table in tables.items()}


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


def draw(curve: Sequence[Specification], factors: Mapping[str, Sequence[Any]]) -> plots.Drawing:
    """The ratio under each reading, the least first, and below it which values each has.

    A specification curve (U. Simonsohn, J. P. Simmons, L. D. Nelson, Nature Human Behaviour 4,
    2020).
    """
    rows = [(name, value) for name, values in factors.items() for value in values]
    figure = plots.empty_figure(3.2 + ROW_INCHES * len(rows))
    heights = {"height_ratios": [2.6, ROW_INCHES * len(rows)]}
    ax, below = figure.subplots(2, 1, sharex=True, gridspec_kw=heights)
    some = []
    for metric, look in LOOKS.items():
        pairs = [one.ratios[metric] for one in curve]
        texts = [
            f"{phrases.reading_words(one.reading)}: {IMAGES[metric]} set {phrases.interval(pair)}"
            for one, pair in zip(curve, pairs, strict=True)
        ]
        values = [pair.mean for pair in pairs]
        some.append(Marks(look, range(len(curve)), values, f"{IMAGES[metric]} set", texts))
    tested = [one.ratios[schema.TEST_MSE] for one in curve]
    ends = [pair.lowest for pair in tested], [pair.highest for pair in tested]
    ax.vlines(range(len(curve)), *ends, color=plots.DARK, linewidth=1.4)
    points = plots.marks(ax, some)
    ax.axhline(1, color="#444444", linewidth=1)
    plots.line_at(ax.axhline, REPORT_MSE_RATIO)
    for place, words in ((1.0, "equal "), (REPORT_MSE_RATIO, "the report ")):
        plots.note(ax, 1.0, place, words, ax.get_yaxis_transform())
    means = [1.0, REPORT_MSE_RATIO, *(pair.mean for one in curve for pair in one.ratios.values())]
    # An interval from two seeds may be so wide that nothing else would be seen.
    margin = 4.0
    low, high = max(min(ends[0]), min(means) / margin), min(max(ends[1]), max(means) * margin)
    ax.set_ylim(min(low, *means) / 1.1, max(high, *means) * 1.1)
    plots.log_axis(ax.yaxis)
    ax.set_ylabel(f"MSE, {RATIO_NAME}, log axis")
    plots.legend_above(ax)
    dot = {"color": plots.DARK, "marker": "o", "markersize": 4}
    for x, one in enumerate(curve):
        chosen = [y for y, (name, value) in enumerate(rows) if one.reading[name] == value]
        plots.marks(below, [Marks(dot, [x] * len(chosen), chosen)])
    breaks = [y for y in range(1, len(rows)) if rows[y][0] != rows[y - 1][0]]
    plots.rows_axis(
        below, [phrases.reading_words({name: value}) for name, value in rows], breaks=breaks
    )
    below.tick_params(labelsize=plots.SMALL_POINTS)
    below.set_xticks([])
    below.set_xlabel(f"{phrases.count(len(curve), 'reading')}, by the ratio on the test set")
    return plots.Drawing(FIGURE, figure, points, by="point")
