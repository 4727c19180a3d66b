"""Test images beside what the models make of them: the same digits by all, then each one's own."""

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.chapters.parts import Chapter, Figure, Fold, Image, ImageTable, Part
from analysis.load import Run
from analysis.statistics import CONV_NAME, DENSE_NAME, with_names
from analysis.words import MNIST, digits, image_set, rests_on, values_of
from study.folder import schema

NAME: Final = "figure-reconstructions"
SIDE: Final = 28
MAX_DIGITS: Final = 10
RANDOM: Final = schema.CHOICES[0]
ORIGINAL: Final = "original"

Images = npt.NDArray[np.float64]


def shown_trials(run: Run) -> pd.DataFrame:
    """The trials whose images are shown, the first seed of each.

    Returns:
        Rows of the trials table with the column `label`: the report's two models, the other
        reference trials, a person's own models among them, then the search's winners.
    """
    done = run.trials[
        (run.trials["state"] == schema.COMPLETED)
        & run.trials["trial_id"].isin(run.reconstructions["trial_id"])
    ]
    winners = with_names(done[done["group"] == schema.WINNER])
    winners = winners.sort_values(["model", "seed"]).drop_duplicates("name")
    reference = run.reference[run.reference["trial_id"].isin(done["trial_id"])]
    reference = reference.drop_duplicates("name")
    order = {CONV_NAME: 0, DENSE_NAME: 1}
    reference = reference.sort_values("name", key=lambda name: name.map(order), kind="stable")
    return pd.concat(
        [
            reference.assign(label=reference["name"]),
            winners.assign(label=[f"{name}, tuned" for name in winners["name"]]),
        ]
    )


def digit_rows(reconstructions: pd.DataFrame, shown: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The random test digits of each trial, as far as all have the same.

    Args:
        reconstructions: of `analysis.load.load_reconstructions`.
        shown: of `shown_trials`.

    Returns:
        Rows of `reconstructions`, indexed by `test_index` in one order, by the trial's label.
        A trial that lacks a digit of the first one is left out.
    """
    random = reconstructions[reconstructions["choice"] == RANDOM]
    rows: dict[str, pd.DataFrame] = {}
    for label, trial_id in zip(shown["label"], shown["trial_id"], strict=True):
        its = random[random["trial_id"] == trial_id].set_index("test_index")
        wanted = list(next(iter(rows.values()), its.head(MAX_DIGITS)).index)
        if wanted and set(wanted) <= set(its.index):
            rows[str(label)] = its.loc[wanted]
    return rows


def images(pixels: pd.Series) -> Images:
    """A column of images as an array of shape (n, 28, 28), pixels 0..255."""
    return np.stack([np.asarray(image, dtype=float) for image in pixels]).reshape(-1, SIDE, SIDE)


def plot_reconstructions(data: Mapping[str, Images], ax: Axes) -> Axes:
    """Digits above their reconstructions, a labelled row each.

    Args:
        data: arrays of shape (n, 28, 28), pixels 0..255, by the row's label.
        ax: where to draw.
    """
    gap = 2
    tile = SIDE + gap
    n_digits = len(next(iter(data.values())))
    mosaic = np.full((len(data) * tile + gap, n_digits * tile + gap), np.nan)
    for row, its in enumerate(data.values()):
        for column, image in enumerate(its):
            top, left = row * tile + gap, column * tile + gap
            mosaic[top : top + SIDE, left : left + SIDE] = image
    ax.imshow(mosaic, cmap="gray_r", vmin=0, vmax=255, interpolation="none")
    ax.set_facecolor("#d9d9d9")
    ax.set_xticks([])
    ax.set_yticks([row * tile + gap + SIDE / 2 for row in range(len(data))], list(data))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


def chapter(run: Run) -> Chapter:
    """The same random digits by all models, and each model's best, median and worst."""
    title = "Reconstructions"
    shown = shown_trials(run)
    rows = digit_rows(run.reconstructions, shown)
    if not rows:
        gap = "No reconstructions: the run saved none of a completed reference trial or winner."
        return Chapter("reconstructions", title, gaps=[gap])
    first = next(iter(rows.values()))
    noun = _noun(run)
    originals = [
        Image(source(image), _named(noun, label), _known(label))
        for image, label in zip(images(first["original"]), first["label"], strict=True)
    ]
    table = ImageTable(
        f"The same random test {_things(run)} by every model",
        {ORIGINAL: originals} | {label: _images(its, label, noun) for label, its in rows.items()},
        f"Below each image its MSE; seed {values_of(shown['seed'])}."
        + " “Tuned” is the search's winner." * bool((shown["group"] == schema.WINNER).any()),
    )
    content: list[Part] = [table]
    for _, trial in shown.iterrows():
        its = run.reconstructions[run.reconstructions["trial_id"] == trial["trial_id"]]
        content += _extremes(str(trial["label"]), its, noun)
    gaps = []
    if CONV_NAME not in rows and (run.trials["model"] == schema.CONV).any():
        gaps = ["No reconstructions of a reference trial of conv."]
    with figures.style():
        return Chapter(
            "reconstructions",
            title,
            content,
            gaps,
            unseen=[_draw(run, rows, values_of(shown.seed))],
        )


def _noun(run: Run) -> str:
    """What stands before an image's label."""
    return "digit" if image_set(run.manifest) == MNIST else "class"


def _known(label: float) -> str:
    return "" if pd.isna(label) else str(label)  # images of a person's own may have none


def _named(noun: str, label: float) -> str:
    return f"{noun} {label}" if _known(label) else "image"


def _things(run: Run) -> str:
    return "digits" if image_set(run.manifest) == MNIST else "images"


def _images(rows: pd.DataFrame, label: str, noun: str) -> list[Image]:
    return [
        Image(source(image), f"{_named(noun, digit)} by {label}, MSE {digits(mse)}", digits(mse))
        for image, digit, mse in zip(
            images(rows["reconstruction"]), rows["label"], rows["mse"], strict=True
        )
    ]


def _extremes(label: str, reconstructions: pd.DataFrame, noun: str) -> list[Fold]:
    """The best, the median and the worst test images of a trial, folded away."""
    tables = []
    for choice in schema.CHOICES:
        rows = reconstructions[reconstructions["choice"] == choice]
        if choice != RANDOM and len(rows):
            originals = [
                Image(source(image), _named(noun, digit), _known(digit))
                for image, digit in zip(images(rows["original"]), rows["label"], strict=True)
            ]
            tables.append(
                ImageTable(
                    f"The {choice} for it",
                    {ORIGINAL: originals, label: _images(rows, label, noun)},
                    "",
                )
            )
    return [Fold(f"The best, median and worst of all test images: {label}", tables)] * bool(tables)


def source(image: Images) -> str:
    """An image of shape (28, 28), pixels 0..255, as a data: URI of a PNG, light ink on black."""
    pixels = np.pad(image.round().clip(0, 255).astype(np.uint8), ((0, 0), (1, 0)))  # no filter
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)  # 8 bits of grey
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc32(kind + content))
        for kind, content in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(pixels.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _draw(run: Run, rows: Mapping[str, pd.DataFrame], seed: str) -> Figure:
    first = next(iter(rows.values()))
    data = {ORIGINAL: images(first["original"])}
    data |= {label: images(its["reconstruction"]) for label, its in rows.items()}
    figure, ax = figures.new_figure(0.44 * len(data) + 0.15)
    plot_reconstructions(data, ax)
    return figures.finish(
        figure,
        NAME,
        f"Random test {_things(run)} and their reconstructions",
        f"{len(first)} random test {_things(run)}, a row each: {', '.join(data)}.",
        f"Seed {seed}.",
        rests_on(run),
    )
