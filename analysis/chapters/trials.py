"""All trials: how they ended, what went wrong, and a table of every one."""

from typing import Any, Final

import pandas as pd

from analysis.load import Run
from analysis.phrases import NO_VALUE, digits, label_of, value_words, values_words, without_home
from analysis.settings import keywords
from study.folder import schema

OPEN_AT_MOST: Final = 100  # trials; a longer table is folded away
BAD_OPEN: Final = 20  # likewise of those that failed or diverged
# The columns of a setting that are shown where they differ; the architecture has its own.
SETTING: Final = tuple(
    name for name in schema.CONFIG_COLUMNS if name not in ("model", "seed", "hidden_units")
)
MEASURED: Final = {
    schema.TRAIN_MSE: "Train MSE",
    schema.VAL_MSE: "Val. MSE",
    schema.TEST_MSE: "Test MSE",
    "train_seconds": "Train s",
    "n_sharing": "Trials at once",
    "wall_seconds": "Wall s",
}
FILTERED: Final = {"Group": "group", "Model": "architecture", "State": "state"}


def architectures(run: Run) -> dict[str, str]:
    """The architecture of each trial, in a word, by its id."""
    return {
        trial_id: one.architecture for one in run.settings for trial_id in one.trials["trial_id"]
    }


def state_rows(trials: pd.DataFrame) -> list[list[str]]:
    """How many trials of each group ended in each state, below the names of the states."""
    counts = pd.crosstab(trials["group"], trials["state"])
    counts = counts.reindex(index=schema.GROUPS, columns=schema.STATES, fill_value=0)
    counts = counts.loc[counts.any(axis=1), counts.any(axis=0)]
    return [["Group", *counts], *([group, *map(str, row)] for group, *row in counts.itertuples())]


def what_happened(trial: pd.Series) -> str:
    """Why a trial failed or diverged."""
    found = []
    if not pd.isna(trial["diverged_epoch"]):
        found.append(f"The loss stopped being finite in epoch {trial['diverged_epoch']}.")
    if not pd.isna(trial["error"]):
        lines = trial["error"].strip().splitlines()
        found += map(without_home, lines[-1:])  # a traceback's last line; trials.csv has the whole
    return " ".join(found) or "No error recorded."


def columns_of(trials: pd.DataFrame) -> dict[str, str]:
    """The columns in which the trials differ, by their headings."""
    return {
        "Trial": "trial_id",
        "State": "state",
        **{label: name for name, label in MEASURED.items() if trials[name].notna().any()},
        "Epochs done": "epochs_completed",
        "Group": "group",
        "Model": "architecture",
        "Seed": "seed",
        **{label_of(name): name for name in SETTING if trials[name].nunique() > 1},
    }


def cell(value: Any, column: str) -> tuple[str, str]:
    """A cell's text, and what it sorts by in the text's place; "" for the text."""
    if pd.isna(value):
        return NO_VALUE, ""
    if column in MEASURED:
        return digits(value), f"{value:.7g}"
    return values_words(keywords(value)) if column == "arguments" else value_words(value), ""


def chapter(run: Run) -> dict[str, Any]:
    """All trials of the run."""
    trials = run.trials.assign(architecture=run.trials["trial_id"].map(architectures(run)))
    columns = columns_of(trials)
    places = list(columns)
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    constant = [name for name in SETTING if trials[name].nunique() == 1]
    same = {name: trials[name].dropna().iloc[0] for name in constant}
    arguments = keywords(same.pop("arguments", None))
    counts = trials["state"].value_counts()
    return {
        "n": len(trials),
        "states": state_rows(trials),
        "bad": [
            [row["trial_id"], row["group"], row["architecture"], row["state"], what_happened(row)]
            for _, row in bad.iterrows()
        ],
        "bad_open": BAD_OPEN,
        "same": values_words(arguments | same),
        "header": places,
        "rows": [
            [cell(value, name) for value, name in zip(row, columns.values(), strict=True)]
            for row in trials[list(columns.values())].itertuples(index=False)
        ],
        "filters": {
            places.index(label): [str(value) for value in dict.fromkeys(trials[name])]
            for label, name in FILTERED.items()
            if trials[name].nunique() > 1
        },
        "folded": len(trials) > OPEN_AT_MOST,
        "not_averaged": [
            (int(counts[state]), "not ended" if state == schema.RUNNING else state)
            for state in (schema.RUNNING, schema.FAILED, schema.DIVERGED)
            if state in counts
        ],
    }
