"""Puts run folders side by side: what differs between them, and every setting that they share.

    python -m analysis.compare results/A results/B [--csv rows.csv]

In a few seconds on one core it prints the differing hardware, versions, code and spec, then, for
every setting that at least two runs completed, each run's MSE and training time with their ratio
to the first run that has it. Folders may be URIs (s3://, gs://). Exit 2 for a folder that is not a
run.
"""

import argparse
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import stats

from analysis.load import DTYPES, RunFolderError, load_manifest, load_run
from analysis.statistics import (
    CONFIDENCE,
    Estimate,
    architecture,
    mean_over_seeds,
    ratio_over_seeds,
)
from analysis.words import count, devices, mean_and_sd
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
COMPARED: Final = (*schema.METRICS, "train_seconds")

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


@dataclass(frozen=True)
class Run:
    """A run folder that has been read.

    Attributes:
        label: a letter that stands for it in the output.
        folder: its path or URI, as given.
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
    """

    label: str
    folder: str
    manifest: Mapping[str, Any]
    trials: pd.DataFrame

    @property
    def n_at_once(self) -> int:
        """Trials that trained at once, at most."""
        return int(self.manifest["resources"]["max_concurrent"])


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Reads run folders and labels them A, B, C … in their order.

    Raises:
        RunFolderError: if one of them is not a whole run.
    """
    return [
        Run(label, folder, load_manifest(folder), load_run(folder)[0])
        for label, folder in zip(string.ascii_uppercase, folders, strict=False)
    ]


def differences(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """What the manifests and the trials' devices say differently.

    Returns:
        For each differing key, such as "versions.keras", the values as words, each with the labels
        of the runs that have it. Keys on which all runs agree are left out.
    """
    flat = {}
    for run in runs:
        parts = {part: run.manifest[part] for part in EXPLAINING}
        flat[run.label] = {"device": devices(run.trials)} | dict(_flattened(parts))
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    found: dict[str, dict[str, list[str]]] = {}
    for key in keys:
        labels: dict[str, list[str]] = {}
        for label, values in flat.items():
            value = _in_words(values[key]) if key in values else "not recorded"
            labels.setdefault(value, []).append(label)
        if len(labels) > 1:
            found[key] = labels
    return found


def welch_ratio(numerator: pd.Series, denominator: pd.Series) -> Estimate | None:
    """The ratio of the geometric means of two independent samples of positive numbers.

    The interval is Welch's, of the difference of the mean logs, with the degrees of freedom of
    Welch and Satterthwaite (B. L. Welch, Biometrika 34, 1947).

    Returns:
        The ratio, n being the sum of both; without an interval if a sample has one value; None if
        one has none.
    """
    top = mean_over_seeds(pd.Series(np.log(numerator)))
    bottom = mean_over_seeds(pd.Series(np.log(denominator)))
    if top is None or bottom is None:
        return None
    difference, n = top.mean - bottom.mean, top.n + bottom.n
    ratio = float(np.exp(difference))
    if top.sd is None or bottom.sd is None:
        return Estimate(ratio, n)
    top_variance, bottom_variance = top.sd**2 / top.n, bottom.sd**2 / bottom.n
    variance = top_variance + bottom_variance
    if variance == 0:  # as when every seed collapsed to the same images
        return Estimate(ratio, n, None, ratio, ratio)
    freedom = variance**2 / (top_variance**2 / (top.n - 1) + bottom_variance**2 / (bottom.n - 1))
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
    low, high = np.exp([difference - half_width, difference + half_width])
    return Estimate(ratio, n, None, float(low), float(high))


def completed_trials(runs: Iterable[Run]) -> pd.DataFrame:
    """The completed trials of all runs, with the columns `run` (its label) and `name`."""
    tables = [
        run.trials[run.trials["state"] == schema.COMPLETED].assign(run=run.label) for run in runs
    ]
    trials = pd.concat(tables, ignore_index=True)
    return trials.assign(name=[architecture(row) for _, row in trials.iterrows()])


def settings(completed: pd.DataFrame) -> list[pd.DataFrame]:
    """The trials of `completed_trials` by setting: reference trials' settings before others."""
    by_setting = [trials for _, trials in completed.groupby(list(SETTING), dropna=False)]
    return sorted(by_setting, key=lambda trials: schema.GROUPS.index(_groups(trials)[0]))


def shared(trials: pd.DataFrame) -> bool:
    """Whether at least two runs completed this setting."""
    return trials["run"].nunique() > 1


def compare(runs: Sequence[Run]) -> pd.DataFrame:
    """Every setting that at least two runs completed.

    Repetitions of a seed in one run count as one seed, with their mean.

    Returns:
        A row a setting, metric and run, with the columns and dtypes of `ROW_COLUMNS`. `mean`, `sd`
        and the 95 % t-interval `low` to `high` are over the run's `n` seeds. `ratio` is to the run
        `ratio_to`, the first that has the setting, and missing in that run's own row. Where the two
        share seeds it is the geometric mean of the ratios of `n_shared_seeds` seeds; where they
        share none it is that of `welch_ratio`. `interval` names which interval `ratio_low` to
        `ratio_high` is; missing if there are too few seeds for one.
    """
    folders = {run.label: run.folder for run in runs}
    rows = []
    for trials in settings(completed_trials(runs)):
        if not shared(trials):
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
                ratio = {} if label == base else {"ratio_to": base} | _ratio(values, by_seed[base])
                rows.append(
                    first[[*SETTING, "name"]].to_dict()
                    | {
                        "groups": ", ".join(_groups(trials[trials["run"] == label])),
                        "metric": metric,
                        "run": label,
                        "folder": folders[label],
                    }
                    | _estimate(values)
                    | ratio
                )
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS)).astype(dict(ROW_COLUMNS))


def _estimate(values: pd.Series) -> dict[str, float | None]:
    estimate = mean_over_seeds(values)
    if estimate is None:
        return {"n": 0}
    return {part: getattr(estimate, part) for part in ("mean", "sd", "low", "high", "n")}


def _ratio(values: pd.Series, base: pd.Series) -> dict[str, Any]:
    estimate, interval = ratio_over_seeds(values, base), PAIRED
    n_shared = estimate.n if estimate else 0
    if estimate is None:
        estimate, interval = welch_ratio(values, base), WELCH
    if estimate is None:
        return {}
    return {
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
    return "–" if value is None else str(value)


def show(console: Console, runs: Sequence[Run], rows: pd.DataFrame) -> None:
    """Prints the comparison.

    Args:
        console: where to.
        runs: of `read_runs`.
        rows: of `compare`.
    """
    differing = differences(runs)
    table = _table("run", "folder")
    for run in runs:
        table.add_row(run.label, run.folder)
        table.add_row("", _run_in_words(run))
    console.print(table)
    console.print("\nWhat differs", style="bold")
    console.print(
        _differences_table(differing)
        if differing
        else "Nothing: the same hardware, resources, versions, code, spec and data."
    )

    by_setting = settings(completed_trials(runs))
    console.print("\nSettings that two or more runs completed", style="bold")
    if rows.empty:
        console.print("None.")
    else:
        _show_shared(console, rows)
        for note in _notes(runs, rows, differing):
            console.print(f"\n{note}")
    for run in runs:
        alone = [t for t in by_setting if not shared(t) and t["run"].iloc[0] == run.label]
        if alone:
            console.print(f"\nSettings that only {run.label} completed", style="bold")
            _show_alone(console, alone)


def _run_in_words(run: Run) -> str:
    states = run.trials["state"].value_counts()
    counts = ", ".join(f"{states[state]} {state}" for state in schema.STATES if state in states)
    return (
        f"{run.manifest['status']}; {count(len(run.trials), 'trial')}{counts and f': {counts}'}"
        f" (only completed ones are compared); on {devices(run.trials)}"
    )


def _differences_table(differing: Mapping[str, Mapping[str, list[str]]]) -> Table:
    table = _table("key", "runs", "value")
    for key, values in differing.items():
        for number, (value, labels) in enumerate(values.items()):
            table.add_row("" if number else key, ", ".join(labels), value)
    return table


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in columns:
        table.add_column(  # folded, so that nothing is cut off
            column, justify="right" if column in right else "left", overflow="fold"
        )
    return table


def _show_shared(console: Console, rows: pd.DataFrame) -> None:
    same = [name for name in BESIDE_NAME if rows[name].nunique(dropna=False) == 1]
    varying = [name for name in BESIDE_NAME if name not in same]
    if common := _setting(rows.iloc[0], same):
        console.print(f"All of them: {common}.")
    for _, of_setting in rows.groupby(list(SETTING), dropna=False, sort=False):
        first = of_setting.iloc[0]
        groups = dict.fromkeys(", ".join(of_setting["groups"]).split(", "))
        parts = [f"{first['name']} ({', '.join(groups)})", _setting(first, varying)]
        console.print("\n" + ": ".join(part for part in parts if part), style="bold")
        base = first["run"]
        table = _table(
            "",
            "run",
            "mean ± sd",
            "n",
            f"÷ {base}",
            "95 % interval",
            "by",
            right=("n", f"÷ {base}"),
        )
        previous = None
        for _, row in of_setting.iterrows():
            table.add_row("" if row["metric"] == previous else row["metric"], *_cells(row))
            previous = row["metric"]
        console.print(table)


def _cells(row: pd.Series) -> list[str]:
    cells = [row["run"], _mean(row), str(row["n"])]
    if pd.isna(row["ratio_to"]):
        return cells
    if pd.isna(row["ratio"]):
        return [*cells, "–"]
    interval = (
        "–" if pd.isna(row["interval"]) else f"{row['ratio_low']:#.4g} to {row['ratio_high']:#.4g}"
    )
    n_shared = row["n_shared_seeds"]
    by = f"paired ({n_shared})" if n_shared else "unpaired" if interval == "–" else "Welch"
    return [*cells, f"{row['ratio']:#.4g}", interval, by]


def _mean(row: pd.Series) -> str:
    if not row["n"]:
        return "–"
    return mean_and_sd(Estimate(row["mean"], row["n"], None if pd.isna(row["sd"]) else row["sd"]))


def _setting(trial: pd.Series, names: Iterable[str]) -> str:
    values = {name: trial[name] for name in names if not pd.isna(trial[name])}
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _show_alone(console: Console, alone: Iterable[pd.DataFrame]) -> None:
    """Prints settings by name; those of search trials alone, often many, as their trials."""
    searched: list[str] = []
    for trials in alone:
        if _groups(trials) == [schema.SEARCH]:
            searched += list(trials["trial_id"])
            continue
        first = trials.iloc[0]
        n_seeds = count(trials["seed"].nunique(), "seed")
        groups = ", ".join(_groups(trials))
        console.print(f"{first['name']} ({groups}, {n_seeds}): {_setting(first, BESIDE_NAME)}")
    if searched:
        console.print(", ".join(searched))


def _notes(
    runs: Sequence[Run], rows: pd.DataFrame, differing: Mapping[str, Mapping[str, list[str]]]
) -> Iterable[str]:
    """What may, and what may not, be read from the numbers."""
    yield (
        "Mean ± sample standard deviation over n seeds, one that a run trained twice counting once;"
        " MSE in (pixel / 255)². A ratio below 1 is a smaller MSE or a shorter training."
    )
    if (rows["n_shared_seeds"] > 0).any():
        yield (
            "paired (n): the geometric mean of the ratios of the n seeds that both runs have, with"
            " the t-interval of its logarithm. A seed that two runs share gives the same initial"
            " weights and batches only where their code and versions agree; "
            f"{_agreement(runs, differing)}."
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
    busy = [f"{run.label} up to {run.n_at_once}" for run in runs if run.n_at_once > 1]
    yield (
        "train_seconds is the weight updates alone. Its interval covers the seeds, not another day"
        " or another load of the machine."
        + (f" Trials that trained at once and shared it: {', '.join(busy)}." if busy else "")
    )
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 compared, 2 not run folders."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.compare",
        description="Put two or more run folders side by side.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", help="STORAGE/NAME, a path or a URI")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="also write the rows to a file")
    given = parser.parse_args(arguments)
    if not 2 <= len(given.folders) <= len(string.ascii_uppercase):
        parser.error(
            f"{count(len(given.folders), 'run folder')} given; give two to"
            f" {len(string.ascii_uppercase)} of them."
        )
    try:
        runs = read_runs(given.folders)
    except RunFolderError as error:
        print(error, file=sys.stderr)
        return 2
    rows = compare(runs)
    if given.csv:
        try:
            rows.to_csv(given.csv, index=False)
        except OSError as error:
            print(f"{given.csv} cannot be written ({error}); give another --csv.", file=sys.stderr)
            return 2
    # Names of folders and trials are texts, never markup.
    show(Console(markup=False, highlight=False, emoji=False), runs, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
