"""The page's sections on the search and on the reference's neighbours.

`analysis.search.tables` says what is in each table; what a run lacks is said in `search_gaps`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from analysis.drawings import Drawing
from analysis.page.markup import cards, items, section, soft, table
from analysis.search import neighbours, results, tables
from analysis.search.drawings import (
    IMPORTANCES,
    PARALLEL,
    PARETO,
    PROGRESS,
    PROGRESS_SECONDS,
    SENSITIVITY,
    SLICES,
    is_timed,
)
from analysis.words import count
from study.folder import schema

N_BEST: Final = 3  # search trials shown of each model


def search_section(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    drawings: Sequence[Drawing],
) -> str:
    """What the search found; nothing if there was none.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
        reference: of `analysis.statistics.reference_trials`.
        drawings: of `analysis.search.drawings.draw_search`.
    """
    winners = results.winner_trials(trials)
    models = results.searched_models(trials)
    best = results.best_search_trials(trials, N_BEST)
    content = ""
    if models:
        content += cards(_of(drawings, PROGRESS, PROGRESS_SECONDS))
    if not best.empty:
        content += (
            "<h3>Did tuning beat the reference?</h3>"
            + items(tables.tuning_sentences(trials, manifest["spec"].get("batch_size")))
            + "<h3>Best trials</h3>"
            + soft(
                f"The best {N_BEST} completed trials of each model by validation MSE; one seed"
                " each, so without spread."
            )
            + table(tables.search_rows(best))
        )
    if not winners.empty:
        content += (
            "<h3>Winners</h3>"
            + table(tables.winner_rows(winners, reference))
            + soft(tables.winner_note(winners, reference))
        )
    if models:
        content += (
            "<h3>Conv against dense</h3>"
            + table(tables.budget_rows(trials, winners, reference))
            + soft(tables.budget_note(trials, winners))
        )
    if is_timed(manifest):
        content += _pareto(trials, drawings)
    if models:
        content += "<h3>What matters</h3>" + _what_matters(trials, models, drawings)
    return section("Search", content) if content else ""


def _pareto(trials: pd.DataFrame, drawings: Sequence[Drawing]) -> str:
    data = results.pareto_trials(trials)
    title = "<h3>Accuracy against training time</h3>"
    if not data["comparable"].any():
        return title + soft("No completed search trial with a known device: no Pareto front.")
    return (
        title
        + cards(_of(drawings, PARETO))
        + table(tables.pareto_rows(data))
        + soft(tables.pareto_note(data))
    )


def _what_matters(trials: pd.DataFrame, models: list[str], drawings: Sequence[Drawing]) -> str:
    shown = _of(drawings, IMPORTANCES)
    drawn = {drawing.name for drawing in shown}
    missing = [
        tables.importance_gap(trials, model)
        for model in models
        if f"{IMPORTANCES}-{model}" not in drawn
    ]
    return (
        "".join(map(soft, missing))
        + cards(shown)
        + cards(_of(drawings, SLICES))
        + cards(_of(drawings, PARALLEL))
    )


def sensitivity_section(trials: pd.DataFrame, drawings: Sequence[Drawing]) -> str:
    """What changing one factor of the reference does; nothing if no neighbour completed.

    Args:
        trials: of `analysis.load.load_run`.
        drawings: of `analysis.search.drawings.draw_search`.
    """
    by_model = {model: tables.sensitivity_rows(trials, model) for model in schema.MODELS}
    found = {model: rows for model, rows in by_model.items() if len(rows) > 1}
    if not found:
        return ""
    content = soft(tables.SENSITIVITY_NOTE)
    content += cards(_of(drawings, SENSITIVITY))
    for model, rows in found.items():
        content += f"<h3>Neighbours of the {model} reference</h3>" + table(rows)
    return section("Sensitivity: one factor changed at a time", content)


def search_gaps(trials: pd.DataFrame) -> list[str]:
    """What the search and the neighbours of this run cannot show, in sentences."""
    models = results.searched_models(trials)
    if not models:
        return ["No search trials in this run.", *_neighbour_gaps(trials)]
    gaps = [
        f"The search has no trials of {model}: nothing compares tuned architectures."
        for model in schema.MODELS
        if model not in models
    ]
    n_completed = results.spent(trials)["n_completed"]
    winners = results.winner_trials(trials)
    for model in models:
        n = n_completed[model]
        if n == 0:
            gaps.append(
                f"No search trial of {model} completed: it has no best setting and no winner."
            )
        elif n == 1:
            gaps.append(
                f"One search trial of {model} completed: it is the best for want of others."
            )
        if n and results.winner_of(winners, model).empty:
            gaps.append(f"No completed winner of {model}: its tuned test MSE is not known.")
    return gaps + _neighbour_gaps(trials)


def _neighbour_gaps(trials: pd.DataFrame) -> list[str]:
    group = trials[trials["group"] == schema.NEIGHBOUR]
    if group.empty:
        return ["No neighbour trials: how sensitive the reference is to each factor is not known."]
    gaps = []
    n_other = int((group["split"] != schema.SEARCH_SPLIT).sum())
    if n_other:
        gaps.append(
            f"{count(n_other, 'neighbour trial')} trained on all images, without validation MSE:"
            " not compared."
        )
    for model in schema.MODELS:
        rows = neighbours.neighbour_trials(trials, model)
        if rows.empty:
            gaps.append(f"No neighbour trials of {model} on the search's images.")
        elif neighbours.reference_setting(rows, model) is None:
            gaps.append(
                f"The neighbours of {model} have no setting in common from which each differs in"
                " one factor: not compared."
            )
        elif neighbours.reference_spread(trials, model) is None:
            gaps.append(
                f"The unchanged reference among the neighbours of {model} has not completed: there"
                " is nothing to compare them with."
            )
    return gaps


def _of(drawings: Sequence[Drawing], *kinds: str) -> list[Drawing]:
    """The drawings of these kinds, such as "figure-9-slices"."""
    return [
        drawing
        for drawing in drawings
        if any(drawing.name == kind or drawing.name.startswith(f"{kind}-") for kind in kinds)
    ]
