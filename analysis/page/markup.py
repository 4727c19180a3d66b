"""Pieces of the report's page: its style sheet, sections, tables and figures as HTML.

Whatever text they are given is escaped.
"""

import colorsys
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from analysis.drawings import Drawing
from study.folder import schema

TRIAL_ID: Final = re.compile(rf"\b(?:{'|'.join(schema.GROUPS)})-(?:conv|dense)[\w=.+-]*\w")

DARK_GROUND: Final = 0.13  # the lightness of --card in the dark scheme

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
p, ul { max-width: 46rem; overflow-wrap: break-word; }
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
.verdict, .name, .trial { white-space: nowrap; }
.figures { display: grid; gap: 1.2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
.figures + .figures { margin-top: 1.2rem; }
figure { margin: 0; padding: .8rem; background: var(--card); border-radius: 6px;
  border: 1px solid var(--line); break-inside: avoid; }
figure svg { fill: var(--ink-000000, #000); display: block; width: 100%; height: auto;
  max-width: 36rem; margin: 0 auto; }
figcaption { font-size: .85rem; line-height: 1.4; margin-top: .5rem; }
figcaption span { color: var(--soft); }
figcaption .report { display: block; margin: .3rem 0; font-weight: 400; padding-left: .6rem;
  border-left: 3px solid #c2185b; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; color: var(--accent); }
.scroll { overflow: auto; max-height: 75vh; background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; }
.scroll:focus-visible, button:focus-visible, summary:focus-visible {
  outline: 2px solid var(--accent); outline-offset: -2px; }
.scroll table { font-size: .8rem; }
.scroll th, .scroll td { padding: .25rem .7rem; white-space: nowrap; }
.scroll tbody th { font-weight: 400; white-space: normal; min-width: min(17rem, 40vw);
  overflow-wrap: anywhere; }
.scroll thead th { position: sticky; top: 0; background: var(--card);
  box-shadow: 0 1px var(--line); }
.number { text-align: right; }
th button { all: unset; cursor: pointer; }
th button::after { content: " ↕"; }
th[aria-sort=ascending] button::after { content: " ↑"; color: var(--accent); }
th[aria-sort=descending] button::after { content: " ↓"; color: var(--accent); }
@media (max-width: 44rem) {
  .stacked thead { display: none; }
  .stacked tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .stacked th, .stacked td { display: block; border: 0; padding: .1rem 0;
    overflow-wrap: anywhere; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff;
  --accent: #0b4a7f; }
  body { max-width: none; padding: 0; background: #fff; color: #000; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } figure { border: 0; }
  .scroll { max-height: none; overflow: visible; border: 0; } .scroll table { font-size: .5rem; }
  .scroll th, .scroll td { padding: .1rem .25rem .1rem 0; white-space: normal; }
  .scroll tbody th { min-width: 16em; } .scroll thead th { position: static; box-shadow: none; }
  th button::after { content: none !important; }
  figure svg { max-width: 25rem; } }
"""


def dark_inks(page: str) -> str:
    """The style sheet that gives the figures of a page their colors in the dark scheme.

    Each keeps its hue; its lightness is turned round, so that white is the dark card they lie on.
    """
    inks = ["--ink-ffffff: var(--card);"]
    for ink in sorted(set(re.findall(r"var\(--ink-([0-9a-f]{6})", page)) - {"ffffff"}):
        red, green, blue = (int(ink[i : i + 2], 16) / 255 for i in (0, 2, 4))
        hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
        lightness = 1 - lightness * (1 - DARK_GROUND)
        turned = colorsys.hls_to_rgb(hue, lightness, saturation)
        inks.append(
            f"--ink-{ink}: #" + "".join(f"{round(255 * part):02x}" for part in turned) + ";"
        )
    return f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {' '.join(inks)} }} }}\n"


def section(title: str, content: str) -> str:
    """A section with its heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def soft(text: str) -> str:
    """A paragraph that explains."""
    return f'<p class="soft">{escape(text)}</p>'


def items(sentences: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def details(summary: str, *content: str) -> str:
    """Content that is folded away until asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{''.join(content)}\n</details>"


def table(rows: Sequence[Sequence[str]]) -> str:
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
    return f'<table class="stacked">{head}<tbody>{"".join(lines)}</tbody></table>'


def _unbroken(text: str) -> str:
    """Keeps n, percentages, names of models and trial ids on one line."""
    text = text.replace("n = ", "n&nbsp;=&nbsp;").replace("95 %", "95&nbsp;%")
    text = re.sub(r"(?<![\w-])dense-\d+", r'<span class="name">\g<0></span>', text)
    return TRIAL_ID.sub(r'<span class="trial">\g<0></span>', text)


def _cell_attributes(label: str) -> str:
    style = ' class="verdict"' if label == "Verdict" else ""
    return f'{style} data-label="{escape(label)}"' if label else style


def cards(drawings: Sequence[Drawing]) -> str:
    """Figures with their captions, side by side where there is room; nothing for none."""
    if not drawings:
        return ""
    figures = "\n".join(
        f"<figure>\n{drawing.inline_svg}\n<figcaption><b>{escape(drawing.title)}.</b>"
        f" {escape(drawing.alt)}{_beside(drawing.report)} <span>{escape(drawing.note)}</span>"
        "</figcaption>\n</figure>"
        for drawing in drawings
    )
    return f'<div class="figures">\n{figures}\n</div>'


def _beside(report: str) -> str:
    return f' <b class="report">The report: {escape(report)}</b>' if report else ""
