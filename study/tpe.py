"""Optuna's TPE for long searches: a proposal's time hardly grows with the trials before it.

TPE proposes where good trials lie dense and others do not (Bergstra et al. 2011). Optuna takes the
25 best trials at most as good ones, all others as the rest, and at each proposal sorts and models
them all. Here the rest are the latest `N_COMPARED`; the good ones stay the best of all trials.
"""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

N_COMPARED = 500
N_GOOD = 25  # optuna.samplers._tpe.sampler.default_gamma's maximum


class _Compared:
    """An Optuna study as TPE's proposal looks at it: with the trials that can matter to it alone.

    Args:
        study: the study.
        numbers: of trials that can be among the best; None if every trial can.
    """

    def __init__(self, study: optuna.Study, numbers: set[int] | None) -> None:
        self._study = study
        self._numbers = numbers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, **options: Any) -> list[FrozenTrial]:
        trials = self._study._get_trials(**options)
        if self._numbers is None:
            return trials
        n_running = sum(trial.state == TrialState.RUNNING for trial in trials)
        # So many that have ended are left in any case that the number of good ones is the same.
        n_old = max(0, len(trials) - n_running - N_COMPARED - N_GOOD)
        candidates = [trial for trial in trials[:n_old] if trial.number in self._numbers]
        return candidates + trials[n_old:]


class BoundedTPE(optuna.samplers.TPESampler):
    """TPE that compares with few trials; see above. With several objectives it sorts them all."""

    _candidates: set[int] | None = None

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, *ended: Any) -> None:
        """Notes that the trial may be one of the best."""
        super().after_trial(study, trial, *ended)
        if self._candidates is not None:
            self._candidates.add(trial.number)

    def _sample(self, study: Any, *proposed: Any) -> dict[str, Any]:
        if len(study.directions) == 1:
            study = _Compared(study, self._candidates)
        return super()._sample(study, *proposed)

    def _build_parzen_estimator(
        self,
        study: Any,
        search_space: dict[str, optuna.distributions.BaseDistribution],
        trials: list[FrozenTrial],
        handle_below: bool,
    ) -> Any:
        if handle_below:
            # The best of all trials are among these and those that end from now on.
            self._candidates = {trial.number for trial in trials}
        else:
            trials = trials[-N_COMPARED:]  # they come in the order of their numbers
        return super()._build_parzen_estimator(study, search_space, trials, handle_below)
