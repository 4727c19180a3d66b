"""The search: its progress, whether tuning beat the reference, and which model wins tuned.

A trial has an objective only if it completed, and the test set is the winners' alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from analysis import plots, settings
from analysis.chapters import finalists, sensitivity, winners
from analysis.chapters.times import fallbacks, sharing
from analysis.load import Run
from analysis.phrases import count, digits, ends, label_of, listed, share, value_words
from analysis.plots import Drawing, Marks
from convae.config import n_fitted
from study.folder import schema

PROGRESS: Final = "figure-search"
PROGRESS_SECONDS: Final = "figure-search-seconds"
OBJECTIVE_LABEL: Final = f"Validation MSE, {plots.MSE_UNIT}"
STATE_MARKERS: Final = {schema.PRUNED: "x", schema.DIVERGED: "v", schema.FAILED: "P"}
MARKS: Final = {schema.PRUNED: "×", schema.DIVERGED: "▼", schema.FAILED: "✚"}  # as they are drawn
# What a trial kept its device busy with.
DEVICE_SECONDS: Final = [schema.SECONDS, "eval_seconds", "compile_seconds"]


def search_progress(trials: pd.DataFrame) -> pd.DataFrame:
    """The search's trials in the order of the table, numbered from 1 for each model.

    Returns:
        Their rows with the columns number, seconds (of devices, of the model's trials so far and
        this one; what was not recorded counts nothing), value (the objective of a completed trial,
        otherwise missing) and best (the least value so far, missing before the first).
    """
    search = trials[trials["group"] == schema.SEARCH].reset_index(drop=True)
    value = search[schema.OBJECTIVE].where(search["state"] == schema.COMPLETED)
    by_model = search["model"]
    return search.assign(
        number=search.groupby("model").cumcount() + 1,
        seconds=search[DEVICE_SECONDS].sum(axis=1).groupby(by_model).cumsum(),
        value=value,
        best=value.groupby(by_model).cummin().groupby(by_model).ffill(),
    )


def spent(trials: pd.DataFrame) -> pd.DataFrame:
    """What each architecture's search took, whatever became of its trials, by model.

    Columns n_trials, n_completed, n_untimed (trials without recorded training time, which count
    nothing) and seconds.
    """
    search = trials[trials["group"] == schema.SEARCH]
    table = pd.DataFrame(
        {
            "n_trials": 1,
            "n_completed": (search["state"] == schema.COMPLETED).astype(int),
            "n_untimed": search[schema.SECONDS].isna().astype(int),
            "seconds": search[DEVICE_SECONDS].sum(axis=1),
        }
    )
    return table.groupby(search["model"]).sum().loc[settings.models_of(search)]


def budget_ratios(run: Run) -> list[tuple[str, float | None, settings.Estimate | None]]:
    """Ratios of the searches' device seconds and of the winners, then of the untuned models."""
    seconds, its = spent(run.trials)["seconds"].to_dict(), winners.by_model(run)
    rows: list[tuple[str, float | None, settings.Estimate | None]] = []
    for top, bottom in winners.pairs(run, list(map(str, seconds))):
        times = seconds[top] / seconds[bottom] if seconds[bottom] else None
        rows.append((f"{top} ÷ {bottom}", times, settings.ratio(its.get(top), its.get(bottom))))
    if untuned := run.pair_ratio():
        rows.append((f"untuned: {run.ratio_name}", None, untuned))
    return rows


class Tuned(NamedTuple):
    """What a search found for an architecture, with one seed, beside its reference setting."""

    model: str
    n: int  # completed search trials, the reference setting's included
    best: float  # their least objective
    reference: float | None  # the objective with the reference setting; None if it has none
    state: str  # how that trial ended; "" without such a trial
    spread: float | None  # of the reference over seeds, relative; None if not known


def tuned(run: Run, models: Iterable[str]) -> list[Tuned]:
    """What tuning gained with one seed, of the models that have a completed search trial."""
    done, found = run.completed_search, []
    for model in models:
        its = done[done["model"] == model]
        value = its.loc[its["base"] == "", schema.OBJECTIVE].min()
        known = None if pd.isna(value) else float(value)
        states = [s for one in run.of(schema.SEARCH, model) if one.is_reference for s in one.states]
        state, spread = next(iter(states), ""), sensitivity.spread_of(run, model)
        if len(its):
            least = float(its[schema.OBJECTIVE].min())
            found.append(Tuned(model, len(its), least, known, state, spread))
    return found


def over_searches(run: Run) -> str:
    """How often each model wins when searches are repeated, and by how much; "" for one search.

    A search has a seed of its own, and as its result the least validation MSE of its trials.
    """
    done, value = run.completed_search, schema.OBJECTIVE
    best = done.pivot_table(index="seed", columns="model", values=value, aggfunc="min").dropna()
    models = [model for model in settings.models_of(done) if model in best]
    pair = settings.ratio_over_seeds(*(best[m] for m in models[:2])) if len(models) > 1 else None
    if pair is None or pair.low is None:
        return ""
    wins = best.idxmin(axis=1).value_counts()
    each = [f"{m} wins {share(wins.get(m, 0) / len(best))}" for m in models]
    return (
        f"Of {len(best)} searches, each with a seed of its own, {listed(each)}; {models[0]}'s best"
        f" validation MSE in a search is {digits(pair.mean)} times {models[1]}'s (95 % interval"
        f" {ends(pair)}, n = {pair.n} searches)."
    )


def space_words(space: Mapping[str, Any]) -> str:
    """What a search tried of each parameter: "batch size 8 or 16, learning rate 0.1 to 10"."""
    found = []
    for name, how in space["searched"]:
        limits = [value_words(float(how[end])) for end in ("low", "high") if end in how]
        values = " to ".join(limits) or " or ".join(map(value_words, how["grid"]))
        found.append(f"{label_of(name).lower()} {values}")
    return ", ".join(found)


def strip(ax: Axes, lost: pd.DataFrame, colors: Mapping[str, str]) -> None:
    """Marks at the bottom of a log axis: trials without a value have no height.

    Args:
        ax: with its data.
        lost: columns x, state (of `STATE_MARKERS`) and label: which row it is in.
        colors: of the rows, by label; the rows are named if they are several.
    """
    if lost.empty:
        return
    low, high = ax.get_ylim()
    room = 0.08 + 0.06 * len(colors)
    log = ax.get_yscale() == "log"
    ax.set_ylim(low / (high / low) ** room if log else low - (high - low) * room, high)
    some, across = [], {"transform": ax.get_xaxis_transform(), "zorder": 4}
    for row, (label, color) in enumerate(colors.items()):
        height, its = 0.04 + 0.06 * row, lost[lost["label"] == label]
        if len(colors) > 1:
            ax.text(1.01, height, label, transform=ax.transAxes, fontsize=7, va="center")
        for state, rows in its.groupby("state"):
            look = across | {"marker": STATE_MARKERS[str(state)], "color": color}
            some.append(Marks(look, rows["x"].astype(float), [height] * len(rows), series=row))
    for state in lost["state"].unique():
        look = {"marker": STATE_MARKERS[state], "color": "#444444"}
        some.append(Marks(look, [], [], f"{state}: no value"))
    plots.marks(ax, some)


def trial_words(run: Run) -> dict[str, str]:
    """What is read at the mark of each completed search trial, by its id."""
    setting = {one.label: f"{one.architecture}, {one.whole}" for one in run.of(schema.SEARCH)}
    columns = run.completed_search[["trial_id", schema.OBJECTIVE, "setting"]]
    return {
        trial_id: f"{trial_id}: {digits(value)}; {setting[label]}"
        for trial_id, value, label in columns.itertuples(index=False)
    }


def n_trials(run: Run, model: str | None = None) -> str:
    """How many search trials there are, and how they were trained."""
    found = run.searched
    found = found if model is None else found[found["model"] == model]
    counts = found.groupby("model").size().items()
    each = ", ".join(f"{count(n, 'trial')} ({name})" for name, n in counts)
    n_images = run.manifest["data"]["n_train"]
    n = n_fitted(n_images)
    return (
        f"{each}, one seed each, at most {count(found['epochs'].max(), 'epoch')}; trained on {n:,}"
        f" images, validated on {n_images - n:,}"
    )


def drawing(run: Run, by: Literal["number", "seconds"]) -> Drawing | None:
    """Best objective so far against the trials or the device seconds, a step line a model.

    Trials without a final value are marks at the bottom, a row a model. None if none has one.
    """
    data = search_progress(run.trials)
    data = data.assign(x=data[by].astype(float), label=data["model"])
    data = data[data["x"] > 0]  # a log axis has no place for trials before any time
    if data["value"].isna().all():
        return None
    models, looks, some = settings.models_of(data), plots.looks_of(run.models), []
    for place, model in enumerate(models):
        its, look = data[data["model"] == model], looks[model]
        found, known = its.dropna(subset="best"), its.dropna(subset="value")
        step = look | {"drawstyle": "steps-post", "marker": ""}
        ends = [*found["x"], its["x"].max()], [*found["best"], *found["best"].tail(1)]
        if len(found):
            some.append(Marks(step, *ends, f"{model}, best so far", series=place))
        texts = list(known["trial_id"].map(trial_words(run)))
        dots, label = look | {"linestyle": "none", "alpha": 0.75}, f"{model}, completed"
        some.append(Marks(dots, known["x"], known["value"], label, texts, place))
    figure, ax = plots.new_figure(4.0)
    points = plots.marks(ax, some)
    plots.log_scale(ax.yaxis)
    colors = {model: looks[model]["color"] for model in models}
    strip(ax, data[data["state"].isin(STATE_MARKERS)], colors)
    if by == "number":
        plots.epoch_axis(ax, data["number"].max())
        ax.set_xlabel("Search trial of the model")
    else:
        plots.log_axis(ax.xaxis, "Device time of the model's search (s)")
    plots.log_axis(ax.yaxis, OBJECTIVE_LABEL)
    plots.legend_above(ax)
    series = [(model, looks[model]) for model in models]
    name = PROGRESS if by == "number" else PROGRESS_SECONDS
    return Drawing(name, figure, points, series, "point")


def chapter(run: Run) -> dict[str, Any]:
    """What the search found, and who is ahead when the architectures are tuned."""
    searched = run.searched
    models, finals = settings.models_of(searched), finalists.by_model(run)
    cost, tested = spent(run.trials), winners.by_model(run)
    best = run.completed_search.drop_duplicates("model")
    rest = [model for model in models if model not in finals]
    chosen = {m: w.label for m, its in finals.items() if (w := finalists.winner_among(its))}
    return {
        "models": models,
        "cost": cost,
        "each": [f"{n} of {model}" for model, n in cost["n_trials"].items()],
        "sharing_known": bool(searched["n_sharing"].notna().any()),
        "n_shared": int((searched["n_sharing"] > 1).sum()),
        "tuned": winners.tuned_sentence(run),
        "over_searches": over_searches(run),
        "given": run.manifest["spec"]["given_trials"] and "grid" not in run.samplers,
        "spaces": [f"{s['model']}: {space_words(s)}." for s in run.manifest["spaces"][-1]],
        "budget_ratios": budget_ratios(run),
        "tested": tested,
        "drawings": [one for by in ("number", "seconds") if (one := drawing(run, by))],
        "best": listed(f"{r['model']} {digits(r[schema.OBJECTIVE])}" for _, r in best.iterrows()),
        "n_trials": n_trials(run) if models else "",
        "lost": ", ".join(f"{MARKS[s]} {s}" for s in MARKS if (searched["state"] == s).any()),
        "sharing": sharing(run),
        "fallbacks": fallbacks(run),
        "one_seed": tuned(run, rest),
        "finalists": finalists.values(run),
        "winners": winners.values(run),
        "missing": [m for m in run.models if m not in models],
        "no_finalists": rest if run.manifest["spec"]["n_finalists"] else [],
        "untested": [m for m in models if cost.loc[m, "n_completed"] and m not in tested],
        "other_winners": [m for m in chosen if m in tested and chosen[m] != tested[m].label],
    }
