"""What the report leaves open: its contradictions, what it omits, and what depends on it."""

from collections.abc import Sequence
from typing import Final

import pandas as pd

from analysis import figures
from analysis.chapters import likely, parts
from analysis.chapters.audit import (
    RULE,
    AuditedClaim,
    audit_claims,
    audited_trials,
    coverage,
    coverage_sentences,
    csv,
    is_audited,
    overall_table,
)
from analysis.chapters.claims import concerns_report
from analysis.chapters.likely import effect_table, effects, likely_reading, likely_sentences
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    names,
)
from analysis.words import (
    open_label,
    sentence_case,
    values_of,
)
from study.folder import schema

CSV_FILE: Final = "audit.csv"
TITLE: Final = "What the report leaves open"
# Where the report contradicts itself.
CONTRADICTIONS: Final = parts.Table(
    ("What", "The report", "Read as"),
    (
        ("Encoder, third convolution", "16 filters, but a 4×4×8 latent", "8 filters"),
        (
            "Decoder, third convolution",
            "“same” padding, which would give 32×32 images",
            "“valid” padding: 16×16 → 14×14 → 28×28",
        ),
    ),
)


def open_table(trials: pd.DataFrame, reference: pd.DataFrame) -> parts.Table:
    """What the report leaves open, what the reference trials have, and what else was trained."""

    def others(name: str) -> str:
        tried = []
        for model in schema.BY_NAME[name].models:
            its = trials[(trials["model"] == model) & (trials["state"] == schema.COMPLETED)]
            rest = its[~its[name].isin(reference[name].dropna())]
            tried += [
                f"{model}, {group} trials: {values}"
                for group in (schema.READING, schema.NEIGHBOUR)
                if (values := values_of(rest.loc[rest["group"] == group, name]))
            ]
        return "; ".join(tried) or "not tested"

    rows = [
        (
            sentence_case(open_label(p.name)),
            values_of(reference.loc[reference["model"].isin(p.models), p.name]) or parts.NO_VALUE,
            others(p.name),
        )
        for p in schema.HYPERPARAMETERS
        if not p.stated
    ]
    sizes = [name for name in names(reference) if name not in (CONV_NAME, DENSE_NAME)]
    return parts.Table(
        ("Left open", "In this run's reference trials", "Other values trained"),
        [
            *rows,
            ("Dense output activation", "sigmoid", "not tested"),
            ("The other dense sizes", ", ".join(sizes) or parts.NO_VALUE, "see the claims"),
            ("Initialisation", "Keras defaults: Glorot uniform, zero bias", "not tested"),
            ("Decoder, third convolution", "“valid” padding", "“same” gives no 28×28"),
        ],
    )


def chapter(run: Run) -> parts.Chapter:
    """The claims under every reading, of a run that trained them, and what is left open."""
    if not concerns_report(run):
        return parts.Chapter("readings", TITLE)
    content: list[parts.Part] = []
    gaps = [
        "No trials under other readings of what the report leaves open (preset “audit”): whether"
        " the claims depend on them is not known."
    ]
    files: dict[str, bytes] = {}
    if is_audited(run.manifest, run.trials):
        audited = audited_trials(run.trials)
        claims = audit_claims(audited, run.epochs)
        lacks = coverage_sentences(coverage(run.trials, audited))
        gaps = ["The audit is not whole: " + " ".join(lacks)] if lacks else []
        content = _audit(run, audited, claims, lacks)
        files = {CSV_FILE: csv(claims).encode()}
    content += [
        parts.Heading("Where the report contradicts itself"),
        CONTRADICTIONS,
        parts.Heading("What it does not state"),
        open_table(run.trials, run.reference),
    ]
    return parts.Chapter("readings", TITLE, content, gaps, files)


def _audit(
    run: Run, audited: pd.DataFrame, claims: Sequence[AuditedClaim], lacks: Sequence[str]
) -> list[parts.Part]:
    sentences = likely_sentences(likely_reading(audited), audited, claims)
    with figures.style():
        figure = likely.draw(run, audited)
    missing: list[parts.Part] = (
        [parts.Heading("What the audit lacks"), parts.Items(lacks)] if lacks else []
    )
    return [
        parts.Heading("The claims under every reading"),
        overall_table(claims),
        parts.Text(RULE, soft=True),
        *([figure] if figure is not None else []),
        parts.Heading("Which reading the report most likely used"),
        parts.Text(" ".join(sentences)),
        parts.Heading("What each open value does"),
        parts.Text("One value changed at a time, the others at this project's default.", soft=True),
        effect_table(effects(audited)),
        *missing,
        parts.Text(f"Every claim under every reading is in {CSV_FILE}.", soft=True),
    ]
