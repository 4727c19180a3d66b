"""Which programs an engine needs for a study, and how wide: it follows from the plan alone.

A trial's numbers round by the shape of the program that trains it, so neither the machine's load
nor the order in which trials end may change it, and a resumed study keeps it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from convae.config import DENSE, MODELS, TrialConfig
from convae.sharing import DeviceSharing, choose_n_lanes
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import fixed_trials, reference_config, searching_trials, winner_sharing


@dataclass(frozen=True)
class ModelLanes:
    """A model's programs."""

    n_lanes: int  # of the program that trials share; 0 if there is none
    single: bool  # there is a program of one lane, too
    widths: tuple[int, ...]  # hidden units or latent filters that may occur
    batch_sizes: tuple[int, ...]  # that may occur

    def sharing(self, planned: DeviceSharing) -> DeviceSharing:
        """Where a trial goes: one that may share trains in the one lane if there are no more."""
        return (
            DeviceSharing.SINGLE if planned is DeviceSharing.LANES and not self.n_lanes else planned
        )


def lanes_of(
    spec: StudySpec, *, lanes: int | None, gpu: bool, kept: Mapping[str, int] | None = None
) -> dict[str, ModelLanes]:
    """The programs of each of a study's models.

    Args:
        spec: the study.
        lanes: the most that --lanes allows; None for as many as the rule gives.
        gpu: whether the device is one.
        kept: of an earlier session, by model, which stay.
    """
    return {model: _model_lanes(model, spec, lanes, gpu, kept) for model in spec.all_models}


def _model_lanes(
    model: str, spec: StudySpec, lanes: int | None, gpu: bool, kept: Mapping[str, int] | None
) -> ModelLanes:
    if model not in MODELS:  # nothing is known of its layers: its trials follow one another
        return ModelLanes(0, single=True, widths=(), batch_sizes=())
    fixed = [planned for planned in fixed_trials(spec) if planned.config.model == model]
    places = [planned.sharing for planned in fixed]
    if model in spec.models:
        place_of = {
            schema.SEARCH: DeviceSharing.ALONE if spec.timed else DeviceSharing.LANES,
            schema.FINALIST: DeviceSharing.LANES,
            schema.WINNER: winner_sharing(spec),
        }
        for group, n in searching_trials(spec).items():
            places += [place_of[group]] * n
    n_sharing = places.count(DeviceSharing.LANES)
    n_lanes = min(lanes, n_sharing) if lanes else choose_n_lanes(model, n_sharing, gpu=gpu)
    if kept is not None and model in kept:
        n_lanes = kept[model]
    n_lanes = n_lanes if n_sharing and n_lanes > 1 else 0
    width = "hidden_units" if model == DENSE else "latent_filters"
    return ModelLanes(
        n_lanes,
        single=n_lanes == 0 or n_sharing < len(places),
        widths=_values(width, model, [planned.config for planned in fixed], spec),
        batch_sizes=_values("batch_size", model, [planned.config for planned in fixed], spec),
    )


def _values(name: str, model: str, fixed: list[TrialConfig], spec: StudySpec) -> tuple[int, ...]:
    """The values of a hyperparameter that the study's trials may have; of a range, its ends."""
    values = {getattr(config, name) for config in fixed}
    if spec.share or not values:
        reference = getattr(reference_config(model, spec), name)
        values |= set(spec.space_of(model).ends_of(name)) | {reference}
    return tuple(sorted(values))
