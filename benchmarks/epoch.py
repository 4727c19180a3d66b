"""An epoch of the trainer against Keras' `model.fit` of the same model, in one run.

    python -m benchmarks.epoch            (five epochs each; about four minutes on two CPU cores)
    python -m benchmarks.epoch --short    (one each)

Both train on the 60,000 images at batch size 256 with the report's optimiser, taking turns, so
that a noisy machine disturbs both alike. Compilation and a first epoch of each are not timed. The
peer is `fit` as Keras' own guide writes it: float32 NumPy arrays, a batch size, and on a GPU
`jit_compile=True`.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from convae.config import TrialConfig
from convae.data import Mnist, load_mnist
from convae.device import Device, open_device
from convae.hardware import describe_machine, versions
from convae.models import build_model
from convae.training import Trainer

RESULTS = Path(__file__).parent / "results"


def fit_epoch(config: TrialConfig, mnist: Mnist, device: Device) -> Callable[[], None]:
    """An epoch of `model.fit`, warmed up."""
    model = build_model(config)
    optimizer = keras.optimizers.SGD(config.learning_rate, config.momentum, config.nesterov)
    model.compile(optimizer, loss="mse", jit_compile=device.jit_compile)
    images = (mnist.train_images[..., np.newaxis] / 255).astype(np.float32)

    def epoch() -> None:
        model.fit(images, images, batch_size=config.batch_size, epochs=1, verbose=0)

    epoch()
    return epoch


def trainer_epoch(config: TrialConfig, mnist: Mnist, device: Device) -> Callable[[], None]:
    """An epoch of the trainer, warmed up."""
    training = Trainer(mnist, device).start(config)

    def epoch() -> None:
        training.run_epoch(evaluate=False)

    epoch()
    return epoch


def seconds(epoch: Callable[[], None]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    epoch()
    return time.perf_counter() - start


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/epoch-DEVICE.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.epoch", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one epoch of each, nothing written")
    parser.add_argument("--data", help="mnist.npz or a folder of IDX files")
    options = parser.parse_args()
    n = 1 if options.short else 5
    mnist, device = load_mnist(options.data), open_device()
    table = Table(
        title=f"Seconds an epoch, median of {n} (lowest to highest), {device.description}"
    )
    for heading in ("model", "model.fit", "trainer", "fit ÷ trainer"):
        table.add_column(heading)
    rows = []
    for model in ("conv", "dense"):
        config = TrialConfig(model=model)
        peers = {
            "model.fit": fit_epoch(config, mnist, device),
            "trainer": trainer_epoch(config, mnist, device),
        }
        times = {name: [] for name in peers}  # type: dict[str, list[float]]
        for _ in range(n):
            for name, epoch in peers.items():
                times[name].append(seconds(epoch))
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio = medians["model.fit"] / medians["trainer"]
        cells = [f"{medians[k]:.2f} ({min(v):.2f}–{max(v):.2f})" for k, v in times.items()]
        table.add_row(model, *cells, f"{ratio:.2f}")
        rows.append({"model": model, "seconds": times, "ratio_of_medians": ratio})
    Console(width=110).print(table)
    if not options.short:
        kind = "gpu" if device.jit_compile else "cpu"
        path = RESULTS / f"epoch-{kind}.json"
        result = {
            "what": "seconds a training epoch of 60,000 MNIST images, batch size 256, float32",
            "device": device.description,
            "machine": describe_machine(),
            "versions": versions(),
            "rows": rows,
        }
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
