"""Figures: ticks, labels, room, and what must not be drawn as a number."""

import base64
import importlib
import io
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from pages import chapter_of, run_of_trials
from rows import NUMBERS, Trial, trial
from synthetic_runs import audit_trials, custom_trials, reconstructions, write_run

from analysis import plots
from analysis.chapters import curves
from analysis.chapters import reconstructions as digits
from analysis.load import read_run
from study.folder import schema


def every(n_epochs: int = 3, n_seeds: int = 1) -> list[Trial]:
    return [trial(*size, seed, n_epochs) for size in NUMBERS for seed in range(n_seeds)]


def drawings(key: str, *pairs: Trial) -> dict[str, plots.Drawing]:
    """The drawings of a chapter, before they are finished."""
    found: dict[str, plots.Drawing] = {}

    def collect(value: object) -> None:
        if isinstance(value, plots.Drawing):
            found[value.name] = value
        for inner in value.values() if isinstance(value, dict) else ():
            collect(inner)
        for inner in value if isinstance(value, list | tuple) else ():
            collect(inner)

    chapter = importlib.import_module(f"analysis.chapters.{key}")
    with plots.style():
        collect(chapter.chapter(run_of_trials(*pairs)))
    return found


def drawn(drawing: plots.Drawing) -> Axes:
    with plots.style():
        plots.add_footnote(drawing.figure, "n = 3 seeds; batch size 256. " * 8)
        FigureCanvasAgg(drawing.figure).draw()
    return drawing.figure.axes[0]


RUNS = {
    "curves": (*every(50, 3),),
    "custom": (trial(), *custom_trials("conv", "learning_rate", {0.1: [0.03], 4.0: [0.01]})),
    "readings": (*audit_trials(),),
    "times": (*every(3, 2),),
}


@pytest.mark.parametrize("key", RUNS)
def test_nothing_is_clipped_and_the_footnote_lies_below(key: str):
    found = drawings(key, *RUNS[key])
    assert found
    for drawing in found.values():
        ax = drawn(drawing)
        inches = drawing.figure.get_tightbbox()
        assert inches.min.min() >= 0
        assert (inches.max <= drawing.figure.get_size_inches() + 0.01).all()
        (footnote,) = drawing.figure.texts
        assert footnote.get_window_extent().y1 <= ax.get_tightbbox().y0


def test_no_style_is_left_behind():
    before = dict(matplotlib.rcParams)
    drawings("curves", *every())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7, 50, 200])
def test_epoch_ticks_are_epochs(n_epochs: int):
    ax = drawn(drawings("curves", *every(n_epochs))[curves.TEST])
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 1 <= len(ticks) <= 9
    assert all(tick == round(tick) and 1 <= tick <= n_epochs for tick in ticks)
    assert ax.get_xlabel() == "Epoch"
    assert ax.get_ylabel() == "Test MSE, (pixel/255)², log axis"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.004, 0.06), (0.0042, 0.0043), (0.009, 0.011), (0.001, 0.9), (1e-5, 0.1), (0.3, 3), (1, 6)],
)
def test_log_ticks_are_a_few_plain_decimals(low: float, high: float):
    with plots.style():
        figure, ax = plots.new_figure()
        ax.plot([1, 2], [low, high])
        ax.set(yscale="log", ylim=(0.95 * low, 1.05 * high))
        plots.log_axis(ax.yaxis)
        FigureCanvasAgg(figure).draw()
    bottom, top = ax.get_ylim()
    shown = [
        (tick, label.get_text())
        for tick, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        if bottom <= tick <= top
    ]
    labels = [label for _, label in shown]
    assert 2 <= len(shown) <= 13
    assert [float(label) for label in labels] == pytest.approx([t for t, _ in shown], rel=1e-4)
    assert not any("e" in label or "$" in label or label.endswith(".") for label in labels)
    assert len(set(labels)) == len(labels)


def test_models_differ_without_colour():
    looks = [plots.MODEL_STYLES[name] for name in ("conv", "dense-512")]
    lightness = [np.dot(to_rgb(look["color"]), (0.2126, 0.7152, 0.0722)) for look in looks]
    assert abs(lightness[0] - lightness[1]) > 0.25
    assert looks[0]["linestyle"] != looks[1]["linestyle"]
    assert looks[0]["marker"] != looks[1]["marker"]


def test_a_band_needs_more_than_one_seed_and_other_dense_sizes_are_muted():
    ax = drawn(drawings("curves", *every())[curves.TEST])
    assert len(ax.collections) == 0
    by_name = {str(line.get_label()).split(",")[0]: line for line in ax.get_lines()}
    assert by_name["dense-64"].get_color() == plots.MUTED
    assert by_name["dense-64"].get_linewidth() < by_name["dense-512"].get_linewidth()
    several = drawn(drawings("curves", *every(3, 2))[curves.TEST])
    assert len(several.collections) == len(by_name)


def test_the_ratio_is_drawn_beside_the_reports():
    ax = drawn(drawings("curves", *every(50, 3))["figure-ratio-by-epoch"])
    assert {0.5, 1.0} <= {line.get_ydata()[0] for line in ax.get_lines()}
    assert ax.get_ylim()[0] < 0.5


def test_a_forest_shows_no_number_that_is_not_known():
    rows = pd.DataFrame(
        [
            ("a", "k", 1.2, 1.0, 1.4, 3),
            ("b", "k", 0.9, None, None, 1),  # hollow
            ("c", "k", None, None, None, 0),
            ("d", "k", 1.1, 1e-9, 1e9, 2),  # cut off, with an arrow at each end
        ],
        columns=["label", "kind", "mean", "low", "high", "n"],
    )
    with plots.style():
        _, ax = plots.new_figure()
        (points,) = plots.forest(ax, rows, {"k": {"color": plots.DARK, "marker": "o"}})
    assert [text.partition(":")[0] for text in points.texts] == ["a", "b", "d"]
    assert points.texts[1] == "b: 0.900 (n = 1, no interval)"
    arrows = [
        line for line in ax.get_lines() if line.get_marker() in "<>" and len(line.get_xdata())
    ]
    assert [line.get_ydata().tolist() for line in arrows] == [[3], [3]]


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ([0.5, 0.9, 1.2, 2.0], "Conv is ahead up to epoch 2, dense-512 after it"),
        ([0.5, 0.9], "Conv is ahead throughout"),
        ([1.5], "Dense-512 is ahead throughout"),
        ([0.5, 1.1, 0.9], "The two change places 2 times"),
    ],
)
def test_who_is_ahead_when_is_said(means: list[float], words: str):
    data = pd.DataFrame({"epoch": range(1, len(means) + 1), "mean": means})
    assert curves.overtaking(data) == words


def test_the_legend_and_the_readout_name_the_same_series():
    _, book = chapter_of(run_of_trials(*every(3, 2)), "curves")
    figure = book.figures[curves.TEST]
    names = [series["name"] for series in figure.series]
    assert names[0] == "conv"
    assert {int(row["series"]) for row in figure.readout["rows"]} == set(range(len(names)))
    lines = [row for row in figure.readout["rows"] if not row["name"]]
    seeds = [row for row in figure.readout["rows"] if row["name"]]
    assert len(lines) == len(names)
    assert {row["name"] for row in seeds} >= {"reference-conv-8-0", "reference-conv-8-1"}
    for row in (*lines, *seeds):
        assert row["at"] == ["1", "2", "3"]
        assert row["x"] == sorted(row["x"])
        assert row["y"] == sorted(row["y"])  # downwards in SVG: the MSE falls
    for place in range(len(names)):
        assert f'data-series="{place}"' in figure.svg
    assert b"data-series" not in figure.files["svg"]


def test_one_grey_png_of_an_image():
    image = np.arange(784.0).reshape(28, 28) % 256
    uri = digits.source(image)
    pixels = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    np.testing.assert_allclose(pixels * 255, image, atol=0.01)


def shown_rows(images: pd.DataFrame, *pairs: Trial) -> dict[str, pd.DataFrame]:
    run = run_of_trials(*pairs, images=images)
    return digits.digit_rows(run, digits.shown_trials(run))


def test_digits_are_the_random_ones_of_the_least_seed():
    ids = ["reference-conv-8-1", "reference-conv-8-0", "reference-dense-512-0", "winner-conv-8-0"]
    images = pd.concat([reconstructions(trial_id) for trial_id in ids], ignore_index=True)
    tuned = trial(group=schema.WINNER)
    rows = shown_rows(images, trial("dense"), trial(seed=1), trial(seed=0), tuned)
    assert {label: frame["trial_id"].iloc[0] for label, frame in rows.items()} == {
        "conv": "reference-conv-8-0",
        "dense-512": "reference-dense-512-0",
        "conv, tuned": "winner-conv-8-0",
    }
    made, original = (digits.images(rows["conv"][c]) for c in ("reconstruction", "original"))
    assert made.shape == (4, 28, 28)
    np.testing.assert_allclose(made, 0.8 * original)


def test_a_model_with_other_digits_is_not_beside_them():
    dense = reconstructions("reference-dense-512-0").assign(test_index=range(5))
    images = pd.concat([reconstructions("reference-conv-8-0"), dense])
    assert list(shown_rows(images, trial(), trial("dense"))) == ["conv"]


def test_images_without_labels_are_shown_without(tmp_path: Path):
    folder = write_run(tmp_path, trial(), shown=["reference-conv-8-0"])
    path = folder / schema.RECONSTRUCTIONS_FOLDER / "reference-conv-8-0.parquet"
    pd.read_parquet(path).assign(label=float("nan")).to_parquet(path)
    html = chapter_of(read_run(folder), "reconstructions")[0].html
    assert 'alt="image"' in html
    assert 'alt="image by conv, MSE 0.0100"' in html
