"""A study's timeline: what is made of its events, and a study over lanes that do not even sleep."""

import json
import os
import subprocess
import sys

import pytest
from running import write_images

from benchmarks.engine_pace import LOG, facts_of, watched
from convae.config import TrialConfig
from convae.data import load_images
from convae.shapes import ProgramId


def test_fill_is_the_share_of_all_lanes_time_in_which_a_trial_trained():
    events = [
        [11, "opened"],
        [12, "compiled", "wide", 1.0],
        [12, "put", "wide"],
        [14, "slice", "wide", 2, 1, 12],
        [16, "put", "wide"],
        [18, "slice", "wide", 2, 2, 16],
        [22, "slice", "wide", 2, 1, 20],
        [23, "ended"],
    ]
    facts = facts_of(events, 10, 25)
    assert (facts["first_slice"], facts["last_slice"], facts["after"]) == (2, 12, 3)
    assert facts["marks"] == {"opened": 1, "compiled wide": 2, "ended": 13}
    wide = facts["programs"]["wide"]
    assert wide["fill"] == (2 + 2 * 2 + 2) / (2 * 10)
    assert wide["fill_until_last_start"] == 2 / (2 * 4)
    assert (wide["seconds"], wide["n_starts"], wide["slice_ms"]) == ([2, 12], 2, 2000)


def test_lanes_tell_of_their_trials_and_not_of_their_proof(tmp_path, monkeypatch):
    from convae.engine import Engine
    from convae.lane_program import Shape
    from convae.lanes import Lanes
    from convae.proof import prove

    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    write_images(tmp_path / "noise.npz", n_train=120)
    shape = Shape(model="dense", n_lanes=2, width=16, chunk_size=40, n_steps=3)
    programs = {ProgramId("dense", single=False): shape}
    images = load_images(str(tmp_path / "noise.npz"))
    with Engine.open(images, programs, prove=prove, lanes=watched(Lanes)) as engine:
        config = TrialConfig(model="dense", hidden_units=16, batch_size=40, epochs=2)
        engine.submit("trial", config)
        assert len(engine.report("trial").epochs) == 2
    kinds = [json.loads(line)[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert kinds[:4] == ["compiled", "put", "slice", "slice"]
    assert kinds.count("put") == kinds.count("compiled") == 1


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_study_over_lanes_that_sleep_is_a_whole_one(tmp_path):
    write_images(tmp_path / "noise.npz")
    words = ["--paces", "none", "--models", "dense", "--hidden", "64"]
    words += ["--epochs", "3", "--trials", "4", "--finalists", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine_pace", *words, "--data", tmp_path / "noise.npz"],
        env={**os.environ, "BENCHMARK_RESULTS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (study,) = json.loads((tmp_path / "engine-pace-cpu.json").read_text())["studies"]
    assert study["n_trials"] == 6  # the reference's, four of the search, the winner
    assert {"driver", "engine", "workers"} <= study["processor_seconds"]["before"].keys()
    assert any("4 lanes" in program for program in study["programs"])
