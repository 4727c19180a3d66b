"""Custom trials: the settings that the study's author asked for, beside their references."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pandas as pd

from analysis import phrases, plots
from analysis.load import Run
from analysis.plots import Line, Look, Marks
from analysis.settings import COLLAPSED_RATIO, Estimate, Setting, curve, histories
from analysis.verdicts import compared
from study.folder import schema

CURVES: Final = "figure-custom"
FACTOR: Final = "figure-custom-factor"
MOST_CURVES: Final = 10  # lines that can still be told apart
BEST_SHOWN, WORST_SHOWN = 5, 3  # of more
LINE_INCHES: Final = 0.14  # of a legend
LABEL_COLUMNS: Final = 80  # characters of a label in it
MIN_VALUES: Final = 3  # of a factor, to draw the MSE against it
DECADE: Final = 10.0
IMAGES: Final = {schema.TEST_MSE: "test", schema.VAL_MSE: "validation"}


def figure_name(name: str, metric: str) -> str:
    """Of `CURVES` or `FACTOR`: tested and validated settings have figures of their own."""
    return name if metric == schema.TEST_MSE else f"{name}-validation"


def label(setting: Setting) -> str:
    """A setting in a few words: "conv, learning rate 2", "conv, as the reference"."""
    name = setting.name if setting.differs else f"{setting.architecture}, as the reference"
    return textwrap.shorten(name, LABEL_COLUMNS, placeholder=" …")


def ranked(settings: Iterable[Setting]) -> list[tuple[Setting, Estimate]]:
    """Those with a mean, tested or, if none was, validated; the best first."""
    known = [(s, mean) for s in settings if (mean := s.mean()) is not None]
    tested = [item for item in known if item[0].metric == schema.TEST_MSE]
    return sorted(tested or known, key=lambda item: item[1].mean)


def best_sentence(run: Run) -> str:
    """A sentence on the best custom setting; "" if none completed."""
    if not (known := ranked(run.of(schema.CUSTOM))):
        return ""
    (best, mean), n = known[0], len({s.label for s, _ in known})
    whose = f"Of {n} custom settings the best is" if n > 1 else "The one custom setting is"
    what = f"{IMAGES[best.metric]} MSE"
    said = f"{whose} {label(best)}: {what} {phrases.mean_and_sd(mean)} ({phrases.seeds([mean.n])})."
    if (pair := best.ratio()) is not None and best.base is not None:
        said += f" {compared('It', pair, f'the {best.base.architecture} reference', what)}."
    return said


def collapse_sentence(run: Run) -> str:
    """A sentence on the custom settings with which seeds collapsed; "" if none did."""
    known = [s for s in run.of(schema.CUSTOM) if s.collapsed]
    if not known:
        return ""
    each = [f"{label(s)} ({len(s.collapsed)} of {len(s.by_seed())})" for s in known]
    return (
        f"Seeds collapsed, to more than {COLLAPSED_RATIO:g} times the best one's MSE, with"
        f" {phrases.listed(each)}: means and ratios over them are of two kinds of outcome."
    )


def chapter(run: Run) -> dict[str, Any]:
    """The custom settings, and figures of those that completed."""
    found = run.of(schema.CUSTOM)
    of = {metric: [s for s in found if s.metric == metric] for metric in IMAGES}
    drawn = [draw(run, of[m]) for m in IMAGES for draw in (draw_factor, draw_curves) if of[m]]
    return {
        "found": found,
        "images": IMAGES,
        "several": all(of.values()),
        "said": " ".join(filter(None, (best_sentence(run), collapse_sentence(run)))),
        "seed_themselves": [
            custom["name"]
            for custom in run.manifest["spec"]["custom_models"]
            if custom.get("seeds_itself") and custom["name"] in run.models
        ],
        "without": [label(s) for s in found if s.mean() is None],
        "n_unpaired": sum(bool(s.differs and s.mean() and not s.ratio()) for s in found),
        "drawn": [one for one in drawn if one],
    }


def draw_curves(run: Run, settings: Sequence[Setting]) -> dict[str, Any] | None:
    """The MSE of each setting and of the references against the epoch, and what to say of it."""
    shown = [s for s in settings if s.mean() is not None]
    n, metric = len(shown), settings[0].metric
    if n > MOST_CURVES:
        best = [s for s, _ in ranked(shown)]
        shown = [*best[:BEST_SHOWN], *best[-WORST_SHOWN:]]
    named: dict[str, tuple[Setting, Look]] = {}
    for place, setting in enumerate(shown):
        named.setdefault(label(setting), (setting, plots.look_of(place)))
    for base, line in zip(_bases(shown), plots.REFERENCE_LINES, strict=False):
        look = plots.muted(line) | {"color": "#444444"}
        named.setdefault(f"{base.architecture}, the reference", (base, look))
    lines = [
        Line(name, look, data, histories(setting, run.epochs, metric))
        for name, (setting, look) in named.items()
        if len(data := curve(setting, run.epochs, metric))
    ]
    if not lines:
        return None
    name, what = figure_name(CURVES, metric), f"{IMAGES[metric].capitalize()} MSE"
    height, label_ = 2.8 + LINE_INCHES * len(lines), f"{what}, {plots.MSE_UNIT}"
    last = sorted((float(line.data["mean"].iloc[-1]), line.label) for line in lines)
    ends = [f"{phrases.digits(value)} ({name})" for value, name in (last[0], last[-1])]
    return {
        "drawing": plots.curves_drawing(name, lines, label_, height, above=True),
        "factor": "",
        "what": what,
        "said": f"At the end, {' to '.join(dict.fromkeys(ends))}",
        "n": [int(line.data["n"].max()) for line in lines],
        "shown": f" The best {BEST_SHOWN} and the worst {WORST_SHOWN} of {n} settings."
        if n > MOST_CURVES
        else "",
    }


def _bases(settings: Sequence[Setting]) -> list[Setting]:
    return list(dict.fromkeys(s.base for s in settings if s.base is not None))


def _values(setting: Setting) -> dict[str, Any]:
    return setting.values | {"epochs": setting.epochs}


def factor_of(settings: Sequence[Setting]) -> str:
    """The one number in which settings and their bases differ, if it has some values; else ""."""
    found = [_values(s) for s in (*settings, *_bases(settings))]
    values = {name: {str(its.get(name)) for its in found} for its in found for name in its}
    varied = [name for name, its in values.items() if len(its) > 1]
    if len(varied) != 1 or len(values[varied[0]]) < MIN_VALUES:
        return ""
    its = [one.get(varied[0]) for one in found]
    return varied[0] if all(isinstance(v, int | float) and v is not True for v in its) else ""


def factor_words(factor: str, setting: Setting) -> str:
    """A factor and a setting's value of it: "learning rate 2"."""
    return phrases.values_words({factor: _values(setting).get(factor)})


def factor_rows(settings: Sequence[Setting], factor: str) -> pd.DataFrame:
    """The MSE of each seed against a factor; `custom` is whether it is not the reference."""
    rows = [
        (s.model, float(_values(s)[factor]), seed, mse, s in settings)
        for s in (*settings, *_bases(settings))
        for seed, mse in s.by_seed().items()
    ]
    keys = ["model", "value", "seed"]
    frame = pd.DataFrame(rows, columns=[*keys, "mse", "custom"])
    return frame.drop_duplicates(keys).sort_values(keys, ignore_index=True)


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
    metric, name = settings[0].metric, phrases.label_of(factor)
    looks, what = plots.looks_of(run.models), f"{IMAGES[metric].capitalize()} MSE"
    figure, ax = plots.new_figure()
    points = [
        point
        for model, rows in data.groupby("model")
        for point in plots.marks(ax, _factor_marks(str(model), rows, name, looks[str(model)]))
    ]
    ax.margins(x=0.07, y=0.1)
    low, high = data["value"].min(), data["value"].max()
    ax.set_xlabel(name)
    if low > 0 and high >= DECADE * low:
        ax.set_xscale("log")
        plots.log_axis(ax.xaxis, name)
    plots.log_axis(ax.yaxis, f"{what}, {plots.MSE_UNIT}")
    plots.legend_above(ax)
    by_value = data.groupby(["model", "value"])["mse"].agg(["mean", "size"]).reset_index()
    least = by_value.loc[by_value.groupby("model")["mean"].idxmin()]
    said = [
        f"{model} least at {plots.plain(value)}, {phrases.digits(mean)}"
        for model, value, mean, _ in least.itertuples(index=False)
    ]
    return {
        "drawing": plots.Drawing(figure_name(FACTOR, metric), figure, points, by="point"),
        "factor": name.lower(),
        "what": what,
        "said": f"Mean over seeds: {'; '.join(said)}",
        "n": list(by_value["size"]),
    }


def _factor_marks(model: str, rows: pd.DataFrame, name: str, look: Look) -> list[Marks]:
    """A line of means, and a mark a seed, hollow for the reference."""
    means = rows.groupby("value")["mse"].mean()
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    found = [Marks(line, means.index, means, f"{model}, mean")]
    dots = {"color": look["color"], "marker": look["marker"], "alpha": 0.75}
    faces = {True: ("a seed", look["color"]), False: ("the reference", "white")}
    for custom, its in sorted(rows.groupby("custom"), reverse=True):
        what, face = faces[bool(custom)]
        texts = [
            f"{model}, {name.lower()} {phrases.value_words(value)}, seed {seed}:"
            f" {phrases.digits(mse)}"
            for value, seed, mse in its[["value", "seed", "mse"]].itertuples(index=False)
        ]
        look = dots | {"markerfacecolor": face}
        found.append(Marks(look, its["value"], its["mse"], f"{model}, {what}", texts))
    return found
