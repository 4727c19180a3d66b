"""TensorBoard logs of a run, read with TensorBoard's own reader."""

import pytest
from synthetic_runs import trial, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.tensorboard import main


def curves(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(point.step, pytest.approx(point.value)) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_logs_hold_the_curves_and_no_point_for_what_was_not_measured(tmp_path, capsys):
    row, epochs = trial("dense", 512, n_epochs=4)
    for epoch in epochs[:3]:
        epoch["test_mse"] = None
    run = write_run(tmp_path / "run", (row, epochs))
    for _ in range(2):  # the second call replaces the first one's logs
        assert main([str(run), str(tmp_path / "logs")]) == 0
    assert "1 trials" in capsys.readouterr().out
    found = curves(tmp_path / "logs" / row["trial_id"])
    assert found == {
        "train_mse": [(epoch["epoch"], epoch["train_mse"]) for epoch in epochs],
        "test_mse": [(4, epochs[3]["test_mse"])],
    }


def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "none"), str(tmp_path / "logs")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
