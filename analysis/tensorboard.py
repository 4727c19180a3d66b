"""A run folder's epochs as TensorBoard logs, while the study runs or afterwards.

    python -m analysis.tensorboard results/NAME logs
    tensorboard --logdir logs

A folder of logs a trial; what it held of earlier calls is replaced.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from analysis.load import load_run
from convae.errors import UserError, run_command
from study.folder import schema

EVENT_FILES = "events.out.tfevents.*"


def write_logs(run: str, logs: Path) -> int:
    """Writes `logs/TRIAL_ID/` for each trial with an epoch; returns how many.

    Raises:
        RunFolderError: the run folder cannot be read.
        OSError: the logs cannot be written.
    """
    _, epochs = load_run(run)
    n_trials = 0
    for trial_id, history in epochs.groupby("trial_id"):
        folder = logs / str(trial_id)
        for old in folder.glob(EVENT_FILES):
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            for name in schema.METRICS:
                # An epoch that was not evaluated has no point.
                for epoch, value in history[["epoch", name]].dropna().itertuples(index=False):
                    writer.add_scalar(name, float(value), int(epoch))
        n_trials += 1
    return n_trials


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 written, 2 bad request."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.tensorboard", description="Write a run as TensorBoard logs."
    )
    parser.add_argument("run", help="a run folder, STORAGE/NAME")
    parser.add_argument("logs", type=Path, help="the folder for TensorBoard's --logdir")
    options = parser.parse_args(arguments)
    return run_command(lambda: _write(options.run, options.logs))


def _write(run: str, logs: Path) -> int:
    try:
        n_trials = write_logs(run, logs)
    except OSError as error:
        raise UserError(str(error)) from error
    print(f"{n_trials} trials in {logs}; look: tensorboard --logdir {logs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
