"""The first screen: the question, and the answer that the run at hand can give.

The question is the report's, or that of the study's author, or else which model has the least
error. What is said stands in a template for each: `page/chapters/answer_KIND.html.j2`.
"""

from typing import Any, Final

from analysis import audit, claims, phrases, settings
from analysis.chapters import curves, custom, finalists, readings, search, winners
from analysis.load import Run
from analysis.settings import CONV_NAME, DENSE_NAME, RATIO_NAME, Estimate, Setting
from analysis.specifications import by_value, shares
from study.folder import schema

FINISHED: Final = "finished"
Fact = tuple[str, str, str]  # a number on the first screen: its name, its value, what it rests on


def answer(run: Run) -> dict[str, Any]:
    """The `kind` of answer, report, audit, study or question, and the values for its template."""
    question = phrases.custom_question(run.manifest) if len(run.trials) else ""
    of_report = not question and (asks_the_report(run) or run.trials.empty)
    its = _of_report(run) if of_report else _of_study(run)
    if question:
        its |= _of_question(run)
    groups, status = run.trials["group"].value_counts(), run.manifest["status"]
    return {
        "question": question,
        "images": phrases.image_set(run.manifest),
        "models": run.models,
        "trained": [
            phrases.count(int(groups[g]), f"{g} trial") for g in schema.GROUPS if g in groups
        ],
        "open": phrases.open_values(run.reference_trials),
        "n_epochs": run.reference[0].epochs if run.reference else 0,
        "searched": schema.SEARCH in groups,
        "best_custom": custom.best_sentence(run),
        "status": "" if status == FINISHED else status,
        "decided": phrases.decisions(run.manifest, schema.REFERENCE),
        **its,
    }


def asks_the_report(run: Run) -> bool:
    """Whether a run is about the report's question: its two kinds of model, on its images."""
    models = {s.model for group in (schema.REFERENCE, schema.READING) for s in run.of(group)}
    return phrases.image_set(run.manifest) == phrases.MNIST and set(schema.MODELS) <= models


def ranked(run: Run) -> list[tuple[Setting, Estimate]]:
    """The reference architectures by mean test MSE, the best first."""
    found = [(s, mean) for s in run.reference if (mean := s.mean()) is not None]
    return sorted(found, key=lambda item: item[1].mean)


def _tuned(run: Run) -> str:
    """Which model's winner is ahead, or what the only one has; "" without winners."""
    found = winners.by_model(run)
    if len(found) == 1 and (mean := next(iter(found.values())).mean()):
        value = f"{phrases.mean_and_sd(mean)} ({phrases.seeds([mean.n])})"
        return f"Tuned, {next(iter(found))} has a test MSE of {value}."
    return winners.tuned_sentence(run)


def _best_pair(best: list[tuple[Setting, Estimate]]) -> Estimate | None:
    """The best architecture ÷ the next one, paired by seed."""
    return settings.ratio(best[0][0], best[1][0]) if len(best) > 1 else None


def _fact(name: str, mean: Estimate) -> Fact:
    value, *sd = phrases.mean_and_sd(mean).split(" ± ")
    return f"{name}, test MSE", value, ", ".join([*(f"± {one}" for one in sd), f"n = {mean.n}"])


def _of_report(run: Run) -> dict[str, Any]:
    """How far a run can answer the report's question, and with what."""
    conv, dense = run.named.get(CONV_NAME), run.named.get(DENSE_NAME)
    pair = settings.ratio(conv, dense)
    of_others = [] if {s.model for s in run.reference} <= set(schema.MODELS) else ranked(run)
    its = {
        "pair": pair,
        "missing": [name for name in (CONV_NAME, DENSE_NAME) if name not in run.named],
        "tuned": _tuned(run),
        "ranked": of_others,
        "best_pair": _best_pair(of_others),
        "kind": "report",
        "verdict": "",
        "overtaking": "",
        "facts": [],
        "figure": curves.TEST,
    }
    if pair is None or conv is None or dense is None:
        return its
    audited = pair.low is not None and conv.epochs >= claims.REPORT_EPOCHS and audit.is_audited(run)
    its |= _of_readings(run) if audited else {}
    crossing = settings.ratio_curve(conv, dense, run.epochs, schema.TEST_MSE)
    note = "one seed" if pair.low is None else phrases.ends(pair)
    note += "; at the default reading, the report: 0.5" if audited else "; the report: 0.5"
    return its | {
        "verdict": claims.half_verdict(pair)[0],
        "overtaking": curves.overtaking(crossing) if len(crossing) and pair.n > 1 else "",
        "facts": [
            *(_fact(s.label, mean) for s in (conv, dense) if (mean := s.mean())),
            (RATIO_NAME, f"{phrases.digits(pair.mean)} ×", note),
        ],
    }


def _of_readings(run: Run) -> dict[str, Any]:
    """The answer of an audit, on the test set."""
    its = audit.Audit(run)
    judged = its.claims()
    claim = next(c for c in judged if c.claim.quantity.startswith("test MSE, conv"))
    means = [estimate.mean for estimate in claim.estimates]
    cells = its.cells()
    single = {
        names[0]: share for names, share in shares(cells).items() if names[0] in audit.DEFAULT
    }
    return {
        "kind": "audit",
        "audit": its,
        "overall": claim.verdict,
        "n_readings": len(claim.judged),
        "holds": len(claim.under(claims.REPRODUCED)),
        "fails": len(claim.under(claims.NOT_REPRODUCED)),
        "least": min(means),
        "most": max(means),
        "strongest": max(single, key=single.__getitem__, default=""),
        "shares": single,
        "by_value": by_value,
        "cells": cells,
        "curve": its.curve(),
        "n": [estimate.n for estimate in claim.estimates],
        "figure": readings.FIGURE,
    }


def _of_study(run: Run) -> dict[str, Any]:
    """The answer of a study that is not about the report's question: what came out."""
    best = ranked(run)
    asked = custom.ranked(run.of(schema.CUSTOM))
    tuned = _tuned(run)
    over_seeds = finalists.outcomes(run)
    figure = ""
    if best:
        figure = curves.TEST
    elif asked:
        figure = custom.figure_name(custom.CURVES, asked[0][0].metric)
    elif over_seeds:
        figure = finalists.FIGURE
    elif tuned or run.of(schema.SEARCH):
        figure = search.PROGRESS
    return {
        "kind": "study",
        "ranked": best,
        "best_pair": _best_pair(best),
        "asked": [(custom.label(s), mean) for s, mean in asked],
        "tuned": tuned,
        "over_seeds": over_seeds,
        "facts": [_fact(s.label, mean) for s, mean in best[:3]],
        "figure": figure,
    }


def _of_question(run: Run) -> dict[str, Any]:
    """The answer to a question of the study's author: what speaks to it, the nearest first.

    That is custom trials beside their reference, then tuned models, then the reference trials.
    """
    asked, chosen = custom.ranked(run.of(schema.CUSTOM)), finalists.by_model(run)
    tuned = {m: (s, mean) for m, s in winners.by_model(run).items() if (mean := s.mean())}
    its: dict[str, Any] = {
        "by": "",
        "what": "",
        "aside": "",
        "collapsed": custom.collapse_sentence(run),
        "chosen": [
            f"{best.architecture}: {best.whole}"
            for found in chosen.values()
            if (best := finalists.winner_among(found))
        ],
        "limits": _limits(run),
    }
    if asked:
        (best, mean), factor = asked[0], custom.factor_of([s for s, _ in asked])
        name = custom.FACTOR if factor else custom.CURVES
        its |= {"by": "custom", "what": custom.label(best), "pair": best.ratio()}
        its |= {"whose": "the reference setting", "mean": mean}
        its["figure"] = custom.figure_name(name, best.metric)
        if factor and best.base is not None:
            its["aside"] = custom.factor_words(factor, best.base)
    elif len(tuned) > 1:
        first, second, *_ = sorted(tuned, key=lambda model: tuned[model][1].mean)
        its |= {"by": "winners", "what": f"tuned, {first}", "whose": second}
        its |= {"pair": settings.ratio(tuned[first][0], tuned[second][0])}
        its["facts"] = [_fact(f"{m}'s winner", mean) for m, (_, mean) in tuned.items()]
        its["figure"] = finalists.FIGURE if chosen else search.PROGRESS
    elif chosen:
        winner = finalists.winner_among(next(iter(chosen.values())))
        what = "tuned" if winner is None or not winner.words else f"tuned to {winner.words}"
        its |= {"by": "finalists", "what": what, "whose": "the reference setting"}
        its |= {"pair": winner and winner.ratio(), "figure": finalists.FIGURE}
    return its | {"kind": "question"}


def _limits(run: Run) -> tuple[int, int] | None:
    """The most search trials of a model, and their epochs: what a tuned answer rests on."""
    rows = run.trials[run.trials["group"] == schema.SEARCH]
    if rows.empty:
        return None
    return int(rows.groupby("model").size().max()), int(rows["epochs"].max())
