"""The search's statistics: progress, tuning, winners, and the Pareto front."""

import numpy as np
import pytest
from synthetic_runs import quick_trials, tables, trial

from analysis.chapters import parameters, pareto, search, settings
from study.folder import schema


def searched(model="conv", size=8, trial_id="a", value=0.02, **changes):
    """A search trial whose validation MSE ends at a value."""
    return trial(model, size, mse=[0.05, value], group=schema.SEARCH, trial_id=trial_id, **changes)


def test_search_progress_takes_no_value_from_a_trial_that_did_not_complete():
    trials, _ = tables(*quick_trials())
    trials.loc[trials["state"] == schema.PRUNED, schema.VAL_MSE] = 1e-6
    progress = search.search_progress(trials)
    conv = progress[progress["model"] == "conv"]
    assert conv["number"].tolist() == [1, 2, 3, 4, 5]
    assert conv["value"].isna().tolist() == [False, True, False, True, True]
    assert conv["best"].tolist() == pytest.approx([0.02, 0.02, 0.018, 0.018, 0.018])


def test_best_search_trials_are_completed_ones():
    trials, _ = tables(*quick_trials())
    trials.loc[trials["state"] == schema.PRUNED, schema.VAL_MSE] = 1e-6
    best = settings.best_search_trials(trials, 1)
    assert best["trial_id"].tolist() == ["search-conv-2", "search-dense-2"]


def test_winners_know_what_they_were_chosen_by():
    setting = {"learning_rate": 0.123, "momentum": 0.9, "batch_size": 64}
    searched = [
        trial("dense", 512, group=schema.SEARCH, trial_id="a", mse=[0.03], **setting),
        trial("dense", 512, group=schema.SEARCH, trial_id="b", mse=[0.01]),
        trial("dense", 256, group=schema.SEARCH, trial_id="c", mse=[0.01], **setting),
    ]
    winners = [
        trial("dense", 512, seed, mse=[0.02], group=schema.WINNER, **setting) for seed in range(2)
    ]
    bad = [
        trial("dense", 512, 2, group=schema.WINNER, state=schema.FAILED),
        trial("dense", 512, 3, group=schema.WINNER, test_mse=None),
    ]
    found = search.winner_trials(tables(*bad, *winners, *searched, trial("dense", 512))[0])
    assert found["trial_id"].tolist() == ["winner-dense-512-0", "winner-dense-512-1"]
    assert found["name"].tolist() == ["dense-512"] * 2
    assert found["chosen_by_val_mse"].tolist() == [0.03] * 2


def test_a_winner_without_its_search_trial_has_no_objective():
    trials, _ = tables(trial("conv", 8, group=schema.WINNER))
    assert search.winner_trials(trials)["chosen_by_val_mse"].isna().tolist() == [True]
    assert search.winner_trials(tables()[0]).empty


def test_device_seconds_add_up_whatever_became_of_the_trials():
    times = {"train_seconds": 10.0, "eval_seconds": 2.0, "compile_seconds": 1.0}
    unknown = dict.fromkeys(times)
    trials, _ = tables(
        searched(trial_id="a", **times),
        searched("dense", 512, trial_id="b", **times | {"train_seconds": 0.5}),
        searched(trial_id="c", state=schema.PRUNED, **times | {"train_seconds": 3.0}),
        searched(trial_id="d", state=schema.FAILED, **unknown),
        searched(trial_id="e", state=schema.DIVERGED, **times | {"compile_seconds": 0.0}),
        trial("conv", 8),
    )
    progress = search.search_progress(trials)
    assert progress["model"].tolist() == ["conv", "dense", "conv", "conv", "conv"]
    assert progress["seconds"].tolist() == [13, 3.5, 19, 19, 31]
    spent = search.spent(trials)
    assert spent.loc["conv"].tolist() == [4, 1, 1, 31]
    assert spent.loc["dense"].tolist() == [1, 1, 0, 3.5]


def test_parameters_of_trials_are_points_of_the_space():
    trials, _ = tables(
        searched(trial_id="a", momentum=0.95),
        searched(trial_id="b", state=schema.PRUNED, value=0.04),
        searched(trial_id="c", state=schema.DIVERGED, learning_rate=4.0),
        searched(trial_id="d", state=schema.RUNNING),
        searched("dense", 512, trial_id="e"),
    )
    table = parameters.parameter_table(trials, "conv")
    assert table["trial_id"].tolist() == ["a", "b", "c"]
    assert table["one_minus_momentum"].tolist() == [0.05, 0.5, 0.5]
    assert table["value"].tolist()[:2] == [0.02, 0.04]
    assert np.isnan(table["value"].iloc[2])
    assert parameters.varied_parameters(table) == ["learning_rate", "one_minus_momentum"]


@pytest.mark.parametrize(
    ("at_reference", "reference", "state"),
    [
        ({"value": 0.03}, 0.03, schema.COMPLETED),
        ({"value": 0.03, "state": schema.DIVERGED}, None, schema.DIVERGED),
        ({"value": 0.03, "batch_size": 64}, None, None),
        ({"value": 0.03, "momentum": 0.4}, None, None),
        ({"value": 0.03, "nesterov": False}, None, None),
        ({"value": 0.03, "latent_filters": 16}, None, None),
    ],
)
def test_tuning_is_measured_by_the_references_setting(at_reference, reference, state):
    other = searched(trial_id="b", value=0.01, learning_rate=2.0)
    trials, _ = tables(other, searched(**at_reference), trial("conv", 8))
    (tuned,) = search.tuning(trials, 256)
    assert (tuned.reference, tuned.reference_state) == (reference, state)
    assert (tuned.model, tuned.best) == ("conv", 0.01)


def test_the_dense_reference_has_512_relu_units_without_dropout():
    trials, _ = tables(
        searched("dense", 64, trial_id="a"),
        searched("dense", 512, trial_id="b", hidden_activation="sigmoid"),
        searched("dense", 512, trial_id="c", dropout=0.1),
        searched("dense", 512, trial_id="d"),
    )
    assert search.reference_in_search(trials, "dense", 256)["trial_id"].tolist() == ["d"]


def test_winners_are_compared_by_seed():
    def winner(model, size, seed, mse, **changes):
        return trial(model, size, seed, mse=[mse], group=schema.WINNER, **changes)

    trials, _ = tables(
        *(winner("conv", 8, seed, mse) for seed, mse in enumerate((0.01, 0.02, 0.03))),
        winner("dense", 512, 0, 0.005),
        winner("dense", 512, 1, 0.04),
        # Not the winner: another setting, which nothing says was chosen.
        winner("dense", 64, 2, 0.001, trial_id="other"),
        searched("dense", 512, trial_id="chosen", epochs=1),
    )
    ratio = search.winners_ratio(search.winner_trials(trials))
    assert ratio.n == 2
    assert ratio.mean == pytest.approx(1)  # of 1/2 and 2
    assert search.winners_ratio(search.winner_trials(trials[trials["model"] == "conv"])) is None


def test_the_pareto_front_is_what_nothing_dominates():
    points = np.array([[1, 5], [2, 4], [2, 5], [3, 4], [4, 1], [4, 1], [5, 1]], dtype=float)
    expected = [True, True, False, False, True, True, False]
    assert pareto.pareto_front(points).tolist() == expected
    order = [6, 3, 0, 5, 2, 4, 1]
    assert pareto.pareto_front(points[order]).tolist() == [expected[i] for i in order]
    assert pareto.pareto_front(np.empty((0, 2))).tolist() == []


def test_fronts_are_of_completed_trials_on_one_device():
    trials, _ = tables(
        searched(trial_id="slow", value=0.01, train_seconds=100.0),
        searched(trial_id="fast", value=0.03, train_seconds=50.0),
        searched(trial_id="beaten", value=0.04, train_seconds=60.0),
        searched("dense", 512, trial_id="dense", value=0.02, train_seconds=40.0),
        searched(trial_id="elsewhere", value=0.001, train_seconds=1.0, device="GPU"),
        searched(trial_id="unknown", value=0.001, train_seconds=1.0, device=None),
        searched(trial_id="pruned", value=0.001, train_seconds=1.0, state=schema.PRUNED),
    )
    found = pareto.pareto_trials(trials).set_index("trial_id")
    assert "pruned" not in found.index
    assert set(found.index[~found["comparable"]]) == {"elsewhere", "unknown"}
    assert set(found.index[found["on_own_front"]]) == {"slow", "fast", "dense"}
    assert set(found.index[found["on_joint_front"]]) == {"slow", "dense"}
