"""Trains one trial without Ray, printing a line an epoch.

    python -m convae.train --model conv --epochs 10 --save conv.keras

On two CPU cores an epoch takes about 6 s (conv) or 2 s (dense, 512 units). With the defaults, the
report's setting, the conv model's test MSE is 0.020 after 10 epochs (0.018 to 0.022 over 5 seeds).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from convae.config import (
    BY_NAME,
    DATA_HELP,
    FIELD_KINDS,
    MODELS,
    PRECISIONS,
    SPLITS,
    ConfigError,
    TrialConfig,
)
from convae.errors import DivergenceError, UserError

CHOICES = {
    "model": MODELS,
    "hidden_activation": BY_NAME["hidden_activation"].search.grid,
    "split": SPLITS,
    "precision": PRECISIONS,
}
TYPES = {"text": str, "int": int, "float": float}


def build_parser() -> argparse.ArgumentParser:
    """An option for each field of TrialConfig, and where to train, read and save."""
    parser = argparse.ArgumentParser(
        prog="convae-train" if sys.argv[0].endswith("convae-train") else "python -m convae.train",
        description="Train one autoencoder on MNIST, or other images, without Ray.",
    )
    for field in fields(TrialConfig):
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
    options = vars(build_parser().parse_args(arguments))
    data, device_name, threads, save, eval_every = (
        options.pop(name) for name in ("data", "device", "threads", "save", "eval_every")
    )
    try:
        return _train(TrialConfig.from_dict(options), data, device_name, threads, save, eval_every)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _train(
    config: TrialConfig,
    data: str | None,
    device_name: str,
    threads: int | None,
    save: Path | None,
    eval_every: int,
) -> int:
    _check_save_path(save)
    for option, value in (("--threads", threads), ("--eval-every", eval_every)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} is {value}, but takes a whole number from 1.")

    from convae.data import load_images

    image_set = load_images(data)

    from convae.quiet import without_native_notes

    with without_native_notes():
        from convae.device import open_device
        from convae.training import Trainer

        gpu = {"auto": None, "cpu": False, "gpu": True}[device_name]
        device = open_device(gpu=gpu, n_threads=threads)
        print(f"{image_set}. {device.description}.", flush=True)
        training = Trainer(image_set, device).start(config)
    print(
        f"{config.model}: {training.n_parameters:,} parameters, "
        f"compiled in {training.compile_seconds:.1f} s",
        flush=True,
    )
    train_seconds = 0.0
    for epoch in range(1, config.epochs + 1):
        try:
            evaluate = epoch % eval_every == 0 or epoch == config.epochs
            result = training.run_epoch(evaluate=evaluate)
        except DivergenceError as error:
            print(error)
            return 1
        train_seconds += result.train_seconds
        parts = [
            f"epoch {epoch:>{len(str(config.epochs))}}/{config.epochs}",
            f"train_mse {result.train_mse:.6f}",
            f"train {result.train_seconds:.2f} s",
        ]
        if result.eval_mse is not None:
            parts.insert(2, f"{training.eval_metric} {result.eval_mse:.6f}")
            parts.append(f"eval {result.eval_seconds:.2f} s")
        print("  ".join(parts), flush=True)
    print(f"trained for {train_seconds:.1f} s, compilation and evaluation not included")
    if save is not None:
        training.model.save(save)
        print(f"model saved to {save}")
    return 0


def _check_save_path(save: Path | None) -> None:
    """Finds out before the training, not after it, that the model cannot be saved."""
    if save is None:
        return
    if save.suffix != ".keras":
        raise ConfigError(f"--save {save} must end in .keras, Keras' own format.")
    if not save.parent.is_dir() or not os.access(save.parent, os.W_OK):
        raise ConfigError(f"--save {save}: the folder {save.parent} is missing or not writable.")


if __name__ == "__main__":
    sys.exit(main())
