"""What a search pays for repeating itself: places that wait, and what its sampler knows.

    python -m benchmarks.waiting --repeats 100     (twenty minutes on two CPU cores)
    python -m benchmarks.waiting --short           (3 repeats)

Both models' searches share the places of a simulated machine, with the study's default sampler and
scheduler, on trials of `benchmarks.surrogate`. A trial takes as long as those of its size took in
`results/surrogate-cpu`, give or take a tenth. A search that goes by whatever has ended is compared
with one of a lag, by the time until both are done and by the true MSE of what they choose.
"""

import heapq
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import optuna
import pandas as pd

from analysis.load import load_run
from benchmarks.race import build_parser, print_table, write_result
from benchmarks.samplers import FreshSearch, as_ratios, interval
from benchmarks.surrogate import SEARCHED, SPACES, load
from convae.config import TrialConfig
from study.folder import schema
from study.plan.spec import StudySpec
from study.plan.trials import PlannedTrial

PLACES = (2, 4, 8)
SIZES = (12, 100)  # search trials of both models: of the presets `standard` and `full`
LAGS = (None, 0.5, 1, 2)  # times the places; None goes by whatever has ended
JITTER = 0.1  # of a trial's seconds, as the standard deviation of their log


@dataclass(frozen=True)
class Cell:
    """What is measured."""

    n_places: int
    n_trials: int
    lag: float | None  # in places
    n: int


def _size(config: TrialConfig) -> tuple[str, int, int | None]:
    width = config.latent_filters if config.model == schema.CONV else config.hidden_units
    return config.model, config.batch_size, width


@cache
def seconds_of_epochs() -> Callable[[TrialConfig], float]:
    """The seconds of an epoch by a trial's size, or by its model alone where none had that size."""
    trials = pd.concat([load_run(folder)[0] for folder in SEARCHED])
    trials = trials[trials.epochs_completed > 0]
    seconds = (trials.train_seconds + trials.eval_seconds) / trials.epochs_completed
    width = trials.latent_filters.fillna(trials.hidden_units)
    by_size = seconds.groupby([trials.model, trials.batch_size, width]).mean().to_dict()
    by_model = seconds.groupby(trials.model).mean().to_dict()
    return lambda config: by_size.get(_size(config), by_model[config.model])


@dataclass
class Search:
    """How a study's searches went."""

    seconds: float  # until all were done
    waited: float  # share of the places until then that proposals kept free
    log_mse: float  # mean over the models of the chosen settings' true MSE over the best known


def run(spec: StudySpec, n_places: int, lag: int | None) -> Search:
    """Both searches, in simulated time."""
    searches = {model: FreshSearch(spec, model, lag) for model in spec.models}
    rng, waited, now = np.random.default_rng(spec.seed), 0.0, 0.0
    # By when a trial ends or its scheduler decides: its curve, and the epochs until then.
    events: list[tuple[float, int, PlannedTrial, list[float], int, float]] = []
    number = 0
    while events or any(search.is_open for search in searches.values()):
        free = [s for s in searches.values() if s.is_open and s.waits_for is None]
        if free and len(events) < n_places:
            planned = min(free, key=lambda search: search.n_planned).next()
            curve = load(planned.config.model).measure(planned.config, spec.seed)
            pace = seconds_of_epochs()(planned.config) * float(np.exp(JITTER * rng.normal()))
            until, number = min(spec.grace, len(curve)), number + 1
            heapq.heappush(events, (now + until * pace, number, planned, curve, until, pace))
            continue
        n_waiting = n_places - len(events) if any(s.is_open for s in searches.values()) else 0
        waited += n_waiting * (events[0][0] - now)
        now, at, planned, curve, epochs, pace = heapq.heappop(events)
        search, trial_id = searches[planned.config.model], planned.trial_id
        search.ledger.measure(trial_id, curve[:epochs])
        if epochs < len(curve) and (not planned.prunable or search.goes_on(trial_id, {})):
            more = next((e for e in spec.rungs if epochs < e < len(curve)), len(curve)) - epochs
            event = (now + more * pace, at, planned, curve, epochs + more, pace)
            heapq.heappush(events, event)
        else:
            search.end(planned, curve[:epochs], pruned=epochs < len(curve))
    regrets = [load(model).regret(s.best(1)[0][-1]) for model, s in searches.items()]
    return Search(now, waited / (n_places * now), float(np.mean(regrets)))


def measure(cell: Cell) -> list[Search]:
    """All of a cell's searches; those of one seed have the same noise in every cell."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    epochs = load(schema.CONV).epochs
    specs = [
        StudySpec(
            preset="waiting",
            epochs=epochs,
            n_search_trials=cell.n_trials,
            seed=seed,
            spaces=SPACES,
        )
        for seed in range(cell.n)
    ]
    return [
        run(spec, cell.n_places, cell.lag and round(cell.lag * cell.n_places)) for spec in specs
    ]


def main() -> None:
    """Measures, prints a table and writes `benchmarks/results/waiting-cpu.json`."""
    options = build_parser("waiting", __doc__, "3 repeats", repeats=100).parse_args()
    n = 3 if options.short else options.repeats
    # Large searches are slow: a third of them.
    cells = [
        Cell(n_places, size, lag, n if size == SIZES[0] else max(3, n // 3))
        for size in SIZES
        for n_places in PLACES
        for lag in LAGS
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for cell, found in zip(cells, pool.map(measure, cells), strict=True):
            if cell.lag is None:
                base = found
            ratios = np.log([a.seconds / b.seconds for a, b in zip(found, base, strict=True)])
            worse = np.array([a.log_mse - b.log_mse for a, b in zip(found, base, strict=True)])
            row = asdict(cell) | {"waited": round(float(np.mean([f.waited for f in found])), 4)}
            row |= {"seconds_over_none": as_ratios(interval(ratios))} if cell.lag else {}
            row |= {"mse_over_none": as_ratios(interval(worse))} if cell.lag else {}
            rows.append(row)
            print(row, flush=True)
    names = ("n_places", "n_trials", "lag", "n", "waited", "seconds_over_none", "mse_over_none")
    table = [[str(row.get(name, "")) for name in names] for row in rows]
    print_table("What repeating costs, 95 % intervals", list(names), table)
    what = "time and choice of searches that repeat themselves, over those of ones that do not"
    write_result("waiting-cpu", {"what": what, "rows": rows}, short=options.short)


if __name__ == "__main__":
    main()
