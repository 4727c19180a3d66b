"""A small study by this project against one written the usual way with Ray Tune and `model.fit`.

    python -m benchmarks.study            (8 conv + 8 dense-512 trials of 5 epochs, once each)
    python -m benchmarks.study --short    (1 + 1 trials of 2 epochs)
    python -m benchmarks.study --gpus 1   (some minutes)

Each side is one command in a process of its own, and its time is the command's: imports, Ray's
start, compilation and all, but no report. Ours is `python -m study.run` with 8 seeds. The peer is
Ray's own Keras example with this model: a function that loads the data, builds, compiles and fits,
reported by a callback, searched with `OptunaSearch`; learning rate and momentum vary in a range
without divergence. Both train on all 60,000 images at batch size 256 with as many trials at once as
there are cores, and test after every epoch. Nobody has the other's or an earlier run's programs:
our cache of them is off. On two cores the full form takes about twenty minutes.

On a GPU the peer runs 1 + 1 trials, since each takes it most of a minute, and its time is scaled:
for each further trial the time in which one of them trained is added, without Tune's own beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.race import build_parser, descendants, print_table, write_result
from convae.data import load_images
from convae.xla import SWITCH

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SIDES = ("Ray Tune + model.fit", "study.run")
POLL_SECONDS = 1.0


def run_peer(n_trials: int, n_epochs: int, data: str | None, n_gpus: int) -> None:
    """The study as one would write it after Ray's documentation; prints the trials' seconds."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    def train_autoencoder(config: dict[str, Any]) -> None:
        import keras
        from ray.tune.integration.keras import TuneReportCheckpointCallback

        from convae.config import TrialConfig
        from convae.models import build_model

        image_set = load_images(data)
        train, test = (
            (images[..., np.newaxis] / 255).astype("float32")
            for images in (image_set.train_images, image_set.test_images)
        )
        model = build_model(TrialConfig(model=config["model"]))
        optimizer = keras.optimizers.SGD(config["learning_rate"], config["momentum"], nesterov=True)
        model.compile(optimizer, loss="mse", jit_compile=bool(n_gpus))
        model.fit(
            train,
            train,
            batch_size=256,
            epochs=n_epochs,
            validation_data=(test, test),
            verbose=0,
            callbacks=[TuneReportCheckpointCallback(checkpoint_on=[], metrics=["val_loss"])],
        )

    ray.init(log_to_driver=False)
    seconds = {}
    for model in ("conv", "dense"):
        tuner = tune.Tuner(
            tune.with_resources(train_autoencoder, {"cpu": 1, "gpu": 1 if n_gpus else 0}),
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(), metric="val_loss", mode="min", num_samples=n_trials
            ),
            run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(prefix="convae-bench-")),
            param_space={
                "model": model,
                "learning_rate": tune.loguniform(0.1, 1.0),
                "momentum": tune.uniform(0.0, 0.6),
            },
        )
        results = tuner.fit()
        if results.num_errors or len(results) != n_trials:
            sys.exit(f"{results.num_errors} of the peer's {len(results)} trials failed.")
        seconds[model] = [result.metrics["time_total_s"] for result in results]
    print("\n" + json.dumps(seconds))


def measure(
    side: str, n_trials: int, n_epochs: int, data: str | None, n_gpus: int
) -> dict[str, Any]:
    """Runs one side to its end.

    Returns:
        seconds: of the whole command; of the peer on a GPU scaled to all trials.
        measured_seconds: of the command that ran.
        measured_trials: of each model.
        trial_seconds: by model, as Tune counts them; the peer's only.
        worker_peak_gib: the largest worker's peak resident memory.
        busy_share: Σ train_seconds ÷ (seconds × slots); ours only.
    """
    with tempfile.TemporaryDirectory(prefix="convae-bench-") as folder:
        if side == SIDES[0]:
            n_measured = 1 if n_gpus else n_trials
            command = ["benchmarks.study", "--peer", str(n_measured), str(n_epochs), str(n_gpus)]
        else:
            n_measured = n_trials
            command = ["study.run", "--preset", "reference", "--models", "conv", "dense"]
            command += ["--hidden", "512", "--seeds", str(n_trials), "--epochs", str(n_epochs)]
            command += ["--gpus", str(n_gpus), "--storage", folder, "--name", "run", "--no-report"]
        command += ["--data", data] if data else []
        start, peaks, pipe = time.perf_counter(), [0.0], subprocess.PIPE
        command = [sys.executable, "-m", *command]
        environment = os.environ | {SWITCH: "0"}
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment
        ) as process:
            output = None
            while output is None:
                with suppress(subprocess.TimeoutExpired):
                    output, errors = process.communicate(timeout=POLL_SECONDS)
                found = descendants(process.pid).values()
                peaks += [each.peak_gib for each in found if each.title.startswith("ray::")]
        seconds = time.perf_counter() - start
        if process.returncode:
            sys.exit(f"{side} failed:\n{output[-2000:]}\n{errors[-2000:]}")
        result: dict[str, Any] = {"side": side, "seconds": seconds, "worker_peak_gib": max(peaks)}
        result |= {"measured_seconds": seconds, "measured_trials": n_measured}
        if side == SIDES[0]:
            result["trial_seconds"] = of_trials = json.loads(output.splitlines()[-1])
            one_more = sum(statistics.mean(each) for each in of_trials.values())
            result["seconds"] += (n_trials - n_measured) * one_more
        if side == SIDES[1]:
            trials = pd.read_parquet(Path(folder) / "run" / "trials.parquet")
            if len(trials) != 2 * n_trials or (trials["state"] != "completed").any():
                sys.exit(f"{side}: not all trials completed: {trials['state'].tolist()}")
            n_slots = n_gpus or os.cpu_count() or 1
            result["n_slots"] = n_slots
            result["busy_share"] = float(trials["train_seconds"].sum()) / (seconds * n_slots)
            result["compile_seconds"] = trials["compile_seconds"].tolist()
    return result


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/study-DEVICE.json`."""
    parser = build_parser("study", __doc__, "1 + 1 trials of 2 epochs")
    parser.add_argument("--turns", type=int, default=1, help="of each side")
    parser.add_argument("--gpus", type=int, default=0, help="to use; default: the CPU")
    parser.add_argument("--peer", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        n_trials, n_epochs, n_gpus = options.peer
        run_peer(n_trials, n_epochs, options.data, n_gpus)
        return
    load_images(options.data)  # fetched once, here, if need be
    n_trials, n_epochs = (1, 2) if options.short else (8, 5)
    kind = "gpu" if options.gpus else "cpu"
    what = f"{n_trials} conv + {n_trials} dense-512 trials of {n_epochs} epochs"
    if options.gpus and n_trials > 1:
        what += f"; {SIDES[0]} measured on 1 + 1 trials and scaled"
    result: dict[str, Any] = {"what": what, "n": options.turns, "runs": []}
    for side in SIDES * options.turns:
        result["runs"].append(measure(side, n_trials, n_epochs, options.data, options.gpus))
        write_result(f"study-{kind}", result, short=options.short)
    medians, table = {}, []
    for side in SIDES:
        custom = [run for run in result["runs"] if run["side"] == side]
        medians[side] = statistics.median(run["seconds"] for run in custom)
        busy = f"{custom[-1]['busy_share']:.2f}" if "busy_share" in custom[-1] else "not measured"
        peak = max(run["worker_peak_gib"] for run in custom)
        measured = f"{custom[-1]['measured_seconds']:.0f} ({2 * custom[-1]['measured_trials']})"
        table.append([side, f"{medians[side]:.0f}", measured, busy, f"{peak:.2f}"])
    ratio = medians[SIDES[0]] / medians[SIDES[1]]
    title = f"{what}; median of n = {options.turns}: ratio {ratio:.2f}"
    headings = ["by", "seconds", "measured (trials)", "busy share", "worker's peak GiB"]
    print_table(title, headings, table)
    write_result(f"study-{kind}", result | {"ratio_of_medians": ratio}, short=options.short)


if __name__ == "__main__":
    main()
