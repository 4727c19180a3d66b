"""The finalists: the search's best settings and the reference's, trained again with fresh seeds.

A search judges a setting by one seed and keeps the luckiest of many, so what it promises is too
good: the winner's curse. Fresh seeds tell by how much, and which setting is the best on average.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.settings import (
    best_search_trials,
    completed_search,
    has_setting,
    key_of,
    reference_setting,
    setting_words,
    with_keys,
)
from analysis.figures import MSE_UNIT, Points
from analysis.load import Run
from analysis.statistics import (
    Estimate,
    collapsed_seeds,
    mean_over_seeds,
    models_of,
    ratio_over_seeds,
    with_names,
)
from analysis.words import count, digits, ends, mean_and_sd, rests_on, seeds, short
from study.folder import schema

FIGURE: Final = "figure-finalists"
ROW_INCHES: Final = 0.3
SMALL_POINTS: Final = 7
NOTE: Final = (
    "The search's best settings and the reference setting, trained again on the search's images"
    " with seeds that the search did not use. The winner is the setting with the least mean"
    " validation MSE; one with a seed that diverged or failed loses. The least of a few means"
    " still flatters a little: the winner's test MSE does not."
)


@dataclass(frozen=True)
class Finalist:
    """A setting that trained again with fresh seeds.

    Attributes:
        trial: one of its trials, for its setting and name.
        is_reference: whether it is the reference setting.
        searched: the objective of the search trial with this setting; None if none completed.
        rank: of that one among its model's completed search trials, from 1.
        by_seed: the objective of its completed trials.
        lost: the seeds that diverged or failed, with how.
        running: the seeds that have not ended.
    """

    trial: pd.Series
    is_reference: bool
    searched: float | None
    rank: int | None
    by_seed: pd.Series
    lost: Mapping[int, str]
    running: tuple[int, ...]

    @property
    def model(self) -> str:
        """Its architecture."""
        return str(self.trial["model"])

    @property
    def mean(self) -> Estimate | None:
        """Of the seeds that completed."""
        return mean_over_seeds(self.by_seed)

    @property
    def label(self) -> str:
        """What it is among the finalists: "conv, 2nd in the search"."""
        place = "" if self.rank is None else f"{ordinal(self.rank)} in the search"
        what = "the reference" if self.is_reference else "not in the search"
        return f"{self.model}, {place if place and not self.is_reference else what}"

    @property
    def words(self) -> str:
        """Its architecture and setting: "dense-512: batch size 64, learning rate 2"."""
        # The setting tells the arguments of a person's own model.
        name = self.trial["name"] if self.model in schema.MODELS else self.model
        return f"{name}: {setting_words(self.trial)}"

    @property
    def standing(self) -> tuple[bool, int, float]:
        """The least is the best: a setting that lost a seed comes after those that did not."""
        mean = self.mean
        return mean is None, len(self.lost), np.inf if mean is None else mean.mean

    @property
    def collapsed(self) -> list[int]:
        """The seeds that completed far above the best one."""
        return collapsed_seeds(self.by_seed)

    @property
    def troubles(self) -> str:
        """The seeds that diverged, failed, collapsed or have not ended; "" for none."""
        found = [f"seed {seed} {state}" for seed, state in self.lost.items()]
        found += [f"seed {s} collapsed ({digits(self.by_seed[s])})" for s in self.collapsed]
        return ", ".join([*found, *(f"seed {seed} not ended" for seed in self.running)])


def ordinal(n: int) -> str:
    """A place: "1st", "2nd", "11th"."""
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def finalists(trials: pd.DataFrame, batch_size: int | None) -> list[Finalist]:
    """The finalists of each model, the best first.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference setting; None if the run does not say.
    """
    rows = with_keys(with_names(trials[trials["group"] == schema.FINALIST]))
    searched = with_keys(completed_search(trials))
    found = []
    for model in models_of(rows):
        its = searched[searched["model"] == model]
        objective = its.groupby("key")[schema.OBJECTIVE].min()
        setting = reference_setting(trials, model, batch_size)
        for key, of_setting in rows[rows["model"] == model].groupby("key", sort=False):
            named = of_setting["trial_id"].str.startswith(f"{schema.FINALIST}-{model}-reference-s")
            same = setting is not None and has_setting(of_setting, setting).all()
            ended = of_setting.drop_duplicates("seed").set_index("seed").sort_index()
            done = ended["state"] == schema.COMPLETED
            lost = ended.loc[~done & (ended["state"] != schema.RUNNING), "state"]
            value = objective.get(key)
            found.append(
                Finalist(
                    of_setting.iloc[0],
                    bool(named.any() or same),
                    None if value is None else float(value),
                    None if value is None else 1 + int((its[schema.OBJECTIVE] < value).sum()),
                    ended.loc[done, schema.OBJECTIVE].dropna(),
                    dict(zip(lost.index.tolist(), lost.tolist(), strict=True)),
                    tuple(ended.index[ended["state"] == schema.RUNNING].tolist()),
                )
            )
    order = models_of(rows)
    return sorted(found, key=lambda one: (order.index(one.model), one.standing))


def winner_among(found: Sequence[Finalist]) -> Finalist | None:
    """The best of one model's finalists, by the plan's rule; None if none has a value."""
    valued = [one for one in found if one.mean is not None]
    return min(valued, key=lambda one: one.standing, default=None)


def by_model(found: Sequence[Finalist]) -> dict[str, list[Finalist]]:
    """The finalists of each model."""
    models = dict.fromkeys(one.model for one in found)
    return {model: [one for one in found if one.model == model] for model in models}


def finalist_table(found: Sequence[Finalist]) -> parts.Table:
    """A row a finalist: what one seed of the search promised, and what fresh seeds give."""
    winners = [winner_among(its) for its in by_model(found).values()]
    rows = []
    for one in found:
        mean = one.mean
        interval = parts.NO_VALUE
        if mean is not None and mean.low is not None:
            interval = ends(mean)
        promised = parts.NO_VALUE
        if one.searched is not None:
            promised = f"{digits(one.searched)} ({ordinal(one.rank or 1)})"
        won = any(one is winner for winner in winners)
        rows.append(
            (
                one.label + (": the winner" if won else ""),
                one.words,
                promised,
                mean_and_sd(mean),
                interval,
                str(len(one.by_seed)),
                one.troubles or parts.NO_VALUE,
            )
        )
    header = ("Finalist", "Setting", "In the search, one seed (rank)", "Mean over fresh seeds")
    rest = ("95 % interval", "n", "Seeds that went wrong")
    return parts.Table((*header, *rest), rows, right=(2, 3, 4, 5))


def finalist_sentences(trials: pd.DataFrame, found: Sequence[Finalist]) -> list[str]:
    """What fresh seeds made of the search's first choice, and who wins; a sentence or more each."""
    best = best_search_trials(trials, 1)
    firsts = {str(trial["model"]): trial for _, trial in best.iterrows()}
    return [
        f"{model}: {' '.join(_sentences(firsts.get(model), its))}"
        for model, its in by_model(found).items()
    ]


def _sentences(first: pd.Series | None, found: Sequence[Finalist]) -> list[str]:
    winner = winner_among(found)
    chosen = None
    if first is not None:
        chosen = next((one for one in found if key_of(one.trial) == key_of(first)), None)
    said = [_curse(first, chosen)]
    if winner is None:
        return [*said, "No finalist completed: there is no winner by them."]
    value = _of_seeds(winner)
    if winner.is_reference:
        said.append(f"The winner is the reference setting ({value}): nothing tuned is better.")
    elif winner is chosen:
        said.append("It is the winner all the same." if chosen.troubles else "It is the winner.")
    else:
        rank = "" if winner.rank is None else f", the {ordinal(winner.rank)} in the search"
        said.append(f"The winner is another setting{rank}: {value}.")
    if not winner.is_reference:
        said.append(_beside_reference(winner, found))
    if any(one.running for one in found):
        said.append("Not every finalist has ended: the winner may change.")
    return said


def _curse(first: pd.Series | None, chosen: Finalist | None) -> str:
    if first is None:
        return "no search trial completed."
    promised = digits(first[schema.OBJECTIVE])
    if chosen is None:
        return f"the search's first choice, {promised} with one seed, has no finalist."
    begin = f"the search's first choice had a validation MSE of {promised} with its one seed"
    mean = chosen.mean
    lost = f"; {chosen.troubles}" if chosen.troubles else ""
    if mean is None:
        return f"{begin} and has none with fresh ones{lost}."
    ratio = mean.mean / float(first[schema.OBJECTIVE])
    curse = "no winner's curse here"
    if round(ratio, 2) > 1:
        curse = "the winner's curse"
        if not mean.excludes(float(first[schema.OBJECTIVE])):
            curse += ", or chance: no more than seeds differ by"
    return (
        f"{begin} and has {mean_and_sd(mean)} with {count(mean.n, 'fresh seed')}, {digits(ratio)}"
        f" times as much: {curse}{lost}."
    )


def _of_seeds(one: Finalist) -> str:
    assert one.mean is not None
    return f"{mean_and_sd(one.mean)}, {seeds([one.mean.n])}"


def ratio_to_reference(winner: Finalist, found: Sequence[Finalist]) -> Estimate | None:
    """A finalist's objective ÷ that of the reference setting, paired by seed; None without it."""
    found = [one for one in found if one.is_reference and one.model == winner.model]
    return ratio_over_seeds(winner.by_seed, found[0].by_seed) if found else None


def _beside_reference(winner: Finalist, found: Sequence[Finalist]) -> str:
    """Whether the winner beats the reference setting beyond chance, paired by seed."""
    ratio = ratio_to_reference(winner, found)
    if ratio is None:
        return "Whether it beats the reference setting is not known: that has no such seeds."
    said = f"It has {short(ratio.mean)} times the reference setting's validation MSE"
    if ratio.low is None:
        return f"{said} (n = 1 seed): one seed cannot tell it from chance."
    bounds = f"95 % interval {short(ratio.lowest)} to {short(ratio.highest)}"
    verdict = "better, beyond chance" if ratio.highest < 1 else "worse, beyond chance"
    if not ratio.excludes(1):
        verdict = "no more than chance"
    return f"{said} ({bounds}, {seeds([ratio.n])}, paired): {verdict}."


def plot_finalists(
    found: Sequence[Finalist], ax: Axes, looks: Mapping[str, Mapping[str, Any]]
) -> Axes:
    """A row a finalist: a dot a fresh seed, their mean, and what the search had; log axis."""
    winners = [winner_among(its) for its in by_model(found).values()]
    beside = []
    for row, one in enumerate(found):
        look = looks[one.model]
        dots: dict[str, Any] = {"color": look["color"], "linestyle": "none"}
        ax.plot(one.by_seed, [row] * len(one.by_seed), marker=look["marker"], alpha=0.6, **dots)
        if one.mean is not None:
            ax.plot(one.mean.mean, row, "|", **dots, markersize=17, markeredgewidth=2.2)
        if one.searched is not None:
            ax.plot(one.searched, row, "o", **dots, markersize=7.5, markerfacecolor="none")
        said = ["winner"] if any(one is winner for winner in winners) else []
        said += [f"{n} {state}" for state, n in _counts(one).items()]
        beside.append(", ".join(said))
    grey: dict[str, Any] = {"color": "#444444", "linestyle": "none"}
    ax.plot([], [], "o", **grey, alpha=0.6, label="a fresh seed")
    ax.plot([], [], "|", **grey, markersize=13, markeredgewidth=2.2, label="their mean")
    hollow = "the search, one seed"
    ax.plot([], [], "o", **grey, markersize=7.5, markerfacecolor="none", label=hollow)
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_yticks(range(len(found)), [one.label for one in found], fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    for last in range(1, len(found)):
        if found[last].model != found[last - 1].model:
            ax.axhline(last - 0.5, color="#d2d2d2", linewidth=0.8)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(found)), beside)
    right.tick_params(length=0, labelsize=SMALL_POINTS)
    right.spines[:].set_visible(False)
    ax.set(xscale="log", xlabel=f"Validation MSE, {MSE_UNIT}, log axis")
    ax.margins(x=0.08)
    figures.log_axis(ax.xaxis, 6)
    place: dict[str, Any] = {"bbox_to_anchor": (1.15, 1), "ncols": 3, "columnspacing": 0.8}
    ax.legend(loc="lower right", **place, handlelength=1.2)
    return ax


def _counts(one: Finalist) -> dict[str, int]:
    states = [*one.lost.values(), *["collapsed"] * len(one.collapsed)]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def content(run: Run) -> list[parts.Part]:
    """The finalists' table, figure and sentences; nothing of a run without any."""
    found = finalists(run.trials, run.manifest["spec"].get("batch_size"))
    if not found:
        return []
    known = [one for one in found if one.mean is not None or one.searched is not None]
    with figures.style():
        drawn = [_draw(run, known)] if any(one.mean is not None for one in known) else []
    return [
        parts.Heading("Did tuning beat the reference setting, over fresh seeds?"),
        parts.Items(finalist_sentences(run.trials, found)),
        *([parts.Figures(drawn)] if drawn else []),
        finalist_table(found),
        parts.Text(NOTE, soft=True),
    ]


def gaps(run: Run) -> list[str]:
    """What the finalists cannot show."""
    trials = run.trials
    asked = run.manifest["spec"].get("n_finalists")
    rows = trials[trials["group"] == schema.FINALIST]
    searched = models_of(trials[trials["group"] == schema.SEARCH])
    found = [
        f"No finalists of {model}: its winner is the best search trial, of one seed."
        for model in searched
        if asked and model not in set(rows["model"])
    ]
    if len(rows) and int(rows.groupby("model")["seed"].nunique().min()) == 1:
        found.append("A finalist of one fresh seed has no interval: what it shows may be chance.")
    return found


def _draw(run: Run, found: Sequence[Finalist]) -> parts.Figure:
    figure, ax = figures.new_figure(1.2 + ROW_INCHES * len(found))
    plot_finalists(found, ax, figures.looks_of(models_of(run.trials)))
    best = [one for its in by_model(found).values() if (one := winner_among(its)) and one.mean]
    means = ", ".join(f"{one.label} {digits(one.mean.mean)}" for one in best if one.mean)
    points = []
    for row, one in enumerate(found):
        said = [f"{one.label}, seed {s}: {digits(value)}" for s, value in one.by_seed.items()]
        points.append((ax, Points(0, one.by_seed, [row] * len(said), said)))
        if one.searched is not None:
            text = f"{one.label}: {digits(one.searched)} in the search"
            points.append((ax, Points(0, [one.searched], [row], [text])))
    n_epochs = int(max(one.trial["epochs"] for one in found))
    return figures.finish(
        figure,
        FIGURE,
        "Validation MSE of the finalists, over fresh seeds",
        f"The least mean: {means}." if best else "No finalist has all of its seeds.",
        f"{seeds(len(one.by_seed) for one in found)} a setting, {count(n_epochs, 'epoch')}; the"
        " best of each model first. Hollow: the one seed of the search.",
        rests_on(run),
        by="point",
        points=points,
    )
