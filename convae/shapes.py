"""Which programs an engine has, and what XLA compiles each for: pure arithmetic, no TensorFlow.

A plan makes shapes, the manifest and checkpoints keep them, and `convae.lane_program` compiles
them.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from convae.config import CONV, DENSE, MODELS, TrialConfig
from convae.sharing import DeviceSharing

# The largest chunk a lane works on at once; larger batches are several chunks.
MAX_CHUNK_SIZE = 256
# An epoch of all training images is so many slices, one of the search's five sixths a whole number
# too.
SLICES_PER_EPOCH = 6
# Which field of a trial is its width.
WIDTHS: Mapping[str, str] = MappingProxyType({CONV: "latent_filters", DENSE: "hidden_units"})


def n_chunks(n_images: int, batch_size: int, chunk_size: int) -> int:
    """Chunks that an epoch of so many images takes a lane."""
    n_full, rest = divmod(n_images, batch_size)
    return n_full * math.ceil(batch_size / chunk_size) + math.ceil(rest / chunk_size)


class Size(NamedTuple):
    """What the time of a trial's step in a program of its own depends on."""

    width: int  # hidden units or latent filters
    chunk_size: int  # images a step
    accumulates: bool  # whether a batch is larger than a chunk

    @classmethod
    def of(cls, width: int, batch_size: int) -> "Size":
        """Of trials of this width and batch size."""
        return cls(width, min(MAX_CHUNK_SIZE, batch_size), batch_size > MAX_CHUNK_SIZE)

    @classmethod
    def of_trial(cls, config: TrialConfig) -> "Size":
        """Of a trial of one of `MODELS`."""
        return cls.of(config.value(WIDTHS[config.model]), config.batch_size)


class ProgramId(NamedTuple):
    """A model's program."""

    model: str
    single: bool  # whether it has one lane, and not many
    # Of a single program, the size of the trials that it is for, so that their times are those of
    # their size; None for all others.
    size: Size | None = None


def program_of(
    config: TrialConfig, sharing: DeviceSharing, programs: Container[ProgramId]
) -> ProgramId:
    """Which of these programs trains a trial.

    A trial that may share trains in one lane where no program has many.
    """
    shared = ProgramId(config.model, single=False)
    if sharing is DeviceSharing.LANES and shared in programs:
        return shared
    single = ProgramId(config.model, single=True)
    if config.model not in MODELS:
        return single
    of_its_size = single._replace(size=Size.of_trial(config))
    return of_its_size if of_its_size in programs else single


@dataclass(frozen=True, kw_only=True)
class ProgramShape:
    """What XLA compiles a program for: all that is not an argument of it.

    Trials' numbers are equal to the bit between programs of one shape, and within rounding between
    shapes: which shape trains a trial must follow from the plan, never from the load.
    """

    model: str  # of `MODELS`
    n_lanes: int  # trials at once
    width: int  # hidden units or latent filters of the widest trial; narrower ones are masked
    chunk_size: int  # images a lane a step
    n_steps: int  # chunks a slice
    accumulates: bool = True  # whether a batch may be larger than a chunk

    @classmethod
    def for_trials(
        cls,
        model: str,
        *,
        n_lanes: int,
        widths: Iterable[int],
        batch_sizes: Iterable[int],
        n_train: int,
        chunk_size: int | None = None,
        **more: Any,
    ) -> Self:
        """The shape for all trials of a plan.

        The chunk is as large as the smallest batch, so that none is computed in vain, up to
        `MAX_CHUNK_SIZE`: on an H200 a lane's epoch took 28.6 ms (conv) in chunks of 256 and 34.8 ms
        in chunks of 64 (`benchmarks/README.md`).

        Args:
            model: of `MODELS`.
            n_lanes: trials at once.
            widths: hidden units or latent filters that occur.
            batch_sizes: batch sizes that occur.
            n_train: training images of the longest epoch.
            chunk_size: images a lane a step; None for the rule's.
            more: further fields of a subclass.
        """
        batch_sizes = [min(size, n_train) for size in batch_sizes]
        chunk_size = chunk_size or min(MAX_CHUNK_SIZE, *batch_sizes)
        longest = max(n_chunks(n_train, size, chunk_size) for size in batch_sizes)
        return cls(
            model=model,
            n_lanes=n_lanes,
            width=max(widths),
            chunk_size=chunk_size,
            n_steps=math.ceil(longest / SLICES_PER_EPOCH),
            accumulates=max(batch_sizes) > chunk_size,
            **more,
        )

    def __str__(self) -> str:
        """In words."""
        lanes = f"{self.n_lanes} lanes" if self.n_lanes > 1 else "one lane"
        return f"{self.model} in {lanes} of width {self.width}, {self.chunk_size} images a step"

    def holds(self, width: int | None, batch_size: int) -> bool:
        """Whether the program can train such a trial, with no more images in a batch than there."""
        fits = self.accumulates or batch_size <= self.chunk_size
        return width is not None and width <= self.width and fits
