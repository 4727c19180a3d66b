"""The study's log file: what Ray and Optuna would otherwise write across the terminal."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from study.folder import schema
from study.folder.storage import RunFolder

LOGGERS = ("ray", "optuna", "study")
# One looks for result files that Ray Tune is told not to write, the other counts an attempt that
# failed as a trial that did, and names a temporary folder.
NOT_HEARD = ("ray.tune.analysis", "ray.tune.tune")


@contextmanager
def logging_to(folder: RunFolder) -> Iterator[None]:
    """While the block runs, what is logged or printed goes to the end of the folder's log file.

    What is meant for the terminal goes to a sys.stdout that was kept before. A bucket gets its log
    file at the end: nothing can be added to what lies there.
    """
    if folder.local is not None:
        with _logging_to(folder.local / schema.LOG_FILE):
            yield
        return
    with TemporaryDirectory() as elsewhere:
        path = Path(elsewhere) / schema.LOG_FILE
        path.write_bytes(folder.read(schema.LOG_FILE) or b"")
        try:
            with _logging_to(path):
                yield
        finally:
            folder.write(schema.LOG_FILE, path.read_bytes())


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in NOT_HEARD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.callback(handler.close)
        for name in LOGGERS:
            stack.enter_context(_only(handler, logging.getLogger(name)))
        # Ray prints what its processes complain of, such as a worker that was killed.
        stack.enter_context(redirect_stdout(handler.stream))
        stack.enter_context(redirect_stderr(handler.stream))
        yield


@contextmanager
def _only(handler: logging.Handler, logger: logging.Logger) -> Iterator[None]:
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
