"""What a setting is, which one is the reference's, and what the search tried of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.statistics import models_of, most_frequent
from analysis.words import setting
from study.folder import schema

# Trials that agree in these differ in nothing but chance, images and length.
SETTING: Final = tuple(
    name for name in schema.CONFIG_COLUMNS if name not in ("seed", "split", "epochs")
)
# The report's setting, apart from the batch size, which it does not state.
REPORT_SETTING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        model: {
            p.name: p.default for p in schema.hyperparameters_of(model) if p.name != "batch_size"
        }
        for model in schema.MODELS
    }
)


def key_of(trial: pd.Series) -> tuple[Any, ...]:
    """A trial's setting, to be found again."""
    return tuple(None if pd.isna(trial[name]) else trial[name] for name in SETTING)


def with_keys(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with a column `key`, of `key_of`."""
    keys = [key_of(row) for _, row in trials.iterrows()]
    return trials.assign(key=pd.Series(keys, index=trials.index, dtype="object"))


def searched_models(trials: pd.DataFrame) -> list[str]:
    """The architectures that have search trials, conv first."""
    return models_of(trials[trials["group"] == schema.SEARCH])


def completed_search(trials: pd.DataFrame) -> pd.DataFrame:
    """The search trials that have an objective."""
    done = (trials["group"] == schema.SEARCH) & (trials["state"] == schema.COMPLETED)
    return trials[done & trials[schema.OBJECTIVE].notna()]


def best_search_trials(trials: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n completed search trials of each model with the least objective, best first."""
    done = completed_search(trials).sort_values(["model", schema.OBJECTIVE], kind="stable")
    return done.groupby("model").head(n).reset_index(drop=True)


def has_setting(trials: pd.DataFrame, setting: Mapping[str, Any]) -> pd.Series:
    """Which rows have these values."""
    found = pd.Series(True, index=trials.index)
    for name, value in setting.items():
        column = trials[name]
        equal = np.isclose(column, value) if isinstance(value, float) else column == value
        found &= pd.Series(equal, index=trials.index).fillna(False).astype(bool)
    return found


def reference_setting(
    trials: pd.DataFrame, model: str, batch_size: int | None
) -> dict[str, Any] | None:
    """The setting that the search of a model is measured by; None if the run does not say.

    Of a model of a person's own it is that of its reference trials.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.
        batch_size: of the reference setting; None if the run does not say.
    """
    if model in schema.MODELS:
        return None if batch_size is None else {"batch_size": batch_size, **REPORT_SETTING[model]}
    rows = trials[(trials["group"] == schema.REFERENCE) & (trials["model"] == model)]
    if rows.empty:
        return None
    first = most_frequent(rows, [*statistics.SETTING, "arguments"]).iloc[0]
    return {name: first[name] for name in SETTING if not pd.isna(first[name])}


def reference_in_search(trials: pd.DataFrame, model: str, batch_size: int | None) -> pd.DataFrame:
    """The search trials of a model that have the reference's setting.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.
        batch_size: of the reference setting; None if the run does not say, then no trial has it.
    """
    setting = reference_setting(trials, model, batch_size)
    if setting is None:
        return trials.iloc[:0]
    return trials[has_setting(trials, {"group": schema.SEARCH, "model": model} | setting)]


def setting_words(trial: pd.Series) -> str:
    """A trial's setting beside its architecture's name."""
    columns = [p.name for p in schema.hyperparameters_of(trial["model"]) if not p.of_architecture]
    return setting(trial, ["arguments", *columns])
