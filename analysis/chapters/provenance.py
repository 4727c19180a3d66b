"""What was run, on what, with which code, and how to run it again."""

from collections.abc import Mapping
from typing import Any

from analysis.claims import concerns_report
from analysis.load import Run
from analysis.phrases import (
    MNIST,
    count,
    devices,
    duration,
    image_set,
    label_of,
    open_values,
    shell_line,
    tensorflow,
    values_of,
    without_home,
)
from analysis.plots import MSE_UNIT
from study.folder.schema import HYPERPARAMETERS

MEASURES = (
    f"MSE is in {MSE_UNIT}. The training MSE is the mean over an epoch's batches while the weights"
    " move; test and validation MSE are measured at its end. Ratios are geometric means paired by"
    " seed; intervals are 95 % t-intervals over seeds."
)


def basis(run: Run) -> list[tuple[str, str]]:
    """What holds for the whole page, by name."""
    trials = run.reference_trials if run.reference else run.trials
    images, setting = image_set(run.manifest), ("Setting", open_values(trials))
    if concerns_report(run):
        setting = ("Readings", f"{setting[1]}: the report leaves these open")
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
    stated = [p.name for p in HYPERPARAMETERS if p.stated and not p.of_architecture]
    values = [f"{label_of(n).lower()} {values_of(run.reference_trials[n])}" for n in stated]
    at = f" (reference: {', '.join(values)})" if run.reference else ""
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
    return ", ".join(filter(None, parts))


def code_version(manifest: Mapping[str, Any]) -> str:
    """The code that ran the study."""
    code = manifest["code"]
    commit = f"commit {code['git_commit']}" if code["git_commit"] else "git commit not recorded"
    dirty = ", with uncommitted changes" if code["git_dirty"] else ""
    text = f"Version {code['version']}, {commit}{dirty}."
    earlier = {s["git_commit"]: None for s in manifest.get("sessions", ())}
    named = [other or "one not recorded" for other in earlier if other != code["git_commit"]]
    resumed = f" Resumed: earlier sessions ran commit {', '.join(named)}."
    return text + resumed * bool(named)


def rows(run: Run) -> list[tuple[str, str]]:
    """What was run, on what."""
    manifest, resources = run.manifest, run.manifest["resources"]
    images, data = image_set(manifest), without_home(str(manifest["data"]["source"]))
    a_trial = f"{resources['cpus_per_trial']} CPU and {resources['gpus_per_trial']} GPU a trial"
    return [
        ("Study", str(manifest["name"])),
        ("Preset or study file", str(manifest["spec"]["preset"])),
        ("Status", str(manifest["status"])),
        ("Started (UTC)", str(manifest["started_utc"])[:16].replace("T", " ")),
        ("Duration", duration(manifest["wall_seconds"])),
        ("Trials", f"{count(len(run.trials), 'trial')} on {devices(run.trials)}"),
        ("Resources", f"{a_trial}, at most {resources['max_concurrent']} at once"),
        ("Hardware", hardware(manifest)),
        ("Versions", ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())),
        ("Code", code_version(manifest)),
        ("Data", data if images == MNIST else f"{images}, {data}"),
    ]


def chapter(run: Run) -> dict[str, Any]:
    """What was run, and the commands from the sources to the study."""
    commit, status = run.manifest["code"]["git_commit"], run.manifest["status"]
    lines = [f"git checkout {commit}"] if commit else []
    lines += ["make .venv", ". .venv/bin/activate", shell_line(run.manifest["command"])]
    return {"rows": rows(run), "commands": lines, "status": status}
