"""The report's claims under every reading of what it leaves open.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. Each claim is judged under each reading by
`analysis.chapters.claims`; this module says what that amounts to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd

from analysis.chapters.claims import (
    REPORT_TIME_RATIO,
    Claim,
    Verdict,
    judge_claims,
)
from analysis.chapters.parts import (
    NO_VALUE,
    Table,
)
from analysis.statistics import (
    CONV_NAME,
    DENSE_SETTING,
    RATIO_NAME,
    SETTING,
    architecture,
    most_frequent,
    names,
    tested_trials,
)
from analysis.words import (
    count,
    digits,
    open_label,
    seeds,
)
from study.folder import schema

IMAGES: Final = {schema.TRAIN_MSE: "training", schema.TEST_MSE: "test"}
RULE: Final = (
    "A claim is reproduced (or not) if it is (or is not) under every reading that concerns"
    " it, and depends if it is under some and is not under others. A reading without completed"
    " trials keeps it undecided. The likely reading, named once all have an interval, is that whose"
    f" interval of {RATIO_NAME} contains 0.5, and excludes 1, on both sets; if there is none, the"
    " one whose worse ratio is nearest to 0.5. The rule uses the report's stated ratio alone, which"
    " was read off a curve on a log axis."
)

# The reading of the reference trials.
DEFAULT: Final[Mapping[str, Any]] = MappingProxyType(
    {name: schema.BY_NAME[name].default for name in schema.OPEN_VALUES}
)
MSE_METRICS: Final = (schema.TRAIN_MSE, schema.TEST_MSE)

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


def readings_of(models: Iterable[str]) -> list[Reading]:
    """Every combination of the open values that concern these architectures."""
    concerned = [
        name for name in schema.OPEN_VALUES if set(schema.BY_NAME[name].models) & set(models)
    ]
    return [
        dict(zip(concerned, values, strict=True))
        for values in product(*(schema.OPEN_VALUES[name] for name in concerned))
    ]


def audited_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that the audit rests on: completed, on the full split, trained alike.

    They share all of their setting but the open values; should the run hold several such
    settings, the one with the most trials is kept.

    Returns:
        Rows of `trials` with a column `name` as in `analysis.statistics.reference_trials`, but
        "conv" whatever its latent filters are; a row a name, reading and seed.
    """
    kept = tested_trials(trials, (schema.REFERENCE, schema.READING))
    kept = most_frequent(kept, [column for column in SETTING if column not in schema.OPEN_VALUES])
    fixed = [column for column in DENSE_SETTING if column not in schema.OPEN_VALUES]
    dense = most_frequent(kept[kept["model"] == schema.DENSE], fixed)
    kept = kept[(kept["model"] == schema.CONV) | kept.index.isin(dense.index)]
    kept = kept.assign(
        name=[
            CONV_NAME if trial["model"] == schema.CONV else architecture(trial)
            for _, trial in kept.iterrows()
        ]
    )
    return (
        kept.sort_values(["model", "hidden_units", *schema.OPEN_VALUES, "seed"])
        .drop_duplicates(["name", *schema.OPEN_VALUES, "seed"])
        .reset_index(drop=True)
    )


def is_audited(manifest: Mapping[str, Any], trials: pd.DataFrame) -> bool:
    """Whether the run trained, or was to train, the reference under other readings."""
    return bool(manifest["spec"].get("readings") or (trials["group"] == schema.READING).any())


def trials_under(audited: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    """The trials of a reading: those of each architecture whose open values it gives."""
    kept = pd.Series(False, index=audited.index)
    for model in schema.MODELS:
        custom = [name for name in schema.OPEN_VALUES if model in schema.BY_NAME[name].models]
        if set(custom) <= set(reading):
            matches = audited["model"] == model
            for name in custom:
                matches &= (audited[name] == reading[name]).fillna(value=False).astype(bool)
            kept |= matches
    return audited[kept].reset_index(drop=True)


def audit_claims(audited: pd.DataFrame, epochs: pd.DataFrame) -> list[AuditedClaim]:
    """Each measurable claim of the report under every reading."""
    judged: dict[str, list[tuple[Reading, Claim]]] = {}
    sizes = set(names(audited[audited["model"] == schema.DENSE]))
    for models in (schema.MODELS, (schema.CONV,), (schema.DENSE,)):
        for reading in readings_of(models):
            under = trials_under(audited, reading)
            for claim in judge_claims(under, epochs):
                if claim.models == models and claim.quantity:
                    whole = _with_every_size(claim, sizes - set(names(under)))
                    judged.setdefault(claim.claim, []).append((reading, whole))
    return [_overall(claims) for claims in judged.values()]


def _with_every_size(claim: Claim, missing: set[str]) -> Claim:
    """A claim about the dense sizes is not reproduced by some of them alone."""
    if claim.models == (schema.DENSE,) and claim.verdict == "reproduced" and missing:
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


def coverage(trials: pd.DataFrame, audited: pd.DataFrame) -> pd.DataFrame:
    """How many trials every architecture has under each reading of its own.

    Returns:
        Columns name, reading, n (trials that enter the audit) and states (the numbers of those
        that do not, by state). The sizes are those of the run, 512 among them in any case.
    """
    planned = trials[trials["group"].isin((schema.REFERENCE, schema.READING))]
    sizes = sorted({schema.BY_NAME["hidden_units"].default, *planned["hidden_units"].dropna()})
    rows = []
    for model, name, units in (
        (schema.CONV, CONV_NAME, None),
        *((schema.DENSE, f"{schema.DENSE}-{size}", size) for size in sizes),
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


def words_of(reading: Reading) -> str:
    """A reading in words: "batch size 256, latent filters 8"."""
    return ", ".join(f"{open_label(name)} {value}" for name, value in reading.items())


def overall_table(claims: Iterable[AuditedClaim]) -> Table:
    """A row a claim: what all the readings come to."""
    return Table(
        ("Claim", "The report", "Under the readings", "Verdict", "Why"),
        [
            (
                audited.claim.claim,
                audited.claim.report,
                _spread_of_values(audited),
                audited.verdict,
                _why(audited),
            )
            for audited in claims
        ],
    )


def _spread_of_values(audited: AuditedClaim) -> str:
    """The least and the greatest value over the readings, and the seeds behind them."""
    found = [claim.estimate for _, claim in audited.judged if claim.estimate is not None]
    if not found:
        return NO_VALUE
    means = [estimate.mean for estimate in found]
    spread = " to ".join(dict.fromkeys(digits(value) for value in (min(means), max(means))))
    quantity = audited.claim.quantity
    if len({claim.quantity for _, claim in audited.judged}) > 1:  # the size compared differs
        quantity = "test MSE, another dense size ÷ dense-512"
    return f"{quantity}: {spread} ({seeds(estimate.n for estimate in found)})"


def _why(audited: AuditedClaim) -> str:
    total = len(audited.judged)
    if audited.verdict in ("reproduced", "not reproduced"):
        return f"Under all {total} readings."
    tally = ", ".join(
        f"{verdict} under {n} of {total}"
        for verdict in ("reproduced", "not reproduced", "undecided", "not tested")
        if (n := len(audited.under(verdict)))
    )
    parts = [f"{tally[0].upper()}{tally[1:]} readings."] if tally else []
    if audited.depends_on:
        parts.append(_depends(audited))
    if audited.under("not comparable"):
        parts.append(_times(audited))
    return " ".join(parts)


def _depends(audited: AuditedClaim) -> str:
    choices = " or on ".join(
        " and ".join(f"the {open_label(name)}" for name in subset) for subset in audited.depends_on
    )
    subset = audited.depends_on[0]
    verdicts: list[Verdict] = ["reproduced", "not reproduced"]
    fewer, more = sorted(verdicts, key=lambda verdict: len(audited.under(verdict)))
    listed = _cells(audited.under(fewer), subset)
    return f"Depends on {choices}: {fewer} with {listed}; {more} with the others."


def _cells(readings: Iterable[Reading], subset: Sequence[str]) -> str:
    cells = dict.fromkeys(
        words_of({name: reading[name] for name in subset}) for reading in readings
    )
    return " / ".join(cells)


def _times(audited: AuditedClaim) -> str:
    found = [claim.estimate for _, claim in audited.judged if claim.estimate is not None]
    slower = sum(ratio.lowest > 1 for ratio in found)
    within = sum(
        ratio.low is not None and ratio.lowest <= REPORT_TIME_RATIO <= ratio.highest
        for ratio in found
    )
    return (
        f"Conv is slower under {slower} of {count(len(found), 'reading')} with times,"
        f" {REPORT_TIME_RATIO} lies within the interval of {within}; hardware and versions"
        " differ from the report's."
    )


def coverage_sentences(coverage: pd.DataFrame) -> list[str]:
    """What the audit lacks, a sentence an architecture; none if it lacks nothing."""
    sentences = []
    most = int(coverage["n"].max())
    for name, rows in coverage.groupby("name", sort=False):
        absent = rows[rows["n"] == 0]
        fewer = rows[(rows["n"] > 0) & (rows["n"] < most)]
        parts = []
        if len(absent) == len(rows):
            parts.append("no completed trial under any reading")
        elif len(absent):
            parts.append(f"no completed trial with {_listed(absent)}")
        if len(fewer):
            parts.append(f"fewer than {count(most, 'seed')} with {_listed(fewer)}")
        left_out = [
            f"{n} {'not ended' if state == schema.RUNNING else state}"
            for state in (schema.DIVERGED, schema.FAILED, schema.RUNNING)
            if (n := sum(states.get(state, 0) for states in rows["states"]))
        ]
        if left_out:
            parts.append(f"in no number, its trials {', '.join(left_out)}")
        if parts:
            sentences.append(f"{name}: {'; '.join(parts)}.")
    if most == 1:
        sentences.append("Every reading has one seed: no interval.")
    return sentences


def _listed(rows: pd.DataFrame) -> str:
    """The readings of rows of `coverage`, with n where there is any."""
    return " / ".join(
        words_of(row["reading"]) + (f" (n = {row['n']})" if row["n"] else "")
        for _, row in rows.iterrows()
    )


def csv(claims: Iterable[AuditedClaim]) -> str:
    """A row a claim and reading, as a CSV file."""
    rows: list[dict[str, Any]] = []
    for audited in claims:
        for reading, claim in audited.judged:
            estimate = claim.estimate
            measured = (
                {}
                if estimate is None
                else {
                    "value": estimate.mean,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                }
            )
            rows.append(
                {"claim": claim.claim, "report": claim.report, **reading}
                | {"quantity": claim.quantity, **measured}
                | {"verdict": claim.verdict, "reason": claim.reason, "overall": audited.verdict}
            )
    measured_columns = ["quantity", "value", "low", "high", "n"]
    columns = ["claim", "report", *schema.OPEN_VALUES, *measured_columns]
    frame = pd.DataFrame(rows, columns=[*columns, "verdict", "reason", "overall"])
    whole = dict.fromkeys(("batch_size", "latent_filters", "n"), "Int64")
    return frame.astype(whole).to_csv(index=False)
