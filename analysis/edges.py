"""Where a search's best settings lie at an end of what was searched: better ones may lie beyond."""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from analysis.importance import parameter_table
from analysis.load import Run
from analysis.phrases import label_of, listed, value_words
from convae.config import BY_PARAMETER, shapes_model
from study.folder import schema

BEST_SHARE: Final = 0.1  # of the completed trials, but at least so many:
MIN_BEST: Final = 3
END_SHARE: Final = 0.05  # of a range's length on its scale: so near to an end is at it


class Edge(NamedTuple):
    """An end at which at least half of a model's best settings lie."""

    model: str
    parameter: str
    end: float
    name: str  # "least" or "greatest"
    n: int  # of the best settings that lie there
    n_best: int

    def __str__(self) -> str:
        """In words: "conv's batch size (64, the least, in 2 of its 3 best trials)"."""
        what = label_of(self.parameter)
        what = what if what[:1].isdigit() else what.lower()
        share = f"in {self.n} of its {self.n_best} best trials"
        return f"{self.model}'s {what} ({value_words(self.end)}, the {self.name}, {share})"


def edges(run: Run) -> list[Edge]:
    """The ends of ranges and of lists of numbers at which the best settings lie, by model.

    An end beyond which no value is valid, such as no momentum, is none, and neither is the greatest
    size that a limit on parameters allows.
    """
    found = []
    for space in run.manifest["spaces"][-1]:
        table = parameter_table(run.trials, space["model"])
        done = table[(table["state"] == schema.COMPLETED) & table["value"].notna()]
        best = done.nsmallest(max(MIN_BEST, math.ceil(BEST_SHARE * len(done))), "value")
        for name, how in space["searched"]:
            if len(done) < 2 or name not in best or not (ends := _ends(how)):
                continue
            places = best[name].dropna().astype(float).map(lambda x, how=how: _place(x, how))
            at = {"least": places <= END_SHARE, "greatest": places >= 1 - END_SHARE}
            for end, (word, near) in zip(ends, at.items(), strict=True):
                limited = word == "greatest" and space.get("max_parameters") and shapes_model(name)
                if 2 * near.sum() >= len(best) and not (limited or _is_limit(name, end)):
                    found.append(Edge(space["model"], name, end, word, int(near.sum()), len(best)))
    return found


def edge_sentence(run: Run) -> str:
    """Which ends these are; "" for none."""
    found = edges(run)
    where = f"Many of the best lie at an end of what was searched, in {listed(map(str, found))}"
    return f"{where}: better ones may lie beyond." if found else ""


def _ends(how: Mapping[str, Any]) -> tuple[float, float] | None:
    """Of a range or a list of several numbers; None for words and truth values."""
    if "low" in how:
        return how["low"], how["high"]
    numbers = [v for v in how["grid"] if isinstance(v, int | float) and not isinstance(v, bool)]
    ordered = len(numbers) == len(how["grid"]) > 1
    return (min(numbers), max(numbers)) if ordered else None


def _place(value: float, how: Mapping[str, Any]) -> float:
    """Where a value lies from the least (0) to the greatest (1); inside of a list at a half."""
    low, high = map(float, _ends(how) or (0, 1))
    if "low" not in how:
        return 0.0 if value <= low else 1.0 if value >= high else 0.5
    if how["log"]:
        value, low, high = (math.log(number) for number in (value, low, high))
    return (value - low) / (high - low)


def _is_limit(name: str, end: float) -> bool:
    """Whether there are no valid values beyond an end."""
    p = BY_PARAMETER.get(name)
    return p is not None and p.from_parameter(end) in (p.low, p.high)
