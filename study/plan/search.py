"""The search of one architecture: Optuna asked for settings, and told how they fared.

Optuna's study is derived from the ledger. In a search that repeats itself proposal i, and the early
stopping of trial i, know the trials up to i − lag in the order of planning, and no others: which of
them ended first decides nothing.
"""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from convae.config import TrialConfig
from convae.sharing import DeviceSharing
from study.folder import schema
from study.folder.tables import Row
from study.plan.ledger import ENDS, Ledger, Listener, config_of_row
from study.plan.sampler import make_sampler
from study.plan.spec import StudySpec
from study.plan.stopping import Curve, goes_on
from study.plan.trials import PlannedTrial, first_points, plan_trial, search_config

# Optuna has no state for a diverged trial: it is failed there, with this attribute.
DIVERGED_EPOCH = "diverged_epoch"
LEARNING_SAMPLERS = ("tpe", "gp")
_STATES = {
    schema.COMPLETED: TrialState.COMPLETE,
    schema.PRUNED: TrialState.PRUNED,
    schema.DIVERGED: TrialState.FAIL,
    schema.FAILED: TrialState.FAIL,
}


class Search(Listener):
    """A search of an architecture, by the study's sampler and with its seed.

    What earlier sessions entered in the ledger is told to Optuna, whose storage has no study of the
    architecture's name yet.

    Args:
        model: the architecture.
        spec, ledger: the study's; the search listens to the ledger.
        storage: Optuna's.
        lag: trials before a proposal that it does not know, and one: with 1 it knows all. None for
            whatever has ended, so that the order in which trials end matters.
        number: among the architecture's searches, from 0.
    """

    def __init__(
        self,
        model: str,
        spec: StudySpec,
        ledger: Ledger,
        storage: optuna.storages.BaseStorage,
        lag: int | None = None,
        number: int = 0,
    ) -> None:
        self._model, self._spec, self._ledger, self._lag = model, spec, ledger, lag
        self.number = number
        self._space = spec.space_of(model)
        self._n_trials = spec.n_searched(model, spec.sampler)
        self._metrics = (schema.OBJECTIVE, schema.SECONDS)[: 1 + spec.timed]
        # Optuna's trials have the numbers of their names.
        self.study = optuna.create_study(
            storage=storage,
            study_name=f"{model}-{number + 1}" if number else model,
            directions=["minimize"] * len(self._metrics),
        )
        # Half of the trials are given, rounded up, so that the sampler has a say in small ones too.
        n_given = (spec.share + 1) // 2 if spec.given_trials else 0
        self._given = first_points(model, spec, n_given)
        self._reference = first_points(model, spec, 1)
        if spec.sampler == "grid":
            self._given = list(self._space.grid)
            random.Random(spec.seed).shuffle(self._given)
        rows = [
            row
            for row in ledger.rows()
            if (row["group"], row["model"], row["seed"]) == (schema.SEARCH, model, spec.seed)
        ]
        self._trial_ids = [row["trial_id"] for row in rows]  # by number
        self._unfinished = [row for row in rows if row["state"] not in ENDS]
        self._known = {self._space.point(self._space.params_of(config_of_row(row))) for row in rows}
        self._inferred: dict[str, BaseDistribution] = {}  # by samplers, of the study's trials
        self._running: dict[int, optuna.Trial] = {}  # those that Optuna knows as such, by number
        for number, row in enumerate(rows):
            self._enqueue(number, self._space.params_of(config_of_row(row)))
        self._tell_ends()

    @property
    def n_planned(self) -> int:
        """Trials so far."""
        return len(self._trial_ids)

    @property
    def is_open(self) -> bool:
        """Whether a trial is left to be planned, or to be taken up again."""
        return bool(self._unfinished) or self.n_planned < self._n_trials

    @property
    def waits_for(self) -> str | None:
        """The first trial that must end before the next one can be planned; None if none."""
        number = self.n_planned
        if self._lag is None or self._unfinished or number >= self._n_trials:
            return None
        is_proposed = number >= len(self._given) and self._spec.sampler in LEARNING_SAMPLERS
        if not is_proposed and self._spec.scheduler == "none":
            return None  # it will depend on no other trial
        must_know = (self._trial_ids[n] for n in sorted(self._running) if n < self._n_known(number))
        return next((each for each in must_know if not self._has_ended(each)), None)

    def next(self) -> PlannedTrial:
        """The next trial: one that an earlier session left unfinished, or a new setting."""
        if self._unfinished:
            row = self._unfinished.pop(0)
            return self._planned(row["trial_id"], config_of_row(row))
        number = self.n_planned
        trial_id = f"{schema.SEARCH}-{self._model}-{self._name(number)}"
        self._tell_ends()
        if number < len(self._given):
            params = self._enqueue(number, self._given[number])
        else:
            sampler = make_sampler(self._spec, self._model, number, self._known, self._inferred)
            params = self._ask(number, sampler)
        self._known.add(self._space.point(params))
        self._trial_ids.append(trial_id)
        return self._planned(trial_id, search_config(self._model, params, self._spec))

    def goes_on(self, trial_id: str, epochs: Curve) -> bool:
        """Whether the scheduler lets a trial go on after the last of these epochs.

        Those before them are in the ledger.
        """
        number = self._trial_ids.index(trial_id)
        others = self._trial_ids if self._lag is None else self._trial_ids[: self._n_known(number)]
        curves = (self._curve_of(other) for other in others if other != trial_id)
        return goes_on(self._spec, {**self._curve_of(trial_id), **epochs}, curves)

    def best(self, n: int) -> list[tuple[float, str, TrialConfig]]:
        """The best completed settings, each once, with the values and names of their trials.

        By the first of the objectives; a tie goes to the earlier trial.
        """
        done = self.study.get_trials(states=(TrialState.COMPLETE,))
        found: dict[TrialConfig, tuple[float, str]] = {}
        for trial in sorted(done, key=lambda trial: (trial.values[0], trial.number)):
            config = search_config(self._model, trial.params, self._spec)
            found.setdefault(config, (trial.values[0], self._name(trial.number)))
        return [(*told, config) for config, told in found.items()][:n]

    def _name(self, number: int) -> str:
        """A trial's, within those of its architecture's searches."""
        return f"{self.number + 1}-{number:03d}" if self.number else f"{number:03d}"

    def close(self) -> None:
        """Tells Optuna all that is known, for its file; no trial is planned any more."""
        self._tell_ends(everything=True)

    # What the ledger tells.

    def ended(self, row: Row) -> None:
        """Tells Optuna how trials ended, of which the next proposal is to know."""
        self._tell_ends()

    def _n_known(self, number: int) -> int:
        """How many trials, from the first, the proposal of this number knows if they have ended."""
        if self._lag is None or number >= self._n_trials:  # which is none
            return number
        return max(0, number - self._lag + 1)

    def _tell_ends(self, *, everything: bool = False) -> None:
        """Tells Optuna how the trials ended that the next proposal knows. Never a made-up number.

        Samplers read the trials by their numbers, in whatever order they are told of.
        """
        n_known = self.n_planned if everything else self._n_known(self.n_planned)
        for number in sorted(self._running):
            trial_id = self._trial_ids[number]
            if number >= n_known or not self._has_ended(trial_id):
                continue
            row, trial = self._ledger.row(trial_id), self._running.pop(number)
            # Of trials with two objectives Optuna keeps no curve.
            for epoch, value in ({} if self._spec.timed else self._curve_of(trial_id)).items():
                trial.report(value, epoch)
            if row["state"] == schema.DIVERGED:
                trial.set_user_attr(DIVERGED_EPOCH, row["diverged_epoch"])
            completed = row["state"] == schema.COMPLETED
            values = [row[name] for name in self._metrics] if completed else None
            self.study.tell(trial, values, _STATES[row["state"]])

    def _has_ended(self, trial_id: str) -> bool:
        return self._ledger.row(trial_id)["state"] in ENDS

    def _curve_of(self, trial_id: str) -> dict[int, float]:
        epochs = self._ledger.epochs_of(trial_id)
        return {
            epoch["epoch"]: epoch[schema.OBJECTIVE]
            for epoch in epochs
            if epoch.get(schema.OBJECTIVE) is not None
        }

    def _planned(self, trial_id: str, config: TrialConfig) -> PlannedTrial:
        return plan_trial(
            self._spec,
            schema.SEARCH,
            trial_id,
            config,
            # The setting that all others are measured by has a final value.
            prunable=self._space.params_of(config) not in self._reference,
            report_epochs=self._spec.rungs,
            sharing=DeviceSharing.ALONE if self._spec.timed else DeviceSharing.LANES,
        )

    def _enqueue(self, number: int, params: Mapping[str, Any]) -> dict[str, Any]:
        self.study.enqueue_trial(dict(params))
        return self._ask(number, optuna.samplers.RandomSampler())

    def _ask(self, number: int, sampler: optuna.samplers.BaseSampler) -> dict[str, Any]:
        self.study.sampler = sampler
        with warnings.catch_warnings():
            # A setting that is given may lie outside the space of today's version.
            warnings.filterwarnings("ignore", "Fixed parameter", UserWarning)
            self._running[number] = self.study.ask(dict(self._space.distributions))
        return self._running[number].params
