"""An epoch of the trainer against its peers: Keras' `model.fit` and PyTorch where installed.

    python -m benchmarks.peers            (five epochs each; 15 minutes on two CPU cores)
    python -m benchmarks.peers --short    (one each)

All train on the 60,000 images at batch size 256 with the report's optimiser. Peers are written as
their own guides have it. Keras: `fit` with float32 NumPy arrays and a batch size, on a GPU with
`jit_compile=True`; once with oneDNN on, as this project sets it, and once as TensorFlow decides by
itself, which leaves it off where the processor lacks AVX-512. PyTorch: a `DataLoader` over a
`TensorDataset` and the usual loop, channels last, once as it is and once through `torch.compile`.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.race import (
    CONFIGS,
    Epoch,
    Peer,
    build_parser,
    headings,
    print_table,
    race,
    write_result,
)
from convae.config import TrialConfig
from convae.data import ImageSet, load_images

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Peers' processes share a GPU: none may take all its memory.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

MANY = 1_000_000  # epochs: more than are timed
TRAINER, FIT, FIT_DEFAULT = "trainer", "model.fit", "model.fit, oneDNN as TensorFlow decides"


def trainer(config: TrialConfig, data: str | None) -> tuple[Epoch, str]:
    """This project's."""
    from convae.device import open_device
    from convae.engine import Engine
    from convae.sharing import DeviceSharing

    device = open_device()
    engine = Engine.for_trial(config, load_images(data), device)
    engine.compile()
    config = replace(config, epochs=MANY)
    engine.submit(
        "trial", config, sharing=DeviceSharing.ALONE, evaluates=lambda epoch: epoch == MANY
    )

    def epoch() -> None:
        engine.step()
        while not engine.report("trial", 0).epochs:
            engine.step()

    return epoch, device.description


def model_fit(config: TrialConfig, data: str | None) -> tuple[Epoch, str]:
    """Keras' own loop over the same Keras model."""
    import tensorflow as tf

    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    epoch = fit_epochs(config, load_images(data), jit_compile=on_gpu)
    return epoch, "GPU" if on_gpu else "CPU"


def fit_epochs(
    config: TrialConfig, image_set: ImageSet, *, jit_compile: bool
) -> Callable[[], float]:
    """An epoch of `model.fit`, which returns its loss."""
    import keras

    from convae.models import build_model

    model = build_model(config)
    optimizer = keras.optimizers.SGD(config.learning_rate, config.momentum, config.nesterov)
    model.compile(optimizer, loss="mse", jit_compile=jit_compile)
    images = (image_set.train_images[..., np.newaxis] / 255).astype(np.float32)

    def epoch() -> float:
        history = model.fit(images, images, batch_size=config.batch_size, epochs=1, verbose=0)
        return float(history.history["loss"][0])

    return epoch


def model_fit_by_default(config: TrialConfig, data: str | None) -> tuple[Epoch, str]:
    """The same without this project's setting of oneDNN (`convae/__init__.py`)."""
    os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)  # TensorFlow is not imported yet
    return model_fit(config, data)


def torch_eager(config: TrialConfig, data: str | None) -> tuple[Epoch, str]:
    """PyTorch as it is."""
    return _torch(config, data, compiled=False)


def torch_compiled(config: TrialConfig, data: str | None) -> tuple[Epoch, str]:
    """PyTorch through `torch.compile`."""
    return _torch(config, data, compiled=True)


def _torch(config: TrialConfig, data: str | None, *, compiled: bool) -> tuple[Epoch, str]:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks.agreement import build_torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = build_torch(config).to(device)
    model: Any = torch.compile(module) if compiled else module
    optimizer = torch.optim.SGD(
        module.parameters(), config.learning_rate, config.momentum, nesterov=config.nesterov
    )
    images = torch.from_numpy(load_images(data).train_images.astype(np.float32) / 255)
    loader = DataLoader(TensorDataset(images.unsqueeze(1)), config.batch_size, shuffle=True)

    def epoch() -> None:
        for (batch,) in loader:
            x = batch.to(device, memory_format=torch.channels_last)
            loss = nn.functional.mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch, f"{device}, PyTorch {torch.__version__}"


PEERS: dict[str, Peer] = {
    FIT: model_fit,
    FIT_DEFAULT: model_fit_by_default,
    "PyTorch": torch_eager,
    "PyTorch compiled": torch_compiled,
    TRAINER: trainer,
}


def run(names: Sequence[str], n: int, data: str | None, result_name: str | None) -> None:
    """Races these peers on both models, prints the table and writes the result if it has a name."""
    load_images(data)  # fetched once, here, if need be
    rows, table, device = [], [], ""
    for label, config in CONFIGS.items():
        result = race({name: PEERS[name] for name in names}, config, data, n)
        device = result.notes[TRAINER]
        facts, lines = result.compared(TRAINER)
        rows.append({"model": label, **facts})
        table += [[label, *line] for line in lines]
    title = f"Seconds an epoch, median of {n} (lowest to highest), {device}"
    print_table(title, ["model", *headings(TRAINER)], table)
    if result_name:
        kind = "gpu" if device.startswith("GPU") else "cpu"
        what = "seconds a training epoch of 60,000 MNIST images, batch size 256, float32"
        write_result(f"{result_name}-{kind}", {"what": what, "n": n, "rows": rows})


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/peers-DEVICE.json`."""
    options = build_parser("peers", __doc__, "one epoch of each").parse_args()
    names = list(PEERS)
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: without it.")
        names = [FIT, FIT_DEFAULT, TRAINER]
    n, result_name = (1, None) if options.short else (5, "peers")
    run(names, n, options.data, result_name)


if __name__ == "__main__":
    main()
