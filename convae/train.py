"""Trains one trial without Ray, printing a line an epoch.

    python -m convae.train --model conv --epochs 2                     (half a minute on two cores)
    python -m convae.train --model conv --epochs 10 --save conv.keras  (a minute and a half)

Two epochs of the conv model at the defaults, the report's setting, took 22 s of processor time (AMD
EPYC, n = 1), most of it 6 s of wall time an epoch where two cores are idle; the dense model with
512 units takes 2 s. The test MSE was 0.0381 after the first and 0.0322 after the second epoch; it
is 0.020 after ten (0.018 to 0.022 over 5 seeds).
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path

from convae.config import (
    BY_NAME,
    DATA_HELP,
    EVAL_METRICS,
    FIELD_KINDS,
    MODELS,
    MOST,
    SPLITS,
    ConfigError,
    TrialConfig,
    n_parameters,
)
from convae.data import ImageSet, load_images
from convae.errors import (
    DivergenceError,
    EngineError,
    TrialError,
    UserError,
    program,
    run_command,
)
from convae.hardware import usable_cpus
from convae.results import EpochResult
from convae.shapes import WIDTHS
from convae.sharing import DeviceSharing
from convae.stderr_filter import filtered_stderr

TRIAL = "trial"  # its name in the engine

CHOICES = {
    "model": MODELS,
    "hidden_activation": BY_NAME["hidden_activation"].words,
    "split": SPLITS,
}
TYPES = {"text": str, "int": int, "float": float}


def build_parser() -> argparse.ArgumentParser:
    """An option for each field of TrialConfig, and where to train, read and save."""
    parser = argparse.ArgumentParser(
        prog=program("convae-train", "convae.train"),
        description="Train one autoencoder on MNIST, or other images, without Ray.",
    )
    for field in fields(TrialConfig):
        if field.name == "arguments":  # of custom models, of which a study file has the builder
            continue
        option = "--" + field.name.replace("_", "-")
        if FIELD_KINDS[field.name] == "bool":
            action = argparse.BooleanOptionalAction
            parser.add_argument(option, action=action, default=field.default)
            continue
        required = field.default is MISSING
        known = BY_NAME[field.name].default if field.name in BY_NAME else field.default
        default = "" if required else f" (default {known})"
        parser.add_argument(
            option,
            required=required,
            default=argparse.SUPPRESS,
            choices=CHOICES.get(field.name),
            type=TYPES[FIELD_KINDS[field.name]],
            help=field.name.replace("_", " ") + default,
        )
    parser.add_argument(
        "--eval-every",
        type=int,
        default=1,
        metavar="EPOCHS",
        help="the last one always (default 1)",
    )
    parser.add_argument("--data", metavar="PATH", help=DATA_HELP)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads for TensorFlow (default: all)")
    parser.add_argument("--save", type=Path, metavar="FILE.keras", help="save the trained model")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 trained, 1 diverged, 2 bad request."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: _train(options))


def _train(options: argparse.Namespace) -> int:
    given = vars(options)
    config = TrialConfig.from_dict({name: given[name] for name in FIELD_KINDS if name in given})
    _check_save_path(options.save)
    n_cpus = usable_cpus()
    for option, value, most, why in (
        ("--threads", options.threads, n_cpus, ", the CPUs that there are"),
        ("--eval-every", options.eval_every, MOST, ""),
    ):
        if value is not None and not 1 <= value <= most:
            takes = f"takes a whole number from 1 to {most}{why}"
            raise ConfigError(f"{option} is {value}, but {takes}.")

    image_set = load_images(options.data)
    with _memory_told(config):
        return _run(config, image_set, options)


def _run(config: TrialConfig, image_set: ImageSet, options: argparse.Namespace) -> int:
    save, eval_every = options.save, options.eval_every
    with filtered_stderr():
        from convae.device import open_device
        from convae.engine import Engine

        gpu = {"auto": None, "cpu": False, "gpu": True}[options.device]
        device = open_device(gpu=gpu, n_threads=options.threads)
        print(f"{image_set}. {device.description}.", flush=True)
        print(f"{config.model}: {n_parameters(config):,} parameters", flush=True)
        engine = Engine.for_trial(config, image_set, device)
        engine.compile()
        for fallback in engine.fallbacks.values():
            print(f"{fallback.program} does not work here ({fallback.reason}):", end=" ")
            print("trained by the plain trainer", flush=True)
        engine.submit(
            TRIAL,
            config,
            sharing=DeviceSharing.ALONE,
            evaluates=lambda epoch: epoch % eval_every == 0 or epoch == config.epochs,
        )
        engine.step()  # the plain trainer compiles here
    report = engine.report(TRIAL, 0)
    compile_seconds = report.compile_seconds + sum(engine.compile_seconds.values())
    print(f"compiled in {compile_seconds:.1f} s", flush=True)
    while True:
        for result in report.epochs:
            print(_line(result, config), flush=True)
        if report.status.stands_still:
            break
        engine.step()
        report = engine.report(TRIAL, 0)
    if report.diverged_epoch is not None:
        print(DivergenceError(report.diverged_epoch))
        return 1
    print(f"trained for {report.train_seconds:.1f} s, compilation and evaluation not included")
    if save is not None:
        with _beside(save) as whole:
            engine.model(TRIAL).save(whole)
            whole.replace(save)
        print(f"model saved to {save}")
    return 0


def _line(result: EpochResult, config: TrialConfig) -> str:
    parts = [
        f"epoch {result.epoch:>{len(str(config.epochs))}}/{config.epochs}",
        f"train_mse {result.train_mse:.6f}",
        f"train {result.train_seconds:.2f} s",
    ]
    if result.eval_mse is not None:
        parts.insert(2, f"{EVAL_METRICS[config.split]} {result.eval_mse:.6f}")
        parts.append(f"eval {result.eval_seconds:.2f} s")
    return "  ".join(parts)


def _check_save_path(save: Path | None) -> None:
    """Finds out before the training, not after it, that the model cannot be saved."""
    if save is None:
        return
    if save.suffix != ".keras" or not str(save).isprintable():
        told = repr(str(save))
        raise ConfigError(f"--save {told} must be printable and end in .keras, Keras' own format.")
    with _beside(save) as whole:
        whole.touch()
        if save.is_dir():
            raise ConfigError(f"--save {save} is a folder; name a file in it.")


@contextmanager
def _beside(save: Path) -> Iterator[Path]:
    """Where to write it before it is renamed, so that a file that was there stays till then."""
    try:
        with tempfile.TemporaryDirectory(prefix=".convae-", dir=save.parent) as folder:
            yield Path(folder, save.name)  # Keras looks at the ending
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--save {save} cannot be written ({reason}); name a file in a folder with room for it."
        ) from error


@contextmanager
def _memory_told(config: TrialConfig) -> Iterator[None]:
    """Tells of a trial that is too large for the memory; any other fault is one of ours."""
    try:
        yield
    except Exception as error:
        from convae.pinned import tf

        cause = error.__cause__ if isinstance(error, EngineError | TrialError) else error
        if not isinstance(cause, MemoryError | tf.errors.ResourceExhaustedError):
            raise
        size = WIDTHS[config.model]
        raise UserError(
            f"{size} {config.value(size)} with batch_size {config.batch_size} does not fit into the"
            f" memory; give a smaller {size} or batch_size."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
