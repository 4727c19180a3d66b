"""Which hyperparameters of a search matter: Optuna's importances beside what chance gives.

The importances are by Optuna's default evaluator, PED-ANOVA, which compares the settings of the
best trials with those of all completed ones; see S. Watanabe et al., PED-ANOVA, IJCAI 2023
(arXiv:2304.10255). Even a parameter without any influence gets a share, the larger the fewer the
trials, so each share stands beside what chance gives.
"""

import warnings
from functools import partial
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from analysis.settings import keywords
from study.folder import schema

EVALUATOR: Final = "Optuna's default evaluator, PED-ANOVA"
BEST_SHARE: Final = 0.25  # of the completed trials, whose settings are compared with all
# Optuna advises at least five trials among the best: its page on PedAnovaImportanceEvaluator.
MIN_COMPLETED: Final = int(5 / BEST_SHARE)
N_PERMUTATIONS: Final = 100
CHANCE_QUANTILE: Final = 0.95
SEED: Final = 0

# What `parameter_table` has beside the parameters.
BESIDE: Final = ("trial_id", "state", "epochs_completed", "value")
# These have a log axis. Other numbers of many values have an axis too; the rest are categories.
LOG_PARAMETERS: Final = tuple(
    p.parameter for p in schema.HYPERPARAMETERS if isinstance(p.search, schema.Range)
)
MAX_CATEGORIES: Final = 6
DECADE: Final = 10.0  # numbers that span one have a log axis


def parameter_table(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """A model's ended search trials as points of the search space, in the order of the table.

    The columns of `BESIDE`, value being the objective at the last epoch (final for a completed
    trial, where it was stopped for a pruned one, otherwise missing), and the parameters of the
    model's space: of a custom model the arguments of its builder as well.
    """
    search = trials[(trials["group"] == schema.SEARCH) & (trials["model"] == model)]
    search = search[search["state"] != schema.RUNNING].reset_index(drop=True)
    values = {
        p.parameter: search[p.name].map(p.to_parameter) if p.complement else search[p.name]
        for p in schema.hyperparameters_of(model)
    }
    given = pd.DataFrame(list(map(keywords, search["arguments"])), index=search.index)
    given = given.convert_dtypes()
    for name in given.select_dtypes(object):  # values of several kinds
        given[name] = given[name].map(str, na_action="ignore")
    taken = {name: f"{name} (argument)" for name in (*BESIDE, *values)}
    ended = search["state"].isin([schema.COMPLETED, schema.PRUNED])
    table = search[list(BESIDE[:-1])].assign(value=search[schema.OBJECTIVE].where(ended))
    return pd.concat([table, given.rename(columns=taken), pd.DataFrame(values)], axis=1)


def axis_of(column: pd.Series) -> Literal["log", "linear", "categories"]:
    """On what axis a parameter is shown."""
    if column.name in LOG_PARAMETERS:
        return "log"
    known = column.dropna()
    numbers = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if not numbers or known.nunique() <= MAX_CATEGORIES:
        return "categories"
    return "log" if known.min() > 0 and known.max() >= DECADE * known.min() else "linear"


def varied_parameters(table: pd.DataFrame) -> list[str]:
    """The parameters that have more than one value in a `parameter_table`."""
    return [str(n) for n in table if n not in BESIDE and table[n].nunique() > 1]


def importances(trials: pd.DataFrame, model: str) -> pd.DataFrame | None:
    """The importance of each parameter that the model's search varied.

    Returns:
        Columns parameter, share (of 1; the greatest first) and chance: the share that the
        parameter would exceed in one of twenty searches if the objective did not depend on the
        settings, from permutations of the objective among these trials. None below
        `MIN_COMPLETED` completed trials, or if these do not differ.
    """
    table = parameter_table(trials, model)
    parameters = varied_parameters(table)
    table = table.dropna(subset=parameters)  # an argument that was not given has no value
    done = table[(table["state"] == schema.COMPLETED) & table["value"].notna()]
    if len(done) < MIN_COMPLETED or not parameters or done["value"].nunique() == 1:
        return None
    values = done["value"].to_numpy(dtype=float)
    random = np.random.default_rng(SEED)
    objectives = [values, *(random.permutation(values) for _ in range(N_PERMUTATIONS))]
    divergences = _divergences(done[parameters], table[parameters], np.array(objectives))
    shares = divergences / (divergences[0].sum() or 1.0)
    chance = np.quantile(shares[1:], CHANCE_QUANTILE, axis=0)
    frame = pd.DataFrame({"parameter": parameters, "share": shares[0], "chance": chance})
    return frame.sort_values("share", ascending=False, kind="stable").reset_index(drop=True)


def _divergences(done: pd.DataFrame, searched: pd.DataFrame, objectives: Any) -> Any:
    """What PED-ANOVA gives each parameter (a column) under each of some objectives (a row).

    `done` are the settings of the completed trials, a column a parameter, and `searched` those of
    all ended ones: the space is as wide as they went.
    """
    import optuna  # here: half a second, and a report without a search does not need it

    def distribution(column: pd.Series) -> optuna.distributions.BaseDistribution:
        if (axis := axis_of(column)) == "categories":
            return optuna.distributions.CategoricalDistribution(sorted(column.unique().tolist()))
        low, high = float(column.min()), float(column.max())
        return optuna.distributions.FloatDistribution(low, high, log=axis == "log")

    space = {str(name): distribution(searched[name]) for name in done}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each new study
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    settings: list[Any] = done.astype(object).to_dict("records")
    study.add_trials(
        [
            optuna.trial.create_trial(params=setting, distributions=space, value=value)
            for setting, value in zip(settings, objectives[0], strict=True)
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on `target`, which is minimised, as it should be
        for objective in objectives:
            target = partial(_value, objective)
            found = evaluator.evaluate(study, list(space), target=target)
            rows.append([found[name] for name in space])
    return np.array(rows)


def _value(objective: Any, trial: Any) -> float:
    """The value of an Optuna trial by its number."""
    return float(objective[trial.number])
