"""Which sampler finds the best settings: the study's own searches of surrogates, hundreds of times.

    python -m benchmarks.samplers --repeats 200      (an hour or two on two CPU cores)
    python -m benchmarks.samplers --short            (5 repeats at most)

The search that a study uses (`study.plan.search`, with its given first trials) asks its sampler for
settings, one after another and without early stopping, and is told what `benchmarks.surrogate`
measures with one seed. Then it chooses the setting with the least measured value, and the score is
that setting's true value over the best known one's. Samplers that the study does not offer take the
place of its own. GP needs PyTorch and CMA-ES the package cmaes; each is left out without it.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Set
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from scipy import stats

from benchmarks.race import build_parser, print_table, write_result
from benchmarks.surrogate import DEAD_MSE, SPACES, Surrogate, load
from study.folder import schema
from study.plan import search as plan_search
from study.plan.sampler import NewSettings, make_sampler
from study.plan.search import Search
from study.plan.space import Point
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial

# Trials of a model, and the shares of the repeats: of others, and of GP, whose proposals are slow.
SIZES = {6: (1, 0.3), 20: (1, 0.2), 50: (0.5, 0.1), 100: (0.25, 0.05)}
OUTSIDE = 300  # a batch size outside the space, with which a search is given no first trials

Make = Callable[[StudySpec, str, int], BaseSampler]


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _seed_of(spec: StudySpec, model: str, number: int) -> int:
    """The same as the study's own sampler gets."""
    return _seed(spec.seed, schema.MODELS.index(model), number)


class QuasiRandom(optuna.samplers.RandomSampler):
    """One scrambled Sobol' sequence for all of a search, by the trial's number.

    Optuna's own notes its place in the sequence in the study, which ends with a session.
    """

    def __init__(self, spec: StudySpec, model: str, number: int) -> None:
        super().__init__(_seed_of(spec, model, number))
        self._space, self._number = spec.space_of(model).distributions, number
        self._seed = _seed(spec.seed, schema.MODELS.index(model))

    def infer_relative_search_space(self, *known: Any) -> dict[str, BaseDistribution]:
        """All of the space, whatever earlier trials were."""
        return dict(self._space)

    def sample_relative(self, *known: Any) -> dict[str, Any]:
        """The point of this number."""
        sequence = stats.qmc.Sobol(len(self._space), rng=self._seed)
        if self._number:  # it refuses 0
            sequence.fast_forward(self._number)
        shares = map(float, sequence.random(1)[0])
        return {
            name: d.low * (d.high / d.low) ** share
            if isinstance(d, FloatDistribution)
            else d.choices[int(share * len(d.choices))]
            for (name, d), share in zip(self._space.items(), shares, strict=True)
        }


def _tpe(n_startup: int) -> Make:
    def make(spec: StudySpec, model: str, number: int) -> BaseSampler:
        seed = _seed_of(spec, model, number)
        return optuna.samplers.TPESampler(n_startup_trials=n_startup, seed=seed)

    return make


def _qmc_then_tpe(spec: StudySpec, model: str, number: int) -> BaseSampler:
    quasi_random = number < min(10, spec.share // 2)
    return (QuasiRandom if quasi_random else _tpe(1))(spec, model, number)


def _cma_es(spec: StudySpec, model: str, number: int) -> BaseSampler:
    """What is no number, the batch size too, it leaves to chance."""
    seed = _seed_of(spec, model, number)
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


_ALL = tuple(SIZES)
# By name here: the sampler's in the study, what takes its place, first trials, and sizes at which
# it is another one than those above.
SAMPLERS: dict[str, tuple[str, Make | None, tuple[str, ...], tuple[int, ...]]] = {
    "tpe": ("tpe", None, ("half", "none", "quarter"), _ALL),
    "tpe, 10 at random first": ("tpe", _tpe(10), ("none",), (6,)),
    "tpe, 3 at random first": ("tpe", _tpe(3), ("none",), (20,)),
    "tpe, quasi-random first": ("tpe", _qmc_then_tpe, ("none",), (6, 20)),
    "random": ("random", None, ("half", "none"), _ALL),
    "qmc": ("random", QuasiRandom, ("half", "none"), _ALL),
    "cma-es": ("random", _cma_es, ("half", "none"), _ALL),
    "gp": ("gp", None, ("half", "none"), _ALL),
}
NEEDS = {"gp": "torch", "cma-es": "cmaes"}


@contextmanager
def variant(sampler: str, given: str) -> Iterator[None]:
    """While it lasts, searches use this sampler, and are given this share of their first trials."""
    first_points, custom, make = plan_search.first_points, make_sampler, SAMPLERS[sampler][1]

    def fewer(model: str, spec: StudySpec, n: int) -> Any:
        return first_points(model, spec, (n + 1) // 2 if given == "quarter" else n)

    def other(
        spec: StudySpec, model: str, number: int, known: Set[Point], inferred: dict[str, Any]
    ) -> BaseSampler:
        sampler, space = make(spec, model, number), spec.space_of(model)
        return NewSettings(sampler, space, known, inferred, number)

    with (
        patch.object(plan_search, "make_sampler", other if make else custom),
        patch.object(plan_search, "first_points", fewer),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def make_spec(
    surrogate: Surrogate, n_trials: int, seed: int, *, given: bool = True, **changes: Any
) -> StudySpec:
    """A study of one model's search alone."""
    if not given:
        changes["batch_size"] = OUTSIDE
    return StudySpec(
        preset="surrogate",
        models=(surrogate.model,),
        epochs=surrogate.epochs,
        n_search_trials=n_trials,
        seed=seed,
        spaces=SPACES,
        **{"scheduler": "none"} | changes,
    )


class Memory:
    """What a search reads of a study's ledger: rows and epochs by trial, kept in memory alone."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._epochs: dict[str, list[dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """What there was before: nothing."""
        return []

    def plan(self, planned: PlannedTrial) -> None:
        """Enters a trial."""
        self._rows[planned.trial_id] = {"trial_id": planned.trial_id, "state": schema.RUNNING}
        self._epochs[planned.trial_id] = []

    def measure(self, trial_id: str, curve: list[float]) -> None:
        """Enters a trial's epochs so far."""
        self._epochs[trial_id] = [
            {"epoch": epoch, schema.OBJECTIVE: value} for epoch, value in enumerate(curve, start=1)
        ]

    def end(self, planned: PlannedTrial, curve: list[float], *, pruned: bool) -> dict[str, Any]:
        """Enters how a trial ended; returns its row."""
        state = schema.PRUNED if pruned else schema.COMPLETED
        if not pruned and len(curve) < planned.config.epochs:
            state = schema.DIVERGED
        self.measure(planned.trial_id, curve)
        row = self.row(planned.trial_id)
        row |= {"state": state, "diverged_epoch": len(curve) + 1}
        row |= {schema.OBJECTIVE: curve[-1] if curve else None}
        row |= {schema.SECONDS: None}  # which a search reads, and does not use
        return row

    def row(self, trial_id: str) -> dict[str, Any]:
        """A trial's row."""
        return self._rows[trial_id]

    def epochs_of(self, trial_id: str) -> list[dict[str, Any]]:
        """A trial's epochs."""
        return self._epochs[trial_id]


class FreshSearch(Search):
    """An architecture's search in a study that begins, with its own ledger."""

    def __init__(self, spec: StudySpec, model: str, lag: int | None = None) -> None:
        self.ledger = Memory()
        storage = optuna.storages.InMemoryStorage()
        super().__init__(model, spec, self.ledger, storage, lag)

    def next(self) -> PlannedTrial:
        """The next trial, entered."""
        planned = super().next()
        self.ledger.plan(planned)
        return planned

    def end(self, planned: PlannedTrial, curve: list[float], *, pruned: bool = False) -> None:
        """Enters how a trial ended, of which the search hears."""
        self.ended(self.ledger.end(planned, curve, pruned=pruned))


def regret_of(surrogate: Surrogate, spec: StudySpec, n_at_once: int = 1) -> float:
    """Of the setting that a search chooses; as bad as a dead trial if all diverged."""
    search = FreshSearch(spec, surrogate.model)
    at_work: list[PlannedTrial] = []
    while search.is_open or at_work:
        while search.is_open and len(at_work) < n_at_once:
            at_work.append(search.next())
        planned = at_work.pop(0)
        search.end(planned, surrogate.measure(planned.config, spec.seed))
    best = search.best(1)
    if not best:
        return float(np.log(DEAD_MSE)) - surrogate.log_best
    return surrogate.regret(best[0][-1])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t interval."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    mean = values.mean()
    return float(mean), float(mean - half), float(mean + half)


def as_ratios(of_logs: tuple[float, ...]) -> list[float]:
    """Ratios from logs, rounded for a file."""
    return [round(float(np.exp(value)), 4) for value in of_logs]


def compare(values: np.ndarray, to: np.ndarray) -> list[float]:
    """Ratio of geometric means with its 95 % interval (Welch)."""
    test = stats.ttest_ind(values, to, equal_var=False)
    return as_ratios((values.mean() - to.mean(), *test.confidence_interval()))


@dataclass(frozen=True)
class Cell:
    """What is measured: searches of a model, by one sampler."""

    model: str
    sampler: str
    given: str
    n_trials: int
    n_at_once: int
    n: int


def cells(size: int, repeats: int, samplers: Collection[str]) -> Iterator[Cell]:
    """All that are measured of a size."""
    for name, (_, _, shares, sizes) in SAMPLERS.items():
        n = max(3, round(repeats * SIZES[size][name == "gp"]))
        if name == "gp" and size > 20:
            shares = ("half",)
        for given in shares if name in samplers and size in sizes else ():
            if given == "quarter" and size > 50:  # all neighbours, as with half
                continue
            for model in schema.MODELS:
                yield Cell(model, name, given, size, 1, n)
                if size == max(SIZES) and given == "half" and name in ("tpe", "random"):
                    yield Cell(model, name, given, size, 8, n)


def measure(cell: Cell) -> dict[str, Any]:
    """The regrets of a cell's searches, and their seconds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate, started = load(cell.model), time.perf_counter()
    sampler, given = SAMPLERS[cell.sampler][0], cell.given != "none"
    with variant(cell.sampler, cell.given):
        regrets = [
            regret_of(
                surrogate,
                make_spec(surrogate, cell.n_trials, seed, given=given, sampler=sampler),
                cell.n_at_once,
            )
            for seed in range(cell.n)
        ]
    seconds = (time.perf_counter() - started) / cell.n
    print(cell, f"{np.exp(np.mean(regrets)):.3f}", f"{seconds:.2f} s", flush=True)
    return {"cell": cell, "regrets": np.array(regrets), "seconds": seconds}


def row_of(found: dict[str, Any], all_found: list[dict[str, Any]]) -> dict[str, Any]:
    """A cell's numbers for a file."""
    cell, regrets = found["cell"], found["regrets"]
    row = {
        **asdict(cell),
        "mse_over_best": as_ratios(interval(regrets)),
        "median_and_ninth_decile": as_ratios(tuple(np.quantile(regrets, (0.5, 0.9)))),
        "seconds_a_search": round(found["seconds"], 3),
    }
    for other in all_found:
        like = replace(cell, sampler="tpe", given="half", n=other["cell"].n)
        if other["cell"] == like and other is not found:
            row["over_tpe_half_given"] = compare(regrets, other["regrets"])
    return row


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/samplers-cpu.json`."""
    parser = build_parser("samplers", __doc__, "5 repeats of all, at most", repeats=200)
    parser.add_argument("--only", nargs="*", default=SAMPLERS, help="these samplers")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="trials of a search")
    options = parser.parse_args()
    missing = {name for name, module in NEEDS.items() if importlib.util.find_spec(module) is None}
    samplers = set(options.only) - missing
    repeats = 5 if options.short else options.repeats
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for size in options.sizes:
            found += pool.map(measure, list(cells(size, repeats, samplers)))
            report(found, missing, short=options.short)


def report(found: list[dict[str, Any]], missing: set[str], *, short: bool) -> None:
    """Prints and writes what there is so far."""
    found = sorted(
        found,
        key=lambda each: (each["cell"].n_trials, each["cell"].n_at_once, each["cell"].model),
    )
    rows = [row_of(each, found) for each in found]
    table = [
        [
            *(str(value) for value in asdict(each["cell"]).values()),
            *(
                " ".join(f"{value:.3f}" for value in row.get(name, ()))
                for name in ("mse_over_best", "over_tpe_half_given")
            ),
        ]
        for each, row in zip(found, rows, strict=True)
    ]
    headings = ["model", "sampler", "given", "trials", "at once", "n", "÷ best", "÷ tpe, half"]
    print_table("True MSE of the chosen setting, 95 % intervals", headings, table)
    write_result(
        "samplers-cpu",
        {
            "what": "true MSE of the setting that a search of a surrogate chooses",
            "surrogates": {model: load(model).facts() for model in schema.MODELS},
            "left_out": sorted(missing),
            "optuna": optuna.__version__,
            "rows": rows,
        },
        short=short,
    )


if __name__ == "__main__":
    main()
