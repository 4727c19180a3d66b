"""Figures: ticks, labels, room, and what must not be drawn as a number."""

import base64
import importlib
import io
from itertools import pairwise
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
from synthetic_runs import (
    MANIFEST,
    audit_trials,
    custom_trials,
    finalist_trials,
    neighbour_trials,
    quick_trials,
    reconstructions,
    search_trials,
    write_run,
)

from analysis import plots
from analysis.chapters import curves, parameters, pareto, search, sensitivity
from analysis.chapters import reconstructions as digits
from analysis.load import Run, read_run
from study.folder import schema


def every(n_epochs: int = 3, n_seeds: int = 1) -> list[Trial]:
    return [trial(*size, seed, n_epochs) for size in NUMBERS for seed in range(n_seeds)]


def drawings(key: str, run: Run) -> dict[str, plots.Drawing]:
    """The drawings of a chapter, before they are finished."""
    found: dict[str, plots.Drawing] = {}

    def collect(value: object) -> None:
        if isinstance(value, plots.Drawing):
            found[value.name] = value
        for inner in value.values() if isinstance(value, dict) else ():
            collect(inner)
        for inner in value if isinstance(value, list | tuple) else ():
            collect(inner)

    with plots.style():
        collect(importlib.import_module(f"analysis.chapters.{key}").chapter(run))
    return found


def drawn(drawing: plots.Drawing) -> Axes:
    with plots.style():
        plots.add_footnote(drawing.figure, "n = 3 seeds; batch size 256. " * 8)
        FigureCanvasAgg(drawing.figure).draw()
    return drawing.figure.axes[0]


RATIOS = {
    "learning_rate": {0.25: 1.9, 2.0: 0.8, 4.0: None},
    "hidden_activation": {"sigmoid": 2.5},
    "hidden_units": {64: 1.7},
}
FINALS = {"reference": ({}, [0.007, 0.071]), "001": ({"learning_rate": 2.0}, [0.005, None, 0.006])}
SEARCHED = [t for model in schema.MODELS for t in search_trials(model, 40, prune=False)]
RATES = custom_trials("conv", "learning_rate", {0.1: [0.03], 4.0: [0.01]})
RUNS = {
    "curves": run_of_trials(*every(50, 3)),
    "custom": run_of_trials(trial(), *RATES),
    "readings": run_of_trials(*audit_trials()),
    "times": run_of_trials(*every(3, 2)),
    "search": run_of_trials(*quick_trials(), *finalist_trials("conv", FINALS)),
    "parameters": run_of_trials(*SEARCHED),
    "sensitivity": run_of_trials(*neighbour_trials("dense", RATIOS, 3)),
    "pareto": run_of_trials(*SEARCHED, spec=MANIFEST["spec"] | {"objective": schema.MSE_AND_TIME}),
}


@pytest.mark.parametrize("key", RUNS)
def test_nothing_is_clipped_and_the_axes_keep_their_room(key: str):
    found = drawings(key, RUNS[key])
    assert found
    for drawing in found.values():
        ax = drawn(drawing)
        inches = drawing.figure.get_tightbbox()
        assert inches.min.min() >= -0.02
        assert (inches.max <= drawing.figure.get_size_inches() + 0.02).all()
        (footnote,) = drawing.figure.texts
        assert footnote.get_window_extent().y1 <= ax.get_tightbbox().y0
        assert ax.get_position().width > 0.35  # labels and legend leave it that much
        for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text()]
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_no_style_is_left_behind():
    before = dict(matplotlib.rcParams)
    drawings("curves", run_of_trials(*every()))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7, 50, 200])
def test_epoch_ticks_are_epochs(n_epochs: int):
    ax = drawn(drawings("curves", run_of_trials(*every(n_epochs)))[curves.TEST])
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
    assert 2 <= len(shown) <= 8
    assert [float(label) for label in labels] == pytest.approx([t for t, _ in shown], rel=1e-4)
    assert not any("e" in label or "$" in label or label.endswith(".") for label in labels)
    assert len(set(labels)) == len(labels)


def test_models_differ_without_colour():
    looks = [plots.LOOKS[model] for model in schema.MODELS]
    lightness = [np.dot(to_rgb(look["color"]), (0.2126, 0.7152, 0.0722)) for look in looks]
    assert abs(lightness[0] - lightness[1]) > 0.25
    assert looks[0]["linestyle"] != looks[1]["linestyle"]
    assert looks[0]["marker"] != looks[1]["marker"]


def test_a_band_needs_more_than_one_seed_and_other_dense_sizes_are_muted():
    ax = drawn(drawings("curves", run_of_trials(*every()))[curves.TEST])
    assert len(ax.collections) == 0
    by_name = {str(line.get_label()).split(",")[0]: line for line in ax.get_lines()}
    assert by_name["dense-64"].get_color() == plots.MUTED
    assert by_name["dense-64"].get_linewidth() < by_name["dense-512"].get_linewidth()
    several = drawn(drawings("curves", run_of_trials(*every(3, 2)))[curves.TEST])
    assert len(several.collections) == len(by_name)


def test_the_ratio_is_drawn_beside_the_reports():
    ax = drawn(drawings("curves", run_of_trials(*every(50, 3)))["figure-ratio-by-epoch"])
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
    assert curves.overtaking(data, "conv", "dense-512") == words


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


def test_trials_without_a_value_have_no_height():
    ax = search.drawing(run_of_trials(*quick_trials()), "number").figure.axes[0]
    in_axes = [line for line in ax.get_lines() if line.get_transform() != ax.transData]
    marks = {line.get_marker(): list(line.get_xdata()) for line in in_axes}
    assert marks == {"x": [2], "v": [4], "P": [5]}
    values = [line for line in ax.get_lines() if line.get_marker() in ("o", "s")]
    heights = np.concatenate([line.get_ydata() for line in values])
    assert sorted(set(np.round(heights, 6))) == [0.018, 0.02]
    # The marks' strip holds no value.
    bottom = ax.transAxes.inverted().transform(ax.transData.transform((1, heights.min())))[1]
    assert bottom > 0.14


def test_what_can_be_read_is_every_trial_with_a_value():
    points = search.drawing(run_of_trials(*quick_trials()), "number").points
    assert [text.split(":")[0] for one in points for text in one.texts] == [
        f"search-{model}-{number}" for model in ("conv", "dense") for number in (0, 2)
    ]
    assert "; dense-512, batch size 256," in points[1].texts[0]


def test_diverged_neighbours_have_no_point_but_a_count():
    drawing = sensitivity.drawing(RUNS["sensitivity"], "dense")
    assert sum(len(one.texts) for one in drawing.points) == 4
    right = drawing.figure.axes[0].child_axes[0]
    said = [label.get_text() for label in right.get_yticklabels()]
    assert sorted(said) == ["3 diverged", *["n = 3"] * 4]


def test_importances_within_chance_are_hollow():
    names = ["learning_rate", "one_minus_momentum", "hidden_activation"]
    columns = {"parameter": names, "share": [0.7, 0.2, 0.1], "chance": [0.3, 1.4, 0.2]}
    with plots.style():
        _, ax = plots.new_figure(2.1)
        parameters.draw_importances(ax, pd.DataFrame(columns), plots.DARK)
    found = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert (found["more than chance"], found["not more"]) == ([0], [1, 2])
    assert found["the same, beyond the axis"] == [1]
    assert ax.get_xlim() == (0, 1)


def test_fronts_are_steps_from_their_own_trials():
    data = pareto.pareto_trials(RUNS["pareto"])
    lines = {
        line.get_label(): line
        for line in pareto.drawing(RUNS["pareto"], data, "both").figure.axes[0].get_lines()
    }
    front = data[data["on_own_front"] & (data["model"] == "conv")]
    assert lines["conv, front"].get_drawstyle() == "steps-post"
    assert list(lines["conv, front"].get_ydata()) == front["val_mse"].tolist()
    n_dominated = ((data["model"] == "conv") & ~data["on_own_front"]).sum()
    assert len(lines["conv, dominated"].get_xdata()) == n_dominated


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
