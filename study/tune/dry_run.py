"""What `--dry-run` prints: the trials that a study would run, and an estimate of their time.

The estimate rests on one epoch of each model, trained at the study's reference setting on a device
of the kind that the study would use. Nothing is written.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from convae.sharing import DeviceSharing
from study.folder import schema
from study.plan.sampler import check_sampler
from study.plan.spec import StudySpec
from study.plan.trials import fixed_trials, reference_config, searching_trials
from study.tune.driver import slots_for, widths_of
from study.tune.resources import Resources, Slots
from study.view.pace import Pace, Remaining, duration
from study.view.progress import describe_plan

if TYPE_CHECKING:
    from convae.data import ImageSet

GENTLE_RATE = 0.01  # a trial that diverges would end before its epoch is measured


@dataclass(frozen=True)
class Cost:
    """What a model costs."""

    epoch_seconds: float  # training and evaluation
    compile_seconds: float  # once in each worker


def print_plan(spec: StudySpec, resources: Resources, image_set: "ImageSet") -> None:
    """Prints what the study would run, and its time; needs a Ray session.

    Raises:
        SpecError: the study could not run.
    """
    check_sampler(spec)
    slots, lanes = slots_for(spec, resources)
    plan = describe_plan(spec, slots.n_slots, slots.needs, widths_of(lanes))
    print(plan, *list_trials(spec), sep="\n", flush=True)
    # In a slot of the study, not in this process, which may be on another machine.
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)
    costs = ray.get(task(measure).remote(spec, slots, image_set))
    print(*estimate(spec, slots, costs), sep="\n")


def list_trials(spec: StudySpec) -> list[str]:
    """A line for each setting that is known beforehand, and for the trials of each search."""
    counts = Counter((trial.group, trial.setting) for trial in fixed_trials(spec))
    for model in spec.models:
        for group, n in searching_trials(spec, model).items():
            how = f" by {' and '.join(dict(spec.searches))}" if group == schema.SEARCH else ""
            counts[group, model + how] = n
    return [f"{n:>5} × {group:<9}  {setting}" for (group, setting), n in counts.items()]


def estimate(spec: StudySpec, slots: Slots, costs: Mapping[str, Cost]) -> list[str]:
    """The study's time in sentences, from the costs of its models."""

    def trials(model: str, n: int, n_epochs: int = spec.epochs) -> list[Remaining]:
        return [Remaining(model, n_epochs, costs[model].epoch_seconds)] * n

    def seconds(n_search_epochs: int) -> str:
        """Until the study ends, if each trial of the search has so many epochs."""
        first = [trial for p in fixed_trials(spec) for trial in trials(p.config.model, 1)]
        later: dict[str, list[Remaining]] = {schema.SEARCH: first}
        for model in spec.models:
            for group, n in searching_trials(spec, model).items():
                n_epochs = n_search_epochs if group == schema.SEARCH else spec.epochs
                later.setdefault(group, []).extend(trials(model, n, n_epochs))
        return duration(Pace().seconds_left([*later.values()], slots.n_devices) or 0.0)

    most, least = seconds(spec.epochs), seconds(min((*spec.rungs, spec.epochs)))
    epochs = ", ".join(f"{model} {cost.epoch_seconds:.2g} s" for model, cost in costs.items())
    total = f"estimate: {most} of training and evaluation, if all settings took as long"
    if least != most:
        ended = f"if the scheduler ended every search trial after {min(spec.rungs)} epochs"
        total = f"estimate: at most {most} of training and evaluation; {least} {ended}"
    compilation = duration(sum(cost.compile_seconds for cost in costs.values()))
    lines = [
        f"an epoch: {epochs}; measured once each at the reference setting, with no trial beside it",
        total,
        f"besides: {compilation} of compilation in each worker, and a few seconds' start",
    ]
    if slots.per_engine > 1:
        lines.append("trials in lanes take less")
    if spec.time_budget_seconds is not None:
        lines.append(f"the time budget stops it after {duration(spec.time_budget_seconds)}")
    return lines


def measure(spec: StudySpec, slots: Slots, image_set: "ImageSet") -> dict[str, Cost]:
    """Trains an epoch of each model, on the device of this process."""
    from convae.device import open_device
    from convae.engine import Engine
    from convae.training import Trainer

    device = open_device(gpu=slots.gpus_per_trial > 0, n_threads=slots.cpus_per_trial)
    trainer = Trainer(image_set, device, custom_models=spec.custom_models)
    costs = {}
    for model in spec.all_models:
        trial = reference_config(model, spec, epochs=1, learning_rate=GENTLE_RATE)
        if trial.is_custom:
            engine = Engine.open(image_set, {}, trainer)
        else:
            engine = Engine.for_trial(trial, image_set, device)
        engine.compile()
        engine.submit(model, trial, sharing=DeviceSharing.ALONE)
        while engine.step():
            pass
        report = engine.report(model)
        (epoch,) = report.epochs
        compile_seconds = report.compile_seconds + sum(engine.compile_seconds.values())
        costs[model] = Cost(epoch.train_seconds + epoch.eval_seconds, compile_seconds)
    return costs
