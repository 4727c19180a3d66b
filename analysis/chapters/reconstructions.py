"""Test images beside what the models make of them: the same digits by all, then each one's own."""

import base64
import io
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from analysis import plots
from analysis.load import Run
from analysis.phrases import MNIST, digits, image_set, values_of
from analysis.plots import Drawing
from study.folder import schema

NAME: Final = "figure-reconstructions"
ROW_INCHES: Final = 0.44
MAX_DIGITS: Final = 10
ORIGINAL: Final = "original"

Images = npt.NDArray[np.float64]


class Picture(NamedTuple):
    """A small picture of the page."""

    source: str  # a data: URI
    alt: str
    note: str  # below it


def shown_trials(run: Run) -> dict[str, pd.Series]:
    """The first seed's trials of the reference (the two compared first) and of the winners."""
    order = {name: place for place, name in enumerate(run.pair)}
    reference = sorted(run.reference, key=lambda one: order.get(one.label, 2))
    named = [(one.label, one) for one in reference]
    named += [(f"{one.architecture}, tuned", one) for one in run.of(schema.WINNER)]
    found: dict[str, pd.Series] = {}
    for name, one in named:
        saved = one.completed["trial_id"].isin(run.reconstructions["trial_id"])
        for _, trial in one.completed[saved].head(1).iterrows():
            found.setdefault(name, trial)
    return found


def digit_rows(run: Run, shown: Mapping[str, pd.Series]) -> dict[str, pd.DataFrame]:
    """The random test digits of each trial, in one order, as far as all have the same.

    Rows of the run's reconstructions, indexed by `test_index`, by the trial's name. A trial that
    lacks a digit of the first one is left out.
    """
    random = run.reconstructions[run.reconstructions["choice"] == schema.CHOICES[0]]
    rows: dict[str, pd.DataFrame] = {}
    for name, trial in shown.items():
        its = random[random["trial_id"] == trial["trial_id"]].set_index("test_index")
        wanted = list(next(iter(rows.values()), its.head(MAX_DIGITS)).index)
        if wanted and set(wanted) <= set(its.index):
            rows[name] = its.loc[wanted]
    return rows


def images(pixels: pd.Series) -> Images:
    """A column of images as an array of shape (n, height, width), pixels 0..255."""
    return np.stack(
        [np.asarray(image, dtype=float).reshape(schema.IMAGE_SHAPE[:2]) for image in pixels]
    )


def drawing(rows: Mapping[str, pd.DataFrame]) -> Drawing:
    """Digits above their reconstructions, a labelled row each, of `digit_rows`."""
    first = next(iter(rows.values()))
    data = {ORIGINAL: images(first["original"])}
    data |= {name: images(its["reconstruction"]) for name, its in rows.items()}
    around = ((0, 0), (0, 0), (1, 1), (1, 1))  # white pixels
    tiles = np.pad(255 - np.stack(list(data.values())), around, constant_values=255)
    n_rows, n, height, width = tiles.shape
    figure, ax = plots.new_figure(ROW_INCHES * n_rows + 0.15)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(n_rows * height, n * width)
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([height * (row + 0.5) for row in range(n_rows)], list(data))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return Drawing(NAME, figure)


def source(image: Images) -> str:
    """An image of pixels 0..255 as a data: URI of a PNG, light ink on black."""
    png = io.BytesIO()
    Image.fromarray(image.round().clip(0, 255).astype(np.uint8)).save(png, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def pictures(rows: pd.DataFrame, name: str, noun: str) -> dict[str, list[Picture]]:
    """Originals and their reconstructions by a model; `noun` stands before an image's label."""
    labels = ["" if pd.isna(label) else str(label) for label in rows["label"]]
    named, mse = [f"{noun} {x}" if x else "image" for x in labels], list(map(digits, rows["mse"]))
    alts = [f"{what} by {name}, MSE {its}" for what, its in zip(named, mse, strict=True)]
    originals, made = (map(source, images(rows[of])) for of in ("original", "reconstruction"))
    return {
        ORIGINAL: list(map(Picture, originals, named, labels)),
        name: list(map(Picture, made, alts, mse)),
    }


def chapter(run: Run) -> dict[str, Any]:
    """The same random digits by all models, and each model's best, median and worst."""
    shown, mnist = shown_trials(run), image_set(run.manifest) == MNIST
    rows, noun = digit_rows(run, shown), "digit" if mnist else "class"
    together: dict[str, list[Picture]] = {}
    for name, its in rows.items():
        together |= pictures(its, name, noun)  # the same originals by all
    extremes: dict[str, dict[str, Any]] = {}
    for name, trial in shown.items():
        its = run.reconstructions[run.reconstructions["trial_id"] == trial["trial_id"]]
        for choice in schema.CHOICES[1:]:
            if len(chosen := its[its["choice"] == choice]):
                extremes.setdefault(name, {})[choice] = pictures(chosen, name, noun)
    return {
        "things": "digits" if mnist else "images",
        "rows": together,
        "n": len(next(iter(rows.values()), ())),
        "seed": values_of(pd.Series([trial["seed"] for trial in shown.values()], dtype="Int64")),
        "tuned": any(trial["group"] == schema.WINNER for trial in shown.values()),
        "extremes": extremes,
        "drawing": drawing(rows) if rows else None,
        "no_conv": schema.CONV not in rows and schema.CONV in run.models,
    }
