"""Hands out a study's trials to Ray Tune: the fixed ones, then what Optuna asks for, then winners.

One Tune experiment serves all three, so that warm workers go on from one phase to the next.
Each architecture has its own Optuna study, and an equal share of the trials.
"""

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from study.folder import schema
from study.presets import StudySpec
from study.records import Records
from study.scheduling import make_sampler, rungs
from study.space import (
    SPACES,
    PlannedTrial,
    first_points,
    neighbour_trials,
    reading_trials,
    reference_trials,
    searched_config,
)
from study.warm_start import DIVERGED_EPOCH

OBJECTIVES_ATTR = "objectives"  # of an Optuna study: the metrics that its values are


class ArchitectureSearch(OptunaSearch):
    """Ray's OptunaSearch, telling Optuna every epoch and each way in which a trial can end.

    It can go on with a study whose process died: see `adopt` and `settle`.
    """

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next setting. Ray warns if that takes a second; a busy disk under SQLite may."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Define-by-run function passed")
            suggestion: dict[str, Any] | None = super().suggest(trial_id)
        return suggestion

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Reports the objective of each epoch that the result brings.

        Optuna keeps no intermediate values of a trial with two objectives.
        """
        trial = self._ot_trials[trial_id]
        if len(self.study.directions) > 1:
            return
        n_known = self._n_reported.get(trial_id, 0)
        for row in result["history"]:
            # A trial that goes on from a checkpoint tells all its epochs again.
            if row.get(schema.OBJECTIVE) is not None and row["epoch"] > n_known:
                trial.report(row[schema.OBJECTIVE], row["epoch"])
                self._n_reported[trial_id] = row["epoch"]

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells Optuna how the trial ended, and forgets it."""
        self._tell(trial_id, result, error)
        del self._ot_trials[trial_id]
        self._n_reported.pop(trial_id, None)

    def _tell(self, trial_id: str, result: Mapping[str, Any] | None, error: bool) -> None:
        """Complete, pruned or failed. Never a made-up number."""
        trial = self._ot_trials[trial_id]
        if error or not result:
            self._ot_study.tell(trial, state=TrialState.FAIL)
            return
        self.on_trial_result(trial_id, result)
        if result["state"] == schema.DIVERGED:
            trial.set_user_attr(DIVERGED_EPOCH, result["diverged_epoch"])
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif result["state"] == schema.RUNNING:  # stopped by the scheduler
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        elif len(self.study.directions) > 1:
            self._ot_study.tell(trial, [result[schema.OBJECTIVE], result[schema.TIME_OBJECTIVE]])
        else:
            self._ot_study.tell(trial, result[schema.OBJECTIVE])

    def adopt(self, trial_id: str, number: int) -> None:
        """Takes a trial that Optuna knows as running for the one that Ray knows by this id.

        `suggest` then gives its setting, and completes it if the earlier session died over that.
        """
        frozen = self.study.get_trials(deepcopy=False)[number]
        self._ot_trials[trial_id] = optuna.trial.Trial(self.study, frozen._trial_id)
        self._n_reported[trial_id] = max(frozen.intermediate_values, default=0)

    def settle(self, number: int, row: Mapping[str, Any], epochs: list[dict[str, Any]]) -> None:
        """Tells Optuna how a trial ended that it knows as running, from the tables' rows."""
        trial_id = str(row["trial_id"])
        self.adopt(trial_id, number)
        state = schema.RUNNING if row["state"] == schema.PRUNED else row["state"]
        result = {**row, "state": state, "history": epochs}
        self.on_trial_complete(trial_id, result, error=row["state"] == schema.FAILED)

    @property
    def _n_reported(self) -> dict[str, int]:
        """The last epoch that Optuna has heard of, by Ray's id."""
        reported: dict[str, int] = self.__dict__.setdefault("_reported", {})
        return reported

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
        records: what an earlier session of the study ended. Each search trial's end is entered
            there before Optuna hears of it, so that after a crash the tables know all that Optuna
            knows. None for a study that keeps none.
        known: gives the trials of an older run by architecture, which the sampler learns from.
        save: called whenever Optuna has learned something.
    """

    def __init__(
        self,
        spec: StudySpec,
        storage: optuna.storages.BaseStorage,
        records: Records | None = None,
        known: Callable[[], Mapping[str, Sequence[FrozenTrial]]] = dict,
        save: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(metric=schema.OBJECTIVE, mode=schema.MODE)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._records = records
        self._save = save
        self._ended = records.ended if records else frozenset()
        self._fixed = deque(self._not_ended(fixed_trials(spec)))
        self._report_epochs = rungs(spec)
        self._running: dict[str, PlannedTrial] = {}
        self._searches = {
            model: _architecture_search(model, i, spec, storage, known)
            for i, model in enumerate(spec.models if spec.n_search_trials else ())
        }
        self._unfinished = {model: deque(self._catch_up(model)) for model in self._searches}
        self._n_asked = {
            model: sum(trial_id.startswith(_search_id(model)) for trial_id in self._ended)
            for model in self._searches
        }
        self._winners: deque[PlannedTrial] | None = None
        self.stopping = False

    @property
    def n_trials(self) -> dict[str, int]:
        """Trials of the whole study by group, if nothing stops it early."""
        counts = Counter(planned.group for planned in fixed_trials(self._spec))
        counts[schema.SEARCH] = self._spec.n_search_trials
        counts[schema.WINNER] = len(self._searches) * self._spec.n_seeds
        return {group: counts[group] for group in schema.GROUPS if counts[group]}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None while winners wait for the search; FINISHED at the end."""
        planned = self._next(trial_id)
        if isinstance(planned, PlannedTrial):
            planned = replace(planned, eval_every=self._spec.eval_every)
            self._running[trial_id] = planned
            return planned.to_tune()
        return planned

    def _next(self, trial_id: str) -> PlannedTrial | str | None:
        if self._fixed:
            return self._fixed.popleft()
        open_searches = [model for model, n in self._n_asked.items() if n < self._spec.share]
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

    def _catch_up(self, model: str) -> Iterator[int]:
        """Brings Optuna up to the tables; yields the numbers of trials without an end in either."""
        search = self._searches[model]
        for frozen in search.study.get_trials(states=(TrialState.RUNNING,)):
            trial_id = f"{_search_id(model)}{frozen.number:03d}"
            if self._records and trial_id in self._ended:
                row = self._records.row(trial_id)
                search.settle(frozen.number, row, self._records.epochs_of(trial_id))
            else:
                yield frozen.number

    def _ask(self, model: str, trial_id: str) -> PlannedTrial:
        search = self._searches[model]
        if self._unfinished[model]:
            search.adopt(trial_id, self._unfinished[model].popleft())
        params = search.suggest(trial_id) or {}
        number = search.number_of(trial_id)
        self._n_asked[model] += 1
        self._save()
        reference = first_points(model, self._spec, 1)
        return PlannedTrial(
            f"{_search_id(model)}{number:03d}",
            schema.SEARCH,
            searched_config(model, params, self._spec),
            # The setting that all others are measured by has a final value.
            prunable=params not in reference,
            report_epochs=self._report_epochs,
        )

    def _not_ended(self, planned: Iterable[PlannedTrial]) -> list[PlannedTrial]:
        return [trial for trial in planned if trial.trial_id not in self._ended]

    def _winner_trials(self, model: str) -> list[PlannedTrial]:
        """The architecture's best setting by the validation images, on all training images."""
        done = self._searches[model].study.get_trials(states=(TrialState.COMPLETE,))
        if not done:
            return []  # all pruned, diverged or failed: there is no winner
        spec = self._spec
        # The first of the objectives; a tie goes to the earlier trial.
        params = min(done, key=lambda trial: trial.values[0]).params
        best = searched_config(model, params, spec, schema.FULL_SPLIT)
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
        planned = self._running.pop(trial_id, None)
        state = self.state_of(result, error)
        if search is None or planned is None or state == schema.RUNNING:
            return
        if self._records and planned.trial_id in self._records.trial_ids:
            self._records.end(planned.trial_id, state)
            if self._records.trouble:
                return  # what the tables may not know, Optuna must not: see `records` above
        search.on_trial_complete(trial_id, result, error)
        self._save()

    def state_of(self, result: Mapping[str, Any] | None, error: bool = False) -> str:
        """How a trial ended with this last result, of `schema.STATES`."""
        if error or not result:
            return schema.FAILED
        if result["state"] == schema.RUNNING and not self.stopping:
            return schema.PRUNED
        return str(result["state"])

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


def fixed_trials(spec: StudySpec) -> list[PlannedTrial]:
    """The trials that are known before the study starts, in the order in which they start.

    Seed by seed: a study that stops early has whole seeds, not whole settings.
    """
    trials = reference_trials(spec)
    trials += reading_trials(spec) if spec.readings else []
    trials += neighbour_trials(spec) if spec.neighbours else []
    return sorted(trials, key=lambda trial: trial.config.seed)


def _search_id(model: str) -> str:
    return f"{schema.SEARCH}-{model}-"


def _architecture_search(
    model: str,
    stream: int,
    spec: StudySpec,
    storage: optuna.storages.BaseStorage,
    known: Callable[[], Mapping[str, Sequence[FrozenTrial]]],
) -> ArchitectureSearch:
    n_earlier = 0
    if model in optuna.get_all_study_names(storage):
        earlier = optuna.load_study(study_name=model, storage=storage)
        if OBJECTIVES_ATTR in earlier.user_attrs:
            n_earlier = len(earlier.trials)
        else:  # the process died before it had told Optuna all that it should start with
            optuna.delete_study(study_name=model, storage=storage)
    told = () if n_earlier else known().get(model, ())
    # At most half of the trials are given, so that the sampler has a say in small searches too.
    # An older run knows the neighbours; a grid has its own order, and holds them among its points.
    n_given = 0 if n_earlier or spec.sampler == "grid" else 1 if told else (spec.share + 1) // 2
    metrics = [schema.OBJECTIVE, schema.TIME_OBJECTIVE][: 1 + spec.timed]
    search = ArchitectureSearch(
        space=SPACES[model],
        metric=metrics if spec.timed else schema.OBJECTIVE,
        mode=[schema.MODE] * len(metrics) if spec.timed else schema.MODE,
        points_to_evaluate=first_points(model, spec, n_given) or None,
        # OptunaSearch ignores its own seed when it is given a sampler. A resumed study must not
        # draw its first points again.
        sampler=make_sampler(spec, model, spec.seed + 1_000_003 * stream + 10_007 * n_earlier),
        study_name=model,
        storage=storage,
    )
    search.study.add_trials(told)
    search.study.set_user_attr(OBJECTIVES_ATTR, metrics)  # the last of its beginnings, see above
    return search
