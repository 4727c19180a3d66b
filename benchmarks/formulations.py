"""The formulations of the convolutional autoencoder against each other, by batch size.

    python -m benchmarks.formulations            (about five minutes on two CPU cores)
    python -m benchmarks.formulations --short    (batch size 256 alone)
    python -m benchmarks.formulations --gpu      (on the GPU, in both precisions)

This is what the rule in `convae.formulations.choose` rests on: run it on a new kind of machine, and
change the rule if another formulation wins there. On a CPU with one thread and with two.
"""

import os
import sys
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from typing import Any

from benchmarks.race import Epoch, build_parser, cell, print_table, race, write_result
from convae.config import PRECISIONS, TrialConfig
from convae.data import load_mnist

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

DEFINITION = "as-defined"
ON_CPU = (DEFINITION, "cheaper-on-cpu")
ON_GPU = (*ON_CPU, "patches")  # which takes a CPU four times as long as the definition
BATCH_SIZES = (64, 256, 1000)


def part_of_an_epoch(
    config: TrialConfig, data: str | None, *, formulation: str, n_images: int, n_threads: int | None
) -> tuple[Epoch, str]:
    """An epoch over the first images, on so many threads of the CPU or, if None, on the GPU."""
    from convae.device import open_device
    from convae.formulations import VARIABLE
    from convae.training import Trainer

    os.environ[VARIABLE] = formulation
    mnist = load_mnist(data)
    mnist = replace(mnist, train_images=mnist.train_images[:n_images])
    device = open_device(gpu=n_threads is None, n_threads=n_threads)
    training = Trainer(mnist, device).start(config)

    def epoch() -> None:
        training.run_epoch(evaluate=False)

    return epoch, f"{device.description}, {training.compile_seconds:.1f} s to compile"


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/formulations-DEVICE.json`."""
    parser = build_parser("formulations", __doc__, "batch size 256, three turns")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, not the CPU")
    options = parser.parse_args()
    n = 3 if options.short else 5
    # Enough for about a second's work.
    names, n_images, threads, precisions = ON_CPU, 20_000, (1, 2), PRECISIONS[:1]
    if options.gpu:
        names, n_images, threads, precisions = ON_GPU, 60_000, (None,), PRECISIONS
    rows: list[dict[str, Any]] = []
    table = []
    batch_sizes = (256,) if options.short else BATCH_SIZES
    for n_threads, precision, batch_size in product(threads, precisions, batch_sizes):
        peers = {
            name: partial(
                part_of_an_epoch, formulation=name, n_images=n_images, n_threads=n_threads
            )
            for name in names
        }
        config = TrialConfig(model="conv", batch_size=batch_size, precision=precision)
        result = race(peers, config, options.data, n)
        for name in set(names) - set(result.seconds):
            sys.exit(f"{name} {result.notes[name]}")
        setting = {"n_threads": n_threads, "precision": precision, "batch_size": batch_size}
        ratios, cpu_ratios = result.ratios(DEFINITION), result.cpu_ratios(DEFINITION)
        facts = {"ratios_of_medians": ratios, "cpu_ratios_of_medians": cpu_ratios}
        rows.append({**setting, **asdict(result), **facts})
        for name in names:
            each = [f"{r[name]:.2f}" if name in r else "" for r in (ratios, cpu_ratios)]
            where = "GPU" if n_threads is None else str(n_threads)
            table.append(
                [where, precision, str(batch_size), name, cell(result.seconds[name]), *each]
            )
    what = f"seconds to train the conv model on {n_images:,} images"
    headings = ["threads", "precision", "batch size", "formulation", "seconds"]
    headings += [f"÷ {DEFINITION}", "of processor seconds"]
    print_table(f"{what}, median of {n} (lowest to highest)", headings, table)
    if not options.short:
        kind = "gpu" if options.gpu else "cpu"
        write_result(f"formulations-{kind}", {"what": what, "n": n, "rows": rows})


if __name__ == "__main__":
    main()
