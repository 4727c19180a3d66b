"""The report's claims under every reading of what it leaves open, and which reading is likely.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. `analysis.claims` judges each claim under each reading; this
module says what that amounts to. The rule for the likely reading is fixed here, before any data: it
looks at the report's stated number alone, not at which claims would come true.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import pandas as pd

from analysis import claims, settings
from analysis.claims import IMAGES, NOT_REPRODUCED, REPRODUCED, UNDECIDED, Claim, Named, Verdict
from analysis.load import Run
from analysis.phrases import reading_words
from analysis.settings import CONV_NAME, DENSE_NAME, Estimate, Setting
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


class Likely(NamedTuple):
    """Which readings bring about the report's ratio of 0.5, on both sets of images."""

    n_judged: int = 0  # readings with an interval on both sets after the report's 50 epochs
    compatible: tuple[Reading, ...] = ()  # whose intervals contain 0.5 and exclude 1 on both sets
    nearest: Reading | None = None  # whose worse ratio is nearest to 0.5; None if none was judged
    factor: float = math.nan  # between its worse ratio and 0.5, from 1 up
    alike: tuple[Reading, ...] = ()  # others whose intervals overlap the nearest one's on both sets
    nearest_value: Reading | None = None  # as `nearest`, with or without an interval


class Effect(NamedTuple):
    """What another value of one open value does, the others as in the default reading."""

    name: str  # of the open value
    value: Any  # instead of the default's
    metric: str  # of `IMAGES`
    # The MSE of each model ÷ that under the default reading, by architecture, if it has the value.
    models: Mapping[str, Estimate | None]
    ratio: Estimate | None  # conv ÷ dense-512, divided by that under the default reading


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

    def effects(self) -> list[Effect]:
        """What each other open value does to the two models and to their ratio."""
        default = self.under(DEFAULT)
        of_model = {schema.CONV: CONV_NAME, schema.DENSE: DENSE_NAME}
        found = []
        for name, values in schema.OPEN_VALUES.items():
            for value, metric in product([v for v in values if v != DEFAULT[name]], IMAGES):
                changed = self.under({**DEFAULT, name: value})
                models = {
                    one: settings.ratio(changed.get(one), default.get(one), metric)
                    for one in (of_model[model] for model in schema.BY_NAME[name].models)
                }
                both = settings.ratio_over_seeds(
                    _by_seed(changed, metric), _by_seed(default, metric)
                )
                found.append(Effect(name, value, metric, models, both))
        return found

    def likely(self) -> Likely:
        """The reading that the report most likely used, as far as its ratio of 0.5 tells.

        One seed has no interval, and is left out but for `nearest_value`.
        """
        every = [(r, [*self.ratios(r).values()]) for r in readings_of(*schema.MODELS)]
        known = [(r, [p for p in pairs if p]) for r, pairs in every if all(pairs)]
        if not known or self.n_epochs < claims.REPORT_EPOCHS:
            return Likely()
        nearest_value, _ = min(known, key=lambda item: _distance(item[1]))
        judged = [(r, pairs) for r, pairs in known if all(p.n > 1 for p in pairs)]
        if not judged:
            return Likely(nearest_value=nearest_value)
        nearest, its = min(judged, key=lambda item: _distance(item[1]))
        compatible = [r for r, pairs in judged if all(map(_brings_about_half, pairs))]
        alike = [r for r, pairs in judged if r is not nearest and all(map(_overlap, pairs, its))]
        factor = math.exp(_distance(its))
        return Likely(len(judged), tuple(compatible), nearest, factor, tuple(alike), nearest_value)

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
    top, bottom = (named[name].by_seed(metric) for name in (CONV_NAME, DENSE_NAME))
    return (top.where(top > 0) / bottom.where(bottom > 0)).dropna()


def _brings_about_half(pair: Estimate) -> bool:
    return pair.lowest <= claims.REPORT_MSE_RATIO <= pair.highest < 1


def _overlap(one: Estimate, other: Estimate) -> bool:
    return one.lowest <= other.highest and other.lowest <= one.highest


def _distance(pairs: Iterable[Estimate]) -> float:
    """How far the worse of some ratios is from the report's, as a logarithm."""
    return max(abs(math.log(pair.mean / claims.REPORT_MSE_RATIO)) for pair in pairs)


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
