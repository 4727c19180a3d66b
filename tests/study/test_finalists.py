"""Finalists: who they are, who of them wins, and that seeds make a better choice than luck."""

import math
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from closed_form import final_mse
from scipy import stats
from test_plan import Judge, of

from convae.sharing import DeviceSharing
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import count_trials, reference_config

SPEC = StudySpec(
    preset="test", models=("conv",), epochs=1, n_search_trials=8, n_finalists=2, n_finalist_seeds=3
)
REFERENCE = reference_config("conv", SPEC, split="search")


def judge(rule, spec=SPEC, files=None):
    return Judge(rule, spec, files)


def plain(config):
    """Without what the groups differ in."""
    return replace(config, seed=0, split="search")


def test_the_best_settings_and_the_reference_train_again_with_fresh_seeds():
    planned = judge(final_mse).run()
    searched = sorted(of(planned, schema.SEARCH), key=lambda trial: final_mse(trial.config))
    best = [trial for trial in searched if trial.config != REFERENCE][:2]
    finalists = of(planned, schema.FINALIST)
    names = [trial.trial_id.removeprefix("search-conv-") for trial in best]
    assert [trial.trial_id for trial in finalists] == [
        f"finalist-conv-{name}-s{seed}"
        for name in (*names, "reference")
        for seed in range(1000, 1003)
    ]
    assert [plain(trial.config) for trial in finalists[::3]] == [
        *(trial.config for trial in best),
        REFERENCE,
    ]
    assert {trial.config.split for trial in finalists} == {"search"}
    assert not any(trial.prunable or trial.keep_model for trial in finalists)
    seeds = {trial.config.seed for trial in planned if trial.group != schema.FINALIST}
    assert seeds.isdisjoint(trial.config.seed for trial in finalists)
    assert len(planned) == sum(count_trials(SPEC).values())


def test_all_finalists_may_train_at_once_and_winners_wait_for_them():
    hand = judge(final_mse)
    while (planned := hand.plan.next()).group != schema.FINALIST:
        hand.finish(planned)
    finalists = [planned, *(hand.plan.next() for _ in range(8))]
    assert {trial.group for trial in finalists} == {schema.FINALIST}
    assert {trial.sharing for trial in finalists} == {DeviceSharing.LANES}
    assert hand.plan.next() is None
    for trial in finalists[1:]:
        hand.finish(trial)
    assert hand.plan.next() is None
    hand.finish(planned)
    assert hand.plan.next().group == schema.WINNER


@pytest.mark.parametrize("unlucky", [None, 1.0], ids=["diverged", "collapsed"])
def test_a_setting_that_collapses_with_one_seed_of_three_loses(unlucky):
    """The best of the search does: the second best wins."""
    lucky = []

    def rule(config):
        if config.seed == 1001 and lucky and plain(config) == lucky[0]:
            return unlucky
        return final_mse(config)

    searched = of(judge(rule).run(), schema.SEARCH)
    lucky += sorted((trial.config for trial in searched), key=final_mse)
    winner = of(judge(rule).run(), schema.WINNER)[0]
    assert plain(winner.config) != lucky[0]
    assert final_mse(winner.config) == final_mse(lucky[1])
    assert winner.config.split == "full"


def test_the_reference_wins_where_no_setting_is_better():
    def rule(config):
        return 1.0 if plain(config) == REFERENCE else 0.5 if config.seed == 0 else 2.0

    assert plain(of(judge(rule).run(), schema.WINNER)[0].config) == REFERENCE


def test_what_a_search_has_not_is_not_waited_for():
    """Half of its settings diverge, the others are fewer than the finalists asked for."""
    hand = judge(lambda config: final_mse(config) if config == REFERENCE else None)
    planned = hand.run()
    assert len(planned) == hand.plan.n_trials == sum(count_trials(SPEC).values()) - 6


def test_no_finalists_if_none_are_asked_for_or_nothing_completed():
    groups = [trial.group for trial in judge(final_mse, replace(SPEC, n_finalists=0)).run()]
    assert schema.FINALIST not in groups
    assert schema.WINNER in groups
    assert {trial.group for trial in judge(lambda _: None).run()} == {"reference", "search"}


def test_a_prolonged_search_adds_finalists_and_finishes_those_that_were_begun():
    hand = judge(final_mse)
    while (trial := hand.plan.next()).group != schema.FINALIST:
        hand.finish(trial)
    begun = trial.trial_id
    more = replace(SPEC, n_search_trials=40)
    planned = judge(final_mse, more, dict(hand.folder.files)).run()
    finalists = [trial.trial_id for trial in of(planned, schema.FINALIST)]
    assert begun in finalists
    assert len(finalists) >= 9
    best = min((t.config for t in of(planned, schema.SEARCH)), key=final_mse)
    assert plain(of(planned, schema.WINNER)[0].config) == best


def test_seeds_choose_a_better_setting_than_luck_does_over_200_repeats():
    """The noise is like conv's: seeds differ by a tenth, and large steps collapse now and then.

    The truth is known here: a setting's mean over all seeds.
    """
    spread, collapsed = 0.1, 0.1

    def chance(config):
        return 0.3 if config.learning_rate / (1 - config.momentum) > 2 else 0.0

    def truth(config):
        plain_mean = final_mse(config) * math.exp(spread**2 / 2)
        return plain_mean + chance(config) * (collapsed - plain_mean)

    def measured(repeat, config):
        rng = random.Random(f"{repeat} {config}")
        lucky = rng.random() >= chance(config)
        return final_mse(config) * math.exp(rng.gauss(0, spread)) if lucky else collapsed

    spec = replace(SPEC, n_search_trials=12, n_finalists=3, sampler="random")
    gains = []
    for repeat in range(200):
        rule = partial(measured, repeat)
        planned = judge(rule, replace(spec, seed=repeat)).run()
        chosen = of(planned, schema.WINNER)[0].config
        luckiest = min((trial.config for trial in of(planned, schema.SEARCH)), key=rule)
        gains.append(math.log(truth(chosen) / truth(luckiest)))
    interval = stats.t.interval(0.95, len(gains) - 1, np.mean(gains), stats.sem(gains))
    low, high = (math.exp(end) for end in interval)
    print(f"true MSE, finalists ÷ luck: {low:.3f} to {high:.3f}, n = {len(gains)}")
    assert high < 1
