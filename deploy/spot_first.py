"""Makes Ray's autoscaler turn to on-demand machines when the cloud refuses spot ones.

Ray 2.60 by itself asks for the preferred node type again and again, however often the cloud answers
that it has none. Its second autoscaler lowers the rank only of machines that were granted and did
not come up (CloudResourceMonitor); the first one notes each refusal for half an hour
(NodeProviderAvailabilityTracker), but its scorer does not look. This scorer for the first one does;
`cluster.yaml` names it in the head's start command. Seen on a simulated EC2 that refuses spot
(n = 1 each): either autoscaler asked 114 times in 95 s and got nothing, the first one with this
scorer turned to on-demand in 5 s.

This reaches into Ray's private modules, since a scorer can be given and asked for through them
alone. So it works with the Ray that it was checked with, and refuses any other.
"""

import ray
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import (
    _default_utilization_scorer as fit_of,
)

CHECKED = "2.60."
if not ray.__version__.startswith(CHECKED):
    raise RuntimeError(
        f"spot_first.py was checked with Ray {CHECKED}x, not {ray.__version__}: run the tests in"
        " tests/test_cluster_files.py with it and change CHECKED, or leave"
        " RAY_AUTOSCALER_UTILIZATION_SCORER out of the head's start command."
    )


def score(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: NodeAvailabilitySummary,
) -> tuple[float, ...] | None:
    """How gladly a node of a type would be launched: more is better, None is not at all.

    Ray's own score with one part put in: a type that was refused lately comes after one that was
    not. Ray breaks ties by name, the later in the alphabet first: `gpu_spot`, then `gpu_on_demand`.

    Args:
        node_resources: What a node of this type has.
        resources: What the waiting trials ask for, an entry each.
        node_type: Its name in `available_node_types`.
        node_availability_summary: The refusals of the last half hour.
    """
    fit = fit_of(
        node_resources,
        resources,
        node_type,
        node_availability_summary=node_availability_summary,
    )
    if fit is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    granted = record is None or record.is_available
    avoids_idle_gpus, *rest = fit
    return (avoids_idle_gpus, granted, *rest)
