"""The surrogate of a study whose truth is a formula."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import waiting
from benchmarks.grace import search_once
from benchmarks.samplers import SAMPLERS, make_spec, regret_of, variant
from benchmarks.surrogate import Surrogate
from convae.config import TrialConfig
from study.folder import schema, tables

N_EPOCHS = 8
NOISE = 0.05


def true_log_mse(config, epoch):
    """Best at 16 filters, and at a learning rate as high as a trial can bear."""
    speed = np.log(config.learning_rate / (1 - config.momentum) * 256 / config.batch_size)
    return -3 - 0.2 * np.log(epoch) - 0.2 * speed - 0.1 * (config.latent_filters == 16)


def collapses(config):
    return config.learning_rate / (1 - config.momentum) > 8


def random_configs(rng, n):
    return [
        TrialConfig(
            model="conv",
            learning_rate=float(np.exp(rng.uniform(np.log(0.05), np.log(5)))),
            momentum=1 - float(np.exp(rng.uniform(np.log(0.05), 0))),
            batch_size=int(rng.choice([64, 128, 256, 512, 1000])),
            latent_filters=int(rng.choice([8, 16])),
            nesterov=bool(rng.integers(2)),
            epochs=N_EPOCHS,
            split="search",
        )
        for _ in range(n)
    ]


def write(folder, configs, rng):
    """The tables of a run."""
    metric = schema.VAL_MSE if configs[0].split == "search" else schema.TEST_MSE
    trials, epochs = [], []
    for number, config in enumerate(configs):
        name = f"trial-{number}"
        trials.append({"trial_id": name, "group": "search", "state": "completed"})
        trials[-1] |= config.to_dict()
        for epoch in range(1, N_EPOCHS + 1):
            log_mse = true_log_mse(config, epoch) + NOISE * rng.normal()
            if config.split == "search" and collapses(config):
                log_mse = np.log(0.11)
            epochs.append({"trial_id": name, "epoch": epoch, metric: float(np.exp(log_mse))})
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(trials, tables.TRIALS), folder / schema.TRIALS_FILE)
    pq.write_table(pa.Table.from_pylist(epochs, tables.EPOCHS), folder / schema.EPOCHS_FILE)
    return folder


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("tables")
    searched = write(folder / "searched", random_configs(rng, 30), rng)
    reference = TrialConfig(model="conv", epochs=N_EPOCHS)
    settings = [replace(reference, batch_size=size) for size in (128, 256, 1000)]
    seeds = [replace(config, seed=seed) for config in settings for seed in range(3)]
    return Surrogate("conv", [searched], [write(folder / "repeated", seeds, rng)])


def test_it_knows_the_truth_of_settings_that_it_has_not_seen(surrogate):
    configs = [c for c in random_configs(np.random.default_rng(1), 200) if not collapses(c)]
    errors = [surrogate.true_curves([c])[0] - true_log_mse(c, np.arange(1, 9)) for c in configs]
    assert np.sqrt(np.mean(np.square(errors))) < 2 * NOISE
    assert surrogate.facts()["left_out_rmse_of_log_mse"] < 2 * NOISE


def test_what_it_measures_repeats_itself_by_the_seed_and_scatters_as_the_seeds_do(surrogate):
    config = TrialConfig(model="conv", split="search")
    assert surrogate.measure(config, 3) == surrogate.measure(config, 3)
    finals = np.log([surrogate.measure(config, seed)[-1] for seed in range(300)])
    assert finals.mean() == pytest.approx(np.log(surrogate.true_value(config)), abs=0.02)
    assert NOISE / 2 < finals.std() < 2 * NOISE


def test_settings_collapse_where_the_real_ones_did(surrogate):
    fast, safe = (
        TrialConfig(model="conv", learning_rate=rate, momentum=0.9, split="search")
        for rate in (3.0, 0.1)
    )
    assert surrogate.p_collapse([fast, safe]).round().tolist() == [1, 0]
    assert surrogate.measure(fast, 0)[-1] == pytest.approx(0.11)


def test_no_random_setting_is_better_than_the_best_known_one(surrogate):
    regrets = [surrogate.regret(c) for c in random_configs(np.random.default_rng(2), 300)]
    assert min(regrets) > 0
    assert surrogate.regret(surrogate.best) == pytest.approx(0)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"gp", "cma-es"}))
def test_a_study_searches_it(surrogate, name):
    sampler, _, shares, _ = SAMPLERS[name]
    for given in shares:
        spec = make_spec(surrogate, 8, 0, given=given != "none", sampler=sampler)
        with variant(name, given):
            assert regret_of(surrogate, spec) == regret_of(surrogate, spec) > 0
            assert regret_of(surrogate, spec, n_at_once=3) > 0


def test_the_earlier_trials_may_be_ended_the_more_epochs_are_saved(surrogate):
    def search(**changes):
        return search_once(surrogate, make_spec(surrogate, 12, 0, **changes))

    shares = [search(scheduler="asha", grace_epochs=grace).share for grace in (1, 4, N_EPOCHS)]
    assert shares[0] < shares[1] < shares[2] == 1
    whole = search(scheduler="none")
    assert (whole.share, whole.best_ended) == (1, False)


def test_a_search_that_repeats_itself_keeps_places_free_and_chooses_a_setting_that_is_known():
    none, lagging = (waiting.measure(waiting.Cell(2, 12, lag, 1))[0] for lag in (None, 0.5))
    assert none.waited == 0 < lagging.waited < 1
    assert 0 <= lagging.log_mse < np.log(10)
