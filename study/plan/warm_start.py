"""Turns an older run's trials into Optuna trials, so that a new search starts with what it knew.

The older run may come from another machine or version, since only its tables are read; what is
taken from it is kept in the new run folder, which then needs it no more.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from convae.config import TrialConfig
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.folder.tables import Row, read_tables
from study.plan.ledger import config_of_row
from study.plan.search import DIVERGED_EPOCH
from study.plan.space import Space
from study.plan.spec import SpecError, StudySpec
from study.plan.trials import reference_config

# What an Optuna trial calls the older run and trial it was taken from.
TAKEN_FROM = "warm_start"
_STATES = {
    schema.COMPLETED: TrialState.COMPLETE,
    schema.PRUNED: TrialState.PRUNED,
    schema.DIVERGED: TrialState.FAIL,
}

Known = Mapping[str, Sequence[FrozenTrial]]


def earlier_trials(spec: StudySpec) -> list[Row]:
    """The older run's trials that a search can learn from, in its order.

    Taken are trials of the search and of the neighbours on the search's split with as many epochs
    as the new ones (others' values do not compare). Failed and unfinished ones say nothing about
    their setting and are left out.

    Returns:
        Their rows, with the objective by epoch as "history" and their origin as `TAKEN_FROM`.

    Raises:
        SpecError: the folder cannot be read, or holds no such trial.
    """
    if spec.warm_start is None:
        return []
    try:
        trials, epochs = read_tables(RunFolder(spec.warm_start))
    except RunFolderError as error:
        raise SpecError(f"--warm-start: {error}") from error
    histories: dict[str, list[tuple[int, float]]] = {}
    for epoch in epochs.to_pylist():
        if epoch[schema.OBJECTIVE] is not None:
            history = histories.setdefault(epoch["trial_id"], [])
            history.append((epoch["epoch"], epoch[schema.OBJECTIVE]))
    found = [
        {
            **row,
            "history": histories.get(row["trial_id"], []),
            TAKEN_FROM: f"{spec.warm_start}: {row['trial_id']}",
        }
        for row in trials.to_pylist()
        if row["group"] in (schema.SEARCH, schema.NEIGHBOUR)
        and row["split"] == schema.SEARCH_SPLIT
        and row["epochs"] == spec.epochs
        and row["state"] in _STATES
        and row["model"] in spec.models
    ]
    if not any(as_optuna(found, spec).values()):
        raise SpecError(
            f"--warm-start {spec.warm_start} holds no search trial of {spec.epochs} epochs of"
            f" {' or '.join(spec.models)} that a search can learn from; give a run with the same"
            " --epochs."
        )
    return found


def keep(folder: RunFolder, rows: Sequence[Row]) -> None:
    """Keeps what was taken from an older run in the run folder.

    Raises:
        RunFolderError: it cannot be written.
    """
    if rows:
        folder.write(schema.WARM_START_FILE, json.dumps(rows).encode())


def kept(folder: RunFolder, spec: StudySpec) -> list[Row]:
    """The inverse of `keep`; of a folder of before it existed, from the older run itself.

    Raises:
        RunFolderError: it cannot be read.
        SpecError: the older run cannot be read.
    """
    if (content := folder.read(schema.WARM_START_FILE)) is None:
        return earlier_trials(spec)
    try:
        rows: list[Row] = json.loads(content)
    except ValueError as error:
        raise RunFolderError(
            f"{folder}/{schema.WARM_START_FILE} is torn; delete it, and it is made again from"
            f" {spec.warm_start}."
        ) from error
    return rows


def as_optuna(rows: Sequence[Row], spec: StudySpec) -> dict[str, list[FrozenTrial]]:
    """Rows of `earlier_trials` as Optuna trials by architecture.

    A trial whose setting lies outside the space is left out.
    """
    known: dict[str, list[FrozenTrial]] = {}
    for row in rows:
        space, config = spec.space_of(row["model"]), config_of_row(row)
        if space.holds(config, reference_config(config.model, spec)):
            known.setdefault(config.model, []).append(_as_optuna(row, config, space))
    return known


def _as_optuna(row: Row, config: TrialConfig, space: Space) -> FrozenTrial:
    attributes: dict[str, Any] = {TAKEN_FROM: row[TAKEN_FROM]}
    if row["state"] == schema.DIVERGED:
        attributes[DIVERGED_EPOCH] = row["diverged_epoch"]
    return optuna.create_trial(
        state=_STATES[row["state"]],
        value=row[schema.OBJECTIVE] if row["state"] == schema.COMPLETED else None,
        params=space.params_of(config),
        distributions=dict(space.distributions),
        user_attrs=attributes,
        intermediate_values=dict(row["history"]),
    )
