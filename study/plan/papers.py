"""A paper's claims and what it leaves open, from a study file, with a sentence for each mistake.

    paper = "report-2021"          # by name, of study/papers/, or the path of such a file

or spelled out, in the file itself:

    [paper]                        # what it is, of which images and epochs it speaks
    [[paper.assumption]]           # what is read in one way throughout
    [open.dense]                   # what it leaves open of a model, and the values that are tried
    [[claim]]                      # what it claims, see `study.folder.paper.Claim`
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from convae.config import HYPERPARAMETERS, Domain
from study.folder.paper import (
    EARLY_FALL,
    JUDGED,
    MEASURES,
    REACHES,
    RELATIONS,
    WITHIN,
    Assumption,
    Claim,
    Open,
    Paper,
)
from study.plan.errors import (
    TEXT,
    SpecError,
    above_0,
    check_has,
    checked_hyperparameters,
    checked_table,
    one_of,
    tables_by_model,
    tables_in_order,
    whole,
)
from study.plan.trial_tables import MOST_TRIALS, Parameters

ASSUMPTION: Final = "assumption"


class Pair(Domain):
    """Two values, as a list."""

    def admits(self, value: Any) -> bool:
        """Whether they are valid."""
        return isinstance(value, list) and len(value) == 2 and all(map(super().admits, value))


_TEXT: Final = replace(TEXT, low=1)
_LABEL: Final = replace(_TEXT, takes="the label of a setting, such as dense-512")
CLAIM_KEYS: Final[Mapping[str, Domain]] = {
    **dict.fromkeys(("says", "paper", "where"), _TEXT),
    "measure": one_of(MEASURES),
    "of": _LABEL,
    "others": one_of([p.name for p in HYPERPARAMETERS]),
    "beside": _LABEL,
    "relation": one_of(RELATIONS),
    "value": above_0("a number above 0"),
    "judged": one_of(JUDGED),
    "first": above_0("a share of the epochs, above 0 up to 1", high=1),
    "values": Pair(**vars(above_0("two numbers above 0"))),
    **dict.fromkeys(("called", "quantity", "note"), _TEXT),
}
PAPER_KEYS: Final[Mapping[str, Domain]] = {
    **dict.fromkeys(("called", "source", "question", "summary", "images", "hardware"), _TEXT),
    "epochs": whole(1),
}
ASSUMPTION_KEYS: Final[Mapping[str, Domain]] = dict.fromkeys(
    ("what", "read_as", "paper", "note", "short", "model"), _TEXT
)
REQUIRED: Final = {"claim": ("says",), ASSUMPTION: ("what", "read_as")}


def paper_from(
    named: Paper | None,
    tables: Mapping[str, Any],
    models: Sequence[str],
    parameters: Parameters,
    model_of: Callable[[str], str | None],
) -> Paper | None:
    """The paper of a study file; None if it has none.

    Args:
        named: the paper that the file names, if it does. The file's claims are added to its, and
            what the file leaves open of a model takes the place of what it does.
        tables: the file's keys.
        models: that the study knows.
        parameters: the hyperparameters of a model.
        model_of: the model of the setting that a label stands for; None for no setting.

    Raises:
        SpecError: a table says what cannot be judged, or trained.
    """
    about = tables.get("paper", {})
    claims = tables_in_order("claim", tables.get("claim", []))
    given = tables_by_model("open", tables.get("open", {}), models)
    if named is None and not (about or claims or given):
        return None
    paper = named or _paper(about)
    opened = {one.model: one for one in paper.open}
    for model, table in given.items():
        values = checked_hyperparameters(f"[open.{model}]", table, parameters(model))
        opened[model] = Open(model=model, values=values)
    by_name: dict[str, Any] = {}
    for one in opened.values():
        for name, its in one.values:
            if by_name.setdefault(name, its) != its:
                raise SpecError(
                    f"[open.{one.model}] {name} has other values than another model's; a reading"
                    " gives both the same."
                )
    if (n := math.prod(map(len, by_name.values()))) > MOST_TRIALS:
        raise SpecError(f"[open] makes {n:,} readings, but at most {MOST_TRIALS:,} are taken.")
    added = tuple(_claim(where, one, model_of) for where, one in claims.items())
    return replace(paper, claims=(*paper.claims, *added), open=tuple(opened.values()))


def to_tables(paper: Paper) -> dict[str, Any]:
    """The tables of a study file that spell a paper out, without what goes without saying."""
    about = _given(paper, PAPER_KEYS)
    assumptions = [_given(one, ASSUMPTION_KEYS) for one in paper.assumptions]
    return {
        "paper": about | ({ASSUMPTION: assumptions} if assumptions else {}),
        "open": {one.model: {name: list(its) for name, its in one.values} for one in paper.open},
        "claim": [_given(claim, CLAIM_KEYS) for claim in paper.claims],
    }


def _given(one: Any, keys: Mapping[str, Domain]) -> dict[str, Any]:
    """The fields of a table that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(one)}
    values = {name: getattr(one, name) for name in keys}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def _paper(about: Any) -> Paper:
    if not isinstance(about, dict):
        raise SpecError(f"paper is {about!r}, but takes a name or a table.")
    plain = {name: value for name, value in about.items() if name != ASSUMPTION}
    tables = tables_in_order(f"paper.{ASSUMPTION}", about.get(ASSUMPTION, []))
    assumptions = [
        Assumption(**checked_table(where, one, ASSUMPTION_KEYS, REQUIRED[ASSUMPTION]))
        for where, one in tables.items()
    ]
    its = checked_table("[paper]", plain, PAPER_KEYS)
    return Paper(**its, assumptions=tuple(assumptions))


def _claim(where: str, table: Mapping[str, Any], model_of: Callable[[str], str | None]) -> Claim:
    its = checked_table(where, table, CLAIM_KEYS, REQUIRED["claim"])
    measure, ratio = its.get("measure"), "beside" in its
    if measure is None:
        needed = [name for name in its if name in ("others", "beside", "relation", "value")]
        if needed:
            raise SpecError(f"{where} has {needed[0]}, but no measure; give measure or neither.")
    else:
        check_has(where, its, ("relation", "value"))
        if ("of" in its) == ("others" in its):
            raise SpecError(f"{where} takes one of: of, a setting, or others, a hyperparameter.")
        needs = {"others": "others" in its, "values": "values" in its}
        needs |= {f'relation = "{WITHIN}"': its["relation"] == WITHIN}
        needs |= {f'judged = "{REACHES}"': its.get("judged") == REACHES}
        for name in [name for name, there in needs.items() if there and not ratio]:
            raise SpecError(f"{where} has {name}, which needs beside: it is of a ratio.")
        if (measure == EARLY_FALL) != ("first" in its) or (measure == EARLY_FALL and ratio):
            raise SpecError(
                f'{where}: measure = "{EARLY_FALL}" takes first, the share of the epochs, and no'
                " beside; nothing else takes first."
            )
    models = []
    for key in [key for key in ("of", "beside") if key in its]:
        if (model := model_of(its[key])) is None:
            raise SpecError(
                f"{where} {key} is {its[key]!r}, which is the label of no setting; give a model,"
                " dense-512 for so many units, or the label of a [[trial]]."
            )
        models.append(model)
    return Claim(**its, models=tuple(dict.fromkeys(models)))
