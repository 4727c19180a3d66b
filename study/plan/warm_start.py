"""Turns an older run's trials into Optuna trials, so that a new search starts with what it knew.

Reads the run folder's tables only, so the older run may come from another machine or version.
"""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from analysis.load import RunFolderError, load_run
from convae.config import TrialConfig
from study.folder import schema
from study.presets import SpecError, StudySpec
from study.space import SPACES, params_from_config

# What an Optuna trial calls the older run and trial it was taken from.
TAKEN_FROM = "warm_start"
# Optuna has no state for a diverged trial: it is failed there, with this attribute.
DIVERGED_EPOCH = "diverged_epoch"

_STATES = {
    schema.COMPLETED: TrialState.COMPLETE,
    schema.PRUNED: TrialState.PRUNED,
    schema.DIVERGED: TrialState.FAIL,
}


def earlier_trials(spec: StudySpec) -> dict[str, list[FrozenTrial]]:
    """The older run's trials by architecture, in its order.

    Taken are trials of the search and of the neighbours on the search's split with as many epochs
    as the new ones (others' values do not compare), whose setting lies in the space. Failed and
    unfinished ones say nothing about their setting and are left out.

    Raises:
        SpecError: the folder cannot be read, or holds no such trial.
    """
    if spec.warm_start is None:
        return {}
    try:
        trials, epochs = load_run(spec.warm_start)
    except RunFolderError as error:
        raise SpecError(f"--warm-start: {error}") from error
    trials = trials[
        trials["group"].isin([schema.SEARCH, schema.NEIGHBOUR])
        & (trials["split"] == schema.SEARCH_SPLIT)
        & (trials["epochs"] == spec.epochs)
        & trials["state"].isin(list(_STATES))
        & trials["model"].isin(spec.models)
    ]
    values = epochs.dropna(subset=schema.OBJECTIVE).set_index("trial_id")
    found: dict[str, list[FrozenTrial]] = {model: [] for model in spec.models}
    for row in trials.to_dict("records"):
        own = values.loc[values.index == row["trial_id"]]
        history = dict(zip(own["epoch"].astype(int), own[schema.OBJECTIVE], strict=True))
        frozen = _frozen(row, history, f"{spec.warm_start}: {row['trial_id']}")
        if frozen is not None:
            found[row["model"]].append(frozen)
    if not any(found.values()):
        raise SpecError(
            f"--warm-start {spec.warm_start} holds no search trial of {spec.epochs} epochs of"
            f" {' or '.join(spec.models)} that a search can learn from; give a run with the same"
            " --epochs."
        )
    return found


def _frozen(row: Mapping[Any, Any], history: dict[int, float], origin: str) -> FrozenTrial | None:
    """The row as an Optuna trial; None if its setting lies outside the space."""
    kinds = {"int": int, "float": float, "bool": bool, "text": str}
    values = {
        name: None if row[name] != row[name] or row[name] is None else kinds[kind](row[name])
        for name, kind in schema.CONFIG_COLUMNS.items()
    }
    config = TrialConfig.from_dict(values)
    point = optuna.trial.FixedTrial(params_from_config(config))
    SPACES[config.model](point)
    attributes: dict[str, Any] = {TAKEN_FROM: origin}
    if row["state"] == schema.DIVERGED:
        attributes[DIVERGED_EPOCH] = int(row["diverged_epoch"])
    try:
        return optuna.trial.create_trial(
            state=_STATES[row["state"]],
            value=row[schema.OBJECTIVE] if row["state"] == schema.COMPLETED else None,
            params=point.params,
            distributions=point.distributions,
            user_attrs=attributes,
            intermediate_values=history,
        )
    except ValueError:  # a value that its distribution does not hold
        return None
