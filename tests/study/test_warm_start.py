"""What a study has learned from an older run, kept in its own folder."""

import pytest

from convae.config import TrialConfig
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError
from study.plan import warm_start
from study.plan.spec import SpecError, StudySpec


def test_a_resumed_study_needs_the_older_run_no_more(tmp_path):
    folder, spec = RunFolder(tmp_path), StudySpec(preset="test", warm_start=str(tmp_path / "gone"))
    with pytest.raises(SpecError, match="gone"):  # of a folder of before rows were kept
        warm_start.kept(folder, spec)
    rows = [{"trial_id": "search-conv-000", "val_mse": 0.1, "history": [[1, 0.2], [2, 0.1]]}]
    warm_start.keep(folder, rows)
    assert warm_start.kept(folder, spec) == rows
    content = folder.read(schema.WARM_START_FILE)
    for n in range(len(content)):
        folder.write(schema.WARM_START_FILE, content[:n])
        with pytest.raises(RunFolderError, match="is torn; delete it, and it is made again from"):
            warm_start.kept(folder, spec)


def test_what_lies_outside_the_space_is_left_out():
    spec = StudySpec(preset="test", epochs=3)

    def row(**setting):
        config = TrialConfig(model="conv", epochs=3, split="search", **setting)
        learned = {"state": schema.COMPLETED, "val_mse": 0.1, "history": [[3, 0.1]]}
        return {**config.to_dict(), **learned, warm_start.TAKEN_FROM: "older"}

    inside, outside = row(learning_rate=0.5), row(learning_rate=1e-6)
    (known,) = warm_start.as_optuna([inside, outside], spec)["conv"]
    assert known.params["learning_rate"] == 0.5
