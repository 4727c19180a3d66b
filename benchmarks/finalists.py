"""Whether finalists choose better than the search's best single trial, on surrogates of real runs.

    python -m benchmarks.finalists --repeats 200     (minutes on one CPU core)

The study's own plan runs a search with one seed a trial and then its finalists, whose values
`benchmarks.surrogate` draws; the score is the true value of the setting that wins over that of the
best single trial's, in the same search.
"""

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.race import build_parser, write_result
from benchmarks.samplers import as_ratios, interval
from benchmarks.surrogate import SPACES, Surrogate, load
from study.folder import schema
from study.folder.storage import RunFolder
from study.plan.ledger import Ledger, config_of_row
from study.plan.phases import Plan
from study.plan.spec import StudySpec

SIZES = (6, 20, 50)


def gain(surrogate: Surrogate, spec: StudySpec) -> tuple[float, bool]:
    """Log of the winner's true value over the luckiest trial's, and whether it is another one."""
    # In memory, where nothing waits for a disk.
    with tempfile.TemporaryDirectory(prefix="convae-bench-", dir="/dev/shm") as folder:
        ledger = Ledger(RunFolder(folder))
        run(surrogate, spec, ledger)
        rows = ledger.rows()
        ledger.close()
    luckiest = min(
        (row for row in rows if row["group"] == schema.SEARCH), key=lambda row: row[schema.VAL_MSE]
    )
    winner = next(row for row in rows if row["group"] == schema.WINNER)
    chosen, lucky = (
        replace(config_of_row(row), seed=0, split=schema.SEARCH_SPLIT) for row in (winner, luckiest)
    )
    values = [surrogate.true_value(config) for config in (chosen, lucky)]
    return float(np.log(values[0] / values[1])), chosen != lucky


def run(surrogate: Surrogate, spec: StudySpec, ledger: Ledger) -> None:
    """The study's plan from its first to its last trial."""
    plan = Plan(spec, ledger)
    while planned := plan.next():
        config = planned.config
        if planned.group in (schema.SEARCH, schema.FINALIST):
            curve = surrogate.measure(config, config.seed)
        else:
            curve = [1.0] * spec.epochs
        metric = schema.EVAL_METRICS[config.split]
        rows: list[dict[str, Any]] = [
            {"epoch": epoch, metric: value} for epoch, value in enumerate(curve, 1)
        ]
        totals = dict.fromkeys(schema.TOTALS) | {"n_parameters": 1, "device": "none"}
        ledger.measure(planned.trial_id, len(rows), rows, totals)
        ledger.end(planned.trial_id)


def main() -> None:
    """Measures each size of search, with the study's defaults but for early stopping."""
    parser = build_parser("finalists", __doc__, "5 repeats")
    parser.add_argument("--repeats", type=int, default=200, help="searches of a size")
    options = parser.parse_args()
    repeats = 5 if options.short else options.repeats
    rows = []
    for model in schema.MODELS:
        surrogate = load(model)
        for size in SIZES:
            spec = StudySpec(
                preset="finalists",
                models=(model,),
                epochs=surrogate.epochs,
                n_search_trials=size,
                scheduler="none",
                spaces=SPACES,
            )
            found = [gain(surrogate, replace(spec, seed=10_000 * i)) for i in range(repeats)]
            ratio = as_ratios(interval(np.array([log for log, _ in found])))
            others = sum(other for _, other in found) / len(found)
            row = {"model": model, "n_trials": size, "n": len(found), "another_setting": others}
            rows.append(row | {"true_mse_over_luckiest": ratio})
            print(rows[-1], flush=True)
    what = "true MSE of the finalists' winner over that of the best single trial"
    write_result("finalists-cpu", {"what": what, "rows": rows}, short=options.short)


if __name__ == "__main__":
    main()
