"""Studies with real training on noise, most of them in the lanes of engines, on a Ray cluster.

Whatever disturbs them, their numbers are to the bit those of the study that nothing disturbed.
"""

import os
import re
import signal

import optuna
import pandas as pd
import pytest
from ray_nodes import kill_all, marked
from running import ENGINE, KEEPER, TRIAL, Study, checkpointed, processes, wait_until
from simulation import AS_OPTUNA

from convae import xla
from study.folder import schema

pytestmark = pytest.mark.cluster

PROGRAM = "noise_study.py"
# Three seeds: the first one's trials are alone, the others fill two conv and four dense lanes.
OPTIONS = ["--preset", "reference", "--hidden", "64", "512", "--seeds", "3"]
OPTIONS += ["--epochs", "9", "--batch-size", "64"]
N_TRIALS, N_EPOCHS = 9, 9
CPU = ["--gpus", "0", "--cpus-per-trial", "1"]
LANES = [*CPU, "--lanes", "4"]
METRICS = [schema.TRAIN_MSE, schema.TEST_MSE]
BEST = [*METRICS, "best_test_mse", "best_test_mse_epoch"]


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """What one study compiles, the next ones find."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv(xla.SWITCH, "1")
        yield cache


def start(cluster, storage, *options):
    return Study(PROGRAM, storage, *options, on=cluster, IMAGES="320")


def on_nodes(cluster, *names):
    """The processes of actors on the cluster, by their classes."""
    return [pid for name in names for pid in processes(name, *(n.mark for n in cluster.nodes))]


def kill(study, cluster):
    """Ends the driver and all that it has on the cluster, as if all machines were lost at once."""
    kill_all(lambda: [*marked(study.mark), *on_nodes(cluster, TRIAL, ENGINE, KEEPER)])
    study.kill()


def finish(study):
    """Lets it end; returns its tables, by trial and by trial and epoch."""
    code, lines = study.rest()
    assert code == 0, lines
    return tables(study.folder)


def tables(folder):
    trials = pd.read_parquet(folder / schema.TRIALS_FILE).set_index("trial_id").sort_index()
    epochs = pd.read_parquet(folder / schema.EPOCHS_FILE).set_index(["trial_id", "epoch"])
    return trials, epochs.sort_index()


def assert_same_numbers(found, whole):
    for table, expected, columns in zip(found, whole, (BEST, METRICS), strict=True):
        pd.testing.assert_frame_equal(table[columns], expected[columns], check_exact=True)
    assert set(found[0].state) == {schema.COMPLETED}


def n_conv_epochs(folder):
    """That are safe of the conv trials that share lanes: they are the last to end."""
    kept = checkpointed(folder)
    return max((len(kept[name]) for name in kept if re.search("conv-s[12]", name)), default=0)


def in_the_middle(study):
    study.wait_until(lambda: n_conv_epochs(study.folder) >= 2)
    assert n_conv_epochs(study.folder) < N_EPOCHS


def wait_until_gone(cluster):
    wait_until(lambda: not on_nodes(cluster, TRIAL, ENGINE, KEEPER))


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    """The tables of a study that nothing disturbs."""
    return finish(start(cluster, tmp_path_factory.mktemp("whole"), *OPTIONS, *LANES))


def test_a_study_in_lanes_says_who_shared_a_device_and_who_was_alone(whole, programs):
    trials, epochs = whole
    assert list(programs.rglob("*.pb"))  # what its engine compiled
    assert len(trials) == N_TRIALS
    assert len(epochs) == N_TRIALS * N_EPOCHS
    assert set(trials.state) == {schema.COMPLETED}
    assert not trials.n_retries.any()
    alone = trials.seed == 0
    assert (trials.n_sharing[alone] == 1).all()
    assert trials.n_sharing[~alone].between(1, 6).all()
    assert (trials.n_sharing[~alone] > 1).any()
    sums = epochs.groupby("trial_id").train_seconds.sum()
    pd.testing.assert_series_equal(trials.train_seconds, sums, check_names=False)


def assert_went_on(epochs, kept):
    """The first epochs are those that the killed processes trained: also the times are theirs."""
    for trial_id, rows in kept.items():
        seconds = epochs.train_seconds.loc[trial_id]
        assert [row["train_seconds"] for row in rows] == list(seconds.head(len(rows)))


def test_a_study_that_is_killed_and_resumed_changes_no_number(tmp_path, cluster, whole):
    study = start(cluster, tmp_path, *OPTIONS, *LANES)
    in_the_middle(study)
    kill(study, cluster)
    kept = checkpointed(study.folder)
    found = finish(start(cluster, tmp_path, "--resume", *CPU))  # it keeps its lanes
    assert_same_numbers(found, whole)
    assert_went_on(found[1], kept)


def test_an_engine_that_is_killed_costs_its_trials_a_start_and_no_number(tmp_path, cluster, whole):
    study = start(cluster, tmp_path, *OPTIONS, *LANES)
    in_the_middle(study)
    rows = tables(study.folder)[0]
    (engine,) = on_nodes(cluster, ENGINE)
    os.kill(engine, signal.SIGKILL)
    code, lines = study.rest()
    assert code == 0, lines
    assert [line for line in lines if "lost its engine, starts again" in line]
    assert not [line for line in lines if re.search(r"conv-s[12].*retry", line)]
    found = tables(study.folder)
    assert_same_numbers(found, whole)
    retried = found[0].n_retries[found[0].n_retries > 0]
    assert len(retried) >= 2  # both conv trials at least
    assert set(retried) == {1}
    ended = rows.index[rows.state == schema.COMPLETED]
    assert not set(ended) & set(retried.index)


def test_a_trial_that_is_killed_costs_itself_a_retry_and_no_number(tmp_path, cluster, whole):
    """Nor do other neighbours in another order."""
    study = start(cluster, tmp_path, *OPTIONS, *LANES, "--max-concurrent", "2")
    in_the_middle(study)
    busy = study.wait_until(lambda: on_nodes(cluster, f"{TRIAL}.train"))
    os.kill(busy[0], signal.SIGKILL)
    found = finish(study)
    assert_same_numbers(found, whole)
    assert found[0].n_retries.sum() == 1
    assert found[0].n_sharing.max() <= 2


@pytest.fixture(scope="module")
def small():
    """Options of a study that compiles quickly."""
    options = ["--preset", "reference", "--models", "dense", "--hidden", "64", "--seeds", "5"]
    return [*options, "--epochs", "60", "--batch-size", "64", *LANES]


def assert_complete(trials, epochs, n_trials, n_epochs):
    assert list(trials.state) == [schema.COMPLETED] * n_trials
    counts = epochs.reset_index().groupby("trial_id").epoch.agg(["count", "max"])
    assert (counts == n_epochs).all(axis=None)


def test_nothing_outlives_a_driver_that_is_killed(tmp_path, small, cluster):
    study = start(cluster, tmp_path, *small)
    study.wait_until(lambda: all(on_nodes(cluster, name) for name in (TRIAL, ENGINE, KEEPER)))
    study.kill()  # the driver alone: what is on the cluster was not started by it
    wait_until_gone(cluster)


def test_a_lost_node_costs_its_trials_a_start_and_none_of_their_retries(tmp_path, small, cluster):
    """Two nodes with an engine each; the trials of the lost one go on in the other's.

    A trial whose worker was on its way there may be lost twice, before Ray knows of the loss.
    """
    node = cluster.add("--num-cpus=1")
    study = start(cluster, tmp_path, *small, "--seeds", "9", "--epochs", "100")
    study.wait_until(lambda: all(processes(ENGINE, each.mark) for each in cluster.nodes[1:]))
    lost = study.wait_until(lambda: processes(f"{TRIAL}.train", node.mark))
    node.kill()
    code, lines = study.rest()
    assert code == 0, lines
    wait_until_gone(cluster)
    trials, epochs = tables(study.folder)
    assert_complete(trials, epochs, 9, 100)
    said = [line for line in lines if "lost its node" in line or ", retry " in line]
    assert trials.n_retries.sum() == len(said)
    assert 1 <= (trials.n_retries > 0).sum() <= max(4, len(lost))
    assert all("lost its node" in line for line in said), said
    assert trials.n_retries.max() <= 2


def test_a_search_in_lanes_prunes_and_optuna_agrees(tmp_path, cluster):
    """Pruned trials free their lanes, and those at a rung wait there for the decision."""
    options = ["--preset", "quick", "--models", "dense", "--hidden", "64", "--sampler", "random"]
    options += ["--trials", "10", "--finalists", "0", "--epochs", "3"]
    options += ["--grace-epochs", "1", "--reduction-factor", "2"]
    study = start(cluster, tmp_path, *options, *LANES)
    trials, epochs = finish(study)
    searched = trials[trials.group == schema.SEARCH]
    assert len(searched) == 10
    assert set(searched.state) <= {schema.COMPLETED, schema.PRUNED, schema.DIVERGED}
    assert schema.PRUNED in set(searched.state)
    counts = epochs.groupby("trial_id").size()
    for trial_id, trial in trials.iterrows():
        assert counts.get(trial_id, 0) == trial.epochs_completed
        if trial.state == schema.COMPLETED:
            assert trial.epochs_completed == 3
        if trial.state == schema.PRUNED:
            assert trial.epochs_completed in (1, 2)  # it did not train on past its rung
    storage = f"sqlite:///{study.folder / schema.OPTUNA_FILE}"
    for frozen in optuna.load_study(study_name="dense", storage=storage).trials:
        trial = searched.loc[f"search-dense-{frozen.number:03d}"]
        assert frozen.state.name == AS_OPTUNA[trial.state]
        assert len(frozen.intermediate_values) == trial.epochs_completed
        if frozen.value is not None:
            assert frozen.value == trial.val_mse
