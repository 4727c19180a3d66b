"""The report's page: HTML with its style sheet and figures inside, which asks for nothing else.

`analysis.tables` says what is in each table; this module lays the sections out.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import pandas as pd

from analysis import figures, statistics, tables
from analysis.claims import REPORT_EPOCHS, Claim
from analysis.drawings import Drawing
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import count, readings
from study import schema

N_BEST: Final = 3  # search trials shown of each model

STYLE_SHEET: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #59636e; --line: #d5dae0;
  --page: #fbfbfa; --card: #fff; --accent: #0b4a7f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e8eb; --soft: #a3adb8; --line: #39424c;
  --page: #14181c; --card: #1c2228; --accent: #7fb8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem; color: var(--ink);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem;
  border-bottom: 2px solid var(--accent); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { max-width: 46rem; }
ul { padding-left: 1.2rem; }
.soft { color: var(--soft); }
pre { overflow-x: auto; padding: .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
.verdict { font-weight: 700; }
.verdict, .name { white-space: nowrap; }
.figures { display: grid; gap: 1.2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; padding: .8rem; background: #fff; color: #1d2329; border-radius: 6px;
  border: 1px solid var(--line); break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
figcaption { font-size: .85rem; line-height: 1.4; margin-top: .5rem; }
figcaption span { color: #59636e; }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  th, td { display: block; border: 0; padding: .1rem 0; overflow-wrap: anywhere; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff;
  --accent: #0b4a7f; }
  body { max-width: none; padding: 0; background: #fff; color: #000; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } figure { border: 0; }
  figure svg { max-width: 25rem; } }
"""


def html_page(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    claims: Sequence[Claim],
    drawings: Sequence[Drawing],
    note: str,
) -> str:
    """The report as one self-contained page.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
        reference: of `analysis.statistics.reference_trials`.
        claims: of `analysis.claims.judge_claims`.
        drawings: of `analysis.drawings.draw_all`.
        note: what the final values rest on.
    """
    title = "Convolutional and dense autoencoders on MNIST"
    gaps = _gaps(manifest, trials, reference, drawings)
    sections = [
        f"<h1>{title}</h1>"
        f'<p class="soft">Study {escape(str(manifest["name"]))}: a reproduction of L. Biedma,'
        " <i>Redes Neuronales – Práctico 3</i>, 10 March 2021.</p>",
        _section("What was run", _table(tables.run_rows(manifest, trials))),
        _section("Gaps", _items(gaps)) if gaps else "",
        _section(
            "The report's claims",
            _table(tables.claim_rows(claims))
            + ("" if reference.empty else _soft(readings(reference))),
        ),
        _section("Figures", _figures(drawings)),
        _section(
            "Final values",
            _soft(
                f"Mean ± sample standard deviation over seeds; MSE in {figures.MSE_UNIT}. Ratios"
                " are geometric means paired by seed."
            )
            + _table(tables.summary_rows(reference))
            + _soft(note),
        ),
        _search_section(trials, reference),
        _section("Trials", _states(trials)),
        _section("Readings of the report", _readings_of_the_report(reference)),
        _section(
            "Run it again",
            f"<pre>{escape(shlex.join(manifest['command']))}</pre><p>{escape(tables.code_version(manifest))}</p>",
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: {escape(str(manifest['name']))}</title>\n"
        f"<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _soft(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def _items(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table: its first row is the header (left out if blank), first cells are row headers."""
    header, *body = rows
    lines = []
    for first, *rest in body:
        cells = "".join(
            f"<td{_cell_attributes(label)}>{_unbroken(escape(cell))}</td>"
            for label, cell in zip(header[1:], rest, strict=True)
        )
        lines.append(f'<tr><th scope="row">{_unbroken(escape(first))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def _unbroken(text: str) -> str:
    """Keeps n, percentages and names of models on one line."""
    text = text.replace("n = ", "n&nbsp;=&nbsp;").replace("95 %", "95&nbsp;%")
    return re.sub(r"\bdense-\d+", r'<span class="name">\g<0></span>', text)


def _cell_attributes(label: str) -> str:
    style = ' class="verdict"' if label == "Verdict" else ""
    return f'{style} data-label="{escape(label)}"' if label else style


def _figures(drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return "<p>No figure: the run has no completed trials to draw.</p>"
    cards = "\n".join(
        f"<figure>\n{drawing.inline_svg}\n<figcaption><b>{escape(drawing.title)}.</b>"
        f" {escape(drawing.alt)} <span>{escape(drawing.note)}</span></figcaption>\n</figure>"
        for drawing in drawings
    )
    return f'<div class="figures">\n{cards}\n</div>'


def _search_section(trials: pd.DataFrame, reference: pd.DataFrame) -> str:
    best = statistics.best_search_trials(trials, N_BEST)
    winners = statistics.winner_trials(trials)
    content = ""
    if not best.empty:
        content += _soft(
            f"The best {N_BEST} completed trials of each model by validation MSE; one seed each, so"
            " without spread."
        ) + _table(tables.search_rows(best))
    if not winners.empty:
        content += (
            "<h3>Winners</h3>"
            + _table(tables.winner_rows(winners, reference))
            + _soft(tables.winner_note(winners, reference))
        )
    return _section("Search: best trials", content) if content else ""


def _states(trials: pd.DataFrame) -> str:
    content = _table(tables.state_rows(trials))
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    if bad.empty:
        return content + "<p>No trial failed or diverged.</p>"
    return content + "<h3>Failed and diverged trials</h3>" + _table(tables.bad_rows(bad))


def _readings_of_the_report(reference: pd.DataFrame) -> str:
    return (
        "<h3>Where the report contradicts itself</h3>"
        + _table(tables.CONTRADICTIONS)
        + "<h3>What the report does not state</h3>"
        + _table(tables.open_rows(reference))
        + "<p>The claims may hold under some of these readings and fail under others.</p>"
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
    if (trials["group"] != schema.SEARCH).all():
        gaps.append("No search trials in this run.")
    drawn = {drawing.name.split("-")[1] for drawing in drawings}
    if "1" not in drawn:
        gaps.append("Figure 1 is missing: no reconstructions of a reference conv trial.")
    missing = [number for number in "2345" if number not in drawn]
    if missing:
        gaps.append(f"No data for figure {', '.join(missing)}: its reference trials are missing.")
    return gaps
