"""The errors that more than one module raises or catches, without TensorFlow."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN, ENOENT, ENOMEM
from signal import SIG_DFL, SIGHUP, SIGTERM, default_int_handler, getsignal, signal
from types import TracebackType
from typing import Any


class UserError(Exception):
    """For people: the message is a sentence that names the thing and the remedy.

    Command lines print it and exit with its code. Anything else that is raised is a fault in here.
    """

    exit_code = 2  # a bad request, unless a subclass says otherwise

    def __reduce__(self) -> Any:
        # Subclasses have constructors of other arguments, which a pickle cannot call.
        return _restore, (type(self), self.args)


def _restore(kind: type[UserError], args: tuple[Any, ...]) -> UserError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class DivergenceError(ArithmeticError):
    """The loss stopped being finite: a result about the setting, not a fault."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"The loss stopped being finite in epoch {epoch}.")
        self.epoch = epoch  # from 1


class EngineError(RuntimeError):
    """The engine has failed, and every trial in it; the cause is chained."""

    suspect = False  # whether over the trial that was asked for: it was just put into a lane


class TrialError(RuntimeError):
    """A trial has failed, and it alone; the cause is chained."""


class EngineLostError(RuntimeError):
    """The engine has failed or died, and the trial in it is not to blame; the cause is chained."""


def run_command(run: Callable[[], int]) -> int:
    """Runs a command to its exit code; what ends it early has one line, and no traceback.

    That is an error for people, Ctrl-C (130), or an output that is closed or full (1). An output
    that lacks characters shows ? for them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        line, code = str(error), error.exit_code
    except KeyboardInterrupt:
        line, code = "interrupted", 130
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno in (EAGAIN, ENOMEM):
            line = f"No process can be started here ({error.strerror}); end others, or raise the"
            line, code = f"{line} limits (ulimit -u, ulimit -v).", 2
        elif error.errno == ENOENT:
            line, code = "The working folder is gone; run this from another one.", 2
        elif sys.stdout is None:  # it is not the output's
            raise
        else:
            line, code = f"The output cannot be written ({error.strerror}).", 1
            # What is buffered would fail again when the interpreter ends.
            with suppress(OSError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    return code


def program(command: str, module: str) -> str:
    """How this program was called, to be said again: as a console command, or as a module."""
    return command if os.path.basename(sys.argv[0]) == command else f"python -m {module}"  # noqa: PTH119


def tell_interrupts() -> None:
    """Has Ctrl-C give one line, and no traceback, also while a program still imports.

    So do SIGTERM and a lost terminal. Nothing changes in other programs, such as a notebook, that
    import this one.
    """
    if os.path.basename(sys.argv[0] if sys.argv else "") in PROGRAMS:  # noqa: PTH119
        sys.excepthook = _excepthook
        for number in (SIGTERM, SIGHUP):
            if getsignal(number) == SIG_DFL:  # nohup has the latter ignored
                signal(number, default_int_handler)


PROGRAMS = ("-m", "convae-study", "convae-report", "convae-compare", "convae-train")


def _excepthook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
