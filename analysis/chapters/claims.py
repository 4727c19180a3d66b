"""The report's claims, and the final values that they rest on."""

from typing import Any, Final

import pandas as pd

from analysis.claims import NOT_TESTED, Claim, claims_csv, claims_of, concerns_report, tally
from analysis.load import Run
from analysis.phrases import NO_VALUE, interval, mean_and_sd, open_values
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME, SECONDS, Estimate, ratio
from study.folder import schema

SUMMARISED: Final = (schema.TRAIN_MSE, schema.TEST_MSE, SECONDS)


def chapter(run: Run) -> dict[str, Any]:
    """The claims with their verdicts, and a row for each reference architecture."""
    claims, reference = claims_of(run), run.reference
    completed = sum(s.states.get(schema.COMPLETED, 0) for s in run.of(schema.REFERENCE))
    rows = [
        (
            s.label,
            NO_VALUE if s.n_parameters is None else f"{s.n_parameters:,}",
            str(len(s.by_seed())),
            *(mean_and_sd(s.mean(metric)) for metric in SUMMARISED),
        )
        for s in reference
    ]
    pairs = report_ratios(run)
    if (of_test := pairs[schema.TEST_MSE]) is not None:
        rows.append((RATIO_NAME, NO_VALUE, str(of_test.n), *map(interval, pairs.values())))
    return {
        "concerned": concerns_report(run),
        "n_claims": len(claims),
        "tested": any(claim.verdict != NOT_TESTED for claim in claims),
        "tally": tally(claims),
        "claims": [(c.claim, c.report, _value(c), c.verdict, c.reason) for c in claims],
        "reference": reference,
        "rows": rows,
        "one_seed": any(len(s.by_seed()) == 1 for s in reference),
        "n_left_out": completed - sum(len(s.by_seed()) for s in reference),
        "missing": [name for name in (CONV_NAME, DENSE_NAME) if name not in run.named],
    }


def _value(claim: Claim) -> str:
    return f"{claim.quantity}: {interval(claim.estimate)}" if claim.estimate else NO_VALUE


def report_ratios(run: Run) -> dict[str, Estimate | None]:
    """Conv ÷ dense-512 in each of `SUMMARISED`."""
    conv, dense = (run.named.get(name) for name in (CONV_NAME, DENSE_NAME))
    return {metric: ratio(conv, dense, metric) for metric in SUMMARISED}


def files(run: Run) -> dict[str, bytes]:
    """claims.csv and summary.csv."""
    rests_on = open_values(run.reference_trials)
    return {
        "claims.csv": claims_csv(claims_of(run), rests_on).encode(),
        "summary.csv": summary(run).to_csv(index=False).encode(),
    }


def summary(run: Run) -> pd.DataFrame:
    """A row a reference architecture, then the ratios of the report's two models.

    Returns:
        Columns model, epochs, n_parameters, n_seeds and, for train_mse, test_mse and
        train_seconds each, mean, sd, low and high. In the ratios' row, mean is the geometric mean
        of the ratios paired by seed; low and high are 95 % t-intervals throughout.
    """
    rows = [
        {"model": s.label, "epochs": s.epochs, "n_parameters": s.n_parameters}
        | {"n_seeds": len(s.by_seed())}
        | _flat({metric: s.mean(metric) for metric in SUMMARISED})
        for s in run.reference
    ]
    pairs = report_ratios(run)
    if (of_test := pairs[schema.TEST_MSE]) is not None:
        rows.append({"model": RATIO_NAME, "n_seeds": of_test.n} | _flat(pairs))
    parts = [f"{metric}_{part}" for metric in SUMMARISED for part in ("mean", "sd", "low", "high")]
    frame = pd.DataFrame(rows, columns=["model", "epochs", "n_parameters", "n_seeds", *parts])
    counts = dict.fromkeys(("epochs", "n_parameters", "n_seeds"), "Int64")
    return frame.astype({"model": "str", **counts, **dict.fromkeys(parts, "float64")})


def _flat(estimates: dict[str, Estimate | None]) -> dict[str, Any]:
    return {
        f"{metric}_{part}": getattr(estimate, part)
        for metric, estimate in estimates.items()
        if estimate is not None
        for part in ("mean", "sd", "low", "high")
    }
