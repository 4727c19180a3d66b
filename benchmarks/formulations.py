"""The formulations of the convolutional autoencoder against each other, by batch size.

    python -m benchmarks.formulations            (about five minutes on two CPU cores)
    python -m benchmarks.formulations --short    (batch size 256 alone)

This is what the rule in `convae.formulations.choose` rests on: run it on a new kind of machine, and
change the rule if another formulation wins there. On the CPU, with one thread and with two.
"""

import os
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from benchmarks.race import Epoch, build_parser, cell, print_table, race, write_result
from convae.config import TrialConfig
from convae.data import load_mnist

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

FORMULATIONS = DEFINITION, CHOSEN = "as-defined", "cheaper-on-cpu"
BATCH_SIZES = (64, 256, 1000)
N_IMAGES = 20_000  # enough for a second's work


def part_of_an_epoch(
    config: TrialConfig, data: str | None, *, formulation: str, n_threads: int
) -> tuple[Epoch, str]:
    """An epoch over the first `N_IMAGES` images."""
    from convae.device import open_device
    from convae.formulations import VARIABLE
    from convae.training import Trainer

    os.environ[VARIABLE] = formulation
    mnist = load_mnist(data)
    mnist = replace(mnist, train_images=mnist.train_images[:N_IMAGES])
    device = open_device(gpu=False, n_threads=n_threads)
    training = Trainer(mnist, device).start(config)

    def epoch() -> None:
        training.run_epoch(evaluate=False)

    return epoch, f"{device.description}, {training.compile_seconds:.1f} s to compile"


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/formulations-cpu.json`."""
    options = build_parser("formulations", __doc__, "batch size 256, three turns").parse_args()
    n = 3 if options.short else 5
    rows: list[dict[str, Any]] = []
    table = []
    for n_threads in (1, 2):
        peers = {
            name: partial(part_of_an_epoch, formulation=name, n_threads=n_threads)
            for name in FORMULATIONS
        }
        for batch_size in (256,) if options.short else BATCH_SIZES:
            config = TrialConfig(model="conv", batch_size=batch_size)
            result = race(peers, config, options.data, n)
            ratio = result.ratios(CHOSEN)[DEFINITION]
            cpu_ratio = result.cpu_ratios(CHOSEN)[DEFINITION]
            cells = [cell(result.seconds[name]) for name in FORMULATIONS]
            ratios = [f"{ratio:.2f}", f"{cpu_ratio:.2f}"]
            table.append([str(n_threads), str(batch_size), *cells, *ratios])
            facts = {"n_threads": n_threads, "batch_size": batch_size}
            found = {"ratio_of_medians": ratio, "cpu_ratio_of_medians": cpu_ratio}
            rows.append({**facts, **asdict(result), **found})
    title = f"Seconds for {N_IMAGES:,} images, median of {n} (lowest to highest)"
    headings = ["threads", "batch size", *FORMULATIONS, "ratio", "of processor seconds"]
    print_table(title, headings, table)
    if not options.short:
        what = f"seconds to train the conv model on {N_IMAGES} images, float32"
        write_result("formulations-cpu", {"what": what, "n": n, "rows": rows})


if __name__ == "__main__":
    main()
