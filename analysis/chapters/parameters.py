"""What matters in the search: the objective against each parameter, and parameter importances.

The importances are by Optuna's own default evaluator, PED-ANOVA, which compares the settings of
the best trials with those of all completed ones; see S. Watanabe et al., PED-ANOVA, IJCAI 2023
(arXiv:2304.10255). Even a parameter without any influence gets a share, the larger the fewer the
trials, so each share stands beside what chance gives.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.parts import Chapter, Figures, Text
from analysis.chapters.search import STATE_MARKERS, n_trials
from analysis.chapters.settings import (
    best_search_trials,
    completed_search,
    reference_in_search,
    searched_models,
)
from analysis.figures import DARK, MSE_UNIT, MUTED, Points
from analysis.load import Run
from analysis.statistics import keywords, models_of
from analysis.words import count, digits, factor_value, parameter_label, rests_on, share
from study.folder import schema

IMPORTANCES: Final = "figure-importances"
SLICES: Final = "figure-slices"
ROW_INCHES: Final = 0.34
# What `parameter_table` has beside the parameters.
BESIDE: Final = ("trial_id", "state", "epochs_completed", "value")
# These have a log axis. Other numbers of many values have an axis too; the rest are categories.
LOG_PARAMETERS: Final = tuple(
    p.parameter for p in schema.HYPERPARAMETERS if isinstance(p.search, schema.Range)
)
EVALUATOR: Final = "Optuna's default evaluator, PED-ANOVA"
MAX_CATEGORIES: Final = 6
DECADE: Final = 10.0  # numbers that span one have a log axis
BEST_SHARE: Final = 0.25  # of the completed trials, whose settings are compared with all
# Optuna advises at least five trials among the best: its page on PedAnovaImportanceEvaluator.
MIN_BEST: Final = 5
MIN_COMPLETED: Final = int(MIN_BEST / BEST_SHARE)
N_PERMUTATIONS: Final = 100
CHANCE_QUANTILE: Final = 0.95
SEED: Final = 0

WITHOUT_VALUE: Final = (schema.DIVERGED, schema.FAILED)
HOLLOW: Final[dict[str, Any]] = {
    "marker": "o",
    "markerfacecolor": "none",
    "markeredgecolor": MUTED,
    "linestyle": "none",
}
# Around trials that stand out; of two around one trial both are seen.
BEST, AT_REFERENCE = "best", "the reference's setting"
RINGS: Final[Mapping[str, dict[str, Any]]] = {
    BEST: {"markeredgecolor": "#000000", "markersize": 8, "markeredgewidth": 1.3},
    AT_REFERENCE: {"markeredgecolor": "#c2185b", "markersize": 11.5, "markeredgewidth": 1.3},
}
PANEL_POINTS: Final = 8
PANEL_INCHES: Final = 1.65  # the height of a panel
COLUMNS: Final = 2
GOLDEN: Final = 0.618034  # multiples of it, modulo 1, are spread evenly: a jitter without chance


def parameter_table(trials: pd.DataFrame, model: str) -> pd.DataFrame:
    """A model's ended search trials as points of the search space, in the order of the table.

    Returns:
        Columns trial_id, state, epochs_completed, value (the objective at the last epoch: final
        for a completed trial, where it was stopped for a pruned one, otherwise missing) and the
        parameters of the model's space: of one of a person's own its arguments as well.
    """
    search = trials[
        (trials["group"] == schema.SEARCH)
        & (trials["model"] == model)
        & (trials["state"] != schema.RUNNING)
    ]
    values = {
        p.parameter: search[p.name].map(p.to_parameter) if p.complement else search[p.name]
        for p in schema.hyperparameters_of(model)
    }
    given = [keywords(text) for text in search["arguments"]]
    custom = pd.DataFrame(given, index=search.index).convert_dtypes()
    for name in custom:
        if custom[name].dtype == object:  # values of several kinds
            custom[name] = custom[name].map(str, na_action="ignore")
    custom = custom.rename(columns={name: f"{name} (argument)" for name in (*BESIDE, *values)})
    value = search[schema.OBJECTIVE].where(search["state"].isin([schema.COMPLETED, schema.PRUNED]))
    columns = search[["trial_id", "state", "epochs_completed"]]
    found = columns.assign(value=value, **{str(name): custom[name] for name in custom} | values)
    return found.reset_index(drop=True)


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
        axis = axis_of(table[name])
        if axis == "categories":
            space[name] = optuna.distributions.CategoricalDistribution(
                sorted(table[name].unique().tolist())
            )
        else:
            low, high = float(table[name].min()), float(table[name].max())
            space[name] = optuna.distributions.FloatDistribution(low, high, log=axis == "log")
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


def plot_importances(data: pd.DataFrame, ax: Axes, color: str = DARK) -> Axes:
    """A bar a parameter, hollow where it does not exceed what chance gives, and a mark for that.

    `data` is of `importances`.
    """
    beyond = data["share"] > data["chance"]
    places = np.arange(len(data))
    ax.barh(
        places,
        data["share"],
        0.6,
        color=[color if found else "white" for found in beyond],
        edgecolor=[color if found else MUTED for found in beyond],
    )
    off = data["chance"] > 1  # chance alone would give it more than all have together
    mark: dict[str, Any] = {"color": "black", "linestyle": "none", "clip_on": False}
    label = "one in twenty exceeds this by chance"
    bar = mark | {"marker": "|", "markersize": 15, "markeredgewidth": 1.6}
    ax.plot(data["chance"].where(~off), places, **bar, label=label)
    if off.any():
        label = "the same, beyond the axis"
        ax.plot(np.ones(off.sum()), places[off], **mark, marker=">", markersize=5, label=label)
    ax.set_yticks(places, [parameter_label(name) for name in data["parameter"]])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("Share of the importance")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def plot_slice(
    data: pd.DataFrame,
    ax: Axes,
    parameter: str,
    color: str = DARK,
    marked: Mapping[str, str] | None = None,
) -> Axes:
    """The objective against one parameter, log axis, a mark a trial.

    Args:
        data: of `parameter_table`.
        ax: where to draw.
        parameter: a column of the data.
        color: of the completed trials.
        marked: ids of trials to ring, by a key of `RINGS`.
    """
    places, labels = places_of(data, parameter), _categories(data[parameter])
    state = data["state"].to_numpy()
    value = data["value"].to_numpy(dtype=float)
    pruned, completed = state == schema.PRUNED, state == schema.COMPLETED
    ax.plot(places[pruned], value[pruned], markersize=3.6, markeredgewidth=0.8, **HOLLOW)
    ax.plot(places[completed], value[completed], "o", color=color, alpha=0.75, markersize=4.2)
    for label, trial_id in (marked or {}).items():
        found = (data["trial_id"] == trial_id).to_numpy()
        ax.plot(
            places[found],
            value[found],
            **HOLLOW | RINGS[label],
            zorder=4,
        )
    low, high = np.nanmin(value), np.nanmax(value)
    margin = (high / low) ** 0.08 * 1.02
    without_value = np.isin(state, WITHOUT_VALUE).any()
    room = (high / low) ** 0.15 if without_value else 1.0  # for the marks at the bottom
    ax.set(yscale="log", ylim=(low / margin / room, high * margin))
    for name in WITHOUT_VALUE:
        ax.plot(
            places[state == name],
            np.full((state == name).sum(), 0.06),
            STATE_MARKERS[name],
            color="#444444",
            markersize=3.6,
            transform=ax.get_xaxis_transform(),
        )
    ax.margins(x=0.1)
    if labels:
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_xticks(range(len(labels)), labels)
        ax.grid(visible=False, axis="x")
    elif axis_of(data[parameter]) == "log":
        ax.set_xscale("log")
        figures.log_axis(ax.xaxis, 5)
    figures.log_axis(ax.yaxis, 6)
    ax.minorticks_off()
    ax.tick_params(labelsize=PANEL_POINTS)
    ax.set_ylabel(f"Validation MSE,\n{MSE_UNIT}", fontsize=PANEL_POINTS)
    ax.set_xlabel(parameter_label(parameter), labelpad=2)
    return ax


def slice_legend(data: pd.DataFrame, color: str, marked: Iterable[str]) -> list[Line2D]:
    """What the marks of `plot_slice` mean.

    Args:
        data: of `parameter_table`.
        color: of the completed trials.
        marked: keys of `RINGS`.
    """
    states = set(data["state"])
    handles = [Line2D([], [], color=color, marker="o", linestyle="none", label=schema.COMPLETED)]
    if schema.PRUNED in states:
        handles.append(Line2D([], [], **HOLLOW, label=pruned_label(data)))
    handles += [Line2D([], [], **HOLLOW | RINGS[label], label=label) for label in marked]
    handles += [
        Line2D(
            [],
            [],
            color="#444444",
            marker=STATE_MARKERS[state],
            linestyle="none",
            label=f"{state}: no value",
        )
        for state in WITHOUT_VALUE
        if state in states
    ]
    return handles


def pruned_label(data: pd.DataFrame) -> str:
    """What a pruned trial's mark stands for, with the epochs that these had."""
    epochs = data.loc[data["state"] == schema.PRUNED, "epochs_completed"].dropna()
    if epochs.empty:
        return "pruned: where it stopped"
    low, high = epochs.min(), epochs.max()
    when = f"epoch {low}" if low == high else f"epochs {low} to {high}"
    return f"pruned: value at {when}"


def places_of(data: pd.DataFrame, parameter: str) -> npt.NDArray[np.float64]:
    """Where each row of a `parameter_table` lies on the parameter's axis; categories fan out."""
    column = data[parameter]
    if axis_of(column) != "categories":
        return column.to_numpy(dtype=float, na_value=np.nan)
    number = {value: place for place, value in enumerate(sorted(column.dropna().unique()))}
    fan = 0.5 * ((np.arange(len(data)) * GOLDEN) % 1 - 0.5)
    places = column.map(number, na_action="ignore").astype("float64")
    return np.asarray(places.to_numpy(dtype=float) + fan)


def _categories(column: pd.Series) -> list[str]:
    """The labels of a parameter's categories; none on an axis of numbers."""
    if axis_of(column) != "categories":
        return []
    return [factor_value(value) for value in sorted(column.dropna().unique())]


def chapter(run: Run) -> Chapter:
    """Importances and slices of each searched architecture."""
    models = searched_models(run.trials)
    title = "What matters in the search"
    with figures.style():
        found = {model: importances(run.trials, model) for model in models}
        bars = [_draw_importances(run, m, data) for m, data in found.items() if data is not None]
        slices = [figure for model in models if (figure := _draw_slices(run, model))]
    shown = [*bars, *slices]
    why = [Text(importance_gap(run.trials, m), soft=True) for m in models if found[m] is None]
    return Chapter("parameters", title, [*why, Figures(shown)] if shown else [])


def importance_gap(trials: pd.DataFrame, model: str) -> str:
    """Why a model has no parameter importances."""
    n = int((completed_search(trials)["model"] == model).sum())
    if n >= MIN_COMPLETED:
        return f"No parameter importances of {model}: its completed trials do not differ."
    return (
        f"No parameter importances of {model}: {count(n, 'completed search trial')}, of at least"
        f" {MIN_COMPLETED}; below that, what they show is mostly chance."
    )


def _color(run: Run, model: str) -> str:
    """A model's colour, as elsewhere on the page."""
    return str(figures.looks_of(models_of(run.trials))[model]["color"])


def _draw_importances(run: Run, model: str, data: pd.DataFrame) -> parts.Figure:
    figure, ax = figures.new_figure(1.1 + ROW_INCHES * len(data))
    plot_importances(data, ax, _color(run, model))
    shares = ", ".join(
        f"{parameter_label(row['parameter'])} {share(row['share'])}"
        f" (chance: {share(row['chance']) if row['chance'] <= 1 else 'over 100 %'})"
        for _, row in data.iterrows()
    )
    n = (completed_search(run.trials)["model"] == model).sum()
    return figures.finish(
        figure,
        f"{IMPORTANCES}-{model}",
        f"{model}: importance of each parameter",
        f"{shares}.",
        f"{EVALUATOR}: how much the settings of the best {share(BEST_SHARE)} of the trials differ"
        f" from those of all, n = {n} completed trials, one seed each. Pruned, diverged and failed"
        " trials are not in it: with a scheduler the completed ones are a selection. “Chance” is"
        f" what one in twenty of {N_PERMUTATIONS} permutations of the objective exceeds; a hollow"
        " bar does not exceed it.",
        rests_on(run),
    )


def _draw_slices(run: Run, model: str) -> parts.Figure | None:
    data = parameter_table(run.trials, model)
    parameters = varied_parameters(data)
    if not parameters or data["value"].isna().all():
        return None
    leading = best_search_trials(run.trials, 1)
    at_reference = reference_in_search(run.trials, model, run.manifest["spec"].get("batch_size"))
    ringed = {
        BEST: leading[leading["model"] == model],
        AT_REFERENCE: completed_search(at_reference),
    }
    marked = {label: rows["trial_id"].iloc[0] for label, rows in ringed.items() if len(rows)}
    color = _color(run, model)
    n_rows = math.ceil(len(parameters) / COLUMNS)
    figure = figures.empty_figure(PANEL_INCHES * n_rows + 0.8)
    axes = figure.subplots(n_rows, COLUMNS, sharey=True, squeeze=False).ravel().tolist()
    for ax in axes[len(parameters) :]:
        ax.remove()
    for ax, parameter in zip(axes, parameters, strict=False):
        plot_slice(data, ax, parameter, color, marked)
    for ax in axes[1 : len(parameters) : COLUMNS]:
        ax.set_ylabel("")
    legend = slice_legend(data, color, marked)
    figure.legend(handles=legend, loc="outside upper left", ncols=2)
    pruned = (
        " Hollow: pruned, at the last epoch's value." if schema.PRUNED in set(data["state"]) else ""
    )
    fanned = ""
    if any(axis_of(data[parameter]) == "categories" for parameter in parameters):
        fanned = " Categories are spread sideways to be seen."
    known = data.dropna(subset="value").reset_index(drop=True)
    said = [
        f"{row['trial_id']}: {digits(row['value'])}; {words}"
        + (f"; pruned at epoch {row['epochs_completed']}" if row["state"] == schema.PRUNED else "")
        for (_, row), words in zip(
            known.iterrows(), _words(known, parameters).tolist(), strict=True
        )
    ]
    least = known.loc[known["state"] == schema.COMPLETED, "value"]
    best_words = ""
    if len(least):
        best = _words(known.loc[[least.idxmin()]], parameters).iloc[0]
        best_words = f" The best, {digits(least.min())}, has {best}."
    constant = [str(name) for name in data if name not in (*BESIDE, *parameters)]
    same = _words(data.iloc[:1], constant).iloc[0] if constant else ""
    return figures.finish(
        figure,
        f"{SLICES}-{model}",
        f"{model}: validation MSE against each parameter",
        f"A mark a search trial of {model}, in a panel a parameter:"
        f" {', '.join(map(parameter_label, parameters))}.{best_words}",
        f"{n_trials(run.trials, run.manifest, model)}.{pruned}{fanned}"
        + (f" The same in all: {same}." if same else ""),
        rests_on(run),
        by="point",
        points=[
            (
                ax,
                Points(
                    0,
                    places_of(data, parameter)[data["value"].notna().to_numpy()],
                    known["value"],
                    said,
                ),
            )
            for ax, parameter in zip(axes, parameters, strict=False)
        ],
    )


def _words(data: pd.DataFrame, parameters: Iterable[str]) -> pd.Series:
    """The setting of each row in words."""
    names = list(parameters)
    return pd.Series(
        [
            ", ".join(f"{parameter_label(n).lower()} {factor_value(row[n])}" for n in names)
            for _, row in data.iterrows()
        ],
        dtype="object",
    )
