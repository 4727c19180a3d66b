"""The command line of the study.

    python -m study.run --gpus 1

Runs the `standard` preset: the report's trials for 50 epochs and a 12-trial search, on one GPU.
`python -m study.run --gpus 0 --preset quick` takes about two minutes on two CPU cores.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from convae.config import PRECISIONS
from study.folder import schema
from study.presets import PRESETS, SAMPLERS, SCHEDULERS, SpecError, StudySpec

if TYPE_CHECKING:
    from study.driver import Outcome
    from study.storage import RunFolder

EXIT_DONE, EXIT_FAILED_TRIALS, EXIT_BAD_REQUEST, EXIT_INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m study.run",
        description="Study convolutional and dense autoencoders on MNIST, scheduled by Ray Tune.",
    )
    what = parser.add_argument_group("what to run (the preset says, unless you do)")
    what.add_argument("--preset", choices=tuple(PRESETS), help="default: standard")
    what.add_argument("--models", nargs="+", choices=schema.MODELS)
    what.add_argument("--hidden", nargs="+", type=int, metavar="UNITS", help="dense sizes")
    what.add_argument("--epochs", type=int)
    what.add_argument("--batch-size", type=int, help="of the reference trials")
    what.add_argument("--seeds", type=int, metavar="N", help="seeds of each reference trial")
    what.add_argument("--seed", type=int, help="the first seed, also the search's")
    what.add_argument("--trials", type=int, metavar="N", help="search trials, all models together")
    what.add_argument(
        "--readings",
        action=argparse.BooleanOptionalAction,
        help="the reference under other readings of the report",
    )
    what.add_argument(
        "--neighbours",
        action=argparse.BooleanOptionalAction,
        help="the reference with one factor changed at a time",
    )
    what.add_argument(
        "--objective", choices=schema.OBJECTIVES, help="of the search (default: mse, of validation)"
    )
    what.add_argument("--sampler", choices=SAMPLERS, help="of the search (default: tpe)")
    what.add_argument("--scheduler", choices=SCHEDULERS, help="ends search trials early")
    what.add_argument("--grace-epochs", type=int, metavar="N", help="that every search trial gets")
    what.add_argument("--reduction-factor", type=int, metavar="N", help="of asha (default: 3)")
    what.add_argument(
        "--warm-start", metavar="DIR", help="an older run folder whose search trials to learn from"
    )
    what.add_argument(
        "--eval-every", type=int, metavar="EPOCHS", help="epochs between evaluations (default: 1)"
    )
    what.add_argument(
        "--precision", choices=PRECISIONS, help="of the layers' arithmetic (default: float32)"
    )
    what.add_argument("--time-budget", type=float, metavar="SECONDS", help="stop then")
    where = parser.add_argument_group("what to run it on")
    where.add_argument("--gpus", type=int, metavar="N", help="default: those that Ray sees")
    where.add_argument("--gpus-per-trial", type=float, metavar="F", default=1.0)
    where.add_argument("--cpus-per-trial", type=int, metavar="N")
    where.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once, at most")
    where.add_argument("--address", help="a running Ray cluster, such as auto; default: start Ray")
    files = parser.add_argument_group("files")
    files.add_argument("--data", metavar="PATH", help="mnist.npz or a folder of IDX files")
    files.add_argument("--storage", metavar="PATH_OR_URI", default="results")
    files.add_argument("--name", help="of the run folder; default: preset and time")
    files.add_argument("--resume", action="store_true", help="finish the study called --name")
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


def spec_from(options: argparse.Namespace, earlier: StudySpec | None = None) -> StudySpec:
    """The preset, or the spec of the study to be resumed, with the options' changes.

    Raises:
        SpecError: a value out of range, or a study to be resumed would change.
    """
    base = PRESETS[options.preset or "standard"]
    if earlier is not None and options.preset is None:
        base = earlier
    changes = {
        "models": options.models and tuple(options.models),
        "hidden_units": options.hidden and tuple(options.hidden),
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "n_seeds": options.seeds,
        "seed": options.seed,
        "n_search_trials": options.trials,
        "readings": options.readings,
        "neighbours": options.neighbours,
        "objective": options.objective,
        "warm_start": options.warm_start,
        "sampler": options.sampler,
        "scheduler": options.scheduler,
        "grace_epochs": options.grace_epochs,
        "reduction_factor": options.reduction_factor,
        "precision": options.precision,
        "eval_every": options.eval_every,
        "time_budget_seconds": options.time_budget,
    }
    if options.objective == schema.MSE_AND_TIME and options.scheduler is None:
        changes["scheduler"] = "none"
    given = {name: value for name, value in changes.items() if value is not None}
    spec = replace(base, **given)
    if earlier is not None and spec != earlier:
        was, now = earlier.to_dict(), spec.to_dict()
        changed = "; ".join(f"{k} {was[k]} to {now[k]}" for k in was if was[k] != now[k])
        raise SpecError(f"--resume cannot change the study ({changed}); leave these options out.")
    return spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    0: done. 1: the study ended with failed trials, or its storage failed. 2: a bad or impossible
    request, said in one line before any trial starts. 130: interrupted.
    """
    options = build_parser().parse_args(arguments)
    command = ["python", "-m", "study.run", *(sys.argv[1:] if arguments is None else arguments)]
    try:
        return _run(options, command)
    except SpecError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_REQUEST


def _run(options: argparse.Namespace, command: list[str]) -> int:
    _check_resources(options)
    if options.dry_run and options.resume:
        raise SpecError("--dry-run tells of a new study; leave --resume out.")
    if options.resume:
        folder, earlier = _study_to_resume(options.storage, options.name)
        spec = spec_from(options, earlier)
    elif options.dry_run:
        spec, folder = spec_from(options), _run_folder(options.storage, "dry-run")
    else:
        spec = spec_from(options)
        folder = _new_folder(
            options.storage, options.name or f"{spec.preset}-{datetime.now():%Y%m%d-%H%M%S}"
        )

    from convae.data import DataError, load_mnist

    try:
        mnist = load_mnist(options.data)
    except DataError as error:
        raise SpecError(str(error)) from error
    if not options.quiet:
        print(f"MNIST from {mnist.source}", flush=True)

    # Ray takes seconds to import, so whoever asks for --help does not wait for it.
    from study.driver import run_study
    from study.resources import Resources, ray_session
    from study.storage import StorageError, without_secrets

    resources = Resources(
        n_gpus=options.gpus,
        gpus_per_trial=options.gpus_per_trial,
        cpus_per_trial=options.cpus_per_trial,
        address=options.address,
        max_concurrent=options.max_concurrent,
    )
    where = shlex.join(["--storage", without_secrets(options.storage), "--name", folder.name])
    resume_command = f"resume with: python -m study.run --resume {where}"
    try:
        with ray_session(options.address):
            if options.dry_run:
                from study.estimate import print_plan

                print_plan(spec, resources, mnist)
                return EXIT_DONE
            try:
                outcome = run_study(
                    spec,
                    resources,
                    mnist,
                    folder,
                    command=command,
                    resume=options.resume,
                    quiet=options.quiet,
                    mlflow=options.mlflow,
                )
            except StorageError as error:
                print(f"{error} Mend it, then {resume_command}", file=sys.stderr)
                return EXIT_FAILED_TRIALS
        return _tell(
            outcome, folder, resume_command, report=not options.no_report, preset=spec.preset
        )
    except KeyboardInterrupt:  # a second one, or before or after the trials
        print(resume_command if folder.exists() else "interrupted; nothing was written", flush=True)
        return EXIT_INTERRUPTED


def _tell(
    outcome: "Outcome", folder: "RunFolder", resume_command: str, *, report: bool, preset: str
) -> int:
    """Says how the study ended, writes the report, and returns the exit code."""
    print(f"study {outcome.status}; results in {folder}", flush=True)
    if report:
        from analysis.report import write_report
        from study.storage import without_secrets

        print(f"report: {without_secrets(write_report(folder.where))}")
    if outcome.status == "interrupted":
        print(resume_command)
        return EXIT_INTERRUPTED
    if outcome.n_failed:
        noun = "trial" if outcome.n_failed == 1 else "trials"
        print(f"{outcome.n_failed} {noun} failed; see {folder}/{schema.LOG_FILE}")
        return EXIT_FAILED_TRIALS
    if preset == "quick":
        print("next: python -m study.run --gpus 1 (or --gpus 0): 50 epochs, and a larger search")
    return EXIT_DONE


def _check_resources(options: argparse.Namespace) -> None:
    if options.gpus is not None and options.gpus < 0:
        raise SpecError(f"--gpus is {options.gpus}, but takes a whole number from 0.")
    if not options.gpus_per_trial > 0:
        raise SpecError(
            f"--gpus-per-trial is {options.gpus_per_trial:g}, but takes a number above 0; "
            "use --gpus 0 for the CPU."
        )
    for option in ("cpus_per_trial", "max_concurrent"):
        value = getattr(options, option)
        if value is not None and value < 1:
            name = "--" + option.replace("_", "-")
            raise SpecError(f"{name} is {value}, but takes a whole number from 1.")


def _new_folder(storage: str, name: str) -> "RunFolder":
    from study.storage import TEMPORARY_PREFIX, StorageError

    folder = _run_folder(storage, name)
    if folder.exists():
        raise SpecError(f"{folder} exists already; choose another --name, or --resume it.")
    probe = f"{TEMPORARY_PREFIX}{name}"
    try:
        folder.parent.write(probe, b"")
        folder.parent.delete(probe)
    except StorageError as error:
        raise SpecError(f"--storage cannot be written to: {error}") from error
    return folder


def _run_folder(storage: str, name: str) -> "RunFolder":
    from analysis.load import RunFolderError
    from study.storage import RunFolder, inside

    if Path(name).name != name or name in (".", ".."):
        raise SpecError(f"--name {name!r} must be a plain folder name.")
    try:
        return RunFolder(inside(storage, name))
    except RunFolderError as error:
        raise SpecError(f"--storage: {error}") from error


def _study_to_resume(storage: str, name: str | None) -> tuple["RunFolder", StudySpec]:
    from study.records import read_manifest
    from study.storage import StorageError

    if name is None:
        raise SpecError("--resume needs the --name of the study to finish.")
    folder = _run_folder(storage, name)
    try:
        if folder.read(schema.MANIFEST_FILE) is None:
            raise SpecError(f"{folder} holds no study to --resume; start it without --resume.")
        return folder, StudySpec.from_dict(read_manifest(folder)["spec"])
    except StorageError as error:
        raise SpecError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise SpecError(
            f"{folder}/{schema.MANIFEST_FILE} holds no study that this version can go on with;"
            " start a new one."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
