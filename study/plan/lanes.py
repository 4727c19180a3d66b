"""Which programs an engine needs for a study, and how wide: it follows from the plan alone.

A trial's numbers round by the shape of the program that trains it, so neither the machine's load
nor the order in which trials end may change it, and a resumed study keeps it.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from types import MappingProxyType
from typing import Any

from convae.config import MODELS, Range, TrialConfig
from convae.shapes import WIDTHS, ProgramId, ProgramShape, Size
from convae.sharing import DeviceSharing, choose_n_lanes
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import fixed_trials, reference_config, searching_trials, winner_sharing

# On a GPU, where the trials suffice: a lane whose trial ended waits long for Ray Tune to start the
# next. 16 places for 16 lanes that only slept left them 69 % full, 24 places 94 %.
PLACES_PER_LANE = 1.5


@dataclass(frozen=True)
class ModelLanes:
    """A model's programs."""

    n_lanes: int  # of the program that trials share; 0 if there is none
    single: bool  # there is a program of one lane for all that have none of their size
    widths: tuple[int, ...]  # hidden units or latent filters that may occur
    batch_sizes: tuple[int, ...]  # that may occur
    drops: bool = False  # whether a trial may have dropout
    # The trials that are timed alone have programs of one lane of their very sizes: by size, the
    # batch sizes that may occur.
    alone: Mapping[Size, tuple[int, ...]] = field(default_factory=dict)
    n_places: int = 0  # trials that an engine has at once, some of which wait for a lane


def lanes_of(
    spec: StudySpec,
    *,
    lanes: int | None,
    gpu: bool,
    n_devices: int = 1,
    kept: Mapping[str, int] | None = None,
) -> dict[str, ModelLanes]:
    """The programs of each of a study's models.

    Args:
        spec: the study.
        lanes: the most that --lanes allows; None for as many as the rule gives.
        gpu: whether the device is one.
        n_devices: among which the trials are shared out.
        kept: of an earlier session, by model, which stay.
    """
    return {
        model: _model_lanes(model, spec, lanes, gpu, n_devices, kept) for model in spec.all_models
    }


def shapes_of(
    lanes: Mapping[str, ModelLanes],
    n_train: int,
    kept: Mapping[ProgramId, ProgramShape] = MappingProxyType({}),
) -> dict[ProgramId, ProgramShape]:
    """The shapes of all programs; custom models have none.

    Args:
        lanes: of each model.
        n_train: training images of the longest epoch.
        kept: of an earlier session; a program keeps its shape if that holds all its trials.
    """
    shapes = {}
    for model, programs in lanes.items():
        if model not in MODELS:
            continue
        of_all = programs.widths, programs.batch_sizes, programs.drops
        wanted = {ProgramId(model, single=False): of_all}
        if not programs.n_lanes:
            wanted.clear()
        if programs.single:
            wanted[ProgramId(model, single=True)] = of_all
        for size, batch_sizes in programs.alone.items():
            program = ProgramId(model, single=True, size=size)
            wanted[program] = (size.width,), batch_sizes, size.drops
        for program, (widths, batch_sizes, drops) in wanted.items():
            n_lanes = 1 if program.single else programs.n_lanes
            shape = kept.get(program)
            largest = min(max(batch_sizes), n_train)
            holds = shape is not None and shape.holds(max(widths), largest, drops=drops)
            if not (shape and holds and shape.n_lanes == n_lanes):
                shape = ProgramShape.for_trials(
                    model,
                    n_lanes=n_lanes,
                    widths=widths,
                    batch_sizes=batch_sizes,
                    n_train=n_train,
                    drops=drops,
                )
            shapes[program] = shape
    return shapes


def programs_to_json(shapes: Mapping[ProgramId, ProgramShape]) -> list[dict[str, Any]]:
    """The programs as the manifest keeps them."""
    return [
        {"single": program.single, "size": program.size, **asdict(shape)}
        for program, shape in shapes.items()
    ]


def programs_from_json(kept: list[dict[str, Any]]) -> dict[ProgramId, ProgramShape]:
    """The inverse of `programs_to_json`."""
    shapes = {}
    for entry in kept:
        shape = dict(entry)
        single, size = shape.pop("single"), shape.pop("size")
        program = ProgramId(shape["model"], single, Size(*size) if size else None)
        shapes[program] = ProgramShape(**shape)
    return shapes


def _model_lanes(
    model: str,
    spec: StudySpec,
    lanes: int | None,
    gpu: bool,
    n_devices: int,
    kept: Mapping[str, int] | None,
) -> ModelLanes:
    if model not in MODELS:  # nothing is known of its layers: its trials follow one another
        return ModelLanes(0, single=True, widths=(), batch_sizes=())
    fixed = [planned for planned in fixed_trials(spec) if planned.config.model == model]
    places: list[tuple[DeviceSharing, Size | None]] = [
        (planned.sharing, Size.of_trial(planned.config)) for planned in fixed
    ]
    # Finalists wait for the search, winners for them: lanes are for those that come together.
    n_together = Counter({schema.SEARCH: sum(p.sharing is DeviceSharing.LANES for p in fixed)})
    if model in spec.models:
        place_of = {
            schema.SEARCH: DeviceSharing.ALONE if spec.timed else DeviceSharing.LANES,
            schema.FINALIST: DeviceSharing.LANES,
            schema.WINNER: winner_sharing(spec),
        }
        for group, n in searching_trials(spec, model).items():
            places += [(place_of[group], None)] * n
            n_together[group] += n if place_of[group] is DeviceSharing.LANES else 0
    n_sharing = max(n_together.values())
    n_each = math.ceil(n_sharing / n_devices)
    n_lanes = min(lanes, n_sharing) if lanes else choose_n_lanes(model, n_each, gpu=gpu)
    if kept is not None and model in kept:
        n_lanes = kept[model]
    n_lanes = n_lanes if n_sharing and n_lanes > 1 else 0
    configs = [planned.config for planned in fixed]
    widths = _values(WIDTHS[model], model, configs, spec)
    batch_sizes = _values("batch_size", model, configs, spec)
    drops = {bool(rate) for rate in _values("dropout", model, configs, spec)}
    by_themselves = [p.config for p in fixed if p.sharing is DeviceSharing.ALONE]
    timed = {(c.value(WIDTHS[model]), c.batch_size, bool(c.dropout)) for c in by_themselves}
    searched = dict(spec.space_of(model).searched)
    are_listed = not any(isinstance(searched.get(n), Range) for n in (WIDTHS[model], "batch_size"))
    if spec.timed and spec.share and are_listed:
        timed |= set(product(widths, batch_sizes, drops))
    alone: dict[Size, tuple[int, ...]] = {}
    for width, batch_size, dropping in sorted(timed):
        size = Size.of(width, batch_size, drops=dropping)
        alone[size] = (*alone.get(size, ()), batch_size)
    return ModelLanes(
        n_lanes,
        single=any(
            size not in alone
            for sharing, size in places
            if not n_lanes or sharing is not DeviceSharing.LANES
        ),
        widths=widths,
        batch_sizes=batch_sizes,
        drops=any(drops),
        alone=alone,
        n_places=max(n_lanes, min(math.ceil(PLACES_PER_LANE * n_lanes), n_each) if gpu else 0),
    )


def _values(name: str, model: str, fixed: list[TrialConfig], spec: StudySpec) -> tuple[Any, ...]:
    """The values of a hyperparameter that the study's trials may have; of a range, its ends."""
    values = {getattr(config, name) for config in fixed}
    if spec.share or not values:
        reference = getattr(reference_config(model, spec), name)
        values |= set(spec.space_of(model).ends_of(name)) | {reference}
    return tuple(sorted(values))
