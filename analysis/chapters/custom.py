"""Own trials: the settings that a person asked for, beside the reference of the same model."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.curves import plot_curve
from analysis.chapters.settings import (
    SETTING,
    has_setting,
    key_of,
    reference_setting,
)
from analysis.figures import DARK, LIGHT, MSE_UNIT, Points
from analysis.load import Run
from analysis.statistics import (
    COLLAPSED_RATIO,
    Estimate,
    collapsed_seeds,
    curves,
    keywords,
    mean_over_seeds,
    models_of,
    ratio_over_seeds,
    reference_epochs,
)
from analysis.words import (
    count,
    digits,
    factor_value,
    listed,
    mean_and_sd,
    parameter_label,
    rests_on,
    seeds,
    short,
    short_interval,
)
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
REFERENCE_LOOK: Final = {"color": "#444444", "linestyle": "-", "linewidth": 1.0, "zorder": 2.5}
METRICS: Final = {schema.FULL_SPLIT: schema.TEST_MSE, schema.SEARCH_SPLIT: schema.VAL_MSE}
IMAGES: Final = {schema.TEST_MSE: "test", schema.VAL_MSE: "validation"}


@dataclass(frozen=True)
class CustomSetting:
    """A setting that a person asked for.

    Attributes:
        trials: its trials, one a seed.
        differs: what it differs in from the reference setting of its model, by column or argument;
            its whole setting if the run has no such reference.
        reference: the completed trials of the reference setting on the same images, as long.
    """

    trials: pd.DataFrame
    differs: Mapping[str, Any]
    reference: pd.DataFrame

    @property
    def model(self) -> str:
        """Its architecture."""
        return str(self.trials["model"].iloc[0])

    @property
    def metric(self) -> str:
        """By what it is judged: the test MSE, or the validation MSE on the search's images."""
        return METRICS[str(self.trials["split"].iloc[0])]

    @property
    def completed(self) -> pd.DataFrame:
        """Its completed trials, indexed by seed."""
        done = self.trials[self.trials["state"] == schema.COMPLETED]
        return done.drop_duplicates("seed").set_index("seed", drop=False).sort_index()

    @property
    def mean(self) -> Estimate | None:
        """Over its completed seeds."""
        return mean_over_seeds(self.completed[self.metric])

    @property
    def ratio(self) -> Estimate | None:
        """To the reference, paired by seed; None without a pair."""
        return ratio_over_seeds(self.completed[self.metric], self.reference[self.metric])

    @property
    def collapsed(self) -> list[int]:
        """The seeds that completed far above its best one."""
        return collapsed_seeds(self.completed[self.metric])

    @property
    def words(self) -> str:
        """What it differs in, in words."""
        return _in_words(self.differs)

    @property
    def label(self) -> str:
        """Its model and what it differs in: "conv, learning rate 2"."""
        what = self.words or "as the reference"
        return textwrap.shorten(f"{self.model}, {what}", LABEL_COLUMNS, placeholder=" …")


def figure_name(name: str, metric: str) -> str:
    """Of `CURVES` or `FACTOR`: tested and validated settings have figures of their own."""
    return name if metric == schema.TEST_MSE else f"{name}-validation"


def _label(name: str) -> str:
    return "Epochs" if name == "epochs" else parameter_label(name)


def custom_settings(trials: pd.DataFrame, batch_size: int | None) -> list[CustomSetting]:
    """The settings of the own trials, in the order of the table, conv's first.

    Args:
        trials: of `analysis.load.load_run`.
        batch_size: of the reference setting; None for the default.
    """
    custom = trials[trials["group"] == schema.CUSTOM]
    found = []
    for model in models_of(custom):
        of_model = trials[trials["model"] == model]
        base = _base(of_model, model, batch_size)
        rows = custom[custom["model"] == model]
        columns = [*SETTING, "split", "epochs"]
        for _, its in rows.groupby(columns, dropna=False, sort=False):
            reference = of_model.iloc[:0]
            if base is not None:
                alike = has_setting(of_model, base) & (of_model["state"] == schema.COMPLETED)
                for name in ("split", "epochs"):
                    alike &= of_model[name] == its[name].iloc[0]
                reference = of_model[alike]
            reference = reference.drop_duplicates("seed").set_index("seed")
            found.append(CustomSetting(its, _differences(its.iloc[0], base, of_model), reference))
    return found


def _base(of_model: pd.DataFrame, model: str, batch_size: int | None) -> dict[str, Any] | None:
    """The setting of a model's reference; if the run has none, that of the report."""
    rows = of_model[of_model["group"] == schema.REFERENCE]
    size = schema.BY_NAME["batch_size"].default if batch_size is None else batch_size
    setting = reference_setting(of_model, model, size)
    if setting is not None and (rows.empty or has_setting(rows, setting).any()):
        return setting
    first = rows.iloc[0]  # such as dense-256, where there is no dense-512
    return {name: first[name] for name in SETTING if not pd.isna(first[name])}


def _differences(
    trial: pd.Series, base: Mapping[str, Any] | None, of_model: pd.DataFrame
) -> dict[str, Any]:
    values = _values(trial)
    if base is None:
        return values
    known = _values(pd.Series({**dict.fromkeys(SETTING), **base}))
    found = {
        name: value for name, value in values.items() if name not in known or known[name] != value
    }
    epochs = of_model.loc[of_model["group"] == schema.REFERENCE, "epochs"].max()
    if not pd.isna(epochs) and epochs != trial["epochs"]:
        found["epochs"] = trial["epochs"]
    return found


def _values(trial: pd.Series) -> dict[str, Any]:
    """A trial's setting by column and, of a model of a person's own, by argument."""
    names = [name for name in SETTING if name not in ("model", "arguments")]
    plain = [name for name in names if not pd.isna(trial[name])]
    return keywords(trial["arguments"]) | {name: trial[name] for name in plain}


def changes(trial: pd.Series, trials: pd.DataFrame, batch_size: int | None) -> str:
    """What a trial's setting differs in from its model's reference, in words.

    Args:
        trial: a row of the table.
        trials: the table.
        batch_size: of the reference setting; None for the default.
    """
    of_model = trials[trials["model"] == trial["model"]]
    base = _base(of_model, str(trial["model"]), batch_size)
    return _in_words(_differences(trial, base, of_model))


def factor_words(factor: str, trial: pd.Series) -> str:
    """A factor and a trial's value of it: "learning rate 2"."""
    values = _values(trial) | {"epochs": trial["epochs"]}
    return _in_words({factor: values.get(factor)})


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{_label(name).lower()} {factor_value(value)}" for name, value in values.items()
    )


def settings_table(found: Sequence[CustomSetting]) -> parts.Table:
    """A row a setting: its means over seeds, and its ratio to the reference's."""
    several = len({one.metric for one in found}) > 1
    judged = "Test or validation MSE" if several else f"{IMAGES[found[0].metric].capitalize()} MSE"
    rows = []
    for one in found:
        value = mean_and_sd(one.mean)
        if several and one.mean is not None:
            value += f" ({IMAGES[one.metric]})"
        others = one.trials[one.trials["state"] != schema.COMPLETED]
        states = others["state"].replace(schema.RUNNING, "not ended")
        lost = [f"seed {s} {state}" for s, state in zip(others["seed"], states, strict=True)]
        lost += [f"seed {s} collapsed" for s in one.collapsed]
        rows.append(
            (
                one.model,
                one.words or "as the reference",
                str(len(one.completed)),
                mean_and_sd(mean_over_seeds(one.completed[schema.TRAIN_MSE])),
                value,
                short_interval(one.ratio),
                ", ".join(lost) or parts.NO_VALUE,
            )
        )
    header = ("Model", "What differs from the reference", "Seeds", "Training MSE", judged)
    rest = ("÷ the reference's, paired by seed", "Seeds lost or collapsed")
    return parts.Table((*header, *rest), rows, right=(2, 3, 4, 5))


def comparable(found: Sequence[CustomSetting]) -> list[CustomSetting]:
    """Those that completed and were tested or, if none was, validated; the best first."""
    known = [one for one in found if one.mean is not None]
    tested = [one for one in known if one.metric == schema.TEST_MSE]
    return sorted(tested or known, key=_value)


def best_custom(found: Sequence[CustomSetting]) -> str:
    """A sentence on the best own setting; "" if none completed."""
    known = comparable(found)
    if not known:
        return ""
    best = known[0]
    n = len({key_of(one.trials.iloc[0]) for one in known})
    whose = f"Of {n} own settings the best is" if n > 1 else "The one own setting is"
    said = f"{whose} {best.label}: {IMAGES[best.metric]} MSE {mean_and_sd(best.mean)}"
    said += f" ({seeds([_n(best)])})"
    if best.ratio is None or not best.differs:
        return f"{said}."
    bounds = f"n = {count(best.ratio.n, 'seed')}"
    if best.ratio.low is not None:
        bounds = (
            f"95 % interval {short(best.ratio.lowest)} to {short(best.ratio.highest)}, {bounds}"
        )
    return f"{said}, {short(best.ratio.mean)} times the {best.model} reference's ({bounds})."


def collapses(found: Sequence[CustomSetting]) -> str:
    """A sentence on the settings with which seeds collapsed; "" if none did."""
    known = [f"{one.label} ({len(one.collapsed)} of {_n(one)})" for one in found if one.collapsed]
    if not known:
        return ""
    return (
        f"Seeds collapsed, to more than {COLLAPSED_RATIO:g} times the best one's MSE, with"
        f" {listed(known)}: means and ratios over them are of two kinds of outcome."
    )


def _value(one: CustomSetting) -> float:
    return float("inf") if one.mean is None else one.mean.mean


def _n(one: CustomSetting) -> int:
    return 0 if one.mean is None else one.mean.n


def drawn_settings(found: Sequence[CustomSetting]) -> list[CustomSetting]:
    """Those whose curves are drawn: all, or the best and the worst of many."""
    known = [one for one in found if one.mean is not None]
    if len(known) <= MOST_CURVES:
        return known
    ranked = sorted(known, key=_value)
    return [*ranked[:BEST_SHOWN], *ranked[-WORST_SHOWN:]]


def look_of(place: int) -> Mapping[str, Any]:
    """A look for each of ten lines."""
    firsts = ({"color": DARK, "marker": "o"}, {"color": LIGHT, "marker": "s", "linestyle": "--"})
    return firsts[place] if place < len(firsts) else figures.custom_look(place - len(firsts))


def plot_curves(
    data: Mapping[str, pd.DataFrame], looks: Mapping[str, Mapping[str, Any]], ax: Axes
) -> Axes:
    """A line a setting on a log axis, with the band from the least to the greatest seed.

    Args:
        data: of `analysis.statistics.curves`, by the line's label.
        looks: of the lines, by label.
        ax: where to draw.
    """
    for place, (label, curve) in enumerate(data.items()):
        plot_curve(curve, ax, label, looks[label], place)
    figures.epoch_axis(ax, max(curve["epoch"].max() for curve in data.values()))
    figures.log_axis(ax.yaxis)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=6.5)
    return ax


def factor_of(found: Sequence[CustomSetting]) -> str | None:
    """The one factor in which a model's own settings differ, if it is a number of some values."""
    settings = [_values(one.trials.iloc[0]) | {"epochs": _epochs(one)} for one in found]
    settings += [
        _values(one.reference.iloc[0]) | {"epochs": _epochs(one)}
        for one in found[:1]
        if len(one.reference)
    ]
    names = dict.fromkeys(name for setting in settings for name in setting)
    values = {name: {json.dumps(s.get(name), default=str) for s in settings} for name in names}
    varied = [name for name in names if len(values[name]) > 1]
    if len(varied) != 1 or len(values[varied[0]]) < MIN_VALUES:
        return None
    its = [setting.get(varied[0]) for setting in settings]
    numbers = all(pd.api.types.is_number(value) and not isinstance(value, bool) for value in its)
    return varied[0] if numbers else None


def _epochs(one: CustomSetting) -> int:
    return int(one.trials["epochs"].iloc[0])


def factor_rows(found: Sequence[CustomSetting], factor: str) -> pd.DataFrame:
    """The MSE of each seed against a factor.

    Returns:
        Columns model, value, seed, mse and own: whether it is not the reference. Sorted by value.
    """
    rows = []
    for one in found:
        sets = [(one.completed, True)]
        if one is next(other for other in found if other.model == one.model) and one.differs:
            sets.append((one.reference.assign(seed=one.reference.index), False))
        for trials, custom in sets:
            for _, trial in trials.iterrows():
                value = float((_values(trial) | {"epochs": trial["epochs"]})[factor])
                rows.append(
                    (one.model, value, int(trial["seed"]), float(trial[one.metric]), custom)
                )
    frame = pd.DataFrame(rows, columns=["model", "value", "seed", "mse", "custom"])
    frame = frame.dropna(subset="mse").drop_duplicates(["model", "value", "seed"])
    return frame.sort_values(["model", "value", "seed"]).reset_index(drop=True)


def plot_factor(
    data: pd.DataFrame, ax: Axes, factor: str, looks: Mapping[str, Mapping[str, Any]]
) -> Axes:
    """The MSE against a factor: a mark a seed, hollow for the reference, a line of means.

    Args:
        data: of `factor_rows`.
        ax: where to draw.
        factor: for the label of the axis.
        looks: of the models.
    """
    for model, rows in data.groupby("model"):
        look = looks[str(model)]
        means = rows.groupby("value")["mse"].mean()
        line = {"color": look["color"], "linestyle": look["linestyle"]}
        ax.plot(means.index, means, **line, label=f"{model}, mean")
        for custom, face in ((True, look["color"]), (False, "white")):
            its = rows[rows["custom"] == custom]
            if len(its):
                label = f"{model}, a seed" if custom else f"{model}, the reference"
                dots: dict[str, Any] = {"color": look["color"], "markerfacecolor": face}
                ax.plot(its["value"], its["mse"], look["marker"], **dots, alpha=0.75, label=label)
    ax.margins(x=0.07, y=0.1)
    ax.set(yscale="log", xlabel=_label(factor))
    low, high = data["value"].min(), data["value"].max()
    if low > 0 and high >= DECADE * low:
        ax.set_xscale("log")
        figures.log_axis(ax.xaxis, 6)
        ax.set_xlabel(f"{_label(factor)}, log axis")
    figures.log_axis(ax.yaxis)
    figures.legend_above(ax)
    return ax


def chapter(run: Run) -> parts.Chapter:
    """The settings that a person asked for; nothing of a run without any."""
    title = "Own trials"
    found = custom_settings(run.trials, run.manifest["spec"].get("batch_size"))
    if not found:
        return parts.Chapter("custom", title)
    table = settings_table(found)
    note = "Mean ± sample standard deviation over seeds; the ratios are geometric means."
    shown: list[parts.Part] = [table, parts.Text(note, soft=True)]
    if len(found) > MOST_ROWS:
        shown = [parts.Fold(f"All {count(len(found), 'own setting')}", shown)]
    drawn = []
    with figures.style():
        for metric in IMAGES:
            judged = [one for one in found if one.metric == metric]
            drawn += [f for f in (_draw_factor(run, judged), _draw_curves(run, judged)) if f]
    best = best_custom(found)
    said = [sentence for sentence in (best, collapses(found)) if sentence]
    content: list[parts.Part] = [parts.Text(" ".join(said))] if said else []
    content += [parts.Figures(drawn)] if drawn else []
    gaps = [
        f"No completed trial of the own setting {one.label}." for one in found if one.mean is None
    ]
    unpaired = [one.label for one in found if one.mean is not None and one.ratio is None]
    if unpaired:
        gaps.append(
            "No completed reference trial of the same length, images and seed beside"
            f" {count(len(unpaired), 'own setting')}: without a ratio."
        )
    return parts.Chapter("custom", title, [*content, *shown], gaps)


def _draw_curves(run: Run, found: Sequence[CustomSetting]) -> parts.Figure | None:
    drawn = drawn_settings(found)
    if not drawn:
        return None
    metric = drawn[0].metric
    data: dict[str, pd.DataFrame] = {}
    looks: dict[str, Mapping[str, Any]] = {}
    points: list[tuple[str, pd.DataFrame]] = []

    def add(label: str, trials: pd.DataFrame, look: Mapping[str, Any]) -> None:
        named = trials.assign(name=label)
        curve = curves(named, run.epochs, metric)
        if label not in data and len(curve):
            data[label], looks[label] = curve, look
            points.append((label, reference_epochs(named, run.epochs).dropna(subset=metric)))

    for place, one in enumerate(drawn):
        add(one.label, one.completed.reset_index(drop=True), look_of(place))
    lines = iter(("-", "--", ":", "-."))
    for one in drawn:
        label = f"{one.model}, the reference"
        if one.differs and len(one.reference) and label not in data and len(data) < len(drawn) + 4:
            add(label, one.reference.reset_index(), {**REFERENCE_LOOK, "linestyle": next(lines)})
    if not data:
        return None
    figure, ax = figures.new_figure(2.8 + LINE_INCHES * len(data))
    plot_curves(data, looks, ax)
    ax.set_ylabel(f"{IMAGES[metric].capitalize()} MSE, {MSE_UNIT}, log axis")
    last = sorted((float(c["mean"].iloc[-1]), label) for label, c in data.items())
    ends = " to ".join(f"{digits(v)} ({label})" for v, label in dict.fromkeys((last[0], last[-1])))
    counts = [int(curve["n"].max()) for curve in data.values()]
    band = "; bands go from the least to the greatest seed" if max(counts) > 1 else ""
    some = ""
    if len(drawn) < sum(one.mean is not None for one in found):
        some = f" The best {BEST_SHOWN} and the worst {WORST_SHOWN} of {len(found)} settings."
    places = list(data)
    return figures.finish(
        figure,
        figure_name(CURVES, metric),
        f"{IMAGES[metric].capitalize()} MSE of the own settings against the epoch",
        f"At the end, {ends}.",
        f"Mean over seeds, {seeds(counts)}{band}.{some}",
        rests_on(run),
        series=[figures.series_of(label, looks[label]) for label in places],
        points=[
            (ax, Points(places.index(label), curve["epoch"], curve["mean"], said))
            for label, curve in data.items()
            for said in ([digits(value) for value in curve["mean"]],)
        ]
        + [
            (
                ax,
                Points(
                    places.index(label),
                    history["epoch"],
                    history[metric],
                    [digits(value) for value in history[metric]],
                    str(trial_id),
                ),
            )
            for label, histories in points
            for trial_id, history in histories.sort_values("epoch").groupby("trial_id")
        ],
    )


def _draw_factor(run: Run, found: Sequence[CustomSetting]) -> parts.Figure | None:
    """The MSE against the one factor that the person varied, if there is one."""
    factors = {
        model: factor_of([one for one in found if one.model == model])
        for model in dict.fromkeys(one.model for one in found)
    }
    known = {factor for factor in factors.values() if factor is not None}
    if len(known) != 1:
        return None
    (factor,) = known
    data = factor_rows([one for one in found if factors[one.model] == factor], factor)
    if data["value"].nunique() < MIN_VALUES:
        return None
    metric = found[0].metric
    figure, ax = figures.new_figure()
    plot_factor(data, ax, factor, figures.looks_of(models_of(run.trials)))
    ax.set_ylabel(f"{IMAGES[metric].capitalize()} MSE, {MSE_UNIT}, log axis")
    means = data.groupby(["model", "value"])["mse"].mean()
    least = "; ".join(
        f"{model} least at {figures.plain(float(its.idxmin()))}, {digits(its.min())}"
        for model, its in ((model, means[model]) for model in means.index.unique("model"))
    )
    models = models_of(data)
    return figures.finish(
        figure,
        figure_name(FACTOR, metric),
        f"{IMAGES[metric].capitalize()} MSE against the {_label(factor).lower()}",
        f"Mean over seeds: {least}.",
        f"A mark a seed, {seeds(data.groupby(['model', 'value']).size())} a value; lines join the"
        " means. Hollow: the reference.",
        rests_on(run),
        by="point",
        points=[
            (
                ax,
                Points(
                    models.index(str(model)),
                    rows["value"],
                    rows["mse"],
                    [
                        f"{model}, {_label(factor).lower()} {figures.plain(row['value'])},"
                        f" seed {row['seed']}: {digits(row['mse'])}"
                        for _, row in rows.iterrows()
                    ],
                ),
            )
            for model, rows in data.groupby("model")
        ],
    )
