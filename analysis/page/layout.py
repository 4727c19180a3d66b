"""The report's page: HTML with its style sheet and figures inside, which asks for nothing else.

`analysis.page.tables` says what is in each table; this module lays the sections out. Those on the
search are in `analysis.search.section`, that of the audit in `analysis.audit.section`.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import pandas as pd

from analysis import figures, statistics
from analysis.audit.section import TITLE as AUDIT_TITLE
from analysis.audit.section import AuditReport
from analysis.claims import REPORT_EPOCHS, Claim
from analysis.drawings import Drawing
from analysis.page import tables
from analysis.page.markup import STYLE_SHEET, cards, dark_inks, details, items, section, soft, table
from analysis.page.trials_table import SORT_SCRIPT, SORT_SCRIPT_HASH, trials_table
from analysis.search.section import search_gaps, search_section, sensitivity_section
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import count, readings, shell_line
from study.folder import schema

BAD_TRIALS_OPEN: Final = 20  # more of them are folded away
# What the page may load and run: nothing from elsewhere, and no script but its own.
CONTENT_POLICY: Final = (
    f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{SORT_SCRIPT_HASH}'"
)


def html_page(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    claims: Sequence[Claim],
    drawings: Sequence[Drawing],
    search_drawings: Sequence[Drawing],
    image_drawings: Sequence[Drawing],
    audited: AuditReport,
    note: str,
) -> str:
    """The report as one self-contained page.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
        reference: of `analysis.statistics.reference_trials`.
        claims: of `analysis.claims.judge_claims`.
        drawings: of `analysis.drawings.draw_reference`.
        search_drawings: of `analysis.search.drawings.draw_search`.
        image_drawings: of `analysis.image_drawings.draw_images`.
        audited: of `analysis.audit.section.audit_report`.
        note: what the final values rest on.
    """
    title = "Convolutional and dense autoencoders on MNIST"
    gaps = [*_gaps(manifest, trials, reference, drawings), *audited.gaps]
    sections = [
        f"<h1>{title}</h1>"
        f'<p class="soft">Study {escape(str(manifest["name"]))}: a reproduction of L. Biedma,'
        " <i>Redes Neuronales – Práctico 3</i>, 10 March 2021.</p>",
        section("What was run", table(tables.run_rows(manifest, trials))),
        section("Gaps", items(gaps)) if gaps else "",
        section(
            "The report's claims",
            table(tables.claim_rows(claims))
            + ("" if reference.empty else soft(readings(reference))),
        ),
        audited.section,
        section(
            "Figures",
            cards(drawings) or "<p>No figure: the run has no completed trials to draw.</p>",
        ),
        _reconstructions(image_drawings),
        section(
            "Final values",
            soft(
                f"Mean ± sample standard deviation over seeds; MSE in {figures.MSE_UNIT}. Ratios"
                " are geometric means paired by seed."
            )
            + table(tables.summary_rows(reference))
            + soft(note),
        ),
        search_section(manifest, trials, reference, search_drawings),
        sensitivity_section(trials, search_drawings),
        section("Readings of the report", _readings_of_the_report(trials, reference)),
        section("Trials", _states(trials) + trials_table(trials)),
        section("Run it again", _run_it_again(manifest)),
    ]
    body = "\n".join(filter(None, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}: {escape(str(manifest['name']))}</title>\n"
        f"<style>{STYLE_SHEET}{dark_inks(body)}</style>\n</head>\n<body>\n<main>\n{body}"
        f"\n</main>\n<script>{SORT_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _states(trials: pd.DataFrame) -> str:
    content = table(tables.state_rows(trials))
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    if bad.empty:
        return content + "<p>No trial failed or diverged.</p>"
    rows = table(tables.bad_rows(bad))
    if len(bad) > BAD_TRIALS_OPEN:
        return content + details(f"The {len(bad)} failed and diverged trials", rows)
    return content + "<h3>Failed and diverged trials</h3>" + rows


def _reconstructions(drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return ""
    return section("Reconstructions", cards(drawings))


def _run_it_again(manifest: Mapping[str, Any]) -> str:
    """The commands, from the sources to the study."""
    lines = ["make .venv", ". .venv/bin/activate", shell_line(manifest["command"])]
    if manifest["code"]["git_commit"]:
        lines.insert(0, f"git checkout {manifest['code']['git_commit']}")
    return (
        f"<pre>{escape(chr(10).join(lines))}</pre><p>{escape(tables.code_version(manifest))} In a"
        " clone of the project; the last line is the command as it was given. A study never"
        " overwrites a folder: where there is one of its name, give another --name.</p>"
    )


def _readings_of_the_report(trials: pd.DataFrame, reference: pd.DataFrame) -> str:
    return (
        "<h3>Where the report contradicts itself</h3>"
        + table(tables.CONTRADICTIONS)
        + "<h3>What the report leaves open</h3>"
        + table(tables.open_rows(trials, reference))
        + soft(
            "The claims may hold under some of these readings and fail under others. The effect of"
            f" other values is in “{AUDIT_TITLE}” (reading trials) and in “Sensitivity”"
            " (neighbour trials), where the run has them."
        )
    )


def _gaps(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    drawings: Sequence[Drawing],
) -> list[str]:
    """What this run cannot show, in sentences."""
    gaps = []
    if manifest["status"] != "finished":
        gaps.append(f"The study's status is “{manifest['status']}”: its tables may not be whole.")
    names = statistics.names(reference)
    gaps += [
        f"No completed reference trial of {name}: nothing here compares the report's two models."
        for name in (CONV_NAME, DENSE_NAME)
        if name not in names
    ]
    if not reference.empty:
        n_epochs = reference["epochs"].iloc[0]
        if n_epochs < REPORT_EPOCHS:
            gaps.append(
                f"Trained for {count(n_epochs, 'epoch')}; the report trained for"
                f" {REPORT_EPOCHS}, and its claims are about these."
            )
        if reference.groupby("name").size().min() == 1:
            gaps.append("A model with one seed has no interval: its spread is not known.")
    could_enter = trials[
        (trials["group"] == schema.REFERENCE) & (trials["state"] == schema.COMPLETED)
    ]
    n_left_out = len(could_enter) - len(reference)
    if n_left_out:
        gaps.append(
            f"{count(n_left_out, 'completed reference trial')} left out of the averages: another"
            " setting or split, no test MSE, or a seed twice."
        )
    for state in (schema.RUNNING, schema.FAILED, schema.DIVERGED):
        n = int((trials["state"] == state).sum())
        if n:
            what = "not ended" if state == schema.RUNNING else state
            gaps.append(f"{count(n, 'trial')} {what}: in no average.")
    gaps += search_gaps(trials)
    drawn = {drawing.name.split("-")[1] for drawing in drawings}
    if "1" not in drawn:
        gaps.append("Figure 1 is missing: no reconstructions of a reference conv trial.")
    missing = [number for number in "2345" if number not in drawn]
    if missing:
        gaps.append(f"No data for figure {', '.join(missing)}: its reference trials are missing.")
    return gaps
