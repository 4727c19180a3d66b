"""The page's table of all trials, and the script that sorts it.

Without the script it is a plain table. Cells carry the value that they sort by where it is not
what they show.
"""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any, Final

import pandas as pd

from analysis import statistics
from analysis.page.markup import details, soft
from analysis.words import count, digits, factor_value, parameter_label
from study.folder import schema

OPEN_AT_MOST: Final = 100  # trials; a longer table is folded away
NO_VALUE: Final = "–"
SETTING: Final = tuple(
    column for column in schema.CONFIG_COLUMNS if column not in ("model", "hidden_units", "seed")
)
MEASURED: Final[Mapping[str, str]] = {
    schema.TRAIN_MSE: "Train MSE",
    schema.VAL_MSE: "Val. MSE",
    schema.TEST_MSE: "Test MSE",
    "train_seconds": "Train s",
    "wall_seconds": "Wall s",
}

# Rows without a value come last in both directions; equal ones keep their order.
SORT_SCRIPT: Final = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const collator = new Intl.Collator("en", { numeric: true });
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const known = [], missing = [];
      for (const row of body.rows) {
        const cell = row.cells[column];
        const shown = cell.textContent;
        (shown === "–" ? missing : known).push({ row, value: cell.dataset.v ?? shown });
      }
      const numbers = known.every(({ value }) => value !== "" && Number.isFinite(Number(value)));
      known.sort((a, b) => sign * (numbers ? a.value - b.value
        : collator.compare(a.value, b.value)));
      const sorted = document.createDocumentFragment();
      for (const { row } of [...known, ...missing]) sorted.append(row);
      body.append(sorted);
    });
  });
}
"""
# What a browser may run on the page: this script and nothing else.
SORT_SCRIPT_HASH: Final = (
    f"sha256-{base64.b64encode(hashlib.sha256(SORT_SCRIPT.encode()).digest()).decode()}"
)


def trials_table(trials: pd.DataFrame) -> str:
    """All trials, a row each; folded away if they are many. What they share is said above.

    Args:
        trials: of `analysis.load.load_run`.
    """
    if trials.empty:
        return "<p>No trials.</p>"
    varied = [column for column in SETTING if trials[column].nunique() > 1]
    shared = [
        f"{parameter_label(column).lower()} {factor_value(trials[column].dropna().iloc[0])}"
        for column in SETTING
        if column not in varied and trials[column].notna().any()
    ]
    content = soft(f"The same in all trials that have it: {', '.join(shared)}.") if shared else ""
    columns = {
        "trial_id": "Trial",
        "state": "State",
        **{name: label for name, label in MEASURED.items() if trials[name].notna().any()},
        "epochs_completed": "Epochs done",
        "group": "Group",
        "architecture": "Model",
        "seed": "Seed",
        **{name: parameter_label(name) for name in varied},
    }
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in columns.values())
    # A cell needs no end tag; thousands of trials have tens of thousands of cells.
    named = trials.assign(
        architecture=[statistics.architecture(row) for _, row in trials.iterrows()]
    )
    rows = "".join(
        "<tr>" + "".join(_cell(row[column], column) for column in columns) + "\n"
        for _, row in named.iterrows()
    )
    content += (
        '<div class="scroll" tabindex="0" role="region" aria-label="All trials">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
        "</div>"
    )
    summary = f"All {count(len(trials), 'trial')}"
    if len(trials) <= OPEN_AT_MOST:
        return f"<h3>{summary}</h3>{content}"
    return details(f"{summary} (the same as in {schema.TRIALS_CSV_FILE})", content)


def _cell(value: Any, column: str) -> str:
    if column == "trial_id":
        return f'<th scope="row">{escape(value)}</th>'
    if pd.isna(value):
        return f"<td>{NO_VALUE}"
    if column in MEASURED:
        return f"<td data-v={value:.7g}>{digits(value)}"
    return f"<td>{escape(factor_value(value))}"
