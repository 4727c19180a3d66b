"""Early stopping: whether a search trial goes on, given its curve and those of other trials.

The rules are those of Ray Tune's schedulers of the same names, as functions of what is known, so
that the caller says which trials count and nothing depends on which of them reported first.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from study.plan.spec import StudySpec

Curve = Mapping[int, float]  # the objective by epoch, from 1, where it was measured
MIN_SAMPLES = 3  # curves with which the median rule begins, as in Ray Tune


def goes_on(spec: StudySpec, curve: Curve, others: Iterable[Curve]) -> bool:
    """Whether a trial goes on after the last epoch of its curve.

    `asha` is asynchronous successive halving (https://arxiv.org/abs/1810.05934): at a rung the
    trial must be among the best 1 / `reduction_factor` of those that were measured there. `median`
    is Vizier's rule (https://research.google/pubs/pub46180): its best value must not be above the
    median of the means of other trials from the grace epochs to the present one.
    """
    epoch = max(curve)
    if epoch not in spec.rungs:
        return True
    there = [other for other in others if epoch in other]
    if spec.scheduler == "asha":
        values = [other[epoch] for other in there]
        best = 100 / spec.reduction_factor  # percent of them
        return not values or bool(curve[epoch] <= np.percentile(values, best))
    if len(there) < MIN_SAMPLES:
        return True
    means = [
        np.mean([value for at, value in other.items() if spec.grace <= at <= epoch])
        for other in there
    ]
    return bool(min(curve.values()) <= np.median(means))
