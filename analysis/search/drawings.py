"""Finished figures of the search and of the reference's neighbours, with what each rests on.

`analysis.search.plots` and `analysis.search.setting_plots` draw on axes; this module chooses the
data and says it in words.
"""

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from analysis import figures
from analysis.drawings import Drawing, finish, side_by_side
from analysis.search import importances, neighbours, plots, results, setting_plots
from analysis.search.plots import LOOKS
from analysis.words import (
    count,
    devices,
    digits,
    factor_value,
    parameter_label,
    readings,
    share,
    tensorflow,
)
from study.folder import schema

# The kinds of figure, as the middle of their file names; the page puts them where they belong.
PROGRESS: Final = "figure-6-search"
PROGRESS_SECONDS: Final = "figure-7-search-seconds"
IMPORTANCES: Final = "figure-8-importances"
SLICES: Final = "figure-9-slices"
PARALLEL: Final = "figure-10-parallel"
SENSITIVITY: Final = "figure-11-sensitivity"
PARETO: Final = "figure-12-pareto"

COLOR_MAPS: Final = {schema.CONV: "Blues", schema.DENSE: "Oranges"}
ROW_INCHES: Final = 0.24


def draw_search(manifest: Mapping[str, Any], trials: pd.DataFrame) -> list[Drawing]:
    """The figures of the search and of the neighbours that the run has data for.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
    """
    with figures.style():
        drawn = [_draw_progress(manifest, trials), _draw_progress_seconds(manifest, trials)]
        for draw in (_draw_importances, _draw_slices, _draw_parallel, _draw_sensitivity):
            drawn += [draw(manifest, trials, model) for model in schema.MODELS]
        drawn.append(_draw_pareto(manifest, trials))
    return [drawing for drawing in drawn if drawing is not None]


def is_timed(manifest: Mapping[str, Any]) -> bool:
    """Whether the search minimised the training time as well."""
    return bool(manifest["spec"].get("objective", schema.MSE_ALONE) == schema.MSE_AND_TIME)


def _draw_progress(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Drawing | None:
    data = results.search_progress(trials)
    if data["value"].notna().sum() == 0:
        return None
    figure, ax = figures.new_figure(4.0)
    plots.plot_progress(data, ax)
    return finish(
        figure,
        PROGRESS,
        "Figure 6. Search: best validation MSE so far",
        f"Best validation MSE of the search: {_best(data)}.",
        f"{_n_trials(trials)}. Trials that were pruned, diverged or failed have no value and are"
        f" marks at the bottom. {_rests_on(manifest, trials)}",
    )


def _draw_progress_seconds(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Drawing | None:
    data = results.search_progress(trials)
    data = data[data["seconds"] > 0]  # a log axis has no place for trials before any time
    if data["value"].notna().sum() == 0:
        return None
    figure, ax = figures.new_figure(4.0)
    plots.plot_progress(data, ax, by="seconds")
    spent = results.spent(trials)
    n_untimed = int(spent["n_untimed"].sum())
    untimed = (
        f" {count(n_untimed, 'trial')} without recorded time count nothing." if n_untimed else ""
    )
    seconds = ", ".join(f"{model} {row['seconds']:,.0f} s" for model, row in spent.iterrows())
    return finish(
        figure,
        PROGRESS_SECONDS,
        "Figure 7. Search: best validation MSE against device time",
        f"Device time of the whole search: {seconds}; best validation MSE: {_best(data)}.",
        "Training, evaluation and compilation of all of the model's search trials so far, pruned"
        f" and diverged ones included, in the order of the table{side_by_side(manifest)}."
        f"{untimed} {_n_trials(trials)}. {_rests_on(manifest, trials)}",
    )


def _draw_importances(
    manifest: Mapping[str, Any], trials: pd.DataFrame, model: str
) -> Drawing | None:
    data = importances.importances(trials, model)
    if data is None:
        return None
    figure, ax = figures.new_figure(1.1 + 1.4 * ROW_INCHES * len(data))
    plots.plot_importances(data, ax, LOOKS[model]["color"])
    shares = ", ".join(
        f"{parameter_label(row['parameter'])} {share(row['share'])}"
        f" (chance: {share(row['chance']) if row['chance'] <= 1 else 'over 100 %'})"
        for _, row in data.iterrows()
    )
    n = (results.completed_search(trials)["model"] == model).sum()
    return finish(
        figure,
        f"{IMPORTANCES}-{model}",
        f"Figure 8, {model}. What matters: importance of each parameter",
        f"{shares}.",
        f"{importances.EVALUATOR}: how much the settings of the best"
        f" {share(importances.BEST_SHARE)} of the trials differ from those of all, n = {n}"
        " completed trials, one seed each."
        " Pruned, diverged and failed trials are not in it: with a scheduler the completed ones are"
        f" a selection. “Chance” is what one in twenty of {importances.N_PERMUTATIONS} permutations"
        " of the objective among these trials exceeds; a hollow bar does not exceed it."
        f" {_rests_on(manifest, trials, model)}",
    )


def _draw_slices(manifest: Mapping[str, Any], trials: pd.DataFrame, model: str) -> Drawing | None:
    data = results.parameter_table(trials, model)
    parameters = results.varied_parameters(data)
    if not parameters or data["value"].isna().all():
        return None
    marked = _marked(manifest, trials, model)
    color = LOOKS[model]["color"]
    figure, axes = setting_plots.new_panels(len(parameters))
    for ax, parameter in zip(axes, parameters, strict=True):
        setting_plots.plot_slice(data, ax, parameter, color, marked)
    for ax in axes[1 :: setting_plots.COLUMNS]:
        ax.set_ylabel("")
    legend = setting_plots.slice_legend(data, color, marked)
    hollow = (
        " Hollow: pruned, at the validation MSE of their last epoch, which is not comparable with"
        " that of a whole training."
        if _has_pruned(data)
        else ""
    )
    figure.legend(handles=legend, loc="outside upper left", ncols=2)
    return finish(
        figure,
        f"{SLICES}-{model}",
        f"Figure 9, {model}. Search: validation MSE against each parameter",
        f"A mark a search trial of {model}, in a panel a parameter:"
        f" {', '.join(map(parameter_label, parameters))}.{_best_words(data, parameters)}",
        f"{_n_trials(trials, model)}.{hollow} Categories are spread sideways to be seen."
        f"{_constant(data)} {_rests_on(manifest, trials, model)}",
    )


def _draw_parallel(manifest: Mapping[str, Any], trials: pd.DataFrame, model: str) -> Drawing | None:
    data = results.parameter_table(trials, model)
    parameters = results.varied_parameters(data)
    if not parameters or not (data["state"] == schema.COMPLETED).any():
        return None
    figure, ax = figures.new_figure(3.6)
    setting_plots.plot_parallel(data, ax, parameters, COLOR_MAPS[model])
    dashed = (
        " Dashed: pruned, to the validation MSE of their last epoch, on an axis of its own."
        if _has_pruned(data)
        else ""
    )
    return finish(
        figure,
        f"{PARALLEL}-{model}",
        f"Figure 10, {model}. Search: settings and their validation MSE",
        f"A line a search trial of {model} through its setting to its validation MSE."
        f"{_best_words(data, parameters)}",
        f"{_n_trials(trials, model)}. Learning rate, 1 − momentum and the validation MSE are on log"
        f" axes.{dashed} Lines of a category are spread to be seen.{_constant(data)}"
        f" {_rests_on(manifest, trials, model)}",
    )


def _draw_sensitivity(
    manifest: Mapping[str, Any], trials: pd.DataFrame, model: str
) -> Drawing | None:
    data = neighbours.sensitivity(trials, model)
    if data["n"].sum() == 0:
        return None
    reference = neighbours.reference_spread(trials, model)
    spread = neighbours.relative_spread(reference)
    figure, ax = figures.new_figure(1.3 + ROW_INCHES * len(data))
    plots.plot_sensitivity(data, ax, spread, LOOKS[model]["color"])
    rows = data.dropna(subset="mean").sort_values("mean")
    ends = " and ".join(
        f"{parameter_label(row['factor']).lower()} {factor_value(row['value'])}"
        f" ({digits(row['mean'])})"
        for _, row in rows.iloc[[0, -1] if len(rows) > 1 else [0]].iterrows()
    )
    trained = neighbours.neighbour_trials(trials, model)
    seeds = "" if reference is None else f"Reference: n = {count(reference.n, 'seed')}. "
    if spread is not None:
        seeds += f"Grey band: its relative sample standard deviation, {share(spread)}. "
    else:
        seeds += "With one seed its spread is not known. "
    return finish(
        figure,
        f"{SENSITIVITY}-{model}",
        f"Figure 11, {model}. One factor of the reference changed at a time",
        f"Validation MSE of {count(len(data), 'neighbour')} of the {model} reference ÷ its own;"
        f" least and greatest: {ends}.",
        "Geometric means of ratios paired by seed with 95 % t-intervals; arrows: an interval goes"
        " on. Trials that diverged or failed are counted at the right and are in no mean. "
        f"{seeds}At most {count(trained['epochs'].max(), 'epoch')}; trained on 50,000 images,"
        f" validated on 10,000 others; the test set is not used. {devices(trained)};"
        f" {tensorflow(manifest)}. {readings(trained)}",
    )


def _draw_pareto(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Drawing | None:
    if not is_timed(manifest):
        return None
    data = results.pareto_trials(trials)
    shown = data[data["comparable"]]
    if shown.empty:
        return None
    figure, ax = figures.new_figure(4.0)
    plots.plot_pareto(data, ax)
    n_other = len(data) - len(shown)
    other = (
        f" {count(n_other, 'trial')} on another device {'is' if n_other == 1 else 'are'} left out."
        if n_other
        else ""
    )
    front = ", ".join(
        f"{row['name']} {row['train_seconds']:.3g} s and {digits(row['val_mse'])}"
        for _, row in shown[shown["on_joint_front"]].iterrows()
    )
    return finish(
        figure,
        PARETO,
        "Figure 12. Search: validation MSE against training time, and the Pareto fronts",
        f"Not dominated, both architectures together: {front}.",
        "Completed search trials, one seed each; a filled mark is dominated by no other of its"
        " architecture. Training time is weight updates only. Trials ran one at a time on a"
        f" device, so that times compare.{other} {_n_trials(shown)}."
        f" {_rests_on(manifest, shown)}",
    )


def _has_pruned(data: pd.DataFrame) -> bool:
    return bool((data["state"] == schema.PRUNED).any())


def _best(progress: pd.DataFrame) -> str:
    best = progress.dropna(subset="value").groupby("model")["value"].min()
    return ", ".join(f"{model} {digits(value)}" for model, value in best.items())


def _best_words(data: pd.DataFrame, parameters: list[str]) -> str:
    done = data[data["state"] == schema.COMPLETED].dropna(subset="value")
    if done.empty:
        return " No trial completed."
    best = done.sort_values("value", kind="stable").iloc[0]
    setting = ", ".join(
        f"{parameter_label(name).lower()} {factor_value(best[name])}" for name in parameters
    )
    return f" The best, {digits(best['value'])}, has {setting}."


def _marked(manifest: Mapping[str, Any], trials: pd.DataFrame, model: str) -> dict[str, str]:
    """The ids of the completed trials that stand out, by a key of `setting_plots.RINGS`."""
    best = results.best_search_trials(trials, 1)
    at_reference = results.reference_in_search(trials, model, manifest["spec"].get("batch_size"))
    found = {
        setting_plots.BEST: best[best["model"] == model],
        setting_plots.AT_REFERENCE: results.completed_search(at_reference),
    }
    return {label: rows["trial_id"].iloc[0] for label, rows in found.items() if len(rows)}


def _constant(data: pd.DataFrame) -> str:
    """The parameters that the search happened not to vary."""
    varied = results.varied_parameters(data)
    constant = [
        f"{parameter_label(name).lower()} {factor_value(data[name].iloc[0])}"
        for name in data
        if name in {*results.PARAMETERS[schema.CONV], *results.PARAMETERS[schema.DENSE]} - {*varied}
    ]
    return f" The same in all of them: {', '.join(constant)}." if constant else ""


def _n_trials(trials: pd.DataFrame, model: str | None = None) -> str:
    """How many search trials there are, and how they were trained."""
    found = trials[trials["group"] == schema.SEARCH]
    if model is not None:
        found = found[found["model"] == model]
    counts = ", ".join(
        f"{count(n, 'trial')} ({name})" for name, n in found.groupby("model").size().items()
    )
    return (
        f"{counts}, one seed each, at most {count(found['epochs'].max(), 'epoch')}; trained on"
        " 50,000 images, validated on 10,000 others; the test set is not used"
    )


def _rests_on(manifest: Mapping[str, Any], trials: pd.DataFrame, model: str | None = None) -> str:
    found = trials[trials["group"] == schema.SEARCH]
    if model is not None:
        found = found[found["model"] == model]
    return f"{devices(found)}; {tensorflow(manifest)}. {readings(found, batch_sizes='searched')}"
