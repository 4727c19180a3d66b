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
# The shortest epoch of all training images is so many slices, one of the search's five sixths a
# whole number too, and one of small batches a multiple.
SLICES_PER_EPOCH = 6
# Which field of a trial is its width.
WIDTHS: Mapping[str, str] = MappingProxyType({CONV: "latent_filters", DENSE: "hidden_units"})


class StepTime(NamedTuple):
    """What a step costs an H200, in microseconds: a static estimate, which orders chunks by size.

    Fitted to `benchmarks.aot` at 16 lanes in chunks of 64 and 256.
    """

    launches: float
    lane: float  # for each: its weights are read and written
    image: float  # for each of each lane

    def of(self, n_lanes: int, chunk_size: int) -> float:
        """A step of so many lanes."""
        return self.launches + n_lanes * (self.lane + chunk_size * self.image)


STEP_TIMES: Mapping[str, StepTime] = MappingProxyType(
    {CONV: StepTime(165, 2.7, 0.15), DENSE: StepTime(50, 8.2, 0.015)}
)


def n_chunks(n_images: int, batch_size: int, chunk_size: int) -> int:
    """Chunks that an epoch of so many images takes a lane."""
    n_full, rest = divmod(n_images, batch_size)
    return n_full * math.ceil(batch_size / chunk_size) + math.ceil(rest / chunk_size)


class Size(NamedTuple):
    """What the time of a trial's step in a program of its own depends on."""

    width: int  # hidden units or latent filters
    chunk_size: int  # images a step
    accumulates: bool  # whether a batch is larger than a chunk
    drops: bool = False  # whether it has dropout, for which random numbers are made

    @classmethod
    def of(cls, width: int, batch_size: int, *, drops: bool = False) -> "Size":
        """Of trials of this width and batch size."""
        return cls(width, min(MAX_CHUNK_SIZE, batch_size), batch_size > MAX_CHUNK_SIZE, drops)

    @classmethod
    def of_trial(cls, config: TrialConfig) -> "Size":
        """Of a trial of one of `MODELS`."""
        width = config.value(WIDTHS[config.model])
        return cls.of(width, config.batch_size, drops=bool(config.dropout))


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
    drops: bool = True  # whether a trial may have dropout: else no random numbers are made

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
        drops: bool = True,
        **more: Any,
    ) -> Self:
        """The shape for all trials of a plan, of the widths and batch sizes that occur.

        The chunk, unless it is given, is that of these batches for which an epoch of each takes
        least by `STEP_TIMES`: of small ones no image is computed in vain, in large ones weights are
        updated less often. n_train are the training images of the longest epoch; `more`, fields of
        a subclass.
        """
        batch_sizes = [min(size, n_train) for size in batch_sizes]

        def epochs(chunk_size: int) -> list[int]:
            return [n_chunks(n_train, size, chunk_size) for size in batch_sizes]

        def seconds(chunk_size: int) -> float:
            return sum(epochs(chunk_size)) * STEP_TIMES[model].of(n_lanes, chunk_size)

        chunk_size = chunk_size or min(
            sorted({min(MAX_CHUNK_SIZE, size) for size in batch_sizes}), key=seconds
        )
        # Of those that are about as short as the shortest, the longest.
        shortest = min(epochs(chunk_size))
        short = max(n for n in epochs(chunk_size) if n < 1.5 * shortest)
        return cls(
            model=model,
            n_lanes=n_lanes,
            width=max(widths),
            chunk_size=chunk_size,
            n_steps=math.ceil(short / SLICES_PER_EPOCH),
            accumulates=max(batch_sizes) > chunk_size,
            drops=drops,
            **more,
        )

    def __str__(self) -> str:
        """In words."""
        lanes = f"{self.n_lanes} lanes" if self.n_lanes > 1 else "one lane"
        return f"{self.model} in {lanes} of width {self.width}, {self.chunk_size} images a step"

    def holds(self, width: int | None, batch_size: int, *, drops: bool) -> bool:
        """Whether the program can train such a trial, with no more images in a batch than there."""
        fits = (self.accumulates or batch_size <= self.chunk_size) and self.drops >= drops
        return width is not None and width <= self.width and fits
