"""Checkpoints of running trials: what a trial needs to go on in another process as if nothing was.

A checkpoint is one `.npz` file without pickle: the training's arrays, and the rest as JSON.
"""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from convae.results import EpochResult
from study.folder import schema
from study.folder.storage import RunFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A trial in the middle."""

    epochs: Sequence[EpochResult]  # all so far
    compile_seconds: float  # so far
    wall_seconds: float  # so far
    state: Sequence[np.ndarray]  # of the engine that trained it, to go on from


def checkpoint_name(trial_id: str) -> str:
    """The file of a trial's checkpoint, relative to the run folder."""
    return f"{schema.CHECKPOINTS_FOLDER}/{trial_id}.npz"


def save_checkpoint(
    folder: RunFolder, trial_id: str, setting: Mapping[str, Any], checkpoint: Checkpoint
) -> None:
    """Writes a trial's checkpoint, in place of an older one.

    `setting` is its config, and the like; a checkpoint of another one is not loaded.

    Raises:
        RunFolderError: it cannot be written.
    """
    rest = asdict(replace(checkpoint, state=())) | {"trial": dict(setting)}
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
            rest["state"] = [arrays[f"arr_{i}"] for i in range(len(arrays.files) - 1)]
        rest["epochs"] = [EpochResult(**epoch) for epoch in rest["epochs"]]
        trial = rest.pop("trial")
        checkpoint = Checkpoint(**rest)
    except Exception:  # a damaged zip raises anything from KeyError to zlib.error
        _log.warning("%s/%s is torn; the trial starts anew", folder, checkpoint_name(trial_id))
        return None
    return checkpoint if trial == dict(setting) else None
