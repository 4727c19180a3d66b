"""What `--precision bfloat16` changes: the MSE that is reached, and the time of an epoch.

    python -m benchmarks.precision                       (ten epochs, five seeds; of both models)
    python -m benchmarks.precision --model dense-512     (of one model, see benchmarks/README.md)
    python -m benchmarks.precision --short               (one epoch, one seed)

Conv and dense-512 at batch size 256, each seed in both precisions, one after the other: they start
from the same weights and see the images in the same order, so that their difference is paired. The
first of a precision's epochs is not timed.
"""

import os
import statistics
from dataclasses import replace
from itertools import chain
from typing import Any

from benchmarks.race import CONFIGS, build_parser, cell, print_table, write_result
from convae.config import PRECISIONS, TrialConfig
from convae.data import load_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def measure(trainer: Any, config: TrialConfig) -> dict[str, Any]:
    """Trains a trial and returns what it reached and took."""
    training = trainer.start(config)
    epochs = [training.run_epoch() for _ in range(config.epochs)]
    return {
        "seed": config.seed,
        "precision": config.precision,
        "test_mse": epochs[-1].eval_mse,
        "train_mse": epochs[-1].train_mse,
        "seconds": [epoch.train_seconds for epoch in epochs],
    }


def with_spread(values: list[float], sign: str = "") -> str:
    """Mean ± sample standard deviation; without it for one value."""
    spread = f" ± {statistics.stdev(values):.5f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.5f}{spread}"


def lines(name: str, rows: list[dict[str, Any]]) -> list[list[str]]:
    """A model's lines of the table: each precision, and what the second one changes."""
    found, mses, medians = [], [], []
    for precision in PRECISIONS:
        custom = [row for row in rows if row["precision"] == precision]
        mses.append([row["test_mse"] for row in custom])
        times = list(chain(*(row["seconds"][1:] or row["seconds"] for row in custom)))
        medians.append(statistics.median(times))
        found.append([name, precision, with_spread(mses[-1]), cell(times)])
    differences = with_spread([b - a for a, b in zip(*mses, strict=True)], sign="+")
    found.append([name, "difference, ratio", differences, f"{medians[1] / medians[0]:.2f}"])
    return found


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/precision-MODEL-DEVICE.json`."""
    parser = build_parser("precision", __doc__, "one epoch, one seed")
    parser.add_argument("--model", choices=CONFIGS, help="one model alone")
    options = parser.parse_args()
    from convae.device import open_device
    from convae.training import Trainer

    n_seeds, n_epochs = (1, 1) if options.short else (5, 10)
    device = open_device()
    trainer = Trainer(load_images(options.data), device)
    kind = "gpu" if device.jit_compile else "cpu"
    what = f"test MSE after {n_epochs} epochs at batch size 256, by precision, paired by seed"
    table = []
    for name in [options.model] if options.model else CONFIGS:
        config = CONFIGS[name]
        rows = [
            measure(trainer, replace(config, precision=precision, seed=seed, epochs=n_epochs))
            for seed in range(n_seeds)
            for precision in PRECISIONS
        ]
        table += lines(name, rows)
        if not options.short:
            entries = {"what": what, "n": n_seeds, "model": name, "rows": rows}
            write_result(f"precision-{name}-{kind}", entries)
    title = (
        f"Test MSE after {n_epochs} epochs, mean ± standard deviation of n = {n_seeds} seeds;"
        f" seconds an epoch, median (lowest to highest); {device.description}"
    )
    print_table(title, ["model", "precision", "test MSE", "seconds an epoch"], table)


if __name__ == "__main__":
    main()
