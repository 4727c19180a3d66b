"""Seeds are added until a comparison is decided: the test, its errors, and the plan that obeys."""

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from closed_form import final_mse
from scipy import stats
from simulation import Chances, Death, Executor, MemoryFolder
from test_plan import Judge, of

from benchmarks import surrogate
from convae.config import TrialConfig
from study.folder import schema
from study.plan.decision import Comparison, Rule, compare, p_value
from study.plan.spec import SpecError, StudySpec

SPEC = StudySpec(preset="test", hidden_units=(512,), epochs=1, until_decided=15)
RULE = Rule(20, 1)


def rows_of(**settings: list[float | None]) -> list[dict]:
    """Rows of reference trials, a value a seed; None diverged."""
    return [
        {"setting": name, "seed": seed, "split": schema.FULL_SPLIT, schema.TEST_MSE: value}
        | {"state": schema.DIVERGED if value is None else schema.COMPLETED}
        for name, values in settings.items()
        for seed, value in enumerate(values)
    ]


def compared(a: list, b: list, rule: Rule = RULE) -> Comparison:
    return compare(schema.REFERENCE, rows_of(a=a, b=b), "a", "b", range(rule.most), rule)


@pytest.mark.parametrize("seed", range(3))
def test_the_p_value_is_scipys(seed: int):
    a, b = np.random.default_rng(seed).normal([[0], [1]], 1, (2, 5))

    def difference(x: np.ndarray, y: np.ndarray) -> float:
        return x.mean() - y.mean()

    exact = stats.permutation_test((a, b), difference).pvalue
    assert p_value(a, b) == pytest.approx(exact)
    assert p_value(a, a) == 1
    assert p_value(b, a) == p_value(a, b)


def test_a_clear_difference_is_decided_at_the_first_look_and_none_never():
    low, high = [0.010 + 0.0001 * i for i in range(20)], [0.020 + 0.0001 * i for i in range(20)]
    found = compared(low, high)
    assert (found.decided, found.n, found.n_wanted) == (True, 5, 5)
    assert found.p == pytest.approx(2 / 252)
    same = compared(low, low)
    assert (same.decided, same.n, same.n_wanted) == (False, 20, 20)
    assert (compared(low[:7], high[:7]), compared(low, high[:3]).n_wanted) == (found, 5)
    assert compared(low[:5], low[:5]).n_wanted == 10
    assert compared([None] * 20, low).p is None
    # The looks share the error rate, and so do the comparisons of a study.
    assert (Rule(20, 1).looks, Rule(12, 1).looks) == ([5, 10, 15, 20], [5, 10, 12])
    assert (Rule(20, 1).level, Rule(20, 4).level) == (0.0125, 0.003125)


@cache
def runs_of_the_surrogate() -> np.ndarray:
    """MSE of conv's reference setting with a learning rate at which seeds collapse, too."""
    config = TrialConfig(model=schema.CONV, split=schema.SEARCH_SPLIT, learning_rate=2.5)
    found = surrogate.load(schema.CONV)
    curves = (found.measure(config, seed) for seed in range(1500))
    return np.array([curve[-1] for curve in curves if len(curve) == found.epochs])


@pytest.mark.parametrize("n_pairs", [1, 4])
def test_under_no_difference_at_most_one_study_in_twenty_decides(n_pairs: int):
    """1,000 studies of comparisons with one base; all runs are of the same setting."""
    rng, runs, rule = np.random.default_rng(0), runs_of_the_surrogate(), Rule(20, n_pairs)
    assert (runs > 3 * np.median(runs)).mean() > 0.02  # some collapse
    n_wrong = 0
    for _ in range(1000):
        base, *others = rng.choice(runs, (n_pairs + 1, 20))
        n_wrong += any(compared(list(one), list(base), rule).decided for one in others)
    print(f"wrong decisions: {n_wrong} of 1,000 studies")
    assert n_wrong <= 50


def noisy(config: TrialConfig, factor: float = 1.0) -> float:
    """An MSE that differs by a tenth over seeds, conv's by a factor from dense's."""
    noise = random.Random(f"{config.model} {config.seed}").gauss(0, 0.1)
    return 0.01 * float(np.exp(noise)) * (factor if config.model == schema.CONV else 1.0)


@pytest.mark.parametrize("n", [60, pytest.param(1000, marks=pytest.mark.cluster)])
def test_whole_studies_decide_wrongly_in_at_most_one_of_twenty(n: int):
    n_wrong = 0
    for number in range(n):
        judge = Judge(noisy, replace(SPEC, seed=50 * number))
        planned = judge.run()
        (one,) = judge.plan.comparisons
        assert len(planned) == 2 * one.n
        n_wrong += one.decided
    print(f"wrong decisions: {n_wrong} of {n:,} studies")
    assert n_wrong <= n // 20


@pytest.mark.parametrize(("factor", "n"), [(2.0, 5), (1.0, 15)])
def test_seeds_are_added_until_a_reference_pair_is_decided_or_the_cap(factor: float, n: int):
    judge = Judge(lambda config: noisy(config, factor), SPEC)
    planned = judge.run()
    assert len(planned) == 2 * n == len(judge.plan.fixed)
    assert judge.plan.n_trials == 2 * n
    (one,) = judge.plan.comparisons
    assert (one.setting, one.base, one.n, one.decided) == ("conv", "dense-512", n, n == 5)


def test_only_what_is_undecided_gets_further_seeds():
    spec = replace(SPEC, hidden_units=(512, 64))
    judge = Judge(lambda c: noisy(c) * (3 if c.hidden_units == 64 else 1), spec)
    counts = {}
    for trial in judge.run():
        counts[trial.setting] = counts.get(trial.setting, 0) + 1
    assert counts == {"conv": 15, "dense-512": 15, "dense-64": 5}


def test_finalists_get_seeds_all_of_a_model_as_many():
    spec = replace(SPEC, models=("conv",), n_search_trials=6, n_finalists=2)
    judge = Judge(lambda c: final_mse(c) * random.Random(str(c)).lognormvariate(0, 0.05), spec)
    planned = judge.run()
    finalists = of(planned, schema.FINALIST)
    seeds = {}
    for trial in finalists:
        seeds.setdefault(trial.setting, []).append(trial.config.seed)
    (of_first, *others) = seeds.values()
    assert len(seeds) == 3
    assert all(of_one == of_first for of_one in others)
    assert of_first == list(range(1000, 1000 + len(of_first)))
    found = judge.plan.comparisons
    assert len(of_first) == max(one.n_wanted for one in found)
    assert {one.group for one in found} == {schema.FINALIST}
    assert planned[-1].group == schema.WINNER


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_study_goes_on_to_the_same_decisions(seed: int):
    spec = replace(SPEC, n_search_trials=4)

    def ends_of(chances: Chances, deaths: list[int]) -> tuple[set[str], list[Comparison]]:
        executor, files = Executor(spec, random.Random(seed), n_slots=3), {}
        for dies_at in deaths:
            with pytest.raises(Death):
                executor.session(MemoryFolder(files, dies_at))
        executor.chances, finished = chances, False
        while not finished:
            plan, ledger = executor.session(MemoryFolder(files))
            finished = plan.is_finished
        rows = [row for row in ledger.rows() if row["group"] == schema.REFERENCE]
        known = [one for one in plan.comparisons if one.group == schema.REFERENCE]
        return {row["trial_id"] for row in rows}, known

    assert ends_of(Chances(interrupt=0.05), [9, 14, 20, 7]) == ends_of(Chances(), [])


def test_the_rule_stays_and_says_itself():
    with pytest.raises(SpecError, match="until_decided 15 to 20"):
        replace(SPEC, until_decided=20).check_resumes(SPEC)
    replace(SPEC, n_seeds=8).check_resumes(SPEC)
    with pytest.raises(SpecError, match="--until-decided is 3, but takes a whole number from 5"):
        replace(SPEC, until_decided=3)
    assert "if p is at most 0.0031: 5 % ÷ (4 looks × 4 comparisons)" in Rule(20, 4).words
