"""Two or more runs side by side: what differs between them, and whether it is more than chance."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters import parts
from analysis.chapters.provenance import run_table
from analysis.chapters.times import sharing
from analysis.figures import DARK, LIGHT, MUTED, Points
from analysis.load import DTYPES, Run
from analysis.statistics import (
    Estimate,
    mean_over_seeds,
    ratio_over_seeds,
    times_alone,
    welch_ratio,
    with_names,
)
from analysis.words import (
    count,
    devices,
    digits,
    listed,
    mean_and_sd,
    setting,
    short,
    short_interval,
)
from study.folder import schema

# A trial's setting is its configuration without the seed. Its group is not part of it: the same
# setting trains in the same way whatever it was trained for.
SETTING: Final = tuple(name for name in schema.CONFIG_COLUMNS if name != "seed")
# What a setting's name, its architecture, does not tell.
BESIDE_NAME: Final = tuple(
    name
    for name in SETTING
    if name != "model" and not (name in schema.BY_NAME and schema.BY_NAME[name].of_architecture)
)
TESTED: Final = (schema.VAL_MSE, schema.TEST_MSE)
SECONDS: Final = "train_seconds"
COMPARED: Final = (*schema.METRICS, SECONDS)
# The parts of the manifest that may explain a difference in the numbers.
EXPLAINING: Final = ("hardware", "resources", "versions", "code", "spec", "data")
# How the interval of a ratio was reached.
PAIRED: Final = "paired t"
WELCH: Final = "Welch t"
ROW_COLUMNS: Final[Mapping[str, str]] = {
    **{name: DTYPES[schema.CONFIG_COLUMNS[name]] for name in SETTING},
    **dict.fromkeys(("name", "groups", "metric", "run", "folder"), "str"),
    **dict.fromkeys(("mean", "sd", "low", "high"), "float64"),
    "n": "Int64",
    "ratio_to": "str",
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), "float64"),
    "n_shared_seeds": "Int64",
    "interval": "str",
}
MSE_FIGURE: Final = "figure-mse-ratios"
TIME_FIGURE: Final = "figure-time-ratios"
LABEL_COLUMNS: Final = 28  # characters of a row's label, which goes on below
COLORS: Final = (DARK, LIGHT, "#b0144f", "#3b7a57", MUTED)
MARKERS: Final = ("o", "s", "^", "D", "v")


def differences(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """What the manifests and the trials' devices say differently.

    Returns:
        For each differing key, such as "versions.keras", the values as words, each with the labels
        of the runs that have it. Keys on which all runs agree are left out.
    """
    flat = {}
    for run in runs:
        explaining = {part: run.manifest[part] for part in EXPLAINING}
        flat[run.label] = {"device": devices(run.trials)} | dict(_flattened(explaining))
    found: dict[str, dict[str, list[str]]] = {}
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        labels: dict[str, list[str]] = {}
        for label, values in flat.items():
            value = _in_words(values[key]) if key in values else "not recorded"
            labels.setdefault(value, []).append(label)
        if len(labels) > 1:
            found[key] = labels
    return found


def completed_trials(runs: Iterable[Run]) -> pd.DataFrame:
    """The completed trials of all runs, with the columns `run` (its label) and `name`."""
    tables = [
        run.trials[run.trials["state"] == schema.COMPLETED].assign(run=run.label) for run in runs
    ]
    return times_alone(with_names(pd.concat(tables, ignore_index=True)))


def settings(completed: pd.DataFrame) -> list[pd.DataFrame]:
    """The trials of `completed_trials` by setting: reference trials' settings before others."""
    by_setting = [trials for _, trials in completed.groupby(list(SETTING), dropna=False)]
    return sorted(by_setting, key=lambda trials: schema.GROUPS.index(_groups(trials)[0]))


def compare(runs: Sequence[Run]) -> pd.DataFrame:
    """Every setting that at least two runs completed.

    Repetitions of a seed in one run count as one seed, with their mean.

    Returns:
        A row a setting, metric and run, with the columns and dtypes of `ROW_COLUMNS`. `mean`, `sd`
        and the 95 % t-interval `low` to `high` are over the run's `n` seeds. `ratio` is to the run
        `ratio_to`, the first that has the setting, and missing in that run's own row. Where the two
        share seeds it is the geometric mean of the ratios of `n_shared_seeds` seeds; where they
        share none it is that of `analysis.statistics.welch_ratio`. `interval` names which interval
        `ratio_low` to `ratio_high` is; missing if there are too few seeds for one.
    """
    folders = {run.label: run.folder for run in runs}
    rows = []
    for trials in settings(completed_trials(runs)):
        if trials["run"].nunique() == 1:
            continue
        first = trials.iloc[0]
        for metric in COMPARED:
            by_seed = {
                str(label): of_run.groupby("seed")[metric].mean().dropna()
                for label, of_run in trials.groupby("run")
            }
            if all(values.empty for values in by_seed.values()):
                continue  # such as test_mse on the search's split
            base = next(iter(by_seed))
            for label, values in by_seed.items():
                estimate = mean_over_seeds(values)
                its_groups = _groups(trials[trials["run"] == label])
                rows.append(
                    first[[*SETTING, "name"]].to_dict()
                    | {"groups": ", ".join(its_groups), "metric": metric}
                    | {"run": label, "folder": folders[label]}
                    | (vars(estimate) if estimate else {"n": 0})
                    | ({} if label == base else _ratio(values, by_seed[base], base))
                )
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS)).astype(dict(ROW_COLUMNS))


def _ratio(values: pd.Series, base: pd.Series, label: str) -> dict[str, Any]:
    estimate, interval = ratio_over_seeds(values, base), PAIRED
    n_shared = estimate.n if estimate else 0
    if estimate is None:
        estimate, interval = welch_ratio(values, base), WELCH
    if estimate is None:
        return {"ratio_to": label}
    return {
        "ratio_to": label,
        "ratio": estimate.mean,
        "ratio_low": estimate.low,
        "ratio_high": estimate.high,
        "n_shared_seeds": n_shared,
        "interval": interval if estimate.low is not None else None,
    }


def _groups(trials: pd.DataFrame) -> list[str]:
    return [group for group in schema.GROUPS if (trials["group"] == group).any()]


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield from _flattened(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return parts.NO_VALUE if value is None else str(value)


def estimate_of(row: pd.Series) -> Estimate:
    """The ratio of a row of `compare`, n being its pairs, or all seeds of both runs."""
    low, high = _known(row["ratio_low"]), _known(row["ratio_high"])
    return Estimate(row["ratio"], int(row["n_shared_seeds"] or row["n"]), None, low, high)


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def plot_ratios(data: pd.DataFrame, ax: Axes) -> Axes:
    """Each run's ratio to the first, a row a setting, log axis, beside the line 1.

    `data` is rows of `compare` that have a ratio, with the column `label` of their setting.
    """
    ends = {"ratio": "mean", "ratio_low": "low", "ratio_high": "high"}
    data = (
        data[["label", *ends]]
        .rename(columns=ends)
        .assign(
            kind=[
                f"{run} ÷ {base}" for run, base in zip(data["run"], data["ratio_to"], strict=True)
            ]
        )
    )
    looks = {
        kind: {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        for place, kind in enumerate(dict.fromkeys(data["kind"]))
    }
    figures.plot_forest(ax, data, looks)
    figures.legend_above(ax)
    return ax


def answer(runs: Sequence[Run], rows: pd.DataFrame) -> parts.Answer:
    """What differs, and whether it is more than chance."""
    n_shared = len(rows[list(SETTING)].drop_duplicates())
    differing, n_with = _beyond(rows[rows["metric"].isin(TESTED)])
    sentences = [
        f"{listed(run.label for run in runs)} have {count(n_shared, 'completed setting')} in"
        " common."
    ]
    said = "Nothing in common to compare."
    if n_shared:
        said = "The MSE: no more than chance."
        if differing:
            said = f"The MSE differs in {differing} of {count(n_with, 'ratio')}."
        if not n_with:
            said = "Too few seeds to tell."
        sentences.append(
            f"Of {count(n_with, 'ratio')} of MSE with an interval {differing} exclude 1; by chance"
            f" alone about {short(n_with / 20) if n_with else 0} would."
        )
        sentences += _speed(runs, rows)
    changed = list(differences(runs))
    what = ", ".join(changed[:6]) + (" and more" if len(changed) > 6 else "")
    sure = f"What may explain a difference: {what}." if changed else "Nothing else differs."
    return parts.Answer(
        "What differs between these runs, and is it more than chance?",
        "; ".join(f"{run.label} is {run.manifest['name']}" for run in runs) + ".",
        said,
        sentences,
        f"{sure} Intervals are over seeds: another day or load of a machine is not in them.",
        figure=MSE_FIGURE,
    )


def _beyond(rows: pd.DataFrame) -> tuple[int, int]:
    """How many ratios exclude 1, of those that have an interval."""
    known = rows.dropna(subset="interval")
    n = ((known["ratio_low"] > 1) | (known["ratio_high"] < 1)).sum()
    return int(n), len(known)


def _speed(runs: Sequence[Run], rows: pd.DataFrame) -> Iterator[str]:
    """Training times of each run and architecture beside the first run's."""
    times = rows[(rows["metric"] == SECONDS) & rows["ratio"].notna()]
    for (run, base), of_run in times.groupby(["run", "ratio_to"]):
        by_name = of_run.groupby("name")["ratio"].agg(lambda ratio: np.exp(np.log(ratio).mean()))
        times_as_long = ", ".join(f"{short(r)} times ({name})" for name, r in by_name.items())
        yield f"Beside {base}, {run} trains for {times_as_long} as long."
    shared = [run.label for run in runs if sharing(run)]
    if len(times) and shared:
        yield f"Trials of {listed(shared)} shared their device: those are not times alone."


def chapters(
    runs: Sequence[Run], rows: pd.DataFrame, *, with_figures: bool = True
) -> list[parts.Chapter]:
    """What there is to say of several runs.

    Args:
        runs: at least two.
        rows: of `compare`.
        with_figures: which take a second or two.
    """
    differing = differences(runs)
    by_setting = settings(completed_trials(runs))
    return [
        parts.Chapter("runs", "The runs", [parts.Items(list(map(_in_brief, runs)))]),
        parts.Chapter("differences", "What differs", [_differences_table(differing)]),
        parts.Chapter(
            "shared", "Settings that two or more runs completed", _shared(runs, rows, with_figures)
        ),
        *(
            parts.Chapter(
                f"alone-{run.label}", f"Settings that only {run.label} completed", [found]
            )
            for run in runs
            if (found := _alone(run, by_setting))
        ),
        parts.Chapter(
            "provenance",
            "What was run",
            [part for run in runs for part in (parts.Heading(f"Run {run.label}"), run_table(run))],
        ),
    ]


def _in_brief(run: Run) -> str:
    states = run.trials["state"].value_counts()
    counts = ", ".join(f"{states[state]} {state}" for state in schema.STATES if state in states)
    return (
        f"{run.label}: {run.folder}, {run.manifest['status']};"
        f" {count(len(run.trials), 'trial')}{counts and f': {counts}'}"
        f" (only completed ones are compared); on {devices(run.trials)}"
    )


def _differences_table(differing: Mapping[str, Mapping[str, list[str]]]) -> parts.Part:
    if not differing:
        return parts.Text("Nothing: the same hardware, resources, versions, code, spec and data.")
    rows = [
        ("" if number else key, ", ".join(labels), value)
        for key, values in differing.items()
        for number, (value, labels) in enumerate(values.items())
    ]
    return parts.Table(("Key", "Runs", "Value"), rows)


def _shared(runs: Sequence[Run], rows: pd.DataFrame, with_figures: bool) -> list[parts.Part]:
    if rows.empty:
        return [parts.Text("None.")]
    content: list[parts.Part] = []
    same = [name for name in BESIDE_NAME if rows[name].nunique(dropna=False) == 1]
    varying = [
        name for name in BESIDE_NAME if name not in (*same, "arguments")
    ]  # the name has them
    if common := setting(rows.iloc[0], same):
        content.append(parts.Text(f"All of them: {common}."))
    labels = []
    tables: list[parts.Part] = []
    for _, of_setting in rows.groupby(list(SETTING), dropna=False, sort=False):
        first = of_setting.iloc[0]
        groups = dict.fromkeys(", ".join(of_setting["groups"]).split(", "))
        custom = setting(first, varying)
        labels += [f"{first['name']}{custom and f', {custom}'}"] * len(of_setting)
        title = f"{first['name']} ({', '.join(groups)})"
        header = ("Metric", "Run", "Mean ± sd", "n", f"÷ {first['run']}", "95 % interval", "By")
        tables += [
            parts.Heading(f"{title}: {custom}" if custom else title),
            parts.Table(header, list(_rows_of(of_setting)), right=(3, 4)),
        ]
    kinds = ((MSE_FIGURE, TESTED), (TIME_FIGURE, (SECONDS,))) if with_figures else ()
    with figures.style():
        drawn = [
            figure
            for name, metrics in kinds
            if (figure := _draw(runs, rows.assign(label=labels), name, metrics))
        ]
    content += [parts.Figures(drawn)] if drawn else []
    return [*content, *tables, parts.Items(list(_notes(runs, rows)))]


def _rows_of(of_setting: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    previous = None
    for _, row in of_setting.iterrows():
        mean = parts.NO_VALUE
        if row["n"]:
            mean = mean_and_sd(Estimate(row["mean"], row["n"], _known(row["sd"])))
        ratio, interval, by = "", "", ""
        if not pd.isna(row["ratio"]):
            ratio, interval = f"{row['ratio']:#.4g}", parts.NO_VALUE
            if not pd.isna(row["interval"]):
                interval = f"{row['ratio_low']:#.4g} to {row['ratio_high']:#.4g}"
            n = row["n_shared_seeds"]
            by = f"paired ({n})" if n else "unpaired" if interval == parts.NO_VALUE else "Welch"
        elif not pd.isna(row["ratio_to"]):
            ratio = parts.NO_VALUE
        metric = "" if row["metric"] == previous else row["metric"]
        previous = row["metric"]
        yield metric, row["run"], mean, str(row["n"]), ratio, interval, by


def _draw(
    runs: Sequence[Run], rows: pd.DataFrame, name: str, metrics: Sequence[str]
) -> parts.Figure | None:
    data = rows[rows["metric"].isin(metrics) & rows["ratio"].notna()]
    if data.empty:
        return None
    labels = list(dict.fromkeys(data["label"]))
    lines = [textwrap.fill(label, LABEL_COLUMNS) for label in data["label"]]
    most = max(line.count("\n") for line in lines)
    figure, ax = figures.new_figure(1.1 + (0.3 + 0.15 * most) * len(labels))
    plot_ratios(data.assign(label=lines), ax)
    what = "Training time" if name == TIME_FIGURE else "MSE"
    unit = "a shorter training" if name == TIME_FIGURE else "a lower MSE"
    ax.set_xlabel(f"{what} ÷ that of the first run, log axis")
    said = [
        f"{row['label']}, {row['metric']}, {row['run']} ÷ {row['ratio_to']}:"
        f" {short_interval(estimate_of(row))}"
        for _, row in data.iterrows()
    ]
    ends = f"{digits(data['ratio'].min())} to {digits(data['ratio'].max())}"
    caption = (
        "Test MSE, or validation MSE of trials on the search's images."
        if name == MSE_FIGURE
        else " ".join(dict.fromkeys(f"{run.label}: {s}" for run in runs if (s := sharing(run))))
    )
    return figures.finish(
        figure,
        name,
        f"{what} of each setting beside the first run's",
        f"{count(len(data), 'ratio')}, {ends}; below 1 is {unit}.",
        f"{caption} Hollow: no interval; arrows: an interval goes on.".strip(),
        "; ".join(f"{run.label}: {run.manifest['name']}, {devices(run.trials)}" for run in runs),
        by="point",
        points=[(ax, Points(0, data["ratio"], [labels.index(x) for x in data["label"]], said))],
    )


def _alone(run: Run, by_setting: Iterable[pd.DataFrame]) -> parts.Items | None:
    """Settings by name; those of search trials alone, often many, as their trials."""
    found, searched = [], []
    for trials in by_setting:
        if set(trials["run"]) != {run.label}:
            continue
        if _groups(trials) == [schema.SEARCH]:
            searched += list(trials["trial_id"])
            continue
        first, n_seeds = trials.iloc[0], count(trials["seed"].nunique(), "seed")
        groups = ", ".join(_groups(trials))
        found.append(f"{first['name']} ({groups}, {n_seeds}): {setting(first, BESIDE_NAME)}")
    items = [*found, *([", ".join(searched)] if searched else [])]
    return parts.Items(items) if items else None


def _notes(runs: Sequence[Run], rows: pd.DataFrame) -> Iterator[str]:
    """What may, and what may not, be read from the numbers."""
    differing = differences(runs)
    yield (
        "Mean ± sample standard deviation over n seeds, one that a run trained twice counting once."
        " A ratio below 1 is a smaller MSE or a shorter training."
    )
    if (rows["n_shared_seeds"] > 0).any():
        yield (
            "paired (n): the geometric mean of the ratios of the n seeds that both runs have, with"
            " its t-interval. A seed that two runs share gives the same initial weights and batches"
            f" only where their code and versions agree; {_agreement(runs, differing)}."
        )
    if (rows["interval"] == WELCH).any():
        yield (
            "Welch: the runs share no seed; the ratio of their geometric means, with Welch's"
            " t-interval of the difference of the mean logarithms."
        )
    if (rows["ratio"].notna() & rows["interval"].isna()).any():
        yield (
            "Without an interval there are too few seeds for one: whether the runs differ or it is"
            " chance, these numbers cannot say."
        )
    if any(key.startswith("data.sha256") for key in differing):
        yield "The runs' images differ, so that their MSE are not of the same data."
    yield "train_seconds is the weight updates alone."
    for run in runs:
        if shared := sharing(run):
            yield f"{run.label}: {shared}"
    survivors = {run.label for run in runs if _survivors(run.trials)}
    if survivors & set(rows.loc[rows["groups"].str.contains(schema.SEARCH), "run"]):
        yield (
            "The search's scheduler ended trials early; those are absent, so that search trials"
            " here are the ones that it let finish."
        )


def _survivors(trials: pd.DataFrame) -> bool:
    return bool(((trials["group"] == schema.SEARCH) & (trials["state"] == schema.PRUNED)).any())


def _agreement(runs: Sequence[Run], differing: Iterable[str]) -> str:
    """Whether these runs' code and versions agree."""
    if any(key.startswith(("code.", "versions.")) for key in differing):
        return "here they do not in all runs (see above)"
    codes = [run.manifest["code"] for run in runs]
    if any(code["git_dirty"] or not code["git_commit"] for code in codes):
        return "here that is not known, the commit being unrecorded or with changes beside it"
    return "here they do"
