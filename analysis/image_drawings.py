"""Draws test images above what a trial made of them, with each image's error.

Random ones, and the best, the median and the worst of all test images.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures
from analysis.drawings import Drawing, finish
from analysis.statistics import architecture
from analysis.words import devices, digits, open_values, tensorflow
from study.folder import schema

IMAGES: Final = "figure-14-images"
SIDE: Final = 28
GAP: Final = 3  # pixels between images
TITLE_ROOM, ERROR_ROOM = 13, 12  # pixels, for a block's name and the errors
PER_BLOCK: Final = 5


def draw_images(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    reference: pd.DataFrame,
    reconstructions: pd.DataFrame,
) -> list[Drawing]:
    """A figure a trial: the report's two models, and the winners of the search.

    Args:
        manifest: of `analysis.load.load_manifest`.
        trials: of `analysis.load.load_run`.
        reference: of `analysis.statistics.reference_trials`.
        reconstructions: of `analysis.load.load_reconstructions`.
    """
    winners = trials[
        (trials["group"] == schema.WINNER)
        & (trials["state"] == schema.COMPLETED)
        & trials["trial_id"].isin(reconstructions["trial_id"])
    ].sort_values(["model", "trial_id"])
    shown = pd.concat([figures.shown_trials(reconstructions, reference), winners])
    drawn = []
    with figures.style():
        for _, trial in shown.iterrows():
            images = reconstructions[reconstructions["trial_id"] == trial["trial_id"]]
            drawn.append(_draw(manifest, trial, images))
    return drawn


def _draw(manifest: Mapping[str, Any], trial: pd.Series, images: pd.DataFrame) -> Drawing:
    blocks = {
        choice: rows.head(PER_BLOCK)
        for choice in schema.CHOICES
        if len(rows := images[images["choice"] == choice])
    }
    n_lines = (len(blocks) + 1) // 2
    figure, ax = figures.new_figure(1.15 * n_lines + 0.1)
    plot_blocks(blocks, ax)
    ends = {choice: rows["mse"].agg(["min", "max"]).map(digits) for choice, rows in blocks.items()}
    errors = "; ".join(f"{choice} {' to '.join(two.unique())}" for choice, two in ends.items())
    name = architecture(trial)
    return finish(
        figure,
        f"{IMAGES}-{trial['trial_id']}",
        f"Figure 14, {name} ({trial['group']}). Test images, reconstructions and their errors",
        f"Originals above, reconstructions below, with the MSE of each image: {errors}.",
        f"The best, the median and the worst of all 10,000 test images for this trial. n = 1 seed"
        f" ({trial['seed']}); {trial['epochs']} epochs; {devices(trial.to_frame().T)};"
        f" {tensorflow(manifest)}. Rests on: {open_values(trial.to_frame().T)}.",
    )


def plot_blocks(blocks: Mapping[str, pd.DataFrame], ax: Axes) -> Axes:
    """Blocks of images, two beside each other, each image's MSE below it.

    Args:
        blocks: rows of `analysis.load.load_reconstructions` by why they are shown, at most
            `PER_BLOCK` of them each.
        ax: where to draw.
    """
    tile = SIDE + GAP
    width, height = PER_BLOCK * tile + 4 * GAP, TITLE_ROOM + 2 * tile + ERROR_ROOM
    n_lines = (len(blocks) + 1) // 2
    canvas = np.full((n_lines * height, 2 * width), np.nan)
    for number, (choice, rows) in enumerate(blocks.items()):
        top, left = number // 2 * height, number % 2 * width
        ax.text(left, top + TITLE_ROOM - 3, choice, fontsize=8, fontweight="bold", va="baseline")
        for column, (_, row) in enumerate(rows.iterrows()):
            x, y = left + column * tile, top + TITLE_ROOM
            for line, image in enumerate((row["original"], row["reconstruction"])):
                pixels = np.asarray(image, dtype=float).reshape(SIDE, SIDE)
                canvas[y + line * tile : y + line * tile + SIDE, x : x + SIDE] = pixels
            middle, below = x + SIDE / 2, y + 2 * tile + 1
            ax.text(middle, below, digits(row["mse"]), fontsize=5.5, ha="center", va="top")
    ax.imshow(canvas, cmap="gray_r", vmin=0, vmax=255, interpolation="none")
    ax.set_axis_off()
    return ax
