"""The search's figures: room, and that what has no value gets no height."""

from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pages import run_of_trials
from PIL import Image
from rows import trial
from synthetic_runs import finalist_trials, neighbour_trials, quick_trials, search_trials

from analysis import plots
from analysis.chapters import (
    finalists,
    parameters,
    pareto,
    reconstructions,
    search,
    sensitivity,
    times,
)
from analysis.importance import parameter_table
from analysis.plots import Drawing
from study.folder import schema

RATIOS = {
    "learning_rate": {0.25: 1.9, 2.0: 0.8, 4.0: None},
    "hidden_activation": {"sigmoid": 2.5},
    "hidden_units": {64: 1.7},
}
QUICK = run_of_trials(*quick_trials())
NEIGHBOURS = run_of_trials(*neighbour_trials("dense", RATIOS, 3))
FINALS = {"reference": ({}, [0.007, 0.071]), "001": ({"learning_rate": 2.0}, [0.005, None, 0.006])}
TIMED = run_of_trials(
    *(pair for model in schema.MODELS for pair in search_trials(model, 12, prune=False))
)
IMPORTANCES = pd.DataFrame(
    {
        "parameter": ["learning_rate", "one_minus_momentum", "hidden_activation"],
        "share": [0.7, 0.2, 0.1],
        "chance": [0.3, 1.4, 0.2],
    }
)


def of_importances() -> Drawing:
    with plots.style():
        figure, ax = plots.new_figure(2.1)
        return Drawing("x", figure, parameters.draw_importances(ax, IMPORTANCES, plots.DARK))


def fronts() -> Drawing:
    return pareto.drawing(TIMED, pareto.pareto_trials(TIMED), "both")


def of_slices() -> Drawing:
    run = run_of_trials(*search_trials("dense", 40))
    return parameters.slices(run, "dense", parameter_table(run.trials, "dense"), plots.LIGHT)


def of_times() -> Drawing:
    run = run_of_trials(*(trial(model, seed=s) for model in schema.MODELS for s in range(2)))
    return times.drawing(run, times.timed(run), {"conv": 28.0})


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "progress": lambda: search.drawing(QUICK, "number"),
    "progress by seconds": lambda: search.drawing(QUICK, "seconds"),
    "finalists": lambda: finalists.drawing(run_of_trials(*finalist_trials("conv", FINALS))),
    "importances": of_importances,
    "slices": of_slices,
    "sensitivity": lambda: sensitivity.drawing(NEIGHBOURS, "dense"),
    "pareto": fronts,
    "times": of_times,
}


def drawn(drawing: Drawing) -> Axes:
    with plots.style():
        plots.add_footnote(drawing.figure, "n = 3 seeds; batch size 256. " * 8)
        FigureCanvasAgg(drawing.figure).draw()
    return drawing.figure.axes[0]


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_is_clipped_and_the_axes_keep_their_room(name: str):
    ax = drawn(DRAWINGS[name]())
    figure = ax.get_figure()
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    assert box.min.min() >= -0.02
    assert (box.max <= size + 0.02).all()
    (footnote,) = figure.texts
    assert footnote.get_window_extent().y1 <= ax.get_tightbbox().y0
    assert ax.get_position().width > 0.35  # labels and legend leave it that much
    for axis in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [label.get_window_extent() for label in axis if label.get_text()]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_trials_without_a_value_have_no_height():
    ax = search.drawing(QUICK, "number").figure.axes[0]
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
    points = search.drawing(QUICK, "number").points
    assert [text.split(":")[0] for one in points for text in one.texts] == [
        f"search-{model}-{number}" for model in ("conv", "dense") for number in (0, 2)
    ]
    assert "; dense-512, batch size 256," in points[1].texts[0]


def test_diverged_neighbours_have_no_point_but_a_count():
    drawing = sensitivity.drawing(NEIGHBOURS, "dense")
    assert sum(len(one.texts) for one in drawing.points) == 4
    right = drawing.figure.axes[0].child_axes[0]
    said = [label.get_text() for label in right.get_yticklabels()]
    assert sorted(said) == ["3 diverged", *["n = 3"] * 4]


def test_bars_within_chance_are_hollow():
    ax = of_importances().figure.axes[0]
    found = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert (found["more than chance"], found["not more"]) == ([0], [1, 2])
    assert found["the same, beyond the axis"] == [1]
    assert ax.get_xlim() == (0, 1)


def test_fronts_are_steps_from_their_own_trials():
    data = pareto.pareto_trials(TIMED)
    lines = {line.get_label(): line for line in fronts().figure.axes[0].get_lines()}
    front = data[data["on_own_front"] & (data["model"] == "conv")]
    assert lines["conv, front"].get_drawstyle() == "steps-post"
    assert list(lines["conv, front"].get_ydata()) == front["val_mse"].tolist()
    n_dominated = ((data["model"] == "conv") & ~data["on_own_front"]).sum()
    assert len(lines["conv, dominated"].get_xdata()) == n_dominated


def test_pictures_hold_the_images_that_they_show():
    image = np.arange(784).reshape(28, 28) % 256
    with urlopen(reconstructions.source(image.astype(float))) as response:
        assert np.array_equal(np.asarray(Image.open(BytesIO(response.read()))), image)
