"""The paper's claims, and the final values that they rest on."""

from typing import Any, Final

import pandas as pd

from analysis.claims import NOT_TESTED, claims_csv, claims_of, concerns_paper, tally
from analysis.load import Run
from analysis.phrases import open_values
from analysis.settings import COLLAPSED_RATIO, frame
from study.folder import schema
from study.folder.schema import SECONDS

SUMMARISED: Final = (schema.TRAIN_MSE, schema.TEST_MSE, SECONDS)


def chapter(run: Run) -> dict[str, Any]:
    """The claims with their verdicts, and the reference architectures."""
    claims, reference = claims_of(run), run.reference
    completed = sum(s.states.get(schema.COMPLETED, 0) for s in run.of(schema.REFERENCE))
    n_seeds = [len(s.by_seed()) for s in reference]
    return {
        "concerned": concerns_paper(run),
        "paper": run.paper,
        "claims": claims,
        "tested": any(claim.verdict != NOT_TESTED for claim in claims),
        "tally": tally(claims),
        "reference": reference,
        "pairs": {metric: run.pair_ratio(metric) for metric in SUMMARISED},
        "collapsed_ratio": f"{COLLAPSED_RATIO:g}",
        "one_seed": 1 in n_seeds,
        "n_left_out": completed - sum(n_seeds),
    }


def files(run: Run) -> dict[str, bytes]:
    """claims.csv and summary.csv."""
    rests_on = open_values(run.reference_trials, run.paper)
    return {
        "claims.csv": claims_csv(claims_of(run), rests_on).encode(),
        "summary.csv": summary(run).to_csv(index=False).encode(),
    }


def summary(run: Run) -> pd.DataFrame:
    """A row a reference architecture, then the ratios of the two that are compared.

    Returns:
        Columns model, epochs, n_parameters, n_seeds and, for train_mse, test_mse and
        train_seconds each, mean, sd, low and high. In the ratios' row, mean is the geometric mean
        of the ratios paired by seed; low and high are 95 % t-intervals throughout.
    """
    rows = frame(run.reference).drop(columns="model")
    named = rows.rename(columns={"setting": "model", "n": "n_seeds"}).set_index("model")
    tested = named.loc[named["metric"] == schema.TEST_MSE, ["epochs", "n_parameters", "n_seeds"]]
    if (of_test := run.pair_ratio()) is not None:
        tested.loc[run.ratio_name] = [None, None, of_test.n]
    for metric in SUMMARISED:
        pair = run.pair_ratio(metric)
        for part in ("mean", "sd", "low", "high"):
            tested[f"{metric}_{part}"] = named.loc[named["metric"] == metric, part]
            if pair is not None:
                tested.loc[run.ratio_name, f"{metric}_{part}"] = getattr(pair, part)
    return tested.reset_index()
