"""What a search's trials say: progress, best settings, what tuning gained, and its winners.

Pure functions on the tables of `analysis.load`. A trial has an objective only if it completed; the
value that a pruned one had reached is kept apart, and the test set is the winners' alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.statistics import (
    NAMED_SETTING,
    Estimate,
    architecture,
    ratio_over_seeds,
)
from study.folder.schema import (
    COMPLETED,
    CONV,
    DENSE,
    FULL_SPLIT,
    HYPERPARAMETERS,
    MODELS,
    OBJECTIVE,
    PRUNED,
    RUNNING,
    SEARCH,
    TEST_MSE,
    TIME_OBJECTIVE,
    WINNER,
    LogRange,
    hyperparameters_of,
)

# What distinguishes one setting of an architecture from another, as columns of the tables.
FACTORS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {model: tuple(p.name for p in hyperparameters_of(model)) for model in MODELS}
)
# The same as the search's space has them.
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {model: tuple(p.parameter for p in hyperparameters_of(model)) for model in MODELS}
)
# The others are categories.
LOG_PARAMETERS: Final = tuple(
    p.parameter for p in HYPERPARAMETERS if isinstance(p.search, LogRange)
)
# The report's setting, apart from the batch size, which it does not state.
REPORT_SETTING: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        model: {p.name: p.default for p in hyperparameters_of(model) if p.name != "batch_size"}
        for model in MODELS
    }
)

# What a trial kept its device busy with.
DEVICE_SECONDS: Final = ("train_seconds", "eval_seconds", "compile_seconds")


@dataclass(frozen=True)
class Tuning:
    """What a search found for an architecture, beside the reference setting in the same search.

    Attributes:
        model: the architecture.
        n_completed: search trials that completed, the reference setting's included.
        best: their least objective.
        reference: the objective of the completed trial with the reference setting; None if there
            is none.
        reference_state: how that trial ended; None if the search has no such trial.
    """

    model: str
    n_completed: int
    best: float
    reference: float | None
    reference_state: str | None


def search_progress(trials: pd.DataFrame) -> pd.DataFrame:
    """The search's trials in the order of the table, numbered from 1 for each model.

    Returns:
        Columns model, number, seconds (what the model's trials have kept devices busy with so far,
        this one included; what was not recorded counts nothing), state, value (the objective of
        a completed trial, otherwise missing) and best (the least value so far, missing before the
        first).
    """
    search = trials[trials["group"] == SEARCH]
    value = search[OBJECTIVE].where(search["state"] == COMPLETED)
    by_model = search["model"]
    best = value.groupby(by_model).cummin().groupby(by_model).ffill()
    return pd.DataFrame(
        {
            "model": by_model,
            "number": search.groupby("model").cumcount() + 1,
            "seconds": search[list(DEVICE_SECONDS)].sum(axis=1).groupby(by_model).cumsum(),
            "state": search["state"],
            "value": value,
            "best": best,
        }
    ).reset_index(drop=True)


def searched_models(trials: pd.DataFrame) -> list[str]:
    """The architectures that have search trials, conv first."""
    found = set(trials.loc[trials["group"] == SEARCH, "model"])
    return [model for model in MODELS if model in found]


def completed_search(trials: pd.DataFrame) -> pd.DataFrame:
    """The search trials that have an objective."""
    done = (trials["group"] == SEARCH) & (trials["state"] == COMPLETED)
    return trials[done & trials[OBJECTIVE].notna()]


def best_search_trials(trials: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n completed search trials of each model with the least objective, best first."""
    done = completed_search(trials).sort_values(["model", OBJECTIVE], kind="stable")
    return done.groupby("model").head(n).reset_index(drop=True)


def parameter_table(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """A model's ended search trials as points of the search space, in the order of the table.

    Returns:
        Columns trial_id, state, epochs_completed, value (the objective at the last epoch: final
        for a completed trial, where it was stopped for a pruned one, otherwise missing) and the
        parameters of `PARAMETERS`.
    """
    search = trials[
        (trials["group"] == SEARCH) & (trials["model"] == model) & (trials["state"] != RUNNING)
    ]
    values = {
        p.parameter: search[p.name].map(p.to_parameter) if p.complement else search[p.name]
        for p in hyperparameters_of(model)
    }
    value = search[OBJECTIVE].where(search["state"].isin([COMPLETED, PRUNED]))
    columns = search[["trial_id", "state", "epochs_completed"]]
    return columns.assign(value=value, **values).reset_index(drop=True)


def varied_parameters(table: pd.DataFrame) -> list[str]:
    """The parameters that have more than one value in a `parameter_table`."""
    parameters = [name for names in PARAMETERS.values() for name in names if name in table]
    return [name for name in dict.fromkeys(parameters) if table[name].nunique() > 1]


def has_setting(trials: pd.DataFrame, setting: Mapping[str, Any]) -> pd.Series:
    """Which rows have these values."""
    found = pd.Series(True, index=trials.index)
    for name, value in setting.items():
        column = trials[name]
        equal = np.isclose(column, value) if isinstance(value, float) else column == value
        found &= pd.Series(equal, index=trials.index).fillna(False).astype(bool)
    return found


def reference_in_search(trials: pd.DataFrame, model: str, batch_size: int | None) -> pd.DataFrame:
    """The search trials of a model that have the reference's setting.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.
        batch_size: of the reference setting; None if the run does not say, then no trial has it.
    """
    if batch_size is None:
        return trials.iloc[:0]
    setting = {"group": SEARCH, "model": model, "batch_size": batch_size}
    return trials[has_setting(trials, setting | dict(REPORT_SETTING[model]))]


def tuning(trials: pd.DataFrame, batch_size: int | None) -> list[Tuning]:
    """What tuning gained over the reference setting, in validation MSE, for each architecture.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference setting; None if the run does not say.

    Returns:
        One for each architecture that has a completed search trial.
    """
    done = completed_search(trials)
    found = []
    for model in searched_models(trials):
        objective = done.loc[done["model"] == model, OBJECTIVE]
        if objective.empty:
            continue
        rows = reference_in_search(trials, model, batch_size)
        ended = rows.loc[rows.index.isin(done.index), OBJECTIVE]
        states = list(rows["state"])
        found.append(
            Tuning(
                model=model,
                n_completed=len(objective),
                best=float(objective.min()),
                reference=float(ended.iloc[0]) if len(ended) else None,
                reference_state=COMPLETED if len(ended) else states[0] if states else None,
            )
        )
    return found


def winner_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials of the searches' winning settings, trained on the full split and tested.

    Returns:
        Rows of `trials` with the columns `name` and `chosen_by_val_mse`: the objective of the
        completed search trial with the same setting, missing if there is none.
    """
    done = trials[trials["state"] == COMPLETED]
    done = done.assign(name=[architecture(row) for _, row in done.iterrows()])
    winners = done[
        (done["group"] == WINNER) & (done["split"] == FULL_SPLIT) & done[TEST_MSE].notna()
    ]
    searched = done[done["group"] == SEARCH].groupby(list(NAMED_SETTING), dropna=False)[OBJECTIVE]
    chosen_by = searched.min().rename("chosen_by_val_mse").reset_index()
    return winners.merge(chosen_by, "left", list(NAMED_SETTING)).sort_values(["name", "seed"])


def winner_of(winners: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rows of `winner_trials` of a model's one winning setting, indexed by seed.

    Should the run hold several, it is the one that was chosen by the least objective.
    """
    rows = winners[winners["model"] == model].sort_values("chosen_by_val_mse", kind="stable")
    if len(rows):
        groups = rows.groupby(list(NAMED_SETTING), dropna=False).ngroup()
        rows = rows[groups == groups.iloc[0]]
    return rows.drop_duplicates("seed").set_index("seed").sort_index()


def winners_ratio(winners: pd.DataFrame) -> Estimate | None:
    """Test MSE of the dense winner ÷ the conv winner's, paired by seed; None without a pair."""
    dense, conv = (winner_of(winners, model)[TEST_MSE] for model in (DENSE, CONV))
    return ratio_over_seeds(dense, conv)


def spent(trials: pd.DataFrame) -> pd.DataFrame:
    """What each architecture's search took, whatever became of its trials.

    Returns:
        Columns n_trials, n_completed, n_untimed (trials without recorded training time, which
        count nothing) and seconds, indexed by model, conv first.
    """
    rows = {}
    for model in searched_models(trials):
        search = trials[(trials["group"] == SEARCH) & (trials["model"] == model)]
        rows[model] = {
            "n_trials": len(search),
            "n_completed": int((search["state"] == COMPLETED).sum()),
            "n_untimed": int(search["train_seconds"].isna().sum()),
            "seconds": float(search[list(DEVICE_SECONDS)].sum(axis=1).sum()),
        }
    columns = ["n_trials", "n_completed", "n_untimed", "seconds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def pareto_front(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates, all coordinates being minimised.

    A point dominates another if it is nowhere larger and somewhere smaller; of equal points none
    dominates the other.

    Args:
        points: shape (n, objectives), finite.

    Returns:
        Shape (n,).
    """
    nowhere_larger = (points[:, None] <= points[None]).all(axis=2)
    somewhere_smaller = (points[:, None] < points[None]).any(axis=2)
    dominates = nowhere_larger & somewhere_smaller  # the first index the second
    return np.array(~dominates.any(axis=0))


def pareto_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed search trials by validation MSE and training time, and which are on a front.

    Times are compared on one device only: the one with the most of these trials.

    Returns:
        Rows of `trials`, the quickest first, with the columns `name`, `comparable` (same device),
        `on_own_front` (of its architecture) and `on_joint_front` (of both together).
    """
    done = completed_search(trials).dropna(subset=TIME_OBJECTIVE)
    done = done.sort_values([TIME_OBJECTIVE, OBJECTIVE], kind="stable").reset_index(drop=True)
    common = done["device"].mode()
    comparable = done["device"].isin(common.head(1))

    def front(rows: pd.Series) -> pd.Series:
        points = done.loc[rows, [OBJECTIVE, TIME_OBJECTIVE]].to_numpy(dtype=float)
        kept = pd.Series(False, index=done.index)
        kept[rows] = pareto_front(points)
        return kept

    own = [front(comparable & (done["model"] == model)) for model in MODELS]
    return done.assign(
        name=[architecture(row) for _, row in done.iterrows()],
        comparable=comparable,
        on_own_front=own[0] | own[1],
        on_joint_front=front(comparable),
    )
