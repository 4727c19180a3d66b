"""Writes a run folder's report again, from its tables alone.

    python -m analysis.report results/NAME

In a few seconds on one core it writes results/NAME/report/: index.html, one self-contained page to
open in a browser; the figures as PNG and SVG; summary.csv, summary.md and claims.csv. It prints
the page's path. The folder may be a URI (s3://, gs://). Exit 2 for a folder that is not a run.
"""

import argparse
import io
import math
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from pyarrow import fs

from analysis import figures, statistics
from analysis.load import (
    RunFolderError,
    load_manifest,
    load_reconstructions,
    load_run,
    open_folder,
)
from analysis.statistics import CONV_NAME, DENSE_NAME, Claim, Estimate
from study import schema

PNG_DPI: Final = 200
N_BEST: Final = 3  # search trials shown of each model
PAGE_FILE: Final = "index.html"

# Where the report contradicts itself: what, what it says, this project's reading.
CONTRADICTIONS: Final = (
    ("Encoder, third convolution", "16 filters, but a 4×4×8 latent", "8 filters"),
    (
        "Decoder, third convolution",
        "“same” padding, which would give 32×32 images",
        "“valid” padding: 16×16 → 14×14 → 28×28",
    ),
)

STYLE_SHEET: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #59636e; --line: #d5dae0;
  --page: #fbfbfa; --card: #fff; --accent: #0b4a7f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e8eb; --soft: #a3adb8; --line: #39424c;
  --page: #14181c; --card: #1c2228; --accent: #7fb8e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 68rem; color: var(--ink);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem;
  border-bottom: 2px solid var(--accent); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, ul { max-width: 46rem; }
ul { padding-left: 1.2rem; }
.soft { color: var(--soft); }
pre { overflow-x: auto; padding: .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 4px; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 600; }
.verdict { font-weight: 700; }
.verdict, .name { white-space: nowrap; }
.figures { display: grid; gap: 1.2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; padding: .8rem; background: #fff; color: #1d2329; border-radius: 6px;
  border: 1px solid var(--line); break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; max-width: 36rem; margin: 0 auto; }
figcaption { font-size: .85rem; line-height: 1.4; margin-top: .5rem; }
figcaption span { color: #59636e; }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  th, td { display: block; border: 0; padding: .1rem 0; overflow-wrap: anywhere; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff; --card: #fff;
  --accent: #0b4a7f; }
  body { max-width: none; padding: 0; background: #fff; color: #000; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } figure { border: 0; }
  figure svg { max-width: 25rem; } }
"""


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: of its files, without suffix.
        title: in a few words.
        alt: what it shows, in words and numbers.
        note: what it rests on.
        inline_svg: the figure without the note, for the page, its ids unique there.
        files: contents by suffix; these have the note in the picture.
    """

    name: str
    title: str
    alt: str
    note: str
    inline_svg: str
    files: Mapping[str, bytes]


def write_report(path: str | Path) -> str:
    """Writes PATH/report/ from the run folder's manifest and tables.

    Args:
        path: the run folder STORAGE/NAME, a local path or a URI.

    Returns:
        The path or URI of the page, index.html.

    Raises:
        RunFolderError: if the folder is not a whole run, or the report cannot be written.
    """
    manifest = load_manifest(path)
    trials, epochs = load_run(path)
    reconstructions = load_reconstructions(path)
    reference = statistics.reference_trials(trials)
    drawings = _draw_all(manifest, trials, epochs, reference, reconstructions)
    claims = statistics.claims(trials, epochs)
    summary = statistics.summary(reference)
    note = _setting_note(manifest, reference, spread=False)

    page = _page(manifest, trials, reference, claims, drawings, note)
    files = {
        f"{drawing.name}.{suffix}": content
        for drawing in drawings
        for suffix, content in drawing.files.items()
    }
    files |= {
        "summary.csv": summary.to_csv(index=False).encode(),
        "summary.md": _markdown(manifest, _summary_rows(reference), note).encode(),
        "claims.csv": _claims_csv(claims).encode(),
        PAGE_FILE: page.encode(),  # the last: once it is there, so is what it belongs to
    }
    filesystem, folder = open_folder(path)
    report_folder = f"{folder}/{schema.REPORT_FOLDER}"
    try:
        _write_files(filesystem, report_folder, files)
    except OSError as error:
        raise RunFolderError(
            f"{report_folder} cannot be written ({error}); check its permissions and free space."
        ) from error
    return f"{str(path).rstrip('/')}/{schema.REPORT_FOLDER}/{PAGE_FILE}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 written, 2 not a run folder."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Write a run folder's report again: figures, tables and one page.",
    )
    parser.add_argument("folder", metavar="DIR", help="STORAGE/NAME, a path or a URI")
    folder = parser.parse_args(arguments).folder
    try:
        print(write_report(folder))
    except RunFolderError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


# Figures


def _draw_all(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    reference: pd.DataFrame,
    reconstructions: pd.DataFrame,
) -> list[Drawing]:
    """The figures that the run has data for."""
    with figures.style():
        drawn = [
            _draw_reconstructions(manifest, reference, reconstructions),
            _draw_conv(manifest, reference, epochs),
            _draw_log(
                manifest, reference, epochs, schema.TRAIN_MSE, "figure-3-training", "Training"
            ),
            _draw_log(manifest, reference, epochs, schema.TEST_MSE, "figure-4-test", "Test"),
            _draw_times(manifest, reference),
            _draw_search(manifest, trials),
        ]
    return [drawing for drawing in drawn if drawing is not None]


def _draw_reconstructions(
    manifest: Mapping[str, Any], reference: pd.DataFrame, reconstructions: pd.DataFrame
) -> Drawing | None:
    shown = figures.shown_trials(reconstructions, reference)
    rows = figures.digit_rows(reconstructions, shown)
    if not rows:
        return None
    n_digits = len(rows["original"])
    figure, ax = figures.new_figure(0.44 * len(rows) + 0.15)
    figures.plot_reconstructions(rows, ax)
    shown = shown[shown["name"].isin(rows)]
    return _drawing(
        figure,
        "figure-1-reconstructions",
        "Figure 1. Random test digits and their reconstructions",
        f"{n_digits} random test digits, a row each: {', '.join(rows)}.",
        f"Seed {_values(shown['seed'])}, {_setting_note(manifest, shown)}",
    )


def _draw_conv(
    manifest: Mapping[str, Any], reference: pd.DataFrame, epochs: pd.DataFrame
) -> Drawing | None:
    conv = reference[reference["name"] == CONV_NAME]
    data = {
        images: statistics.curves(conv, epochs, metric)
        for images, metric in (("training", schema.TRAIN_MSE), ("test", schema.TEST_MSE))
    }
    if any(curve.empty for curve in data.values()):
        return None
    figure, ax = figures.new_figure()
    figures.plot_conv_curves(data, ax)
    ends = " and ".join(
        f"{images} MSE falls from {_digits(curve['mean'].iloc[0])} to"
        f" {_digits(curve['mean'].iloc[-1])}"
        for images, curve in data.items()
    )
    return _drawing(
        figure,
        "figure-2-conv",
        "Figure 2. Convolutional autoencoder: MSE against epoch",
        f"Over {_count(data['test']['epoch'].max(), 'epoch')}, {ends}.",
        "The training MSE is the mean over the epoch while the weights move; the test MSE is"
        f" measured at its end. {_setting_note(manifest, conv)}",
    )


def _draw_log(
    manifest: Mapping[str, Any],
    reference: pd.DataFrame,
    epochs: pd.DataFrame,
    metric: str,
    name: str,
    images: str,
) -> Drawing | None:
    data = statistics.curves(reference, epochs, metric)
    if data.empty:
        return None
    figure, ax = figures.new_figure()
    figures.plot_log_mse(data, ax, images)
    ends = data.groupby("name", sort=False).tail(1)
    values = ", ".join(f"{row['name']} {_digits(row['mean'])}" for _, row in ends.iterrows())
    number = name.split("-")[1]
    return _drawing(
        figure,
        name,
        f"Figure {number}. {images} set: log MSE against epoch",
        f"{images} MSE, log axis, after {_count(data['epoch'].max(), 'epoch')}: {values}.",
        _setting_note(manifest, reference),
    )


def _draw_times(manifest: Mapping[str, Any], reference: pd.DataFrame) -> Drawing | None:
    shown = reference[reference["name"].isin([CONV_NAME, DENSE_NAME])]
    shown = shown.dropna(subset="train_seconds")
    if shown.empty:
        return None
    here = f"this run\n{_count(shown['epochs'].iloc[0], 'epoch')}"
    report = f"the report\n{statistics.REPORT_EPOCHS} epochs\n{statistics.REPORT_HARDWARE}"
    bars = []
    for name in statistics.names(shown):
        seconds = statistics.metric_by_seed(shown, name, "train_seconds")
        bars.append(figures.TimeBar(here, name, float(seconds.mean()), tuple(seconds)))
    stated = statistics.REPORT_TRAIN_SECONDS.items()
    bars += [figures.TimeBar(report, name, seconds) for name, seconds in stated]
    figure, ax = figures.new_figure()
    figures.plot_times(bars, ax)
    values = "; ".join(
        f"{bar.source.splitlines()[0]}, {bar.name}: {bar.mean_seconds:.3g} s" for bar in bars
    )
    return _drawing(
        figure,
        "figure-5-times",
        "Figure 5. Training time, measured and as the report states it",
        f"Training times: {values}.",
        "Weight updates only, without compilation and evaluation; dots are seeds. Hardware and"
        f" versions differ from the report's. {_setting_note(manifest, shown, spread=False)}",
    )


def _draw_search(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Drawing | None:
    data = statistics.search_progress(trials)
    if data["value"].notna().sum() == 0:
        return None
    figure, ax = figures.new_figure(4.0)
    figures.plot_search(data, ax)
    search = trials[trials["group"] == schema.SEARCH]
    best = data.dropna(subset="value").groupby("model")["value"].min()
    counts = data.groupby("model").size()
    values = ", ".join(f"{model} {_digits(value)}" for model, value in best.items())
    n_trials = ", ".join(f"{_count(n, 'trial')} ({model})" for model, n in counts.items())
    return _drawing(
        figure,
        "figure-6-search",
        "Figure 6. Search: best validation MSE so far",
        f"Best validation MSE of the search: {values}.",
        f"{n_trials}, one seed each, at most {_count(search['epochs'].max(), 'epoch')}; trained on"
        " 50,000 images, validated on 10,000 others; the test set is not used. Trials that were"
        " pruned, diverged or failed have no value and are marks at the bottom."
        f" {_devices(search)}; TensorFlow {_version(manifest, 'tensorflow')}."
        f" {_readings(search, batch_sizes='searched')}",
    )


def _drawing(figure: Figure, name: str, title: str, alt: str, note: str) -> Drawing:
    inline_svg = _inline(_svg(figure, name), name, f"{title}. {alt}")
    figures.add_footnote(figure, note)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=PNG_DPI)
    files = {"svg": _svg(figure, name), "png": png.getvalue()}
    return Drawing(name, title, alt, note, inline_svg, files)


def _svg(figure: Figure, name: str) -> bytes:
    """The same bytes for the same figure: a fixed salt for the ids, and no date."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _inline(svg: bytes, name: str, label: str) -> str:
    """An SVG for the page: ids unique there (glyphs would be mixed up), and a label."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


# Words and numbers


def _setting_note(
    manifest: Mapping[str, Any], reference: pd.DataFrame, *, spread: bool = True
) -> str:
    """What numbers of the reference trials rest on: n, device, versions and readings."""
    if reference.empty:
        return "No completed reference trial."
    n_seeds = reference.groupby("name", sort=False).size()
    if n_seeds.nunique() == 1:
        seeds = f"n = {_count(n_seeds.iloc[0], 'seed')}"
    else:
        seeds = ", ".join(f"n = {n} ({name})" for name, n in n_seeds.items())
    if spread and n_seeds.max() > 1:
        seeds = f"Mean and min–max band over seeds, {seeds}"
    return (
        f"{seeds}; {_count(reference['epochs'].iloc[0], 'epoch')}; {_devices(reference)};"
        f" TensorFlow {_version(manifest, 'tensorflow')}. {_readings(reference)}"
    )


def _readings(trials: pd.DataFrame, batch_sizes: str | None = None) -> str:
    """The values that the report leaves open, as these trials have them."""
    parts = [f"batch size {batch_sizes or _values(trials['batch_size'])}"]
    if (trials["model"] == schema.DENSE).any():
        parts += [
            f"dense hidden activation {_values(trials['hidden_activation'])}",
            f"dense dropout {_values(trials['dropout'])}",
        ]
    if (trials["model"] == schema.CONV).any():
        parts += [
            f"latent filters {_values(trials['latent_filters'])}",
            "decoder's third convolution “valid”",
        ]
    return f"Rests on readings of what the report leaves open: {', '.join(parts)}."


def _values(column: pd.Series) -> str:
    values = sorted(column.dropna().unique())
    return " or ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _devices(trials: pd.DataFrame) -> str:
    return " and ".join(sorted(trials["device"].dropna().unique())) or "device not recorded"


def _version(manifest: Mapping[str, Any], package: str) -> str:
    return str(manifest["versions"].get(package, "of unknown version"))


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _digits(value: float) -> str:
    """Three significant digits, plain."""
    return f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    """The decimals that show three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2


def _mean_and_sd(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if not estimate.sd:
        return _digits(estimate.mean)
    # A spread that is much smaller than the mean is still shown to one digit.
    decimals = max(_decimals(estimate.mean), -math.floor(math.log10(estimate.sd)))
    return f"{estimate.mean:.{decimals}f} ± {estimate.sd:.{decimals}f}"


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{_digits(estimate.mean)} (n = {estimate.n}, no interval)"
    bounds = f"{_digits(estimate.low)} to {_digits(estimate.high)}"
    return f"{_digits(estimate.mean)} (95 % interval {bounds}, n = {estimate.n})"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def _gaps(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    drawings: Sequence[Drawing],
) -> list[str]:
    """What this run cannot show, in sentences."""
    gaps = []
    if manifest["status"] != "finished":
        gaps.append(f"The study's status is “{manifest['status']}”: its tables may not be whole.")
    names = statistics.names(reference)
    gaps += [
        f"No completed reference trial of {name}: nothing here compares the report's two models."
        for name in (CONV_NAME, DENSE_NAME)
        if name not in names
    ]
    if not reference.empty:
        n_epochs = reference["epochs"].iloc[0]
        if n_epochs < statistics.REPORT_EPOCHS:
            gaps.append(
                f"Trained for {_count(n_epochs, 'epoch')}; the report trained for"
                f" {statistics.REPORT_EPOCHS}, and its claims are about these."
            )
        if reference.groupby("name").size().min() == 1:
            gaps.append("A model with one seed has no interval: its spread is not known.")
    could_enter = trials[
        (trials["group"] == schema.REFERENCE) & (trials["state"] == schema.COMPLETED)
    ]
    n_left_out = len(could_enter) - len(reference)
    if n_left_out:
        gaps.append(
            f"{_count(n_left_out, 'completed reference trial')} left out of the averages: another"
            " setting or split, no test MSE, or a seed twice."
        )
    for state in (schema.RUNNING, schema.FAILED, schema.DIVERGED):
        n = int((trials["state"] == state).sum())
        if n:
            what = "not ended" if state == schema.RUNNING else state
            gaps.append(f"{_count(n, 'trial')} {what}: in no average.")
    if (trials["group"] != schema.SEARCH).all():
        gaps.append("No search trials in this run.")
    drawn = {drawing.name.split("-")[1] for drawing in drawings}
    if "1" not in drawn:
        gaps.append("Figure 1 is missing: no reconstructions of a reference conv trial.")
    missing = [number for number in "2345" if number not in drawn]
    if missing:
        gaps.append(f"No data for figure {', '.join(missing)}: its reference trials are missing.")
    return gaps


# Tables


def _summary_rows(reference: pd.DataFrame) -> list[list[str]]:
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
        rows.append([name, parameters, str(len(trials)), *map(_mean_and_sd, estimates)])
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
            rows.append([label, "–", str(found[0].n), *map(_interval, ratios)])
    return rows


def _markdown(manifest: Mapping[str, Any], rows: list[list[str]], note: str) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return (
        f"# {manifest['name']}\n\nFinal values, mean ± sample standard deviation over seeds;"
        f" MSE in {figures.MSE_UNIT}. Ratios are geometric means paired by seed.\n\n{table}\n\n"
        f"{note}\n"
    )


def _claims_csv(claims: Iterable[Claim]) -> str:
    rows = []
    for claim in claims:
        row = asdict(claim)
        estimate = row.pop("estimate") or {}
        values = {key: estimate.get(key) for key in ("mean", "low", "high", "n")}
        rows.append(row | {"value": values.pop("mean")} | values)
    columns = ["claim", "report", "quantity", "value", "low", "high", "n", "verdict", "reason"]
    frame = pd.DataFrame(rows, columns=columns).astype({"n": "Int64"})
    return frame.to_csv(index=False)


# The page


def _page(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    claims: Sequence[Claim],
    drawings: Sequence[Drawing],
    note: str,
) -> str:
    title = "Convolutional and dense autoencoders on MNIST"
    gaps = _gaps(manifest, trials, reference, drawings)
    claim_rows = [["Claim", "The report", "This run", "Verdict", "Why"]] + [
        [claim.claim, claim.report, _measured(claim), claim.verdict, claim.reason]
        for claim in claims
    ]
    sections = [
        f"<h1>{title}</h1>"
        f'<p class="soft">Study {escape(str(manifest["name"]))}: a reproduction of L. Biedma,'
        " <i>Redes Neuronales – Práctico 3</i>, 10 March 2021.</p>",
        _section("What was run", _table([["", ""], *_run_rows(manifest, trials)])),
        _section("Gaps", _items(gaps)) if gaps else "",
        _section("The report's claims", _table(claim_rows)),
        _section("Figures", _figures(drawings)),
        _section(
            "Final values",
            f'<p class="soft">Mean ± sample standard deviation over seeds; MSE in'
            f" {figures.MSE_UNIT}. Ratios are geometric means paired by seed.</p>"
            + _table(_summary_rows(reference))
            + f'<p class="soft">{escape(note)}</p>',
        ),
        _search_section(trials),
        _section("Trials", _states(trials)),
        _section("Readings of the report", _assumptions(reference)),
        _section(
            "Run it again",
            f"<pre>{escape(shlex.join(manifest['command']))}</pre><p>{escape(_code(manifest))}</p>",
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: {escape(str(manifest['name']))}</title>\n"
        f"<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _measured(claim: Claim) -> str:
    if claim.estimate is None:
        return "–"
    return f"{claim.quantity}: {_interval(claim.estimate)}"


def _run_rows(manifest: Mapping[str, Any], trials: pd.DataFrame) -> list[list[str]]:
    hardware, resources = manifest["hardware"], manifest["resources"]
    memory = hardware["memory_gib"]
    parts = [
        str(hardware["cpu"]),
        _count(hardware["n_cpus"], "CPU"),
        "" if memory is None else f"{memory:.0f} GiB of memory",
        ", ".join(map(str, hardware["gpus"])) or "no GPU",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return [
        ["Preset", str(manifest["spec"]["preset"])],
        ["Status", str(manifest["status"])],
        ["Started (UTC)", str(manifest["started_utc"])[:16].replace("T", " ")],
        ["Duration", _duration(manifest["wall_seconds"])],
        ["Trials", f"{_count(len(trials), 'trial')} on {_devices(trials)}"],
        [
            "Resources",
            f"{resources['cpus_per_trial']} CPU and {resources['gpus_per_trial']} GPU a trial, at"
            f" most {resources['max_concurrent']} at once",
        ],
        ["Hardware", ", ".join(part for part in parts if part)],
        ["Versions", versions],
        ["Code", _code(manifest)],
        ["Data", str(manifest["data"]["source"])],
    ]


def _code(manifest: Mapping[str, Any]) -> str:
    code = manifest["code"]
    commit = f"commit {code['git_commit']}" if code["git_commit"] else "git commit not recorded"
    dirty = ", with uncommitted changes" if code["git_dirty"] else ""
    return f"Version {code['version']}, {commit}{dirty}."


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _items(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table: its first row is the header (left out if blank), first cells are row headers."""
    header, *body = rows
    lines = []
    for first, *rest in body:
        cells = "".join(
            f"<td{_cell_attributes(label)}>{_unbroken(escape(cell))}</td>"
            for label, cell in zip(header[1:], rest, strict=True)
        )
        lines.append(f'<tr><th scope="row">{_unbroken(escape(first))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f"<table>{head}<tbody>{''.join(lines)}</tbody></table>"


def _unbroken(text: str) -> str:
    """Keeps n, percentages and names of models on one line."""
    text = text.replace("n = ", "n&nbsp;=&nbsp;").replace("95 %", "95&nbsp;%")
    return re.sub(r"\bdense-\d+", r'<span class="name">\g<0></span>', text)


def _cell_attributes(label: str) -> str:
    style = ' class="verdict"' if label == "Verdict" else ""
    return f'{style} data-label="{escape(label)}"' if label else style


def _figures(drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return "<p>No figure: the run has no completed trials to draw.</p>"
    cards = "\n".join(
        f"<figure>\n{drawing.inline_svg}\n<figcaption><b>{escape(drawing.title)}.</b>"
        f" {escape(drawing.alt)} <span>{escape(drawing.note)}</span></figcaption>\n</figure>"
        for drawing in drawings
    )
    return f'<div class="figures">\n{cards}\n</div>'


def _search_section(trials: pd.DataFrame) -> str:
    best = statistics.best_search_trials(trials, N_BEST)
    if best.empty:
        return ""
    columns = {
        "learning_rate": "Learning rate",
        "momentum": "Momentum",
        "batch_size": "Batch size",
        "nesterov": "Nesterov",
        "epochs": "Epochs",
    }
    rows = [["Trial", "Model", "Validation MSE", *columns.values()]]
    rows += [
        [
            trial["trial_id"],
            statistics.architecture(trial),
            _digits(trial[schema.OBJECTIVE]),
            *(_setting(trial[column]) for column in columns),
        ]
        for _, trial in best.iterrows()
    ]
    note = (
        f'<p class="soft">The best {N_BEST} completed trials of each model by validation MSE; one'
        " seed each, so without spread.</p>"
    )
    return _section("Search: best trials", note + _table(rows))


def _setting(value: Any) -> str:
    if pd.isna(value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _digits(value) if isinstance(value, float) else str(value)


def _states(trials: pd.DataFrame) -> str:
    counts = trials.groupby(["group", "state"]).size()
    rows = [["Group", *schema.STATES]] + [
        [group, *(str(counts.get((group, state), 0)) for state in schema.STATES)]
        for group in schema.GROUPS
        if (trials["group"] == group).any()
    ]
    content = _table(rows)
    bad = trials[trials["state"].isin([schema.DIVERGED, schema.FAILED])]
    if bad.empty:
        return content + "<p>No trial failed or diverged.</p>"
    bad_rows = [["Trial", "Group", "Model", "State", "What happened"]] + [
        [
            trial["trial_id"],
            trial["group"],
            statistics.architecture(trial),
            trial["state"],
            _what_happened(trial),
        ]
        for _, trial in bad.iterrows()
    ]
    return content + "<h3>Failed and diverged trials</h3>" + _table(bad_rows)


def _what_happened(trial: pd.Series) -> str:
    parts = []
    if not pd.isna(trial["diverged_epoch"]):
        parts.append(f"The loss stopped being finite in epoch {trial['diverged_epoch']}.")
    if not pd.isna(trial["error"]):
        lines = trial["error"].strip().splitlines()
        parts += lines[-1:]  # a traceback's last line; trials.csv has the whole
    return " ".join(parts) or "No error recorded."


def _assumptions(reference: pd.DataFrame) -> str:
    dense = reference[reference["model"] == schema.DENSE]
    sizes = [name for name in statistics.names(dense) if name != DENSE_NAME]
    open_rows = [
        ["Not stated", "In this run's reference trials"],
        ["Batch size (“the same as before”)", _values(reference["batch_size"]) or "–"],
        ["Dense hidden activation", _values(dense["hidden_activation"]) or "–"],
        ["Dense output activation", "sigmoid"],
        ["Dense dropout", _values(dense["dropout"]) or "–"],
        ["The other dense sizes", ", ".join(sizes) or "–"],
        ["Initialisation", "Keras defaults: Glorot uniform, zero bias"],
    ]
    return (
        "<h3>Where the report contradicts itself</h3>"
        + _table([["What", "The report", "Read as"], *map(list, CONTRADICTIONS)])
        + "<h3>What the report does not state</h3>"
        + _table(open_rows)
        + "<p>The claims may hold under some of these readings and fail under others.</p>"
    )


# Files


def _write_files(filesystem: fs.FileSystem, folder: str, files: Mapping[str, bytes]) -> None:
    """Writes each file under a temporary name, then renames it; removes figures of before."""
    filesystem.create_dir(folder, recursive=True)
    for info in filesystem.get_file_info(fs.FileSelector(folder)):
        if info.base_name.startswith("figure-") and info.base_name not in files:
            filesystem.delete_file(info.path)
    for name, content in files.items():
        with filesystem.open_output_stream(f"{folder}/{name}.tmp") as stream:
            stream.write(content)
        filesystem.move(f"{folder}/{name}.tmp", f"{folder}/{name}")


if __name__ == "__main__":
    sys.exit(main())
