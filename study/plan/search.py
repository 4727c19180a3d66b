"""The search of one architecture: Optuna asked for settings, and told how they fared.

Optuna's study is derived from the ledger, in the order in which trials were planned, whenever a
session begins; between the two it listens.
"""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from convae.config import TrialConfig
from convae.sharing import DeviceSharing
from study.folder import schema
from study.folder.tables import Row
from study.plan.ledger import ENDS, Ledger, Listener, config_of_row
from study.plan.sampler import make_sampler
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial, first_points, plan_trial, search_config

# Optuna has no state for a diverged trial: it is failed there, with this attribute.
DIVERGED_EPOCH = "diverged_epoch"
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
    """

    def __init__(
        self,
        model: str,
        spec: StudySpec,
        ledger: Ledger,
        storage: optuna.storages.BaseStorage,
        number: int = 0,  # among the searches of the architecture
    ) -> None:
        self._model, self._spec, self._ledger, self.number = model, spec, ledger, number
        self._space = spec.space_of(model)
        self._metrics = (schema.OBJECTIVE, schema.TIME_OBJECTIVE)[: 1 + spec.timed]
        # Optuna's trials have the numbers of their names.
        self.study = optuna.create_study(
            storage=storage,
            study_name=f"{model}-{number + 1}" if number else model,
            directions=["minimize"] * len(self._metrics),
        )
        # At most half of the trials are given, so that the sampler has a say in small searches too.
        n_given = (spec.share + 1) // 2 if spec.given_trials else 0
        self._given = first_points(model, spec, n_given)
        self._reference = first_points(model, spec, 1)
        if spec.sampler == "grid":
            self._given = list(self._space.grid)
            random.Random(spec.seed).shuffle(self._given)
        self._trials: dict[str, optuna.Trial] = {}  # those that Optuna knows as running
        self._n_told: dict[str, int] = {}  # the last epoch that Optuna has heard of
        rows = [
            row
            for row in ledger.rows()
            if (row["group"], row["model"], row["seed"]) == (schema.SEARCH, model, spec.seed)
        ]
        self._unfinished = [row for row in rows if row["state"] not in ENDS]
        for row in rows:
            if row["state"] in ENDS:
                self._recall(row)
            else:
                self._enqueue(row["trial_id"], self._space.params_of(config_of_row(row)))
        self.n_planned = len(rows)  # trials so far

    @property
    def is_open(self) -> bool:
        """Whether a trial is left to be planned, or to be taken up again."""
        return bool(self._unfinished) or self.n_planned < self._spec.share

    def next(self) -> PlannedTrial:
        """The next trial: one that an earlier session left unfinished, or a new setting."""
        if self._unfinished:
            row = self._unfinished.pop(0)
            return self._planned(row["trial_id"], config_of_row(row))
        trial_id = f"{schema.SEARCH}-{self._model}-{self._name(self.n_planned)}"
        self.study.sampler = make_sampler(self._spec, self._model, self.n_planned)
        if self.n_planned < len(self._given):
            params = self._enqueue(trial_id, self._given[self.n_planned])
        else:
            params = self._ask(trial_id)
        self.n_planned += 1
        return self._planned(trial_id, search_config(self._model, params, self._spec))

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

    # What the ledger tells.

    def measured(self, row: Row, epochs: list[Row]) -> None:
        """Reports the objective by epoch, unless there are two: Optuna keeps none then."""
        trial = self._trials.get(row["trial_id"])
        if trial is None or self._spec.timed:
            return
        for epoch in epochs:
            # A trial that goes on from a checkpoint tells all its epochs again.
            known = self._n_told.get(row["trial_id"], 0)
            if epoch.get(schema.OBJECTIVE) is not None and epoch["epoch"] > known:
                trial.report(epoch[schema.OBJECTIVE], epoch["epoch"])
                self._n_told[row["trial_id"]] = epoch["epoch"]

    def ended(self, row: Row) -> None:
        """Tells how it ended. Never a made-up number."""
        if row["state"] not in ENDS or row["trial_id"] not in self._trials:
            return
        trial = self._trials.pop(row["trial_id"])
        for name, value in _attributes(row).items():
            trial.set_user_attr(name, value)
        values = self._values(row) if row["state"] == schema.COMPLETED else None
        self.study.tell(trial, values, _STATES[row["state"]])

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

    def _enqueue(self, trial_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.study.enqueue_trial(dict(params))
        return self._ask(trial_id)

    def _ask(self, trial_id: str) -> dict[str, Any]:
        with warnings.catch_warnings():
            # A setting that is given may lie outside the space of today's version.
            warnings.filterwarnings("ignore", "Fixed parameter", UserWarning)
            trial = self.study.ask(dict(self._space.distributions))
        self._trials[trial_id] = trial
        return trial.params

    def _recall(self, row: Row) -> None:
        """Tells Optuna of a trial that has ended in an earlier session."""
        intermediate = {
            epoch["epoch"]: epoch[schema.OBJECTIVE]
            for epoch in self._ledger.epochs_of(row["trial_id"])
            if epoch.get(schema.OBJECTIVE) is not None and not self._spec.timed
        }
        values = None
        if row["state"] == schema.COMPLETED:
            values = self._values(row)
        elif row["state"] == schema.PRUNED and intermediate:
            values = [intermediate[max(intermediate)]]  # as Optuna's own tell() has it
        self.study.add_trial(
            optuna.create_trial(
                state=_STATES[row["state"]],
                values=values,
                params=self._space.params_of(config_of_row(row)),
                distributions=dict(self._space.distributions),
                user_attrs=_attributes(row),
                intermediate_values=intermediate,
            )
        )

    def _values(self, row: Row) -> list[float]:
        return [row[name] for name in self._metrics]


def _attributes(row: Row) -> dict[str, Any]:
    diverged = row["state"] == schema.DIVERGED
    return {DIVERGED_EPOCH: row["diverged_epoch"]} if diverged else {}
