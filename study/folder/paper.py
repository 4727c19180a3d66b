"""What a paper claims and what it leaves open, as data: no code here or elsewhere knows a paper.

A study file says it (`study.plan.papers` reads it), the manifest keeps it, and the analysis judges
it. A setting is named by its label, as in the trials' column `setting`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from study.folder import schema
from study.folder.records import from_json

EARLY_FALL: Final = "early_fall"  # the share of the fall of the training MSE in the first epochs
MEASURES: Final = (*schema.METRICS, schema.SECONDS, EARLY_FALL)
AT_MOST: Final = "at most"
AT_LEAST: Final = "at least"
WITHIN: Final = "within a factor of"
RELATIONS: Final = (AT_MOST, AT_LEAST, WITHIN)
# The claim holds if the whole 95 % interval lies on the claimed side of the value, or if it reaches
# a value that the paper itself measured, and excludes 1.
WHOLE: Final = "whole"
REACHES: Final = "reaches"
JUDGED: Final = (WHOLE, REACHES)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of a paper: what is measured, of which setting beside which, and how it is judged."""

    says: str  # the claim, a sentence
    paper: str = ""  # the paper's own words or number
    where: str = ""  # it says so
    measure: str = ""  # of `MEASURES`; empty for a judgement by eye
    of: str = ""  # the label of the setting that is measured
    others: str = ""  # or each other setting that differs from `beside` in this hyperparameter
    beside: str = ""  # the label of the setting that it is divided by; empty for the value itself
    relation: str = ""  # of `RELATIONS`
    value: float = 0.0  # that the relation is to, above 0
    judged: str = WHOLE  # of `JUDGED`
    first: float = 0.0  # of `EARLY_FALL`: the share of the epochs
    values: tuple[float, ...] = ()  # what the paper measured of the two settings
    called: str = ""  # the word for what holds, such as "steep"
    quantity: str = ""  # what is measured in words, if not the plain ones
    note: str = ""  # what else is to be said of a verdict
    models: tuple[str, ...] = ()  # that it is about, of the labels

    @property
    def pair(self) -> tuple[str, str]:
        """The two settings of a ratio."""
        return self.of, self.beside


@dataclass(frozen=True, kw_only=True)
class Open:
    """What a paper leaves open of a model, with the values that are tried."""

    model: str
    values: tuple[tuple[str, tuple[Any, ...]], ...]  # by hyperparameter


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """What a paper leaves open or contradicts and all trials read in one way."""

    what: str
    read_as: str
    paper: str = ""  # what it says, where it contradicts itself
    note: str = ""  # why no other value is tried
    short: str = ""  # for the list of what numbers rest on
    model: str = ""  # that it is about, of that list


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper, as far as a study tests it."""

    called: str = "the paper"  # for people, with its article
    source: str = ""  # who wrote it, where
    question: str = ""  # that its claims answer
    summary: str = ""  # what it says to that, a clause
    images: str = "MNIST"  # that its claims are about
    epochs: int | None = None  # that they are about; None for any number
    hardware: str = ""  # of its times
    claims: tuple[Claim, ...] = ()
    open: tuple[Open, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    @property
    def factors(self) -> dict[str, tuple[Any, ...]]:
        """What is left open and tried with several values, of all models, by name."""
        found = {name: values for one in self.open for name, values in one.values}
        return {name: values for name, values in found.items() if len(values) > 1}

    def factors_of(self, models: Iterable[str]) -> list[str]:
        """The names of `factors` that some models have."""
        having = {name for one in self.open if one.model in models for name, _ in one.values}
        return [name for name in self.factors if name in having]

    @property
    def headline(self) -> Claim | None:
        """The ratio that the paper is about: the first one of test errors, or of other errors."""
        ratios = [c for c in self.claims if c.of and c.beside and c.measure in schema.METRICS]
        return min(ratios, key=lambda c: c.measure != schema.TEST_MSE, default=None)

    @property
    def numbers(self) -> dict[str, Claim]:
        """The claims that give the headline's ratio a number of the paper's, by metric."""
        pair = self.headline.pair if self.headline else None
        return {c.measure: c for c in self.claims if c.judged == REACHES and c.pair == pair}

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Paper":
        """The inverse of `to_dict`, also after a trip through JSON."""
        its: Paper = from_json(cls, fields)
        return its
