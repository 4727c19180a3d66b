"""One builder of a measured trial for all tests: its row of the trials' table, and its epochs."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from convae.config import TrialConfig
from study.folder import schema
from study.plan.labels import architecture_of, label_of

DTYPES = {"text": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
Rows = list[dict[str, Any]]
Trial = tuple[dict[str, Any], Rows]

# First and last MSE and training seconds of an epoch, about those of a real run.
NUMBERS = {
    ("conv", 8): (0.06, 0.009, 7.0),
    ("conv", 16): (0.055, 0.007, 7.5),
    ("dense", 64): (0.05, 0.009, 0.6),
    ("dense", 128): (0.046, 0.0062, 0.9),
    ("dense", 256): (0.043, 0.005, 1.3),
    ("dense", 512): (0.04, 0.0042, 2.0),
    ("unet", 2): (0.05, 0.0036, 9.0),  # a custom model, its size being its depth
    ("unet", 3): (0.05, 0.0030, 12.0),
}
PARAMETERS = {("conv", 8): 4_385, ("dense", 512): 804_112}
SIZES = {schema.CONV: 8, schema.DENSE: 512}  # of the reference; 2 of a custom model
REFERENCE_SIZES = (64, 128, 256, 512)  # of the dense references of the study
ON_SEARCH_SPLIT = (schema.SEARCH, schema.NEIGHBOUR, schema.FINALIST)


def config_of(model: str, size: int | None = None, **values: Any) -> TrialConfig:
    """A trial of a model of this size, and of values that the reference does not have."""
    size = SIZES.get(model, 2) if size is None else size
    named: dict[str, Any] = {"arguments": json.dumps({"depth": size, "filters": 8})}
    if model in schema.MODELS:
        named = {"latent_filters" if model == schema.CONV else "hidden_units": size}
    return TrialConfig(model=model, **named | values)


def setting_of(config: TrialConfig, group: str, batch_size: int = 256) -> dict[str, str]:
    """The columns `setting` and `base` of a trial, in a study with this reference batch size."""
    reference = config_of(config.model, batch_size=batch_size)
    label, base = label_of(config, reference), label_of(reference, reference)
    if group == schema.REFERENCE:
        base = "dense-512"
    elif group in (schema.READING, schema.CUSTOM) and config.hidden_units in REFERENCE_SIZES:
        size = architecture_of(config)
        base = base if size == label else size
    return {"setting": label, "base": "" if label == base else base}


def trial(
    model: str = "conv",
    size: int | None = None,
    seed: int = 0,
    n_epochs: int = 3,
    mse: Iterable[float] | None = None,
    reference_batch_size: int = 256,
    **changes: Any,
) -> Trial:
    """A completed reference trial and its epochs; `changes` go into the trial's row."""
    setting = {name: changes.pop(name) for name in schema.CONFIG_COLUMNS if name in changes}
    group = changes.get("group", schema.REFERENCE)
    default = schema.SEARCH_SPLIT if group in ON_SEARCH_SPLIT else schema.FULL_SPLIT
    config = config_of(model, size, **{"split": default, "seed": seed} | setting)
    size = config.hidden_units or config.latent_filters or config.keywords["depth"]
    first, last, seconds = NUMBERS.get((model, size), NUMBERS["unet", 2])
    if mse is None:
        progress = np.linspace(0, 1, n_epochs) ** 0.35
        mse = first * (last / first) ** progress * (1 + 0.01 * seed)
    trial_id = changes.pop("trial_id", f"{group}-{model}-{size}-{seed}")
    metric = schema.VAL_MSE if config.split == schema.SEARCH_SPLIT else schema.TEST_MSE
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
    row = {
        "trial_id": trial_id,
        "group": group,
        **setting_of(config, group, reference_batch_size),
        **config.to_dict(),
        "epochs": setting.get("epochs", len(history)),
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


def without_value(state: str, **changes: Any) -> dict[str, Any]:
    """What a row says of a trial that ended without one: `changes` of `trial`."""
    more: dict[str, dict[str, Any]] = {
        schema.DIVERGED: {
            "diverged_epoch": 2,
            "error": "The loss stopped being finite in epoch 2.",
        },
        schema.FAILED: {"error": "no memory"},
    }
    none = {schema.VAL_MSE: None, schema.TEST_MSE: None}
    return {"state": state, **none, **more.get(state, {}), **changes}


def tables(*pairs: Trial) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of some trials, as `analysis.load.load_run` returns them."""
    return (
        _frame([row for row, _ in pairs], schema.TRIAL_COLUMNS),
        _frame([epoch for _, history in pairs for epoch in history], schema.EPOCH_COLUMNS),
    )


def _frame(rows: Rows, columns: Mapping[str, schema.Kind]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({column: DTYPES[kind] for column, kind in columns.items()})
