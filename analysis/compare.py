"""Puts run folders side by side: what differs between them, and whether it is more than chance.

    python -m analysis.compare results/A results/B [--csv rows.csv] [--page compared.html]

In a few seconds on one core it prints the differing hardware, versions, code and spec, then, for
every setting that at least two runs completed, each run's MSE and training time with their ratio
to the first run that has it. --page writes the same, with figures, as one self-contained page.
Folders may be URIs (s3://, gs://). Exit 2 for a folder that is not a run.
"""

import argparse
import string
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from rich.console import Console

from analysis import plots, settings
from analysis.chapters import provenance
from analysis.chapters.times import sharing
from analysis.load import DTYPES, Run, read_run
from analysis.page import Book
from analysis.page.text import show
from analysis.phrases import NO_VALUE, count, devices, digits, mean_and_sd, short, values_words
from analysis.plots import Drawing
from analysis.settings import MEASURED, Estimate
from convae.errors import UserError, program, run_command
from study.folder import schema
from study.folder.schema import SECONDS

# A trial's setting is its configuration without the seed. Its group is not part of it: the same
# setting trains in the same way whatever it was trained for. Labels of settings do not compare
# between runs: each is relative to its study's reference.
SETTING: Final = [name for name in schema.CONFIG_COLUMNS if name != "seed"]
BESIDE_NAME: Final = [name for name in SETTING if name not in ("model", "hidden_units")]
TESTED: Final = (schema.VAL_MSE, schema.TEST_MSE)
# The parts of the manifest that may explain a difference in the numbers.
EXPLAINING: Final = ("hardware", "resources", "versions", "code", "spec", "data")
# How the interval of a ratio was reached.
PAIRED: Final = "paired t"
WELCH: Final = "Welch t"
NUMBERS: Final = ("mean", "sd", "low", "high")
ROW_COLUMNS: Final[Mapping[str, str]] = {
    **{name: DTYPES[schema.CONFIG_COLUMNS[name]] for name in SETTING},
    **dict.fromkeys(("name", "groups", "metric", "run", "folder"), "str"),
    **dict.fromkeys(NUMBERS, "float64"),
    **{"n": "Int64", "ratio_to": "str"},
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), "float64"),
    **{"n_shared_seeds": "Int64", "interval": "str"},
}
FIGURES: Final = {"figure-mse-ratios": TESTED, "figure-time-ratios": (SECONDS,)}
LABEL_COLUMNS: Final = 28  # characters of a row's label, which goes on below


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Reads run folders and labels them A, B, C … in their order.

    Raises:
        RunFolderError: if one of them is not a whole run.
    """
    return list(map(read_run, folders, string.ascii_uppercase))


def differences(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """What the manifests and the trials' devices say differently.

    Returns:
        For each differing key, such as "versions.keras", the values as words, each with the labels
        of the runs that have it. Keys on which all runs agree are left out.
    """
    flat: dict[str, dict[Any, Any]] = {}
    for run in runs:
        explaining = {part: run.manifest[part] for part in EXPLAINING}
        (its,) = pd.json_normalize(explaining).astype(object).to_dict("records")
        flat[run.label] = {"device": devices(run.trials)} | its
    parts = {key.rpartition(".")[0] for values in flat.values() for key in values}
    found: dict[str, dict[str, list[str]]] = {}
    for key in dict.fromkeys(key for values in flat.values() for key in values if key not in parts):
        for label, values in flat.items():
            value = values.get(key, "not recorded")
            words = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            by_value = found.setdefault(key, {})
            by_value.setdefault(NO_VALUE if value is None else words, []).append(label)
    return {key: by_value for key, by_value in found.items() if len(by_value) > 1}


def completed_settings(runs: Iterable[Run]) -> list[pd.DataFrame]:
    """The completed trials of all runs by setting: reference trials' settings before others.

    They have the columns `run` (its label) and `name` (the architecture); of trials that shared
    their device there is no training time.
    """
    found = [
        one.completed.assign(run=run.label, folder=run.folder, name=one.architecture)
        for run in runs
        for one in run.settings
        if len(one.completed)
    ]
    rows = pd.concat(found, ignore_index=True).groupby(SETTING, dropna=False) if found else ()
    return sorted((of for _, of in rows), key=lambda of: schema.GROUPS.index(_groups(of)[0]))


def _groups(trials: pd.DataFrame) -> list[str]:
    return [group for group in schema.GROUPS if (trials["group"] == group).any()]


def compare(runs: Sequence[Run]) -> pd.DataFrame:
    """Every setting that at least two runs completed.

    Repetitions of a seed in one run count as one seed, with their mean.

    Returns:
        A row a setting, metric and run, with the columns and dtypes of `ROW_COLUMNS`. `mean`, `sd`
        and the 95 % t-interval `low` to `high` are over the run's `n` seeds. `ratio` is to the run
        `ratio_to`, the first that has the setting, and missing in that run's own row. Where the two
        share seeds it is the geometric mean of the ratios of `n_shared_seeds` seeds; where they
        share none it is that of `analysis.settings.welch_ratio`. `interval` names which interval
        `ratio_low` to `ratio_high` is; missing if there are too few seeds for one.
    """
    rows = []
    for trials in completed_settings(runs):
        by_run = dict(iter(trials.groupby("run")))
        if len(by_run) == 1:
            continue
        for metric in MEASURED:
            by_seed = {run: its.groupby("seed")[metric].mean() for run, its in by_run.items()}
            base = str(next(iter(by_seed)))
            for run, its in by_run.items():
                if trials[metric].isna().all():
                    continue  # such as test_mse on the search's split
                found = vars(settings.mean_over_seeds(by_seed[run]) or Estimate(np.nan, 0))
                row: dict[Any, Any] = (
                    its.iloc[0][[*SETTING, "name", "run", "folder"]].to_dict() | found
                )
                row |= {"groups": ", ".join(_groups(its)), "metric": metric}
                if run != base:
                    row |= _ratio(by_seed[run], by_seed[base], base)
                rows.append(row)
    return pd.DataFrame(rows, columns=list(ROW_COLUMNS)).astype(dict(ROW_COLUMNS))


def _ratio(values: pd.Series, base: pd.Series, label: str) -> dict[str, Any]:
    paired = settings.ratio_over_seeds(values, base)
    found = paired or settings.welch_ratio(values, base)
    if found is None:
        return {"ratio_to": label}
    ends = {"ratio": found.mean, "ratio_low": found.low, "ratio_high": found.high}
    how = None if found.low is None else PAIRED if paired else WELCH
    n = paired.n if paired else 0
    return {"ratio_to": label, **ends, "n_shared_seeds": n, "interval": how}


def setting_words(trial: pd.Series, columns: Iterable[str] = BESIDE_NAME) -> str:
    """Some columns of a trial's setting in words, arguments by name; not those without a value."""
    found = {name: trial[name] for name in columns if not pd.isna(trial[name])}
    return values_words(settings.keywords(found.pop("arguments", None)) | found)


def shared(rows: pd.DataFrame) -> tuple[str, list[dict[str, Any]]]:
    """The settings of `compare`: what they have in common in words, and each with its table."""
    same = [name for name in BESIDE_NAME if rows[name].nunique(dropna=False) == 1]
    others = [name for name in BESIDE_NAME if name not in same]
    found = []
    for _, its in rows.groupby(SETTING, dropna=False, sort=False):
        name, words = its["name"].iloc[0], setting_words(its.iloc[0], others)
        groups = ", ".join(dict.fromkeys(", ".join(its["groups"]).split(", ")))
        label, title = ", ".join(filter(None, (name, words))), f"{name} ({groups})"
        title += words and f": {words}"
        found.append({"label": label, "title": title, "rows": list(_table(its)), "of": its})
    return (setting_words(rows.iloc[0], same) if len(rows) else ""), found


def _table(of_setting: pd.DataFrame) -> Iterator[list[str]]:
    """A row a metric and run."""
    shown = of_setting["metric"].mask(of_setting["metric"].duplicated(), "")
    for metric, (_, row) in zip(shown, of_setting.iterrows(), strict=True):
        sd = None if pd.isna(row["sd"]) else row["sd"]
        mean = mean_and_sd(Estimate(row["mean"], row["n"], sd) if row["n"] else None)
        ratio = "" if pd.isna(row["ratio_to"]) else NO_VALUE
        interval, by, n = "", "", row["n_shared_seeds"]
        if not pd.isna(row["ratio"]):
            ratio, interval = f"{row['ratio']:#.4g}", NO_VALUE
            if not pd.isna(row["interval"]):
                interval = f"{row['ratio_low']:#.4g} to {row['ratio_high']:#.4g}"
            by = f"paired ({n})" if n else "unpaired" if interval == NO_VALUE else "Welch"
        yield [metric, row["run"], mean, str(row["n"]), ratio, interval, by]


def drawing(name: str, found: Sequence[Mapping[str, Any]]) -> Drawing | None:
    """A figure of `FIGURES`: each run's ratio to the first that has the setting, a row a setting.

    None without a ratio.
    """
    labelled = [one["of"].assign(label=textwrap.fill(one["label"], LABEL_COLUMNS)) for one in found]
    data = pd.concat(labelled)
    data = data[data["metric"].isin(FIGURES[name]) & data["ratio"].notna()]
    if data.empty:
        return None
    rows = data[["label"]].assign(
        kind=data["run"] + " ÷ " + data["ratio_to"],
        mean=data["ratio"],
        low=data["ratio_low"],
        high=data["ratio_high"],
        n=data["n_shared_seeds"].where(data["n_shared_seeds"] > 0, data["n"]),
    )
    looks = {kind: plots.look_of(place) for place, kind in enumerate(rows["kind"].unique())}
    lines = 2 + rows["label"].str.count("\n").max()
    with plots.style():
        figure, ax = plots.new_figure(1.4 + 0.15 * lines * rows["label"].nunique())
        points = plots.forest(ax, rows, looks)
        what = "MSE" if FIGURES[name] == TESTED else "Training time"
        ax.set_xlabel(f"{what} ÷ that of the first run, log axis")
        plots.legend_above(ax)
    return Drawing(name, figure, points, by="point")


def values(runs: Sequence[Run], rows: pd.DataFrame, *, with_figures: bool) -> dict[str, Any]:
    """What the templates say of several runs; `rows` are of `compare`."""
    differing, (common, found) = differences(runs), shared(rows)
    tested = rows[rows["metric"].isin(TESTED)].dropna(subset="interval")
    pruned = [r.label for r in runs if any(schema.PRUNED in s.states for s in r.of(schema.SEARCH))]
    searched = rows.loc[rows["groups"].str.contains(schema.SEARCH), "run"]
    codes = [run.manifest["code"] for run in runs]
    ratios = {n: rows.loc[rows["metric"].isin(m), "ratio"].dropna() for n, m in FIGURES.items()}
    return {
        "runs": runs,
        "states": {
            run.label: {s: n for s in schema.STATES if (n := (run.trials["state"] == s).sum())}
            for run in runs
        },
        "changed": list(differing),
        "differences": [
            ["" if number else key, ", ".join(labels), value]
            for key, by_value in differing.items()
            for number, (value, labels) in enumerate(by_value.items())
        ],
        "common": common,
        "found": found,
        "alone": {run.label: items for run in runs if (items := _alone(run, runs))},
        "n_with": len(tested),
        "n_beyond": int(((tested["ratio_low"] > 1) | (tested["ratio_high"] < 1)).sum()),
        "speed": list(_speed(rows)),
        "sharing": {run.label: said for run in runs if (said := sharing(run))},
        "drawings": {
            name: (one, f"{count(len(its), 'ratio')}, {digits(its.min())} to {digits(its.max())}")
            for name, its in ratios.items()
            if with_figures and found and (one := drawing(name, found))
        },
        "paired": bool((rows["n_shared_seeds"] > 0).any()),
        "other_code": any(key.startswith(("code.", "versions.")) for key in differing),
        "code_known": all(code["git_commit"] and not code["git_dirty"] for code in codes),
        "welch": bool((rows["interval"] == WELCH).any()),
        "without": bool((rows["ratio"].notna() & rows["interval"].isna()).any()),
        "other_images": any(key.startswith("data.sha256") for key in differing),
        "survivors": bool(searched.isin(pruned).any()),
    }


def _alone(run: Run, runs: Sequence[Run]) -> list[str]:
    """Settings that only one run completed; those of search trials, often many, as their trials."""
    found, searched = [], []
    for trials in completed_settings(runs):
        if set(trials["run"]) != {run.label}:
            continue
        if (groups := _groups(trials)) == [schema.SEARCH]:
            searched += list(trials["trial_id"])
            continue
        what = f"{', '.join(groups)}, {count(trials['seed'].nunique(), 'seed')}"
        found.append(f"{trials['name'].iloc[0]} ({what}): {setting_words(trials.iloc[0])}")
    return [*found, *([", ".join(searched)] if searched else [])]


def _speed(rows: pd.DataFrame) -> Iterator[str]:
    """Training times of each run and architecture beside the first run's."""
    times = rows[(rows["metric"] == SECONDS) & rows["ratio"].notna()]
    for (run, base), of_run in times.groupby(["run", "ratio_to"]):
        by_name = of_run.groupby("name")["ratio"].agg(lambda ratio: np.exp(np.log(ratio).mean()))
        times_as_long = ", ".join(f"{short(r)} times ({name})" for name, r in by_name.items())
        yield f"Beside {base}, {run} trains for {times_as_long} as long."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 compared, 2 not run folders."""
    parser = argparse.ArgumentParser(
        prog=program("convae-compare", "analysis.compare"),
        description="Put two or more run folders side by side.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", help="STORAGE/NAME, a path or a URI")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="also write the rows to a file")
    parser.add_argument("--page", metavar="FILE", type=Path, help="also write a page with figures")
    given = parser.parse_args(arguments)
    if not 2 <= len(given.folders) <= len(string.ascii_uppercase):
        parser.error(
            f"{count(len(given.folders), 'run folder')} given; give two to"
            f" {len(string.ascii_uppercase)} of them."
        )
    return run_command(lambda: _compare(given))


def _compare(given: argparse.Namespace) -> int:
    runs = read_runs(given.folders)
    rows = compare(runs)
    said = values(runs, rows, with_figures=given.page is not None)
    book = Book("; ".join(f"{r.label}: {r.manifest['name']}, {devices(r.trials)}" for r in runs))
    first, chapter = book.chapter("compared", **said), book.chapter("comparison", **said)
    book.chapter("runs", runs=runs)
    names = " and ".join(str(run.manifest["name"]) for run in runs)
    basis = [("Measures", provenance.MEASURES)]
    page = book.render("Runs compared", names, first, next(iter(FIGURES)), basis)
    csv = rows.to_csv(index=False)
    for option, file, content in (("--csv", given.csv, csv), ("--page", given.page, page)):
        try:
            if file:
                file.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{file} cannot be written ({error}); give another {option}."
            ) from error
    # Names of folders and trials are texts, never markup.
    console = Console(markup=False, highlight=False, emoji=False)
    show(console, first.html)
    show(console, chapter.html)
    return 0


if __name__ == "__main__":
    sys.exit(main())
