"""Hands out a study's trials to Ray Tune: the fixed ones, then what Optuna asks for, then winners.

One Tune experiment serves all three, so that warm workers go on from one phase to the next.
Each architecture has its own Optuna study, and an equal share of the trials.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from study import schema
from study.presets import StudySpec
from study.scheduling import make_sampler, rungs
from study.space import (
    SPACES,
    PlannedTrial,
    config_from_params,
    neighbour_trials,
    reference_params,
    reference_trials,
)

# Optuna has no state for a diverged trial: it is failed there, with this attribute.
DIVERGED_EPOCH = "diverged_epoch"


class ArchitectureSearch(OptunaSearch):
    """Ray's OptunaSearch, telling Optuna every epoch and each way in which a trial can end."""

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Reports the objective of each epoch that the result brings."""
        for row in result["history"]:
            if row.get(schema.OBJECTIVE) is not None:
                self._ot_trials[trial_id].report(row[schema.OBJECTIVE], row["epoch"])

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells Optuna how the trial ended: complete, pruned or failed. Never a made-up number."""
        trial = self._ot_trials[trial_id]
        if error or not result:
            self._ot_study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        self.on_trial_result(trial_id, result)
        if result["state"] == schema.DIVERGED:
            trial.set_user_attr(DIVERGED_EPOCH, result["diverged_epoch"])
            self._ot_study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif result["state"] == schema.RUNNING:  # stopped by the scheduler
            self._ot_study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._ot_study.tell(trial, result[schema.OBJECTIVE])

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        study: optuna.Study = self._ot_study
        return study

    def number_of(self, trial_id: str) -> int:
        """Optuna's number of the trial that Ray knows by this id."""
        number: int = self._ot_trials[trial_id].number
        return number


class StudySearch(Searcher):
    """The whole plan of a study as one search algorithm of Ray Tune.

    Args:
        spec: the study.
        storage: Optuna's, which outlives the process.
        ended: ids of trials that an earlier session of the study finished.
    """

    def __init__(
        self,
        spec: StudySpec,
        storage: optuna.storages.BaseStorage,
        ended: Collection[str] = (),
    ) -> None:
        super().__init__(metric=schema.OBJECTIVE, mode=schema.MODE)
        self._spec = spec
        self._ended = ended
        self._fixed = deque(self._not_ended(_fixed_trials(spec)))
        self._report_epochs = rungs(spec)
        self._running: dict[str, PlannedTrial] = {}
        self._searches = {
            model: _architecture_search(model, i, spec, storage)
            for i, model in enumerate(spec.models if spec.n_search_trials else ())
        }
        self._n_asked = {
            model: sum(trial_id.startswith(_search_id(model)) for trial_id in ended)
            for model in self._searches
        }
        self._winners: deque[PlannedTrial] | None = None
        self.stopping = False

    @property
    def n_trials(self) -> dict[str, int]:
        """Trials of the whole study by group, if nothing stops it early."""
        counts = Counter(planned.group for planned in _fixed_trials(self._spec))
        counts[schema.SEARCH] = self._spec.n_search_trials
        counts[schema.WINNER] = len(self._searches) * self._spec.n_seeds
        return {group: counts[group] for group in schema.GROUPS if counts[group]}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while winners wait for the search; FINISHED at the end."""
        planned = self._next(trial_id)
        if isinstance(planned, PlannedTrial):
            self._running[trial_id] = planned
            return planned.to_tune()
        return planned

    def _next(self, trial_id: str) -> PlannedTrial | str | None:
        if self._fixed:
            return self._fixed.popleft()
        share = self._spec.n_search_trials // len(self._spec.models)
        open_searches = [model for model, n in self._n_asked.items() if n < share]
        if open_searches:
            return self._ask(min(open_searches, key=self._n_asked.__getitem__), trial_id)
        if self._winners is None:
            if any(planned.group == schema.SEARCH for planned in self._running.values()):
                return None
            self._winners = deque(
                planned
                for model in self._searches
                for planned in self._not_ended(self._winner_trials(model))
            )
        return self._winners.popleft() if self._winners else Searcher.FINISHED

    def _ask(self, model: str, trial_id: str) -> PlannedTrial:
        params = self._searches[model].suggest(trial_id)
        self._n_asked[model] += 1
        spec = self._spec
        # One seed for all search trials: settings are compared on the same footing.
        config = config_from_params(
            model, params, epochs=spec.epochs, split=schema.SEARCH_SPLIT, seed=spec.seed
        )
        number = self._searches[model].number_of(trial_id)
        return PlannedTrial(
            f"{_search_id(model)}{number:03d}",
            schema.SEARCH,
            config,
            report_epochs=self._report_epochs,
        )

    def _not_ended(self, planned: Iterable[PlannedTrial]) -> list[PlannedTrial]:
        return [trial for trial in planned if trial.trial_id not in self._ended]

    def _winner_trials(self, model: str) -> list[PlannedTrial]:
        """The architecture's best setting by the validation images, on all training images."""
        study = self._searches[model].study
        if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
            return []  # all pruned, diverged or failed: there is no winner
        spec = self._spec
        best = config_from_params(
            model, study.best_params, epochs=spec.epochs, split=schema.FULL_SPLIT, seed=spec.seed
        )
        return [
            PlannedTrial(
                f"{schema.WINNER}-{model}-s{seed}",
                schema.WINNER,
                replace(best, seed=seed),
                keep_model=seed == spec.seed,
            )
            for seed in range(spec.seed, spec.seed + spec.n_seeds)
        ]

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Passes a search trial's epochs on to Optuna."""
        if search := self._search_of(trial_id):
            search.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Passes a search trial's end on to Optuna, unless the whole study is being stopped."""
        search = self._search_of(trial_id)
        self._running.pop(trial_id, None)
        unfinished = not error and result is not None and result["state"] == schema.RUNNING
        if search and not (self.stopping and unfinished):
            search.on_trial_complete(trial_id, result, error)

    def _search_of(self, trial_id: str) -> ArchitectureSearch | None:
        planned = self._running.get(trial_id)
        if planned is None or planned.group != schema.SEARCH:
            return None
        return self._searches[planned.config.model]

    # Ray Tune keeps copies of everything it is given, to restore a study from. This project does
    # not: Optuna's storage and the run folder's tables hold what is known.
    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Leaves an empty file, which Ray Tune moves into place."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Refuses, see above."""
        raise NotImplementedError("A study is not restored from Ray Tune's own files.")


def _fixed_trials(spec: StudySpec) -> list[PlannedTrial]:
    return reference_trials(spec) + (neighbour_trials(spec) if spec.neighbours else [])


def _search_id(model: str) -> str:
    return f"{schema.SEARCH}-{model}-"


def _architecture_search(
    model: str, stream: int, spec: StudySpec, storage: optuna.storages.BaseStorage
) -> ArchitectureSearch:
    n_earlier = 0
    if model in optuna.get_all_study_names(storage):
        earlier = optuna.load_study(study_name=model, storage=storage)
        for trial in earlier.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            earlier.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # was cut off
        n_earlier = len(earlier.trials)
    # A grid has its own order, and holds the reference among its points.
    enqueue = not n_earlier and spec.sampler != "grid"
    first = reference_params(model, spec) if enqueue else None
    return ArchitectureSearch(
        space=SPACES[model],
        metric=schema.OBJECTIVE,
        mode=schema.MODE,
        points_to_evaluate=[first] if first else None,
        # OptunaSearch ignores its own seed when it is given a sampler. A resumed study must not
        # draw its first points again.
        sampler=make_sampler(spec, model, spec.seed + 1_000_003 * stream + 10_007 * n_earlier),
        study_name=model,
        storage=storage,
    )
