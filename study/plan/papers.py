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
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

from convae.config import HYPERPARAMETERS, is_number
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
from study.plan.errors import SpecError, check_keys, checked_values, listed
from study.plan.trial_tables import MOST_TRIALS, Parameters

FOLDER: Final = files("study") / "papers"
ASSUMPTION: Final = "assumption"


class Key(NamedTuple):
    """A key of a table: a text, one of some words, or a number above 0."""

    takes: str  # to end the sentence "value is -1, but takes …"
    words: tuple[str, ...] = ()
    number: bool = False
    whole: bool = False
    high: float = math.inf
    n: int = 1  # how many values, as a list if several

    def admits(self, value: Any) -> bool:
        """Whether a value is valid."""
        values = value if self.n > 1 else [value]
        return isinstance(values, list) and len(values) == self.n and all(map(self._fits, values))

    def _fits(self, one: Any) -> bool:
        if self.number:
            right = is_number(one) and (isinstance(one, int) or not self.whole)
            return right and 0 < one <= self.high
        return isinstance(one, str) and bool(one) and (not self.words or one in self.words)


_TEXT: Final = Key("a text")
_LABEL: Final = Key("the label of a setting, such as dense-512")
_NUMBER: Final = Key("a number above 0", number=True)
_OTHERS: Final = tuple(p.name for p in HYPERPARAMETERS)
CLAIM_KEYS: Final[Mapping[str, Key]] = {
    **dict.fromkeys(("says", "paper", "where"), _TEXT),
    "measure": Key(listed(MEASURES), words=MEASURES),
    "of": _LABEL,
    "others": Key(listed(_OTHERS), words=_OTHERS),
    "beside": _LABEL,
    "relation": Key(listed(RELATIONS), words=RELATIONS),
    "value": _NUMBER,
    "judged": Key(listed(JUDGED), words=JUDGED),
    "first": Key("a share of the epochs, above 0 up to 1", number=True, high=1),
    "values": Key("two numbers above 0", number=True, n=2),
    **dict.fromkeys(("called", "quantity", "note"), _TEXT),
}
PAPER_KEYS: Final[Mapping[str, Key]] = {
    **dict.fromkeys(("called", "source", "question", "summary", "images", "hardware"), _TEXT),
    "epochs": Key("a whole number from 1", number=True, whole=True),
}
ASSUMPTION_KEYS: Final[Mapping[str, Key]] = dict.fromkeys(
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
    claims = _tables_of("claim", tables.get("claim", []))
    given = tables.get("open", {})
    if not isinstance(given, dict) or any(not isinstance(one, dict) for one in given.values()):
        raise SpecError("open takes tables by model: write [open.NAME].")
    if named is None and not (about or claims or given):
        return None
    paper = named or Paper(**_of_paper(about))
    opened = {one.model: one for one in paper.open}
    opened |= {model: _open(model, values, models, parameters) for model, values in given.items()}
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
    added = tuple(_claim(f"[[claim]] {i}", one, model_of) for i, one in enumerate(claims, 1))
    return replace(paper, claims=(*paper.claims, *added), open=tuple(opened.values()))


def named_paper(name: str, folder: Path, read: Callable[[str, str, Path], Paper | None]) -> Paper:
    """The paper of this name: of the package, or of a file, relative to a folder.

    Args:
        name: such as "report-2021", or "mine.toml".
        folder: of the file that names it.
        read: the paper of a file's text; its further arguments are what messages call the file,
            and the file's folder.

    Raises:
        SpecError: there is none.
    """
    known = {path.name.removesuffix(".toml"): path for path in FOLDER.iterdir()}
    path = folder / Path(name).expanduser()
    if name not in known and (path.suffix != ".toml" or not path.is_file()):
        raise SpecError(
            f"paper is {name!r}, but takes {listed(known)}, the path of a file.toml, or a table."
        )
    text = known.get(name, path).read_text(encoding="utf-8")
    if (paper := read(text, str(name), path.parent)) is None:
        raise SpecError(
            f"paper is {name!r}, a file that has no [paper], [[claim]] or [open] table."
        )
    return paper


def to_tables(paper: Paper) -> dict[str, Any]:
    """The tables of a study file that spell a paper out, without what goes without saying."""
    about = _given(paper, PAPER_KEYS)
    assumptions = [_given(one, ASSUMPTION_KEYS) for one in paper.assumptions]
    return {
        "paper": about | ({ASSUMPTION: assumptions} if assumptions else {}),
        "open": {one.model: {name: list(its) for name, its in one.values} for one in paper.open},
        "claim": [_given(claim, CLAIM_KEYS) for claim in paper.claims],
    }


def _given(one: Any, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The fields of a table that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(one)}
    values = {name: getattr(one, name) for name in keys}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def _tables_of(key: str, tables: Any) -> list[dict[str, Any]]:
    if not isinstance(tables, list) or any(not isinstance(one, dict) for one in tables):
        raise SpecError(f"{key} takes tables: write [[{key}]].")
    return tables


def _checked(where: str, table: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of a table, each of the kind that its key takes."""
    check_keys(where, table, tuple(keys))
    for name, value in table.items():
        if not keys[name].admits(value):
            raise SpecError(f"{where} {name} is {value!r}, but takes {keys[name].takes}.")
    return {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}


def _of_paper(about: Any) -> dict[str, Any]:
    if not isinstance(about, dict):
        raise SpecError(f"paper is {about!r}, but takes a name or a table.")
    plain = {name: value for name, value in about.items() if name != ASSUMPTION}
    its = _checked("[paper]", plain, PAPER_KEYS)
    key = f"paper.{ASSUMPTION}"
    assumptions = []
    for i, one in enumerate(_tables_of(key, about.get(ASSUMPTION, [])), 1):
        assumption = _checked(f"[[{key}]] {i}", one, ASSUMPTION_KEYS)
        _require(f"[[{key}]] {i}", assumption, REQUIRED[ASSUMPTION])
        assumptions.append(Assumption(**assumption))
    return its | {"assumptions": tuple(assumptions)}


def _require(where: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if name not in table:
            raise SpecError(f"{where} has no {name}; give it.")


def _open(model: str, table: Mapping[str, Any], models: Sequence[str], of: Parameters) -> Open:
    where = f"[open.{model}]"
    if model not in models:
        raise SpecError(f"{where} is of no model that there is; it takes {', '.join(models)}.")
    known = {p.name: p for p in of(model)}
    check_keys(where, table, tuple(known))
    values = [
        (name, tuple(checked_values(f"{where} {name}", table[name], p)))
        for name, p in known.items()
        if name in table
    ]
    return Open(model=model, values=tuple(values))


def _claim(where: str, table: Mapping[str, Any], model_of: Callable[[str], str | None]) -> Claim:
    its = _checked(where, table, CLAIM_KEYS)
    _require(where, its, REQUIRED["claim"])
    measure, ratio = its.get("measure"), "beside" in its
    if measure is None:
        needed = [name for name in its if name in ("others", "beside", "relation", "value")]
        if needed:
            raise SpecError(f"{where} has {needed[0]}, but no measure; give measure or neither.")
    else:
        _require(where, its, ("relation", "value"))
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
