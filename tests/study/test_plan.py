"""The plan of a study, driven by hand: phases, equal shares, Optuna's states, winners."""

from collections import Counter
from dataclasses import replace

from closed_form import final_mse
from simulation import MemoryFolder, epoch_row, measured

from convae.config import Choices, Range
from convae.sharing import DeviceSharing
from study.folder import schema
from study.folder.storage import RunFolderError
from study.plan.ledger import Ledger
from study.plan.phases import Plan
from study.plan.space import Space
from study.plan.spec import StudySpec
from study.plan.trials import count_trials, first_points, search_config

SPEC = StudySpec(
    preset="test", hidden_units=(64,), epochs=2, n_search_trials=6, n_seeds=2, n_finalists=0
)


class Hand:
    """A plan and its ledger, whose trials end as the test says."""

    def __init__(self, spec=SPEC, files=None, *, enforce_alone=True, lanes=None):
        self.folder = MemoryFolder(files)
        self.ledger = Ledger(self.folder, resume=files is not None)
        self.plan = Plan(spec, self.ledger, enforce_alone=enforce_alone, lanes=lanes)

    def again(self, spec):
        """The next session, after this one died."""
        return Hand(spec, dict(self.folder.files))

    def optuna(self, model="conv"):
        return self.plan.study_of(model).trials

    def next(self, *, group=schema.SEARCH):
        """The next trial of a group; those before it are completed."""
        while (planned := self.plan.next()).group != group:
            self.complete(planned)
        return planned

    def measure(self, planned, n_epochs=2, **changes):
        """The first epochs: the MSE falls to the objective in the second."""
        mse, config = final_mse(planned.config), planned.config
        rows = [epoch_row(config, e, mse * (3 - e)) for e in range(1, n_epochs + 1)]
        self.ledger.measure(planned.trial_id, *measured(*rows, **changes))

    def complete(self, planned, **changes):
        self.measure(planned, **changes)
        self.ledger.end(planned.trial_id)

    def diverge(self, planned):
        self.measure(planned, 0, diverged_epoch=1)
        self.ledger.end(planned.trial_id)

    def run(self, finish=None):
        """Runs trial after trial to the end; returns them in order."""
        planned = []
        while trial := self.plan.next():
            planned.append(trial)
            (finish or self.complete)(trial)
        assert self.plan.is_finished
        return planned


class Judge(Hand):
    """Completes each trial with the value that a rule gives its config; None: it diverges."""

    def __init__(self, rule, spec, files=None):
        super().__init__(spec, files)
        self.rule = rule

    def finish(self, planned):
        value = self.rule(planned.config)
        if value is None:
            self.diverge(planned)
            return
        self.ledger.measure(planned.trial_id, *measured(epoch_row(planned.config, 1, value)))
        self.ledger.end(planned.trial_id)

    def run(self):
        return super().run(self.finish)


def of(planned, group, model=None):
    return [t for t in planned if t.group == group and model in (None, t.config.model)]


def states(hand, model="conv"):
    return [trial.state.name for trial in hand.optuna(model)]


def test_phases_and_equal_shares():
    hand = Hand()
    assert hand.plan.n_to_come == 14
    planned = hand.run()
    assert hand.plan.n_to_come == 0
    groups = [trial.group for trial in planned]
    assert groups == [schema.REFERENCE] * 4 + [schema.SEARCH] * 6 + [schema.WINNER] * 4
    assert Counter(groups) == count_trials(SPEC)
    for group, split in ((schema.SEARCH, "search"), (schema.WINNER, "full")):
        models = [trial.config.model for trial in of(planned, group)]
        assert models.count("conv") == models.count("dense")
        assert {trial.config.split for trial in of(planned, group)} == {split}
    # In turn, so that a study that is cut off has searched both.
    assert [trial.config.model for trial in of(planned, schema.SEARCH)] == ["conv", "dense"] * 3


def test_a_pruned_trials_value_is_its_last_as_optuna_has_it():
    hand = Hand(replace(SPEC, epochs=3))
    planned = hand.next()
    rows = [epoch_row(planned.config, e, mse) for e, mse in ((1, 0.1), (2, 0.2))]
    hand.ledger.measure(planned.trial_id, *measured(*rows))
    hand.ledger.end(planned.trial_id)
    for now in (hand, hand.again(replace(SPEC, epochs=3))):
        (pruned,) = [trial for trial in now.optuna() if trial.state.name == "PRUNED"]
        assert pruned.value == 0.2


def test_winner_is_the_best_by_validation():
    planned = Hand().run()
    for model in schema.MODELS:
        best = min((t.config for t in of(planned, schema.SEARCH, model)), key=final_mse)
        winners = [trial.config for trial in of(planned, schema.WINNER, model)]
        assert winners == [replace(best, split="full", seed=seed) for seed in (0, 1)]


def test_half_of_a_search_is_given_and_starts_with_the_reference_setting():
    planned = Hand().run()
    for model in schema.MODELS:
        trials = of(planned, schema.SEARCH, model)
        given = [search_config(model, point, SPEC) for point in first_points(model, SPEC, 3)]
        assert [trial.config for trial in trials[:2]] == given[:2]
        assert trials[2].config != given[2]
        # The yardstick has a final value whatever the scheduler thinks of it.
        assert [trial.prunable for trial in trials] == [False, True, True]


def test_a_grid_gives_each_of_its_points_once_and_no_more():
    """The 480 points of the convolutional model; Optuna's own grid would stop its study there."""
    spec = StudySpec(preset="test", models=("conv",), sampler="grid", n_search_trials=480, epochs=2)
    searched = of(Hand(spec).run(), schema.SEARCH)
    found = {str(spec.space_of("conv").params_of(trial.config)) for trial in searched}
    assert len(searched) == 480
    assert found == set(map(str, spec.space_of("conv").grid))


def test_an_end_that_the_folder_could_not_take_is_trained_again_and_counted_once():
    """Else a resumed study would have one more trial in Optuna than in the tables."""
    spec = replace(SPEC, models=("conv",), n_search_trials=2)
    hand = Hand(spec)
    planned = hand.next()

    def full_disk(*_):
        raise RunFolderError("disk full")

    hand.folder.write = full_disk
    hand.complete(planned)
    assert str(hand.ledger.trouble) == "disk full"
    hand = hand.again(spec)
    assert states(hand) == ["RUNNING"]
    assert hand.next() == planned
    hand.complete(planned)
    hand.run()
    assert states(hand) == ["COMPLETE"] * 2


def test_waits_for_running_search_trials_before_naming_winners():
    hand = Hand(replace(SPEC, models=("conv",), n_search_trials=1, n_seeds=1))
    running = hand.next()
    assert hand.plan.next() is None
    assert not hand.plan.is_finished
    assert hand.plan.n_to_come == 1  # as many free workers stay
    hand.complete(running)
    assert hand.plan.next().group == schema.WINNER
    assert hand.plan.n_to_come == 0


def test_nothing_is_handed_out_beside_a_trial_that_is_alone():
    """The reference trials of the first seed, one after the other; then all that there is room for.

    A failed one that a later session trains again waits until the others have ended.
    """
    spec = replace(SPEC, models=("conv",), n_seeds=3, n_search_trials=0)
    hand = Hand(spec)
    alone = hand.plan.next()
    assert alone.sharing is DeviceSharing.ALONE
    assert hand.plan.next() is None
    assert not hand.plan.is_finished
    hand.ledger.end(alone.trial_id, error="no such file")
    assert [hand.plan.next().sharing for _ in range(2)] == [DeviceSharing.LANES] * 2
    hand = hand.again(spec)
    assert hand.plan.next() == alone
    assert hand.plan.next() is None
    hand.complete(alone)
    assert len(hand.run()) == 2


def test_engines_get_all_trials_at_once_and_see_to_those_that_are_alone_themselves():
    hand = Hand(replace(SPEC, n_search_trials=0), enforce_alone=False)
    planned = [hand.plan.next() for _ in range(4)]
    sharing = [DeviceSharing.ALONE] * 2 + [DeviceSharing.LANES] * 2
    assert [trial.sharing for trial in planned] == sharing
    assert hand.plan.next() is None


def test_a_fixed_trial_goes_where_a_lane_is_free():
    """In the order of seeds four dense trials would come to one conv trial: whose lanes idled."""
    spec = replace(SPEC, n_search_trials=0, n_seeds=5, hidden_units=(64, 128, 256, 512))
    hand = Hand(spec, enforce_alone=False, lanes={"conv": 3, "dense": 3})
    for planned in [hand.plan.next() for _ in range(5)]:
        assert planned.sharing is DeviceSharing.ALONE
        hand.complete(planned)
    order = [trial.trial_id for trial in hand.plan.fixed]
    at_work = [hand.plan.next() for _ in range(6)]
    assert Counter(trial.config.model for trial in at_work) == {"conv": 3, "dense": 3}
    left = [name for name in order[5:] if name not in {trial.trial_id for trial in at_work}]
    at_work.append(hand.plan.next())
    assert at_work[-1].trial_id == left[0]  # nothing is free: as planned
    conv = next(trial for trial in at_work if trial.config.model == "conv")
    hand.complete(conv)
    at_work.append(hand.plan.next())
    assert at_work[-1].config.model == "conv"
    for trial in at_work:
        hand.complete(trial)
    seen = [trial.trial_id for trial in hand.run()]
    assert len(order) == 5 + 6 + 1 + 1 + len(seen)


def test_a_search_whose_times_count_is_alone_and_winners_share_only_with_one_another():
    spec = replace(SPEC, objective="mse,time", scheduler="none", n_seeds=1)
    for n_seeds, place in ((1, DeviceSharing.SINGLE), (2, DeviceSharing.LANES)):
        planned = Hand(replace(spec, n_seeds=n_seeds)).run()
        assert {trial.sharing for trial in of(planned, schema.SEARCH)} == {DeviceSharing.ALONE}
        assert {trial.sharing for trial in of(planned, schema.WINNER)} == {place}


def test_optuna_knows_each_end():
    """Completed, pruned, diverged and failed stay apart, and none becomes a number."""
    hand = Hand(replace(SPEC, models=("conv",), n_search_trials=4))
    planned = [hand.next() for _ in range(4)]
    hand.complete(planned[0])
    hand.measure(planned[1], 1)
    hand.ledger.end(planned[1].trial_id)
    hand.diverge(planned[2])
    hand.ledger.end(planned[3].trial_id, error="no such file")
    for each in (hand, hand.again(replace(SPEC, models=("conv",), n_search_trials=4))):
        assert states(each) == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
        trials = each.optuna()
        mse = [final_mse(trial.config) for trial in planned]
        assert trials[0].value == mse[0]
        assert trials[0].intermediate_values == {1: 2 * mse[0], 2: mse[0]}
        assert trials[1].value == trials[1].intermediate_values[1] == 2 * mse[1]
        assert trials[2].value is None
        assert trials[2].user_attrs == {"diverged_epoch": 1}
        assert trials[3].value is None
        assert trials[3].user_attrs == {}


def test_no_winner_where_nothing_completed():
    hand = Hand(replace(SPEC, models=("conv",), n_search_trials=2, n_seeds=1))
    planned = hand.run(hand.diverge)
    assert [trial.group for trial in planned] == [schema.REFERENCE] + [schema.SEARCH] * 2


def test_a_stopped_study_calls_no_trial_pruned():
    spec = replace(SPEC, models=("conv",), n_search_trials=1)
    hand = Hand(spec)
    planned = hand.next()
    hand.measure(planned, 1)
    assert hand.ledger.end(planned.trial_id, stopping=True)["state"] == schema.RUNNING
    assert states(hand) == ["RUNNING"]
    assert hand.again(spec).next() == planned


def test_two_objectives_reach_optuna():
    spec = replace(SPEC, models=("dense",), objective="mse,time", scheduler="none")
    hand = Hand(spec)
    # The better the slower.
    planned = hand.run(lambda t: hand.complete(t, train_seconds=1 / final_mse(t.config)))
    searched = [trial.config for trial in of(planned, schema.SEARCH)]
    for each in (hand, hand.again(spec)):
        study = each.plan.study_of("dense")
        assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
        assert [trial.values for trial in study.trials] == [
            [final_mse(config), 1 / final_mse(config)] for config in searched
        ]
    # The winner is the best by the validation images, not the fastest.
    assert planned[-1].config.learning_rate == min(searched, key=final_mse).learning_rate


def test_a_failed_reference_is_trained_again_and_a_failed_setting_is_not():
    """The search goes on with other settings; the report's trials are all needed."""
    spec = replace(SPEC, models=("conv",), n_search_trials=2, n_seeds=1)
    hand = Hand(spec)
    planned = hand.run(lambda trial: hand.ledger.end(trial.trial_id, error="no such file"))
    assert [trial.group for trial in planned] == [schema.REFERENCE] + [schema.SEARCH] * 2
    assert hand.again(spec).ledger.to_do == {planned[0].trial_id}
    assert hand.again(spec).run() == planned[:1]


def test_trials_of_before_are_told_to_the_sampler_of_a_wider_space():
    spec = replace(SPEC, models=("dense",), n_search_trials=4, sampler="random")
    narrow, wide = (
        Space(
            model="dense",
            searched=(("batch_size", Choices(sizes)), ("learning_rate", Range(low, 2.0))),
        )
        for sizes, low in (((64, 256), 0.5), ((8, 16, 64, 256), 0.01))
    )
    hand = Hand(replace(spec, spaces=(narrow,)))
    hand.run()
    before = [(trial.params, trial.values) for trial in hand.optuna("dense")]
    later = replace(spec, spaces=(wide,), n_search_trials=12)
    later.check_resumes(replace(spec, spaces=(narrow,)))
    again = hand.again(later)
    planned = again.run()
    trials = again.optuna("dense")
    assert [(trial.params, trial.values) for trial in trials[:4]] == before
    assert len(trials) == 12
    assert {8, 16} & {trial.config.batch_size for trial in planned}


def test_searches_are_repeated_with_seeds_of_their_own_and_each_sampler():
    changes = {"models": ("dense",), "n_search_trials": 4, "n_searches": 2, "n_seeds": 1}
    spec = replace(SPEC, **changes, samplers=("tpe", "random"))
    assert spec.searches == (("tpe", 0), ("random", 1), ("tpe", 2), ("random", 3))
    hand = Hand(spec)
    searched = of(hand.run(), schema.SEARCH)
    names = [trial.trial_id for trial in searched]
    assert names[:5] == [f"search-dense-00{n}" for n in range(4)] + ["search-dense-2-000"]
    assert Counter(trial.config.seed for trial in searched) == dict.fromkeys(range(4), 4)
    assert count_trials(spec)[schema.SEARCH] == len(searched) == 16
    # The first is what it would be alone, and no search is another's.
    alone = of(Hand(replace(SPEC, **changes | {"n_searches": 1})).run(), schema.SEARCH)
    assert alone == searched[:4]
    proposed = {trial.setting for trial in searched if trial.trial_id[-1] in "23"}
    assert len(proposed) == 8
    for number in range(4):
        assert len(hand.plan.study_of("dense", number).trials) == 4


def test_the_winner_is_the_best_of_all_searches_and_a_resumed_study_repeats_them_further():
    spec = replace(SPEC, models=("dense",), n_search_trials=4, n_seeds=1)
    hand = Hand(spec)
    hand.run()
    more = replace(spec, n_searches=3)
    more.check_resumes(spec)
    again = hand.again(more)
    planned = again.run()
    assert {trial.config.seed for trial in of(planned, schema.SEARCH)} == {1, 2}
    rows = [row for row in again.ledger.rows() if row["group"] == schema.SEARCH]
    best = min(rows, key=lambda row: row[schema.OBJECTIVE])
    won = [row for row in again.ledger.rows() if row["group"] == schema.WINNER]
    assert won[-1]["setting"] == best["setting"]
