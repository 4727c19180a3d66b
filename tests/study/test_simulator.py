"""Thousands of studies without Ray: wherever a driver dies, nothing is lost."""

import contextlib
import random
import statistics
from dataclasses import replace

import pytest
from closed_form import BEST
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulation import Chances, Death, Executor, MemoryFolder, assert_whole, known_ends

from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.study_file import PRESETS

ONE_FINALIST = {"n_finalists": 1, "n_finalist_seeds": 2}
SMALL = {
    "quick": {"n_search_trials": 6},
    "reference": {"hidden_units": (512, 64), "n_seeds": 2},
    "standard": {"n_search_trials": 8, "hidden_units": (512, 64), **ONE_FINALIST},
    "audit": {"n_seeds": 1, "hidden_units": (512,), "models": ("dense",)},
    "tuning": {"n_search_trials": 8},
    "full": {
        "n_seeds": 1,
        "n_search_trials": 4,
        "n_searches": 2,
        "hidden_units": (512,),
        "models": ("conv",),
    }
    | ONE_FINALIST,
}


def small(preset, **changes):
    """A preset's shape, with few epochs and trials."""
    return replace(PRESETS[preset], epochs=3, **(SMALL[preset] | changes))


def run(executor, folder):
    plan, _ = executor.session(folder)
    return plan


class WatchedFolder(MemoryFolder):
    """Keeps what there is before each change: what a death leaves, also of the change before."""

    def __init__(self, executor):
        super().__init__()
        self.executor = executor
        self.moments = []

    def _change(self, change):
        checkpoints = {trial_id: list(kept) for trial_id, kept in self.executor.checkpoints.items()}
        self.moments.append((dict(self.files), checkpoints))
        super()._change(change)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_driver_that_dies_at_any_single_write_loses_nothing(preset):
    spec = small(preset, sampler="random")
    executor = Executor(spec, random.Random(0), Chances(prune=0.2))
    watched = WatchedFolder(executor)
    run(executor, watched)
    assert len(watched.moments) > 20
    for files, checkpoints in [*watched.moments, (watched.files, executor.checkpoints)]:
        dead = MemoryFolder(files)
        known = known_ends(dead) if schema.EPOCHS_FILE in files else {}
        after = MemoryFolder(dict(files))
        plan = run(Executor(spec, random.Random(1), Chances(prune=0.2), 2, checkpoints), after)
        assert_whole(spec, after, plan)
        ends = known_ends(after)
        assert all(ends[trial_id] == known[trial_id] for trial_id in known)


def simulate(seed, preset, n_slots, chances, deaths):
    """Kills a study several times, lets it go on in between, and to its end."""
    spec = small(preset, sampler="random")
    executor = Executor(spec, random.Random(seed), chances, n_slots)
    files, known = {}, {}

    def check():
        """What had ended is as it was; but a failed trial that the study needs runs again."""
        ends = known_ends(MemoryFolder(files)) if schema.EPOCHS_FILE in files else {}
        for trial_id, (row, epochs) in known.items():
            if row["state"] != schema.FAILED:
                assert ends[trial_id] == (row, epochs)
        return ends

    for dies_at, done in deaths:
        with contextlib.suppress(Death):
            executor.session(MemoryFolder(files, dies_at, done=done))
        known = check()
    executor.chances = Chances(prune=chances.prune)  # the last session is a calm one
    folder = MemoryFolder(files)
    plan = run(executor, folder)
    check()
    assert_whole(spec, folder, plan)


DENSE = StudySpec(preset="test", models=("dense",), hidden_units=(64,))
chance = st.floats(0, 0.2)


@pytest.mark.parametrize("n", [60, pytest.param(1000, marks=pytest.mark.cluster)])
def test_whatever_happens_no_trial_is_lost_nor_counted_twice(n):
    settings(max_examples=n, deadline=None, suppress_health_check=[HealthCheck.too_slow])(
        given(
            seed=st.integers(0, 2**32),
            preset=st.sampled_from(sorted(PRESETS)),
            n_slots=st.integers(1, 5),
            chances=st.builds(
                Chances,
                prune=chance,
                diverge=chance,
                fail=chance,
                fail_for_good=st.sampled_from([0.0, 0.05]),
                interrupt=st.sampled_from([0.0, 0.02]),
            ),
            deaths=st.lists(st.tuples(st.integers(1, 150), st.booleans()), max_size=4),
        )(simulate)
    )()


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_an_interrupted_study_proposes_what_it_would_have(sampler):
    """One trial at a time, wherever it is interrupted."""
    spec = replace(DENSE, epochs=2, n_search_trials=16, sampler=sampler)

    def settings_of(folder):
        return {trial_id: row["learning_rate"] for trial_id, (row, _) in known_ends(folder).items()}

    whole = MemoryFolder()
    run(Executor(spec, random.Random(0), n_slots=1), whole)
    for seed in range(3):
        cut = MemoryFolder()
        executor = Executor(spec, random.Random(seed), Chances(interrupt=0.15), n_slots=1)
        n_sessions = 0
        while n_sessions < 2 or len(settings_of(cut)) < len(settings_of(whole)):
            run(executor, cut)
            n_sessions += 1
        assert settings_of(cut) == settings_of(whole)


def search_tables(lag, seed, n_slots=None, deaths=(), **changes):
    """What a study leaves, but for the file that says when; its trials end in a random order."""
    settings = {"epochs": 4, "n_search_trials": 24, **ONE_FINALIST, **changes}
    spec = replace(DENSE, models=("conv", "dense"), **settings)
    executor = Executor(spec, random.Random(seed), n_slots=n_slots or lag, lag=lag)
    files = {}
    for dies_at, done in deaths:
        with contextlib.suppress(Death):
            executor.session(MemoryFolder(files, dies_at, done=done))
    folder = MemoryFolder(files)
    assert_whole(spec, folder, run(executor, folder))
    return folder.files[schema.TRIALS_CSV_FILE], folder.files[schema.EPOCHS_CSV_FILE]


REPEATED = [
    {"sampler": sampler, "scheduler": scheduler, "grace_epochs": 1}
    for sampler in ("tpe", "random")
    for scheduler in ("asha", "median", "none")
]


@pytest.mark.parametrize("n", [4, pytest.param(50, marks=pytest.mark.cluster)])
@pytest.mark.parametrize("how", REPEATED, ids=lambda how: f"{how['sampler']}-{how['scheduler']}")
def test_the_order_of_ends_and_deaths_of_the_driver_decide_nothing(how, n):
    """Whatever ends first, wherever it dies, on any number of places up to the lag: one table."""
    expected = {lag: search_tables(lag, seed=0, **how) for lag in (1, 3, 5)}

    @settings(max_examples=n, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        lag=st.sampled_from(sorted(expected)),
        seed=st.integers(0, 2**32),
        n_slots=st.integers(1, 5),
        deaths=st.lists(st.tuples(st.integers(1, 120), st.booleans()), max_size=2),
    )
    def check(lag, seed, n_slots, deaths):
        found = search_tables(lag, seed, min(n_slots, lag), deaths, **how)
        assert found == expected[lag]

    check()


def test_without_a_lag_the_order_of_ends_decides():
    """Else the test above could not fail."""
    spec = replace(DENSE, epochs=1, n_search_trials=12, scheduler="none", n_finalists=0)
    tables = set()
    for seed in range(3):
        folder = MemoryFolder()
        run(Executor(spec, random.Random(seed), n_slots=3), folder)
        rows = [row for row, _ in known_ends(folder).values() if row["group"] == schema.SEARCH]
        tables.add(tuple(row["learning_rate"] for row in rows))
    assert len(tables) > 1


def test_tpe_beats_random_at_equal_budget_over_20_seeds():
    """One trial at a time repeats itself exactly, so this comparison cannot flicker."""

    def best(sampler, seed):
        folder = MemoryFolder()
        spec = replace(
            DENSE, epochs=1, n_search_trials=24, sampler=sampler, scheduler="none", seed=seed
        )
        run(Executor(spec, random.Random(0), n_slots=1), folder)
        return min(
            row[schema.VAL_MSE]
            for row, _ in known_ends(folder).values()
            if row["group"] == schema.SEARCH
        )

    ratios = [best("tpe", seed) / best("random", seed) for seed in range(20)]
    assert statistics.median(ratios) < 0.95
    assert sum(ratio < 1 for ratio in ratios) >= 14


def test_asha_spends_less_for_as_good_a_setting():
    spent, best = {}, {}
    for scheduler in ("asha", "none"):
        settings = {"n_search_trials": 40, "sampler": "random", "epochs": 27, "grace_epochs": 1}
        spec, folder = replace(DENSE, scheduler=scheduler, **settings), MemoryFolder()
        run(Executor(spec, random.Random(0), n_slots=1, lag=1), folder)
        searched = [r for r, _ in known_ends(folder).values() if r["group"] == schema.SEARCH]
        spent[scheduler] = sum(row["epochs_completed"] for row in searched)
        completed = (row for row in searched if row["state"] == schema.COMPLETED)
        best[scheduler] = min(row[schema.VAL_MSE] for row in completed)
    assert spent["asha"] < spent["none"] / 2
    assert best["asha"] <= best["none"] * 1.05


def test_the_search_finds_the_minimum():
    spec = replace(DENSE, epochs=9, n_search_trials=60, scheduler="none", n_finalists=0)
    folder = MemoryFolder()
    run(Executor(spec, random.Random(0), n_slots=1), folder)
    rows = [row for row, _ in known_ends(folder).values()]
    floor = BEST * (1 + 1 / 9)
    assert min(row[schema.VAL_MSE] for row in rows if row["group"] == schema.SEARCH) < 1.1 * floor
    (winner,) = [row for row in rows if row["group"] == schema.WINNER]
    assert winner["learning_rate"] == pytest.approx(0.3, rel=0.35)
    assert winner["momentum"] == pytest.approx(0.8, abs=0.08)


def test_a_prolonged_study_keeps_its_trials_and_adds_to_them():
    spec = small("standard", sampler="random", models=("dense",), n_search_trials=4)
    folder = MemoryFolder()
    executor = Executor(spec, random.Random(1))
    run(executor, folder)
    before = known_ends(folder)
    executor.spec = more = replace(spec, n_search_trials=40, n_seeds=2)
    more.check_resumes(spec)
    plan = run(executor, folder)
    after = known_ends(folder)
    assert {trial_id: after[trial_id] for trial_id in before} == before
    searched = [row for row, _ in after.values() if row["group"] == schema.SEARCH]
    assert len(searched) == 40
    best = min(searched, key=lambda row: row[schema.VAL_MSE])
    winners = [row for row, _ in after.values() if row["group"] == schema.WINNER]
    new = [row for row in winners if row["learning_rate"] == best["learning_rate"]]
    assert sorted(row["seed"] for row in new) == [0, 1]
    # The first winner was another one, which stays; so do both names.
    assert sorted(row["trial_id"] for row in winners) == [
        "winner-dense-2-s0",
        "winner-dense-2-s1",
        "winner-dense-s0",
    ]
    references = [row for row, _ in after.values() if row["group"] == schema.REFERENCE]
    assert sorted({row["seed"] for row in references}) == [0, 1]
    assert plan.is_finished
