"""What happens to a study when something breaks: each fault is a real one.

Signals, a folder that is taken away, a full disk, storage that a node does not see. The training is
a closed form, everything else is the command line's own. Killed workers, engines and drivers, and a
lost node: test_same_numbers.
"""

import os
import shlex
import signal
import subprocess
import time

import pandas as pd
import pytest
from ray_nodes import Started
from running import RESUME, Study, command

from analysis.load import load_run
from study.folder import schema
from study.folder.manifest import read_manifest
from study.folder.storage import RunFolder

pytestmark = pytest.mark.cluster

PROGRAM = "closed_form_study.py"
RESOURCES = ["--gpus", "0", "--cpus-per-trial", "1"]
OPTIONS = ["--preset", "reference", "--models", "dense", "--hidden", "64", "512", *RESOURCES]
OPTIONS += ["--seeds", "3", "--epochs", "10"]  # six trials
N_TRIALS, N_EPOCHS = 6, 10


def start(storage, *options, on=None, epoch_seconds=0.1):
    return Study(PROGRAM, storage, *options, on=on, EPOCH_SECONDS=str(epoch_seconds))


def assert_complete(folder, n_trials=N_TRIALS):
    """Every trial has completed with every epoch; returns the trials."""
    trials, epochs = load_run(folder)
    assert list(trials.state) == [schema.COMPLETED] * n_trials
    counts = epochs.groupby("trial_id").epoch.agg(["count", "max"])
    assert (counts.loc[trials.trial_id] == N_EPOCHS).all(axis=None)
    assert not trials.n_retries.any()
    return trials


def resumed(storage, lines, on=None):
    """Runs the command that the study printed."""
    code, lines = start(storage, *printed_options(storage, lines), on=on).rest()
    assert code == 0, lines


def printed_options(storage, lines):
    """Those of the command that the study printed, to go on."""
    printed = next(line for line in lines if RESUME in line)
    options = shlex.split(printed.partition(RESUME)[2])
    assert options[:3] == ["--resume", f"--storage={storage}", "--name=study"]
    return options


SIGNALS = {  # all but the last with Ray's own processes beside the driver
    "a lost terminal": (signal.SIGHUP, os.kill, 1),
    "Ctrl-C": (signal.SIGINT, os.killpg, 1),  # to all that the terminal runs
    "an impatient Ctrl-C": (signal.SIGINT, os.kill, 2),  # the second waits for nothing
    "a spot notice": (signal.SIGTERM, os.kill, 1),
}


def test_a_signal_stops_the_study_and_keeps_what_it_has(tmp_path, cluster):
    """Each in turn, and the command that the study prints then goes on."""
    n_trials = 14
    command, kept = [*OPTIONS, "--seeds", str(n_trials // 2)], pd.DataFrame()
    for what, (number, send, times) in SIGNALS.items():
        study = start(tmp_path, *command, on=cluster if what == "a spot notice" else None)
        study.wait_for("completed")
        for _ in range(times):
            send(study.process.pid, number)
            time.sleep(0.5)
        code, lines = study.rest()
        assert code == 130, (what, lines)
        assert read_manifest(RunFolder(tmp_path / "study"))["status"] == "interrupted", what
        trials = load_run(tmp_path / "study")[0].set_index("trial_id")
        assert set(trials.state) <= {schema.COMPLETED, schema.RUNNING}
        done = trials[trials.state == schema.COMPLETED]
        assert len(done) > len(kept), what
        if len(kept):
            pd.testing.assert_frame_equal(done.loc[kept.index], kept)
        kept = done
        command = printed_options(tmp_path, lines)
    code, lines = start(tmp_path, *command, on=cluster).rest()
    assert code == 0, lines
    assert not [line for line in lines for name in kept.index if f"{name}  completed" in line]
    trials = assert_complete(tmp_path / "study", n_trials=n_trials).set_index("trial_id")
    pd.testing.assert_frame_equal(trials.loc[kept.index], kept)


def test_a_folder_that_is_taken_away_ends_the_study_and_comes_back_whole(tmp_path, cluster):
    study = start(tmp_path, *OPTIONS, on=cluster)
    study.wait_for("completed")
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    code, lines = study.rest()
    assert code == 1, lines
    (told,) = [line for line in lines if RESUME in line]
    assert str(tmp_path / "study") in told
    assert not (tmp_path / "study").exists()  # nobody has made it anew
    (tmp_path / "elsewhere").rename(tmp_path / "study")
    resumed(tmp_path, [told], on=cluster)
    assert_complete(tmp_path / "study")


def test_a_disk_that_takes_no_more_ends_the_study_and_loses_nothing(tmp_path):
    """On a file system of its own, which is filled, then made read-only, while trials run."""
    storage, printed = tmp_path / "disk", tmp_path / "printed"
    storage.mkdir()
    n_trials = 14
    run = shlex.join(command(PROGRAM, storage, *OPTIONS, "--seeds", str(n_trials // 2)))
    resume = shlex.join(command(PROGRAM, storage, "--resume", *RESOURCES))
    # By what it prints: tables come now and then. A mount of its own over the folder: one with
    # files open for writing cannot be made read-only.
    script = f"""
        completed() {{ grep -c "  completed  " {printed}; }}
        break_at_one_more() {{
            before=$(completed)
            "$@" >> {printed} 2>&1 &
            while [ $(completed) -le $before ]; do sleep 0.1; kill -0 $! || exit 9; done
            (cd {storage}; eval "$fault")
            wait $!; echo "exit code $?" >> {printed}
            (cd {storage}; eval "$mended") || exit 8
        }}
        touch {printed}
        mount -t tmpfs -o size=8m none {storage}
        fault="cat /dev/zero > filler" mended="rm filler"
        break_at_one_more {run}
        fault="mount --bind study study && mount -o remount,bind,ro study"
        mended="umount -l study"
        break_at_one_more {resume}
        {resume} >> {printed} 2>&1; echo "exit code $?" >> {printed}
        cp -r {storage}/study {tmp_path}
    """
    Started(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        {"EPOCH_SECONDS": "0.1"},
        stderr=subprocess.DEVNULL,
    ).process.wait()
    lines = printed.read_text().splitlines()
    codes = [line for line in lines if line.startswith("exit code")]
    assert codes == ["exit code 1", "exit code 1", "exit code 0"]
    full, read_only = (line for line in lines if RESUME in line)
    assert "No space left on device" in full
    assert "Read-only file system" in read_only
    assert_complete(tmp_path / "study", n_trials=n_trials)


def test_storage_that_a_node_does_not_see_is_refused_before_anything_starts(tmp_path, cluster):
    """One node has a disk of its own where the others have the storage."""
    storage = tmp_path / "results"
    storage.mkdir()
    own_disk = f'mount -t tmpfs none {storage} && exec "$0" "$@"'
    unshared = ("unshare", "--map-root-user", "--mount", "sh", "-c", own_disk)
    node = cluster.add("--num-cpus=1", within=unshared)
    code, lines = start(storage, *OPTIONS, on=cluster).rest()
    node.kill()
    assert code == 2, lines
    assert "is not seen by node" in lines[-1]
    assert list(storage.iterdir()) == []


def test_a_cluster_that_asks_for_a_token_is_not_joined_without_it(tmp_path, cluster):
    code, lines = start(tmp_path, *OPTIONS, "--address", cluster.address).rest()
    assert code == 2, lines
    assert f"--address {cluster.address}" in lines[-1]
    assert "RAY_AUTH_TOKEN" in lines[-1]
    assert not (tmp_path / "study").exists()
