"""The first screen: the question, and the answer that the run at hand can give.

The question is the paper's, or that of the study's author, or else which model has the least
error. What is said stands in a template for each: `page/chapters/answer_KIND.html.j2`.
"""

from typing import Any, Final

from analysis import claims, phrases, settings
from analysis.audit import Audit, audit_of
from analysis.chapters import curves, custom, finalists, readings, search, tuning, winners
from analysis.edges import edge_sentence
from analysis.load import Run
from analysis.settings import Estimate, Setting
from analysis.specifications import by_value, shares
from study.folder import schema
from study.folder.paper import REACHES

FINISHED: Final = "finished"
Fact = tuple[str, str, str]  # a number on the first screen: its name, its value, what it rests on


def answer(run: Run) -> dict[str, Any]:
    """The `kind` of answer, report, audit, study or question, and the values for its template."""
    question = phrases.custom_question(run.manifest) if len(run.trials) else ""
    of_paper = not question and run.paper and (asks_the_paper(run) or run.trials.empty)
    its = _of_paper(run) if of_paper else _of_study(run)
    if question:
        its |= _of_question(run)
    groups, status = list(run.trials["group"]), run.manifest["status"]
    return {
        "question": question,
        "images": phrases.image_set(run.manifest),
        "models": run.models,
        "trained": [
            phrases.count(groups.count(g), f"{g} trial") for g in schema.GROUPS if g in groups
        ],
        "paper": run.paper,
        "open": phrases.open_values(run.reference_trials, run.paper),
        "n_epochs": run.reference[0].epochs if run.reference else 0,
        "searched": schema.SEARCH in groups,
        "best_custom": custom.best_sentence(run),
        "status": "" if status == FINISHED else status,
        "decided": phrases.decisions(run.manifest, schema.REFERENCE),
        **its,
    }


def asks_the_paper(run: Run) -> bool:
    """Whether a run is about its paper's question: the models of its ratio, on its images."""
    models = {s.model for group in (schema.REFERENCE, schema.READING) for s in run.of(group)}
    if run.paper is None or run.paper.headline is None:
        return False
    images = phrases.image_set(run.manifest)
    return images == run.paper.images and set(run.paper.headline.models) <= models


def ranked(run: Run) -> list[tuple[Setting, Estimate]]:
    """The reference architectures by mean test MSE, the best first."""
    found = [(s, mean) for s in run.reference if (mean := s.mean()) is not None]
    return sorted(found, key=lambda item: item[1].mean)


def _tuned(run: Run) -> str:
    """Which model's winner is ahead, or what the only one has, and what limits it; "" for none."""
    found, said = winners.by_model(run), winners.tuned_sentence(run)
    if len(found) == 1 and (mean := next(iter(found.values())).mean()):
        value = f"{phrases.mean_and_sd(mean)} ({phrases.seeds([mean.n])})"
        said = f"{winners.how_tuned(run)}, {next(iter(found))} has a test MSE of {value}."
    limits = (search.over_searches(run), edge_sentence(run), *tuning.sentences(run))
    return " ".join(filter(None, (said, *limits))) if said else ""


def _best_pair(best: list[tuple[Setting, Estimate]]) -> Estimate | None:
    """The best architecture ÷ the next one, paired by seed."""
    return settings.ratio(best[0][0], best[1][0]) if len(best) > 1 else None


def _fact(name: str, mean: Estimate) -> Fact:
    value, *sd = phrases.mean_and_sd(mean).split(" ± ")
    return f"{name}, test MSE", value, ", ".join([*(f"± {one}" for one in sd), f"n = {mean.n}"])


def _of_paper(run: Run) -> dict[str, Any]:
    """How far a run can answer its paper's question, and with what."""
    assert run.paper is not None
    headline = next((j for j in claims.claims_of(run) if j.claim is run.paper.headline), None)
    named = {s.label: s for s in [*run.of(schema.CUSTOM), *run.reference]}
    top, bottom = run.two(named)
    brief = top is not None and top.epochs < (run.paper.epochs or 0)
    pair, claim = (headline.estimate, headline.claim) if headline else (None, None)
    of_others = [] if {s.model for s in run.reference} <= set(schema.MODELS) else ranked(run)
    # A number that the paper measured, or a bound: "at most 0.9".
    bound = f"{claim.relation} " if claim and claim.judged != REACHES else ""
    its = {
        "pair": pair,
        "fresh": settings.ratio(*run.two({s.label: s for s in run.of(schema.FINALIST)})),
        "names": run.pair,
        "brief": brief,
        "claimed": f"{bound}{claim.value:g}" if claim else "",
        "claim": claim,
        "missing": [name for name in run.pair if name and name not in named],
        "tuned": _tuned(run),
        "ranked": of_others,
        "best_pair": _best_pair(of_others),
        "kind": "report",
        "verdict": headline and headline.verdict,
        "overtaking": "",
        "facts": [],
        "figure": curves.TEST,
    }
    if claim is None or pair is None or top is None or bottom is None:
        return its
    if audited := audit_of(run) if pair.low is not None and not brief else None:
        its |= _of_readings(audited)
    curve = settings.ratio_curve(top, bottom, run.epochs, claim.measure)
    note = "one seed" if pair.low is None else phrases.ends(pair)
    default = "at the default reading, " if audited else ""
    return its | {
        "overtaking": curves.overtaking(curve, *run.pair) if len(curve) and pair.n > 1 else "",
        "facts": [
            *(_fact(s.label, mean) for s in (top, bottom) if (mean := s.mean())),
            (
                run.ratio_name,
                f"{phrases.digits(pair.mean)} ×",
                f"{note}; {default}{run.paper.called}: {its['claimed']}",
            ),
        ],
    }


def _of_readings(its: Audit) -> dict[str, Any]:
    """The answer of an audit, on the test set."""
    claim = next(c for c in its.claims if c.claim is its.paper.headline)
    means = [estimate.mean for estimate in claim.estimates]
    cells = its.cells()
    single = {names[0]: share for names, share in shares(cells).items() if names[0] in its.factors}
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
        "holding": claims.holding(claim.claim),
        "n": [estimate.n for estimate in claim.estimates],
        "figure": readings.FIGURE,
    }


def _of_study(run: Run) -> dict[str, Any]:
    """The answer of a study that is not about a paper's question: what came out."""
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
        its |= {"whose": "the reference setting", "mean": mean, "n_asked": len(asked)}
        its["figure"] = custom.figure_name(name, best.metric)
        if factor and best.base is not None:
            its["aside"] = custom.factor_words(factor, best.base)
    elif len(tuned) > 1:
        first, second, *_ = sorted(tuned, key=lambda model: tuned[model][1].mean)
        its |= {"by": "winners", "what": f"tuned, {first}", "whose": second}
        its |= {"pair": settings.ratio(tuned[first][0], tuned[second][0])}
        its["facts"] = [_fact(f"{m}'s winner", mean) for m, (_, mean) in tuned.items()]
        alone = tuning.FIGURES["k"] if not tuning.why_not(run) else search.PROGRESS
        its["figure"] = finalists.FIGURE if chosen else alone
    elif chosen:
        winner = finalists.winner_among(next(iter(chosen.values())))
        what = "tuned" if winner is None or not winner.words else f"tuned to {winner.words}"
        its |= {"by": "finalists", "what": what, "whose": "the reference setting"}
        its |= {"pair": winner and winner.ratio(), "figure": finalists.FIGURE}
    return its | {"kind": "question"}


def _limits(run: Run) -> tuple[int, int] | None:
    """The most search trials of a model, and their epochs: what a tuned answer rests on."""
    rows = run.searched
    if rows.empty:
        return None
    return int(rows.groupby("model").size().max()), int(rows["epochs"].max())
