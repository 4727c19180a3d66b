"""The formulations of the convolutional autoencoder on a CPU against each other, by batch size.

    python -m benchmarks.formulations            (about five minutes on two CPU cores)
    python -m benchmarks.formulations --short    (batch size 256 alone)

That a CPU computes the cheaper form rests on this: run it on a new kind of processor, with one
thread and with two. What a GPU computes, `benchmarks.lanes` measures.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from benchmarks.race import Epoch, build_parser, headings, print_table, race, write_result
from convae.config import TrialConfig
from convae.data import load_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

DEFINITION, CHEAPER = "as-defined", "cheaper-on-cpu"
THREADS = (1, 2)
BATCH_SIZES = (64, 256, 1000)
N_IMAGES = 20_000  # about a second's work


def part_of_an_epoch(
    config: TrialConfig, data: str | None, *, formulation: str, n_threads: int
) -> tuple[Epoch, str]:
    """An epoch over the first images, on so many threads."""
    from convae.device import open_device
    from convae.formulations import as_defined, conv_on_cpu
    from convae.training import Trainer

    image_set = load_images(data)
    image_set = replace(image_set, train_images=image_set.train_images[:N_IMAGES])
    device = open_device(gpu=False, n_threads=n_threads)
    form = {DEFINITION: as_defined, CHEAPER: conv_on_cpu}[formulation]
    training = Trainer(image_set, device, form).start(config)

    def epoch() -> None:
        training.run_epoch(evaluate=False)

    return epoch, f"{device.description}, {training.compile_seconds:.1f} s to compile"


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/formulations-cpu.json`."""
    options = build_parser("formulations", __doc__, "batch size 256, three turns").parse_args()
    n = 3 if options.short else 5
    rows: list[dict[str, Any]] = []
    table = []
    batch_sizes = (256,) if options.short else BATCH_SIZES
    for n_threads, batch_size in product(THREADS, batch_sizes):
        peers = {
            name: partial(part_of_an_epoch, formulation=name, n_threads=n_threads)
            for name in (DEFINITION, CHEAPER)
        }
        config = TrialConfig(model="conv", batch_size=batch_size)
        result = race(peers, config, options.data, n)
        for name in set(peers) - set(result.seconds):
            sys.exit(f"{name} {result.notes[name]}")
        facts, lines = result.compared(DEFINITION)
        rows.append({"n_threads": n_threads, "batch_size": batch_size, **facts})
        table += [[str(n_threads), str(batch_size), *line] for line in lines]
    what = f"seconds to train the conv model on {N_IMAGES:,} images"
    title = f"{what}, median of {n} (lowest to highest)"
    print_table(title, ["threads", "batch size", *headings(DEFINITION)], table)
    if not options.short:
        write_result("formulations-cpu", {"what": what, "n": n, "rows": rows})


if __name__ == "__main__":
    main()
