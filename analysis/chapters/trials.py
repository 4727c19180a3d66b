"""All trials: how they ended, what went wrong, and a table of every one."""

from typing import Any, Final

import pandas as pd

from analysis.chapters import parts
from analysis.load import Run
from analysis.statistics import architecture, with_names
from analysis.words import (
    arguments,
    count,
    digits,
    factor_value,
    parameter_label,
    setting,
    without_home,
)
from study.folder import schema

OPEN_AT_MOST: Final = 100  # trials; a longer table is folded away
BAD_OPEN: Final = 20  # likewise of those that failed or diverged
SETTING: Final = tuple(
    name
    for name in schema.CONFIG_COLUMNS
    if name not in ("model", "seed")
    and not (name in schema.BY_NAME and schema.BY_NAME[name].of_architecture)
)
MEASURED: Final = {
    schema.TRAIN_MSE: "Train MSE",
    schema.VAL_MSE: "Val. MSE",
    schema.TEST_MSE: "Test MSE",
    "train_seconds": "Train s",
    "n_sharing": "Trials at once",
    "wall_seconds": "Wall s",
}
FILTERED: Final = {"Group": "group", "Model": "name", "State": "state"}


def state_table(trials: pd.DataFrame) -> parts.Table:
    """How many trials of each group ended in each state."""
    counts = trials.groupby(["group", "state"]).size()
    states = [state for state in schema.STATES if (trials["state"] == state).any()]
    rows = [
        (group, *(str(counts.get((group, state), 0)) for state in states))
        for group in schema.GROUPS
        if (trials["group"] == group).any()
    ]
    return parts.Table(("Group", *states), rows, right=range(1, len(states) + 1))


def bad_table(bad: pd.DataFrame) -> parts.Table:
    """A row a trial that failed or diverged, with what happened."""
    rows = [
        (
            trial["trial_id"],
            trial["group"],
            architecture(trial),
            trial["state"],
            _what_happened(trial),
        )
        for _, trial in bad.iterrows()
    ]
    return parts.Table(("Trial", "Group", "Model", "State", "What happened"), rows)


def _what_happened(trial: pd.Series) -> str:
    found = []
    if not pd.isna(trial["diverged_epoch"]):
        found.append(f"The loss stopped being finite in epoch {trial['diverged_epoch']}.")
    if not pd.isna(trial["error"]):
        lines = trial["error"].strip().splitlines()
        found += map(without_home, lines[-1:])  # a traceback's last line; trials.csv has the whole
    return " ".join(found) or "No error recorded."


def trials_table(trials: pd.DataFrame) -> parts.SortedTable:
    """Every trial, a row each, with the columns in which they differ."""
    columns = {
        "Trial": "trial_id",
        "State": "state",
        **{label: name for name, label in MEASURED.items() if trials[name].notna().any()},
        "Epochs done": "epochs_completed",
        "Group": "group",
        "Model": "name",
        "Seed": "seed",
        **{parameter_label(n): n for n in SETTING if trials[n].nunique() > 1},
    }
    named = with_names(trials)
    # The arguments of a person's own model are a column.
    named["name"] = named["name"].where(named["model"].isin(schema.MODELS), named["model"])
    rows = [
        [_cell(value, name) for value, name in zip(row, columns.values(), strict=True)]
        for row in named[list(columns.values())].itertuples(index=False)
    ]
    places = list(columns)
    filters = {
        places.index(label): [str(value) for value in dict.fromkeys(named[name])]
        for label, name in FILTERED.items()
        if named[name].nunique() > 1
    }
    label = f"All {count(len(trials), 'trial')}"
    return parts.SortedTable(label, places, rows, filters, len(trials) > OPEN_AT_MOST)


def _cell(value: Any, column: str) -> parts.Cell:
    if pd.isna(value):
        return parts.Cell(parts.NO_VALUE)
    if column in MEASURED:
        return parts.Cell(digits(value), f"{value:.7g}")
    return parts.Cell(arguments(value) if column == "arguments" else factor_value(value))


def chapter(run: Run) -> parts.Chapter:
    """All trials of the run."""
    trials = run.trials
    if trials.empty:
        return parts.Chapter("trials", "All trials", [parts.Text("No trials.")])
    content: list[parts.Part] = [state_table(trials)]
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    if len(bad) > BAD_OPEN:
        content.append(parts.Fold(f"The {len(bad)} failed and diverged trials", [bad_table(bad)]))
    elif len(bad):
        content += [parts.Heading("Failed and diverged trials"), bad_table(bad)]
    same = [
        setting(trials.dropna(subset=name).iloc[0], [name])
        for name in SETTING
        if trials[name].nunique() == 1
    ]
    if same:
        text = f"The same in all trials that have it: {', '.join(filter(None, same))}."
        content.append(parts.Text(text, soft=True))
    gaps = [
        f"{count(n, 'trial')} {'not ended' if state == schema.RUNNING else state}: in no average."
        for state in (schema.RUNNING, schema.FAILED, schema.DIVERGED)
        if (n := int((trials["state"] == state).sum()))
    ]
    return parts.Chapter("trials", "All trials", [*content, trials_table(trials)], gaps)
