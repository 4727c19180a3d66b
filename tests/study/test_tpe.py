"""The bounded TPE: which trials it compares with, and that the good ones are still the best."""

import math

import numpy as np
import optuna
import pytest

from study import tpe
from study.space import suggest_dense

N_RUNNING = 6


class SortsAll(tpe.BoundedTPE):
    """Bounded like it, but choosing the good trials from all, as Optuna does."""

    def _sample(self, study, *proposed):
        return optuna.samplers.TPESampler._sample(self, study, *proposed)


def proposals(sampler_class, n_trials):
    """What a search proposes whose trials end out of order: complete, pruned or failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(0)
    sampler = sampler_class(multivariate=True, constant_liar=True, n_startup_trials=5, seed=0)
    study = optuna.create_study(sampler=sampler)
    running, proposed = [], []
    for _ in range(n_trials):
        trial = study.ask()
        suggest_dense(trial)
        proposed.append(trial.params)
        running.append(trial)
        if len(running) < N_RUNNING:
            continue
        # The first trial of all runs nearly to the end.
        ended = running.pop(0 if len(proposed) == n_trials - 15 else rng.integers(1, N_RUNNING))
        value = 0.01 + math.log(ended.params["learning_rate"] / 0.3) ** 2 * (ended.number > 0)
        end = rng.choice(["complete", "pruned", "failed"], p=[0.5, 0.4, 0.1])
        if end == "failed" and ended.number:
            study.tell(ended, state=optuna.trial.TrialState.FAIL)
        elif end == "pruned" and ended.number:
            ended.report(value, 1)
            study.tell(ended, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(ended, value)
    return proposed


def test_it_proposes_as_if_it_had_sorted_all_trials(monkeypatch):
    n_shown = []

    class Watched(tpe._Compared):
        def _get_trials(self, **options):
            trials = super()._get_trials(**options)
            n_shown.append((len(self._study.get_trials(deepcopy=False)), len(trials)))
            return trials

    monkeypatch.setattr(tpe, "_Compared", Watched)
    # As many as make 25 trials the good ones, which a search has from its 241st ended trial on.
    monkeypatch.setattr(tpe, "N_COMPARED", 230)
    assert proposals(tpe.BoundedTPE, 400) == proposals(SortsAll, 400)
    n_all, n_compared = n_shown[-1]
    assert n_all == 400
    assert n_compared < 230 + 2 * tpe.N_GOOD + N_RUNNING + 1


@pytest.mark.parametrize(("limit", "same"), [(200, True), (30, False)])
def test_it_compares_with_the_latest_trials_alone(monkeypatch, limit, same):
    """A limit that no search reaches changes nothing; one that it passes does, from there on."""
    monkeypatch.setattr(tpe, "N_COMPARED", limit)
    whole, bounded = (
        proposals(sampler, 60) for sampler in (optuna.samplers.TPESampler, tpe.BoundedTPE)
    )
    assert bounded[:30] == whole[:30]
    assert (bounded == whole) == same
