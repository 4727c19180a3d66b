"""Checkpoints of running trials: what a trial needs to go on in another process as if nothing was.

A checkpoint is one `.npz` file without pickle: the training's arrays, and the rest as JSON.
"""

import io
import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from study import schema
from study.space import PlannedTrial
from study.storage import RunFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """A trial's seconds so far, as the tables have them."""

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        mine, yours = asdict(self), asdict(other)
        return Spent(**{name: mine[name] + yours[name] for name in mine})


@dataclass(frozen=True)
class Checkpoint:
    """A trial in the middle.

    Attributes:
        epochs: the rows of all its epochs so far.
        spent: its seconds so far.
        state: `convae.training.Training.get_state`.
    """

    epochs: Sequence[dict[str, Any]]
    spent: Spent
    state: Sequence[np.ndarray]


def _name(planned: PlannedTrial) -> str:
    return f"{schema.CHECKPOINTS_FOLDER}/{planned.trial_id}.npz"


def save_checkpoint(folder: RunFolder, planned: PlannedTrial, checkpoint: Checkpoint) -> None:
    """Writes the trial's checkpoint, in place of an older one.

    Raises:
        StorageError: it cannot be written.
    """
    rest = {
        "trial": planned.config.to_dict(),
        "epochs": list(checkpoint.epochs),
        "spent": asdict(checkpoint.spent),
    }
    content = io.BytesIO()
    np.savez(content, *checkpoint.state, rest=np.array(json.dumps(rest)))
    folder.write(_name(planned), content.getvalue())


def load_checkpoint(folder: RunFolder, planned: PlannedTrial) -> Checkpoint | None:
    """The trial's checkpoint; None if there is none of this very trial.

    A torn one is named in the log, and the trial starts anew.

    Raises:
        StorageError: it cannot be read.
    """
    content = folder.read(_name(planned))
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rest = json.loads(str(arrays["rest"]))
            state = [arrays[f"arr_{i}"] for i in range(len(arrays.files) - 1)]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        _log.warning("%s/%s is torn; the trial starts anew", folder, _name(planned))
        return None
    if rest["trial"] != planned.config.to_dict():
        return None
    return Checkpoint(rest["epochs"], Spent(**rest["spent"]), state)
