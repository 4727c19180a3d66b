"""Names shared by the study, which writes a run folder, and the analysis, which reads it.

Metrics, groups, states, columns and file names are defined here and nowhere else.
Standard library only, so that reading results needs neither Ray nor TensorFlow.
"""

from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["text", "int", "float", "bool"]

SCHEMA_VERSION: Final = 1

# Metrics. All three are mean squared errors over all pixels, in units of (pixel / 255)².
TRAIN_MSE: Final = "train_mse"
VAL_MSE: Final = "val_mse"
TEST_MSE: Final = "test_mse"
METRICS: Final = (TRAIN_MSE, VAL_MSE, TEST_MSE)

# What the search minimises. The direction is stated, never guessed from the name.
OBJECTIVE: Final = VAL_MSE
MODE: Final = "min"
TIME_OBJECTIVE: Final = "train_seconds"  # the second one of MSE_AND_TIME, minimised too
MSE_ALONE: Final = "mse"
MSE_AND_TIME: Final = "mse,time"
OBJECTIVES: Final = (MSE_ALONE, MSE_AND_TIME)

# Why a trial is in the study.
REFERENCE: Final = "reference"
READING: Final = "reading"  # the reference under another reading of what the report leaves open
NEIGHBOUR: Final = "neighbour"
SEARCH: Final = "search"
WINNER: Final = "winner"
GROUPS: Final = (REFERENCE, READING, NEIGHBOUR, SEARCH, WINNER)

# Architectures.
CONV: Final = "conv"
DENSE: Final = "dense"
MODELS: Final = (CONV, DENSE)

# What the report leaves open: the values under which the audit trains, and the models that have it.
OPEN_VALUES: Final = MappingProxyType[str, tuple[int | str, ...]](
    {
        "batch_size": (128, 256, 1000),
        "latent_filters": (8, 16),
        "hidden_activation": ("relu", "sigmoid"),
    }
)
OPEN_VALUE_MODELS: Final = MappingProxyType[str, tuple[str, ...]](
    {"batch_size": MODELS, "latent_filters": (CONV,), "hidden_activation": (DENSE,)}
)

# How a trial ended, or that it has not.
COMPLETED: Final = "completed"  # trained for all its epochs
PRUNED: Final = "pruned"  # stopped early by the scheduler
DIVERGED: Final = "diverged"  # its loss stopped being finite: a result about that setting
FAILED: Final = "failed"  # an error, after all retries
RUNNING: Final = "running"  # not ended: the table was written while the study ran
STATES: Final = (COMPLETED, PRUNED, DIVERGED, FAILED, RUNNING)

# Which images a trial trains on and is judged by (a test holds them to convae.config.SPLITS).
FULL_SPLIT: Final = "full"
SEARCH_SPLIT: Final = "search"

# Files of a run folder, relative to STORAGE/NAME/.
MANIFEST_FILE: Final = "study.json"
TRIALS_FILE: Final = "trials.parquet"
TRIALS_CSV_FILE: Final = "trials.csv"
EPOCHS_FILE: Final = "epochs.parquet"
EPOCHS_CSV_FILE: Final = "epochs.csv"
OPTUNA_FILE: Final = "optuna.db"
MODELS_FOLDER: Final = "models"  # TRIAL_ID.keras
RECONSTRUCTIONS_FOLDER: Final = "reconstructions"  # TRIAL_ID.parquet
CHECKPOINTS_FOLDER: Final = "checkpoints"  # TRIAL_ID.npz, of trials that run
JOURNAL_FOLDER: Final = "journal"  # TRIAL_ID.json, of ended trials that the tables lack yet
REPORT_FOLDER: Final = "report"
LOG_FILE: Final = "study.log"  # what would else flood the terminal, and every traceback

# The fields of convae.config.TrialConfig (a test holds the two together).
CONFIG_COLUMNS: Final = MappingProxyType[str, Kind](
    {
        "model": "text",
        "latent_filters": "int",
        "hidden_units": "int",
        "hidden_activation": "text",
        "dropout": "float",
        "learning_rate": "float",
        "momentum": "float",
        "nesterov": "bool",
        "batch_size": "int",
        "epochs": "int",
        "split": "text",
        "seed": "int",
        "precision": "text",
    }
)
# Columns that run folders of before they existed lack, and what they stand for there.
LATER_COLUMNS: Final = MappingProxyType[str, str]({"precision": "float32"})

# trials.parquet: a row a trial. What was not measured or does not apply is missing, never 0.
TRIAL_COLUMNS: Final = MappingProxyType[str, Kind](
    {
        "trial_id": "text",
        "group": "text",
        **CONFIG_COLUMNS,
        "state": "text",
        "epochs_completed": "int",
        "diverged_epoch": "int",
        "n_parameters": "int",
        TRAIN_MSE: "float",
        VAL_MSE: "float",
        TEST_MSE: "float",
        "best_train_mse": "float",
        "best_train_mse_epoch": "int",
        "best_val_mse": "float",
        "best_val_mse_epoch": "int",
        "best_test_mse": "float",
        "best_test_mse_epoch": "int",
        "train_seconds": "float",
        "eval_seconds": "float",
        "compile_seconds": "float",
        "wall_seconds": "float",
        "device": "text",
        "n_retries": "int",
        "error": "text",
    }
)

# epochs.parquet: a row a trial and epoch, epochs counted from 1.
EPOCH_COLUMNS: Final = MappingProxyType[str, Kind](
    {
        "trial_id": "text",
        "epoch": "int",
        TRAIN_MSE: "float",
        VAL_MSE: "float",
        TEST_MSE: "float",
        "train_seconds": "float",
        "eval_seconds": "float",
    }
)

# reconstructions/TRIAL_ID.parquet: a row a test image shown. `original` and `reconstruction`
# are lists of 28 * 28 pixels in 0..255, row by row; `mse` is in units of (pixel / 255)².
RECONSTRUCTION_COLUMNS: Final = (
    "trial_id",
    "choice",
    "test_index",
    "label",
    "mse",
    "original",
    "reconstruction",
)
# `choice`: why the image is shown.
CHOICES: Final = ("random", "best", "median", "worst")
