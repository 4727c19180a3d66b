"""How sensitive the reference setting is: neighbours that differ from it in one factor.

They train on the search's images and are judged by the validation images, several seeds each, so
that an effect can be told from the spread over seeds. Pure functions on the trials table.
"""

from typing import Any, Final

import pandas as pd

from analysis.search.results import FACTORS, REPORT_SETTING, has_setting
from analysis.statistics import Estimate, mean_over_seeds, ratio_over_seeds
from study.folder.schema import (
    COMPLETED,
    NEIGHBOUR,
    OBJECTIVE,
    SEARCH_SPLIT,
    STATES,
)

COLUMNS: Final = ("factor", "value", "mean", "low", "high", "n", *STATES, "exceeds")


def neighbour_trials(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """A model's neighbour trials on the search's images, one a setting and seed."""
    kept = trials[
        (trials["group"] == NEIGHBOUR)
        & (trials["model"] == model)
        & (trials["split"] == SEARCH_SPLIT)
    ]
    return kept.drop_duplicates([*FACTORS[model], "seed"])


def reference_setting(neighbours: pd.DataFrame, model: str) -> dict[str, Any] | None:
    """The setting from which every other one of the model's neighbours differs in one factor.

    Where few neighbours leave several such settings, it is the report's.

    Args:
        neighbours: of `neighbour_trials`.
        model: the architecture.

    Returns:
        Values by column of `FACTORS`; None if there is no such setting, or no telling.
    """
    factors = list(FACTORS[model])
    settings = neighbours[factors].drop_duplicates().astype(object)
    values = settings.to_numpy()
    n_differing = (values[:, None] != values[None]).sum(axis=2)
    centres = settings[(n_differing <= 1).all(axis=1)]
    if len(centres) > 1:
        centres = centres[has_setting(neighbours.loc[centres.index], REPORT_SETTING[model])]
    if len(centres) != 1:
        return None
    return {str(name): value for name, value in centres.iloc[0].items()}


def reference_spread(trials: pd.DataFrame, model: str) -> Estimate | None:
    """The validation MSE of a model's reference among the neighbours; None if none completed."""
    neighbours = neighbour_trials(trials, model)
    setting = reference_setting(neighbours, model)
    if setting is None:
        return None
    return mean_over_seeds(_objective_by_seed(neighbours[has_setting(neighbours, setting)]))


def relative_spread(reference: Estimate | None) -> float | None:
    """Sample standard deviation ÷ mean; None for fewer than two seeds."""
    return None if reference is None or reference.sd is None else reference.sd / reference.mean


def sensitivity(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """What changing one factor does to the validation MSE of an architecture's reference.

    Args:
        trials: of `analysis.load.load_run`.
        model: the architecture.

    Returns:
        A row a changed value, with the columns factor (of `FACTORS`), value, mean, low, high and n
        (the geometric mean of the ratios to the reference's validation MSE, paired by seed, with
        its 95 % t-interval; missing if no pair completed), the number of trials in each state, and
        exceeds: whether the ratio lies outside a factor of 1 + the reference's relative spread
        over seeds and its interval excludes 1; missing for fewer than two seeds.
    """
    neighbours = neighbour_trials(trials, model)
    setting = reference_setting(neighbours, model)
    rows = []
    if setting is not None:
        differs = {name: neighbours[name] != value for name, value in setting.items()}
        reference = _objective_by_seed(neighbours[~pd.DataFrame(differs).any(axis=1)])
        spread = relative_spread(mean_over_seeds(reference))
        for factor, differing in differs.items():
            for value, changed in neighbours[differing].groupby(factor):
                states = changed["state"].value_counts()
                ratio = ratio_over_seeds(_objective_by_seed(changed), reference)
                row = {"factor": factor, "value": value, "n": 0}
                row |= {state: int(states.get(state, 0)) for state in STATES}
                if ratio is not None:
                    row |= {"mean": ratio.mean, "low": ratio.low, "high": ratio.high, "n": ratio.n}
                    row["exceeds"] = _exceeds(ratio, spread)
                rows.append(row)
    numbers = dict.fromkeys(("mean", "low", "high"), "float64")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"value": "object", "exceeds": "boolean", **numbers})


def _objective_by_seed(of_setting: pd.DataFrame) -> pd.Series:
    return of_setting[of_setting["state"] == COMPLETED].set_index("seed")[OBJECTIVE]


def _exceeds(ratio: Estimate, spread: float | None) -> bool | None:
    if spread is None or ratio.low is None:
        return None
    outside = not 1 / (1 + spread) <= ratio.mean <= 1 + spread
    return outside and not ratio.lowest <= 1 <= ratio.highest
