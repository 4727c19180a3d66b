"""A paper's claims under every reading of what it leaves open, and which reading is likely.

A reading gives each open value that a claim depends on one of the values that the study tries; the
manifest lists them, with the label of every setting under each. `analysis.claims` judges each claim
under each reading; this module says what that amounts to. Which reading is likely rests on the
number that the paper measured alone, not on which claims would come true.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, product
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis import claims, settings
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Judged, Named, Verdict
from analysis.load import Run
from analysis.phrases import reading_words
from analysis.settings import Estimate
from analysis.specifications import Cell, Levels, chances
from study.folder import schema
from study.folder.paper import Claim

Overall = Verdict | Literal["depends"]
DEPENDS: Final = "depends"


@dataclass(frozen=True)
class AuditedClaim:
    """A claim of the paper under every reading that concerns it."""

    judged: tuple[tuple[Levels, Judged], ...]  # each reading with the claim as judged under it
    # Reproduced, not reproduced or not comparable under all readings; depends if both of the first
    # two occur; not tested under none; else undecided.
    verdict: Overall
    # Where it depends, the fewest open values that tell the verdicts apart; more than one such set
    # if untested readings leave the choice.
    depends_on: tuple[tuple[str, ...], ...] = ()

    @property
    def claim(self) -> Claim:
        """What is claimed."""
        return self.judged[0][1].claim

    @property
    def estimates(self) -> list[Estimate]:
        """What was measured under the readings."""
        return [one.estimate for _, one in self.judged if one.estimate is not None]

    def under(self, verdict: str) -> list[Levels]:
        """The readings with a verdict."""
        return [levels for levels, one in self.judged if one.verdict == verdict]


class Specification(NamedTuple):
    """The ratio that is compared under a reading."""

    reading: Levels
    ratios: Mapping[str, Estimate]  # by metric of `IMAGES`
    together: Estimate  # by the headline's metric; its interval holds together with all others
    # That a fresh pair of runs has the numbers that the paper measured: the least of their
    # chances, as these go together. None without a number, without a spread over seeds, or before
    # the paper's epochs.
    chance: float | None = None
    weight: float | None = None  # its share of the sum of all readings' chances


class Coverage(NamedTuple):
    """What an audit has of a setting."""

    n: Mapping[str, int]  # seeds by reading, in words
    lost: Counter[str]  # trials that did not complete, by state


class Audit:
    """A paper's claims under every reading of what it leaves open.

    Args:
        run: with a paper, and trials of other readings.
    """

    def __init__(self, run: Run) -> None:
        assert run.paper is not None
        self.paper, self.readings = run.paper, run.readings
        self._epochs, self._two, self.factors = run.epochs, run.two, run.paper.factors
        labels = {label for reading in run.readings for label in reading.settings.values()}
        # A study's own tables may add others to the two groups, with something else changed.
        self.planned = [
            s
            for s in [*run.of(schema.REFERENCE), *run.of(schema.READING)]
            if s.label in labels and s.split == schema.FULL_SPLIT
        ]
        tested = [s for s in self.planned if len(s.by_seed())]
        self.n_epochs = max((s.epochs for s in tested), default=0)
        self.settings = [s for s in tested if s.epochs == self.n_epochs]  # that it rests on
        self.trials = pd.concat([s.completed for s in self.settings] or [run.trials.iloc[:0]])
        self._by_label = {s.label: s for s in self.settings}
        its = run.paper.headline
        # By which the readings are sorted.
        self.metric = its.measure if its and its.measure in IMAGES else schema.TEST_MSE
        # The readings that concern the two settings whose ratio is shown.
        self.compared = self.readings_of(run.paper.factors_of(its.models if its else ()))

    def readings_of(self, names: Sequence[str]) -> list[Levels]:
        """Every combination of some open values."""
        values = product(*(self.factors[name] for name in names))
        return [dict(zip(names, one, strict=True)) for one in values]

    def under(self, levels: Levels) -> Named:
        """The settings of a reading by name; of a part of one, of the first that has it."""
        reading = next(r for r in self.readings if levels.items() <= r.levels.items())
        found = {name: self._by_label.get(label) for name, label in reading.settings.items()}
        return {name: setting for name, setting in found.items() if setting is not None}

    @cached_property
    def claims(self) -> list[AuditedClaim]:
        """Each measurable claim of the paper under every reading: those of all models first."""
        found = []
        its = [claim for claim in self.paper.claims if claim.measure]
        for claim in sorted(its, key=lambda claim: (-len(claim.models), claim.models)):
            judged = []
            for levels in self.readings_of(self.paper.factors_of(claim.models)):
                named = self.under(levels)
                one = claims.judge(claim, self.paper, named, self._epochs)
                judged.append((levels, self._with_every_rival(one, named)))
            found.append(_overall(tuple(judged)))
        return found

    def _with_every_rival(self, one: Judged, named: Named) -> Judged:
        """A claim about all rivals is not reproduced by some of them alone."""
        if not (one.claim.others and one.verdict == REPRODUCED):
            return one
        models = {s.architecture for s in self.settings if s.model in one.claim.models}
        if missing := sorted(models - {s.architecture for s in named.values()}):
            reason = f"{one.reason} Not compared: {', '.join(missing)}."
            return replace(one, verdict=UNDECIDED, reason=reason)
        return one

    def cells(self, metric: str = "") -> list[Cell]:
        """The ratio that is compared by seed, of each reading that has a pair of trials."""
        found = []
        for levels in self.compared:
            top, bottom = self._two(self.under(levels))
            if top and bottom:
                both = (one.by_seed(metric or self.metric) for one in (top, bottom))
                found.append((levels, settings.ratios_by_seed(*both)))
        return [(levels, ratios) for levels, ratios in found if len(ratios)]

    @cached_property
    def curve(self) -> list[Specification]:
        """The readings that have a pair of trials, by their ratio."""
        cells, found = self.cells(), []
        long = self.n_epochs >= (self.paper.epochs or 0)
        numbers = self.paper.numbers if long else {}
        its: dict[tuple[Any, ...], list[float]] = {}  # chances by the values of a reading
        for metric, one in numbers.items():
            measured = self.cells(metric)
            known = chances(measured, one.value)  # none if no reading has two seeds
            for (levels, _), value in zip(measured, known, strict=False):
                its.setdefault(tuple(levels.values()), []).append(value)
        of = [its.get(tuple(levels.values()), []) for levels, _ in cells]
        # One that lacks a number, as where an MSE is exactly 0, has no chance that is known.
        least = [min(each) if len(each) == len(numbers) > 0 else None for each in of]
        total = sum(filter(None, least))
        for (levels, ratios), chance in zip(cells, least, strict=True):
            two = self._two(self.under(levels))
            pairs = {metric: pair for metric in IMAGES if (pair := settings.ratio(*two, metric))}
            together = settings.mean_over_seeds(pd.Series(np.log(ratios)), len(cells))
            assert together is not None
            weight = chance / total if chance and total else chance
            found.append(Specification(levels, pairs, together.exp(), chance, weight))
        return sorted(found, key=lambda one: one.together.mean)

    def coverage(self) -> dict[str, Coverage]:
        """What it has of each setting under each reading of its own.

        The settings are those that were planned, and those that are claimed of.
        """
        found, claimed = {}, {name for claim in self.paper.claims for name in claim.pair}
        for name in self.readings[0].settings:
            labels = {r.settings[name] for r in self.readings}
            planned = [s for s in self.planned if s.label in labels]
            if planned or name in claimed:
                n = {}
                for levels in self.readings_of(self._factors_of(name)):
                    setting = self.under(levels).get(name)
                    n[reading_words(levels)] = len(setting.by_seed()) if setting else 0
                lost: Counter[str] = sum((Counter(s.states) for s in planned), Counter())
                del lost[schema.COMPLETED]
                found[name] = Coverage(n, lost)
        return found

    def _factors_of(self, name: str) -> list[str]:
        """The open values that a setting has: it has another label where one of them is another."""
        default = next(reading for reading in self.readings if reading.default)
        changed = [
            {factor for factor, value in r.levels.items() if value != default.levels[factor]}
            for r in self.readings
            if r.settings[name] != default.settings[name]
        ]
        return [factor for factor in self.factors if {factor} in changed]


@lru_cache(maxsize=1)
def audit_of(run: Run) -> Audit | None:
    """The audit of a run that trained the reference under other readings; else None."""
    return Audit(run) if run.of(schema.READING) and len(run.readings) > 1 else None


def _overall(judged: tuple[tuple[Levels, Judged], ...]) -> AuditedClaim:
    verdicts = {one.verdict for _, one in judged}
    if len(verdicts) == 1:
        return AuditedClaim(judged, verdicts.pop())
    if {REPRODUCED, NOT_REPRODUCED} <= verdicts:
        return AuditedClaim(judged, DEPENDS, _deciding(judged))
    # Where times are not comparable, the other readings have no trials.
    comparable = claims.NOT_COMPARABLE not in verdicts
    return AuditedClaim(judged, UNDECIDED if comparable else claims.NOT_COMPARABLE)


def _deciding(judged: Iterable[tuple[Levels, Judged]]) -> tuple[tuple[str, ...], ...]:
    """The smallest sets of open values that the verdict is a function of."""
    decided = [(r, c.verdict) for r, c in judged if c.verdict in (REPRODUCED, NOT_REPRODUCED)]
    names = tuple(decided[0][0])
    for size in range(1, len(names)):
        found = []
        for subset in combinations(names, size):
            cells = {(tuple(reading[n] for n in subset), verdict) for reading, verdict in decided}
            if len(cells) == len({cell for cell, _ in cells}):  # one verdict each
                found.append(subset)
        if found:
            return tuple(found)
    return (names,)


def csv(audited: Iterable[AuditedClaim], factors: Iterable[str]) -> str:
    """A row a claim and reading, as a CSV file; `factors` are the columns of a reading."""
    rows = [
        {**levels} | claims.columns_of(judged) | {"overall": one.verdict}
        for one in audited
        for levels, judged in one.judged
    ]
    columns = ["claim", "report", *factors, *claims.MEASURED]
    frame = pd.DataFrame(rows, columns=[*columns, "verdict", "reason", "overall"])
    whole = [n for n in factors if n in schema.BY_NAME and schema.BY_NAME[n].kind == "int"]
    return frame.astype(dict.fromkeys((*whole, "n"), "Int64")).to_csv(index=False)


def curve_csv(curve: Iterable[Specification], metric: str) -> str:
    """A row a reading, as a CSV file: its ratios with their intervals, and its likelihood.

    The simultaneous interval is that of the metric.
    """
    rows = []
    for one in curve:
        row: dict[str, Any] = {**one.reading, "n": one.together.n}
        for name, pair in one.ratios.items():
            row |= {name: pair.mean, f"{name}_low": pair.low, f"{name}_high": pair.high}
        row[f"{metric}_together_low"] = one.together.low
        row[f"{metric}_together_high"] = one.together.high
        rows.append(row | {"chance": one.chance, "weight": one.weight})
    return pd.DataFrame(rows).to_csv(index=False)
