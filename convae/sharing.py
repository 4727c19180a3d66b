"""How trials share a device: a rule that follows from the plan, since numbers round by it.

It needs no TensorFlow, so that plans are made without it.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from convae.config import CONV, DENSE

# On an H200 a trial's epoch took 28.6 ms (conv) and 3.8 ms (dense-512) in 16 lanes, 85.6 and 16.8
# in one; no other number of lanes was measured (`benchmarks/README.md`).
GPU_LANES: Mapping[str, int] = MappingProxyType({CONV: 16, DENSE: 16})


class DeviceSharing(StrEnum):
    """How a trial shares its device; its numbers depend on it within rounding."""

    LANES = "lanes"  # beside others, in a program of many lanes
    SINGLE = "single"  # in a program of one lane, which takes turns with other programs
    # In a program of one lane, with nothing else at work, not even a compiler: its times are those
    # of a device to itself.
    ALONE = "alone"


def choose_n_lanes(model: str, n_trials: int, *, gpu: bool) -> int:
    """How many lanes a model's program gets.

    No more than the plan has trials that may share this device, because lanes cost the same empty
    or taken. One on a CPU, where lanes gain nothing and the plain trainer is faster.
    """
    return max(1, min(GPU_LANES[model], n_trials)) if gpu else 1
