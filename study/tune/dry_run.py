"""What `--dry-run` prints: the trials that a study would run, and an estimate of their time.

The estimate rests on a measurement: every shape of trial that is known beforehand trains for a
moment on the very resources that the study would use. Nothing is written.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import ray
from rich.console import Console
from rich.table import Table

from convae.config import TrialConfig
from convae.custom_models import CustomModel
from study.folder import schema
from study.plan.sampler import check_sampler
from study.plan.spec import StudySpec
from study.plan.trials import (
    PlannedTrial,
    first_points,
    fixed_trials,
    reference_config,
    search_config,
    searching_trials,
)
from study.tune.driver import claim_for, widths_of
from study.tune.resources import Resources, Slots
from study.view.pace import Pace, Remaining, duration
from study.view.progress import describe_plan

if TYPE_CHECKING:
    from convae.data import ImageSet

N_MEASURED_EPOCHS = 3
# A part of an epoch is enough on a CPU; on a GPU the calls themselves would weigh too much.
CPU_SHARE_OF_IMAGES = 1 / 12


@dataclass(frozen=True)
class Cost:
    """What a shape of trial costs.

    Attributes:
        epoch_seconds: training and evaluation, on all images.
        compile_seconds: once in each worker.
    """

    epoch_seconds: float
    compile_seconds: float


def print_plan(spec: StudySpec, resources: Resources, image_set: "ImageSet") -> None:
    """Prints what the study would run; needs a Ray session.

    Raises:
        SpecError: the study could not run.
    """
    check_sampler(spec)
    slots, lanes = claim_for(spec, resources)
    console = Console(highlight=False, soft_wrap=True)
    plan = describe_plan(spec, slots.n_slots, slots.needs, widths_of(lanes))
    console.print(plan, markup=False)

    fixed = fixed_trials(spec)
    points = {model: _given(model, spec) for model in spec.models}
    configs = [planned.config for planned in fixed]
    configs += [config for given in points.values() for config in given]
    costs = _measure(_shapes(configs), slots, image_set, spec.custom_models)
    console.print(_table(spec, fixed, points, costs))
    for line in estimate(spec, slots, fixed, points, costs):
        console.print(line, markup=False)


def estimate(
    spec: StudySpec,
    slots: Slots,
    fixed: Sequence[PlannedTrial],
    points: dict[str, list[TrialConfig]],
    costs: dict[TrialConfig, Cost],
) -> list[str]:
    """The study's time in sentences, from the measured costs of its shapes."""

    def trials(configs: Iterable[tuple[str, float]], n: int, n_epochs: int) -> list[Remaining]:
        return [Remaining(model, n_epochs, cost) for model, cost in configs for _ in range(n)]

    # Lanes are not measured here, but one trial at a time on each device, which takes longer.
    known = [(p.config.model, costs[_shape(p.config)].epoch_seconds) for p in fixed]
    searched = [(model, _mean_cost(given, costs)) for model, given in points.items()]
    bounds = []
    for n_epochs in (spec.epochs, min((*spec.rungs, spec.epochs))):
        first = trials(known, 1, spec.epochs) + trials(searched, spec.share, n_epochs)
        later = [
            trials(searched, n, spec.epochs)
            for group, n in searching_trials(spec).items()
            if group != schema.SEARCH
        ]
        bounds.append(Pace().seconds_left([first, *later], slots.n_devices) or 0.0)
    most, least = map(duration, bounds)
    lines = [f"estimate: {most} of training and evaluation"]
    if bounds[1] < bounds[0]:
        lines = [
            f"estimate: at most {most} of training and evaluation; {least} if the scheduler ended"
            f" every search trial after {min(spec.rungs)} epochs"
        ]
    if slots.per_engine > 1:
        lines.append("trials in lanes take less: this is measured one trial at a time")
    compilation = duration(sum(cost.compile_seconds for cost in costs.values()))
    lines.append(f"besides: {compilation} of compilation in each worker, and a few seconds' start")
    if spec.time_budget_seconds is not None:
        lines.append(f"the time budget stops it after {duration(spec.time_budget_seconds)}")
    return lines


def _given(model: str, spec: StudySpec) -> list[TrialConfig]:
    """The points of the search that are known beforehand; at least the reference stands for it."""
    points = first_points(model, spec, max(1, (spec.share + 1) // 2))
    if not points:
        return [reference_config(model, spec)]
    return [search_config(model, params, spec) for params in points]


def _shape(config: TrialConfig) -> TrialConfig:
    """The config with everything set to its default that does not change an epoch's cost.

    The split does: a sixth of the images. It is left out all the same, so that costs err high.
    """
    names = ("learning_rate", "momentum", "nesterov", "epochs", "split", "seed")
    defaults: dict[str, Any] = {field.name: field.default for field in fields(TrialConfig)}
    return replace(config, **{name: defaults[name] for name in names})


def _shapes(configs: Iterable[TrialConfig]) -> list[TrialConfig]:
    return list(dict.fromkeys(_shape(config) for config in configs))


def _mean_cost(configs: Sequence[TrialConfig], costs: dict[TrialConfig, Cost]) -> float:
    return sum(costs[_shape(config)].epoch_seconds for config in configs) / len(configs)


def _measure(
    shapes: Sequence[TrialConfig],
    slots: Slots,
    image_set: "ImageSet",
    custom_models: tuple[CustomModel, ...],
) -> dict[TrialConfig, Cost]:
    """Trains each shape for a moment in every slot at once, as the study would."""
    task = ray.remote(num_cpus=slots.cpus_per_trial, num_gpus=slots.gpus_per_trial, max_retries=0)(
        _measure_here
    )
    n_tasks = 1 if slots.gpus_per_trial else slots.n_devices
    images = ray.put(image_set)
    configs = [shape.to_dict() for shape in shapes]
    measured = ray.get(
        [
            task.remote(
                configs, images, slots.cpus_per_trial, bool(slots.gpus_per_trial), custom_models
            )
            for _ in range(n_tasks)
        ]
    )
    return {
        shape: Cost(
            median(costs[i].epoch_seconds for costs in measured),
            median(costs[i].compile_seconds for costs in measured),
        )
        for i, shape in enumerate(shapes)
    }


def _measure_here(
    configs: list[dict[str, Any]],
    image_set: "ImageSet",
    n_threads: int,
    gpu: bool,
    custom_models: tuple[CustomModel, ...],
) -> list[Cost]:
    from convae.device import open_device
    from convae.training import Trainer

    share = 1.0 if gpu else CPU_SHARE_OF_IMAGES
    n_train, n_test = (int(share * len(i)) for i in (image_set.train_images, image_set.test_images))
    part = replace(image_set, train_images=image_set.train_images[:n_train])
    part = replace(part, test_images=image_set.test_images[:n_test])
    device = open_device(gpu=gpu, n_threads=n_threads)
    trainer = Trainer(part, device, custom_models=custom_models)
    costs = []
    for values in configs:
        # A gentle step: what diverges would end before it is measured.
        training = trainer.start(replace(TrialConfig.from_dict(values), learning_rate=0.01))
        epochs = [training.run_epoch() for _ in range(1 + N_MEASURED_EPOCHS)]
        seconds = median(epoch.train_seconds + epoch.eval_seconds for epoch in epochs[1:])
        costs.append(Cost(seconds / share, training.compile_seconds))
    return costs


def _table(
    spec: StudySpec,
    fixed: Sequence[PlannedTrial],
    points: dict[str, list[TrialConfig]],
    costs: dict[TrialConfig, Cost],
) -> Table:
    """A row a setting, its seeds together."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trials")
    for name in ("n", "epochs", "an epoch", "each"):
        table.add_column(name, justify="right")

    def add(label: str, n: int, epoch_seconds: float) -> None:
        each = duration(spec.epochs * epoch_seconds)
        table.add_row(label, str(n), str(spec.epochs), f"{epoch_seconds:.2g} s", each)

    settings: dict[str, list[TrialConfig]] = {}
    for planned in fixed:
        settings.setdefault(planned.trial_id.rpartition("-s")[0], []).append(planned.config)
    for label, configs in settings.items():
        add(label, len(configs), costs[_shape(configs[0])].epoch_seconds)
    for model in spec.models if spec.share else ():
        cost = _mean_cost(points[model], costs)
        n_given = 0 if spec.sampler == "grid" else min(spec.share, len(points[model]))
        given = f", {n_given} of them given" if n_given else ""
        for group, n in searching_trials(spec).items():
            how = f" ({spec.sampler}{given})" if group == schema.SEARCH else ""
            add(f"{group}-{model}{how}", n, cost)
    return table
