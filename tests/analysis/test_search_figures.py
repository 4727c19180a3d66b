"""The search's figures: room, and that what has no value gets no height."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pages import run_of_trials, text_of
from synthetic_runs import neighbour_trials, quick_trials, search_trials, tables

from analysis import figures
from analysis.chapters import parameters, pareto, search
from analysis.chapters import sensitivity as neighbours
from study.folder import schema

RATIOS = {
    "learning_rate": {0.25: 1.9, 2.0: 0.8, 4.0: None},
    "hidden_activation": {"sigmoid": 2.5},
    "hidden_units": {64: 1.7},
}


def progress() -> pd.DataFrame:
    return search.search_progress(tables(*quick_trials())[0])


def points(model: str = "dense") -> pd.DataFrame:
    """A search with completed, pruned and diverged trials."""
    return parameters.parameter_table(tables(*search_trials(model, 40))[0], model)


def sensitivity(n_seeds: int = 3) -> pd.DataFrame:
    trials, _ = tables(*neighbour_trials("dense", RATIOS, n_seeds))
    return neighbours.sensitivity(trials, "dense")


def fronts() -> pd.DataFrame:
    trials, _ = tables(
        *(pair for model in schema.MODELS for pair in search_trials(model, 12, prune=False))
    )
    trials["train_seconds"] *= np.linspace(1, 2, len(trials))
    return pareto.pareto_trials(trials)


IMPORTANCES = pd.DataFrame(
    {
        "parameter": ["learning_rate", "one_minus_momentum", "hidden_activation"],
        "share": [0.7, 0.2, 0.1],
        "chance": [0.3, 1.4, 0.2],
    }
)
PLOTS = {
    "progress": lambda ax: search.plot_progress(progress(), ax),
    "progress by seconds": lambda ax: search.plot_progress(progress(), ax, "seconds"),
    "importances": lambda ax: parameters.plot_importances(IMPORTANCES, ax),
    "slice, log": lambda ax: parameters.plot_slice(points(), ax, "learning_rate"),
    "slice, categories": lambda ax: parameters.plot_slice(points(), ax, "hidden_activation"),
    "sensitivity": lambda ax: neighbours.plot_sensitivity(sensitivity(), ax, 0.05),
    "sensitivity, one seed": lambda ax: neighbours.plot_sensitivity(sensitivity(1), ax),
    "pareto": lambda ax: pareto.plot_pareto(fronts(), ax),
}


def drawn(plot) -> Axes:
    with figures.style():
        figure, ax = figures.new_figure(4.0)
        assert plot(ax) is ax
        figures.add_footnote(figure, "n = 3 seeds; batch size 256. " * 8)
        FigureCanvasAgg(figure).draw()
    return ax


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_clipped_and_the_footnote_lies_below(name: str):
    ax = drawn(PLOTS[name])
    figure = ax.get_figure()
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    assert box.min.min() >= 0
    assert (box.max <= size).all()
    (footnote,) = figure.texts
    assert footnote.get_window_extent().y1 <= ax.get_tightbbox().y0


def test_labels_of_an_axis_do_not_overlap():
    boxes = [label.get_window_extent() for label in drawn(PLOTS["sensitivity"]).get_yticklabels()]
    for one, next_one in pairwise(boxes):
        assert not one.overlaps(next_one)


def test_trials_without_a_value_have_no_height():
    ax = drawn(PLOTS["progress"])
    in_axes = [line for line in ax.get_lines() if line.get_transform() != ax.transData]
    marks = {line.get_marker(): list(line.get_xdata()) for line in in_axes if len(line.get_xdata())}
    assert marks == {"x": [2], "v": [4], "P": [5]}
    values = [line for line in ax.get_lines() if line.get_marker() in ("o", "s")]
    heights = np.concatenate([line.get_ydata() for line in values])
    finite = heights[np.isfinite(heights)]
    assert sorted(set(np.round(finite, 6))) == [0.018, 0.02]
    # The marks' strip holds no value.
    bottom = ax.transAxes.inverted().transform(ax.transData.transform((1, finite.min())))[1]
    assert bottom > 0.14


def test_a_search_of_one_model_without_values_in_the_other():
    data = progress()
    data.loc[data["model"] == "dense", ["value", "best"]] = np.nan
    ax = drawn(lambda ax: search.plot_progress(data, ax))
    assert np.isfinite(ax.get_ylim()).all()


def marks_of(ax: Axes) -> dict[str, list[float]]:
    """Heights by marker: "filled" and "hollow" circles, and the markers of states, in the data."""
    found: dict[str, list[float]] = {}
    for line in ax.get_lines():
        if line.get_linestyle() == "None" and len(line.get_xdata()):
            hollow = line.get_markerfacecolor() == "none"
            name = {"o": "hollow" if hollow else "filled"}.get(line.get_marker(), line.get_marker())
            found[name] = [*found.get(name, []), *np.asarray(line.get_ydata(), dtype=float)]
    return found


def test_a_slice_tells_the_states_apart():
    data = points()
    marks = marks_of(drawn(PLOTS["slice, log"]))
    by_state = {state: rows["value"].tolist() for state, rows in data.groupby("state")}
    assert marks["filled"] == by_state[schema.COMPLETED]
    assert marks["hollow"] == by_state[schema.PRUNED]
    assert len(marks["v"]) == len(by_state[schema.DIVERGED]) > 0
    assert set(marks["v"]) == {0.06}  # of the axes' height: no value
    assert parameters.pruned_label(data) == "pruned: value at epoch 5"


def test_a_slice_of_categories_is_the_same_again():
    lines = [
        [line.get_xdata().tolist() for line in drawn(PLOTS["slice, categories"]).get_lines()]
        for _ in range(2)
    ]
    assert lines[0] == lines[1]
    places = np.concatenate(lines[0])
    assert (np.abs(places - places.round()) <= 0.25).all()  # spread, but nearest to its category


def test_that_categories_are_spread_is_said_where_there_are_some():
    for constant, n in (({}, 1), ({"batch_size": 64, "latent_filters": 8, "nesterov": True}, 0)):
        pairs = [(row | constant, history) for row, history in search_trials("conv", 12)]
        text = text_of(parameters.chapter(run_of_trials(*pairs)))
        assert text.count("Categories are spread sideways") == n


def test_rings_are_around_the_trials_they_name():
    data = points()
    best = data.loc[data["value"].idxmin(), "trial_id"]
    marked = {parameters.BEST: best, parameters.AT_REFERENCE: data["trial_id"].iloc[0]}
    ax = drawn(lambda ax: parameters.plot_slice(data, ax, "batch_size", marked=marked))
    rings = [line for line in ax.get_lines() if line.get_markersize() >= 8]
    assert [ring.get_ydata()[0] for ring in rings] == [data["value"].min(), data["value"].iloc[0]]


def test_diverged_neighbours_have_no_point_but_a_count():
    data = sensitivity()
    ax = drawn(PLOTS["sensitivity"])
    diverged = data.index[data[schema.DIVERGED] == 3]
    marks = [line for line in ax.get_lines() if line.get_marker() == "o" and len(line.get_xdata())]
    assert [index for index, mark in enumerate(marks) if np.isnan(mark.get_xdata()[0])] == [
        *diverged
    ]
    beside = [neighbours.counts_beside(row) for _, row in data.iterrows()]
    assert beside == ["3 diverged" if i in diverged else "n = 3" for i in data.index]
    assert len(diverged) == 1


def test_an_interval_that_is_too_wide_ends_in_an_arrow():
    data = sensitivity()
    data.loc[0, ["low", "high"]] = [1e-3, 1e4]
    ax = drawn(lambda ax: neighbours.plot_sensitivity(data, ax, 0.05))
    left, right = ax.get_xlim()
    assert 0.1 < left < 0.3
    assert 6 < right < 15
    arrows = {line.get_marker() for line in ax.get_lines()} & {"<", ">"}
    assert arrows == {"<", ">"}


def test_bars_within_chance_are_hollow():
    ax = drawn(PLOTS["importances"])
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert [color == (1, 1, 1, 1) for color in colors] == [False, True, True]
    assert ax.get_xlim() == (0, 1)
    beyond = [line for line in ax.get_lines() if line.get_marker() == ">"]
    assert [line.get_ydata().tolist() for line in beyond] == [[1]]


def test_fronts_are_steps_from_their_custom_trials():
    data = fronts()
    lines = {line.get_label(): line for line in drawn(PLOTS["pareto"]).get_lines()}
    front = data[data["on_own_front"] & (data["model"] == "conv")]
    assert len(front) > 1
    assert lines["conv, front"].get_drawstyle() == "steps-post"
    assert lines["conv, front"].get_ydata().tolist() == front["val_mse"].tolist()
    n_dominated = ((data["model"] == "conv") & ~data["on_own_front"]).sum()
    assert len(lines["conv, dominated"].get_xdata()) == n_dominated
