"""An epoch of the trainer against Keras' `model.fit` of the same model, in one run.

    python -m benchmarks.epoch            (five epochs each; about three minutes on two CPU cores)
    python -m benchmarks.epoch --short    (one each)

Both train on the 60,000 images at batch size 256 with the report's optimiser, taking turns, each in
a process of its own. Compilation and a first epoch of each are not timed.
"""

from benchmarks.peers import FIT, TRAINER, run
from benchmarks.race import build_parser


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/epoch-DEVICE.json`."""
    options = build_parser("epoch", __doc__, "one epoch of each").parse_args()
    n, result_name = (1, None) if options.short else (5, "epoch")
    run([FIT, TRAINER], n, options.data, result_name)


if __name__ == "__main__":
    main()
