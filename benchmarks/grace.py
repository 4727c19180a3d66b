"""How early a search may end a trial: the study's own early stopping of surrogates.

    python -m benchmarks.grace --repeats 100     (half an hour on two CPU cores)
    python -m benchmarks.grace --short           (3 repeats)

The study's search and its scheduler (`study.plan.stopping`, asynchronous ASHA) work on trials of
`benchmarks.surrogate`, which train epoch by epoch, two at a time, with one seed (more at a time
change nothing where all epochs take equally long: trials keep their order).
What a trial that is ended would have reached is known here: hence how often the trial that would
have been the best of the search is ended, and by how much the chosen setting's true value is worse
than that of the same search without early stopping.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import optuna
from scipy import stats

from benchmarks.race import build_parser, print_table, write_result
from benchmarks.samplers import FreshSearch, as_ratios, interval, make_spec
from benchmarks.surrogate import REPEATED, Surrogate, curves_of, key, load
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial

SIZES = (6, 12, 25, 50)  # trials of a model: 12 to 100 of a study
SHARES = (1 / 20, 1 / 10, 1 / 5, 3 / 10, 2 / 5)
FACTORS = (2, 3, 4)
SHARES_OF_OTHERS = (1 / 10, 2 / 5)  # with another reduction factor than 3
N_AT_ONCE = 2


@dataclass
class AtWork:
    """A trial that trains."""

    planned: PlannedTrial
    curve: list[float]
    n_epochs: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a search with early stopping went.

    Attributes:
        regret: of the chosen setting, a log.
        best_ended: whether the trial was ended that would have been the best.
        share: epochs trained, of those that the trials have without early stopping.
    """

    regret: float
    best_ended: bool
    share: float


def search_once(surrogate: Surrogate, spec: StudySpec, n_at_once: int = N_AT_ONCE) -> Outcome:
    """A whole search, its trials side by side, an epoch each in turn."""
    search = FreshSearch(spec, surrogate.model)
    at_work: list[AtWork] = []
    finals: dict[str, float] = {}
    ended: set[str] = set()
    n_trained = n_whole = 0
    while search.is_open or at_work:
        while search.is_open and len(at_work) < n_at_once:
            planned = search.next()
            curve = surrogate.measure(planned.config, spec.seed)
            at_work.append(AtWork(planned, curve))
            n_whole += len(curve)
            if len(curve) == spec.epochs:
                finals[planned.trial_id] = curve[-1]
        for trial in list(at_work):
            trial_id, goes_on = trial.planned.trial_id, True
            if trial.n_epochs < len(trial.curve):
                trial.n_epochs += 1
                n_trained += 1
                search.ledger.measure(trial_id, trial.curve[: trial.n_epochs])
                goes_on = not trial.planned.prunable or search.goes_on(trial_id, {})
            if goes_on and trial.n_epochs < len(trial.curve):
                continue
            at_work.remove(trial)
            pruned = trial.n_epochs < len(trial.curve)
            if pruned:
                ended.add(trial_id)
            search.end(trial.planned, trial.curve[: trial.n_epochs], pruned=pruned)
    ((*_, best),) = search.best(1)  # the reference trial is never ended
    would_be_best = min(finals, key=finals.__getitem__)
    return Outcome(surrogate.regret(best), would_be_best in ended, n_trained / n_whole)


def summary(outcomes: list[Outcome], without: list[Outcome]) -> dict[str, Any]:
    """Numbers for a file; `without` early stopping by the same seeds."""
    n_ended = sum(outcome.best_ended for outcome in outcomes)
    chance = stats.binomtest(n_ended, len(outcomes)).proportion_ci(method="wilson")
    worse = np.array([a.regret - b.regret for a, b in zip(outcomes, without, strict=True)])
    return {
        "n": len(outcomes),
        "best_ended": [
            round(float(x), 4) for x in (n_ended / len(outcomes), chance.low, chance.high)
        ],
        "mse_over_best": as_ratios(interval(np.array([o.regret for o in outcomes]))),
        "mse_over_none": as_ratios(interval(worse)),
        "epochs_trained": round(float(np.mean([outcome.share for outcome in outcomes])), 4),
    }


def real_survival(model: str, n_draws: int = 3000) -> list[dict[str, Any]]:
    """Without a surrogate: how often the best real trial is ahead enough at earlier epochs.

    Six settings of the audit and the baseline, one seed of each, drawn again and again: how often
    the one that is best after 50 epochs is among the best two after fewer.
    """
    seeds_of: dict[str, list[np.ndarray]] = {}
    for folder in REPEATED:
        for config, curve in zip(*curves_of(folder, model, schema.FULL_SPLIT), strict=True):
            seeds_of.setdefault(str(key(config)), []).append(curve)
    rng, rows = np.random.default_rng(0), []
    drawn = []
    for _ in range(n_draws):
        chosen = rng.permutation(len(seeds_of))[:6]
        seeds = [list(seeds_of.values())[i] for i in chosen]
        drawn.append([each[rng.integers(len(each))] for each in seeds])
    curves = np.array(drawn)
    best = curves[:, :, -1].argmin(1)[:, None]
    n_epochs = curves.shape[2]
    for share in SHARES:
        epoch = round(share * n_epochs)
        now = curves[:, :, epoch - 1]
        survives = (now < np.take_along_axis(now, best, 1)).sum(1) < 2
        rows.append({"model": model, "n_settings": len(seeds_of), "n_epochs": n_epochs})
        rows[-1] |= {
            "epoch": epoch,
            "best_among_first_two_of_six": round(float(survives.mean()), 3),
        }
    return rows


@dataclass(frozen=True)
class Cell:
    """What is measured: searches of a model, without early stopping and with every grace."""

    model: str
    sampler: str
    n_trials: int
    n_at_once: int
    factors: tuple[int, ...]
    n: int


def cells(size: int, repeats: int) -> Iterator[Cell]:
    """All that are measured of a size."""
    for model in schema.MODELS:
        n = repeats // 2 if size == SIZES[-1] else repeats
        yield Cell(model, "tpe", size, N_AT_ONCE, (3,), n)
        yield Cell(model, "random", size, N_AT_ONCE, FACTORS, n)


def measure(cell: Cell) -> list[dict[str, Any]]:
    """A row for each grace and reduction factor."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surrogate = load(cell.model)

    def run(**changes: Any) -> list[Outcome]:
        specs = (
            make_spec(surrogate, cell.n_trials, seed, sampler=cell.sampler, **changes)
            for seed in range(cell.n)
        )
        return [search_once(surrogate, spec, cell.n_at_once) for spec in specs]

    without, rows = run(scheduler="none"), []
    for factor, share in product(cell.factors, SHARES):
        if factor != 3 and share not in SHARES_OF_OTHERS:
            continue
        grace = max(1, round(share * surrogate.epochs))
        outcomes = run(scheduler="asha", grace_epochs=grace, reduction_factor=factor)
        row = asdict(cell) | {"reduction_factor": factor, "grace_epochs": grace}
        row |= summary(outcomes, without)
        rows.append({name: value for name, value in row.items() if name != "factors"})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/grace-cpu.json`."""
    options = build_parser("grace", __doc__, "3 repeats of all", repeats=100).parse_args()
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for size in SIZES:
            for found in pool.map(
                measure, list(cells(size, 3 if options.short else options.repeats))
            ):
                rows += found
            report(rows, short=options.short)


def report(rows: list[dict[str, Any]], *, short: bool) -> None:
    """Prints and writes what there is so far."""
    rows = sorted(
        rows, key=lambda row: (row["sampler"], row["n_at_once"], row["n_trials"], row["model"])
    )
    names = ("sampler", "n_at_once", "model", "n_trials", "reduction_factor", "grace_epochs", "n")
    table = [
        [
            *(str(row[name]) for name in names),
            " ".join(f"{x:.2f}" for x in row["best_ended"]),
            " ".join(f"{x:.3f}" for x in row["mse_over_none"]),
            f"{row['epochs_trained']:.2f}",
        ]
        for row in rows
    ]
    headings = ["sampler", "at once", "model", "trials", "factor", "grace", "n", "best ended"]
    print_table("ASHA, 95 % intervals", [*headings, "÷ none", "epochs"], table)
    write_result(
        "grace-cpu",
        {
            "what": "what early stopping costs and saves in searches of surrogates",
            "surrogates": {model: load(model).facts() for model in schema.MODELS},
            "rows": rows,
            "real_trials": [row for model in schema.MODELS for row in real_survival(model)],
        },
        short=short,
    )


if __name__ == "__main__":
    main()
