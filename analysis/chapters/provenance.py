"""What was run, on what, with which code, and how to run it again."""

from collections.abc import Mapping
from typing import Any

from analysis.chapters.claims import concerns_report
from analysis.chapters.parts import Chapter, Code, Part, Table, Text
from analysis.figures import MSE_UNIT
from analysis.load import Run
from analysis.words import (
    MNIST,
    count,
    devices,
    duration,
    image_set,
    open_values,
    parameter_label,
    shell_line,
    tensorflow,
    values_of,
    without_home,
)
from study.folder.schema import HYPERPARAMETERS

MEASURES = (
    f"MSE is in {MSE_UNIT}. The training MSE is the mean over an epoch's batches while the weights"
    " move; test and validation MSE are measured at its end. Ratios are geometric means paired by"
    " seed; intervals are 95 % t-intervals over seeds."
)


def basis(run: Run) -> list[tuple[str, str]]:
    """What holds for the whole page, by name."""
    trials = run.trials if run.reference.empty else run.reference
    images = image_set(run.manifest)
    setting = ("Readings", f"{open_values(trials)}: the report leaves these open")
    if not concerns_report(run):
        setting = ("Setting", open_values(trials))
    rows = [
        ("Images", "" if images == MNIST else f"{images}, not {MNIST}"),
        ("Trained on", f"{devices(run.trials)}; {tensorflow(run.manifest)}"),
        ("Training", training(run)),
        setting if len(trials) else ("", ""),
        ("Measures", MEASURES),
    ]
    return [row for row in rows if row[1]]


def training(run: Run) -> str:
    """The optimiser and the loss, which all trials share, and the reference's values."""
    values = [
        f"{parameter_label(p.name).lower()} {values_of(run.reference[p.name])}"
        for p in HYPERPARAMETERS
        if p.stated and not p.of_architecture and len(run.reference)
    ]
    at = f" (reference: {', '.join(values)})" if values else ""
    return f"SGD with momentum{at}; the loss is the mean squared error (MSE) over all pixels"


def hardware(manifest: Mapping[str, Any]) -> str:
    """The machine that drove the study."""
    found = manifest["hardware"]
    memory = found["memory_gib"]
    parts = [
        str(found["cpu"]),
        count(found["n_cpus"], "CPU"),
        "" if memory is None else f"{memory:.0f} GiB of memory",
        ", ".join(map(str, found["gpus"])) or "no GPU",
    ]
    return ", ".join(part for part in parts if part)


def code_version(manifest: Mapping[str, Any]) -> str:
    """The code that ran the study."""
    code = manifest["code"]
    commit = f"commit {code['git_commit']}" if code["git_commit"] else "git commit not recorded"
    dirty = ", with uncommitted changes" if code["git_dirty"] else ""
    text = f"Version {code['version']}, {commit}{dirty}."
    others = dict.fromkeys(s["git_commit"] for s in manifest.get("sessions", ()))
    others.pop(code["git_commit"], None)
    if others:
        named = ", ".join(other or "one not recorded" for other in others)
        text += f" Resumed: earlier sessions ran commit {named}."
    return text


def run_table(run: Run) -> Table:
    """What was run, on what."""
    manifest, resources = run.manifest, run.manifest["resources"]
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    rows = [
        ("Study", str(manifest["name"])),
        ("Preset or study file", str(manifest["spec"]["preset"])),
        ("Status", str(manifest["status"])),
        ("Started (UTC)", str(manifest["started_utc"])[:16].replace("T", " ")),
        ("Duration", duration(manifest["wall_seconds"])),
        ("Trials", f"{count(len(run.trials), 'trial')} on {devices(run.trials)}"),
        (
            "Resources",
            f"{resources['cpus_per_trial']} CPU and {resources['gpus_per_trial']} GPU a trial, at"
            f" most {resources['max_concurrent']} at once",
        ),
        ("Hardware", hardware(manifest)),
        ("Versions", versions),
        ("Code", code_version(manifest)),
        ("Data", _data(manifest)),
    ]
    return Table((), rows)


def _data(manifest: Mapping[str, Any]) -> str:
    images, source = image_set(manifest), without_home(str(manifest["data"]["source"]))
    return source if images == MNIST else f"{images}, {source}"


def chapter(run: Run) -> Chapter:
    """What was run, and the commands from the sources to the study."""
    manifest = run.manifest
    lines = ["make .venv", ". .venv/bin/activate", shell_line(manifest["command"])]
    if manifest["code"]["git_commit"]:
        lines.insert(0, f"git checkout {manifest['code']['git_commit']}")
    gaps = []
    if manifest["status"] != "finished":
        gaps = [f"The study's status is “{manifest['status']}”: its tables may not be whole."]
    again = (
        "To run it again, in a clone of the project; the last line is the command as it was given."
        " A study never overwrites a folder: where there is one of its name, give another --name."
    )
    content: list[Part] = [run_table(run), Text(again), Code("\n".join(lines))]
    return Chapter("provenance", "What was run", content, gaps)
