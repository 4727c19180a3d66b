"""The audit's tables as rows of words, its sentences, and its CSV and Markdown files.

In rows, the first is the header and the first cell of each names it, as in `analysis.page.tables`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import pandas as pd

from analysis import statistics
from analysis.audit import results
from analysis.audit.results import AuditedClaim, Effect, LikelyReading, Reading
from analysis.claims import REPORT_EPOCHS, REPORT_TIME_RATIO, Verdict
from analysis.page.tables import Rows, markdown_table
from analysis.statistics import CONV_NAME, DENSE_NAME, Estimate
from analysis.words import count, digits, interval, mean_and_sd
from study.folder import schema

FACTOR_WORDS: Final[Mapping[str, str]] = {
    "batch_size": "batch size {}",
    "latent_filters": "{} latent filters",
    "hidden_activation": "dense activation {}",
}
FACTOR_NAMES: Final = {
    "batch_size": "the batch size",
    "latent_filters": "the latent filters",
    "hidden_activation": "the dense hidden activation",
}
IMAGES: Final = {schema.TRAIN_MSE: "training", schema.TEST_MSE: "test"}

RULE: Final = (
    "A claim is reproduced (or not) if it is (or is not) under every reading that concerns"
    " it, and depends if it is under some and is not under others. A reading without completed"
    " trials keeps it undecided. Ratios are geometric means paired by seed with 95 %"
    " t-intervals; one seed has no interval. The likely reading, named once all have one, is"
    " that whose interval of dense-512 ÷ conv contains 2, and excludes 1, on both sets; if"
    " there is none, the one whose worse ratio is nearest to 2. The rule uses the report's"
    " stated ratio alone, which was read off a curve on a log axis."
)


def words_of(reading: Reading) -> str:
    """A reading in words: "batch size 256, 8 latent filters, dense activation relu"."""
    return ", ".join(FACTOR_WORDS[name].format(value) for name, value in reading.items())


def overall_rows(claims: Iterable[AuditedClaim]) -> Rows:
    """A row a claim: what all the readings come to."""
    return [["Claim", "The report", "Under the readings", "Verdict", "Why"]] + [
        [
            audited.claim.claim,
            audited.claim.report,
            _spread_of_values(audited),
            audited.verdict,
            _why(audited),
        ]
        for audited in claims
    ]


def _spread_of_values(audited: AuditedClaim) -> str:
    """The least and the greatest value over the readings, and the seeds behind them."""
    found = [claim.estimate for _, claim in audited.judged if claim.estimate is not None]
    if not found:
        return "–"
    means = [estimate.mean for estimate in found]
    seeds = sorted({estimate.n for estimate in found})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    spread = " to ".join(dict.fromkeys(digits(value) for value in (min(means), max(means))))
    quantity = audited.claim.quantity
    if len({claim.quantity for _, claim in audited.judged}) > 1:  # the size compared differs
        quantity = "test MSE, another dense size ÷ dense-512"
    return f"{quantity}: {spread} (n = {n} seeds)"


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
        " and ".join(FACTOR_NAMES[name] for name in subset) for subset in audited.depends_on
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


def reading_tables(claims: Sequence[AuditedClaim]) -> list[Rows]:
    """A row a reading, with each claim's value and verdict; tables by the architectures concerned.

    Args:
        claims: of `analysis.audit.results.audit_claims`.
    """
    tables = []
    for _, group in groupby(claims, lambda audited: audited.claim.models):
        its = list(group)
        header = ["Reading"]
        for audited in its:
            shared = {claim.quantity for _, claim in audited.judged}
            header += [_short(audited) if len(shared) > 1 else audited.claim.quantity, "Verdict"]
        rows = [header]
        for place, (reading, _) in enumerate(its[0].judged):
            row = [words_of(reading)]
            for audited in its:
                claim = audited.judged[place][1]
                value = _short_interval(claim.estimate)
                if claim.estimate is not None and claim.quantity not in header:
                    value = f"{claim.quantity.partition(', ')[2].split(' ÷')[0]}: {value}"
                row += [value, claim.verdict]
            rows.append(row)
        tables.append(rows)
    return tables


def _short_interval(estimate: Estimate | None) -> str:
    """A mean with its 95 % interval and n, as short as a wide table needs it."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return interval(estimate)
    bounds = f"{digits(estimate.low)} to {digits(estimate.high)}"
    return f"{digits(estimate.mean)} ({bounds}), n = {estimate.n}"


def _short(audited: AuditedClaim) -> str:
    extreme = "best other" if "best" in audited.claim.claim else "most different"
    return f"test MSE, {extreme} size ÷ {DENSE_NAME}"


def value_rows(audited: pd.DataFrame) -> Rows:
    """The final values of every architecture under each reading of its own.

    Args:
        audited: of `analysis.audit.results.audited_trials`.
    """
    rows = [["Model", "Reading", "Seeds", "Training MSE", "Test MSE", "Training time (s)"]]
    metrics = (*results.MSE_METRICS, "train_seconds")
    for name in statistics.names(audited):
        model = schema.CONV if name == CONV_NAME else schema.DENSE
        for reading in results.readings_of((model,)):
            under = results.trials_under(audited, reading)
            n = int((under["name"] == name).sum())
            values = [mean_and_sd(statistics.mean_of(under, name, metric)) for metric in metrics]
            rows.append([name, words_of(reading), str(n), *values])
    return rows


def effect_rows(effects: Iterable[Effect]) -> Rows:
    """What each open value does, a row a value and set of images."""
    header = ["Instead of the default", "Images", "conv's MSE ×", "dense-512's MSE ×"]
    return [[*header, "dense-512 ÷ conv ×"]] + [
        [
            f"{FACTOR_WORDS[effect.name].format(effect.value)}, not {results.DEFAULT[effect.name]}",
            IMAGES[effect.metric],
            _factor(effect.conv, schema.CONV, effect.name),
            _factor(effect.dense, schema.DENSE, effect.name),
            _short_interval(effect.ratio),
        ]
        for effect in effects
    ]


def _factor(estimate: Estimate | None, model: str, name: str) -> str:
    return _short_interval(estimate) if model in schema.BY_NAME[name].models else "does not apply"


def likely_sentences(
    likely: LikelyReading, audited: pd.DataFrame, claims: Iterable[AuditedClaim]
) -> list[str]:
    """Two sentences on the reading that the report most likely used.

    Args:
        likely: of `analysis.audit.results.likely_reading`.
        audited: of `analysis.audit.results.audited_trials`.
        claims: of `analysis.audit.results.audit_claims`.
    """
    total = len(results.readings_of(schema.MODELS))
    if likely.nearest_value is None:
        return [
            "Which reading the report used cannot be said: under none of them have both models"
            f" completed {REPORT_EPOCHS} epochs.",
            "A shorter training is not the report's.",
        ]
    if likely.nearest is None or likely.n_judged < total:
        value = likely.nearest_value
        return [
            "Which reading the report used cannot be said yet: the ratio dense-512 ÷ conv has an"
            f" interval, which takes two seeds, under {likely.n_judged} of {total} readings.",
            f"By the value alone the nearest to the report's 2 is {words_of(value)}"
            f" ({_both_ratios(audited, value)}), and that decides nothing.",
        ]
    judged = f"{total} readings"
    nearest = f"{words_of(likely.nearest)} ({_both_ratios(audited, likely.nearest)})"
    if not likely.compatible:
        first = (
            f"Under none of the {judged} is dense-512 ÷ conv 2 on both sets, as the report has it;"
            f" the nearest is {nearest}, whose worse ratio is a factor of"
            f" {digits(likely.factor)} away from 2."
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
            f" {judged} it alone has intervals of dense-512 ÷ conv that contain 2 on both sets."
        )
        return [first, f"That rests on the ratio alone{_agreement(only, claims)}."]
    listed = "; ".join(map(words_of, likely.compatible))
    return [
        f"The report may have used any of {len(likely.compatible)} of the {judged}, whose intervals"
        f" of dense-512 ÷ conv contain 2 on both sets: {listed}.",
        f"The evidence does not decide among them; the nearest is {nearest}.",
    ]


def _both_ratios(audited: pd.DataFrame, reading: Reading) -> str:
    under = results.trials_under(audited, reading)
    return ", ".join(
        f"{images} {digits(ratio.mean)}"
        for metric, images in IMAGES.items()
        if (ratio := statistics.ratio_of(under, metric, DENSE_NAME, CONV_NAME)) is not None
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
        coverage: of `analysis.audit.results.coverage`.
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
    """The readings of rows of `analysis.audit.results.coverage`, with n where there is any."""
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


def markdown(
    manifest: Mapping[str, Any],
    claims: Sequence[AuditedClaim],
    audited: pd.DataFrame,
    gaps: Iterable[str],
    note: str,
) -> str:
    """The audit as a Markdown file, to paste into a README.

    Args:
        manifest: of `analysis.load.load_manifest`.
        claims: of `analysis.audit.results.audit_claims`.
        audited: of `analysis.audit.results.audited_trials`.
        gaps: of `coverage_sentences`.
        note: what the numbers rest on.
    """
    sentences = likely_sentences(results.likely_reading(audited), audited, claims)
    parts = [
        f"# {manifest['name']}: the report's claims under every reading",
        markdown_table(overall_rows(claims)),
        " ".join(sentences),
        "Values with their 95 % intervals:",
        *map(markdown_table, reading_tables(claims)),
        "What each open value does, the others at this project's default:",
        markdown_table(effect_rows(results.effects(audited))),
        *([" ".join(gaps)] if gaps else []),
        RULE,
        note,
    ]
    return "\n\n".join(parts) + "\n"
