"""What the report leaves open, and its claims under every reading of it.

A reading gives each open value that a claim depends on one of its values in
`study.folder.schema.OPEN_VALUES`. Each claim is judged under each reading by
`analysis.chapters.claims`; this module says what that amounts to, which reading fits the report's
numbers best, and what each open value does.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby, product
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures, statistics
from analysis.chapters import parts
from analysis.chapters.claims import (
    REPORT_EPOCHS,
    REPORT_MSE_RATIO,
    REPORT_TIME_RATIO,
    Claim,
    Verdict,
    judge_claims,
)
from analysis.chapters.parts import (
    NO_VALUE,
    Chapter,
    Fold,
    Heading,
    Items,
    Part,
    Table,
    Text,
)
from analysis.figures import DARK, LIGHT, Points
from analysis.load import Run
from analysis.statistics import (
    CONV_NAME,
    DENSE_NAME,
    DENSE_SETTING,
    RATIO_NAME,
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
from analysis.words import (
    count,
    digits,
    mean_and_sd,
    open_label,
    open_values,
    rests_on,
    seeds,
    sentence_case,
    short_interval,
    values_of,
)
from study.folder import schema
from study.folder.schema import (
    BY_NAME,
    COMPLETED,
    CONV,
    DENSE,
    HYPERPARAMETERS,
    MODELS,
    NEIGHBOUR,
    OPEN_VALUES,
    READING,
    REFERENCE,
    TEST_MSE,
    TRAIN_MSE,
)

FIGURE: Final = "figure-readings"
CSV_FILE: Final = "audit.csv"
MARKDOWN_FILE: Final = "audit.md"
TITLE: Final = "What the report leaves open"
ROW_INCHES: Final = 0.3
IMAGES: Final = {TRAIN_MSE: "training", TEST_MSE: "test"}
LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    TRAIN_MSE: {"color": DARK, "marker": "o", "markersize": 5},
    TEST_MSE: {"color": LIGHT, "marker": "s", "markersize": 4.5},
}
RULE: Final = (
    "A claim is reproduced (or not) if it is (or is not) under every reading that concerns"
    " it, and depends if it is under some and is not under others. A reading without completed"
    " trials keeps it undecided. The likely reading, named once all have an interval, is that whose"
    f" interval of {RATIO_NAME} contains 0.5, and excludes 1, on both sets; if there is none, the"
    " one whose worse ratio is nearest to 0.5. The rule uses the report's stated ratio alone, which"
    " was read off a curve on a log axis."
)
# Where the report contradicts itself.
CONTRADICTIONS: Final = Table(
    ("What", "The report", "Read as"),
    (
        ("Encoder, third convolution", "16 filters, but a 4×4×8 latent", "8 filters"),
        (
            "Decoder, third convolution",
            "“same” padding, which would give 32×32 images",
            "“valid” padding: 16×16 → 14×14 → 28×28",
        ),
    ),
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
    """Which readings bring about the report's ratio of 0.5, on both sets of images.

    Attributes:
        n_judged: readings with an interval on both sets after the report's 50 epochs; the others
            say nothing here.
        compatible: those whose intervals contain 0.5 and exclude 1 on both sets.
        nearest: the reading whose worse ratio is nearest to 0.5; None if none was judged.
        factor: between its worse ratio and 0.5, from 1 up.
        alike: other readings whose intervals overlap the nearest one's on both sets.
        nearest_value: the reading whose worse ratio is nearest to 0.5, with or without an
            interval; None if none has ratios after the report's 50 epochs.
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
        ratio: the ratio conv ÷ dense-512, divided by that under the default reading.
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
    """Conv ÷ dense-512 in each of `MSE_METRICS` under every reading, paired by seed."""
    found = []
    for reading in readings_of(MODELS):
        under = trials_under(audited, reading)
        by_metric = {metric: ratio_of(under, metric) for metric in MSE_METRICS}
        found.append((reading, by_metric))
    return found


def likely_reading(audited: pd.DataFrame) -> LikelyReading:
    """The reading that the report most likely used, as far as its ratio of 0.5 tells.

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
        if all(ratio.lowest <= REPORT_MSE_RATIO <= ratio.highest < 1 for ratio in known)
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


def distance(ratio: Estimate, other: float) -> float:
    """How far a ratio is from a number, as a logarithm."""
    return abs(math.log(ratio.mean / other))


def _distance(known: Iterable[Estimate]) -> float:
    """How far the worse of some ratios is from the report's."""
    return max(distance(ratio, REPORT_MSE_RATIO) for ratio in known)


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
    return (conv / dense).dropna()


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


def reading_tables(claims: Sequence[AuditedClaim]) -> list[Table]:
    """A row a reading, with each claim's value and verdict; tables by the architectures concerned.

    Args:
        claims: of `audit_claims`.
    """
    tables = []
    for _, group in groupby(claims, lambda audited: audited.claim.models):
        its = list(group)
        header = ["Reading"]
        for audited in its:
            shared = {claim.quantity for _, claim in audited.judged}
            header += [_short(audited) if len(shared) > 1 else audited.claim.quantity, "Verdict"]
        rows = []
        for place, (reading, _) in enumerate(its[0].judged):
            row = [words_of(reading)]
            for audited in its:
                claim = audited.judged[place][1]
                value = short_interval(claim.estimate)
                if claim.estimate is not None and claim.quantity not in header:
                    value = f"{claim.quantity.partition(', ')[2].split(' ÷')[0]}: {value}"
                row += [value, claim.verdict]
            rows.append(row)
        tables.append(Table(header, rows))
    return tables


def _short(audited: AuditedClaim) -> str:
    extreme = "best other" if "best" in audited.claim.claim else "most different"
    return f"test MSE, {extreme} size ÷ {DENSE_NAME}"


def value_table(audited: pd.DataFrame) -> Table:
    """The final values of every architecture under each reading of its own.

    Args:
        audited: of `audited_trials`.
    """
    rows = []
    for name in names(audited):
        for reading in readings_of((CONV if name == CONV_NAME else DENSE,)):
            under = trials_under(audited, reading)
            n = int((under["name"] == name).sum())
            values = [
                mean_and_sd(statistics.mean_of(under, name, metric))
                for metric in statistics.SUMMARISED
            ]
            rows.append((name, words_of(reading), str(n), *values))
    header = ("Model", "Reading", "Seeds", "Training MSE", "Test MSE", "Training time (s)")
    return Table(header, rows, right=(2, 3, 4, 5))


def effect_table(found: Iterable[Effect]) -> Table:
    """What each open value does, a row a value and set of images."""

    def factor(effect: Effect, estimate: Estimate | None, model: str) -> str:
        concerned = model in BY_NAME[effect.name].models
        return short_interval(estimate) if concerned else "does not apply"

    header = ("Instead of the default", "Images", "conv's MSE ×", "dense-512's MSE ×")
    rows = [
        (
            f"{open_label(effect.name)} {effect.value}, not {DEFAULT[effect.name]}",
            IMAGES[effect.metric],
            factor(effect, effect.conv, CONV),
            factor(effect, effect.dense, DENSE),
            short_interval(effect.ratio),
        )
        for effect in found
    ]
    return Table((*header, f"{RATIO_NAME} ×"), rows)


def likely_sentences(
    likely: LikelyReading, audited: pd.DataFrame, claims: Iterable[AuditedClaim]
) -> list[str]:
    """Two sentences on the reading that the report most likely used.

    Args:
        likely: of `likely_reading`.
        audited: of `audited_trials`.
        claims: of `audit_claims`.
    """
    total = len(readings_of(MODELS))
    if likely.nearest_value is None:
        return [
            "Which reading the report used cannot be said: under none of them have both models"
            f" completed {REPORT_EPOCHS} epochs.",
            "A shorter training is not the report's.",
        ]
    if likely.nearest is None or likely.n_judged < total:
        value = likely.nearest_value
        return [
            "Which reading the report used cannot be said yet: the ratio conv ÷ dense-512 has an"
            f" interval, which takes two seeds, under {likely.n_judged} of {total} readings.",
            f"By the value alone the nearest to the report's 0.5 is {words_of(value)}"
            f" ({_both_ratios(audited, value)}), and that decides nothing.",
        ]
    judged = f"{total} readings"
    nearest = f"{words_of(likely.nearest)} ({_both_ratios(audited, likely.nearest)})"
    if not likely.compatible:
        first = (
            f"Under none of the {judged} is conv ÷ dense-512 0.5 on both sets, as in the report;"
            f" the nearest is {nearest}, whose worse ratio is a factor of"
            f" {digits(likely.factor)} away from 0.5."
        )
        alike = ""
        if likely.alike:
            n = count(len(likely.alike), "other reading")
            alike = f", although {n} cannot be told apart from it"
        second = (
            f"If the report used one of them, that one is the likeliest{alike}; as none brings"
            f" about the report's number, the evidence does not decide"
            f"{_agreement(likely.nearest, claims)}."
        )
        return [first, second]
    if len(likely.compatible) == 1:
        (only,) = likely.compatible
        first = (
            f"The report most likely used {words_of(only)} ({_both_ratios(audited, only)}): of the"
            f" {judged} it alone has intervals of conv ÷ dense-512 that contain 0.5 on both sets."
        )
        return [first, f"That rests on the ratio alone{_agreement(only, claims)}."]
    listed = "; ".join(map(words_of, likely.compatible))
    return [
        f"The report may have used any of {len(likely.compatible)} of the {judged}, whose intervals"
        f" of conv ÷ dense-512 contain 0.5 on both sets: {listed}.",
        f"The evidence does not decide among them; the nearest is {nearest}.",
    ]


def _both_ratios(audited: pd.DataFrame, reading: Reading) -> str:
    under = trials_under(audited, reading)
    return ", ".join(
        f"{images} {digits(ratio.mean)}"
        for metric, images in IMAGES.items()
        if (ratio := ratio_of(under, metric)) is not None
    )


def _agreement(reading: Reading, claims: Iterable[AuditedClaim]) -> str:
    """How many of the claims are reproduced under a reading."""
    verdicts = [
        claim.verdict
        for audited in claims
        for its_reading, claim in audited.judged
        if its_reading.items() <= reading.items()
        and claim.verdict in ("reproduced", "not reproduced")
    ]
    n = verdicts.count("reproduced")
    return f" (under it {n} of {count(len(verdicts), 'claim')} with a verdict are reproduced)"


def coverage_sentences(coverage: pd.DataFrame) -> list[str]:
    """What the audit lacks, a sentence an architecture; none if it lacks nothing.

    Args:
        coverage: of `coverage`.
    """
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
    columns = ["claim", "report", *OPEN_VALUES, *measured_columns]
    frame = pd.DataFrame(rows, columns=[*columns, "verdict", "reason", "overall"])
    whole = dict.fromkeys(("batch_size", "latent_filters", "n"), "Int64")
    return frame.astype(whole).to_csv(index=False)


def markdown(
    name: str,
    claims: Sequence[AuditedClaim],
    audited: pd.DataFrame,
    gaps: Iterable[str],
    note: str,
) -> str:
    """The audit as a Markdown file.

    Args:
        name: of the study.
        claims: of `audit_claims`.
        audited: of `audited_trials`.
        gaps: of `coverage_sentences`.
        note: what the numbers rest on.
    """
    parts = [
        f"# {name}: the report's claims under every reading",
        overall_table(claims).markdown(),
        " ".join(likely_sentences(likely_reading(audited), audited, claims)),
        "Values with their 95 % intervals:",
        *(table.markdown() for table in reading_tables(claims)),
        "What each open value does, the others at this project's default:",
        effect_table(effects(audited)).markdown(),
        *([" ".join(gaps)] if list(gaps) else []),
        RULE,
        note,
    ]
    return "\n\n".join(parts) + "\n"


def ratio_table(audited: pd.DataFrame) -> pd.DataFrame:
    """Conv ÷ dense-512, a row a reading and set of images, those without a ratio as well.

    Returns:
        Columns label, metric, mean, low, high and n.
    """
    rows: list[tuple[Any, ...]] = []
    for reading, by_metric in ratios(audited):
        label = ", ".join(str(reading[name]) for name in OPEN_VALUES)
        for metric, ratio in by_metric.items():
            if ratio is None:
                rows.append((label, metric, None, None, None, 0))
            else:
                rows.append((label, metric, ratio.mean, ratio.low, ratio.high, ratio.n))
    columns = ["label", "metric", "mean", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:5], "float64"))


def plot_ratios(data: pd.DataFrame, ax: Axes) -> Axes:
    """The ratio under each reading on a log axis, beside the lines 1 and 0.5.

    Args:
        data: of `ratio_table`.
        ax: where to draw.
    """
    labels: Sequence[str] = list(dict.fromkeys(data["label"]))
    limits = figures.interval_limits(data, (1.0, REPORT_MSE_RATIO))
    ax.set_xscale("log")
    ax.set_xlim(limits)
    ax.axvline(1, color="#444444", linewidth=1)
    ax.axvline(REPORT_MSE_RATIO, color="#c2185b", linewidth=1.4, linestyle=(0, (5, 2)))
    for place, at, words in ((1.0, "right", "equal "), (REPORT_MSE_RATIO, "right", "the report ")):
        ax.text(
            place,
            1.0,
            words,
            transform=ax.get_xaxis_transform(),
            ha=at,
            va="bottom",
            fontsize=7.5,
        )
    for metric, offset in zip(MSE_METRICS, (-0.17, 0.17), strict=True):
        rows = data[data["metric"] == metric].reset_index(drop=True)
        heights = np.arange(len(rows)) + offset
        look = LOOKS[metric]
        figures.plot_intervals(rows, ax, heights, limits, look["color"])
        alone = (rows["n"] == 1).to_numpy()
        for chosen, face in ((~alone, look["color"]), (alone, "white")):
            ax.plot(
                rows["mean"].to_numpy()[chosen],
                heights[chosen],
                linestyle="none",
                markerfacecolor=face,
                **look,
            )
        ax.plot([], [], linestyle="none", label=f"{IMAGES[metric]} set", **look)
    for row, label in enumerate(labels):
        if data.loc[data["label"] == label, "mean"].isna().all():
            ax.text(
                0.5,
                row,
                "no completed pair of trials",
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=7,
                color="#666666",
            )
    ax.set_yticks(range(len(labels)), labels, fontsize=8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    group = len(OPEN_VALUES["latent_filters"]) * len(OPEN_VALUES["hidden_activation"])
    for last in range(group, len(labels), group):  # between the batch sizes
        ax.axhline(last - 0.5, color="#e4e4e4", linewidth=0.8)
    figures.log_axis(ax.xaxis, 6)
    ax.set_xlabel(f"MSE, {RATIO_NAME}, log axis")
    ax.set_ylabel("Batch size, latent filters, dense activation")
    figures.legend(ax, loc="lower left", bbox_to_anchor=(0, 1.03), ncols=2)
    return ax


def open_table(trials: pd.DataFrame, reference: pd.DataFrame) -> Table:
    """What the report leaves open, what the reference trials have, and what else was trained."""

    def others(name: str) -> str:
        tried = []
        for model in BY_NAME[name].models:
            its = trials[(trials["model"] == model) & (trials["state"] == COMPLETED)]
            rest = its[~its[name].isin(reference[name].dropna())]
            tried += [
                f"{model}, {group} trials: {values}"
                for group in (READING, NEIGHBOUR)
                if (values := values_of(rest.loc[rest["group"] == group, name]))
            ]
        return "; ".join(tried) or "not tested"

    rows = [
        (
            sentence_case(open_label(p.name)),
            values_of(reference.loc[reference["model"].isin(p.models), p.name]) or NO_VALUE,
            others(p.name),
        )
        for p in HYPERPARAMETERS
        if not p.stated
    ]
    sizes = [name for name in names(reference) if name not in (CONV_NAME, DENSE_NAME)]
    return Table(
        ("Left open", "In this run's reference trials", "Other values trained"),
        [
            *rows,
            ("Dense output activation", "sigmoid", "not tested"),
            ("The other dense sizes", ", ".join(sizes) or NO_VALUE, "see the claims"),
            ("Initialisation", "Keras defaults: Glorot uniform, zero bias", "not tested"),
            ("Decoder, third convolution", "“valid” padding", "“same” gives no 28×28"),
        ],
    )


def chapter(run: Run) -> Chapter:
    """The claims under every reading, of a run that trained them, and what is left open."""
    content: list[Part] = []
    gaps = [
        "No trials under other readings of what the report leaves open (preset “audit”): whether"
        " the claims depend on them is not known."
    ]
    files: dict[str, bytes] = {}
    if is_audited(run.manifest, run.trials):
        audited = audited_trials(run.trials)
        claims = audit_claims(audited, run.epochs)
        lacks = coverage_sentences(coverage(run.trials, audited))
        gaps = ["The audit is not whole: " + " ".join(lacks)] if lacks else []
        content = _audit(run, audited, claims, lacks)
        note = "No completed trial under any reading."
        if len(audited):
            note = f"{count(len(audited), 'trial')} of {count(audited['epochs'].max(), 'epoch')}."
        note = f"{note} {rests_on(run)}"
        text = markdown(run.manifest["name"], claims, audited, lacks, note)
        files = {CSV_FILE: csv(claims).encode(), MARKDOWN_FILE: text.encode()}
    content += [
        Heading("Where the report contradicts itself"),
        CONTRADICTIONS,
        Heading("What it does not state"),
        open_table(run.trials, run.reference),
    ]
    return Chapter("readings", TITLE, content, gaps, files)


def _audit(
    run: Run, audited: pd.DataFrame, claims: Sequence[AuditedClaim], lacks: Sequence[str]
) -> list[Part]:
    likely = likely_sentences(likely_reading(audited), audited, claims)
    with figures.style():
        figure = _draw(run, audited)
    return [
        Heading("The claims under every reading"),
        overall_table(claims),
        Text(RULE, soft=True),
        *([figure] if figure else []),
        Heading("Which reading the report most likely used"),
        Text(" ".join(likely)),
        Heading("What each open value does"),
        Text("One value changed at a time, the others at this project's default.", soft=True),
        effect_table(effects(audited)),
        *([Heading("What the audit lacks"), Items(lacks)] if lacks else []),
        Fold("Every claim under every reading", reading_tables(claims)),
        Fold("The final values under every reading", [value_table(audited)]),
    ]


def _draw(run: Run, audited: pd.DataFrame) -> parts.Figure | None:
    data = ratio_table(audited)
    known = data.dropna(subset="mean")
    if known.empty:
        return None
    labels = list(dict.fromkeys(data["label"]))
    figure, ax = figures.new_figure(1.3 + ROW_INCHES * len(labels))
    plot_ratios(data, ax)
    ends = "; ".join(
        f"{IMAGES[str(metric)]} set {digits(rows['mean'].min())} to {digits(rows['mean'].max())}"
        for metric, rows in known.groupby("metric", sort=False)
    )
    points = [
        Points(
            0,
            rows["mean"],
            [labels.index(label) for label in rows["label"]],
            [
                f"{row['label']}, {IMAGES[str(metric)]} set: "
                + short_interval(Estimate(row["mean"], row["n"], None, *_ends(row)))
                for _, row in rows.iterrows()
            ],
        )
        for metric, rows in known.groupby("metric", sort=False)
    ]
    return figures.finish(
        figure,
        FIGURE,
        "The ratio of the two models under every reading",
        f"MSE of {RATIO_NAME} under {known['label'].nunique()} of"
        f" {count(len(labels), 'reading')}: {ends}. Below 1 {CONV_NAME} has the lower MSE; the"
        f" report has {REPORT_MSE_RATIO:g}.",
        f"{sentence_case(seeds(known['n']))} a reading, {count(audited['epochs'].max(), 'epoch')};"
        " one seed has no interval, and its mark is hollow; arrows: an interval goes on."
        f" Readings: {open_values(audited)}.",
        rests_on(run),
        by="point",
        points=[(ax, its) for its in points],
    )


def _ends(row: pd.Series) -> tuple[float | None, float | None]:
    low, high = (None if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return low, high
