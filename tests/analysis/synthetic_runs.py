"""Builds tiny synthetic run folders, as the study would write them."""

import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from study.folder import schema

DTYPES = {"text": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
Rows = list[dict[str, Any]]

# First and last MSE and training seconds of an epoch, about those of a real run.
NUMBERS = {
    ("conv", 8): (0.06, 0.009, 7.0),
    ("conv", 16): (0.055, 0.007, 7.5),
    ("dense", 64): (0.05, 0.009, 0.6),
    ("dense", 128): (0.046, 0.0062, 0.9),
    ("dense", 256): (0.043, 0.005, 1.3),
    ("dense", 512): (0.04, 0.0042, 2.0),
    ("unet", 2): (0.05, 0.0036, 9.0),  # a person's own, its size being its depth
    ("unet", 3): (0.05, 0.0030, 12.0),
}
PARAMETERS = {("conv", 8): 4_385, ("dense", 512): 804_112}

MANIFEST = {
    "form": 2,
    "name": "quick-20261123-1",
    "status": "finished",
    "started_utc": "2026-11-23T21:00:00+00:00",
    "finished_utc": "2026-11-23T21:04:00+00:00",
    "wall_seconds": 238.4,
    "command": ["python", "-m", "study.run", "--preset", "quick"],
    "spec": {"preset": "quick", "epochs": 3},
    "code": {"version": "0.1.0", "git_commit": "abc123", "git_dirty": False},
    "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
    "hardware": {"cpu": "AMD EPYC", "n_cpus": 2, "memory_gib": 23.4, "gpus": []},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent": 2},
    "data": {"source": "keras.datasets.mnist", "sha256": {"train_images": "0"}},
}


def trial(
    model: str = "conv",
    size: int = 8,
    seed: int = 0,
    n_epochs: int = 3,
    mse: Iterable[float] | None = None,
    **changes: Any,
) -> tuple[dict[str, Any], Rows]:
    """A completed reference trial and its epochs; `changes` go into the trial's row."""
    first, last, seconds = NUMBERS.get((model, size), NUMBERS["unet", 2])
    if mse is None:
        progress = np.linspace(0, 1, n_epochs) ** 0.35
        mse = first * (last / first) ** progress * (1 + 0.01 * seed)
    group = changes.get("group", schema.REFERENCE)
    trial_id = changes.pop("trial_id", f"{group}-{model}-{size}-{seed}")
    on_search = group in (schema.SEARCH, schema.NEIGHBOUR, schema.FINALIST)
    searched = changes.get("split", schema.SEARCH_SPLIT if on_search else "") == schema.SEARCH_SPLIT
    metric = schema.VAL_MSE if searched else schema.TEST_MSE
    history: Rows = [
        {
            "trial_id": trial_id,
            "epoch": epoch,
            schema.TRAIN_MSE: 1.02 * value,
            metric: value,
            "train_seconds": seconds * (1 + 0.01 * seed),
            "eval_seconds": 0.2,
        }
        for epoch, value in enumerate(mse, start=1)
    ]
    dense = model == "dense"
    custom = model not in schema.MODELS
    row = {
        "trial_id": trial_id,
        "group": group,
        "model": model,
        "latent_filters": size if model == "conv" else None,
        "hidden_units": size if dense else None,
        "hidden_activation": "relu" if dense else None,
        "dropout": 0.0 if dense else None,
        "arguments": json.dumps({"depth": size, "filters": 8}) if custom else None,
        "learning_rate": 1.0,
        "momentum": 0.5,
        "nesterov": True,
        "batch_size": 256,
        "epochs": len(history),
        "split": schema.SEARCH_SPLIT if searched else schema.FULL_SPLIT,
        "seed": seed,
        "state": schema.COMPLETED,
        "epochs_completed": len(history),
        "n_parameters": PARAMETERS.get((model, size), 1000 * size),
        schema.TRAIN_MSE: history[-1][schema.TRAIN_MSE],
        metric: history[-1][metric],
        "train_seconds": sum(epoch["train_seconds"] for epoch in history),
        "eval_seconds": 0.2 * len(history),
        "compile_seconds": 1.0,
        "wall_seconds": 60.0,
        "n_sharing": None,
        "device": "CPU, 1 thread: AMD EPYC",
        "n_retries": 0,
    }
    return row | changes, history


def tables(*pairs: tuple[dict[str, Any], Rows]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of some trials, as `load_run` returns them."""
    return (
        _frame([row for row, _ in pairs], schema.TRIAL_COLUMNS),
        _frame([epoch for _, history in pairs for epoch in history], schema.EPOCH_COLUMNS),
    )


def _frame(rows: Rows, columns: Mapping[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({column: DTYPES[kind] for column, kind in columns.items()})


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


def write_run(
    folder: Path,
    *pairs: tuple[dict[str, Any], Rows],
    shown: Iterable[str] = (),
    **manifest: Any,
) -> Path:
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


def run_of(
    conv_mse: list[float], dense_mse: list[float], n_epochs: int = 50, **changes: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run whose test MSE ends at the given values, a seed each."""
    return tables(
        *(
            trial("conv", 8, seed, mse=np.geomspace(0.06, end, n_epochs), **changes)
            for seed, end in enumerate(conv_mse)
        ),
        *(
            trial("dense", 512, seed, mse=np.geomspace(0.05, end, n_epochs), **changes)
            for seed, end in enumerate(dense_mse)
        ),
    )


def quick_trials() -> list[tuple[dict[str, Any], Rows]]:
    """What the quick preset leaves: two reference trials and a search with every state."""
    search: list[tuple[dict[str, Any], Rows]] = []
    for number, state in enumerate(
        (schema.COMPLETED, schema.PRUNED, schema.COMPLETED, schema.DIVERGED, schema.FAILED)
    ):
        for model, size in (("conv", 8), ("dense", 512)):
            ended = state == schema.COMPLETED
            changes: dict[str, Any] = {
                "group": schema.SEARCH,
                "trial_id": f"search-{model}-{number}",
                "state": state,
                "learning_rate": 0.5 + number,
            }
            if not ended:
                changes[schema.VAL_MSE] = None
            if state == schema.DIVERGED:
                changes["diverged_epoch"] = 2
            if state == schema.FAILED:
                changes["error"] = "Traceback\nRuntimeError: out of <memory> & more"
            mse = [0.05, 0.03, 0.02 - 0.001 * number]
            search.append(trial(model, size, mse=mse, **changes))
    return [trial("conv", 8), trial("dense", 512), *search]


def write_quick_run(folder: Path) -> Path:
    """Writes a finished run of 3 epochs and one seed, with a search and reconstructions."""
    shown = ("reference-conv-8-0", "reference-dense-512-0")
    return write_run(folder, *quick_trials(), shown=shown)


# A setting's effective learning rate at which the synthetic validation MSE is least, by size.
BEST_RATE = 4.0


def search_trials(
    model: str, n: int, *, prune: bool = True, n_epochs: int = 50
) -> list[tuple[dict[str, Any], Rows]]:
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
        size = {schema.CONV: 8, schema.DENSE: 512}.get(model, 2)
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
        last = NUMBERS[model, size][1]
        end = last * float(np.exp(0.35 * abs(np.log(rate / BEST_RATE)) + 0.05 * noise))
        state, epochs = schema.COMPLETED, n_epochs
        if rate > 30:
            state, epochs = schema.DIVERGED, 2
        elif prune and number and end > 1.3 * last:
            state, epochs = schema.PRUNED, max(1, n_epochs // 10)
        changes = setting | {
            "group": schema.SEARCH,
            "trial_id": f"search-{model}-{number:03d}",
            "state": state,
        }
        if state == schema.DIVERGED:
            changes |= {schema.VAL_MSE: None, "diverged_epoch": epochs}
        stopped = end if state == schema.COMPLETED else 2 * end
        mse = np.geomspace(0.06, stopped, epochs)
        row, history = trial(model, size, mse=mse, **changes)
        trials.append((row | {"epochs": n_epochs}, history))
    return trials


def neighbour_trials(
    model: str, ratios: Mapping[str, Mapping[Any, float | None]], n_seeds: int = 5
) -> list[tuple[dict[str, Any], Rows]]:
    """The reference and its neighbours on the search's images, a few seeds each.

    Args:
        model: the architecture.
        ratios: of the validation MSE to the reference's, by factor and value; None diverges.
        n_seeds: each seed's reference is 1 % above the one before.
    """
    size = 8 if model == schema.CONV else 512
    last = NUMBERS[model, size][1]
    changed = [("reference", {}, 1.0)] + [
        (f"{factor}={value}", {factor: value}, ratio)
        for factor, values in ratios.items()
        for value, ratio in values.items()
    ]
    trials = []
    for label, change, ratio in changed:
        for seed in range(n_seeds):
            state = schema.DIVERGED if ratio is None else schema.COMPLETED
            changes: dict[str, Any] = change | {"group": schema.NEIGHBOUR, "state": state}
            if ratio is None:
                changes[schema.VAL_MSE] = None
            mse = [0.06, last * (ratio or 1.0) * 1.01**seed]
            trial_id = f"neighbour-{model}-{label}-s{seed}"
            trials.append(trial(model, size, seed, mse=mse, trial_id=trial_id, **changes))
    return trials


def finalist_trials(
    model: str, settings: Mapping[str, tuple[Mapping[str, Any], list[float | None]]]
) -> list[tuple[dict[str, Any], Rows]]:
    """Finalists of a model, by what their names hold: a search trial's number, or "reference".

    Args:
        model: the architecture.
        settings: what each changes of the reference, and the validation MSE of the seeds from 1000
            up; None diverges.
    """
    size = {schema.CONV: 8, schema.DENSE: 512}.get(model, 2)
    trials = []
    for name, (change, ends) in settings.items():
        for seed, end in enumerate(ends, start=1000):
            changes = {
                **change,
                "group": schema.FINALIST,
                "trial_id": f"finalist-{model}-{name}-s{seed}",
                "state": schema.DIVERGED if end is None else schema.COMPLETED,
            }
            if end is None:
                changes |= {schema.VAL_MSE: None, "diverged_epoch": 2}
            trials.append(trial(model, size, seed, mse=[0.06, 0.03, end or 0.05], **changes))
    return trials


def custom_trials(
    model: str,
    factor: str,
    ends: Mapping[Any, list[float | None]],
    n_epochs: int = 3,
    **changes: Any,
) -> list[tuple[dict[str, Any], Rows]]:
    """Trials that a person asked for: the reference with one factor changed, a seed each from 0.

    Args:
        model: the architecture.
        factor: a column of the setting.
        ends: the last MSE of the seeds, by the factor's value; None fails.
        n_epochs: of each.
        changes: in all rows.
    """
    size = {schema.CONV: 8, schema.DENSE: 512}.get(model, 2)
    trials = []
    for value, by_seed in ends.items():
        for seed, end in enumerate(by_seed):
            its = {
                factor: value,
                "group": schema.CUSTOM,
                "trial_id": f"custom-{model}-{factor}={value}-s{seed}",
                "state": schema.FAILED if end is None else schema.COMPLETED,
            }
            if end is None:
                its |= {schema.TEST_MSE: None, schema.VAL_MSE: None, "error": "no memory"}
            mse = np.geomspace(0.06, end or 0.05, n_epochs)
            trials.append(trial(model, size, seed, mse=mse, **its | changes))
    return trials


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
) -> list[tuple[dict[str, Any], Rows]]:
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
            group = (
                schema.REFERENCE if (batch_size, value) in REFERENCE_READINGS else schema.READING
            )
            for seed in range(n_seeds):
                noise = 1 + 0.02 * ((seed * 7 + batch_size + size) % 5 - 2) / 2
                last = NUMBERS[model, size][1] * its[0] * its[1] * noise
                label = f"{model}{size}" if model == schema.DENSE else model
                trial_id = f"{group}-{label}-batch_size={batch_size}-{name}={value}-s{seed}"
                setting = {"batch_size": batch_size, name: value, "group": group}
                mse = np.geomspace(0.06, last, n_epochs)
                trials.append(trial(model, size, seed, mse=mse, trial_id=trial_id, **setting))
    return trials
