"""What was run, on what, with which code, and how to run it again."""

from typing import Any

from analysis import phrases
from analysis.claims import concerns_paper
from analysis.load import Run
from analysis.phrases import MNIST, OPTIMIZER, label_of, values_of
from analysis.plots import MSE_UNIT

MEASURES = (
    f"MSE is in {MSE_UNIT}. The training MSE is the mean over an epoch's batches while the weights"
    " move; test and validation MSE are measured at its end. Ratios are geometric means paired by"
    " seed; intervals are 95 % t-intervals over seeds."
)


def basis(run: Run) -> list[tuple[str, str]]:
    """What holds for the whole page, by name."""
    trials = run.reference_trials if run.reference else run.trials
    images, values = phrases.image_set(run.manifest), phrases.open_values(trials, run.paper)
    setting = ("Setting", values)
    if run.paper and concerns_paper(run) and values:
        setting = ("Readings", f"{values}: {run.paper.called} leaves these open")
    rows = [
        ("Images", "" if images == MNIST else f"{images}, not {MNIST}"),
        ("Trained on", f"{phrases.devices(run.trials)}; {phrases.tensorflow(run.manifest)}"),
        ("Training", training(run)),
        setting if len(trials) else ("", ""),
        ("Measures", MEASURES),
    ]
    return [row for row in rows if row[1]]


def training(run: Run) -> str:
    """The optimiser and the loss, which all trials share, and the reference's values."""
    stated = [name for name in OPTIMIZER if name not in phrases.open_names(run.paper)]
    values = [f"{label_of(n).lower()} {values_of(run.reference_trials[n])}" for n in stated]
    at = f" (reference: {', '.join(values)})" if run.reference else ""
    return f"SGD with momentum{at}; the loss is the mean squared error (MSE) over all pixels"


def chapter(_: Run) -> dict[str, Any]:
    """What was run, and the commands from the sources to the study: all of it in the template."""
    return {}
