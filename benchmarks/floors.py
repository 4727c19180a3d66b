"""The least time that each row of the speed table could take: arithmetic and bytes over rates.

    python -m benchmarks.floors            (about a minute on two CPU cores)
    python -m benchmarks.floors --short    (each rate once)

Arithmetic: a layer's forward pass is 2 × (values that one output value is made of) × (output
values) FLOP, without bias, activation and pooling. Backward, the gradients of its weights and of
its input cost as much again each; the first layer needs none of its input: 3 × forward − forward of
the first layer, an image. Bytes: the least that passes memory, each image's pixels once an epoch
and, each step, weights, gradients and velocities once read and once written. Rates: the fastest
matrix product and the fastest sum of two arrays (read, read, write) that TensorFlow reaches on this
processor's cores, all at work.
"""

import math
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.race import CONFIGS, build_parser, print_table, write_result
from convae.config import TrialConfig
from convae.stderr_filter import filtered_stderr

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

N_TRAIN, N_TEST = 60_000, 10_000
# (rows, inner, columns) of matrix products: two square ones for the rate, then the dense model's.
PRODUCTS = (
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (256, 784, 512),
    (256, 512, 784),
    (784, 256, 512),
)
N_ELEMENTS = 2**25  # 128 MiB an array: no cache holds three
FLOAT_BYTES = 4
N_TRIALS, N_EPOCHS = 8, 5  # of each model, in the table's study


def forward_flop(layer: Any) -> int:
    """FLOP of a layer's forward pass for an image; 0 where nothing is multiplied."""
    import keras

    if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        n_outputs = math.prod(layer.output.shape[1:])
        return 2 * math.prod(layer.kernel.shape[:-1]) * int(n_outputs)
    return 0


def arithmetic(config: TrialConfig) -> dict[str, float]:
    """What an epoch of training, and a test of the model, need at least.

    Returns:
        train_flop, train_bytes: of an epoch.
        test_flop: of the forward passes of the test images.
        layers_bytes: of an epoch whose every layer's output went through memory: written once and
            read twice, by the next layer and for the gradient, and its gradient written and read.
    """
    from convae.models import build_model

    model = build_model(config)
    each = [flop for flop in map(forward_flop, model.layers) if flop]
    n_steps = math.ceil(N_TRAIN / config.batch_size)
    n_pixels = math.prod(model.input_shape[1:])
    n_values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers[1:])
    train_bytes = N_TRAIN * n_pixels + n_steps * model.count_params() * 3 * 2 * FLOAT_BYTES
    return {
        "train_flop": float(N_TRAIN * (3 * sum(each) - each[0])),
        "test_flop": float(N_TEST * sum(each)),
        "train_bytes": float(train_bytes),
        "layers_bytes": float(train_bytes + N_TRAIN * n_values * 5 * FLOAT_BYTES),
    }


def fastest(work: Callable[[], Any], n: int) -> float:
    """Seconds of the fastest of n calls, after one that is not timed."""
    work()
    times = []
    for _ in range(n):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def measure_rates(n: int) -> tuple[list[dict[str, Any]], float]:
    """Rates of matrix products in FLOP/s by size, and of memory in bytes/s; the fastest of n."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(len(os.sched_getaffinity(0)))

    @tf.function
    def products_of(a: Any, b: Any, n_times: Any) -> Any:
        """A value of the last product; a loop's body is computed each time."""
        _, last = tf.while_loop(
            lambda i, _: i < n_times,
            lambda i, _: (i + 1, tf.matmul(a, b)),
            (tf.constant(0), tf.zeros((a.shape[0], b.shape[1]))),
            parallel_iterations=1,
        )
        return last[0, 0]

    found = []
    for rows, inner, columns in PRODUCTS:
        a, b = tf.random.uniform((rows, inner)), tf.random.uniform((inner, columns))
        flop = 2 * rows * inner * columns
        n_times = max(1, 2**33 // flop)  # long enough for the clock
        count = tf.constant(n_times)
        work = products_of.get_concrete_function(a, b, count)
        seconds = fastest(lambda work=work, a=a, b=b, n=count: work(a, b, n).numpy(), n)
        size = f"{rows} × {inner} by {inner} × {columns}"
        found.append({"size": size, "flop_a_second": n_times * flop / seconds})
    x, y = tf.ones(N_ELEMENTS), tf.ones(N_ELEMENTS)
    seconds = fastest(lambda: tf.add(x, y)[0].numpy(), n)
    return found, 3 * N_ELEMENTS * FLOAT_BYTES / seconds


def main() -> None:
    """Measures, prints three tables and writes `benchmarks/results/floors-cpu.json`."""
    options = build_parser("floors", __doc__, "each rate once").parse_args()
    with filtered_stderr():
        products, bytes_a_second = measure_rates(1 if options.short else 10)
    flop_a_second = max(product["flop_a_second"] for product in products)
    rates = [[x["size"], f"{x['flop_a_second'] / 1e9:.0f} GFLOP/s"] for x in products]
    rates.append([f"a + b of {N_ELEMENTS:,} elements", f"{bytes_a_second / 1e9:.1f} GB/s"])
    print_table("Rates of this machine, float32", ["what", "fastest"], rates)

    needs = {name: arithmetic(config) for name, config in CONFIGS.items()}
    floors: dict[str, float] = {}
    table = []
    for name, need in needs.items():
        of_flop = need["train_flop"] / flop_a_second
        of_bytes = need["train_bytes"] / bytes_a_second
        floors[f"{name} epoch"] = max(of_flop, of_bytes)
        table.append(
            [
                name,
                f"{need['train_flop'] / 1e9:.0f}",
                f"{of_flop:.2f}",
                f"{need['train_bytes'] / 1e9:.1f}",
                f"{of_bytes:.2f}",
                f"{max(of_flop, of_bytes):.2f}",
                f"{need['layers_bytes'] / bytes_a_second:.2f}",
            ]
        )
    headings = ["model", "GFLOP", "seconds", "GB", "seconds", "floor", "through memory"]
    title = f"An epoch of {N_TRAIN:,} images, batch size {CONFIGS['conv'].batch_size}"
    print_table(title, headings, table)

    tests = sum(need["test_flop"] for need in needs.values()) / flop_a_second
    study = N_TRIALS * N_EPOCHS * (sum(floors.values()) + tests)
    floors[f"study of {N_TRIALS} + {N_TRIALS} trials of {N_EPOCHS} epochs"] = study
    rows = [[name, f"{seconds:.2f}"] for name, seconds in floors.items()]
    print_table("Floors on all cores", ["what", "seconds"], rows)
    if not options.short:
        write_result(
            "floors-cpu",
            {
                "what": "least seconds by arithmetic and bytes over measured rates, float32",
                "products": products,
                "memory_bytes_a_second": bytes_a_second,
                "needs": needs,
                "floor_seconds": floors,
            },
        )


if __name__ == "__main__":
    main()
