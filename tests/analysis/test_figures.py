"""Figures: ticks, labels, room, and what must not be drawn as a number."""

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from synthetic_runs import NUMBERS, reconstructions, tables, trial

from analysis import figures, statistics
from analysis.figures import TimeBar
from study.folder import schema


def curves(n_epochs: int, n_seeds: int = 1) -> pd.DataFrame:
    seeds = range(n_seeds)
    trials, epochs = tables(*(trial(*size, seed, n_epochs) for size in NUMBERS for seed in seeds))
    return statistics.curves(statistics.reference_trials(trials), epochs, schema.TEST_MSE)


TIMES = [
    TimeBar("this run\n3 epochs", "conv", 350.0, (340.0, 360.0)),
    TimeBar("this run\n3 epochs", "dense-512", 100.0, (100.0,)),
    TimeBar("the report\nRTX 3060 Ti", "conv", 28.0),
    TimeBar("the report\nRTX 3060 Ti", "dense-512", 10.0),
]
ROWS = {"original": np.zeros((10, 28, 28)), "conv": np.ones((10, 28, 28))}
PLOTS = {
    "reconstructions": lambda ax: figures.plot_reconstructions(ROWS, ax),
    "conv": lambda ax: figures.plot_conv_curves(
        {name: curves(3).query("name == 'conv'") for name in ("training", "test")}, ax
    ),
    "log, 1 epoch": lambda ax: figures.plot_log_mse(curves(1), ax, "Training"),
    "log, 3 epochs": lambda ax: figures.plot_log_mse(curves(3), ax, "Training"),
    "log, 50 epochs": lambda ax: figures.plot_log_mse(curves(50, 3), ax, "Test"),
    "times": lambda ax: figures.plot_times(TIMES, ax),
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
    ax = drawn(lambda ax: figures.plot_log_mse(curves(n_epochs), ax, "Test"))
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
    ax = drawn(lambda ax: figures.plot_log_mse(data, ax, "Test"))
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


def test_digits_are_the_random_ones_of_the_least_seed():
    trials, _ = tables(trial("conv", 8, 1), trial("conv", 8, 0), trial("dense", 512))
    reference = statistics.reference_trials(trials)
    ids = ["reference-conv-8-1", "reference-conv-8-0", "reference-dense-512-0"]
    images = pd.concat([reconstructions(trial_id) for trial_id in ids], ignore_index=True)
    shown = figures.shown_trials(images, reference)
    assert shown["trial_id"].tolist() == ["reference-conv-8-0", "reference-dense-512-0"]
    rows = figures.digit_rows(images, shown)
    assert list(rows) == ["original", "conv", "dense-512"]
    assert rows["conv"].shape == (4, 28, 28)
    np.testing.assert_allclose(rows["conv"], 0.8 * rows["original"])


def test_dense_digits_other_than_conv_digits_are_not_shown():
    trials, _ = tables(trial("conv", 8), trial("dense", 512))
    reference = statistics.reference_trials(trials)
    dense = reconstructions("reference-dense-512-0").assign(test_index=range(5))
    images = pd.concat([reconstructions("reference-conv-8-0"), dense])
    rows = figures.digit_rows(images, figures.shown_trials(images, reference))
    assert list(rows) == ["original", "conv"]
