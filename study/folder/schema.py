"""Names shared by the study, which writes a run folder, and the analysis, which reads it.

Groups, states, columns and file names are defined here and nowhere else; what concerns a trial's
setting, and what it is judged by, derives from `convae.config`. The standard library is enough to
import it.
"""

from types import MappingProxyType
from typing import Final

from convae.config import BY_NAME as BY_NAME
from convae.config import CONV as CONV
from convae.config import DENSE as DENSE
from convae.config import EVAL_METRICS as EVAL_METRICS
from convae.config import FIELD_KINDS
from convae.config import FULL_SPLIT as FULL_SPLIT
from convae.config import HYPERPARAMETERS as HYPERPARAMETERS
from convae.config import IMAGE_SHAPE as IMAGE_SHAPE
from convae.config import MODELS as MODELS
from convae.config import SEARCH_SPLIT as SEARCH_SPLIT
from convae.config import Hyperparameter as Hyperparameter
from convae.config import Kind as Kind
from convae.config import Range as Range
from convae.config import hyperparameters_of as hyperparameters_of

FORM: Final = 2  # of a run folder, in its manifest
COMMIT_OF_FORM_1: Final = "fb18ede"  # the last one that reads the older form

# Metrics. All three are mean squared errors over all pixels, in units of (pixel / 255)².
TRAIN_MSE: Final = "train_mse"
VAL_MSE: Final = EVAL_METRICS[SEARCH_SPLIT]
TEST_MSE: Final = EVAL_METRICS[FULL_SPLIT]
METRICS: Final = (TRAIN_MSE, VAL_MSE, TEST_MSE)

# What the search minimises. The direction is stated, never guessed from the name.
OBJECTIVE: Final = VAL_MSE
MODE: Final = "min"
SECONDS: Final = "train_seconds"  # also the second objective of MSE_AND_TIME, minimised too
MSE_ALONE: Final = "mse"
MSE_AND_TIME: Final = "mse,time"
OBJECTIVES: Final = (MSE_ALONE, MSE_AND_TIME)

# Why a trial is in the study.
REFERENCE: Final = "reference"
READING: Final = "reading"  # the reference under another reading of what a paper leaves open
CUSTOM: Final = "custom"  # fixed trials that the person who made the study asked for
NEIGHBOUR: Final = "neighbour"
SEARCH: Final = "search"
FINALIST: Final = "finalist"  # the search's best settings with fresh seeds: the winner is of them
WINNER: Final = "winner"
GROUPS: Final = (REFERENCE, READING, CUSTOM, NEIGHBOUR, SEARCH, FINALIST, WINNER)

# How a trial ended, or that it has not.
COMPLETED: Final = "completed"  # trained for all its epochs
PRUNED: Final = "pruned"  # stopped early by the scheduler
DIVERGED: Final = "diverged"  # its loss stopped being finite: a result about that setting
FAILED: Final = "failed"  # an error, after all retries
RUNNING: Final = "running"  # not ended: the table was written while the study ran
STATES: Final = (COMPLETED, PRUNED, DIVERGED, FAILED, RUNNING)

# Files of a run folder, relative to STORAGE/NAME/.
MANIFEST_FILE: Final = "study.json"
LOCK_FILE: Final = "driver.json"  # the lease of the driver at work
OS_LOCK_FILE: Final = ".driver.lock"  # what the operating system locks, on a disk
TRIALS_FILE: Final = "trials.parquet"
TRIALS_CSV_FILE: Final = "trials.csv"
EPOCHS_FILE: Final = "epochs.parquet"
EPOCHS_CSV_FILE: Final = "epochs.csv"
OPTUNA_FILE: Final = "optuna.db"
MODELS_FOLDER: Final = "models"  # TRIAL_ID.keras
RECONSTRUCTIONS_FOLDER: Final = "reconstructions"  # TRIAL_ID.parquet
CHECKPOINTS_FOLDER: Final = "checkpoints"  # TRIAL_ID.npz, of trials that run
JOURNAL_FOLDER: Final = "journal"  # NUMBER.json, what the tables lack yet
REPORT_FOLDER: Final = "report"
LOG_FILE: Final = "study.log"  # what would else flood the terminal, and every traceback

# A trial's setting: the fields of convae.config.TrialConfig.
CONFIG_COLUMNS: Final = FIELD_KINDS

_BEST: dict[str, Kind] = {}  # of each metric, and the epoch that had it
for _metric in METRICS:
    _BEST |= {f"best_{_metric}": "float", f"best_{_metric}_epoch": "int"}
# trials.parquet: a row a trial. What was not measured or does not apply is missing, never 0.
TRIAL_COLUMNS: Final = MappingProxyType[str, Kind](
    {
        "trial_id": "text",
        "group": "text",
        "setting": "text",  # its label, see study.plan.labels: the same in every group
        "base": "text",  # the label of the setting that it is judged beside; empty for none
        **CONFIG_COLUMNS,
        "state": "text",
        "epochs_completed": "int",
        "diverged_epoch": "int",
        "n_parameters": "int",
        **dict.fromkeys(METRICS, "float"),
        **_BEST,
        SECONDS: "float",
        "eval_seconds": "float",
        "compile_seconds": "float",
        "wall_seconds": "float",
        "n_sharing": "float",
        "device": "text",
        "n_retries": "int",
        "error": "text",
    }
)

# Of these, what a trial says of itself as a whole each time that it tells of epochs.
TOTALS: Final = (
    *("diverged_epoch", "n_parameters", "train_seconds", "eval_seconds"),
    *("compile_seconds", "wall_seconds", "n_sharing", "device"),
)

# epochs.parquet: a row a trial and epoch, epochs counted from 1.
EPOCH_COLUMNS: Final = MappingProxyType[str, Kind](
    {
        "trial_id": "text",
        "epoch": "int",
        **dict.fromkeys(METRICS, "float"),
        SECONDS: "float",
        "eval_seconds": "float",
    }
)

# reconstructions/TRIAL_ID.parquet: a row a test image shown. `original` and `reconstruction`
# are lists of 28 * 28 pixels in 0..255, row by row; `mse` is in units of (pixel / 255)².
RECONSTRUCTION_COLUMNS: Final = (
    *("trial_id", "choice", "test_index", "label", "mse", "original", "reconstruction"),
)
# `choice`: why the image is shown.
CHOICES: Final = ("random", "best", "median", "worst")
