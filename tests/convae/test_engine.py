"""The engine: in a simulation without a device, then with real lanes, by XLA on a CPU."""

import random
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from keras_fit import noise

from convae.config import TrialConfig
from convae.engine import MIN_COMPILERS, Engine
from convae.errors import EngineError
from convae.hardware import usable_cpus
from convae.lane_program import DeviceImages, Shape
from convae.lanes import Lanes, LaneState, SliceResult
from convae.results import Status
from convae.shapes import ProgramId, Size
from convae.sharing import DeviceSharing, choose_n_lanes
from convae.trainer_lane import DoneSlice

CONV, DENSE = ProgramId("conv", single=False), ProgramId("dense", single=False)
CONV_SINGLE, DENSE_SINGLE = ProgramId("conv", single=True), ProgramId("dense", single=True)
N_LANES = {CONV: 3, DENSE: 2, CONV_SINGLE: 1, DENSE_SINGLE: 1}


class FakeLanes:
    """Lanes whose trials' losses are known; batch size is the number of slices an epoch takes.

    A slice takes a second. A trial diverges in the epoch that its seed names.
    """

    def __init__(self, n_lanes, on_run=lambda: None, *, runs_ahead=True):
        self.n_lanes, self.runs_ahead = n_lanes, runs_ahead
        self.lanes = {}
        self.on_run = on_run
        self.device_seconds = 0.0

    def compile(self):
        return 1.0

    def check(self, config, state):
        pass

    def start(self, config):
        return LaneState(0, 0, 0.0, [], [], [])

    def put(self, lane, config, state):
        assert lane not in self.lanes
        assert 0 <= lane < self.n_lanes
        self.lanes[lane] = config, state

    def clear(self, lane):
        del self.lanes[lane]

    def launch(self):
        self.on_run()
        self.device_seconds += 1.0
        results = {}
        for lane, (config, state) in self.lanes.items():
            epoch, train_mse, step = state.epoch + 1, None, state.step + 1
            after = replace(state, step=step)
            if step == config.batch_size:
                train_mse, after = loss(config, epoch), replace(state, epoch=epoch, step=0)
            self.lanes[lane] = config, after
            share = 1.0 / len(self.lanes)
            results[lane] = SliceResult(epoch, train_mse, config.seed != epoch, share)
        states = {lane: state for lane, (_, state) in self.lanes.items()}
        return DoneSlice(results, states, lambda lane: results[lane].train_mse + 1)


def loss(config, epoch):
    return config.learning_rate + epoch


def random_config(rng, model):
    return TrialConfig(
        model=model,
        epochs=rng.randint(1, 6),
        batch_size=rng.randint(1, 4),
        learning_rate=rng.uniform(0.1, 1),
        seed=rng.choice([0] * 5 + [1, 2, 3]),
    )


class Simulation:
    """Random arrivals, pauses, ends and removals, with what must hold checked at every slice."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.lanes = {
            program: FakeLanes(
                n,
                lambda program=program: self.check_slice(program),
                runs_ahead=program != CONV_SINGLE,  # as the plain trainer does not
            )
            for program, n in N_LANES.items()
        }
        self.engine = Engine(self.lanes)
        self.engine.compile()
        self.told = {}  # epochs reported, by trial
        self.configs, self.sharing = {}, {}
        self.live = set()
        self.removed_seconds = 0.0

    def check_slice(self, program):
        scheduler = self.engine._scheduler
        n_running = len(scheduler.running[program])
        assert not scheduler.waiting[program] or n_running == N_LANES[program], "idle lane"
        for each, trials in scheduler.running.items():
            assert trials.keys() == self.lanes[each].lanes.keys()
        alone = [
            trial
            for trials in scheduler.running.values()
            for trial in trials.values()
            if trial.is_alone
        ]
        if alone:
            assert program in [trial.program for trial in alone], "not alone"

    def submit(self):
        trial_id = f"t{len(self.configs)}"
        config = random_config(self.rng, self.rng.choice(["conv", "dense"]))
        sharing = self.rng.choice(
            [DeviceSharing.LANES] * 8 + [DeviceSharing.SINGLE, DeviceSharing.ALONE]
        )
        until = self.rng.randint(1, config.epochs)
        self.engine.submit(
            trial_id, config, sharing=sharing, until_epoch=until, evaluates=lambda epoch: epoch % 2
        )
        self.configs[trial_id], self.told[trial_id] = config, []
        self.sharing[trial_id] = sharing
        self.live.add(trial_id)

    def tend(self, trial_id):
        """Takes a trial's report, and decides where it waits for a decision."""
        report = self.engine.report(trial_id, timeout_seconds=0)
        self.told[trial_id] += report.epochs
        if report.status is Status.PAUSED and self.rng.random() < 0.7:
            n_done, n_all = len(self.told[trial_id]), self.configs[trial_id].epochs
            self.engine.advance(trial_id, self.rng.randint(n_done + 1, n_all))
        return report

    def remove(self, trial_id):
        self.removed_seconds += self.tend(trial_id).train_seconds
        self.engine.remove(trial_id)
        self.live.remove(trial_id)

    def run(self, n_steps):
        for _ in range(n_steps):
            if self.rng.random() < 0.4:
                self.submit()
            for trial_id in sorted(self.live):
                if self.rng.random() < 0.2:
                    self.tend(trial_id)
            if self.live and self.rng.random() < 0.05:
                self.remove(self.rng.choice(sorted(self.live)))
            self.engine.step()
        ended = (Status.COMPLETED, Status.DIVERGED)
        while not all(self.tend(trial_id).status in ended for trial_id in sorted(self.live)):
            self.engine.step()
        self.engine.step()  # what was launched before a divergence was known
        assert not self.engine.step()


@pytest.mark.parametrize("seed", range(20))
def test_every_trial_gets_its_epochs_and_no_lane_idles(seed):
    simulation = Simulation(seed)
    simulation.run(n_steps=150)
    seconds = simulation.removed_seconds
    statuses = set()
    for trial_id, config in simulation.configs.items():
        told = simulation.told[trial_id]
        assert [epoch.epoch for epoch in told] == list(range(1, len(told) + 1))
        assert [epoch.train_mse for epoch in told] == [loss(config, e.epoch) for e in told]
        for epoch in told:
            expected = loss(config, epoch.epoch) + 1 if epoch.epoch % 2 else None
            assert epoch.eval_mse == expected
            assert (epoch.eval_seconds > 0) == (epoch.eval_mse is not None)
            alone = simulation.sharing[trial_id] is DeviceSharing.ALONE
            assert epoch.n_sharing == 1 if alone else epoch.n_sharing >= 1
        if trial_id not in simulation.live:
            continue
        report = simulation.engine.report(trial_id)
        seconds += report.train_seconds
        statuses.add(report.status)
        if 1 <= config.seed <= config.epochs:
            assert (report.status, report.diverged_epoch) == (Status.DIVERGED, config.seed)
            assert len(told) == config.seed - 1
            assert simulation.engine.state(trial_id) is None
        else:
            assert (report.status, len(told)) == (Status.COMPLETED, config.epochs)
            assert simulation.engine.state(trial_id).epoch == config.epochs
            spent = sum(epoch.train_seconds for epoch in told)
            assert spent == pytest.approx(report.train_seconds)
    assert statuses == {Status.COMPLETED, Status.DIVERGED}
    assert not any(lanes.lanes for lanes in simulation.lanes.values())
    device_seconds = sum(lanes.device_seconds for lanes in simulation.lanes.values())
    # What diverged or was removed has a slice or two that count for nobody.
    assert seconds == pytest.approx(device_seconds, rel=0.15)
    assert seconds <= device_seconds * (1 + 1e-9)


def fake_engine(*, compiled=True, **n_lanes):
    programs = {ProgramId(model, single=False): FakeLanes(n) for model, n in n_lanes.items()}
    engine = Engine(programs)
    if compiled:
        engine.compile()
    return engine, programs


def run(engine):
    while engine.step():
        pass


def dense(epochs=3, **changes):
    return TrialConfig(model="dense", epochs=epochs, batch_size=1, **changes)


def test_shares_add_up_to_what_the_device_spent():
    engine = Engine({CONV: FakeLanes(2), DENSE: FakeLanes(4)})
    engine.compile()
    for i in range(3):
        engine.submit(f"d{i}", dense(epochs=2))
    engine.submit("c", TrialConfig(model="conv", epochs=2, batch_size=4))
    run(engine)
    for i in range(3):
        for epoch in engine.report(f"d{i}").epochs:
            # A third of a second of the device; beside it was the other model's trial.
            assert (epoch.train_seconds, epoch.n_sharing) == (pytest.approx(1 / 3), 4)
    epochs = engine.report("c").epochs
    assert [epoch.train_seconds for epoch in epochs] == [4, 4]
    assert [epoch.n_sharing for epoch in epochs] == [(2 * 4 + 2 * 1) / 4, 1]


def test_who_goes_on_after_a_pause_comes_first():
    engine, _ = fake_engine(dense=1)
    engine.submit("a", dense(), until_epoch=1)
    engine.submit("b", dense(epochs=1))
    engine.submit("c", dense(epochs=1))
    engine.submit("d", dense(epochs=1))
    engine.step()  # a's only slice
    engine.step()  # b's; a's results
    assert engine.report("a", 0).status is Status.PAUSED
    engine.advance("a", 3)
    for _ in range(3):
        engine.step()  # a's two others, and c's
    assert engine.report("a", 0).status is Status.COMPLETED
    assert engine.report("b", 0).status is Status.COMPLETED
    assert engine.report("d", 0).status is Status.WAITING
    engine.remove("d")
    engine.step()
    assert engine.report("c", 0).status is Status.COMPLETED
    assert not engine.step()


def test_the_next_slice_is_launched_before_the_results_of_the_last_are_read():
    """So a lane is free for the next trial although nobody knows yet how its trial ended."""
    order = []
    lanes = FakeLanes(1)
    launch = lanes.launch

    def recording():
        slice_, number = launch(), int(lanes.device_seconds)
        order.append(f"launch {number}")
        results = slice_.results
        slice_.results = lambda: order.append(f"read {number}") or results()
        return slice_

    lanes.launch = recording
    engine = Engine({DENSE: lanes})
    engine.compile()
    engine.submit("a", dense(epochs=1))
    engine.submit("b", dense(epochs=2))
    run(engine)
    assert order == ["launch 1", "launch 2", "read 1", "launch 3", "read 2", "read 3"]
    assert [len(engine.report(name, 0).epochs) for name in "ab"] == [1, 2]


def test_a_trial_goes_on_that_is_told_to_while_its_last_results_are_awaited():
    """Without a pause, and with every epoch once, though it has lost its lane."""
    engine, _ = fake_engine(dense=1)
    engine.submit("a", dense(epochs=5), until_epoch=2)
    engine.submit("b", dense(epochs=1))
    engine.step()
    engine.step()
    assert engine.report("a", 0).status is Status.RUNNING
    engine.advance("a", 5)
    run(engine)
    report = engine.report("a", 0)
    assert report.status is Status.COMPLETED
    assert [epoch.epoch for epoch in report.epochs] == [2, 3, 4, 5]
    assert engine.report("b", 0).status is Status.COMPLETED


def test_what_is_trained_after_a_divergence_counts_for_nothing():
    engine, _ = fake_engine(dense=2)
    engine.submit("a", dense(epochs=5, seed=2))
    run(engine)
    report = engine.report("a", 0)
    assert (report.status, report.diverged_epoch, len(report.epochs)) == (Status.DIVERGED, 2, 1)
    assert report.train_seconds == 2


def test_nothing_is_alone_while_something_compiles():
    """Others train as soon as their own program is there."""
    begun, may_compile = threading.Event(), threading.Event()
    engine = Engine({DENSE: FakeLanes(2), DENSE_SINGLE: FakeLanes(1), CONV_SINGLE: FakeLanes(1)})

    def compile_slowly():
        begun.set()
        assert may_compile.wait(20)
        return 2.0

    engine._programs[CONV_SINGLE].compile = compile_slowly
    with engine:
        assert begun.wait(20)
        engine.submit("alone", dense(), sharing=DeviceSharing.ALONE)
        engine.submit("single", dense(), sharing=DeviceSharing.SINGLE)
        engine.submit("beside", dense())
        assert engine.report("beside", 20).status is Status.COMPLETED
        assert engine.report("single", 20).status is Status.COMPLETED
        assert engine.report("alone", 0.05).status is Status.WAITING
        may_compile.set()
        assert engine.report("alone", 20).status is Status.COMPLETED
        assert engine.compile_seconds == {DENSE: 1.0, DENSE_SINGLE: 1.0, CONV_SINGLE: 2.0}


def test_a_compiler_that_has_not_begun_waits_for_a_trial_that_is_alone():
    """Which begins in the first program that is ready, not when there are all."""
    compiled, runs, may_end = [], threading.Event(), threading.Event()
    sizes = [Size.of(width, 256) for width in range(1, 2 * max(MIN_COMPILERS, usable_cpus()) + 1)]
    programs = {ProgramId("dense", single=True, size=size): FakeLanes(1) for size in sizes}
    first, *_, last = programs
    engine = Engine(programs)

    def compile_one(program):
        while program != first and first not in engine.compile_seconds:
            time.sleep(0.01)
        compiled.append(program)
        return 1.0

    def run_alone():
        runs.set()
        assert may_end.wait(60)

    for program, lanes in programs.items():
        lanes.compile = partial(compile_one, program)
    programs[first].on_run = run_alone
    config = TrialConfig(model="dense", hidden_units=1, batch_size=256, epochs=1)
    engine.submit("alone", config, sharing=DeviceSharing.ALONE)
    with engine:
        assert runs.wait(60)
        assert last not in compiled
        may_end.set()
        engine.wait_until_compiled()
        assert engine.report("alone", 60).status is Status.COMPLETED
    assert set(compiled) == set(programs)


def test_a_checkpoint_holds_the_epochs_that_its_state_has_trained():
    """Whenever it is asked for; and whoever asks gets an answer, though the engine never rests."""
    lanes = FakeLanes(1, on_run=lambda: time.sleep(0.002))
    told, seen = 0, set()
    with Engine({DENSE: lanes}) as engine:
        engine.submit("a", dense(epochs=100))
        while told < 100:
            report, state = engine.checkpoint("a")
            told += len(report.epochs)
            seen.add(told)
            assert told == (0 if state is None else state.epoch)
    assert report.status is Status.COMPLETED
    assert len(seen) > 50


@pytest.mark.parametrize("broken", ["launch", "compile"])
def test_an_engine_that_fails_tells_everybody_who_asks(broken):
    engine, programs = fake_engine(dense=2, compiled=False)

    def fail():
        raise RuntimeError("out of memory")

    setattr(programs[DENSE], broken, fail)
    engine.submit("a", dense())
    with engine:
        with pytest.raises(EngineError, match="out of memory") as caught:
            engine.report("a", 20)
        assert isinstance(caught.value.__cause__, RuntimeError)
        for call in (lambda: engine.submit("b", dense()), lambda: engine.advance("a", 2)):
            with pytest.raises(EngineError):
                call()


def test_a_failure_is_suspected_of_the_trials_that_just_came():
    engine, programs = fake_engine(dense=2)
    engine.submit("a", dense())
    engine.step()
    engine.step()

    def fail():
        raise RuntimeError("out of memory")

    programs[DENSE].launch = fail
    engine.submit("b", dense())
    engine._guarded(engine.step)
    for name, suspect in (("a", False), ("b", True)):
        with pytest.raises(EngineError) as caught:
            engine.report(name)
        assert caught.value.suspect is suspect


def test_refuses_what_it_cannot_do():
    engine, _ = fake_engine(dense=1)
    engine.submit("a", dense())
    with pytest.raises(ValueError, match="a already"):
        engine.submit("a", dense())
    with pytest.raises(ValueError, match="no program"):
        engine.submit("b", TrialConfig(model="conv"))
    with pytest.raises(ValueError, match="no program"):
        engine.submit("b", dense(), sharing=DeviceSharing.ALONE)
    with pytest.raises(ValueError, match="until epoch 4: it has completed 0 of 3"):
        engine.submit("b", dense(), until_epoch=4)
    with pytest.raises(ValueError, match="completed 3 of 3"):
        engine.submit("b", dense(), state=LaneState(3, 0, 0.0, [], [], []))
    with pytest.raises(KeyError):
        engine.report("b")


def test_a_report_ends_when_the_trial_is_removed():
    engine, _ = fake_engine(conv=1, compiled=False)
    engine.submit("a", TrialConfig(model="conv"))
    reports = []
    thread = threading.Thread(target=lambda: reports.append(engine.report("a", 20)))
    thread.start()
    engine.remove("a")
    thread.join(20)
    assert [report.status for report in reports] in ([Status.REMOVED], [])  # or came too late


@pytest.mark.parametrize(
    ("n_trials", "gpu", "expected"), [(100, True, 16), (5, True, 5), (0, True, 1), (100, False, 1)]
)
def test_lanes_by_rule(n_trials, gpu, expected):
    for model in ("conv", "dense"):
        assert choose_n_lanes(model, n_trials, gpu=gpu) == expected


# With real lanes.


@pytest.fixture(scope="module")
def programs():
    """Lanes for dense models, compiled once by whichever engine comes first."""
    images = DeviceImages(noise(200, 50))
    shape = Shape.for_trials("dense", n_lanes=3, widths=[24], batch_sizes=[16, 64], n_train=200)
    return {
        DENSE: Lanes(shape, images),
        DENSE_SINGLE: Lanes(replace(shape, n_lanes=1), images),
    }


CONFIGS = {
    f"t{i}": TrialConfig(
        model="dense",
        hidden_units=units,
        batch_size=batch_size,
        dropout=dropout,
        learning_rate=rate,
        epochs=3,
        seed=i,
    )
    for i, (units, batch_size, dropout, rate) in enumerate(
        [(24, 16, 0.0, 0.5), (8, 64, 0.2, 1.0), (24, 50, 0.0, 1.0), (16, 16, 0.1, 2.0)] * 2
    )
}


WILD = ("t2", "t6")


def first_state(programs, trial_id):
    """Where a trial starts; a wild one has weights that no finite loss comes of."""
    state = programs[DENSE].start(CONFIGS[trial_id])
    if trial_id in WILD:
        return replace(state, weights=[np.full_like(x, np.nan) for x in state.weights])
    return None


def numbers(report):
    return [(epoch.epoch, epoch.train_mse, epoch.eval_mse) for epoch in report.epochs]


def outcome(engine, trial_id):
    report = engine.report(trial_id, 60)
    state = engine.state(trial_id)
    weights = [] if state is None else [x.tobytes() for x in state.weights]
    return report.status, report.diverged_epoch, numbers(report), weights


@pytest.fixture(scope="module")
def expected(programs):
    """All trials, submitted at once and never disturbed."""
    engine = Engine(programs)
    engine.compile()
    for trial_id, config in CONFIGS.items():
        engine.submit(trial_id, config, state=first_state(programs, trial_id))
    run(engine)
    return {trial_id: outcome(engine, trial_id) for trial_id in CONFIGS}


def test_trials_end_as_they_must(expected):
    for trial_id, (status, diverged_epoch, epochs, _) in expected.items():
        if trial_id in WILD:
            assert (status, diverged_epoch, epochs) == (Status.DIVERGED, 1, [])
        else:
            assert (status, len(epochs)) == (Status.COMPLETED, 3)


@pytest.mark.parametrize("seed", range(3))
def test_order_pauses_and_removals_change_no_number(programs, expected, seed):
    """To the bit, also when the engine ends and another goes on from its checkpoints."""
    rng = random.Random(seed)
    engine = Engine(programs)
    engine.compile()
    waiting = list(CONFIGS)
    rng.shuffle(waiting)
    found = {trial_id: [] for trial_id in CONFIGS}

    def tend():
        for trial_id in set(CONFIGS) - set(waiting):
            if trial_id in engine._trials:
                report = engine.report(trial_id, 0)
                found[trial_id] += numbers(report)
                if report.status is Status.PAUSED:
                    engine.advance(trial_id, 3)

    for step in range(60):
        if step == 17:  # in the middle of epochs
            kept = {t: engine.checkpoint(t) for t in CONFIGS if t not in waiting}
            reports, states = ({t: pair[i] for t, pair in kept.items()} for i in (0, 1))
            for trial_id in states:
                engine.remove(trial_id)
            run(engine)
            engine = Engine(programs)
            engine.compile()
            for trial_id, state in states.items():
                found[trial_id] += numbers(reports[trial_id])
                if reports[trial_id].status not in (Status.COMPLETED, Status.DIVERGED):
                    state = first_state(programs, trial_id) if state is None else state
                    engine.submit(trial_id, CONFIGS[trial_id], state=state)
                elif state is not None:
                    assert [x.tobytes() for x in state.weights] == expected[trial_id][3]
            continue
        if waiting and rng.random() < 0.6:
            trial_id = waiting.pop()
            state = first_state(programs, trial_id)
            until_epoch = rng.randint(1, 3)
            engine.submit(trial_id, CONFIGS[trial_id], until_epoch=until_epoch, state=state)
            engine.submit("passing", CONFIGS[trial_id])
            engine.step()
            engine.remove("passing")
        engine.step()
        tend()
    while engine.step():
        tend()
    tend()
    for trial_id, (status, _, epochs, weights) in expected.items():
        assert found[trial_id] == epochs
        if trial_id in engine._trials:
            assert engine.report(trial_id).status is status
            state = engine.state(trial_id)
            assert ([] if state is None else [x.tobytes() for x in state.weights]) == weights


def test_many_ask_at_once(programs, expected):
    """As trials' actors do, each from its thread; one has the device to itself."""
    found = {}
    states = {trial_id: first_state(programs, trial_id) for trial_id in CONFIGS}

    def actor(trial_id):
        engine.submit(trial_id, CONFIGS[trial_id], until_epoch=1, state=states[trial_id])
        epochs = []
        while True:
            report = engine.report(trial_id, 60)
            epochs += report.epochs
            if report.status is not Status.PAUSED:
                found[trial_id] = report.status, epochs
                return
            engine.advance(trial_id, len(epochs) + 1)

    with Engine(programs) as engine:
        engine.submit("alone", CONFIGS["t0"], sharing=DeviceSharing.ALONE)
        threads = [threading.Thread(target=actor, args=(trial_id,)) for trial_id in CONFIGS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        alone = engine.report("alone", 60)
    assert alone.status is Status.COMPLETED
    assert [epoch.n_sharing for epoch in alone.epochs] == [1, 1, 1]
    beside = expected["t0"][2]
    np.testing.assert_allclose(numbers(alone), beside, rtol=1e-5)
    for trial_id, (status, epochs) in found.items():
        assert status is expected[trial_id][0]
        told = [(epoch.epoch, epoch.train_mse, epoch.eval_mse) for epoch in epochs]
        assert told == expected[trial_id][2]
        for epoch in epochs:
            assert 1 - 1e-9 <= epoch.n_sharing <= 3 + 1e-9
            assert epoch.train_seconds > 0
    assert found.keys() == CONFIGS.keys()
