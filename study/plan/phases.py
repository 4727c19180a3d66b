"""The plan of a study: the fixed trials, then what the searches ask for, then the winners."""

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import optuna
from optuna.trial import FrozenTrial

from convae.config import TrialConfig
from convae.place import Place
from study.folder import schema
from study.folder.tables import Row
from study.plan.ledger import Ledger, Listener, config_of_row
from study.plan.search import Search
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial, fixed_trials, winner_place


class Plan(Listener):
    """Hands out a study's trials, entered in the ledger before anybody sees them.

    It goes on where the ledger stands. Each architecture has its own search and an equal share of
    the search trials; winners wait until no search trial runs.

    Args:
        spec: the study.
        ledger: of the study; the plan listens to it.
        storage: for Optuna's studies; None for one that ends with the plan.
        known: trials of an older run by architecture, which the samplers learn from.
        quiet: whether nothing is handed out beside a trial that must be alone; without, whoever
            trains sees to that.
    """

    def __init__(
        self,
        spec: StudySpec,
        ledger: Ledger,
        storage: optuna.storages.BaseStorage | None = None,
        known: Mapping[str, Sequence[FrozenTrial]] | None = None,
        *,
        quiet: bool = True,
    ) -> None:
        self._quiet = quiet
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each new study
        self._spec, self._ledger = spec, ledger
        storage = storage or optuna.storages.InMemoryStorage()
        self.fixed = fixed_trials(spec)
        self._fixed = deque(self._to_do(self.fixed))
        self._searches = {
            model: Search(model, spec, ledger, storage, (known or {}).get(model, ()))
            for model in (spec.models if spec.n_search_trials else ())
        }
        self._winners: deque[PlannedTrial] | None = None
        self._at_work: dict[str, PlannedTrial] = {}
        ledger.listeners += [*self._searches.values(), self]

    @property
    def is_finished(self) -> bool:
        """Whether no further trial will ever be handed out."""
        return self._winners is not None and not self._winners

    def study_of(self, model: str) -> optuna.Study:
        """Optuna's study of an architecture."""
        return self._searches[model].study

    def next(self) -> PlannedTrial | None:
        """The next trial; None while winners wait for the searches, or if there is none left."""
        planned = self._next()
        if planned is not None:
            self._ledger.plan(planned)
        return planned

    def _next(self) -> PlannedTrial | None:
        at_work = self._at_work.values()
        if self._quiet and any(planned.place is Place.ALONE for planned in at_work):
            return None
        if self._fixed:
            must_wait = self._quiet and self._fixed[0].place is Place.ALONE and at_work
            return None if must_wait else self._fixed.popleft()
        if searches := [search for search in self._searches.values() if search.is_open]:
            return min(searches, key=lambda search: search.n_planned).next()
        if self._winners is None:
            if any(planned.group == schema.SEARCH for planned in at_work):
                return None
            self._winners = deque(
                planned
                for model, search in self._searches.items()
                if (best := search.best_config())
                for planned in self._to_do(self._winner_trials(model, best))
            )
        return self._winners.popleft() if self._winners else None

    def _winner_trials(self, model: str, best: TrialConfig) -> list[PlannedTrial]:
        configs = [replace(best, seed=seed) for seed in self._spec.seeds]
        # A search that was prolonged may have found another setting than the one before.
        for number in itertools.count(1):
            name = f"{schema.WINNER}-{model}" + (f"-{number}" if number > 1 else "")
            trial_ids = [f"{name}-s{config.seed}" for config in configs]
            if all(map(self._is_free, trial_ids, configs)):
                break
        return [
            PlannedTrial(
                trial_id,
                schema.WINNER,
                config,
                keep_model=config.seed == self._spec.seed,
                eval_every=self._spec.eval_every,
                place=winner_place(self._spec),
            )
            for trial_id, config in zip(trial_ids, configs, strict=True)
        ]

    def _is_free(self, trial_id: str, config: TrialConfig) -> bool:
        """Whether this is the name of this trial, or of none yet."""
        return trial_id not in self._ledger or config_of_row(self._ledger.row(trial_id)) == config

    def _to_do(self, trials: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        return [planned for planned in trials if not self._ledger.is_done(planned.trial_id)]

    # What the ledger tells.

    def planned(self, planned: PlannedTrial, row: Row) -> None:
        """Notes that it is at work."""
        self._at_work[planned.trial_id] = planned

    def ended(self, row: Row) -> None:
        """Notes that it no longer is."""
        self._at_work.pop(row["trial_id"], None)
