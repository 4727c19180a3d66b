"""The dry run's arithmetic against hand-computed numbers."""

from study.plan.spec import StudySpec
from study.tune.dry_run import Cost, estimate, list_trials
from study.tune.resources import Slots

COSTS = {"conv": Cost(6.0, 2.0), "dense": Cost(2.0, 1.0)}  # seconds


def spec_of(**settings):
    return StudySpec(preset="test", hidden_units=(512,), **{"n_finalists": 0, **settings})


def lines(n_slots, **settings):
    """The estimate, after the line on what was measured."""
    measured, *rest = estimate(spec_of(**settings), Slots(n_slots, 1, 0), COSTS)
    assert measured.startswith("an epoch: conv 6 s, dense 2 s; measured once each")
    return rest


def test_the_trials_are_listed_with_their_settings():
    listed = list_trials(spec_of(n_search_trials=6, n_seeds=2))
    assert [line.split() for line in listed] == [
        ["2", "×", "reference", "conv"],
        ["2", "×", "reference", "dense-512"],
        ["3", "×", "search", "conv", "by", "tpe"],
        ["2", "×", "winner", "conv"],
        ["3", "×", "search", "dense", "by", "tpe"],
        ["2", "×", "winner", "dense"],
    ]


def test_one_after_the_other():
    # 10 epochs of 6 s and of 2 s.
    first, second = lines(1, epochs=10)
    assert first.startswith("estimate: 80 s of training and evaluation")
    assert second.startswith("besides: 5 s of compilation")


def test_the_longest_decides_where_two_train_at_once():
    assert lines(2, epochs=10)[0].startswith("estimate: 60 s ")


def test_a_scheduler_makes_it_a_range():
    # Reference 400 s, winners 400 s, and a search of 3 × 300 s + 3 × 100 s, or of 20 of 50 epochs.
    line = lines(1, n_search_trials=6)[0]
    assert line.startswith("estimate: at most 34 min ")
    assert "22 min if the scheduler ended every search trial after 20 epochs" in line
    line = lines(1, n_search_trials=6, scheduler="none")[0]
    assert line.startswith("estimate: 34 min of training and evaluation")


def test_a_time_budget_is_named():
    assert lines(1, time_budget_seconds=600.0)[-1] == "the time budget stops it after 10 min"


def test_finalists_train_all_their_epochs():
    # The 2,000 s of before, and of each model two settings and the reference with two seeds.
    settings = {"scheduler": "none", "n_finalists": 2, "n_finalist_seeds": 2}
    line = lines(1, n_search_trials=6, **settings)[0]
    assert line.startswith("estimate: 74 min ")  # 6 × (300 + 100) s more
