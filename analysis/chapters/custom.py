"""Custom trials: the settings that the study's author asked for, beside their references."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from analysis import plots
from analysis.load import Run
from analysis.phrases import (
    NO_VALUE,
    digits,
    label_of,
    listed,
    lost_words,
    mean_and_sd,
    seeds,
    short_interval,
    value_words,
    values_words,
)
from analysis.plots import DARK, LIGHT, MSE_UNIT, Drawing, Line, Look, Marks
from analysis.settings import (
    COLLAPSED_RATIO,
    Estimate,
    Setting,
    curve,
    histories,
)
from analysis.verdicts import compared
from study.folder import schema

CURVES: Final = "figure-custom"
FACTOR: Final = "figure-custom-factor"
MOST_CURVES: Final = 10  # lines that can still be told apart
BEST_SHOWN, WORST_SHOWN = 5, 3  # of more
LINE_INCHES: Final = 0.14  # of a legend
LABEL_COLUMNS: Final = 80  # characters of a label in it
MOST_ROWS: Final = 30  # a longer table is folded away
MIN_VALUES: Final = 3  # of a factor, to draw the MSE against it
DECADE: Final = 10.0
REFERENCE_LINES: Final = ("-", "--", ":", "-.")
IMAGES: Final = {schema.TEST_MSE: "test", schema.VAL_MSE: "validation"}


def figure_name(name: str, metric: str) -> str:
    """Of `CURVES` or `FACTOR`: tested and validated settings have figures of their own."""
    return name if metric == schema.TEST_MSE else f"{name}-validation"


def label(setting: Setting) -> str:
    """A setting in a word or a few: "conv, learning rate 2", "conv, as the reference"."""
    name = setting.name if setting.differs else f"{setting.architecture}, as the reference"
    return textwrap.shorten(name, LABEL_COLUMNS, placeholder=" …")


def comparable(run: Run) -> list[Setting]:
    """The custom settings that were tested or, if none was, validated; the best first."""
    known = [s for s in run.of(schema.CUSTOM) if s.mean() is not None]
    tested = [s for s in known if s.metric == schema.TEST_MSE]
    return sorted(tested or known, key=lambda s: mean_of(s).mean)


def mean_of(setting: Setting) -> Estimate:
    """The mean of a setting that has one."""
    mean = setting.mean()
    assert mean is not None
    return mean


def best_sentence(run: Run) -> str:
    """A sentence on the best custom setting; "" if none completed."""
    known = comparable(run)
    if not known:
        return ""
    best, mean = known[0], mean_of(known[0])
    n = len({s.label for s in known})
    whose = f"Of {n} custom settings the best is" if n > 1 else "The one custom setting is"
    said = f"{whose} {label(best)}: {IMAGES[best.metric]} MSE {mean_and_sd(mean)}"
    said += f" ({seeds([mean.n])})."
    if (pair := best.ratio()) is not None and best.base is not None:
        said += f" {_compared(best, pair, best.base)}."
    return said


def _compared(best: Setting, pair: Estimate, base: Setting) -> str:
    return compared("It", pair, f"the {base.architecture} reference", f"{IMAGES[best.metric]} MSE")


def collapse_sentence(run: Run) -> str:
    """A sentence on the settings with which seeds collapsed; "" if none did."""
    known = [
        f"{label(s)} ({len(s.collapsed)} of {len(s.by_seed())})"
        for s in run.of(schema.CUSTOM)
        if s.collapsed
    ]
    if not known:
        return ""
    return (
        f"Seeds collapsed, to more than {COLLAPSED_RATIO:g} times the best one's MSE, with"
        f" {listed(known)}: means and ratios over them are of two kinds of outcome."
    )


def chapter(run: Run) -> dict[str, Any]:
    """The table of the custom settings, and figures of those that completed."""
    found = run.of(schema.CUSTOM)
    metrics = {metric: [s for s in found if s.metric == metric] for metric in IMAGES}
    several = all(metrics.values())
    drawn = [
        figure
        for metric, settings in metrics.items()
        for figure in (draw_factor(run, settings), draw_curves(run, settings))
        if figure
    ]
    one = next(iter(m for m in IMAGES if metrics[m]), schema.TEST_MSE)
    return {
        "found": found,
        "best": best_sentence(run),
        "collapsed": collapse_sentence(run),
        "drawn": drawn,
        "judged": "Test or validation MSE" if several else f"{IMAGES[one].capitalize()} MSE",
        "rows": [_row(s, several=several) for s in found],
        "folded": len(found) > MOST_ROWS,
        "without": [label(s) for s in found if s.mean() is None],
        "n_unpaired": sum(
            s.mean() is not None and not s.is_reference and s.ratio() is None for s in found
        ),
    }


def _row(setting: Setting, *, several: bool) -> tuple[str, ...]:
    mean = setting.mean()
    value = mean_and_sd(mean)
    if several and mean is not None:
        value += f" ({IMAGES[setting.metric]})"
    return (
        setting.architecture,
        setting.words or "as the reference",
        str(len(setting.by_seed())),
        mean_and_sd(setting.mean(schema.TRAIN_MSE)),
        value,
        short_interval(setting.ratio()),
        lost_words(setting) or NO_VALUE,
    )


def _shown(settings: Sequence[Setting]) -> list[Setting]:
    """Those whose curves are drawn: all, or the best and the worst of many."""
    known = [s for s in settings if s.mean() is not None]
    if len(known) <= MOST_CURVES:
        return known
    ranked = sorted(known, key=lambda s: mean_of(s).mean)
    return [*ranked[:BEST_SHOWN], *ranked[-WORST_SHOWN:]]


def _look(place: int) -> Look:
    """A look for each of ten lines."""
    firsts = ({"color": DARK, "marker": "o"}, {"color": LIGHT, "marker": "s", "linestyle": "--"})
    return firsts[place] if place < len(firsts) else plots.custom_look(place - len(firsts))


def draw_curves(run: Run, settings: Sequence[Setting]) -> dict[str, Any] | None:
    """The MSE of each setting and of the references against the epoch, and what to say of it."""
    shown = _shown(settings)
    if not shown:
        return None
    metric = shown[0].metric
    lines: list[Line] = []

    def add(name: str, setting: Setting, look: Look) -> None:
        trials = histories(setting, run.epochs).dropna(subset=metric)
        if len(trials) and name not in {line.label for line in lines}:
            trials = trials.assign(value=trials[metric])
            lines.append(Line(name, look, curve(setting, run.epochs, metric), trials))

    for place, setting in enumerate(shown):
        add(label(setting), setting, _look(place))
    bases = dict.fromkeys(s.base for s in shown if s.base is not None)
    for base, line in zip(bases, REFERENCE_LINES, strict=False):
        look = {"color": "#444444", "linestyle": line, "linewidth": 1.0, "zorder": 2.5}
        add(f"{base.architecture}, the reference", base, look)
    if not lines:
        return None
    figure, ax = plots.new_figure(2.8 + LINE_INCHES * len(lines))
    points = plots.curves(ax, lines)
    ax.set_ylabel(f"{IMAGES[metric].capitalize()} MSE, {MSE_UNIT}, log axis")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=6.5)
    series = [plots.series_of(line.label, line.look) for line in lines]
    last = sorted((float(line.data["mean"].iloc[-1]), line.label) for line in lines)
    return {
        "drawing": Drawing(figure_name(CURVES, metric), figure, points, series),
        "factor": "",
        "images": IMAGES[metric],
        "ends": [f"{digits(v)} ({name})" for v, name in dict.fromkeys((last[0], last[-1]))],
        "n": [int(line.data["n"].max()) for line in lines],
        "n_left_out": len([s for s in settings if s.mean() is not None]) - len(shown),
        "n_settings": len(settings),
    }


def _values(setting: Setting) -> dict[str, Any]:
    return setting.values | {"epochs": setting.epochs}


def factor_of(settings: Sequence[Setting]) -> str:
    """The one number in which settings of a model and their bases differ, if it has some values."""
    found = [*settings, *dict.fromkeys(s.base for s in settings if s.base is not None)]
    values = {
        name: {str(_values(s).get(name)): _values(s).get(name) for s in found}
        for name in dict.fromkeys(name for s in found for name in _values(s))
    }
    varied = [name for name, its in values.items() if len(its) > 1]
    if len(varied) != 1 or len(values[varied[0]]) < MIN_VALUES:
        return ""
    its = values[varied[0]].values()
    numbers = all(pd.api.types.is_number(v) and not isinstance(v, bool) for v in its)
    return varied[0] if numbers else ""


def factor_words(factor: str, setting: Setting) -> str:
    """A factor and a setting's value of it: "learning rate 2"."""
    return values_words({factor: _values(setting).get(factor)})


def factor_rows(settings: Sequence[Setting], factor: str) -> pd.DataFrame:
    """The MSE of each seed against a factor.

    Returns:
        Columns architecture, value, seed, mse and custom: whether it is not the reference.
    """
    bases = dict.fromkeys(s.base for s in settings if s.base is not None)
    rows = [
        (s.model, float(_values(s)[factor]), seed, mse, s not in bases)
        for s in [*settings, *bases]
        for seed, mse in s.by_seed().items()
    ]
    frame = pd.DataFrame(rows, columns=["model", "value", "seed", "mse", "custom"])
    frame = frame.drop_duplicates(["model", "value", "seed"])
    return frame.sort_values(["model", "value", "seed"]).reset_index(drop=True)


def draw_factor(run: Run, settings: Sequence[Setting]) -> dict[str, Any] | None:
    """The MSE against the one factor that was varied, if there is one, and what to say of it."""
    models = dict.fromkeys(s.model for s in settings)
    factors = {model: factor_of([s for s in settings if s.model == model]) for model in models}
    if len(known := set(factors.values()) - {""}) != 1:
        return None
    (factor,) = known
    data = factor_rows([s for s in settings if factors[s.model] == factor], factor)
    if data["value"].nunique() < MIN_VALUES:
        return None
    metric, name = settings[0].metric, label_of(factor)
    means = data.groupby(["model", "value"])["mse"].mean()
    figure, ax = plots.new_figure()
    points = plots.marks(ax, _factor_marks(data, name, plots.looks_of(run.models)))
    ax.margins(x=0.07, y=0.1)
    low, high = data["value"].min(), data["value"].max()
    decade = low > 0 and high >= DECADE * low
    if decade:
        ax.set_xscale("log")
        plots.log_axis(ax.xaxis, 6)
    ax.set(yscale="log", xlabel=f"{name}, log axis" if decade else name)
    plots.log_axis(ax.yaxis)
    ax.set_ylabel(f"{IMAGES[metric].capitalize()} MSE, {MSE_UNIT}, log axis")
    plots.legend_above(ax)
    return {
        "drawing": Drawing(figure_name(FACTOR, metric), figure, points, by="point"),
        "factor": name.lower(),
        "images": IMAGES[metric],
        "least": [
            f"{model} least at {plots.plain(float(its.idxmin()))}, {digits(its.min())}"
            for model, its in ((model, means[model]) for model in means.index.unique("model"))
        ],
        "n": list(data.groupby(["model", "value"]).size()),
    }


def _factor_marks(data: pd.DataFrame, name: str, looks: Mapping[str, Look]) -> list[Marks]:
    """A mark a seed, hollow for the reference, and a line of means, of each model."""
    found = []
    for model, rows in data.groupby("model"):
        look = looks[str(model)]
        means = rows.groupby("value")["mse"].mean()
        line = {"color": look["color"], "linestyle": look["linestyle"]}
        found.append(Marks(line, means.index, means, f"{model}, mean"))
        for custom, face in ((True, look["color"]), (False, "white")):
            its = rows[rows["custom"] == custom]
            texts = [
                f"{model}, {name.lower()} {value_words(v)}, seed {seed}: {digits(mse)}"
                for v, seed, mse in its[["value", "seed", "mse"]].itertuples(index=False)
            ]
            dots = {"color": look["color"], "marker": look["marker"], "alpha": 0.75}
            what = f"{model}, a seed" if custom else f"{model}, the reference"
            if len(its):
                dots["markerfacecolor"] = face
                found.append(Marks(dots, its["value"], its["mse"], what, texts))
    return found
