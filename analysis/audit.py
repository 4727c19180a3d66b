"""The report's claims under every reading of what it leaves open, and which reading is likely.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. `analysis.claims` judges each claim under each reading; this
module says what that amounts to. The rule for the likely reading is fixed here, before any data: it
looks at the report's stated number alone, not at which claims would come true.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd

from analysis.claims import (
    MEASURED,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPORT_EPOCHS,
    REPORT_MSE_RATIO,
    REPORT_TIME_RATIO,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Named,
    Verdict,
    judge_claims,
    measured,
)
from analysis.load import Run
from analysis.phrases import NO_VALUE, count, digits, open_label, seeds, sentence_case
from analysis.settings import CONV_NAME, DENSE_NAME, Estimate, Setting, ratio, ratio_over_seeds
from study.folder import schema

IMAGES: Final = {schema.TRAIN_MSE: "training", schema.TEST_MSE: "test"}

Reading = Mapping[str, Any]  # open values by name
Ratios = Mapping[str, Estimate | None]  # conv ÷ dense-512 by metric of `IMAGES`
DEPENDS: Final = "depends"
LOST: Final = (schema.DIVERGED, schema.FAILED, schema.RUNNING)
NOT_ENDED: Final = {schema.RUNNING: "not ended"}
Overall = Verdict | Literal["depends"]
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


@dataclass(frozen=True)
class LikelyReading:
    """Which readings bring about the report's ratio of 0.5, on both sets of images."""

    n_judged: int = 0  # readings with an interval on both sets after the report's 50 epochs
    compatible: tuple[Reading, ...] = ()  # whose intervals contain 0.5 and exclude 1 on both sets
    nearest: Reading | None = None  # whose worse ratio is nearest to 0.5; None if none was judged
    factor: float = math.nan  # between its worse ratio and 0.5, from 1 up
    alike: tuple[Reading, ...] = ()  # others whose intervals overlap the nearest one's on both sets
    nearest_value: Reading | None = None  # as `nearest`, with or without an interval


@dataclass(frozen=True)
class Effect:
    """What another value of one open value does, the others as in the default reading."""

    name: str  # of the open value
    value: Any  # instead of the default's
    metric: str  # of `IMAGES`
    # The MSE of each model ÷ that under the default reading, by architecture, if it has the value.
    models: Mapping[str, Estimate | None] = field(default_factory=dict)
    ratio: Estimate | None = None  # conv ÷ dense-512, divided by that under the default reading


def is_audited(run: Run) -> bool:
    """Whether the run trained the reference under other readings."""
    return bool(run.of(schema.READING))


def readings_of(models: Iterable[str]) -> list[Reading]:
    """Every combination of the open values that concern these models."""
    concerned = [
        name for name in schema.OPEN_VALUES if set(schema.BY_NAME[name].models) & set(models)
    ]
    return [
        dict(zip(concerned, values, strict=True))
        for values in product(*(schema.OPEN_VALUES[name] for name in concerned))
    ]


def reading_of(setting: Setting) -> Reading:
    """The open values that a setting has."""
    return {name: setting.values[name] for name in schema.OPEN_VALUES if name in setting.values}


class Audit:
    """The report's models under every reading of what it leaves open.

    Args:
        run: with reference trials and trials of other readings.
    """

    def __init__(self, run: Run) -> None:
        self.epochs = run.epochs
        # Such as a user's table may add to the two groups, with other things changed.
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
        return {
            s.architecture: s for s in self.settings if reading_of(s).items() <= reading.items()
        }

    def ratios(self, reading: Reading) -> Ratios:
        """Conv ÷ dense-512 under a reading, paired by seed."""
        named = self.under(reading)
        conv, dense = named.get(CONV_NAME), named.get(DENSE_NAME)
        return {metric: ratio(conv, dense, metric) for metric in IMAGES}

    def claims(self) -> list[AuditedClaim]:
        """Each measurable claim of the report under every reading."""
        judged: dict[str, list[tuple[Reading, Claim]]] = {}
        sizes = {s.architecture for s in self.settings if s.model == schema.DENSE}
        for models in (schema.MODELS, (schema.CONV,), (schema.DENSE,)):
            for reading in readings_of(models):
                named = self.under(reading)
                for claim in judge_claims(named, self.epochs):
                    if claim.models == models and claim.quantity:
                        whole = _with_every_size(claim, sizes - set(named))
                        judged.setdefault(claim.claim, []).append((reading, whole))
        return [_overall(tuple(claims)) for claims in judged.values()]

    def effects(self) -> list[Effect]:
        """What each other open value does to the two models and to their ratio."""
        default = self.under(DEFAULT)
        found = []
        for name, values in schema.OPEN_VALUES.items():
            concerned = [
                one
                for model, one in ((schema.CONV, CONV_NAME), (schema.DENSE, DENSE_NAME))
                if model in schema.BY_NAME[name].models
            ]
            for value, metric in product(values, IMAGES):
                if value == DEFAULT[name]:
                    continue
                changed = self.under({**DEFAULT, name: value})
                models = {
                    one: ratio(changed.get(one), default.get(one), metric) for one in concerned
                }
                of_ratio = ratio_over_seeds(_by_seed(changed, metric), _by_seed(default, metric))
                found.append(Effect(name, value, metric, models, of_ratio))
        return found

    def likely(self) -> LikelyReading:
        """The reading that the report most likely used, as far as its ratio of 0.5 tells.

        One seed has no interval, and is left out but for `nearest_value`.
        """
        if self.n_epochs < REPORT_EPOCHS:
            return LikelyReading()
        every = [
            (reading, [*self.ratios(reading).values()]) for reading in readings_of(schema.MODELS)
        ]
        known = [(r, [p for p in pairs if p]) for r, pairs in every if all(pairs)]
        if not known:
            return LikelyReading()
        nearest_value, _ = min(known, key=lambda item: _distance(item[1]))
        judged = [(r, pairs) for r, pairs in known if all(p.n > 1 for p in pairs)]
        if not judged:
            return LikelyReading(nearest_value=nearest_value)
        nearest, its = min(judged, key=lambda item: _distance(item[1]))
        compatible = [
            r
            for r, pairs in judged
            if all(p.lowest <= REPORT_MSE_RATIO <= p.highest < 1 for p in pairs)
        ]
        alike = [
            r
            for r, pairs in judged
            if r is not nearest
            and all(
                a.lowest <= b.highest and b.lowest <= a.highest
                for a, b in zip(pairs, its, strict=True)
            )
        ]
        return LikelyReading(
            len(judged),
            tuple(compatible),
            nearest,
            math.exp(_distance(its)),
            tuple(alike),
            nearest_value,
        )

    def lacks(self) -> list[str]:
        """What the audit lacks, a sentence an architecture; none if it lacks nothing."""
        units = {s.value("hidden_units") for s in self.planned if s.model == schema.DENSE}
        sizes = sorted(units | {schema.BY_NAME["hidden_units"].default})
        names = {CONV_NAME: schema.CONV, **{f"{schema.DENSE}-{n}": schema.DENSE for n in sizes}}
        covered = {
            name: [(r, *self._coverage(name, r)) for r in readings_of((model,))]
            for name, model in names.items()
        }
        most = max(n for rows in covered.values() for _, n, _ in rows)
        sentences = []
        for name, rows in covered.items():
            absent = [words_of(reading) for reading, n, _ in rows if not n]
            fewer = [f"{words_of(reading)} (n = {n})" for reading, n, _ in rows if 0 < n < most]
            lost = sum((states for *_, states in rows), Counter[str]())
            parts = []
            if len(absent) == len(rows):
                parts.append("no completed trial under any reading")
            elif absent:
                parts.append(f"no completed trial with {' / '.join(absent)}")
            if fewer:
                parts.append(f"fewer than {count(most, 'seed')} with {' / '.join(fewer)}")
            if lost:
                said = ", ".join(f"{n} {NOT_ENDED.get(state, state)}" for state, n in lost.items())
                parts.append(f"in no number, its trials {said}")
            if parts:
                sentences.append(f"{name}: {'; '.join(parts)}.")
        if most == 1:
            sentences.append("Every reading has one seed: no interval.")
        return sentences

    def _coverage(self, name: str, reading: Reading) -> tuple[int, Counter[str]]:
        """The seeds of an architecture under a reading, and the states of its other trials."""
        planned = [s for s in self.planned if s.architecture == name and reading_of(s) == reading]
        n = sum(len(s.by_seed()) for s in planned if s in self.settings)
        states: Counter[str] = Counter()
        for setting in planned:
            states.update({s: n for s, n in setting.states.items() if s in LOST})
        return n, states


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
    if NOT_COMPARABLE in verdicts:  # the others have no trials
        return AuditedClaim(judged, NOT_COMPARABLE)
    return AuditedClaim(judged, UNDECIDED)


def _deciding(judged: Iterable[tuple[Reading, Claim]]) -> tuple[tuple[str, ...], ...]:
    """The smallest sets of open values that the verdict is a function of."""
    decided = [(r, c.verdict) for r, c in judged if c.verdict in (REPRODUCED, NOT_REPRODUCED)]
    names = tuple(decided[0][0])
    for size in range(1, len(names)):
        subsets = combinations(names, size)
        if found := tuple(subset for subset in subsets if _is_function_of(subset, decided)):
            return found
    return (names,)


def _is_function_of(subset: Sequence[str], decided: Iterable[tuple[Reading, str]]) -> bool:
    verdicts: dict[tuple[Any, ...], str] = {}
    return all(
        verdicts.setdefault(tuple(reading[name] for name in subset), verdict) == verdict
        for reading, verdict in decided
    )


def _by_seed(named: Named, metric: str) -> pd.Series:
    """Conv ÷ dense-512 of each seed."""
    conv, dense = (
        named[name].by_seed(metric) if name in named else pd.Series(dtype="float64")
        for name in (CONV_NAME, DENSE_NAME)
    )
    return (conv / dense).dropna()


def _distance(pairs: Iterable[Estimate]) -> float:
    """How far the worse of some ratios is from the report's, as a logarithm."""
    return max(abs(math.log(pair.mean / REPORT_MSE_RATIO)) for pair in pairs)


def words_of(reading: Reading) -> str:
    """A reading in words: "batch size 256, latent filters 8"."""
    return ", ".join(f"{open_label(name)} {value}" for name, value in reading.items())


def spread_words(audited: AuditedClaim) -> str:
    """The least and the greatest value over the readings, and the seeds behind them."""
    means = [estimate.mean for estimate in audited.estimates]
    if not means:
        return NO_VALUE
    spread = " to ".join(dict.fromkeys(digits(value) for value in (min(means), max(means))))
    quantity = audited.claim.quantity
    if len({claim.quantity for _, claim in audited.judged}) > 1:  # the size compared differs
        quantity = "test MSE, another dense size ÷ dense-512"
    return f"{quantity}: {spread} ({seeds(e.n for e in audited.estimates)})"


def why(audited: AuditedClaim) -> str:
    """Why a claim has its verdict over all readings."""
    total = len(audited.judged)
    if audited.verdict in (REPRODUCED, NOT_REPRODUCED):
        return f"Under all {total} readings."
    tally = ", ".join(
        f"{verdict} under {n} of {total}"
        for verdict in (REPRODUCED, NOT_REPRODUCED, UNDECIDED, NOT_TESTED)
        if (n := len(audited.under(verdict)))
    )
    parts = [f"{sentence_case(tally)} readings."] if tally else []
    if audited.depends_on:
        parts.append(_depends(audited))
    if audited.under(NOT_COMPARABLE):
        slower = sum(pair.lowest > 1 for pair in audited.estimates)
        within = sum(
            pair.low is not None and not pair.excludes(REPORT_TIME_RATIO)
            for pair in audited.estimates
        )
        parts.append(
            f"Conv is slower under {slower} of {count(len(audited.estimates), 'reading')} with"
            f" times, {REPORT_TIME_RATIO} lies within the interval of {within}; hardware and"
            " versions differ from the report's."
        )
    return " ".join(parts)


def _depends(audited: AuditedClaim) -> str:
    choices = " or on ".join(
        " and ".join(f"the {open_label(name)}" for name in subset) for subset in audited.depends_on
    )
    subset = audited.depends_on[0]
    fewer, more = sorted((REPRODUCED, NOT_REPRODUCED), key=lambda v: len(audited.under(v)))
    cells = dict.fromkeys(
        words_of({name: reading[name] for name in subset}) for reading in audited.under(fewer)
    )
    return f"Depends on {choices}: {fewer} with {' / '.join(cells)}; {more} with the others."


def likely_sentences(audit: Audit, claims: Iterable[AuditedClaim]) -> list[str]:
    """Two sentences on the reading that the report most likely used."""
    likely, total = audit.likely(), len(readings_of(schema.MODELS))

    def both(reading: Reading) -> str:
        pairs = audit.ratios(reading).items()
        ratios = ", ".join(
            f"{IMAGES[metric]} {digits(pair.mean)}" for metric, pair in pairs if pair
        )
        return f"{words_of(reading)} ({ratios})"

    if likely.nearest_value is None:
        return [
            "Which reading the report used cannot be said: under none of them have both models"
            f" completed {REPORT_EPOCHS} epochs.",
            "A shorter training is not the report's.",
        ]
    if likely.nearest is None or likely.n_judged < total:
        return [
            "Which reading the report used cannot be said yet: the ratio conv ÷ dense-512 has an"
            f" interval, which takes two seeds, under {likely.n_judged} of {total} readings.",
            f"By the value alone the nearest to the report's 0.5 is {both(likely.nearest_value)},"
            " and that decides nothing.",
        ]
    if not likely.compatible:
        alike = ""
        if likely.alike:
            n = count(len(likely.alike), "other reading")
            alike = f", although {n} cannot be told apart from it"
        return [
            f"Under none of the {total} readings is conv ÷ dense-512 0.5 on both sets, as in the"
            f" report; the nearest is {both(likely.nearest)}, whose worse ratio is a factor of"
            f" {digits(likely.factor)} away from 0.5.",
            f"If the report used one of them, that one is the likeliest{alike}; as none brings"
            " about the report's number, the evidence does not decide"
            f" ({_agreement(likely.nearest, claims)}).",
        ]
    if len(likely.compatible) == 1:
        (only,) = likely.compatible
        return [
            f"The report most likely used {both(only)}: of the {total} readings it alone has"
            " intervals of conv ÷ dense-512 that contain 0.5 on both sets.",
            f"That rests on the ratio alone ({_agreement(only, claims)}).",
        ]
    return [
        f"The report may have used any of {len(likely.compatible)} of the {total} readings, whose"
        " intervals of conv ÷ dense-512 contain 0.5 on both sets:"
        f" {'; '.join(map(words_of, likely.compatible))}.",
        f"The evidence does not decide among them; the nearest is {both(likely.nearest)}.",
    ]


def _agreement(reading: Reading, claims: Iterable[AuditedClaim]) -> str:
    """How many of the claims are reproduced under a reading."""
    verdicts = [
        claim.verdict
        for audited in claims
        for its, claim in audited.judged
        if its.items() <= reading.items() and claim.verdict in (REPRODUCED, NOT_REPRODUCED)
    ]
    n = verdicts.count(REPRODUCED)
    return f"under it {n} of {count(len(verdicts), 'claim')} with a verdict are reproduced"


def csv(claims: Iterable[AuditedClaim]) -> str:
    """A row a claim and reading, as a CSV file."""
    rows = [
        {"claim": claim.claim, "report": claim.report, **reading, **measured(claim)}
        | {"verdict": claim.verdict, "reason": claim.reason, "overall": audited.verdict}
        for audited in claims
        for reading, claim in audited.judged
    ]
    columns = ["claim", "report", *schema.OPEN_VALUES, *MEASURED, "verdict", "reason", "overall"]
    whole = dict.fromkeys(("batch_size", "latent_filters", "n"), "Int64")
    return pd.DataFrame(rows, columns=columns).astype(whole).to_csv(index=False)
