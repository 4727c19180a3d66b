"""What the paper leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from analysis import phrases, plots
from analysis.audit import Audit, AuditedClaim, csv, is_audited
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, concerns_paper
from analysis.load import Run
from study.folder import schema
from study.folder.paper import Paper

FIGURE: Final = "figure-readings"
CSV_FILE: Final = "audit.csv"
ROW_INCHES: Final = 0.3
LOOKS: Final[Mapping[str, plots.Look]] = {
    "training set": {"color": plots.DARK, "marker": "o", "markersize": 5},
    "test set": {"color": plots.LIGHT, "marker": "s", "markersize": 4.5},
}


def chapter(run: Run) -> dict[str, Any]:
    """The claims under every reading, of a run that trained them, and what is left open."""
    paper = run.paper
    if paper is None or not concerns_paper(run):
        return {"paper": None}
    its: dict[str, Any] = {"paper": paper, "audit": None, "pair": run.pair}
    its["ratio_name"] = run.ratio_name
    its["open"] = [_open(run, paper, name) for name in phrases.open_names(paper)]
    its["sizes"] = [name for name in run.named if name not in run.pair]
    if not is_audited(run):
        return its
    audit = Audit(run)
    rows = ratio_rows(audit)
    return its | {
        "audit": audit,
        "audited": (audited := audit.claims()),
        "rarer": {c.claim.says: _rarer(c) for c in audited if c.depends_on},
        "likely": audit.likely(),
        "effects": audit.effects(),
        "lacks": lacks(audit),
        "default": audit.default,
        "images": IMAGES,
        "known": (known := rows.dropna(subset="mean")),
        "ends": [
            f"{kind} {phrases.digits(its.min())} to {phrases.digits(its.max())}"
            for kind, its in known.groupby("kind", sort=False)["mean"]
        ],
        "n_readings": rows["label"].nunique(),
        "drawing": draw(rows, audit, run.ratio_name) if len(known) else None,
    }


def files(run: Run) -> dict[str, bytes]:
    """audit.csv, of an audit."""
    if not (concerns_paper(run) and is_audited(run)):
        return {}
    audit = Audit(run)
    return {CSV_FILE: csv(audit.claims(), audit.factors).encode()}


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


def ratio_rows(audit: Audit) -> pd.DataFrame:
    """The ratio that is compared, a row a reading and set of images, also where there is none.

    Returns:
        Columns label (the open values), kind (the images), mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading in audit.compared:
        label = ", ".join(map(str, reading.values()))
        for metric, pair in audit.ratios(reading).items():
            measured = (pair.mean, pair.low, pair.high, pair.n) if pair else (None, None, None, 0)
            rows.append((label, f"{IMAGES[metric]} set", *measured))
    columns = ["label", "kind", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def draw(rows: pd.DataFrame, audit: Audit, ratio_name: str) -> plots.Drawing:
    """The ratio under each reading on a log axis, beside the lines 1 and the paper's number."""
    labels = list(dict.fromkeys(rows["label"]))
    figure, ax = plots.new_figure(1.3 + ROW_INCHES * len(labels))
    names = list(audit.compared[0])
    part = len(labels) // len(audit.factors[names[0]])
    marked = {claim.value: f"{audit.paper.called} " for claim in audit.paper.numbers.values()}
    breaks = range(part, len(labels), part)  # between the values of the first
    points = plots.forest(ax, rows, LOOKS, always=(1.0, *marked), breaks=breaks)
    for place in marked:
        plots.line_at(ax.axvline, place)
    for place, words in ({1.0: "equal "} | marked).items():
        plots.note(ax, place, 1.0, words, ax.get_xaxis_transform())
    absent = rows.groupby("label", sort=False)["mean"].count() == 0
    for row in [labels.index(label) for label in absent.index[absent]]:
        words = "no completed pair of trials "
        plots.note(ax, 1.0, row, words, ax.get_yaxis_transform(), va="center")
    ax.set_xlabel(f"MSE, {ratio_name}, log axis")
    ax.set_ylabel(phrases.sentence_case(", ".join(map(phrases.open_label, names))))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return plots.Drawing(FIGURE, figure, points, by="point")
