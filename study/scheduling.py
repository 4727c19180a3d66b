"""Samplers and schedulers by name: who proposes the next search trial, and who ends one early.

Fixed trials and winners are never ended early, nor is the reference setting. Search trials are
compared with search trials of their own architecture only, because learning curves of different
architectures say little about each other.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from study.folder import schema
from study.presets import SpecError, StudySpec
from study.space import grid
from study.tpe import BoundedTPE

EPOCH = "epoch"  # what a result calls the epochs trained so far


class _Grid(optuna.samplers.GridSampler):
    """A grid in random order; the study counts its trials itself, so the sampler stops nothing."""

    def after_trial(self, *_: Any) -> None:
        """Does not call study.stop(), which is only allowed inside Optuna's own loop."""


def check_sampler(spec: StudySpec) -> None:
    """Finds out before a study starts that its sampler cannot work.

    Raises:
        SpecError: the sampler needs a package that is not installed, or has too few points.
    """
    if spec.sampler == "gp" and importlib.util.find_spec("torch") is None:
        raise SpecError("--sampler gp needs PyTorch; install it with pip install -e '.[gp]'.")
    if spec.sampler == "grid":
        sizes = {model: math.prod(map(len, grid(model).values())) for model in spec.models}
        model = min(sizes, key=sizes.__getitem__)
        if spec.share > sizes[model]:
            raise SpecError(
                f"--trials {spec.n_search_trials} asks the grid for more points than it has: ask"
                f" for at most {sizes[model] * len(spec.models)}, or use another --sampler."
            )


def make_sampler(spec: StudySpec, model: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that `spec.sampler` names, seeded itself."""
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        # Each architecture has its own Optuna study, so there are no groups to tell apart.
        # The constant liar keeps parallel trials from asking for the same point.
        # By default its first ten trials are random, which may be all that there are.
        "tpe": lambda: BoundedTPE(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=max(1, min(10, spec.share // 2)),
            seed=seed,
        ),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda: _Grid(grid(model), seed=seed),
    }
    return samplers[spec.sampler]()


def rungs(spec: StudySpec) -> tuple[int, ...]:
    """The epochs at which the scheduler compares trials, ascending; none without a scheduler."""
    if spec.scheduler == "median":
        return tuple(range(spec.grace, spec.epochs + 1))
    found = []
    epoch = spec.grace
    while spec.scheduler == "asha" and epoch <= spec.epochs:
        found.append(epoch)
        epoch *= spec.reduction_factor
    return tuple(found)


class _Median(MedianStoppingRule):
    """Never pauses a trial to wait for others: a paused trial would lose its worker."""

    def _on_insufficient_samples(self, *_: Any) -> str:
        return str(TrialScheduler.CONTINUE)


def _make_scheduler(spec: StudySpec) -> TrialScheduler:
    settings: dict[str, Any] = {
        "time_attr": EPOCH,
        "metric": schema.OBJECTIVE,
        "mode": schema.MODE,
        "grace_period": spec.grace,
    }
    if spec.scheduler == "asha":
        return AsyncHyperBandScheduler(
            **settings, max_t=spec.epochs, reduction_factor=spec.reduction_factor
        )
    if spec.scheduler == "median":
        return _Median(**settings)
    return FIFOScheduler()


@dataclass(frozen=True)
class _EndedTrial:
    """What Ray's schedulers look at of a trial that has ended."""

    trial_id: str
    status: str = Trial.TERMINATED


class SearchScheduler(FIFOScheduler):
    """Lets the named scheduler decide on prunable trials, apart for each architecture."""

    def __init__(self, spec: StudySpec) -> None:
        super().__init__()
        self._schedulers = {model: _make_scheduler(spec) for model in spec.models}
        self._rungs = rungs(spec)

    def learn(self, model: str, trial_id: str, values: Mapping[int, float]) -> None:
        """Takes an ended trial of an earlier session, so that new ones are compared with it too.

        Args:
            model: its architecture.
            trial_id: unique.
            values: the objective by epoch.
        """
        scheduler = self._schedulers[model]
        trial = _EndedTrial(trial_id)
        scheduler.on_trial_add(None, trial)
        for epoch in self._rungs:
            if epoch in values:
                result = {EPOCH: epoch, schema.OBJECTIVE: values[epoch]}
                scheduler.on_trial_result(None, trial, result)

    def _of(self, trial: Trial) -> TrialScheduler | None:
        if not trial.config["prunable"]:
            return None
        return self._schedulers[trial.config["trial"]["model"]]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Passes a prunable trial on."""
        if scheduler := self._of(trial):
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Passes a prunable trial's error on."""
        if scheduler := self._of(trial):
            scheduler.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        scheduler = self._of(trial)
        # An epoch whose loss was not finite has no value to compare.
        if scheduler is None or result.get(schema.OBJECTIVE) is None:
            return str(TrialScheduler.CONTINUE)
        return str(scheduler.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Passes a prunable trial's end on."""
        scheduler = self._of(trial)
        if scheduler is not None and result.get(schema.OBJECTIVE) is not None:
            scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Passes a prunable trial's removal on."""
        if scheduler := self._of(trial):
            scheduler.on_trial_remove(tune_controller, trial)
