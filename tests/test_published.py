"""The run folders in `benchmarks/results/` are what this code reads, labels and would plan."""

from pathlib import Path

import pytest

from analysis.load import read_run
from study.folder import schema
from study.plan.ledger import config_of_row
from study.plan.spec import StudySpec
from study.plan.trials import base_of, fixed_trials, readings_of, setting_of

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RUNS = sorted(path.parent.name for path in RESULTS.glob("*/study.json"))
SEARCHED = (schema.SEARCH, schema.FINALIST, schema.WINNER)


@pytest.mark.parametrize("name", RUNS)
def test_a_published_run_has_todays_form_labels_and_names(name):
    run = read_run(RESULTS / name)
    spec = StudySpec.from_dict(run.manifest["spec"])
    rows = run.trials.astype(object).where(run.trials.notna(), None).to_dict("records")
    for row in rows:
        config = config_of_row(row)
        assert row["setting"] == setting_of(config, spec)
        assert row["base"] == base_of(row["group"], config, spec)
    assert run.manifest["readings"] == readings_of(spec)
    fixed = {row["trial_id"] for row in rows if row["group"] not in SEARCHED}
    assert fixed == {planned.trial_id for planned in fixed_trials(spec)}


def test_there_are_published_runs():
    assert len(RUNS) >= 8
