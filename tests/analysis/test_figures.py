"""Figures: ticks, labels, room, and what must not be drawn as a number."""

import base64
import io
import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from pages import run_of_trials
from synthetic_runs import NUMBERS, reconstructions, tables, trial, write_run

from analysis import figures, statistics
from analysis.chapters import curves as learning
from analysis.chapters import parts
from analysis.chapters import reconstructions as digits
from analysis.chapters.times import TimeBar, plot_times
from analysis.load import read_run
from study.folder import schema


def curves(n_epochs: int, n_seeds: int = 1) -> pd.DataFrame:
    seeds = range(n_seeds)
    trials, epochs = tables(*(trial(*size, seed, n_epochs) for size in NUMBERS for seed in seeds))
    return statistics.curves(statistics.reference_trials(trials), epochs, schema.TEST_MSE)


def ratio(n_epochs: int, n_seeds: int) -> pd.DataFrame:
    seeds = range(n_seeds)
    pairs = [
        trial(*size, seed, n_epochs) for size in (("conv", 8), ("dense", 512)) for seed in seeds
    ]
    trials, epochs = tables(*pairs)
    return statistics.ratio_curve(statistics.reference_trials(trials), epochs, schema.TEST_MSE)


TIMES = [
    TimeBar("this run\n3 epochs", "conv", 350.0, (340.0, 360.0)),
    TimeBar("this run\n3 epochs", "dense-512", 100.0, (100.0,)),
    TimeBar("the report\nRTX 3060 Ti", "conv", 28.0),
    TimeBar("the report\nRTX 3060 Ti", "dense-512", 10.0),
]
ROWS = {"original": np.zeros((10, 28, 28)), "conv": np.ones((10, 28, 28))}
PLOTS = {
    "reconstructions": lambda ax: digits.plot_reconstructions(ROWS, ax),
    "conv": lambda ax: learning.plot_conv(
        {name: curves(3).query("name == 'conv'") for name in ("training", "test")}, ax
    ),
    "log, 1 epoch": lambda ax: learning.plot_log_mse(curves(1), ax, "training"),
    "log, 3 epochs": lambda ax: learning.plot_log_mse(curves(3), ax, "training"),
    "log, 50 epochs": lambda ax: learning.plot_log_mse(curves(50, 3), ax, "test"),
    "ratio": lambda ax: learning.plot_ratio({"training": ratio(3, 1), "test": ratio(3, 2)}, ax),
    "times": lambda ax: plot_times(TIMES, ax),
}


def drawn(plot) -> Axes:
    with figures.style():
        figure, ax = figures.new_figure()
        assert plot(ax) is ax
        figures.add_footnote(figure, "n = 3 seeds; batch size 256. " * 8)
        FigureCanvasAgg(figure).draw()
    return ax


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_clipped(name: str):
    figure = drawn(PLOTS[name]).get_figure()
    drawn_inches, size_inches = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn_inches.min.min() >= 0
    assert (drawn_inches.max <= size_inches).all()


@pytest.mark.parametrize("name", PLOTS)
def test_the_footnote_lies_below_the_axes(name: str):
    ax = drawn(PLOTS[name])
    (footnote,) = ax.get_figure().texts
    assert footnote.get_window_extent().y1 <= ax.get_tightbbox().y0


def test_no_style_is_left_behind():
    before = dict(matplotlib.rcParams)
    drawn(PLOTS["times"])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7, 50, 200])
def test_epoch_ticks_are_epochs(n_epochs: int):
    ax = drawn(lambda ax: learning.plot_log_mse(curves(n_epochs), ax, "test"))
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 1 <= len(ticks) <= 9
    assert all(tick == round(tick) and 1 <= tick <= n_epochs for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.004, 0.06), (0.0042, 0.0043), (0.009, 0.011), (0.001, 0.9), (1e-5, 0.1), (0.01, 0.010001)],
)
def test_log_ticks_are_a_few_plain_decimals(low: float, high: float):
    data = pd.DataFrame(
        {"name": "conv", "epoch": [1, 2], "mean": [high, low], "low": low, "high": high, "n": 1}
    )
    ax = drawn(lambda ax: learning.plot_log_mse(data, ax, "test"))
    bottom, top = ax.get_ylim()
    ticks = ax.get_yticks()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert 3 <= len(ticks) <= 8
    assert all(bottom <= tick <= top for tick in ticks)
    assert [float(label) for label in labels] == pytest.approx(list(ticks), rel=1e-4)
    assert not any("e" in label or "$" in label or label.endswith(".") for label in labels)
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("low", [0.0063, 0.021, 0.47, 0.93, 3.2])
@pytest.mark.parametrize("ratio", [2.2, 3, 7, 40, 900])
@pytest.mark.parametrize("most", [5, 8])
def test_log_ticks_leave_room_for_their_numbers(low: float, ratio: float, most: int):
    ticks = np.log(figures.log_ticks(low, low * ratio, most))
    assert np.diff(ticks).min() > math.log(ratio) / most / 2


def test_axes_are_labelled_with_units():
    ax = drawn(PLOTS["log, 3 epochs"])
    assert ax.get_xlabel() == "Epoch"
    assert "(pixel/255)²" in ax.get_ylabel()
    assert ax.get_yscale() == "log"
    assert drawn(PLOTS["times"]).get_ylabel() == "Training time (s)"


def test_models_differ_without_colour():
    looks = [figures.MODEL_STYLES[name] for name in ("conv", "dense-512")]
    lightness = [np.dot(to_rgb(look["color"]), (0.2126, 0.7152, 0.0722)) for look in looks]
    assert abs(lightness[0] - lightness[1]) > 0.25
    assert looks[0]["linestyle"] != looks[1]["linestyle"]
    assert looks[0]["marker"] != looks[1]["marker"]


def test_a_band_needs_more_than_one_seed():
    assert len(drawn(PLOTS["log, 3 epochs"]).collections) == 0
    assert len(drawn(PLOTS["log, 50 epochs"]).collections) == len(NUMBERS)


def test_other_dense_sizes_are_muted():
    lines = drawn(PLOTS["log, 3 epochs"]).get_lines()
    by_name = {str(line.get_label()).split(",")[0]: line for line in lines}
    assert by_name["dense-64"].get_color() == figures.MUTED
    assert by_name["dense-64"].get_linewidth() < by_name["dense-512"].get_linewidth()


def test_times_show_every_seed_and_label():
    ax = drawn(PLOTS["times"])
    assert [text.get_text() for text in ax.texts] == ["350 s", "100 s", "28 s", "10 s"]
    assert [len(line.get_xdata()) for line in ax.get_lines()] == [2, 1, 0, 0]


def test_the_ratio_is_drawn_beside_the_reports():
    data = {"test": ratio(50, 3)}
    ax = drawn(lambda ax: learning.plot_ratio(data, ax))
    assert {0.5, 1.0} <= {line.get_ydata()[0] for line in ax.get_lines()}
    assert ax.get_ylim()[0] < 0.5
    assert len(ax.collections) == 1  # the band, of three seeds


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
    assert learning.overtaking(data) == words


def test_the_legend_and_the_readout_name_the_same_series():
    run = run_of_trials(*(trial(*size, seed) for size in NUMBERS for seed in range(2)))
    (shown,) = [part for part in learning.chapter(run).parts if isinstance(part, parts.Figures)]
    by_name = {figure.name: figure for figure in shown.figures}
    assert list(by_name) == [
        learning.TEST,
        learning.TRAINING,
        learning.RATIO,
        learning.CONV_ALONE,
    ]
    figure = by_name[learning.TEST]
    names = [series.name for series in figure.series]
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


def shown_rows(images: pd.DataFrame, *pairs) -> dict[str, pd.DataFrame]:
    run = run_of_trials(*pairs, images=images)
    return digits.digit_rows(images, digits.shown_trials(run))


def test_digits_are_the_random_ones_of_the_least_seed():
    ids = ["reference-conv-8-1", "reference-conv-8-0", "reference-dense-512-0", "winner-conv-8-0"]
    images = pd.concat([reconstructions(trial_id) for trial_id in ids], ignore_index=True)
    tuned = trial("conv", 8, group=schema.WINNER)
    rows = shown_rows(images, trial("dense", 512), trial("conv", 8, 1), trial("conv", 8, 0), tuned)
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
    assert list(shown_rows(images, trial("conv", 8), trial("dense", 512))) == ["conv"]


def test_images_without_labels_are_shown_without(tmp_path: Path):
    folder = write_run(tmp_path, trial("conv", 8), shown=["reference-conv-8-0"])
    path = folder / schema.RECONSTRUCTIONS_FOLDER / "reference-conv-8-0.parquet"
    pd.read_parquet(path).assign(label=float("nan")).to_parquet(path)
    table = digits.chapter(read_run(folder)).parts[0]
    original, made = (images[0] for images in table.rows.values())
    assert (original.alt, original.note) == ("image", "")
    assert made.alt == "image by conv, MSE 0.0100"
