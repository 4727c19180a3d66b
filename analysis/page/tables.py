"""The report's tables: rows of words for the page, and the Markdown and CSV files.

In rows, the first is the header (blank cells for none) and the first cell of each names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from analysis import figures, statistics
from analysis.claims import Claim
from analysis.statistics import CONV_NAME, DENSE_NAME
from analysis.words import (
    count,
    devices,
    duration,
    interval,
    mean_and_sd,
    values_of,
    without_home,
)
from study.folder import schema

Rows = list[list[str]]

# Where the report contradicts itself: what, what it says, this project's reading.
CONTRADICTIONS: Final[Sequence[Sequence[str]]] = (
    ("What", "The report", "Read as"),
    ("Encoder, third convolution", "16 filters, but a 4×4×8 latent", "8 filters"),
    (
        "Decoder, third convolution",
        "“same” padding, which would give 32×32 images",
        "“valid” padding: 16×16 → 14×14 → 28×28",
    ),
)


def run_rows(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Rows:
    """What was run, on what; without a header."""
    hardware, resources = manifest["hardware"], manifest["resources"]
    memory = hardware["memory_gib"]
    parts = [
        str(hardware["cpu"]),
        count(hardware["n_cpus"], "CPU"),
        "" if memory is None else f"{memory:.0f} GiB of memory",
        ", ".join(map(str, hardware["gpus"])) or "no GPU",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return [
        ["", ""],
        ["Preset", str(manifest["spec"]["preset"])],
        ["Status", str(manifest["status"])],
        ["Started (UTC)", str(manifest["started_utc"])[:16].replace("T", " ")],
        ["Duration", duration(manifest["wall_seconds"])],
        ["Trials", f"{count(len(trials), 'trial')} on {devices(trials)}"],
        [
            "Resources",
            f"{resources['cpus_per_trial']} CPU and {resources['gpus_per_trial']} GPU a trial, at"
            f" most {resources['max_concurrent']} at once",
        ],
        ["Hardware", ", ".join(part for part in parts if part)],
        ["Versions", versions],
        ["Code", code_version(manifest)],
        ["Data", without_home(str(manifest["data"]["source"]))],
    ]


def code_version(manifest: Mapping[str, Any]) -> str:
    """The code that ran the study."""
    code = manifest["code"]
    commit = f"commit {code['git_commit']}" if code["git_commit"] else "git commit not recorded"
    dirty = ", with uncommitted changes" if code["git_dirty"] else ""
    text = f"Version {code['version']}, {commit}{dirty}."
    sessions = manifest.get("sessions", ())
    others = dict.fromkeys(session["git_commit"] for session in sessions)
    others.pop(code["git_commit"], None)
    if others:
        named = ", ".join(other or "one not recorded" for other in others)
        text += f" Resumed: earlier sessions ran commit {named}."
    return text


def claim_rows(claims: Iterable[Claim]) -> Rows:
    """A row a claim of the report."""
    return [["Claim", "The report", "This run", "Verdict", "Why"]] + [
        [claim.claim, claim.report, _measured(claim), claim.verdict, claim.reason]
        for claim in claims
    ]


def _measured(claim: Claim) -> str:
    if claim.estimate is None:
        return "–"
    return f"{claim.quantity}: {interval(claim.estimate)}"


def summary_rows(reference: pd.DataFrame) -> Rows:
    """A header, a row an architecture, then the ratios of the report's two models."""
    rows = [["Model", "Parameters", "Seeds", "Training MSE", "Test MSE", "Training time (s)"]]
    for name in statistics.names(reference):
        trials = reference[reference["name"] == name]
        estimates = [
            statistics.mean_of(reference, name, metric)
            for metric in (schema.TRAIN_MSE, schema.TEST_MSE, "train_seconds")
        ]
        n_parameters = trials["n_parameters"].iloc[0]
        parameters = "–" if pd.isna(n_parameters) else f"{n_parameters:,}"
        rows.append([name, parameters, str(len(trials)), *map(mean_and_sd, estimates)])
    mse_ratios = [
        statistics.ratio_of(reference, metric, DENSE_NAME, CONV_NAME)
        for metric in (schema.TRAIN_MSE, schema.TEST_MSE)
    ]
    time_ratio = statistics.ratio_of(reference, "train_seconds", CONV_NAME, DENSE_NAME)
    for label, ratios in (
        (f"{DENSE_NAME} ÷ {CONV_NAME}", [*mse_ratios, None]),
        (f"{CONV_NAME} ÷ {DENSE_NAME}", [None, None, time_ratio]),
    ):
        found = [ratio for ratio in ratios if ratio is not None]
        if found:
            rows.append([label, "–", str(found[0].n), *map(interval, ratios)])
    return rows


def state_rows(trials: pd.DataFrame) -> Rows:
    """How many trials of each group ended in each state."""
    counts = trials.groupby(["group", "state"]).size()
    return [["Group", *schema.STATES]] + [
        [group, *(str(counts.get((group, state), 0)) for state in schema.STATES)]
        for group in schema.GROUPS
        if (trials["group"] == group).any()
    ]


def bad_rows(bad: pd.DataFrame) -> Rows:
    """A row a trial that failed or diverged, with what happened."""
    return [["Trial", "Group", "Model", "State", "What happened"]] + [
        [
            trial["trial_id"],
            trial["group"],
            statistics.architecture(trial),
            trial["state"],
            _what_happened(trial),
        ]
        for _, trial in bad.iterrows()
    ]


def _what_happened(trial: pd.Series) -> str:
    parts = []
    if not pd.isna(trial["diverged_epoch"]):
        parts.append(f"The loss stopped being finite in epoch {trial['diverged_epoch']}.")
    if not pd.isna(trial["error"]):
        lines = trial["error"].strip().splitlines()
        parts += map(without_home, lines[-1:])  # a traceback's last line; trials.csv has the whole
    return " ".join(parts) or "No error recorded."


def open_rows(trials: pd.DataFrame, reference: pd.DataFrame) -> Rows:
    """What the report leaves open, what the reference trials have, and what else was trained."""
    dense = reference[reference["model"] == schema.DENSE]
    sizes = [name for name in statistics.names(dense) if name != DENSE_NAME]

    def others(column: str, model: str) -> str:
        """What trials of other groups have instead."""
        its = trials[(trials["model"] == model) & trials["state"].eq(schema.COMPLETED)]
        rest = its[~its[column].isin(reference[column].dropna())]
        tried = [
            f"{group} trials: {values_of(rows[column])}"
            for group in (schema.READING, schema.NEIGHBOUR)
            if len(rows := rest[rest["group"] == group])
        ]
        return "; ".join(tried) or "not tested"

    conv, of_dense = schema.CONV, schema.DENSE
    latent = reference.loc[reference["model"] == conv, "latent_filters"]
    return [
        ["Left open", "In this run's reference trials", "Other values trained, for their effect"],
        [
            "Batch size (“the same as before”)",
            values_of(reference["batch_size"]) or "–",
            "; ".join(f"{model}: {others('batch_size', model)}" for model in schema.MODELS),
        ],
        ["Latent filters", values_of(latent) or "–", others("latent_filters", conv)],
        [
            "Dense hidden activation",
            values_of(dense["hidden_activation"]) or "–",
            others("hidden_activation", of_dense),
        ],
        ["Dense output activation", "sigmoid", "not tested"],
        ["Dense dropout", values_of(dense["dropout"]) or "–", others("dropout", of_dense)],
        ["The other dense sizes", ", ".join(sizes) or "–", "beside the claims"],
        ["Initialisation", "Keras defaults: Glorot uniform, zero bias", "not tested"],
        ["Decoder, third convolution", "“valid” padding", "not tested: “same” gives no 28×28"],
    ]


def markdown(manifest: Mapping[str, Any], rows: Rows, note: str) -> str:
    """The final values as a Markdown file.

    Args:
        manifest: of `analysis.load.load_manifest`.
        rows: of `summary_rows`.
        note: what the values rest on.
    """
    return (
        f"# {manifest['name']}\n\nFinal values, mean ± sample standard deviation over seeds;"
        f" MSE in {figures.MSE_UNIT}. Ratios are geometric means paired by seed.\n\n"
        f"{markdown_table(rows)}\n\n{note}\n"
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as a table in Markdown."""
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def claims_csv(claims: Iterable[Claim], rests_on: str) -> str:
    """The claims as a CSV file.

    Args:
        claims: of `analysis.claims.judge_claims`.
        rests_on: the readings that what was measured rests on.
    """
    rows = []
    for claim in claims:
        row = asdict(claim)
        estimate = row.pop("estimate") or {}
        values = {key: estimate.get(key) for key in ("mean", "low", "high", "n")}
        rested = rests_on if claim.estimate else None
        rows.append(row | {"value": values.pop("mean"), "rests_on": rested} | values)
    measured = ["quantity", "value", "low", "high", "n"]
    columns = ["claim", "report", *measured, "verdict", "reason", "rests_on"]
    frame = pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})
    return frame.to_csv(index=False)
