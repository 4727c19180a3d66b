"""What the paper leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import phrases, plots, specifications
from analysis.audit import Audit, AuditedClaim, audit_of, csv, curve_csv
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, concerns_paper
from analysis.load import Run
from analysis.plots import Marks
from study.folder import schema
from study.folder.paper import Paper

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
    paper = run.paper
    if paper is None or not concerns_paper(run):
        return {"paper": None}
    its: dict[str, Any] = {
        "paper": paper,
        "audit": None,
        "open": [_open(run, paper, name) for name in phrases.open_names(paper)],
        "sizes": [name for name in run.named if name not in run.pair],
    }
    audit = audit_of(run)
    if audit is None:
        return its
    curve, cells, claimed = audit.curve, audit.cells(), paper.headline
    ratios = [one.together.mean for one in curve]
    of = {m: [one.ratios[m].mean for one in curve if m in one.ratios] for m in IMAGES}
    return its | {
        "audit": audit,
        "rarer": {c.claim.says: _rarer(c) for c in audit.claims if c.depends_on},
        "n_below": sum(ratio < 1 for ratio in ratios),
        "n_claimed": sum(ratio <= claimed.value for ratio in ratios) if claimed else 0,
        "median": float(np.median(ratios)) if ratios else None,
        "cells": cells,
        "shares": specifications.shares(cells),
        "by": specifications,
        "images": IMAGES,
        "lacks": lacks(audit),
        "ends": [
            f"{IMAGES[m]} set {phrases.digits(min(its))} to {phrases.digits(max(its))}"
            for m, its in of.items()
            if its
        ],
        "n_readings": len(audit.compared),
        "drawing": draw(audit, run.ratio_name) if curve else None,
    }


def files(run: Run) -> dict[str, bytes]:
    """audit.csv and specifications.csv, of an audit."""
    if not concerns_paper(run) or (audit := audit_of(run)) is None:
        return {}
    tables = {CSV_FILE: csv(audit.claims, audit.factors)}
    tables[CURVE_FILE] = curve_csv(audit.curve, audit.metric)
    return {name: table.encode() for name, table in tables.items()}


def _open(run: Run, paper: Paper, name: str) -> tuple[str, str, str]:
    """The reference's values of something that is left open, and the others that were trained."""
    models = [one.model for one in paper.open if name in dict(one.values)]
    its = {s.value(name) for s in run.reference if s.model in models}
    tried = []
    for model in models:
        for group in (schema.READING, schema.NEIGHBOUR):
            settings = [s for s in run.of(group, model) if schema.COMPLETED in s.states]
            if others := {s.value(name) for s in settings} - its:
                tried.append(f"{model}, {group} trials: {phrases.values_of(pd.Series([*others]))}")
    what = phrases.sentence_case(phrases.open_label(name))
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


def draw(audit: Audit, ratio_name: str) -> plots.Drawing:
    """The ratio under each reading, the least first, and below it which values each has.

    A specification curve (U. Simonsohn, J. P. Simmons, L. D. Nelson, Nature Human Behaviour 4,
    2020).
    """
    curve = audit.curve
    rows = [(name, value) for name in curve[0].reading for value in audit.factors[name]]
    figure = plots.empty_figure(3.2 + ROW_INCHES * len(rows))
    heights = {"height_ratios": [2.6, ROW_INCHES * len(rows)]}
    ax, below = figure.subplots(2, 1, sharex=True, gridspec_kw=heights)
    some = []
    for metric, look in LOOKS.items():
        # An MSE of exactly 0 has no ratio.
        pairs = {x: one.ratios[metric] for x, one in enumerate(curve) if metric in one.ratios}
        texts = [
            f"{phrases.reading_words(curve[x].reading)}: {IMAGES[metric]} set"
            f" {phrases.interval(pair)}"
            for x, pair in pairs.items()
        ]
        values = [pair.mean for pair in pairs.values()]
        some.append(Marks(look, list(pairs), values, f"{IMAGES[metric]} set", texts))
    tested = [one.ratios[audit.metric] for one in curve]
    ends = [pair.lowest for pair in tested], [pair.highest for pair in tested]
    ax.vlines(range(len(curve)), *ends, color=plots.DARK, linewidth=1.4)
    points = plots.marks(ax, some)
    marked = {one.value: audit.paper.called for one in audit.paper.numbers.values()}
    plots.mark_ratios(ax, marked)
    means = [1.0, *marked, *(pair.mean for one in curve for pair in one.ratios.values())]
    low, high = plots.room_for(means, *ends)
    ax.set_ylim(low / 1.1, high * 1.1)
    plots.log_axis(ax.yaxis, f"MSE, {ratio_name}")
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
    below.set_xlabel(
        f"{phrases.count(len(curve), 'reading')}, by the ratio on the {IMAGES[audit.metric]} set"
    )
    return plots.Drawing(FIGURE, figure, points, by="point")
