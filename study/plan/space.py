"""The space of a search: the built-in one, from the table of hyperparameters, or a custom one.

A space names the parameters that Optuna proposes; whatever it does not name stays at the reference
setting. It is a table of a study file, and read from one with a sentence for each mistake.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from convae.config import (
    BY_PARAMETER,
    Choices,
    Hyperparameter,
    Range,
    TrialConfig,
    as_arguments,
    hyperparameters_of,
    is_number,
    n_parameters,
    shapes_model,
)
from study.plan.errors import SpecError, check_keys, check_value, checked_values, one_of, whole
from study.plan.trial_tables import combinations

if TYPE_CHECKING:  # Optuna takes a second to import, and a spec needs none of it
    from optuna.distributions import BaseDistribution

SCALES: Final = ("linear", "log")
RANGE_KEYS: Final = ("low", "high", "scale", "grid")
N_GRID: Final = 5  # points of a range in a grid search that names none
# Under a limit on parameters every size is counted; those of a custom model by building it.
MOST_SIZES: Final = 10_000
MOST_CUSTOM_SIZES: Final = 200
LIMIT: Final = "max_parameters"

Point = tuple[Any, ...]  # of a space: the values of what is searched, in its order
Counter = Callable[[Sequence[Mapping[str, Any]]], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is searched of a model."""

    model: str
    searched: tuple[tuple[str, Range | Choices], ...]  # by parameter, in the model's order
    fixed: tuple[tuple[str, Any], ...] = ()  # hyperparameters with a value of their own throughout
    max_parameters: int | None = None  # weights that a setting may have; None for no limit
    # The weights of a custom model by its builder's arguments, under a limit.
    sizes: tuple[tuple[str, int], ...] = ()

    @cached_property
    def distributions(self) -> "Mapping[str, BaseDistribution]":
        """What the search proposes, by parameter."""
        return {name: _distribution(searched) for name, searched in self.searched}

    @cached_property
    def grid(self) -> list[dict[str, Any]]:
        """The points of a grid search."""
        points = combinations({name: _points(how) for name, how in self.searched})
        return [point for point in points if self.is_small_enough(point)]

    def values_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What a point of the space sets, by hyperparameter."""
        searched = {_field(name): _turned(name, params[name]) for name, _ in self.searched}
        return {**dict(self.fixed), **searched}

    def params_of(self, config: TrialConfig) -> dict[str, Any]:
        """The point of a trial: `values_of`'s inverse. It may lie outside the space."""
        return {name: _turned(name, config.value(_field(name))) for name, _ in self.searched}

    def rounded(self, name: str, value: Any) -> Any:
        """A parameter's value as a trial's setting can hold it."""
        return _turned(name, _turned(name, value))

    def holds(self, config: TrialConfig, reference: TrialConfig) -> bool:
        """Whether a trial is a point of the space; what that does not set is the reference's."""
        if config.keywords.keys() != reference.keywords.keys():
            return False  # of another version of the builder
        params = self.params_of(config)
        custom = {**{n: reference.value(n) for n in _names(config)}, **self.values_of(params)}
        return (
            all(_contains(searched, params[name]) for name, searched in self.searched)
            and all(config.value(name) == value for name, value in custom.items())
            and self.is_small_enough(params)
        )

    def covers(self, earlier: "Space") -> bool:
        """Whether it differs from an earlier space in wider ranges or longer lists alone."""
        mine, its = dict(self.searched), dict(earlier.searched)
        same = (self.fixed, self.max_parameters) == (earlier.fixed, earlier.max_parameters)
        same = same and mine.keys() == its.keys()
        return same and all(_covers(mine[name], its[name]) for name in its)

    def ends_of(self, name: str) -> tuple[Any, ...]:
        """A hyperparameter's values, or its range's ends; none if the space does not set it."""
        if name in (fixed := dict(self.fixed)):
            return (fixed[name],)
        searched = dict(self.searched).get(name)
        if isinstance(searched, Range):
            return searched.low, searched.high
        return searched.grid if searched else ()

    def is_small_enough(self, params: Mapping[str, Any]) -> bool:
        """Whether a point has no more weights than it may."""
        if self.max_parameters is None:
            return True
        values = {name: v for name, v in self.values_of(params).items() if shapes_model(name)}
        if self.sizes:
            return dict(self.sizes)[as_arguments(values)] <= self.max_parameters
        return n_parameters(TrialConfig(model=self.model, **values)) <= self.max_parameters

    def point(self, params: Mapping[str, Any]) -> Point:
        """The values of a point alone, by which it can be told from others."""
        return tuple(params[name] for name, _ in self.searched)

    @cached_property
    def n_points(self) -> float:
        """How many different settings it has; infinity if a parameter is a fraction of a range."""
        if not all(_is_countable(how) for _, how in self.searched):
            return math.inf
        limited = self._shaping if self.max_parameters else {}
        rest = (len(_all_values(how)) for name, how in self.searched if name not in limited)
        return math.prod(rest) * sum(1 for _ in self._small(limited))

    def any_point(
        self, params: Mapping[str, Any], number: int, known: Set[Point] = frozenset()
    ) -> dict[str, Any]:
        """A point that is small enough and not known, by a running number and like another one.

        What shapes the model is changed, and the rest only where that gives no new point: all
        points together may be very many.
        """

        def new(changes: Mapping[str, Range | Choices]) -> list[dict[str, Any]]:
            points = ({**params, **point} for point in self._small(changes))
            return [point for point in points if self.point(point) not in known]

        points = new(self._shaping) or new(dict(self.searched))
        return points[number % len(points)]

    @property
    def _shaping(self) -> dict[str, Range | Choices]:
        return {name: how for name, how in self.searched if shapes_model(name)}

    def _small(self, searched: Mapping[str, Range | Choices]) -> Iterator[dict[str, Any]]:
        """The values of these that are small enough together."""
        others = {name: _points(how)[0] for name, how in self.searched}
        for point in combinations({name: _all_values(how) for name, how in searched.items()}):
            if self.is_small_enough({**others, **point}):
                yield point

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as JSON holds them, with lists in place of tuples."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    def to_table(self) -> dict[str, Any]:
        """As a study file has it; `sizes` are counted anew."""
        table = {name: _as_value(searched) for name, searched in self.searched}
        limit = {} if self.max_parameters is None else {LIMIT: self.max_parameters}
        return {**table, **dict(self.fixed), **limit}


@cache
def built_in(model: str) -> Space:
    """The space that the table of hyperparameters gives a model."""
    searched = tuple((p.parameter, p.search) for p in hyperparameters_of(model))
    return Space(model=model, searched=searched)


def space_from(
    model: str,
    table: Mapping[str, Any],
    parameters: Sequence[Hyperparameter],
    count: Counter | None = None,
) -> Space:
    """A space as a study file has it.

    Args:
        model: whose.
        table: by parameter or hyperparameter: a range (a table with `low`, `high`, `scale` and
            perhaps `grid`), a list, or a fixed value; and perhaps `max_parameters`.
        parameters: those of the model; of a custom one, its builder's arguments first.
        count: how many weights a custom model has with these arguments of its builder;
            None for a built-in model.

    Raises:
        SpecError: it cannot be searched.
    """
    where = f"[search.{model}]"
    known = {name: p for p in parameters for name in (p.parameter, p.name)}
    check_keys(where, table, (*known, LIMIT))
    searched: dict[str, Range | Choices] = {}
    fixed: dict[str, Any] = {}
    for p in parameters:
        given = [name for name in dict.fromkeys((p.parameter, p.name)) if name in table]
        if len(given) > 1:
            raise SpecError(f"{where} has both {' and '.join(given)}; give one of them.")
        for name in given:
            turned = name != p.name
            read = _read(f"{where} {name}", table[name], as_parameter(p) if turned else p)
            if isinstance(read, Range | Choices):
                searched[name] = read
            else:
                fixed[p.name] = p.from_parameter(read) if turned else read
    if not searched:
        raise SpecError(
            f"{where} searches nothing; give a parameter a range or a list of several values."
        )
    space = Space(model=model, searched=tuple(searched.items()), fixed=tuple(fixed.items()))
    if (limit := table.get(LIMIT)) is None:
        return space
    check_value(f"{where} {LIMIT}", limit, whole(1))
    defaults = {p.name: p.default for p in parameters if p.of_architecture}
    return _limited(replace(space, max_parameters=limit), defaults, count)


def _limited(space: Space, defaults: Mapping[str, Any], count: Counter | None) -> Space:
    """The space without the values that are too large whatever the others are."""
    where, limit = f"[search.{space.model}]", space.max_parameters or 0
    shaping = {}
    for name, how in space.searched:
        if shapes_model(name):
            if not _is_countable(how):
                raise SpecError(
                    f"{where} {name} is a range of fractions, whose sizes {LIMIT} cannot count;"
                    " give a list."
                )
            shaping[name] = _all_values(how)
    set_values = {**defaults, **dict(space.fixed)}.items()
    fixed = {n: v for n, v in set_values if shapes_model(n) and n not in shaping}
    n_sizes = math.prod(map(len, shaping.values()))
    most = MOST_CUSTOM_SIZES if count else MOST_SIZES
    if n_sizes > most:
        raise SpecError(
            f"{where} {LIMIT} needs the sizes of {n_sizes:,} settings, but counts at most {most:,};"
            " give shorter lists or ranges."
        )
    settings = [{**fixed, **each} for each in combinations(shaping)]
    if count:
        sizes = list(count(settings))
    else:
        sizes = [n_parameters(TrialConfig(model=space.model, **setting)) for setting in settings]
    small = [s for s, size in zip(settings, sizes, strict=True) if size <= limit]
    if not small:
        raise SpecError(
            f"{where} {LIMIT} is {limit:,}, but its smallest setting has {min(sizes):,}; raise it,"
            " or search smaller values."
        )
    smaller = tuple(
        (name, _within(how, [setting[name] for setting in small]) if shapes_model(name) else how)
        for name, how in space.searched
    )
    by_arguments = {as_arguments(s): n for s, n in zip(settings, sizes, strict=True)}
    # The sizes have all of a builder's arguments, so the space must set those that it does not.
    return replace(
        space,
        searched=smaller,
        fixed=tuple(({**fixed, **dict(space.fixed)} if count else dict(space.fixed)).items()),
        sizes=tuple(by_arguments.items()) if count else (),
    )


def _within(how: Range | Choices, values: Sequence[Any]) -> Range | Choices:
    if isinstance(how, Choices):
        return Choices(tuple(value for value in how.grid if value in values))
    low, high = min(values), max(values)
    return replace(how, low=low, high=high, grid=tuple(v for v in how.grid if low <= v <= high))


def _is_countable(how: Range | Choices) -> bool:
    return isinstance(how, Choices) or how.whole


def _all_values(how: Range | Choices) -> Sequence[Any]:
    return how.grid if isinstance(how, Choices) else range(int(how.low), int(how.high) + 1)


@dataclass(frozen=True, kw_only=True)
class _Complement(Hyperparameter):
    """A hyperparameter by the values of its parameter, which is its complement."""

    def admits(self, value: Any) -> bool:
        rounds_back = self.to_parameter(self.from_parameter(value)) if is_number(value) else None
        return super().admits(value) and super().admits(rounds_back)


def as_parameter(p: Hyperparameter) -> Hyperparameter:
    """A hyperparameter that is searched as its complement, by the values of that."""
    ends = {"low": 1 - p.high, "high": 1 - p.low, "excluded": p.excluded and 1 - p.excluded}
    return _Complement(**vars(p) | ends | {"takes": f"1 − {p.name}, which takes {p.takes}"})


def _read(where: str, value: Any, p: Hyperparameter) -> Any:
    """A range, a list of several values as choices, or a fixed value."""

    def one(key: str, number: Any) -> Any:
        return checked_values(f"{where}.{key}", [number], p)[0]

    if not isinstance(value, dict):
        values = checked_values(where, value, p)
        return Choices(values) if len(values) > 1 else values[0]
    if p.kind not in ("int", "float"):
        raise SpecError(f"{where} is a range, but takes a list or {p.takes}.")
    check_keys(where, value, RANGE_KEYS)
    if not {"low", "high"} <= value.keys():
        raise SpecError(f"{where} is a range without low or high; give both.")
    check_value(f"{where}.scale", scale := value.get("scale", SCALES[0]), one_of(SCALES))
    low, high = (one(end, value[end]) for end in ("low", "high"))
    if low >= high:
        raise SpecError(f"{where} goes from {low} to {high}; give a low that is below its high.")
    if scale == "log" and low <= 0:
        raise SpecError(f"{where}.low is {low}, but a log scale starts above 0.")
    grid = value.get("grid", [])
    if not isinstance(grid, list):
        raise SpecError(f"{where}.grid is {grid!r}, but takes a list.")
    points = tuple(one("grid", point) for point in grid)
    if any(not low <= point <= high for point in points):
        raise SpecError(f"{where}.grid leaves its range; give values from {low} to {high}.")
    return Range(low, high, points, log=scale == "log", whole=p.kind == "int")


def _names(config: TrialConfig) -> list[str]:
    return [*config.keywords, *(p.name for p in hyperparameters_of(config.model))]


def _field(name: str) -> str:
    """The hyperparameter of a parameter."""
    return BY_PARAMETER[name].name if name in BY_PARAMETER else name


def _turned(name: str, value: Any) -> Any:
    """A hyperparameter's value as its parameter's, or the reverse: a complement, or the same."""
    p = BY_PARAMETER.get(name)
    return p.to_parameter(value) if p and p.name != name else value


def _distribution(how: Range | Choices) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(how, Choices):
        return CategoricalDistribution(how.grid)
    if how.whole:
        return IntDistribution(int(how.low), int(how.high), log=how.log)
    return FloatDistribution(how.low, how.high, log=how.log)


def _points(how: Range | Choices) -> tuple[Any, ...]:
    if how.grid or isinstance(how, Choices):
        return how.grid
    low, high = (math.log(end) if how.log else end for end in (how.low, how.high))
    spread = [low + i / (N_GRID - 1) * (high - low) for i in range(1, N_GRID - 1)]
    points = (how.low, *(math.exp(value) if how.log else value for value in spread), how.high)
    return tuple(dict.fromkeys(map(round, points))) if how.whole else points


def _contains(how: Range | Choices, value: Any) -> bool:
    if isinstance(how, Choices):
        return value in how.grid
    return bool(how.low <= value <= how.high)


def _covers(how: Range | Choices, earlier: Range | Choices) -> bool:
    if isinstance(how, Range) and isinstance(earlier, Range):
        same = (how.log, how.whole) == (earlier.log, earlier.whole)
        return same and how.low <= earlier.low and earlier.high <= how.high
    return type(how) is type(earlier) and set(earlier.grid) <= set(how.grid)


def _as_value(how: Range | Choices) -> Any:
    if isinstance(how, Choices):
        return list(how.grid)
    table = {"low": how.low, "high": how.high, "scale": "log" if how.log else "linear"}
    return table | ({"grid": list(how.grid)} if how.grid else {})
