"""The page's section on the audit: the claims under every reading of what the report leaves open.

`analysis.audit.tables` says what is in each table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analysis.audit import results, tables
from analysis.audit.drawings import draw_audit
from analysis.drawings import Drawing, side_by_side
from analysis.page.markup import cards, details, items, section, soft, table
from analysis.words import count, devices, readings, tensorflow

TITLE: Final = "The claims under every reading"
CSV_FILE: Final = "audit.csv"
MARKDOWN_FILE: Final = "audit.md"


@dataclass(frozen=True)
class AuditReport:
    """What the report has on the audit.

    Attributes:
        section: of the page; "" for a run without readings.
        gaps: what the audit lacks, in sentences.
        drawings: its figures.
        files: contents by name.
    """

    section: str
    gaps: Sequence[str]
    drawings: Sequence[Drawing]
    files: Mapping[str, bytes]


def audit_report(
    manifest: Mapping[str, Any], trials: pd.DataFrame, epochs: pd.DataFrame
) -> AuditReport:
    """The audit of a run, or the gap that there is none.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
        epochs: of `analysis.load.load_run`.
    """
    if not results.is_audited(manifest, trials):
        gap = (
            "No trials under other readings of what the report leaves open (preset “audit”):"
            " whether the claims depend on them is not known."
        )
        return AuditReport("", [gap], [], {})
    audited = results.audited_trials(trials)
    claims = results.audit_claims(audited, epochs)
    drawings = draw_audit(manifest, audited)
    gaps = tables.coverage_sentences(results.coverage(trials, audited))
    note = _note(manifest, audited)
    likely = tables.likely_sentences(results.likely_reading(audited), audited, claims)
    content = [
        table(tables.overall_rows(claims)),
        "<h3>Which reading the report most likely used</h3>",
        f"<p>{' '.join(likely)}</p>",
        cards(drawings),
        "<h3>What each open value does</h3>",
        soft("One value changed at a time, the others at this project's default; paired by seed."),
        table(tables.effect_rows(results.effects(audited))),
        "<h3>What the audit lacks</h3>" + items(gaps) if gaps else "",
        details(
            "Every claim under every reading",
            soft("Values with their 95 % intervals."),
            *map(table, tables.reading_tables(claims)),
        ),
        details(
            "The final values under every reading",
            soft("Mean ± sample standard deviation over seeds."),
            table(tables.value_rows(audited)),
        ),
        soft(tables.RULE),
        soft(note),
    ]
    markdown = tables.markdown(manifest, claims, audited, gaps, note)
    return AuditReport(
        section(TITLE, "\n".join(filter(None, content))),
        [f"The audit is not whole: see “{TITLE}”."] if gaps else [],
        drawings,
        {CSV_FILE: tables.csv(claims).encode(), MARKDOWN_FILE: markdown.encode()},
    )


def _note(manifest: Mapping[str, Any], audited: pd.DataFrame) -> str:
    """What the audit's numbers rest on."""
    if audited.empty:
        return "No completed trial under any reading."
    beside = side_by_side(manifest).removeprefix("; ")
    times = f"{beside[0].upper()}{beside[1:]}: times are not times alone." if beside else ""
    return (
        f"{count(len(audited), 'trial')} of {count(audited['epochs'].max(), 'epoch')}, all 60,000"
        f" training and 10,000 test images; {devices(audited)}; {tensorflow(manifest)}. {times}"
        f" {readings(audited)}"
    )
