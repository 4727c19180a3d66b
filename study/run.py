"""The study's command line, and `run`, the same as a function for notebooks and scripts.

    python -m study.run --gpus 1                      # the preset `standard` on one GPU
    python -m study.run --gpus 0 --preset quick       # everything once, small, on the CPU
    python -m study.run my-question.toml --gpus 0     # a study of yours; --print-study prints one
    python -m study.run --resume --name NAME          # go on where a study was interrupted

`quick` takes one to two minutes on two cores (AMD EPYC: 94 and 100 s, n = 2), `standard` took 26
min there before finalists were trained (n = 1), and 173 s on one NVIDIA H200 before there were
lanes (n = 1). Either leaves the tables in results/NAME and the answer in its report/index.html:
after 50 epochs at the reference setting conv has 2.2 times the test MSE of dense-512 (95 % interval
2.0 to 2.4, n = 5 seeds), where the report that is studied finds half of it.
"""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from signal import SIG_IGN, SIGUSR1, SIGUSR2, signal
from typing import TYPE_CHECKING, Any

from convae.config import DATA_HELP
from convae.errors import UserError, program, run_command
from convae.hardware import can_be_made, home_folder
from study.folder import schema
from study.plan.spec import SpecError, StudySpec, spec_options
from study.plan.study_file import PRESETS, check_builders, key_of, read_study, to_toml
from study.plan.trial_tables import TrialTable, table_of, trial_table_from
from study.view.terminal import forgiving_terminal

if TYPE_CHECKING:
    from convae.data import ImageSet
    from study.folder.storage import RunFolder
    from study.tune.driver import Outcome
    from study.tune.trainable import WorkerSettings

AROUND = "full"  # the preset whose tables of neighbours --neighbours adds
EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130
# Of the packages that workers import; what shadows Python's own stops Python itself.
SHADOWED = ("keras", "matplotlib", "numpy", "optuna", "pandas", "pyarrow", "ray", "tensorflow")
# The options that a resumed study needs again, to go on under the same conditions.
CONDITIONS = (
    *("gpus", "lanes", "cpus_per_trial", "max_concurrent", "address"),
    *("data", "mlflow", "quiet", "no_report"),
)


_program = partial(program, "convae-study", "study.run")


def _called(command: str = "convae-study", module: str = "study.run") -> list[str]:
    """The words that call one of our commands from here, be its environment active or not."""
    is_console = Path(sys.argv[0]).name == _program()
    words = [] if is_console else ["-m", module]
    file = (Path(sys.argv[0]).with_name(command) if is_console else Path(sys.executable)).absolute()
    if file == Path(shutil.which(file.name) or ""):
        return [file.name, *words]
    here = file.is_relative_to(Path.cwd())
    return [str(file.relative_to(Path.cwd()) if here else file), *words]


def build_parser() -> argparse.ArgumentParser:
    """The command line's options; those of the spec are made from its fields."""
    parser = argparse.ArgumentParser(
        prog=_program(),
        description="Study convolutional and dense autoencoders on MNIST, scheduled by Ray Tune.",
    )
    what = parser.add_argument_group("what to run (the file or preset says, unless you do)")
    what.add_argument("study", nargs="?", metavar="STUDY.toml", help="a custom study")
    what.add_argument("--preset", choices=tuple(PRESETS), help="default: standard")
    what.add_argument(
        "--print-study",
        action="store_true",
        help="print the study as a file, whole, and run nothing: to start a custom one",
    )
    what.add_argument(
        "--trial",
        action="append",
        metavar="WORDS",
        help='further fixed trials, as in "model=conv learning_rate=0.25,0.5 batch_size=128"',
    )
    for option in spec_options():
        settings: dict[str, Any] = {"help": option.metadata["help"]}
        values = option.metadata["values"]
        if values.kind == "bool":
            settings["action"] = argparse.BooleanOptionalAction
        elif values.words:
            settings["choices"] = values.words
        elif values.kind == "text":
            settings["metavar"] = "NAME"
        else:
            settings |= {"type": {"int": int, "float": float}[values.kind], "metavar": "N"}
        if isinstance(option.default, tuple):
            settings["nargs"] = "+"
        what.add_argument(option.metadata["flag"], default=None, **settings)
    what.add_argument(
        "--neighbours",
        action=argparse.BooleanOptionalAction,
        help=f"the reference with one factor changed at a time: the tables of {AROUND}.toml",
    )
    where = parser.add_argument_group("what to run it on")
    where.add_argument("--gpus", type=int, metavar="N", help="default: those that Ray sees")
    where.add_argument(
        "--lanes",
        type=int,
        metavar="N",
        help="trials of a model that share a device in one program, at most (default: by rule on a"
        " GPU, none on a CPU; 1: one trial at a time)",
    )
    where.add_argument("--cpus-per-trial", type=int, metavar="N")
    where.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once, at most")
    where.add_argument("--address", help="a running Ray cluster, such as auto; default: start Ray")
    files = parser.add_argument_group("files")
    files.add_argument("--data", metavar="PATH", help=DATA_HELP)
    files.add_argument("--storage", metavar="PATH_OR_URI", default="results")
    files.add_argument("--name", help="of the run folder; default: preset and time")
    files.add_argument(
        "--resume",
        action="store_true",
        help="finish the study called --name; may raise numbers of trials and seeds, and"
        " limits of time, and widen what is searched",
    )
    files.add_argument(
        "--resume-or-start",
        action="store_true",
        help="the same, or start it if there is none: one command for whatever restarts it",
    )
    files.add_argument(
        "--dry-run", action="store_true", help="print the trials and an estimate of their time"
    )
    files.add_argument(
        "--quiet", action="store_true", help="print the plan, failures and the end, no more"
    )
    files.add_argument(
        "--mlflow",
        nargs="?",
        const="sqlite:///mlflow.db",
        metavar="URI",
        help="also log each trial to MLflow (default URI: sqlite:///mlflow.db)",
    )
    files.add_argument("--no-report", action="store_true", help="leave the figures undrawn")
    return parser


def main(arguments: Sequence[str] | None = None, *, workers: "WorkerSettings | None" = None) -> int:
    """Runs the command; returns its exit code.

    0: done. 1: the study ended with failed trials, or could not go on. 2: a bad or impossible
    request, said in one line before any trial starts. 130: interrupted.

    Args:
        arguments: None for the command line's.
        workers: how trials' workers train; tests replace the training.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with forgiving_terminal():
        options = build_parser().parse_args(words)
        if arguments is None:
            if sys.flags.optimize > 1:
                _start_with_docstrings()
            # They would end a process that does not wait for them yet.
            for number in (SIGUSR1, SIGUSR2):
                signal(number, SIG_IGN)
        return run_command(lambda: _run(options, [*_program().split(), *words], workers=workers))


def _print_whole(text: str) -> None:
    """Prints what is to be a file: in UTF-8, and not without a word where the output is full."""
    sys.stdout.flush()
    if binary := getattr(sys.stdout, "buffer", None):  # a notebook has none
        binary.write(text.encode())
        binary.flush()
    else:
        print(text, end="")


def _start_with_docstrings() -> None:
    """Starts this program again without -OO and PYTHONOPTIMIZE=2: Ray fails without docstrings."""
    words = [word for word in sys.orig_argv if word != "-OO"]
    if os.environ.pop("PYTHONOPTIMIZE", None) or words != sys.orig_argv:
        os.execv(sys.executable, [sys.executable, *words[1:]])


def run(
    preset: str | os.PathLike[str] | StudySpec | None = None,
    *,
    storage: str | os.PathLike[str] = "results",
    name: str | None = None,
    **options: Any,
) -> str:
    """Runs a study as the command line does, with the same lines, files and report.

    In a process that has called `ray.init`, such as a notebook's, that session is used and left
    alone.

    Args:
        preset: its name, the path of a study file, or a spec; None for "standard", or
            for what a study to be resumed is.
        storage: a path or URI, where the run folder is made.
        name: of the run folder; None for preset and time.
        options: the command line's, by name: `gpus=0, epochs=3, resume=True`.

    Returns:
        The run folder, STORAGE/NAME, for `analysis.load.load_run`.

    Raises:
        TypeError: an option that the command line does not have.
        UserError: a bad or impossible request, or a study that could not go on.
        KeyboardInterrupt: the study was interrupted; it can be resumed.
    """
    given = build_parser().parse_args([])
    if unknown := set(options) - set(vars(given)):
        raise TypeError(f"run() has no option {', '.join(sorted(unknown))}")
    spec = preset if isinstance(preset, StudySpec) else None
    vars(given).update(options, storage=os.fspath(storage), name=name)
    if spec is None:
        is_file = preset is not None and str(preset).endswith(".toml")
        setattr(given, "study" if is_file else "preset", preset)
    if _run(given, ["study.run.run"], spec=spec) == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    from study.folder.storage import RunFolder

    return RunFolder.of(given.storage, given.name).where


class FaultError(UserError):
    """A fault of this code: its traceback is in the log."""

    exit_code = EXIT_FAILED


def spec_from(
    options: argparse.Namespace, *, base: StudySpec | None = None, earlier: StudySpec | None = None
) -> StudySpec:
    """The preset, the file's study, or that of the study to be resumed, with the options' changes.

    Raises:
        UserError: a value out of range, or a study to be resumed would change.
    """
    name = options.preset or "standard"
    if name not in PRESETS:
        raise SpecError(f"--preset is {name!r}, but takes one of {', '.join(PRESETS)}.")
    base = base or (earlier if options.preset is None else None) or PRESETS[name]
    changes = {option.name: getattr(options, key_of(option)) for option in spec_options()}
    if options.objective == schema.MSE_AND_TIME and options.scheduler is None:
        changes["scheduler"] = "none"
    given: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value
        for field, value in changes.items()
        if value is not None
    }
    further = [
        trial_table_from("--trial", table_of(words), base.known_models, base.hyperparameters)
        for words in options.trial or ()
    ]
    around = PRESETS[AROUND].trial_tables if options.neighbours else ()
    there = {(table.group, table.model) for table in base.trial_tables}
    around = tuple(t for t in around if (t.group, t.model) not in there and t.model in base.models)
    kept = [table for table in (*base.trial_tables, *around) if _stays(table, options)]
    given["trial_tables"] = (*kept, *further)
    spec = replace(base, **given)
    if earlier is not None:
        spec.check_resumes(earlier)
    else:
        check_builders(spec)
    return spec


def _stays(table: TrialTable, options: argparse.Namespace) -> bool:
    """Whether a table of the file's is not taken out by the options; custom trials all stay."""
    if table.group == schema.CUSTOM:
        return True
    other_model = options.models is not None and table.model not in options.models
    other_sizes = options.hidden is not None and table.model == schema.DENSE
    switches = {schema.READING: options.readings, schema.NEIGHBOUR: options.neighbours}
    off = switches.get(table.group) is False
    return not (other_model or off or (other_sizes and table.group != schema.NEIGHBOUR))


def _run(
    options: argparse.Namespace,
    command: list[str],
    *,
    spec: StudySpec | None = None,
    workers: "WorkerSettings | None" = None,
) -> int:
    check_packages(Path.cwd())
    home_folder()  # which Ray's import needs
    may_resume = options.resume or options.resume_or_start
    if options.dry_run and may_resume:
        raise SpecError("--dry-run tells of a new study; leave --resume out.")
    if options.name is None and may_resume:
        raise SpecError("--resume needs the --name of the study to finish.")
    if options.study is not None:
        if options.preset is not None:
            raise SpecError(f"{options.study} and --preset are two studies; give one of them.")
        of_file = read_study(Path(options.study))
        spec = of_file.spec
        options.data = of_file.data if options.data is None else options.data
    if options.name is None:
        preset = spec.preset if spec else options.preset or "standard"
        options.name = f"{preset}-{datetime.now():%Y%m%d-%H%M%S}"
    if options.print_study:
        _print_whole(to_toml(spec_from(options, base=spec), options.data))
        return EXIT_DONE

    from study.folder.manifest import read_manifest
    from study.folder.storage import RunFolder, first_line

    folder = RunFolder.of(options.storage, options.name)
    has_study = not options.dry_run and folder.read(schema.MANIFEST_FILE) is not None
    if options.resume and not has_study:
        raise SpecError(f"{folder} holds no study to --resume; start it without --resume.")
    earlier = read_manifest(folder) if has_study and may_resume else None
    if earlier is None and not options.dry_run:
        _check_free(folder)
    spec = spec_from(options, base=spec, earlier=_spec_of(folder, earlier) if earlier else None)
    try:
        return _run_there(options, command, spec, folder, earlier, workers)
    except UserError:
        raise
    except KeyboardInterrupt:  # a second one, or before or after the trials
        there = not options.dry_run and folder.read(schema.MANIFEST_FILE) is not None
        resume_with = f"resume with: {resume_command(options)}"
        print(resume_with if there else "interrupted; nothing was written", flush=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        raise FaultError(
            f"The study stopped over a fault of its own ({type(error).__name__}:"
            f" {first_line(error)});"
            f" {_log_fault(folder)} has the traceback."
        ) from error


def _run_there(
    options: argparse.Namespace,
    command: list[str],
    spec: StudySpec,
    folder: "RunFolder",
    earlier: dict[str, Any] | None,
    workers: "WorkerSettings | None",
) -> int:
    from study.folder.lock import DriverLock
    from study.folder.manifest import read_manifest

    with ExitStack() as stack:
        lock = None
        if earlier is not None:  # before anything that takes long
            lock = DriverLock(folder, tell=lambda line: print(line, flush=True))
            stack.callback(lock.release)
            earlier = read_manifest(folder)  # another driver may have been at it until now
        image_set = _load_images(options.data, earlier)
        if not options.quiet:
            print(image_set, flush=True)

        if sys.flags.optimize > 1:
            raise SpecError("Ray fails without docstrings; start Python without -OO.")
        # Ray takes seconds to import, so --help does not wait for it.
        from study.tune.driver import StudyFailedError, run_study
        from study.tune.resources import Resources, ray_session

        asked = ("lanes", "cpus_per_trial", "address", "max_concurrent")
        known = {name: getattr(options, name) for name in asked}
        resources = Resources(n_gpus=options.gpus, **known)
        with ray_session(options.address):
            if options.dry_run:
                from study.tune.dry_run import print_plan

                print_plan(spec, resources, image_set)
                return EXIT_DONE
            try:
                outcome = run_study(
                    spec,
                    resources,
                    image_set,
                    folder,
                    command=command,
                    lock=lock,
                    quiet=options.quiet,
                    mlflow=options.mlflow,
                    workers=workers,
                )
            except StudyFailedError as error:
                remedy = f"Mend it, then resume with: {resume_command(options)}"
                raise StudyFailedError(f"{error} {remedy}") from error

    return _tell_end(options, spec, folder, outcome)


def _load_images(path: str | None, earlier: dict[str, Any] | None) -> "ImageSet":
    """The images of a new study, or those that an earlier session began with."""
    from convae.data import load_images

    began_with = earlier["data"] if earlier else {}
    image_set = load_images(began_with.get("path") if path is None else path)
    if began_with.get("sha256", image_set.sha256) != image_set.sha256:
        raise SpecError(
            f"The images at {image_set.source} are not those that the study began with, from"
            f" {began_with['source']}; give --data those, or start a new study."
        )
    return image_set


def _tell_end(
    options: argparse.Namespace, spec: StudySpec, folder: "RunFolder", outcome: "Outcome"
) -> int:
    """Writes the report, and says how the study ended and what to do next."""
    print(f"study {outcome.status}; results in {folder}", flush=True)
    if not options.no_report:
        from analysis.report import write_report
        from study.folder.storage import without_secrets

        try:
            print(f"report: {without_secrets(write_report(folder.where))}")
        except KeyboardInterrupt:
            report = _called("convae-report", "analysis.report")
            print(f"interrupted; for the report: {shlex.join([*report, str(folder)])}")
            return EXIT_INTERRUPTED
    if outcome.status == "interrupted":
        print(f"resume with: {resume_command(options)}")
        return EXIT_INTERRUPTED
    if outcome.n_failed:
        noun = "trial" if outcome.n_failed == 1 else "trials"
        print(f"{outcome.n_failed} {noun} failed; see {folder}/{schema.LOG_FILE}")
        return EXIT_FAILED
    if outcome.status == "out of time":
        print(f"for more: {resume_command(options)} --time-budget SECONDS")
    if spec.preset == "quick":
        print(f"next, 50 epochs and a larger search: {shlex.join(_called())}")
    return EXIT_DONE


def resume_command(options: argparse.Namespace) -> str:
    """The command that goes on with a study under the same conditions, to be pasted."""
    from study.folder.storage import without_secrets

    words = ["--resume", f"--storage={without_secrets(options.storage)}", f"--name={options.name}"]
    for name in CONDITIONS:
        value, option = getattr(options, name), "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif value is not None and value is not False:  # 0 is a value
            words.append(f"{option}={without_secrets(str(value))}")
    return shlex.join([*_called(), *words])


def check_packages(folder: Path) -> None:
    """Makes sure that the working directory has no package or module of the names of ours.

    Ray's workers look there first, and `python -m` does.

    Raises:
        SpecError: it has one.
    """
    for name in SHADOWED:
        there = PathFinder.find_spec(name, [str(folder)])
        if there and there.origin:
            raise SpecError(
                f"{there.origin} has the name of a package that this program needs, which would not"
                " be found; rename it, or run this from another folder."
            )
    for name in ("study", "convae", "analysis"):
        # The workers do not import the last one, and the console commands do not look there.
        there = find_spec(name) if name == "analysis" else PathFinder.find_spec(name, [str(folder)])
        ours = Path(__file__).parents[1] / name / "__init__.py"
        if there and there.origin and not ours.samefile(there.origin):
            raise SpecError(
                f"{there.origin} has the name of a package of this program, which would not be"
                " found; run it from another folder."
            )


def _check_free(folder: "RunFolder") -> None:
    """Makes sure that a new study may be begun in a folder, without writing anything."""
    if folder.exists():
        # A start that died before its manifest has left nothing that anybody needs.
        begun = any(
            folder.read(name) is not None
            for name in (schema.LOCK_FILE, schema.OS_LOCK_FILE, schema.TRIALS_FILE)
        )
        if folder.read(schema.MANIFEST_FILE) is not None or not begun:
            raise SpecError(f"{folder} exists already; choose another --name, or --resume it.")
    if (path := folder.local) is not None and not can_be_made(path.parent):
        raise SpecError(
            f"--storage cannot be written to: {path.parent} is read-only, or cannot be made."
        )


def _spec_of(folder: "RunFolder", manifest: dict[str, Any]) -> StudySpec:
    try:
        return StudySpec.from_dict(manifest["spec"])
    except (TypeError, AttributeError, KeyError) as error:
        raise SpecError(
            f"{folder}/{schema.MANIFEST_FILE} holds no study that this version can go on with;"
            " start a new one."
        ) from error


def _log_fault(folder: "RunFolder") -> str:
    """Keeps the traceback of a fault of ours; returns where."""
    text = traceback.format_exc()
    if folder.local is not None and folder.local.is_dir():
        path = folder.local / schema.LOG_FILE
    else:
        path = Path(tempfile.mkstemp(prefix="study-run-", suffix=".log")[1])
    with path.open("a", encoding="utf-8") as log:
        log.write(text)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
