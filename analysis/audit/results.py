"""The report's claims under every reading of what the report leaves open.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. Each claim is judged under each reading by `analysis.claims`;
this module says what that amounts to, which reading fits the report's numbers best, and what each
open value does. Pure functions on the tables of `analysis.load`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd

from analysis.claims import REPORT_EPOCHS, REPORT_MSE_RATIO, Claim, Verdict, judge_claims
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    DENSE_SETTING,
    SETTING,
    Estimate,
    architecture,
    metric_by_seed,
    most_frequent,
    names,
    ratio_of,
    ratio_over_seeds,
    tested_trials,
)
from study.folder.schema import (
    BY_NAME,
    CONV,
    DENSE,
    MODELS,
    OPEN_VALUES,
    READING,
    REFERENCE,
    TEST_MSE,
    TRAIN_MSE,
)

# The reading of the reference trials.
DEFAULT: Final[Mapping[str, Any]] = MappingProxyType(
    {name: BY_NAME[name].default for name in OPEN_VALUES}
)
MSE_METRICS: Final = (TRAIN_MSE, TEST_MSE)

Reading = Mapping[str, Any]  # open values by name
Overall = Verdict | Literal["depends"]


@dataclass(frozen=True)
class AuditedClaim:
    """A claim of the report under every reading that concerns it.

    Attributes:
        judged: each reading with the claim as judged under it.
        verdict: reproduced, not reproduced or not comparable under all readings; "depends" if
            both of the first two occur; not tested under none; else undecided.
        depends_on: where it depends, the fewest open values that tell the verdicts apart; more
            than one such set if untested readings leave the choice.
    """

    judged: tuple[tuple[Reading, Claim], ...]
    verdict: Overall
    depends_on: tuple[tuple[str, ...], ...] = ()

    @property
    def claim(self) -> Claim:
        """The claim as judged under the first reading; its words are those of all."""
        return self.judged[0][1]

    def under(self, verdict: str) -> list[Reading]:
        """The readings with a verdict."""
        return [reading for reading, claim in self.judged if claim.verdict == verdict]


@dataclass(frozen=True)
class LikelyReading:
    """Which readings bring about the report's ratio of 2, on both sets of images.

    Attributes:
        n_judged: readings with an interval on both sets after the report's 50 epochs; the others
            say nothing here.
        compatible: those whose intervals contain 2 and exclude 1 on both sets.
        nearest: the reading whose worse ratio is nearest to 2; None if none was judged.
        factor: between its worse ratio and 2, from 1 up.
        alike: other readings whose intervals overlap the nearest one's on both sets.
        nearest_value: the reading whose worse ratio is nearest to 2, whether it has an interval or
            not; None if none has ratios after the report's 50 epochs.
    """

    n_judged: int
    compatible: tuple[Reading, ...] = ()
    nearest: Reading | None = None
    factor: float = math.nan
    alike: tuple[Reading, ...] = ()
    nearest_value: Reading | None = None


@dataclass(frozen=True)
class Effect:
    """What another value of one open value does, the others as in the default reading.

    Attributes:
        name: of the open value.
        value: instead of the default's.
        metric: of `MSE_METRICS`.
        conv: the convolutional model's MSE ÷ its MSE under the default reading; None if not known.
        dense: the same of dense-512.
        ratio: the ratio dense-512 ÷ conv, divided by that under the default reading.
    """

    name: str
    value: Any
    metric: str
    conv: Estimate | None
    dense: Estimate | None
    ratio: Estimate | None


def readings_of(models: Iterable[str]) -> list[Reading]:
    """Every combination of the open values that concern these architectures."""
    concerned = [name for name in OPEN_VALUES if set(BY_NAME[name].models) & set(models)]
    return [
        dict(zip(concerned, values, strict=True))
        for values in product(*(OPEN_VALUES[name] for name in concerned))
    ]


def audited_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that the audit rests on: completed, on the full split, trained alike.

    They share all of their setting but the open values; should the run hold several such
    settings, the one with the most trials is kept.

    Returns:
        Rows of `trials` with a column `name` as in `analysis.statistics.reference_trials`, but
        "conv" whatever its latent filters are; a row a name, reading and seed.
    """
    kept = tested_trials(trials, (REFERENCE, READING))
    kept = most_frequent(kept, [column for column in SETTING if column not in OPEN_VALUES])
    fixed = [column for column in DENSE_SETTING if column not in OPEN_VALUES]
    dense = most_frequent(kept[kept["model"] == DENSE], fixed)
    kept = kept[(kept["model"] == CONV) | kept.index.isin(dense.index)]
    kept = kept.assign(
        name=[
            CONV_NAME if trial["model"] == CONV else architecture(trial)
            for _, trial in kept.iterrows()
        ]
    )
    return (
        kept.sort_values(["model", "hidden_units", *OPEN_VALUES, "seed"])
        .drop_duplicates(["name", *OPEN_VALUES, "seed"])
        .reset_index(drop=True)
    )


def is_audited(manifest: Mapping[str, Any], trials: pd.DataFrame) -> bool:
    """Whether the run trained, or was to train, the reference under other readings."""
    return bool(manifest["spec"].get("readings") or (trials["group"] == READING).any())


def trials_under(audited: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """The trials of a reading: those of each architecture whose open values it gives.

    Args:
        audited: of `audited_trials`.
        reading: of `readings_of`.
    """
    kept = pd.Series(False, index=audited.index)
    for model in MODELS:
        own = [name for name in OPEN_VALUES if model in BY_NAME[name].models]
        if set(own) <= set(reading):
            matches = audited["model"] == model
            for name in own:
                matches &= (audited[name] == reading[name]).fillna(value=False).astype(bool)
            kept |= matches
    return audited[kept].reset_index(drop=True)


def audit_claims(audited: pd.DataFrame, epochs: pd.DataFrame) -> list[AuditedClaim]:
    """Each measurable claim of the report under every reading.

    Args:
        audited: of `audited_trials`.
        epochs: of `analysis.load.load_run`.
    """
    judged: dict[str, list[tuple[Reading, Claim]]] = {}
    sizes = set(names(audited[audited["model"] == DENSE]))
    for models in (MODELS, (CONV,), (DENSE,)):
        for reading in readings_of(models):
            under = trials_under(audited, reading)
            for claim in judge_claims(under, epochs):
                if claim.models == models and claim.quantity:
                    whole = _with_every_size(claim, sizes - set(names(under)))
                    judged.setdefault(claim.claim, []).append((reading, whole))
    return [_overall(claims) for claims in judged.values()]


def _with_every_size(claim: Claim, missing: set[str]) -> Claim:
    """A claim about the dense sizes is not reproduced by some of them alone."""
    if claim.models == (DENSE,) and claim.verdict == "reproduced" and missing:
        reason = f"{claim.reason} Not compared: {', '.join(sorted(missing))}."
        return replace(claim, verdict="undecided", reason=reason)
    return claim


def _overall(judged: Sequence[tuple[Reading, Claim]]) -> AuditedClaim:
    verdicts = {claim.verdict for _, claim in judged}
    if len(verdicts) == 1:
        return AuditedClaim(tuple(judged), verdicts.pop())
    if {"reproduced", "not reproduced"} <= verdicts:
        return AuditedClaim(tuple(judged), "depends", _deciding(judged))
    if "not comparable" in verdicts:  # the others have no trials
        return AuditedClaim(tuple(judged), "not comparable")
    return AuditedClaim(tuple(judged), "undecided")


def _deciding(judged: Sequence[tuple[Reading, Claim]]) -> tuple[tuple[str, ...], ...]:
    """The smallest sets of open values that the verdict is a function of."""
    decided = [
        (reading, claim.verdict)
        for reading, claim in judged
        if claim.verdict in ("reproduced", "not reproduced")
    ]
    open_names = tuple(decided[0][0])
    for size in range(1, len(open_names)):
        found = tuple(
            subset for subset in combinations(open_names, size) if _is_function_of(subset, decided)
        )
        if found:
            return found
    return (open_names,)


def _is_function_of(subset: Sequence[str], decided: Sequence[tuple[Reading, str]]) -> bool:
    verdicts: dict[tuple[Any, ...], str] = {}
    return all(
        verdicts.setdefault(tuple(reading[name] for name in subset), verdict) == verdict
        for reading, verdict in decided
    )


def ratios(audited: pd.DataFrame) -> list[tuple[Reading, dict[str, Estimate | None]]]:
    """Dense-512 ÷ conv in each of `MSE_METRICS` under every reading, paired by seed."""
    found = []
    for reading in readings_of(MODELS):
        under = trials_under(audited, reading)
        by_metric = {
            metric: ratio_of(under, metric, DENSE_NAME, CONV_NAME) for metric in MSE_METRICS
        }
        found.append((reading, by_metric))
    return found


def likely_reading(audited: pd.DataFrame) -> LikelyReading:
    """The reading that the report most likely used, as far as its ratio of 2 tells.

    One seed has no interval, and is left out but for `nearest_value`. The rule is fixed here,
    before any data: it looks at the report's stated number alone, not at which claims would come
    true.
    """
    measured: list[tuple[Reading, list[Estimate]]] = []
    if audited.empty or audited["epochs"].max() < REPORT_EPOCHS:
        return LikelyReading(0)
    for reading, by_metric in ratios(audited):
        found = [ratio for ratio in by_metric.values() if ratio is not None]
        if len(found) == len(by_metric):
            measured.append((reading, found))
    if not measured:
        return LikelyReading(0)
    nearest_value, _ = min(measured, key=lambda item: _distance(item[1]))
    measured = [item for item in measured if all(ratio.n > 1 for ratio in item[1])]
    if not measured:
        return LikelyReading(0, nearest_value=nearest_value)
    compatible = tuple(
        reading
        for reading, known in measured
        if all(1 < ratio.lowest <= REPORT_MSE_RATIO <= ratio.highest for ratio in known)
    )
    nearest, its_ratios = min(measured, key=lambda item: _distance(item[1]))
    alike = tuple(
        reading
        for reading, known in measured
        if reading is not nearest
        and all(
            one.lowest <= other.highest and other.lowest <= one.highest
            for one, other in zip(known, its_ratios, strict=True)
        )
    )
    factor = math.exp(_distance(its_ratios))
    return LikelyReading(len(measured), compatible, nearest, factor, alike, nearest_value)


def _distance(known: Iterable[Estimate]) -> float:
    """How far the worse of some ratios is from the report's, as a logarithm."""
    return max(abs(math.log(ratio.mean / REPORT_MSE_RATIO)) for ratio in known)


def effects(audited: pd.DataFrame) -> list[Effect]:
    """What each other open value does to the two models and to their ratio, a row a metric."""
    default = trials_under(audited, DEFAULT)
    found = []
    for name, values in OPEN_VALUES.items():
        for value in values:
            if value == DEFAULT[name]:
                continue
            changed = trials_under(audited, {**DEFAULT, name: value})
            for metric in MSE_METRICS:
                conv, dense = (
                    ratio_over_seeds(
                        metric_by_seed(changed, model_name, metric),
                        metric_by_seed(default, model_name, metric),
                    )
                    if model in BY_NAME[name].models
                    else None
                    for model, model_name in ((CONV, CONV_NAME), (DENSE, DENSE_NAME))
                )
                ratio = ratio_over_seeds(
                    _ratio_by_seed(changed, metric), _ratio_by_seed(default, metric)
                )
                found.append(Effect(name, value, metric, conv, dense, ratio))
    return found


def _ratio_by_seed(under: pd.DataFrame, metric: str) -> pd.Series:
    dense, conv = (metric_by_seed(under, name, metric) for name in (DENSE_NAME, CONV_NAME))
    return (dense / conv).dropna()


def coverage(trials: pd.DataFrame, audited: pd.DataFrame) -> pd.DataFrame:
    """How many trials every architecture has under each reading of its own.

    Args:
        trials: of `analysis.load.load_run`.
        audited: of `audited_trials`.

    Returns:
        Columns name, reading, n (trials that enter the audit) and states (the numbers of those
        that do not, by state). The sizes are those of the run, 512 among them in any case.
    """
    planned = trials[trials["group"].isin((REFERENCE, READING))]
    sizes = sorted({512, *planned["hidden_units"].dropna()})
    rows = []
    for model, name, units in (
        (CONV, CONV_NAME, None),
        *((DENSE, f"{DENSE}-{size}", size) for size in sizes),
    ):
        of_name = planned[planned["model"] == model]
        if units is not None:
            of_name = of_name[of_name["hidden_units"] == units]
        for reading in readings_of((model,)):
            its = trials_under(of_name, reading)
            entered = its["trial_id"].isin(audited["trial_id"])
            others = its.loc[~entered, "state"].value_counts().to_dict()
            rows.append((name, reading, int(entered.sum()), others))
    return pd.DataFrame(rows, columns=["name", "reading", "n", "states"])
