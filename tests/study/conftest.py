"""What holds for every test of a study."""

import pytest
from running import STARTED


@pytest.fixture(autouse=True)
def no_study_outlives_its_test():
    """Of a test that fails, none disturbs the next ones."""
    yield
    for study in [*STARTED]:
        study.kill()
