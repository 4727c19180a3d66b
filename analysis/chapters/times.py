"""Training times, and whether they may be compared at all."""

from typing import Any, Final

from analysis import plots
from analysis.claims import (
    REPORT_EPOCHS,
    REPORT_HARDWARE,
    REPORT_TIME_RATIO,
    REPORT_TRAIN_SECONDS,
    concerns_report,
)
from analysis.load import Run
from analysis.phrases import count, seeds
from analysis.plots import Drawing, Marks
from analysis.settings import CONV_NAME, DENSE_NAME, SECONDS, Setting, ratio
from study.folder import schema

TIMES: Final = "figure-times"
ROW_INCHES: Final = 0.36


def sharing(run: Run) -> str:
    """Whose times these are, as far as the run says; "" if no trial shared its device."""
    known = run.reference_trials["n_sharing"].dropna()
    if len(known):
        n_alone = int((known <= 1).sum())
        shared = len(known) - n_alone
        if not shared:
            return ""
        return (
            f"These are the times of {count(n_alone, 'reference trial')} with the device alone;"
            f" {shared} shared it, so that their times compare with none."
        )
    resources = run.manifest["resources"]
    n = resources["max_concurrent"]
    if n == 1 or resources["gpus_per_trial"] >= 1:
        return ""
    where = "cluster" if resources.get("address") else "machine"
    what = "a GPU" if resources["gpus_per_trial"] else f"this {where}"
    return f"Up to {n} trials trained at once and shared {what}: these are not times alone."


def timed(run: Run) -> list[Setting]:
    """The reference settings with times: the report's two models, and the custom ones."""
    shown = [s for s in run.reference if s.label in REPORT_TRAIN_SECONDS or _is_custom(s)]
    return [one for one in shown if len(one.by_seed(SECONDS))]


def _is_custom(one: Setting) -> bool:
    return one.model not in schema.MODELS


def drawing(run: Run, found: list[Setting], stated: dict[str, float]) -> Drawing:
    """A row a model: a dot a seed, their mean, and what the report states; log axis.

    Args:
        run: a run.
        found: its settings with times.
        stated: the seconds that the report states, by model.
    """
    looks, labels, some = plots.looks_of(run.models), [], []
    for row, one in enumerate(found):
        look, values = looks[one.model] | {"linestyle": "none"}, one.by_seed(SECONDS)
        texts = [f"{one.label}, seed {seed}: {value:.3g} s" for seed, value in values.items()]
        mean = values.mean()
        some.append(Marks(look | {"alpha": 0.6}, values, [row] * len(values), texts=texts))
        some.append(Marks(look | plots.TICK, [mean], [row], texts=[f"{one.label}: {mean:.3g} s"]))
        if one.label in stated:
            text = f"{one.label}, the report: {stated[one.label]:.3g} s"
            some.append(Marks(look | plots.HOLLOW, [stated[one.label]], [row], texts=[text]))
        labels.append(f"{one.label}, {mean:.3g} s")
    key = [("a seed of this run", {"marker": "o", "alpha": 0.6}), ("their mean", plots.TICK)]
    key += [("the report", plots.HOLLOW)] if stated else []
    some += [Marks(look | {"color": "#444444"}, [], [], label) for label, look in key]
    with plots.style():
        figure, ax = plots.new_figure(1.2 + ROW_INCHES * len(found))
        points = plots.marks(ax, some)
        plots.rows_axis(ax, labels)
        ax.set(xscale="log", xlabel="Training time (s), log axis")
        ax.margins(x=0.1)
        plots.log_axis(ax.xaxis, 6)
        plots.legend_of_marks(ax)
    return Drawing(TIMES, figure, points, by="point")


def chapter(run: Run) -> dict[str, Any]:
    """Training times beside the report's."""
    found = timed(run)
    stated = REPORT_TRAIN_SECONDS if concerns_report(run) else {}
    stated = {one.label: stated[one.label] for one in found if one.label in stated}
    return {
        "found": found,
        "concerns_report": concerns_report(run),
        "reference": len(run.reference) > 0,
        "ratio": ratio(run.named.get(CONV_NAME), run.named.get(DENSE_NAME), SECONDS),
        "report_ratio": REPORT_TIME_RATIO if stated else None,
        "report_epochs": REPORT_EPOCHS,
        "report_hardware": REPORT_HARDWARE,
        "sharing": sharing(run),
        "drawing": drawing(run, found, stated) if found else None,
        "values": "; ".join(
            [f"this run, {one.label}: {one.by_seed(SECONDS).mean():.3g} s" for one in found]
            + [f"the report, {name}: {seconds:.3g} s" for name, seconds in stated.items()]
        ),
        "seeds": seeds(len(one.by_seed(SECONDS)) for one in found) if found else "",
        "n_epochs": found[0].epochs if found else 0,
    }
