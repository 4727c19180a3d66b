"""The finalists: the search's best settings and the reference's, trained again with fresh seeds.

A search judges a setting by one seed and keeps the luckiest of many, so what it promises is too
good: the winner's curse. Fresh seeds tell by how much, and which setting is the best on average.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from analysis import plots
from analysis.load import Run
from analysis.phrases import digits, ordinal, seeds
from analysis.plots import Drawing, Marks
from analysis.settings import Setting
from study.folder import schema

FIGURE: Final = "figure-finalists"


class Found(NamedTuple):
    """What the search found of a setting, with one seed."""

    value: float  # its objective
    rank: int  # among the completed trials of its model, from 1


def promised(run: Run) -> dict[str, Found]:
    """What the search found of each setting, by label."""
    rows = run.completed_search.drop_duplicates("setting")
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


def winners(run: Run) -> list[Setting]:
    """The best of each model's finalists."""
    return [one for its in by_model(run).values() if (one := winner_among(its))]


def place_of(run: Run, one: Setting) -> str:
    """What a setting is among the finalists: "2nd in the search", "the reference"."""
    found = promised(run).get(one.label)
    place = f"{ordinal(found.rank) if found else 'not'} in the search"
    return "the reference" if one.is_reference else place


def label_of(run: Run, one: Setting) -> str:
    """Its model and place: "conv, 2nd in the search"."""
    return f"{one.model}, {place_of(run, one)}"


class Outcome(NamedTuple):
    """What fresh seeds made of a model's finalists: a sentence of `fresh.html.j2`."""

    model: str
    first: Found | None  # the search's first choice
    chosen: Setting | None  # its finalist
    winner: Setting | None
    place: str  # of the winner
    running: bool  # whether a finalist has not ended


def outcomes(run: Run) -> list[Outcome]:
    """The outcome of each model that has finalists."""
    firsts = run.completed_search.drop_duplicates("model").set_index("model")["setting"].to_dict()
    said = []
    for model, found in by_model(run).items():
        first, winner = firsts.get(model, ""), winner_among(found)
        chosen = next((one for one in found if one.label == first), None)
        place = place_of(run, winner) if winner else ""
        running = any(one.running for one in found)
        said.append(Outcome(model, promised(run).get(first), chosen, winner, place, running))
    return said


def drawing(run: Run) -> Drawing | None:
    """A row a finalist: a dot a fresh seed, their mean, and what the search had; None for none."""
    found = promised(run)
    shown = [s for its in by_model(run).values() for s in its if s.mean() or s.label in found]
    if not any(one.mean() for one in shown):
        return None
    best, some, labels, beside = winners(run), [], [], []
    for row, one in enumerate(shown):
        label, first = label_of(run, one), found.get(one.label)
        look = plots.looks_of(run.models)[one.model]
        some += plots.seeds_and_mean(look, one.by_seed(), row, label)
        if first:
            text = f"{label}: {digits(first.value)} in the search"
            some.append(Marks(look | plots.HOLLOW, [first.value], [row], texts=[text]))
        lost = [*one.lost.values(), *["collapsed"] * len(one.collapsed)]
        said = [f"{lost.count(state)} {state}" for state in dict.fromkeys(lost)]
        beside.append(", ".join(["winner"] * (one in best) + said))
        labels.append(label)
    breaks = [n for n in range(1, len(shown)) if shown[n].model != shown[n - 1].model]
    key, unit = ("a fresh seed", "the search, one seed"), f"Validation MSE, {plots.MSE_UNIT}"
    return plots.rows_drawing(FIGURE, some, labels, unit, key, beside=beside, breaks=breaks)


def values(run: Run) -> dict[str, Any]:
    """What the template of the search says of the finalists."""
    found, best, first = run.of(schema.FINALIST), winners(run), promised(run)
    return {
        "outcomes": outcomes(run),
        "rows": [  # a finalist's name, and what one seed of the search promised
            (label_of(run, s) + ": the winner" * (s in best), s, first.get(s.label))
            for its in by_model(run).values()
            for s in its
        ],
        "drawing": drawing(run),
        "least": ", ".join(f"{label_of(run, s)} {digits(s.by_seed().mean())}" for s in best),
        "seeds": seeds(len(one.by_seed()) for one in found) if found else "",
        "n_epochs": max((one.epochs for one in found), default=0),
        "one_seed": any(len(one.trials) == 1 for one in found),
    }
