"""A paper's claims under every reading of what it leaves open, and which reading is likely.

A reading gives each open value that a claim depends on one of the values that the study tries; the
manifest lists them, with the label of every setting under each. `analysis.claims` judges each claim
under each reading; this module says what that amounts to. The rule for the likely reading is fixed
here, before any data: it looks at the number that the paper measured, not at which claims would
come true.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Final, Literal, NamedTuple

import pandas as pd

from analysis import claims, settings
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Judged, Named, Verdict
from analysis.load import Run
from analysis.phrases import reading_words
from analysis.settings import Estimate
from study.folder import schema
from study.folder.paper import Claim

Levels = Mapping[str, Any]  # open values by name
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


class Likely(NamedTuple):
    """Which readings bring about the ratio that the paper measured, on all images it names."""

    n_judged: int = 0  # readings with an interval of each ratio after the paper's epochs
    compatible: tuple[Levels, ...] = ()  # whose intervals contain the paper's ratio and exclude 1
    nearest: Levels | None = None  # whose worse ratio is nearest to it; None if none was judged
    factor: float = math.nan  # between its worse ratio and the paper's, from 1 up
    alike: tuple[Levels, ...] = ()  # others whose intervals overlap all of the nearest one's
    nearest_value: Levels | None = None  # as `nearest`, with or without an interval


class Effect(NamedTuple):
    """What another value of one open value does, the others as in the default reading."""

    name: str  # of the open value
    value: Any  # instead of the default's
    metric: str  # of `IMAGES`
    # The MSE of each setting ÷ that under the default reading, by name, if it has the value.
    models: Mapping[str, Estimate | None]
    ratio: Estimate | None  # of the two, divided by that under the default reading


class Coverage(NamedTuple):
    """What an audit has of a setting."""

    n: Mapping[str, int]  # seeds by reading, in words
    lost: Counter[str]  # trials that did not complete, by state


def is_audited(run: Run) -> bool:
    """Whether the run trained the reference under other readings."""
    return bool(run.of(schema.READING)) and len(run.readings) > 1


class Audit:
    """A paper's claims under every reading of what it leaves open.

    Args:
        run: with a paper, reference trials and trials of other readings.
    """

    def __init__(self, run: Run) -> None:
        assert run.paper is not None
        self._epochs, self.paper, self.readings = run.epochs, run.paper, run.readings
        self.factors, self.pair, self._two = run.paper.factors, run.pair, run.two
        default = next(reading for reading in run.readings if reading.default)
        self.default, self.under_default = default.levels, default.settings
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
        # By name: those that were planned, and those that are claimed of.
        planned = {s.label for s in self.planned}
        claimed = {name for claim in self.paper.claims for name in claim.pair}
        settings_ = self.readings[0].settings
        self.names = [
            name
            for name in settings_
            if name in claimed or any(r.settings[name] in planned for r in self.readings)
        ]

    def readings_of(self, names: Sequence[str]) -> list[Levels]:
        """Every combination of some open values."""
        values = product(*(self.factors[name] for name in names))
        return [dict(zip(names, one, strict=True)) for one in values]

    def under(self, levels: Levels) -> Named:
        """The settings of a reading by name; of a part of one, of the first that has it."""
        reading = next(r for r in self.readings if levels.items() <= r.levels.items())
        found = {name: self._by_label.get(label) for name, label in reading.settings.items()}
        return {name: setting for name, setting in found.items() if setting is not None}

    @property
    def compared(self) -> list[Levels]:
        """The readings that concern the two settings whose ratio is shown."""
        its = self.paper.headline
        return self.readings_of(self.paper.factors_of(its.models if its else ()))

    def ratios(self, levels: Levels) -> dict[str, Estimate | None]:
        """The ratio that is compared under a reading, paired by seed, by metric of `IMAGES`."""
        two = self._two(self.under(levels))
        return {metric: settings.ratio(*two, metric) for metric in IMAGES}

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
        models = {s.architecture for s in self.settings if s.model in one.claim.models}
        missing = sorted(models - {s.architecture for s in named.values()})
        if one.claim.others and one.verdict == REPRODUCED and missing:
            reason = f"{one.reason} Not compared: {', '.join(missing)}."
            return replace(one, verdict=UNDECIDED, reason=reason)
        return one

    def effects(self) -> list[Effect]:
        """What each other open value does to the two settings and to their ratio."""
        default, found = self.under(self.default), []
        for name, values in self.factors.items():
            having = [one for one in self.pair if name in self.factors_of(one)]
            for value, metric in product([v for v in values if v != self.default[name]], IMAGES):
                changed = self.under({**self.default, name: value})
                models = {
                    one: settings.ratio(changed.get(one), default.get(one), metric)
                    for one in having
                }
                both = settings.ratio_over_seeds(
                    self._by_seed(changed, metric), self._by_seed(default, metric)
                )
                found.append(Effect(name, value, metric, models, both))
        return found

    def likely(self) -> Likely:
        """The reading that the paper most likely used, as far as the ratio it measured tells.

        One seed has no interval, and is left out but for `nearest_value`.
        """
        numbers = {metric: claim.value for metric, claim in self.paper.numbers.items()}
        every = [(levels, self.ratios(levels)) for levels in self.compared]
        known = [(r, [(p, v) for m, v in numbers.items() if (p := its[m])]) for r, its in every]
        known = [(r, pairs) for r, pairs in known if len(pairs) == len(numbers) > 0]
        if not known or self.n_epochs < (self.paper.epochs or 0):
            return Likely()
        nearest_value, _ = min(known, key=lambda item: _distance(item[1]))
        judged = [(r, pairs) for r, pairs in known if all(p.n > 1 for p, _ in pairs)]
        if not judged:
            return Likely(nearest_value=nearest_value)
        nearest, its = min(judged, key=lambda item: _distance(item[1]))
        compatible = [r for r, pairs in judged if all(_brings_about(*pair) for pair in pairs)]
        alike = [
            r
            for r, pairs in judged
            if r is not nearest
            if all(_overlap(p, q) for (p, _), (q, _) in zip(pairs, its, strict=True))
        ]
        factor = math.exp(_distance(its))
        return Likely(len(judged), tuple(compatible), nearest, factor, tuple(alike), nearest_value)

    def coverage(self) -> dict[str, Coverage]:
        """What it has of each setting under each reading of its own."""
        found = {}
        for name in self.names:
            labels = {r.settings[name] for r in self.readings}
            planned = [s for s in self.planned if s.label in labels]
            n = {}
            for levels in self.readings_of(self.factors_of(name)):
                setting = self.under(levels).get(name)
                n[reading_words(levels)] = len(setting.by_seed()) if setting else 0
            lost: Counter[str] = sum((Counter(s.states) for s in planned), Counter())
            del lost[schema.COMPLETED]
            found[name] = Coverage(n, lost)
        return found

    def factors_of(self, name: str) -> list[str]:
        """The open values that a setting has: it has another label where they are others."""
        own = {
            factor
            for reading in self.readings
            if len(changed := [f for f, v in reading.levels.items() if v != self.default[f]]) == 1
            if reading.settings.get(name) != self.under_default.get(name)
            for factor in changed
        }
        return [factor for factor in self.factors if factor in own]

    def _by_seed(self, named: Named, metric: str) -> pd.Series:
        """The ratio of each seed."""
        top, bottom = self._two(named)
        if top is None or bottom is None:
            return pd.Series(dtype="float64")
        tops, bottoms = top.by_seed(metric), bottom.by_seed(metric)
        return (tops.where(tops > 0) / bottoms.where(bottoms > 0)).dropna()


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


def _brings_about(pair: Estimate, value: float) -> bool:
    """Whether an interval contains a number and excludes 1."""
    return pair.lowest <= value <= pair.highest and pair.excludes(1)


def _overlap(one: Estimate, other: Estimate) -> bool:
    return one.lowest <= other.highest and other.lowest <= one.highest


def _distance(pairs: Iterable[tuple[Estimate, float]]) -> float:
    """How far the worse of some ratios is from the paper's, as a logarithm."""
    return max(abs(math.log(pair.mean / value)) for pair, value in pairs)


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
