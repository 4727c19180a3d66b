"""All trials: how they ended, what went wrong, and a table of every one."""

from typing import Any, Final

import pandas as pd

from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    count,
    digits,
    label_of,
    state_words,
    value_words,
    values_words,
    without_home,
)
from analysis.settings import keywords
from study.folder import schema

OPEN_AT_MOST: Final = 100  # trials; a longer table is folded away
BAD_OPEN: Final = 20  # likewise of those that failed or diverged
# The columns of a setting that are shown where they differ; the architecture has its own.
SETTING: Final = [n for n in schema.CONFIG_COLUMNS if n not in ("model", "seed", "hidden_units")]
MEASURED: Final = {
    schema.TRAIN_MSE: "Train MSE",
    schema.VAL_MSE: "Val. MSE",
    schema.TEST_MSE: "Test MSE",
    schema.SECONDS: "Train s",
    "n_sharing": "Trials at once",
    "wall_seconds": "Wall s",
}
FILTERED: Final = {"Group": "group", "Model": "architecture", "State": "state"}
NOT_AVERAGED: Final = (schema.RUNNING, schema.FAILED, schema.DIVERGED)


def state_rows(trials: pd.DataFrame) -> list[list[str]]:
    """How many trials of each group ended in each state, below the names of the states."""
    counts = pd.crosstab(trials["group"], trials["state"])
    counts = counts.reindex(index=schema.GROUPS, columns=schema.STATES, fill_value=0)
    counts = counts.loc[counts.any(axis=1), counts.any(axis=0)]
    return [["Group", *counts], *([group, *map(str, row)] for group, *row in counts.itertuples())]


def what_happened(trial: pd.Series) -> str:
    """Why a trial failed or diverged."""
    if pd.isna(trial["error"]) or not (lines := trial["error"].strip().splitlines()):
        return "No error recorded."
    return without_home(lines[-1])  # a traceback's last line; trials.csv has the whole


def columns_of(trials: pd.DataFrame) -> dict[str, str]:
    """The columns in which the trials differ, by their headings."""
    measured = {label: name for name, label in MEASURED.items() if trials[name].notna().any()}
    varied = {label_of(name): name for name in SETTING if trials[name].nunique() > 1}
    first = {"Trial": "trial_id", "State": "state", **measured, "Epochs done": "epochs_completed"}
    return first | {"Group": "group", "Model": "architecture", "Seed": "seed"} | varied


def cell(value: Any, column: str) -> tuple[str, str]:
    """A cell's text, and what it sorts by in the text's place; "" for the text."""
    if pd.isna(value):
        return NO_VALUE, ""
    if column in MEASURED:
        return digits(value), f"{value:.7g}"
    return values_words(keywords(value)) if column == "arguments" else value_words(value), ""


def chapter(run: Run) -> dict[str, Any]:
    """All trials of the run."""
    names = {one.label: one.architecture for one in run.settings}
    trials = run.trials.assign(architecture=run.trials["setting"].map(names))
    columns = columns_of(trials)
    places, used = list(columns), list(columns.values())
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    same = {n: trials[n].dropna().iloc[0] for n in SETTING if trials[n].nunique() == 1}
    counts = trials["state"].value_counts()
    n_zero = int((trials[list(schema.METRICS)] == 0).any(axis=1).sum())
    told = ["trial_id", "group", "architecture", "state"]
    return {
        "n": len(trials),
        "zero": count(n_zero, "trial") if n_zero else "",
        "states": state_rows(trials),
        "bad": [[*row[told], what_happened(row)] for _, row in bad.iterrows()],
        "bad_open": BAD_OPEN,
        "same": values_words(keywords(same.pop("arguments", None)) | same),
        "header": places,
        "rows": [
            [cell(value, name) for value, name in zip(row, used, strict=True)]
            for row in trials[used].itertuples(index=False)
        ],
        "filters": {
            places.index(label): [str(value) for value in dict.fromkeys(trials[name])]
            for label, name in FILTERED.items()
            if trials[name].nunique() > 1
        },
        "folded": len(trials) > OPEN_AT_MOST,
        "not_averaged": [(counts[s], state_words(s)) for s in NOT_AVERAGED if s in counts],
    }
