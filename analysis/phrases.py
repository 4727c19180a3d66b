"""Numbers and settings as phrases, for tables, notes and the templates, which have all as filters.

What is not known is said in words or shown as –, never as a number.
"""

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from convae.hardware import home_folder
from study.folder import schema

if TYPE_CHECKING:
    from analysis.load import Run
    from analysis.settings import Chance, Estimate, Setting
    from study.folder.paper import Paper

NO_VALUE: Final = "–"
OPTIMIZER: Final = ("learning_rate", "momentum", "nesterov")  # what all models have of theirs
MNIST: Final = "MNIST"  # the images of a study that names no others
METRIC_WORDS: Final = {
    schema.TRAIN_MSE: "training MSE",
    schema.VAL_MSE: "validation MSE",
    schema.TEST_MSE: "test MSE",
    schema.SECONDS: "training time",
}
# Where home folders lie on Linux, macOS and Windows.
_HOMES: Final = re.compile(r"(?<![\w.~/-])(/home/[^/\s]+|/Users/[^/\s]+|/(?:var/)?root)(?=/|$)")
_WINDOWS_HOMES: Final = re.compile(r"\b[A-Za-z]:\\\\?Users\\\\?[^\\\s]+")


# Numbers


def count(n: int, noun: str) -> str:
    """A number of things: "1 epoch", "1,000 epochs"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def ordinal(n: int) -> str:
    """A place: "1st", "2nd", "11th"."""
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def digits(value: float | None, significant: int = 3) -> str:
    """Three significant digits, or as many as asked for, plain."""
    if value is None or math.isnan(value):
        return NO_VALUE
    return f"{value:.{_decimals(value, significant)}f}"


def short(value: float) -> str:
    """Two significant digits, for a sentence."""
    return digits(value, 2)


def _decimals(value: float, significant: int = 3) -> int:
    """The decimals that show this many significant digits."""
    return max(0, significant - 1 - math.floor(math.log10(abs(value)))) if value else 2


def share(value: float) -> str:
    """A relative size in per cent, small ones with a decimal."""
    return f"{100 * value:.{0 if value >= 0.0995 else 1}f} %"


def duration(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds."""
    if seconds is None:
        return "not recorded"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


# Estimates


def mean_and_sd(estimate: "Estimate | None") -> str:
    """Mean ± sample standard deviation; the mean alone for one seed."""
    if estimate is None:
        return NO_VALUE
    if not estimate.sd:
        return digits(estimate.mean)
    # A spread that is much smaller than the mean is still shown to one digit.
    decimals = max(_decimals(estimate.mean), -math.floor(math.log10(estimate.sd)))
    return f"{estimate.mean:.{decimals}f} ± {estimate.sd:.{decimals}f}"


def ends(estimate: "Estimate") -> str:
    """The ends of an interval of errors, times or ratios, none of which is below 0."""
    return f"{digits(max(0.0, estimate.lowest))} to {digits(estimate.highest)}"


def interval(estimate: "Estimate | None") -> str:
    """The mean with its 95 % interval and n."""
    if estimate is None:
        return NO_VALUE
    if estimate.low is None:
        return f"{digits(estimate.mean)} (n = {estimate.n}, no interval)"
    return f"{digits(estimate.mean)} (95 % interval {ends(estimate)}, n = {estimate.n})"


def short_interval(estimate: "Estimate | None") -> str:
    """The mean with its 95 % interval and n, as short as a wide table needs it."""
    if estimate is None or estimate.low is None:
        return interval(estimate)
    return f"{digits(estimate.mean)} ({ends(estimate)}), n = {estimate.n}"


def seeds(numbers: Iterable[int]) -> str:
    """How many seeds several estimates have: "n = 3 seeds", "n = 1 to 3 seeds"."""
    found = sorted(set(map(int, numbers)))
    if len(found) == 1:
        return f"n = {count(found[0], 'seed')}"
    return f"n = {found[0]} to {found[-1]} seeds"


def chance(estimate: "Estimate") -> str:
    """What an answer rests on: its seeds, and what their spread says."""
    if estimate.low is None:
        return "One seed: no interval, so it may be chance."
    return (
        f"{count(estimate.n, 'seed')}; the interval is over the chance in weights and order, ± is"
        " the standard deviation."
    )


def odds(found: "Chance | None", what: str = "") -> str:
    """A chance by its exact 95 % interval, and how often it was so: "0 to 71 % (0 of 3 pairs)"."""
    if found is None:
        return NO_VALUE
    low, high = (share(end).removesuffix(" %") for end in found.ends)
    times = f"{found.n_times} of {found.n} {what}".strip()
    return f"{low.removesuffix('.0')} to {high} % ({times})"


# Settings


def label_of(name: str) -> str:
    """A hyperparameter, argument or column for people: "Learning rate", "1 − momentum"."""
    return name.replace("one_minus_", "1 − ").replace("_", " ").capitalize()


def value_words(value: Any) -> str:
    """A value of a setting in three digits: "0.5", "64", "yes"; – for a missing one."""
    if pd.isna(value):
        return NO_VALUE
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def values_words(values: Mapping[str, Any]) -> str:
    """Some of a setting: "learning rate 0.5, nesterov yes"."""
    return ", ".join(f"{label_of(name).lower()} {value_words(v)}" for name, v in values.items())


def values_of(column: pd.Series) -> str:
    """A column's values, each once: "64 or 256"."""
    values = sorted(column.dropna().unique())
    return " or ".join(f"{v:g}" if isinstance(v, float) else value_words(v) for v in values)


def metric_words(metric: str) -> str:
    """What is measured, in words: "test MSE", "training time"."""
    return METRIC_WORDS.get(metric, label_of(metric).lower())


def open_label(name: str) -> str:
    """What a paper leaves open, in words: "batch size", "dense hidden activation"."""
    known = schema.BY_NAME.get(name)
    whose = f"{schema.DENSE} " if known and known.models == (schema.DENSE,) else ""
    return whose + label_of(name).lower()


def reading_words(reading: Mapping[str, Any]) -> str:
    """A reading of what a paper leaves open: "batch size 256, latent filters 8"."""
    return ", ".join(f"{open_label(name)} {value}" for name, value in reading.items())


def open_names(paper: "Paper | None") -> list[str]:
    """What a paper leaves open, by name; without one, what is neither size nor optimiser."""
    if paper is not None:
        names = {name for one in paper.open for name, _ in one.values}
    else:
        names = set(schema.BY_NAME) - {"hidden_units", *OPTIMIZER}
    return [p.name for p in schema.HYPERPARAMETERS if p.name in names]


def open_values(trials: pd.DataFrame, paper: "Paper | None") -> str:
    """The values of what the paper leaves open that these trials have."""
    parts = [
        f"{open_label(name)} {values}"
        for name in open_names(paper)
        if (values := values_of(trials[name]))
    ]
    assumed = paper.assumptions if paper else ()
    parts += [o.short for o in assumed if o.model in ("", *trials["model"].unique())]
    return ", ".join(filter(None, parts))


def state_words(state: str) -> str:
    """A state for people: "not ended" for a trial that runs."""
    return "not ended" if state == schema.RUNNING else state


def lost_words(setting: "Setting") -> str:
    """The seeds that did not complete or collapsed: "seed 2 diverged"; "" for none."""
    found = [f"seed {seed} {state}" for seed, state in setting.lost.items()]
    by_seed = setting.by_seed()
    found += [f"seed {seed} collapsed ({digits(by_seed[seed])})" for seed in setting.collapsed]
    if setting.collapsed:
        found.append(f"mean of the others {mean_and_sd(setting.mean_of_others)}")
    return ", ".join([*found, *(f"seed {seed} not ended" for seed in setting.running)])


# A run


def devices(trials: pd.DataFrame) -> str:
    """The devices that the trials ran on."""
    return " and ".join(sorted(trials["device"].dropna().unique())) or "device not recorded"


def tensorflow(manifest: Mapping[str, Any]) -> str:
    """TensorFlow and its version."""
    return f"TensorFlow {manifest['versions'].get('tensorflow', 'of unknown version')}"


def image_set(manifest: Mapping[str, Any]) -> str:
    """What images were trained on."""
    return str(manifest["data"].get("name") or MNIST)


def custom_question(manifest: Mapping[str, Any]) -> str:
    """What a study's author asks; "" for the paper's question."""
    return str(manifest["spec"].get("question") or "")


def rests_on(run: "Run", trials: pd.DataFrame | None = None) -> str:
    """What holds for a run's numbers: devices, TensorFlow, and the readings of some trials.

    These are by default those of the reference, or all without one.
    """
    if trials is None:
        trials = run.reference_trials if run.reference else run.trials
    read = f" Readings: {open_values(trials, run.paper)}." if len(trials) else ""
    images = image_set(run.manifest)
    of_images = "" if images == MNIST else f"{images}; "
    return f"{of_images}{devices(run.trials)}; {tensorflow(run.manifest)}.{read}"


# Texts


def listed(words: Iterable[str]) -> str:
    """Some words in a row: "conv", "conv and dense", "conv, dense and unet"; "" for none."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def decisions(manifest: Mapping[str, Any], group: str) -> list[str]:
    """How far the comparisons of a group are that seeds were added to until they are decided."""
    its = manifest.get("until_decided") or {"comparisons": []}
    found = []
    for one in its["comparisons"]:
        verdict = "decided" if one["decided"] else "not decided"
        p = "" if one["p"] is None else f", p = {digits(one['p'], 2)}"
        if one["group"] == group:
            n = count(one["n"], "seed")
            found.append(f"{one['setting']} beside {one['base']}: {verdict} after {n}{p}")
    return found


def sentence_case(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def without_home(text: str) -> str:
    """A text with ~ for home folders, which hold a person's name."""
    home = str(home_folder())
    if len(home) > 1:
        text = re.sub(rf"(?<![\w.~/-]){re.escape(home)}(?=/|\\|$)", "~", text)
    return _WINDOWS_HOMES.sub("~", _HOMES.sub("~", text))


def shell_line(command: Iterable[str]) -> str:
    """A command as a shell takes it, without the name of a home folder."""
    return " ".join(map(_shell_word, command))


def _shell_word(argument: str) -> str:
    before, home, after = without_home(argument).partition("~/")
    if not home or home in argument:
        return shlex.quote(argument)
    # A shell takes ~ for the home folder at the start of a word only, and never inside quotes.
    return (f'{shlex.quote(before)}"$HOME"/' if before else home) + shlex.quote(after)


# What the templates may call: every phrase above.
PHRASES: Final = {
    name: function
    for name, function in globals().items()
    if isfunction(function) and not name.startswith("_")
}
