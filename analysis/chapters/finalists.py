"""The finalists: the search's best settings and the reference's, trained again with fresh seeds.

A search judges a setting by one seed and keeps the luckiest of many, so what it promises is too
good: the winner's curse. Fresh seeds tell by how much, and which setting is the best on average.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from analysis import plots
from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    count,
    digits,
    ends,
    interval,
    lost_words,
    mean_and_sd,
    ordinal,
    seeds,
)
from analysis.plots import Drawing, Marks
from analysis.settings import Setting
from analysis.verdicts import compared
from study.folder import schema

FIGURE: Final = "figure-finalists"
ROW_INCHES: Final = 0.3


def completed_search(run: Run) -> pd.DataFrame:
    """The search trials that have an objective, each model's best first, with a column `rank`.

    The rank is among the model's, from 1.
    """
    trials = run.trials
    done = trials[(trials["group"] == schema.SEARCH) & (trials["state"] == schema.COMPLETED)]
    done = done.dropna(subset=schema.OBJECTIVE)
    rank = done.groupby("model")[schema.OBJECTIVE].rank(method="min").astype(int)
    return done.assign(rank=rank).sort_values(["model", schema.OBJECTIVE], kind="stable")


class Found(NamedTuple):
    """What the search found of a setting, with one seed."""

    value: float  # its objective
    rank: int  # among the completed trials of its model, from 1


def promised(run: Run) -> dict[str, Found]:
    """What the search found of each setting, by label."""
    rows = completed_search(run).drop_duplicates("setting")
    found = map(Found, rows[schema.OBJECTIVE].tolist(), rows["rank"].tolist())
    return dict(zip(rows["setting"].tolist(), found, strict=True))


def standing(one: Setting) -> tuple[bool, int, float]:
    """The least is the best: a setting that lost a seed comes after those that did not."""
    mean = one.mean()
    return mean is None, len(one.lost), np.inf if mean is None else mean.mean


def by_model(run: Run) -> dict[str, list[Setting]]:
    """The finalists of each model, the best first."""
    found = {model: sorted(run.of(schema.FINALIST, model), key=standing) for model in run.models}
    return {model: its for model, its in found.items() if its}


def winner_among(found: Sequence[Setting]) -> Setting | None:
    """The best of one model's finalists, by the plan's rule; None if none has a value."""
    return min((one for one in found if one.mean()), key=standing, default=None)


def label_of(run: Run, one: Setting) -> str:
    """What a setting is among the finalists: "conv, 2nd in the search"."""
    if one.is_reference:
        return f"{one.model}, the reference"
    found = promised(run).get(one.label)
    return f"{one.model}, {f'{ordinal(found.rank)} in' if found else 'not in'} the search"


def sentences(run: Run) -> list[str]:
    """Of each model: what fresh seeds made of the search's first choice, and who wins."""
    firsts = completed_search(run).drop_duplicates("model").set_index("model")["setting"].to_dict()
    return [
        f"{model}: {' '.join(_sentences(run, firsts.get(model, ''), its))}"
        for model, its in by_model(run).items()
    ]


def _sentences(run: Run, first: str, found: Sequence[Setting]) -> list[str]:
    winner = winner_among(found)
    chosen = next((one for one in found if one.label == first), None)
    said = [_curse(promised(run).get(first), chosen)]
    mean = winner.mean() if winner else None
    if winner is None or mean is None:
        return [*said, "No finalist completed: there is no winner by them."]
    value = f"{mean_and_sd(mean)}, {seeds([mean.n])}"
    if winner.is_reference:
        said.append(f"The winner is the reference setting ({value}): nothing tuned is better.")
    else:
        rank = label_of(run, winner).split(", ", 1)[1]
        other = f"The winner is another setting, {rank}: {value}."
        said.append("It is the winner." if winner is chosen else other)
        beside = winner.ratio()
        known = beside and compared("It", beside, "the reference setting", "validation MSE")
        unknown = "Whether it beats the reference setting is not known: that has no such seeds"
        said.append(f"{known or unknown}.")
    if any(one.running for one in found):
        said.append("Not every finalist has ended: the winner may change.")
    return said


def _curse(first: Found | None, chosen: Setting | None) -> str:
    """What became of the search's first choice."""
    if first is None:
        return "no search trial completed."
    value = first.value
    if chosen is None:
        return f"the search's first choice, {digits(value)} with one seed, has no finalist."
    begin = f"the search's first choice had a validation MSE of {digits(value)} with its one seed"
    mean, lost = chosen.mean(), lost_words(chosen)
    lost = f"; {lost}" if lost else ""
    if mean is None:
        return f"{begin} and has none with fresh ones{lost}."
    curse = "no winner's curse here"
    if round(mean.mean / value, 2) > 1:
        chance = "" if mean.excludes(value) else ", or chance: no more than seeds differ by"
        curse = f"the winner's curse{chance}"
    return (
        f"{begin} and has {mean_and_sd(mean)} with {count(mean.n, 'fresh seed')},"
        f" {digits(mean.mean / value)} times as much: {curse}{lost}."
    )


def rows(run: Run) -> list[list[str]]:
    """A row a finalist: what one seed of the search promised, and what fresh seeds give."""
    found, rows = promised(run), []
    for its in by_model(run).values():
        for one in its:
            mean, label = one.mean(), label_of(run, one)
            first = found.get(one.label)
            rows.append(
                [
                    f"{label}: the winner" if one is winner_among(its) else label,
                    f"{one.architecture}: {one.whole}",
                    f"{digits(first.value)} ({ordinal(first.rank)})" if first else NO_VALUE,
                    mean_and_sd(mean),
                    ends(mean) if mean and mean.low is not None else NO_VALUE,
                    str(mean.n if mean else 0),
                    lost_words(one) or NO_VALUE,
                ]
            )
    return rows


def drawing(run: Run) -> Drawing | None:
    """A row a finalist: a dot a fresh seed, their mean, and what the search had; log axis.

    None if no finalist completed.
    """
    found, models = promised(run), by_model(run)
    shown = [one for its in models.values() for one in its if one.mean() or one.label in found]
    if not any(one.mean() for one in shown):
        return None
    looks, winners = plots.looks_of(run.models), list(map(winner_among, models.values()))
    some, labels, beside = [], [], []
    for row, one in enumerate(shown):
        label, look = label_of(run, one), looks[one.model] | {"linestyle": "none"}
        values = one.by_seed()
        texts = [f"{label}, seed {seed}: {digits(value)}" for seed, value in values.items()]
        some.append(Marks(look | {"alpha": 0.6}, values, [row] * len(values), texts=texts))
        if mean := one.mean():
            text = f"{label}: {interval(mean)}"
            some.append(Marks(look | plots.TICK, [mean.mean], [row], texts=[text]))
        if first := found.get(one.label):
            text = f"{label}: {digits(first.value)} in the search"
            some.append(Marks(look | plots.HOLLOW, [first.value], [row], texts=[text]))
        lost = [*one.lost.values(), *["collapsed"] * len(one.collapsed)]
        said = [f"{lost.count(state)} {state}" for state in dict.fromkeys(lost)]
        beside.append(", ".join(["winner"] * any(one is w for w in winners) + said))
        labels.append(label)
    for label, look in (
        ("a fresh seed", {"marker": "o", "alpha": 0.6}),
        ("their mean", plots.TICK),
        ("the search, one seed", plots.HOLLOW),
    ):
        some.append(Marks(look | {"color": "#444444"}, [], [], label))
    with plots.style():
        figure, ax = plots.new_figure(1.2 + ROW_INCHES * len(shown))
        points = plots.marks(ax, some)
        breaks = [n for n in range(1, len(shown)) if shown[n].model != shown[n - 1].model]
        plots.rows_axis(ax, labels, beside=beside, breaks=breaks)
        ax.set(xscale="log", xlabel=f"Validation MSE, {plots.MSE_UNIT}, log axis")
        ax.margins(x=0.08)
        plots.log_axis(ax.xaxis, 6)
        plots.legend_of_marks(ax)
    return Drawing(FIGURE, figure, points, by="point")


def values(run: Run) -> dict[str, Any]:
    """What the template of the search says of the finalists."""
    models, trials = by_model(run), run.trials[run.trials["group"] == schema.FINALIST]
    found = [one for its in models.values() for one in its]
    best = [
        (one, mean)
        for its in models.values()
        if (one := winner_among(its)) and (mean := one.mean())
    ]
    return {
        "sentences": sentences(run),
        "rows": rows(run),
        "drawing": drawing(run),
        "least": ", ".join(f"{label_of(run, one)} {digits(mean.mean)}" for one, mean in best),
        "seeds": seeds(len(one.by_seed()) for one in found) if found else "",
        "n_epochs": max((one.epochs for one in found), default=0),
        "one_seed": len(trials) and int(trials.groupby("model")["seed"].nunique().min()) == 1,
    }
