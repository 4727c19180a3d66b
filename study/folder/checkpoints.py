"""Checkpoints of running trials: what a trial needs to go on in another process as if nothing was.

A checkpoint is one `.npz` file without pickle: the training's arrays, and the rest as JSON.
"""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from study.folder import schema
from study.folder.storage import RunFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """A trial's seconds so far, as the tables have them.

    Attributes:
        shared_seconds: of training, each times the trials that were at work on the device.
    """

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    shared_seconds: float = 0.0

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


def checkpoint_name(trial_id: str) -> str:
    """The file of a trial's checkpoint, relative to the run folder."""
    return f"{schema.CHECKPOINTS_FOLDER}/{trial_id}.npz"


def save_checkpoint(
    folder: RunFolder, trial_id: str, setting: Mapping[str, Any], checkpoint: Checkpoint
) -> None:
    """Writes a trial's checkpoint, in place of an older one.

    Args:
        folder: the run folder.
        trial_id: whose.
        setting: its config; a checkpoint of another one is not loaded.
        checkpoint: its state.

    Raises:
        RunFolderError: it cannot be written.
    """
    rest = {
        "trial": dict(setting),
        "epochs": list(checkpoint.epochs),
        "spent": asdict(checkpoint.spent),
    }
    content = io.BytesIO()
    np.savez(content, *checkpoint.state, rest=np.array(json.dumps(rest)))
    folder.write(checkpoint_name(trial_id), content.getvalue())


def load_checkpoint(
    folder: RunFolder, trial_id: str, setting: Mapping[str, Any]
) -> Checkpoint | None:
    """A trial's checkpoint; None if there is none of this very setting.

    A torn one is named in the log, and the trial starts anew.

    Raises:
        RunFolderError: it cannot be read.
    """
    content = folder.read(checkpoint_name(trial_id))
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rest = json.loads(str(arrays["rest"]))
            state = [arrays[f"arr_{i}"] for i in range(len(arrays.files) - 1)]
        checkpoint = Checkpoint(rest["epochs"], Spent(**rest["spent"]), state)
    except Exception:  # a damaged zip raises anything from KeyError to zlib.error
        _log.warning("%s/%s is torn; the trial starts anew", folder, checkpoint_name(trial_id))
        return None
    return checkpoint if rest["trial"] == dict(setting) else None
