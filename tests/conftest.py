"""What holds for all tests: their threads, and last lines that say what was left out and why."""

import os
from collections import Counter
from contextlib import ExitStack

import pytest

from convae.hardware import usable_cpus

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, which share the cores
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture(scope="module")
def session():
    """Of Ray, for studies that run in this process: two trials at once, also on one core."""
    from study.tune import resources

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resources, "usable_cpus", lambda: max(2, usable_cpus()))
            stack.enter_context(resources.ray_session(None))
        yield


LEFT_OUT = "left out: the tests that disturb studies or take minutes; make test-cluster runs them"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Beside pytest's own counts, which give no reason for what was not selected."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", ())
    )
    for reason, n in reasons.items():
        terminalreporter.write_line(f"skipped: {n} test{'s' * (n > 1)}: {reason}")
    if config.option.markexpr == "not cluster":
        terminalreporter.write_line(LEFT_OUT)
    if not reasons:
        terminalreporter.write_line("skipped: none")
