"""What matters in the search: Optuna's importances beside what chance gives, and slices."""

import numpy as np
import optuna
import pandas as pd
import pytest
from pages import run_of_trials, text_of
from rows import tables, trial, without_value
from synthetic_runs import search_trials

from analysis import plots
from analysis.chapters import parameters
from analysis.importance import (
    BEST_SHARE,
    MIN_COMPLETED,
    importances,
    parameter_table,
    varied_parameters,
)
from study.folder import schema


def trials_of(n: int, model: str = "conv") -> pd.DataFrame:
    """Completed search trials whose objective is their learning rate."""
    trials, _ = tables(*search_trials(model, n, prune=False))
    return trials.assign(state=schema.COMPLETED, val_mse=trials["learning_rate"])


def test_what_decides_is_found_and_what_does_not_stays_with_chance():
    found = importances(trials_of(60), "conv").set_index("parameter")
    assert found.index[0] == "learning_rate"
    assert found["share"].sum() == pytest.approx(1)
    beyond = found.index[found["share"] > found["chance"]]
    assert beyond.tolist() == ["learning_rate"]


def test_without_any_influence_chance_gives_as_much():
    trials = trials_of(60)
    trials["val_mse"] = np.random.default_rng(0).permutation(trials["val_mse"])
    found = importances(trials, "conv")
    assert (found["share"] <= found["chance"]).all()
    assert found["share"].max() > 0.3  # which is why a share alone would mislead


def test_shares_are_those_of_optuna():
    trials = trials_of(30).assign(momentum=0.5, nesterov=True, batch_size=256)
    rates = trials["learning_rate"]
    space = {
        "learning_rate": optuna.distributions.FloatDistribution(rates.min(), rates.max(), log=True),
        "latent_filters": optuna.distributions.CategoricalDistribution([8, 16]),
    }
    study = optuna.create_study()
    for _, row in trials.iterrows():
        params = {name: row[name] for name in space}
        value = row["val_mse"]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    found = importances(trials, "conv")
    assert dict(zip(found["parameter"], found["share"], strict=True)) == pytest.approx(expected)


def test_only_completed_trials_of_the_model_enter():
    completed = trials_of(30)
    others = completed.iloc[:12].assign(state=schema.PRUNED, val_mse=1e-9)
    others["trial_id"] += "-pruned"
    together = pd.concat([completed, others, trials_of(30, "dense")], ignore_index=True)
    pd.testing.assert_frame_equal(importances(completed, "conv"), importances(together, "conv"))


def test_too_few_trials_have_none():
    trials = trials_of(MIN_COMPLETED)
    assert importances(trials, "conv") is not None
    assert importances(trials.iloc[1:], "conv") is None
    assert importances(trials.assign(val_mse=0.11), "conv") is None
    assert importances(trials, "dense") is None


def test_the_same_table_gives_the_same_numbers_without_a_word(capsys: pytest.CaptureFixture[str]):
    trials = trials_of(30, "dense")
    verbosity = optuna.logging.get_verbosity()
    first = importances(trials, "dense")
    np.random.seed(1)  # the global generator must not matter
    pd.testing.assert_frame_equal(importances(trials, "dense"), first)
    assert optuna.logging.get_verbosity() == verbosity
    assert capsys.readouterr().err == ""


def test_parameters_of_trials_are_points_of_the_space():
    searched = {"group": schema.SEARCH, "mse": [0.05, 0.02]}
    trials, _ = tables(
        trial("conv", trial_id="a", momentum=0.95, **searched),
        trial("conv", trial_id="b", state=schema.PRUNED, **searched),
        trial("conv", trial_id="c", learning_rate=4.0, **searched | without_value(schema.DIVERGED)),
        trial("conv", trial_id="d", state=schema.RUNNING, **searched),
        trial("dense", trial_id="e", **searched),
    )
    table = parameter_table(trials, "conv")
    assert table["trial_id"].tolist() == ["a", "b", "c"]
    assert table["one_minus_momentum"].tolist() == [0.05, 0.5, 0.5]
    assert table["value"].tolist()[:2] == [0.02, 0.02]
    assert np.isnan(table["value"].iloc[2])
    assert varied_parameters(table) == ["learning_rate", "one_minus_momentum"]


def lines_of(data: pd.DataFrame, parameter: str, ringed: dict[str, str]) -> dict[str, list]:
    """The marks of a slice by their label in the legend; those without a value as "_"."""
    with plots.style():
        _, ax = plots.new_figure()
        parameters.draw_slice(ax, data, parameter, plots.DARK, ringed)
    found: dict[str, list] = {}
    for line in ax.get_lines():
        if len(line.get_xdata()):
            label = str(line.get_label()) if line.get_transform() == ax.transData else "_"
            found[label] = [*found.get(label, []), line]
    return found


def test_a_slice_tells_the_states_apart_and_rings_the_best():
    data = parameter_table(tables(*search_trials("dense", 40))[0], "dense")
    best = data.loc[data["value"].idxmin(), "trial_id"]
    marks = lines_of(data, "learning_rate", {"best": best})
    by_state = {state: rows["value"].tolist() for state, rows in data.groupby("state")}
    heights = {label: list(lines[0].get_ydata()) for label, lines in marks.items()}
    assert heights == {
        "completed": by_state[schema.COMPLETED],
        "pruned: value at epoch 5": by_state[schema.PRUNED],
        "best": [data["value"].min()],
        "_": [0.04] * len(by_state[schema.DIVERGED]),  # of the axes' height: no value
    }


def test_a_slice_of_categories_is_the_same_again_and_near_its_category():
    data = parameter_table(tables(*search_trials("dense", 40))[0], "dense")
    first, again = (parameters.places_of(data, "hidden_activation") for _ in range(2))
    assert first.tolist() == again.tolist()
    assert (np.abs(first - first.round()) <= 0.25).all()


def test_what_is_said_of_importances_and_slices():
    pairs = search_trials("conv", MIN_COMPLETED, prune=False)
    same = {"batch_size": 64, "latent_filters": 8, "nesterov": True, "state": schema.COMPLETED}
    pairs = [(row | same | {schema.VAL_MSE: row["learning_rate"]}, h) for row, h in pairs]
    text = text_of(run_of_trials(*pairs), "parameters")
    assert f"n = {MIN_COMPLETED} completed trials, one seed each" in text
    assert "Categories are spread sideways" not in text  # there are none
    assert "The same in all: batch size 64, latent filters 8, nesterov yes." in text
    text = text_of(run_of_trials(*pairs[:-1]), "parameters")
    assert f"No parameter importances of conv: {MIN_COMPLETED - 1} completed search trials" in text
