"""How much each searched parameter matters, by Optuna's own default evaluator, PED-ANOVA.

It compares the settings of the best trials with those of all completed ones; see S. Watanabe et
al., PED-ANOVA, IJCAI 2023 (arXiv:2304.10255). Even a parameter without any influence gets a share,
the larger the fewer the trials, so each share stands beside what chance gives.
"""

import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.search.results import LOG_PARAMETERS, parameter_table, varied_parameters
from study.folder.schema import COMPLETED

EVALUATOR: Final = "Optuna's default evaluator, PED-ANOVA"
BEST_SHARE: Final = 0.25  # of the completed trials, whose settings are compared with all
# Optuna advises at least five trials among the best: its page on PedAnovaImportanceEvaluator.
MIN_BEST: Final = 5
MIN_COMPLETED: Final = int(MIN_BEST / BEST_SHARE)
N_PERMUTATIONS: Final = 100
CHANCE_QUANTILE: Final = 0.95
SEED: Final = 0


def importances(trials: pd.DataFrame, model: str) -> pd.DataFrame | None:
    """The importance of each parameter that the model's search varied.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.

    Returns:
        Columns parameter, share (of 1; the greatest first) and chance: the share that the
        parameter would exceed in one of twenty searches if the objective did not depend on the
        settings, from permutations of the objective among these trials. None below
        `MIN_COMPLETED` completed trials, or if these do not differ.
    """
    table = parameter_table(trials, model)
    parameters = varied_parameters(table)
    done = table[(table["state"] == COMPLETED) & table["value"].notna()]
    if len(done) < MIN_COMPLETED or not parameters or done["value"].nunique() == 1:
        return None
    values = done["value"].to_numpy(dtype=float)
    random = np.random.default_rng(SEED)
    orders = [np.arange(len(done))]
    orders += [random.permutation(len(done)) for _ in range(N_PERMUTATIONS)]
    divergences = _divergences(done, table, parameters, [values[order] for order in orders])
    total = divergences[0].sum() or 1.0
    frame = pd.DataFrame(
        {
            "parameter": parameters,
            "share": divergences[0] / total,
            "chance": np.quantile(divergences[1:], CHANCE_QUANTILE, axis=0) / total,
        }
    )
    return frame.sort_values("share", ascending=False, kind="stable").reset_index(drop=True)


def _divergences(
    done: pd.DataFrame, table: pd.DataFrame, parameters: list[str], objectives: list[Any]
) -> Any:
    """What PED-ANOVA gives each parameter (columns) under each of some objectives (rows)."""
    import optuna  # here: half a second, and a report without a search does not need it

    space: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in parameters:  # as wide as the search went, its pruned and diverged trials included
        if name in LOG_PARAMETERS:
            low, high = float(table[name].min()), float(table[name].max())
            space[name] = optuna.distributions.FloatDistribution(low, high, log=True)
        else:
            space[name] = optuna.distributions.CategoricalDistribution(
                sorted(table[name].unique().tolist())
            )
    settings = done[parameters].astype(object).to_numpy()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each new study
    try:
        study = optuna.create_study()
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(parameters, setting, strict=True)), distributions=space, value=value
            )
            for setting, value in zip(settings, objectives[0], strict=True)
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    rows = []
    with warnings.catch_warnings():
        # One is on the argument `normalize` being experimental, the other on `target`, which is
        # minimised, as it should be. Not normalised, real and permuted objectives can be compared.
        warnings.simplefilter("ignore")
        for objective in objectives:
            found = optuna.importance.get_param_importances(
                study,
                evaluator=evaluator,
                params=parameters,
                target=_by_number(objective),
                normalize=False,
            )
            rows.append([found[name] for name in parameters])
    return np.array(rows)


def _by_number(values: Any) -> Callable[[Any], float]:
    """The value of an Optuna trial by its number."""
    return lambda trial: float(values[trial.number])
