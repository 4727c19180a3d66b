"""The plan of a study, driven by hand: phases, equal shares, Optuna's states, winners."""

import math
from collections import Counter
from dataclasses import replace

import optuna
import pytest
from ray.tune.search import Searcher

from study.folder import schema
from study.presets import StudySpec
from study.records import Records
from study.search import StudySearch
from study.space import PlannedTrial, config_from_params, first_points, suggest_conv
from study.storage import RunFolder, StorageError

SPEC = StudySpec(preset="test", hidden_units=(64,), epochs=2, n_search_trials=6, n_seeds=2)


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


def val_mse(config):
    """A closed-form objective: learning rate 0.3 is best."""
    return 0.01 + math.log(config.learning_rate / 0.3) ** 2 / 100


def result(config, state=schema.COMPLETED, **changes):
    rows = [{"epoch": e, schema.VAL_MSE: val_mse(config) * (3 - e)} for e in (1, 2)]
    return {"state": state, "history": rows, schema.OBJECTIVE: val_mse(config), **changes}


def run(search, finish=result):
    """Runs trial after trial to the end; returns them in order."""
    planned = []
    while (config := search.suggest(f"t{len(planned)}")) != Searcher.FINISHED:
        planned.append(PlannedTrial.from_tune(config))
        search.on_trial_complete(f"t{len(planned) - 1}", finish(planned[-1].config))
    return planned


def test_phases_and_equal_shares(storage):
    search = StudySearch(SPEC, storage)
    planned = run(search)
    groups = [trial.group for trial in planned]
    assert groups == [schema.REFERENCE] * 4 + [schema.SEARCH] * 6 + [schema.WINNER] * 4
    assert Counter(groups) == search.n_trials
    for group, split in ((schema.SEARCH, "search"), (schema.WINNER, "full")):
        models = [trial.config.model for trial in planned if trial.group == group]
        assert models.count("conv") == models.count("dense")
        assert {trial.config.split for trial in planned if trial.group == group} == {split}


def test_every_trial_has_the_studys_precision(storage):
    spec = replace(SPEC, precision="bfloat16", readings=True, neighbours=True, n_seeds=1)
    planned = run(StudySearch(spec, storage))
    assert {trial.group for trial in planned} == set(schema.GROUPS)
    assert {trial.config.precision for trial in planned} == {"bfloat16"}


def test_winner_is_the_best_by_validation(storage):
    planned = run(StudySearch(SPEC, storage))
    for model in schema.MODELS:
        tried = [t.config for t in planned if t.group == schema.SEARCH and t.config.model == model]
        best = min(tried, key=val_mse)
        winners = [
            t.config for t in planned if t.group == schema.WINNER and t.config.model == model
        ]
        assert [winner.seed for winner in winners] == [0, 1]
        assert {winner.learning_rate for winner in winners} == {best.learning_rate}
        assert {winner.batch_size for winner in winners} == {best.batch_size}


def test_half_of_a_search_is_given_and_starts_with_the_reference_setting(storage):
    planned = [t for t in run(StudySearch(SPEC, storage)) if t.group == schema.SEARCH]
    for model in schema.MODELS:
        trials = [trial for trial in planned if trial.config.model == model]
        given = [
            config_from_params(model, point, epochs=2, split="search", seed=0)
            for point in first_points(model, SPEC, 3)
        ]
        assert [trial.config for trial in trials[:2]] == given[:2]
        assert trials[2].config != given[2]
        # The yardstick has a final value whatever the scheduler thinks of it.
        assert [trial.prunable for trial in trials] == [False, True, True]


@pytest.mark.parametrize("n_before", [0, 2], ids=["given", "sampled"])
def test_a_setting_that_a_death_left_half_drawn_is_completed(storage, n_before):
    """Optuna stores a trial's parameters one by one, so that a death may come between two."""
    spec = StudySpec(preset="test", models=("conv",), n_search_trials=4, epochs=2)
    study = StudySearch(spec, storage)._searches["conv"].study  # the first two points are given
    for _ in range(n_before):
        suggest_conv(study.ask())
    half = study.ask()
    rate = half.suggest_float("learning_rate", 0.05, 5.0, log=True)
    planned = run(StudySearch(spec, storage))
    searched = [trial for trial in planned if trial.group == schema.SEARCH]
    assert [trial.trial_id for trial in searched] == [f"search-conv-{n:03d}" for n in range(4)]
    config = searched[half.number].config
    assert config.learning_rate == rate
    stored = study.trials[half.number].params
    assert config == config_from_params("conv", stored, epochs=2, split="search", seed=0)
    assert states(storage) == ["COMPLETE"] * 4


def test_a_search_that_died_over_its_first_points_gets_them_all(storage):
    study = optuna.create_study(study_name="conv", storage=storage)
    study.enqueue_trial(first_points("conv", SPEC, 1)[0])
    settings = [trial.config for trial in run(StudySearch(SPEC, storage))]
    assert settings == [
        trial.config for trial in run(StudySearch(SPEC, optuna.storages.InMemoryStorage()))
    ]
    assert states(storage) == ["COMPLETE"] * SPEC.share


def test_optuna_is_not_told_an_end_that_the_tables_could_not_take(storage, tmp_path, monkeypatch):
    """Else a resumed study would find one more trial in Optuna than in the tables."""
    spec = StudySpec(preset="test", models=("conv",), n_search_trials=2, epochs=2)
    records = Records(RunFolder(tmp_path))
    records.write()
    search = StudySearch(spec, storage, records)

    def full_disk(*_):
        raise StorageError("disk full")

    for number in range(2):  # the reference trial, then a search trial
        planned = PlannedTrial.from_tune(search.suggest(f"t{number}"))
        records.start(planned)
        if planned.group == schema.SEARCH:
            monkeypatch.setattr(RunFolder, "write", full_disk)
        search.on_trial_complete(f"t{number}", result(planned.config))
    assert records.trouble is not None
    assert states(storage) == ["RUNNING"]


def test_same_seed_same_suggestions():
    def suggestions(seed):
        spec = StudySpec(preset="test", models=("dense",), n_search_trials=15, seed=seed, epochs=2)
        planned = run(StudySearch(spec, optuna.storages.InMemoryStorage()))
        return [t.config.learning_rate for t in planned if t.group == schema.SEARCH]

    assert suggestions(0) == suggestions(0)
    assert suggestions(0) != suggestions(1)


def test_waits_for_running_search_trials_before_naming_winners(storage):
    search = StudySearch(StudySpec(preset="test", models=("conv",), n_search_trials=1), storage)
    fixed = PlannedTrial.from_tune(search.suggest("fixed"))
    running = PlannedTrial.from_tune(search.suggest("running"))
    assert search.suggest("early") is None
    search.on_trial_complete("fixed", result(fixed.config))
    assert search.suggest("early") is None
    search.on_trial_complete("running", result(running.config))
    assert search.suggest("winner")["group"] == schema.WINNER


def states(storage, model="conv"):
    study = optuna.load_study(study_name=model, storage=storage)
    return [trial.state.name for trial in study.trials]


def test_optuna_knows_each_end(storage):
    """Completed, pruned, diverged and failed stay apart, and none becomes a number."""
    search = StudySearch(StudySpec(preset="test", models=("conv",), n_search_trials=4), storage)
    search.on_trial_complete(
        "fixed", result(PlannedTrial.from_tune(search.suggest("fixed")).config)
    )
    configs = [PlannedTrial.from_tune(search.suggest(f"t{i}")).config for i in range(4)]
    search.on_trial_complete("t0", result(configs[0]))
    search.on_trial_complete("t1", result(configs[1], schema.RUNNING))
    search.on_trial_complete("t2", result(configs[2], schema.DIVERGED, diverged_epoch=3))
    search.on_trial_complete("t3", error=True)
    assert states(storage) == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    trials = optuna.load_study(study_name="conv", storage=storage).trials
    assert trials[0].value == pytest.approx(val_mse(configs[0]))
    assert trials[0].intermediate_values == pytest.approx(
        {1: 2 * val_mse(configs[0]), 2: val_mse(configs[0])}
    )
    assert trials[2].value is None
    assert trials[2].user_attrs == {"diverged_epoch": 3}
    assert trials[3].value is None


def test_no_winner_where_nothing_completed(storage):
    spec = StudySpec(preset="test", models=("conv",), n_search_trials=2, epochs=2)
    planned = run(
        StudySearch(spec, storage),
        lambda config: result(config, schema.DIVERGED, diverged_epoch=1, history=[]),
    )
    assert [trial.group for trial in planned] == [schema.REFERENCE] + [schema.SEARCH] * 2


def test_a_stopped_study_calls_no_trial_pruned(storage):
    search = StudySearch(StudySpec(preset="test", models=("conv",), n_search_trials=1), storage)
    search.suggest("fixed")
    config = PlannedTrial.from_tune(search.suggest("cut off")).config
    search.stopping = True
    search.on_trial_complete("cut off", result(config, schema.RUNNING))
    assert states(storage) == ["RUNNING"]


def test_two_objectives_reach_optuna(storage):
    spec = StudySpec(
        preset="test",
        models=("dense",),
        hidden_units=(64,),
        n_search_trials=4,
        objective="mse,time",
        scheduler="none",
    )

    def finish(config):  # the better the slower
        return result(config, train_seconds=1 / val_mse(config))

    planned = run(StudySearch(spec, storage), finish)
    study = optuna.load_study(study_name="dense", storage=storage)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    searched = [t.config for t in planned if t.group == schema.SEARCH]
    assert [trial.values for trial in study.trials] == [
        pytest.approx([val_mse(config), 1 / val_mse(config)]) for config in searched
    ]
    # The winner is the best by the validation images, not the fastest.
    assert planned[-1].config.learning_rate == min(searched, key=val_mse).learning_rate
