"""Trials in lanes against Keras' own `model.fit`, and that a lane knows its own trial alone."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from keras_fit import digits, fit, pixels

from convae.config import TrialConfig
from convae.lane_operations import threefry
from convae.lane_program import DeviceImages, Shape, form_on
from convae.lanes import Lanes
from convae.models import build_model, reset
from convae.shapes import n_chunks

N_TRAIN, N_SEARCH, N_TEST, N_EPOCHS = 300, 250, 40, 2
# Batch sizes of the study's space and 60,000 images to 300, in the same proportion to the chunk but
# for the last: a chunk, several, and several with a part of one.
CHUNK, BATCH_SIZES = 16, (16, 32, 64, 128, 250)
SPACE = (64, 128, 256, 512, 1000)


MNIST = digits(N_TRAIN, N_TEST)
CONV = TrialConfig(model="conv", batch_size=32, seed=5)
DENSE = TrialConfig(model="dense", hidden_units=48, batch_size=32, seed=5)
KINDS = [
    *(
        replace(base, batch_size=size, learning_rate=rate)
        for base in (CONV, DENSE)
        for size, rate in zip(BATCH_SIZES, (0.25, 0.5, 1.0, 2.0, 2.0), strict=True)
    ),
    *(
        replace(base, **changes)
        for base in (CONV, DENSE)
        for changes in (
            {"nesterov": False, "momentum": 0.9, "learning_rate": 0.2},
            {"momentum": 0.0},
            {"split": "search", "batch_size": 64},
            {"split": "search", "batch_size": 10 * N_TRAIN},  # one batch
            {"seed": 2**31 - 1},
        )
    ),
    replace(CONV, latent_filters=16),
    replace(DENSE, hidden_units=20),
    replace(DENSE, hidden_activation="sigmoid"),
    replace(DENSE, hidden_units=20, hidden_activation="sigmoid", split="search"),
]
# The form that a GPU's program has, by XLA on this machine's CPU.
ROWS_KINDS = [
    CONV,
    replace(CONV, batch_size=250, learning_rate=2.0),
    replace(CONV, batch_size=16, momentum=0.9, learning_rate=0.2, nesterov=False),
    replace(CONV, latent_filters=16, split="search", batch_size=64),
]
PROGRAMS = {"conv": "pixels", "rows": "rows", "dense": "pixels"}


def name_of(config):
    default = {"conv": CONV, "dense": DENSE}[config.model].to_dict()
    changes = {k: v for k, v in config.to_dict().items() if v != default[k]}
    return " ".join([config.model, *(f"{k}={v}" for k, v in changes.items())])


@pytest.fixture(scope="module")
def images():
    return DeviceImages(MNIST)


@pytest.fixture(scope="module")
def programs(images):
    """The lanes of each program, compiled once: wide enough for all that the tests train."""
    found = {}
    for name, form in PROGRAMS.items():
        model, n_lanes, width = ("dense", 4, 48) if name == "dense" else ("conv", 3, 16)
        shape = Shape(
            model=model, n_lanes=n_lanes, width=width, chunk_size=CHUNK, n_steps=4, form=form
        )
        found[name] = Lanes(shape, images)
        assert found[name].compile() > 0
    return found


@pytest.fixture
def lanes(programs):
    """The same, empty."""
    for program in programs.values():
        for lane in range(program.n_lanes):
            program.clear(lane)
    return programs


def end_of_epoch(lanes, lane):
    """Runs until the trial in this lane ends its epoch; returns what it measured."""
    while (train_mse := lanes.run()[lane].train_mse) is None:
        pass
    return train_mse, lanes.evaluate([lane])[lane]


def curve(lanes, lane, config, n_epochs=N_EPOCHS):
    """Trains a new trial there, beside whatever there is, and returns its curve and its state."""
    lanes.put(lane, config, lanes.start(config))
    losses = [end_of_epoch(lanes, lane) for _ in range(n_epochs)]
    state = lanes.get(lane)
    lanes.clear(lane)
    return losses, [*state.weights, *state.velocities, *state.others]


def assert_same(one, other):
    """To the bit."""
    assert one[0] == other[0]
    for ours, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def trained(programs):
    """What every kind of trial gives, of which the lanes are full as long as there are any."""
    found = {}
    for name, lanes in programs.items():
        kinds = ROWS_KINDS if name == "rows" else KINDS
        queue = [config for config in kinds if config.model == lanes.shape.model]
        at_work = {}
        while queue or at_work:
            for lane in range(lanes.n_lanes):
                if lane not in at_work and queue:
                    at_work[lane] = queue.pop(0), []
                    lanes.put(lane, at_work[lane][0], lanes.start(at_work[lane][0]))
            for lane, result in lanes.run().items():
                config, losses = at_work[lane]
                if result.train_mse is not None:
                    losses.append((result.train_mse, lanes.evaluate([lane])[lane]))
                if len(losses) == N_EPOCHS:
                    found[name, config] = losses, lanes.get(lane).weights
                    lanes.clear(lane)
                    del at_work[lane]
    return found


@pytest.mark.parametrize(
    ("program", "config"),
    [(config.model, config) for config in KINDS] + [("rows", config) for config in ROWS_KINDS],
    ids=lambda x: x if isinstance(x, str) else name_of(x),
)
def test_equals_model_fit(trained, program, config):
    losses, weights = trained[program, config]
    expected_losses, expected = fit(config, MNIST, N_EPOCHS)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-5)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("program", PROGRAMS)
def test_place_and_neighbours_change_nothing(lanes, program):
    """Also a neighbour that diverges, and what it leaves behind in a lane."""
    lanes, config = lanes[program], replace(DENSE, dropout=0.3) if program == "dense" else CONV
    last = lanes.n_lanes - 1
    alone = curve(lanes, 0, config)
    for lane, rate in enumerate((0.1, 1e30, 2.0)[:last]):
        neighbour = replace(
            config, learning_rate=rate, batch_size=BATCH_SIZES[lane], split="search", seed=lane
        )
        lanes.put(lane, neighbour, lanes.start(neighbour))
    lanes.run()  # they are ahead
    assert_same(curve(lanes, last, config), alone)
    lanes.clear(1)
    assert_same(curve(lanes, 1, config), alone)


@pytest.mark.parametrize("program", PROGRAMS)
def test_evaluates_any_lanes_in_one_call(lanes, program):
    """To the bit as each of them alone, whatever their order."""
    lanes, base = lanes[program], DENSE if program == "dense" else CONV
    for lane in range(lanes.n_lanes):
        config = replace(base, seed=lane, split="search" if lane == 1 else "full")
        lanes.put(lane, config, lanes.start(config))
    lanes.run()
    alone = {lane: lanes.evaluate([lane])[lane] for lane in range(lanes.n_lanes)}
    assert len(set(alone.values())) == lanes.n_lanes
    for due in ([2, 0], range(lanes.n_lanes), [1]):
        assert lanes.evaluate(due) == {lane: alone[lane] for lane in due}


def test_slices_may_be_read_after_the_next_are_launched(lanes):
    """A slice's results and states are those of its end, also of a lane that others have since."""
    lanes, first, second = lanes["dense"], DENSE, replace(DENSE, seed=9, batch_size=16)
    whole = curve(lanes, 0, first)
    other = curve(lanes, 0, second)
    lanes.put(0, first, lanes.start(first))
    slices = []
    for _ in range(N_EPOCHS):
        slices.append([lanes.launch()])
        while not slices[-1][-1].ended:
            slices[-1].append(lanes.launch())
        slices[-1][-1].evaluate([0])
    read = slices[-1][-1].keep(0)
    lanes.clear(0)
    assert_same(curve(lanes, 0, second), other)
    state = read()
    results = [each.results()[0] for epoch in slices for each in epoch]
    losses = [(r.train_mse, r.eval_mse) for r in results if r.train_mse is not None]
    assert_same((losses, [*state.weights, *state.velocities, *state.others]), whole)
    assert all(result.train_seconds > 0 for result in results)
    # In the middle of the first epoch: its error so far, from which it can go on.
    middle = slices[0][1].state(0)
    assert (middle.epoch, middle.step) == (0, 2 * lanes.shape.n_steps)
    lanes.put(2, first, middle)
    assert end_of_epoch(lanes, 2) == whole[0][0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_pauses_change_nothing(lanes, program):
    """After every slice, in the middle of a batch too, into another lane, whose trial goes on."""
    lanes, config = lanes[program], replace(CONV, batch_size=128)
    if program == "dense":
        config = replace(DENSE, batch_size=250, dropout=0.3, hidden_units=20)
    whole = curve(lanes, 0, config)
    other = replace(config, seed=9, batch_size=16)
    lanes.put(0, other, lanes.start(other))
    state, losses, lane = lanes.start(config), [], 1
    while len(losses) < N_EPOCHS:
        lanes.put(lane, config, state)
        result = lanes.run()[lane]
        if result.train_mse is not None:
            losses.append((result.train_mse, lanes.evaluate([lane])[lane]))
        state = lanes.get(lane)
        assert [x.shape for x in state.weights] == [x.shape for x in lanes.start(config).weights]
        lanes.clear(lane)
        lanes.run()
        lane = 3 - lane  # 1 or 2
    assert_same((losses, [*state.weights, *state.velocities, *state.others]), whole)


def test_divergence_tells_its_epoch(lanes):
    lanes = lanes["dense"]
    wild = replace(DENSE, learning_rate=1e30)
    state = lanes.start(wild)
    lanes.put(0, wild, replace(state, epoch=6))
    lanes.put(1, DENSE, state)
    results = lanes.run()
    assert (results[0].epoch, results[0].finite) == (7, False)
    assert (results[1].epoch, results[1].finite) == (1, True)


def test_a_program_of_another_shape_agrees_within_rounding(images, lanes):
    """Dropout included: what is dropped depends on seed, epoch, position and unit alone.

    Without it the other program makes no random numbers.
    """
    for config in (DENSE, replace(DENSE, dropout=0.3)):
        drops = bool(config.dropout)
        shape = Shape.for_trials(
            "dense", n_lanes=1, widths=[20], batch_sizes=[64], n_train=N_TRAIN, drops=drops
        )
        assert (shape.chunk_size, shape.accumulates, shape.drops) == (64, False, drops)
        other = Lanes(shape, images)
        narrow = replace(config, hidden_units=20, batch_size=64)
        losses, state = curve(lanes["dense"], 2, narrow)
        expected, expected_state = curve(other, 0, narrow)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        for ours, theirs in zip(state[: len(expected_state)], expected_state, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_dropout_is_keras_in_distribution(lanes):
    """The loss of many images with weights at rest: its mean, and that it is drawn anew."""
    config = replace(DENSE, dropout=0.4, learning_rate=1e-12)
    losses, _ = curve(lanes["dense"], 0, config, n_epochs=8)
    model = build_model(config)
    reset(model, config.seed)
    x = pixels(MNIST.train_images)
    drawn = [float(np.mean((model(x, training=True).numpy() - x) ** 2)) for _ in range(8)]
    ours = np.array([train_mse for train_mse, _ in losses])
    assert len(set(ours)) == len(ours)
    spread = np.hypot(ours.std(ddof=1), np.std(drawn, ddof=1)) / np.sqrt(8)
    assert abs(ours.mean() - np.mean(drawn)) < 4 * spread
    still = float(np.mean((model(x, training=False).numpy() - x) ** 2))
    assert abs(ours.mean() - still) > 10 * spread  # so that the test would notice none
    held_out = pixels(MNIST.test_images)
    expected = np.mean((model(held_out, training=False).numpy() - held_out) ** 2)
    np.testing.assert_allclose([eval_mse for _, eval_mse in losses], expected, rtol=1e-5)


def test_threefry_gives_the_published_bits():
    """Known answers of Random123, which accompanies the paper."""
    words = [
        (0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x6B200159, 0x99BA4EFE),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x1CB996FC, 0xBB002BE7),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, 0xC4923A9C, 0x483DF7A0),
    ]
    key0, key1, x, y, *expected = (
        tf.constant(column, tf.uint32) for column in zip(*words, strict=True)
    )
    bits = tf.function(threefry, jit_compile=True)((key0, key1), (x, y))
    np.testing.assert_array_equal(bits, expected)


def test_a_gpu_has_a_form_of_its_own(images):
    assert form_on("/job:localhost/replica:0/task:0/device:GPU:0") == "rows"
    assert form_on(images.pixels.device) == "pixels"


@pytest.mark.parametrize(
    ("model", "batch_sizes", "chunk_size"),
    [
        ("dense", SPACE, 256),  # weights are most of what a step costs
        ("conv", SPACE, 128),
        *(("dense", (size,), min(size, 256)) for size in (64, 256, 1000)),
        ("conv", (64,), 64),
    ],
)
def test_slices_fit_the_epochs(model, batch_sizes, chunk_size):
    """Few steps are idle, whatever the batch size and the split."""
    shape = Shape.for_trials(
        model, n_lanes=16, widths=(8, 16), batch_sizes=batch_sizes, n_train=60_000
    )
    assert shape.width == 16
    assert shape.chunk_size == chunk_size
    assert shape.accumulates == (max(batch_sizes) > shape.chunk_size)
    for size in batch_sizes:
        for n_train in (50_000, 60_000):
            needed = n_chunks(n_train, size, shape.chunk_size)
            given = -(-needed // shape.n_steps) * shape.n_steps
            assert given < 1.025 * needed


def test_chunks_of_an_epoch():
    assert n_chunks(300, 16, 16) == 19
    assert n_chunks(300, 40, 16) == 7 * 3 + 2
    assert n_chunks(300, 1000, 16) == 19


def test_refuses_what_it_cannot_train(images, lanes):
    dense = lanes["dense"]
    state = dense.start(DENSE)
    for config, named in (
        (CONV, "model conv"),
        (replace(DENSE, hidden_units=49), "hidden_units 49"),
        (replace(DENSE, hidden_units=20), "shapes"),
    ):
        with pytest.raises(ValueError, match=named):
            dense.put(0, config, state)
    dense.put(0, DENSE, state)
    with pytest.raises(ValueError, match="taken"):
        dense.put(0, DENSE, state)
    with pytest.raises(ValueError, match="empty"):
        dense.get(1)
    no_sums = Lanes(replace(dense.shape, accumulates=False), images)
    with pytest.raises(ValueError, match="batch size 32"):
        no_sums.put(0, DENSE, state)
    undropped = Lanes(replace(dense.shape, drops=False), images)
    with pytest.raises(ValueError, match=r"dropout 0\.1"):
        undropped.put(0, replace(DENSE, dropout=0.1), state)
