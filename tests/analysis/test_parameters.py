"""Parameter importances: Optuna's own numbers, from completed trials, beside what chance gives."""

import numpy as np
import optuna
import pandas as pd
import pytest
from synthetic_runs import search_trials, tables

from analysis.importance import BEST_SHARE, MIN_COMPLETED, importances
from study.folder import schema


def trials_of(n: int, model: str = "conv") -> pd.DataFrame:
    """Completed search trials whose objective is their learning rate."""
    trials, _ = tables(*search_trials(model, n, prune=False))
    trials["state"] = schema.COMPLETED
    return trials.assign(val_mse=trials["learning_rate"])


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
    trials = trials_of(30)
    trials["momentum"] = 0.5
    trials["nesterov"] = True
    trials["batch_size"] = 256
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
    dense = trials_of(30, "dense")
    alone = importances(completed, "conv")
    together = importances(pd.concat([completed, others, dense], ignore_index=True), "conv")
    pd.testing.assert_frame_equal(alone, together)


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
