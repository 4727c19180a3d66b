"""Does the trainer reach the MSE that an independent implementation reaches?

    python -m benchmarks.agreement trainer     (this project, on one CPU thread)
    python -m benchmarks.agreement torch       (PyTorch, where it is installed; likewise)
    python -m benchmarks.agreement compare     (prints the table)

Conv, dense-64 and dense-512 at batch sizes 128, 256 and 1000 for ten epochs, three seeds each; what
`results/` holds already is not run again. On one core the first takes about half an hour, the
second an hour and a half. The PyTorch side shares nothing with this project but the images: its own
layers, initialisation, shuffling, optimiser and measure. Seeds do not correspond, so what is
compared is the mean over seeds, beside the spread over seeds.
"""

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.race import RESULTS, print_table
from convae.config import TrialConfig
from convae.data import ImageSet, load_images

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "dense-64": {"model": "dense", "hidden_units": 64},
    "dense-512": {"model": "dense", "hidden_units": 512},
    "conv": {"model": "conv"},
}
BATCH_SIZES = (128, 256, 1000)
N_SEEDS = 3
Rows = list[dict[str, Any]]
N_EPOCHS = 10


def configs(done: Rows) -> Iterator[tuple[str, TrialConfig]]:
    """What both sides train, without what is done already."""
    known = {(*_size(row), row["seed"]) for row in done}
    for name, architecture in ARCHITECTURES.items():
        for seed in range(N_SEEDS):
            for batch_size in BATCH_SIZES:
                settings = {"batch_size": batch_size, "epochs": N_EPOCHS, "seed": seed}
                if (name, batch_size, seed) not in known:
                    yield name, TrialConfig(**architecture, **settings)


def run_trainer(image_set: ImageSet, done: Rows) -> Iterator[dict[str, Any]]:
    """This project's trainer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from convae.device import open_device
    from convae.training import Trainer

    trainer = Trainer(image_set, open_device(gpu=False, n_threads=1))
    for name, config in configs(done):
        training = trainer.start(config)
        results = [training.run_epoch() for _ in range(config.epochs)]
        yield _row(name, config, results[-1].train_mse, results[-1].eval_mse or 0.0)


def run_torch(image_set: ImageSet, done: Rows) -> Iterator[dict[str, Any]]:
    """The same trials written in PyTorch from the description of the models alone."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    train, test = (
        torch.from_numpy(images.astype(np.float32) / 255)
        .unsqueeze(1)
        .to(memory_format=torch.channels_last)  # 1.7 times faster here
        for images in (image_set.train_images, image_set.test_images)
    )

    for name, config in configs(done):
        torch.manual_seed(config.seed)
        model = build_torch(config)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5, nesterov=True)
        for _ in range(config.epochs):
            total = 0.0
            for batch in torch.randperm(len(train)).split(config.batch_size):
                images = train[batch]
                loss = nn.functional.mse_loss(model(images), images)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
        with torch.no_grad():
            errors = [nn.functional.mse_loss(model(part), part).item() for part in test.split(1000)]
        yield _row(name, config, total / len(train), float(np.mean(errors)))


def build_torch(config: TrialConfig) -> Any:
    """The model as a PyTorch module, with Keras' default initial distributions."""
    import torch
    from torch import nn

    if config.model == "dense":
        units = config.hidden_units or 0
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, units), nn.ReLU()]
        layers += [nn.Linear(units, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))]
    else:
        layers = []
        for n_in, n_out in ((1, 16), (16, 8), (8, 8)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
        for n_in, n_out, padding in ((8, 8, 1), (8, 8, 1), (8, 16, 0)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=padding), nn.ReLU()]
            layers += [nn.Upsample(scale_factor=2)]
        layers += [nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()]
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _row(name: str, config: TrialConfig, train_mse: float, test_mse: float) -> dict[str, Any]:
    row = {"model": name, "batch_size": config.batch_size, "seed": config.seed}
    return {**row, "train_mse": train_mse, "test_mse": test_mse}


def compare() -> None:
    """Prints means and standard deviations side by side."""
    sides = {
        side: json.loads((RESULTS / f"agreement-{side}.json").read_text())
        for side in ("trainer", "torch")
    }
    lines = []
    for name in ARCHITECTURES:
        for batch_size in BATCH_SIZES:
            values = [
                np.array([row["test_mse"] for row in rows if _size(row) == (name, batch_size)])
                for rows in sides.values()
            ]
            spread = np.sqrt(np.mean([v.var(ddof=1) for v in values]))
            cells = [f"{v.mean():.5f} ± {v.std(ddof=1):.5f} ({len(v)})" for v in values]
            difference = (values[0].mean() - values[1].mean()) / spread
            lines.append([name, str(batch_size), *cells, f"{difference:+.1f}"])
    title = f"Test MSE after {N_EPOCHS} epochs, mean ± standard deviation (number of seeds)"
    headings = ["model", "batch size", *sides, "difference ÷ pooled standard deviation"]
    print_table(title, headings, lines)


def _size(row: dict[str, Any]) -> tuple[str, int]:
    return row["model"], row["batch_size"]


def main() -> None:
    """Runs one side or compares both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agreement", description=__doc__)
    parser.add_argument("what", choices=("trainer", "torch", "compare"))
    parser.add_argument("--data", help="mnist.npz or a folder of IDX files")
    options = parser.parse_args()
    if options.what == "compare":
        compare()
        return
    run = run_trainer if options.what == "trainer" else run_torch
    path = RESULTS / f"agreement-{options.what}.json"
    rows: Rows = json.loads(path.read_text()) if path.exists() else []
    for row in run(load_images(options.data), list(rows)):
        rows.append(row)
        print(row, flush=True)
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
