"""Builds tiny synthetic run folders, as the study would write them."""

import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rows import NUMBERS, SIZES, Trial, tables, trial, without_value

from study.folder import schema
from study.plan.study_file import PRESETS
from study.plan.trials import readings_of

REPORT = PRESETS["audit"].paper
MANIFEST = {
    "form": 2,
    "name": "quick-20261123-1",
    "status": "finished",
    "started_utc": "2026-11-23T21:00:00+00:00",
    "finished_utc": "2026-11-23T21:04:00+00:00",
    "wall_seconds": 238.4,
    "command": ["python", "-m", "study.run", "--preset", "quick"],
    "spec": {
        **{"preset": "quick", "epochs": 3, "batch_size": 256, "n_finalists": 0, "question": ""},
        **{"objective": schema.MSE_ALONE, "custom_models": [], "paper": REPORT.to_dict()},
        **{"given_trials": True, "sampler": "tpe", "samplers": []},
    },
    "spaces": [[]],
    "readings": readings_of(PRESETS["audit"]),
    "code": {"version": "0.1.0", "git_commit": "abc123", "git_dirty": False},
    "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
    "hardware": {"cpu": "AMD EPYC", "n_cpus": 2, "memory_gib": 23.4, "gpus": []},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent": 2},
    "data": {
        "name": "MNIST",
        "n_train": 60_000,
        "source": "keras.datasets.mnist",
        "sha256": {"train_images": "0"},
    },
}


def reconstructions(trial_id: str, n_random: int = 4) -> pd.DataFrame:
    """Reconstructions of random test digits, and of the best one."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(n_random + 1):
        image = np.zeros((28, 28))
        image[6:22, 8:20] = rng.integers(0, 256, (16, 12))
        rows.append(
            {
                "trial_id": trial_id,
                "choice": "random" if index < n_random else "best",
                "test_index": 100 + index,
                "label": index,
                "mse": 0.01,
                "original": image.ravel().tolist(),
                "reconstruction": (0.8 * image).ravel().tolist(),
            }
        )
    return pd.DataFrame(rows)


def write_run(folder: Path, *pairs: Trial, shown: Iterable[str] = (), **manifest: Any) -> Path:
    """Writes a run folder of some trials; `shown` are the trials that have reconstructions."""
    folder.mkdir(parents=True, exist_ok=True)
    trials, epochs = tables(*pairs)
    trials.to_parquet(folder / schema.TRIALS_FILE)
    epochs.to_parquet(folder / schema.EPOCHS_FILE)
    (folder / schema.MANIFEST_FILE).write_text(json.dumps(MANIFEST | manifest))
    for trial_id in shown:
        target = folder / schema.RECONSTRUCTIONS_FOLDER / f"{trial_id}.parquet"
        target.parent.mkdir(exist_ok=True)
        reconstructions(trial_id).to_parquet(target)
    return folder


def ending_at(
    conv: list[float], dense: list[float], n_epochs: int = 50, **changes: Any
) -> list[Trial]:
    """Reference trials of the report's two models whose MSE ends at the values, a seed each."""
    return [
        trial(model, seed=seed, mse=np.geomspace(0.06, end, n_epochs), **changes)
        for model, ends in ((schema.CONV, conv), (schema.DENSE, dense))
        for seed, end in enumerate(ends)
    ]


def quick_trials() -> list[Trial]:
    """What the quick preset leaves: two reference trials and a search with every state."""
    search: list[Trial] = []
    states = (schema.COMPLETED, schema.PRUNED, schema.COMPLETED, schema.DIVERGED, schema.FAILED)
    for number, state in enumerate(states):
        for model in schema.MODELS:
            changes: dict[str, Any] = {"group": schema.SEARCH, "learning_rate": 0.5 + number}
            changes["trial_id"] = f"search-{model}-{number}"
            if state == schema.FAILED:
                changes["error"] = "Traceback\nRuntimeError: out of <memory> & more"
            if state != schema.COMPLETED:
                changes = without_value(state, **changes)
            search.append(trial(model, mse=[0.05, 0.03, 0.02 - 0.001 * number], **changes))
    return [trial("conv"), trial("dense"), *search]


def write_quick_run(folder: Path) -> Path:
    """Writes a finished run of 3 epochs and one seed, with a search and reconstructions."""
    shown = ("reference-conv-8-0", "reference-dense-512-0")
    return write_run(folder, *quick_trials(), shown=shown)


def searched(model: str = "conv", number: int = 0, mse: float = 0.02, **changes: Any) -> Trial:
    """A search trial whose validation MSE ends at a value."""
    named = {"trial_id": f"search-{model}-{number}", "group": schema.SEARCH}
    return trial(model, mse=[0.05, mse], **named | changes)


def winner(model: str, seed: int, mse: float, **changes: Any) -> Trial:
    """A winner's trial of a seed whose test MSE ends at a value."""
    return trial(model, seed=seed, mse=[0.05, 0.04, mse], group=schema.WINNER, **changes)


# A setting's effective learning rate at which the synthetic validation MSE is least.
BEST_RATE = 4.0


def search_trials(model: str, n: int, *, prune: bool = True, n_epochs: int = 50) -> list[Trial]:
    """A search around the reference: the effective learning rate matters, and nothing else does.

    The first trial has the reference's setting. High rates diverge; with `prune`, poor trials end
    early with a value that is poorer still.
    """
    rng = np.random.default_rng(n)
    trials = []
    for number in range(n):
        setting: dict[str, Any] = {
            "learning_rate": float(np.exp(rng.uniform(np.log(0.05), np.log(5)))),
            "momentum": float(1 - np.exp(rng.uniform(np.log(0.05), 0))),
            "nesterov": bool(rng.random() < 0.5),
            "batch_size": int(rng.choice([64, 128, 256, 512, 1000])),
        }
        if model == schema.CONV:
            setting["latent_filters"] = int(rng.choice([8, 16]))
        elif model != schema.DENSE:
            depth, filters = int(rng.choice([1, 2, 3])), int(rng.integers(4, 65))
            setting["arguments"] = json.dumps({"depth": depth, "filters": filters})
        else:
            setting["hidden_units"] = int(rng.choice([64, 128, 256, 512]))
            setting["hidden_activation"] = str(rng.choice(["relu", "sigmoid"]))
            setting["dropout"] = float(rng.choice([0.0, 0.1]))
        noise = float(rng.normal())
        if number == 0:
            setting = {}
        rate = setting.get("learning_rate", 1.0) / (1 - setting.get("momentum", 0.5))
        last = NUMBERS[model, SIZES.get(model, 2)][1]
        end = last * float(np.exp(0.35 * abs(np.log(rate / BEST_RATE)) + 0.05 * noise))
        state, epochs = schema.COMPLETED, n_epochs
        if rate > 30:
            state, epochs = schema.DIVERGED, 2
        elif prune and number and end > 1.3 * last:
            state, epochs = schema.PRUNED, max(1, n_epochs // 10)
        changes = {"state": state, "epochs": n_epochs, "trial_id": f"search-{model}-{number:03d}"}
        if state == schema.DIVERGED:
            changes |= without_value(state)
        mse = np.geomspace(0.06, end if state == schema.COMPLETED else 2 * end, epochs)
        trials.append(trial(model, mse=mse, group=schema.SEARCH, **setting | changes))
    return trials


def by_seed(
    group: str,
    model: str,
    settings: Mapping[str, tuple[Mapping[str, Any], Iterable[float | None]]],
    *,
    first: int = 0,
    n_epochs: int = 3,
    lost: str = schema.DIVERGED,
) -> list[Trial]:
    """Trials of a group, a seed each.

    Args:
        group: of all.
        model: the architecture.
        settings: by name what each changes of the reference, and the last MSE of its seeds; None
            ends without one.
        first: the first seed.
        n_epochs: of each.
        lost: the state of a seed without an MSE.
    """
    trials = []
    for name, (change, ends) in settings.items():
        for seed, end in enumerate(ends, first):
            its = {"trial_id": f"{group}-{model}-{name}-s{seed}", **change}
            its |= without_value(lost) if end is None else {}
            mse = np.geomspace(0.06, end or 0.05, n_epochs)
            trials.append(trial(model, seed=seed, mse=mse, group=group, **its))
    return trials


def neighbour_trials(
    model: str,
    ratios: Mapping[str, Mapping[Any, float | None]],
    n_seeds: int = 5,
    **changes: Any,
) -> list[Trial]:
    """The reference and its neighbours on the search's images, each seed 1 % above the one before.

    `ratios` are of the validation MSE to the reference's, by factor and value; None diverges.
    """
    last = [NUMBERS[model, SIZES[model]][1] * 1.01**seed for seed in range(n_seeds)]
    settings = {"reference=": (changes, last)}
    for factor, of in ratios.items():
        for value, ratio in of.items():
            ends = [ratio and ratio * one for one in last]
            settings[f"{factor}={value}"] = ({factor: value} | changes, ends)
    return by_seed(schema.NEIGHBOUR, model, settings, n_epochs=2)


def finalist_trials(
    model: str, settings: Mapping[str, tuple[Mapping[str, Any], list[float | None]]]
) -> list[Trial]:
    """Finalists of a model, with fresh seeds; see `by_seed`."""
    return by_seed(schema.FINALIST, model, settings, first=1000)


def custom_trials(
    model: str,
    factor: str,
    ends: Mapping[Any, list[float | None]],
    n_epochs: int = 3,
    **changes: Any,
) -> list[Trial]:
    """Custom trials: the reference with one factor changed; `ends` by its value; None fails."""
    settings = {f"{factor}={v}": ({factor: v} | changes, its) for v, its in ends.items()}
    return by_seed(schema.CUSTOM, model, settings, n_epochs=n_epochs, lost=schema.FAILED)


# Factors on the last MSE, by model and open value; 1 for what is not named.
REFERENCE_READINGS = ((256, 8), (256, "relu"))
READING_FACTORS: Mapping[str, Mapping[Any, float]] = {
    schema.CONV: {128: 0.8, 1000: 1.6, 16: 0.75},
    schema.DENSE: {128: 0.9, 1000: 1.3, "sigmoid": 2.5},
}


def audit_trials(
    n_seeds: int = 3,
    sizes: Iterable[int] = (256, 512),
    factors: Mapping[str, Mapping[Any, float]] = READING_FACTORS,
    n_epochs: int = 50,
) -> list[Trial]:
    """The report's models under every reading, as preset `audit` trains them.

    Args:
        n_seeds: a seed's MSE differs by a per cent or two from the next one's.
        sizes: of the dense models.
        factors: on the last MSE of `NUMBERS`, as `READING_FACTORS`.
        n_epochs: of every trial.
    """
    trials = []
    for model, size in ((schema.CONV, 8), *((schema.DENSE, size) for size in sizes)):
        name, values = "latent_filters", (8, 16)
        if model == schema.DENSE:
            name, values = "hidden_activation", ("relu", "sigmoid")
        for batch_size, value in product((128, 256, 1000), values):
            its = [factors[model].get(key, 1.0) for key in (batch_size, value)]
            reference = (batch_size, value) in REFERENCE_READINGS
            for seed in range(n_seeds):
                noise = 1 + 0.02 * ((seed * 7 + batch_size + size) % 5 - 2) / 2
                last = NUMBERS[model, size][1] * its[0] * its[1] * noise
                setting: dict[str, Any] = {"batch_size": batch_size, name: value}
                setting["group"] = schema.REFERENCE if reference else schema.READING
                label = f"{model}{size}" if model == schema.DENSE else model
                label = f"{setting['group']}-{label}-batch_size={batch_size}-{name}={value}"
                setting["trial_id"] = f"{label}-s{seed}"
                mse = np.geomspace(0.06, last, n_epochs)
                trials.append(trial(model, size, seed, mse=mse, **setting))
    return trials
