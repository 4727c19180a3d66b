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
from analysis.phrases import NO_VALUE, count, digits, ends, lost_words, mean_and_sd, ordinal, seeds
from analysis.plots import Drawing, Marks
from analysis.settings import Setting
from analysis.verdicts import compared
from study.folder import schema

FIGURE: Final = "figure-finalists"


class Found(NamedTuple):
    """What the search found of a setting, with one seed."""

    value: float  # its objective
    rank: int  # among the completed trials of its model, from 1


def completed_search(run: Run) -> pd.DataFrame:
    """The search trials that have an objective, each model's best first, with a column `rank`.

    The rank is among the model's, from 1.
    """
    trials = run.trials
    done = trials[(trials["group"] == schema.SEARCH) & (trials["state"] == schema.COMPLETED)]
    done = done.dropna(subset=schema.OBJECTIVE)
    rank = done.groupby("model")[schema.OBJECTIVE].rank(method="min").astype(int)
    return done.assign(rank=rank).sort_values(["model", schema.OBJECTIVE], kind="stable")


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
    found = promised(run).get(one.label)
    place = f"{ordinal(found.rank) if found else 'not'} in the search"
    return f"{one.model}, {'the reference' if one.is_reference else place}"


def sentences(run: Run) -> list[str]:
    """Of each model: what fresh seeds made of the search's first choice, and who wins."""
    firsts = completed_search(run).drop_duplicates("model").set_index("model")["setting"].to_dict()
    said = []
    for model, found in by_model(run).items():
        chosen = next((one for one in found if one.label == firsts.get(model)), None)
        curse = _curse(promised(run).get(firsts.get(model, "")), chosen)
        said.append(f"{model}: {curse} {_winner(run, found, chosen)}")
        if any(one.running for one in found):
            said[-1] += " Not every finalist has ended: the winner may change."
    return said


def _curse(first: Found | None, chosen: Setting | None) -> str:
    """What became of the search's first choice."""
    if first is None:
        return "no search trial completed."
    value = digits(first.value)
    if chosen is None:
        return f"the search's first choice, {value} with one seed, has no finalist."
    begin = f"the search's first choice had a validation MSE of {value} with its one seed"
    mean, lost = chosen.mean(), lost_words(chosen)
    lost = f"; {lost}" if lost else ""
    if mean is None:
        return f"{begin} and has none with fresh ones{lost}."
    ratio, curse = mean.mean / first.value, "no winner's curse here"
    if round(ratio, 2) > 1:
        chance = "" if mean.excludes(first.value) else ", or chance: no more than seeds differ by"
        curse = f"the winner's curse{chance}"
    fresh = f"{mean_and_sd(mean)} with {count(mean.n, 'fresh seed')}"
    return f"{begin} and has {fresh}, {digits(ratio)} times as much: {curse}{lost}."


def _winner(run: Run, found: Sequence[Setting], chosen: Setting | None) -> str:
    """Which of a model's finalists wins, and whether it beats the reference."""
    winner = winner_among(found)
    mean = winner.mean() if winner else None
    if winner is None or mean is None:
        return "No finalist completed: there is no winner by them."
    value, beside = f"{mean_and_sd(mean)}, {seeds([mean.n])}", winner.ratio()
    if winner.is_reference:
        return f"The winner is the reference setting ({value}): nothing tuned is better."
    said = f"The winner is another setting, {label_of(run, winner).split(', ', 1)[1]}: {value}."
    said = "It is the winner." if winner is chosen else said
    if beside is None:
        return (
            f"{said} Whether it beats the reference setting is not known: that has no such seeds."
        )
    return f"{said} {compared('It', beside, 'the reference setting', 'validation MSE')}."


def rows(run: Run) -> list[list[str]]:
    """A row a finalist: what one seed of the search promised, and what fresh seeds give."""
    found, rows = promised(run), []
    for its in by_model(run).values():
        for one in its:
            mean, first = one.mean(), found.get(one.label)
            label = label_of(run, one) + (": the winner" if one is winner_among(its) else "")
            search = f"{digits(first.value)} ({ordinal(first.rank)})" if first else NO_VALUE
            between = ends(mean) if mean and mean.low is not None else NO_VALUE
            cells = [search, mean_and_sd(mean), between, str(mean.n if mean else 0)]
            setting = f"{one.architecture}: {one.whole}"
            rows.append([label, setting, *cells, lost_words(one) or NO_VALUE])
    return rows


def drawing(run: Run) -> Drawing | None:
    """A row a finalist: a dot a fresh seed, their mean, and what the search had; log axis.

    None if no finalist completed.
    """
    found, models = promised(run), by_model(run)
    shown = [s for its in models.values() for s in its if s.mean() or s.label in found]
    if not any(one.mean() for one in shown):
        return None
    winners = [one for its in models.values() if (one := winner_among(its))]
    some, labels, beside = [], [], []
    for row, one in enumerate(shown):
        label, first = label_of(run, one), found.get(one.label)
        look = plots.looks_of(run.models)[one.model]
        some += plots.seeds_and_mean(look, one.by_seed(), row, label)
        if first:
            text = f"{label}: {digits(first.value)} in the search"
            some.append(Marks(look | plots.HOLLOW, [first.value], [row], texts=[text]))
        lost = [*one.lost.values(), *["collapsed"] * len(one.collapsed)]
        said = [f"{lost.count(state)} {state}" for state in dict.fromkeys(lost)]
        beside.append(", ".join(["winner"] * (one in winners) + said))
        labels.append(label)
    breaks = [n for n in range(1, len(shown)) if shown[n].model != shown[n - 1].model]
    key, unit = ("a fresh seed", "the search, one seed"), f"Validation MSE, {plots.MSE_UNIT}"
    return plots.rows_drawing(FIGURE, some, labels, unit, key, beside=beside, breaks=breaks)


def values(run: Run) -> dict[str, Any]:
    """What the template of the search says of the finalists."""
    found = run.of(schema.FINALIST)
    best = [one for its in by_model(run).values() if (one := winner_among(its))]
    n_seeds = [one.trials.index.nunique() for one in found]
    return {
        "sentences": sentences(run),
        "rows": rows(run),
        "drawing": drawing(run),
        "least": ", ".join(f"{label_of(run, s)} {digits(s.by_seed().mean())}" for s in best),
        "seeds": seeds(len(one.by_seed()) for one in found) if found else "",
        "n_epochs": max((one.epochs for one in found), default=0),
        "one_seed": 1 in n_seeds,
    }
