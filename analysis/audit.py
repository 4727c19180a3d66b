"""The report's claims under every reading of what it leaves open, and which reading is likely.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. `analysis.claims` judges each claim under each reading; this
module says what that amounts to. Which reading is likely rests on the report's stated number alone,
not on which claims would come true.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis import claims, settings
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Claim, Named, Verdict
from analysis.load import Run
from analysis.phrases import reading_words
from analysis.settings import CONV_NAME, DENSE_NAME, Estimate, Setting
from analysis.specifications import Cell, chances
from study.folder import schema

Reading = Mapping[str, Any]  # open values by name
Overall = Verdict | Literal["depends"]
DEPENDS: Final = "depends"
# The reading of the reference trials.
DEFAULT: Final[Reading] = MappingProxyType(
    {name: schema.BY_NAME[name].default for name in schema.OPEN_VALUES}
)


@dataclass(frozen=True)
class AuditedClaim:
    """A claim of the report under every reading that concerns it."""

    judged: tuple[tuple[Reading, Claim], ...]  # each reading with the claim as judged under it
    # Reproduced, not reproduced or not comparable under all readings; depends if both of the first
    # two occur; not tested under none; else undecided.
    verdict: Overall
    # Where it depends, the fewest open values that tell the verdicts apart; more than one such set
    # if untested readings leave the choice.
    depends_on: tuple[tuple[str, ...], ...] = ()

    @property
    def claim(self) -> Claim:
        """The claim as judged under the first reading; its words are those of all."""
        return self.judged[0][1]

    @property
    def estimates(self) -> list[Estimate]:
        """What was measured under the readings."""
        return [claim.estimate for _, claim in self.judged if claim.estimate is not None]

    def under(self, verdict: str) -> list[Reading]:
        """The readings with a verdict."""
        return [reading for reading, claim in self.judged if claim.verdict == verdict]


class Specification(NamedTuple):
    """The ratio conv ÷ dense-512 under a reading."""

    reading: Reading
    ratios: Mapping[str, Estimate]  # by metric of `IMAGES`
    together: Estimate  # on the test set, with an interval that holds together with all others
    # That a fresh pair of runs has the report's ratio on both sets: the lesser of the two chances,
    # as these go together. None without a spread over seeds, or before the report's epochs.
    chance: float | None = None
    weight: float | None = None  # its share of the sum of all readings' chances


class Coverage(NamedTuple):
    """What an audit has of an architecture."""

    n: Mapping[str, int]  # seeds by reading, in words
    lost: Counter[str]  # trials that did not complete, by state


def is_audited(run: Run) -> bool:
    """Whether the run trained the reference under other readings."""
    return bool(run.of(schema.READING))


def readings_of(*models: str) -> list[Reading]:
    """Every combination of the open values that concern these models."""
    concerned = [n for n in schema.OPEN_VALUES if set(schema.BY_NAME[n].models) & set(models)]
    values = product(*(schema.OPEN_VALUES[name] for name in concerned))
    return [dict(zip(concerned, one, strict=True)) for one in values]


def reading_of(setting: Setting) -> Reading:
    """The open values that a setting has."""
    return {name: setting.values[name] for name in schema.OPEN_VALUES if name in setting.values}


class Audit:
    """The report's models under every reading of what it leaves open.

    Args:
        run: with reference trials and trials of other readings.
    """

    def __init__(self, run: Run) -> None:
        self._epochs = run.epochs
        # A user's table may add others to the two groups, with something else changed.
        self.planned = [
            s
            for s in [*run.of(schema.REFERENCE), *run.of(schema.READING)]
            if s.model in schema.MODELS and s.split == schema.FULL_SPLIT
            if s.label == s.architecture or set(s.differs) <= set(schema.OPEN_VALUES)
        ]
        tested = [s for s in self.planned if len(s.by_seed())]
        self.n_epochs = max((s.epochs for s in tested), default=0)
        self.settings = [s for s in tested if s.epochs == self.n_epochs]  # that it rests on
        self.trials = pd.concat([s.completed for s in self.settings] or [run.trials.iloc[:0]])

    def under(self, reading: Reading) -> Named:
        """The settings of a reading: of each architecture whose open values it gives."""
        alike = [s for s in self.settings if reading_of(s).items() <= reading.items()]
        return {s.architecture: s for s in alike}

    def ratios(self, reading: Reading) -> dict[str, Estimate | None]:
        """Conv ÷ dense-512 under a reading, paired by seed, by metric of `IMAGES`."""
        named = self.under(reading)
        return {metric: settings.report_ratio(named, metric) for metric in IMAGES}

    def claims(self) -> list[AuditedClaim]:
        """Each measurable claim of the report under every reading."""
        judged: dict[str, list[tuple[Reading, Claim]]] = {}
        sizes = {s.architecture for s in self.settings if s.model == schema.DENSE}
        for models in (schema.MODELS, (schema.CONV,), (schema.DENSE,)):
            for reading in readings_of(*models):
                named = self.under(reading)
                for claim in claims.judge_claims(named, self._epochs):
                    if claim.models == models and claim.quantity:
                        whole = _with_every_size(claim, sizes - set(named))
                        judged.setdefault(claim.claim, []).append((reading, whole))
        return [_overall(tuple(its)) for its in judged.values()]

    def cells(self, metric: str = schema.TEST_MSE) -> list[Cell]:
        """Conv ÷ dense-512 by seed, of each reading that has a pair of trials."""
        every = [(r, _by_seed(self.under(r), metric)) for r in readings_of(*schema.MODELS)]
        return [(reading, ratios) for reading, ratios in every if len(ratios)]

    def curve(self) -> list[Specification]:
        """The readings that have a pair of trials, by their ratio on the test set."""
        cells, found = self.cells(), []
        long = self.n_epochs >= claims.REPORT_EPOCHS
        of = [chances(self.cells(m), claims.REPORT_MSE_RATIO) if long else [] for m in IMAGES]
        known = [min(its) for its in zip(*of, strict=True)] or [None] * len(cells)
        total = sum(filter(None, known))
        for (reading, ratios), chance in zip(cells, known, strict=True):
            pairs = {metric: pair for metric, pair in self.ratios(reading).items() if pair}
            together = settings.mean_over_seeds(pd.Series(np.log(ratios)), len(cells))
            assert together is not None
            weight = chance / total if chance and total else chance
            found.append(Specification(reading, pairs, together.exp(), chance, weight))
        return sorted(found, key=lambda one: one.together.mean)

    def coverage(self) -> dict[str, Coverage]:
        """What it has of each architecture under each reading of its own."""
        units = {s.value("hidden_units") for s in self.planned if s.model == schema.DENSE}
        sizes = sorted(units | {schema.BY_NAME["hidden_units"].default})
        names = {CONV_NAME: schema.CONV, **{f"{schema.DENSE}-{n}": schema.DENSE for n in sizes}}
        found = {}
        for name, model in names.items():
            planned = [s for s in self.planned if s.architecture == name]
            n = {
                reading_words(r): sum(
                    len(s.by_seed()) for s in planned if s in self.settings and reading_of(s) == r
                )
                for r in readings_of(model)
            }
            lost: Counter[str] = sum((Counter(s.states) for s in planned), Counter())
            del lost[schema.COMPLETED]
            found[name] = Coverage(n, lost)
        return found


def _with_every_size(claim: Claim, missing: set[str]) -> Claim:
    """A claim about the dense sizes is not reproduced by some of them alone."""
    if claim.models == (schema.DENSE,) and claim.verdict == REPRODUCED and missing:
        reason = f"{claim.reason} Not compared: {', '.join(sorted(missing))}."
        return replace(claim, verdict=UNDECIDED, reason=reason)
    return claim


def _overall(judged: tuple[tuple[Reading, Claim], ...]) -> AuditedClaim:
    verdicts = {claim.verdict for _, claim in judged}
    if len(verdicts) == 1:
        return AuditedClaim(judged, verdicts.pop())
    if {REPRODUCED, NOT_REPRODUCED} <= verdicts:
        return AuditedClaim(judged, DEPENDS, _deciding(judged))
    # Where times are not comparable, the other readings have no trials.
    comparable = claims.NOT_COMPARABLE not in verdicts
    return AuditedClaim(judged, UNDECIDED if comparable else claims.NOT_COMPARABLE)


def _deciding(judged: Iterable[tuple[Reading, Claim]]) -> tuple[tuple[str, ...], ...]:
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


def _by_seed(named: Named, metric: str) -> pd.Series:
    """Conv ÷ dense-512 of each seed."""
    if not {CONV_NAME, DENSE_NAME} <= set(named):
        return pd.Series(dtype="float64")
    return (named[CONV_NAME].by_seed(metric) / named[DENSE_NAME].by_seed(metric)).dropna()


def csv(audited: Iterable[AuditedClaim]) -> str:
    """A row a claim and reading, as a CSV file."""
    rows = [
        {"claim": claim.claim, "report": claim.report, **reading, **claims.measured(claim)}
        | {"verdict": claim.verdict, "reason": claim.reason, "overall": one.verdict}
        for one in audited
        for reading, claim in one.judged
    ]
    columns = ["claim", "report", *schema.OPEN_VALUES, *claims.MEASURED]
    frame = pd.DataFrame(rows, columns=[*columns, "verdict", "reason", "overall"])
    whole = dict.fromkeys(("batch_size", "latent_filters", "n"), "Int64")
    return frame.astype(whole).to_csv(index=False)


def curve_csv(curve: Iterable[Specification]) -> str:
    """A row a reading, as a CSV file: its ratios with their intervals, and its likelihood."""
    rows = []
    for one in curve:
        row: dict[str, Any] = {**one.reading, "n": one.together.n}
        for metric, pair in one.ratios.items():
            row |= {metric: pair.mean, f"{metric}_low": pair.low, f"{metric}_high": pair.high}
        row |= {
            "test_mse_together_low": one.together.low,
            "test_mse_together_high": one.together.high,
        }
        rows.append(row | {"chance": one.chance, "weight": one.weight})
    return pd.DataFrame(rows).to_csv(index=False)
