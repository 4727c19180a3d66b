"""The JSON schema of a study file, from the tables that validate it: editors complete and check.

    python -m study.plan.study_schema    # writes study/study.schema.json, which the wheel has

It refuses what is wrong by itself: keys, types, ranges, words. What depends on other keys or files,
such as a `grace_epochs` above `epochs`, the study alone refuses. Draft 4 is the last one for which
3.0 is no whole number, as for the study; editors (taplo) read it.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, Final

from convae.config import (
    CUSTOM_NAME,
    HYPERPARAMETERS,
    MODELS,
    Domain,
    Hyperparameter,
    hyperparameters_of,
)
from study.plan.errors import TEXT, whole
from study.plan.papers import (
    ASSUMPTION,
    ASSUMPTION_KEYS,
    CLAIM_KEYS,
    PAPER_KEYS,
    REQUIRED,
    Pair,
)
from study.plan.space import LIMIT, RANGE_KEYS, SCALES, as_parameter
from study.plan.spec import spec_options
from study.plan.study_file import SCHEMA, TEXTS, key_of
from study.plan.trial_tables import KEYS

Schema = dict[str, Any]
_TYPES: Final = {"text": "string", "int": "integer", "float": "number", "bool": "boolean"}
_NEVER: Final[Schema] = {"not": {}}
_OTHER: Final = "custom"  # stands for a custom model, which has what all models have


def study_schema() -> Schema:
    """The schema, as JSON has it."""
    options = {key_of(option): _option(option) for option in spec_options()}
    tables = {
        "trial": {"type": "array", "items": _trial()},
        "paper": _paper(),
        "claim": {"type": "array", "items": _keyed(CLAIM_KEYS, REQUIRED["claim"])},
        "open": _by_model(_opened),
        "search": _by_model(_search),
        "model": _object(patterns={f"^{CUSTOM_NAME}$": _object({"build": _BUILD}, ["build"])}),
    }
    return {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "title": "A study of convae-study",
        **_object({**options, **dict.fromkeys(TEXTS, _one(TEXT)), **tables}),
    }


_BUILD: Final[Schema] = {
    "type": "string",
    "pattern": r"\.py:[^\W\d]\w*$",
    "description": "file.py:function",
}


def _by_model(table: Callable[[str], Schema]) -> Schema:
    patterns = {f"^{model}$": table(model) for model in MODELS}
    return _object(patterns=patterns | {f"^{CUSTOM_NAME}$": table(_OTHER)})


def _option(option: Field[Any]) -> Schema:
    one = _one(option.metadata["values"])
    if isinstance(option.default, tuple):
        one = _list(one) | ({} if option.default else {"minItems": 0})
    given = {} if option.default in (None, MISSING) else {"default": option.default}
    return one | {"description": option.metadata["help"]} | given


def _trial() -> Schema:
    """A trial table: `properties` says what a key takes, `anyOf` which keys a model has."""
    keys = {key: _one(of) for key, of in KEYS.items()}
    values = {p.name: _values(_one(p)) | _described(p) for p in HYPERPARAMETERS}
    models = []
    for model in MODELS:
        names = [*keys, *(p.name for p in hyperparameters_of(model))]
        known: Schema = {name: {} for name in names}
        models.append(_object(known | {"model": {"enum": [model]}}))
    others = {p.name: _NEVER for p in HYPERPARAMETERS if not p.applies_to(_OTHER)}
    models.append({"properties": {**others, "model": {"pattern": f"^{CUSTOM_NAME}$"}}})
    trial = {"type": "object", "properties": {**keys, **values}, "required": ["model"]}
    return trial | {"additionalProperties": _values(_ANY), "anyOf": models}


def _paper() -> Schema:
    """A paper by name, or its table."""
    table = _keyed(PAPER_KEYS)
    assumption = _keyed(ASSUMPTION_KEYS, REQUIRED[ASSUMPTION])
    table["properties"][ASSUMPTION] = {"type": "array", "items": assumption}
    return table | {"type": ["string", "object"]}


def _keyed(keys: Mapping[str, Domain], required: Iterable[str] = ()) -> Schema:
    properties = {name: _one(key) | {"description": key.takes} for name, key in keys.items()}
    return _object(properties, required)


def _opened(model: str) -> Schema:
    """What is left open of a model; of a custom one, also arguments of its builder."""
    keys = {p.name: _values(_one(p)) | _described(p) for p in hyperparameters_of(model)}
    return _object(keys, others=False if model in MODELS else _values(_ANY))


def _search(model: str) -> Schema:
    """A search table; a custom model's has the arguments of its builder, too."""
    keys: Schema = {LIMIT: _one(whole(1))}
    for p in hyperparameters_of(model):
        for name in dict.fromkeys((p.name, p.parameter)):
            value = as_parameter(p) if name != p.name else p
            keys[name] = _searched(_one(value)) | _described(p)
    return _object(keys, others=False if model in MODELS else _searched(_ANY))


def _one(valid: Domain) -> Schema:
    if valid.words:
        return {"enum": list(valid.words)}
    its: Schema = {"type": _TYPES[valid.kind]}
    if valid.kind == "text":
        return its | ({"minLength": valid.low} if valid.low > 0 else {})
    for name, end in (("minimum", valid.low), ("maximum", valid.high)):
        if math.isfinite(end):
            its[name] = end
            if end == valid.excluded:
                its[f"exclusiveM{name[1:]}"] = True
    if isinstance(valid, Pair):
        return {"type": "array", "items": its, "minItems": 2, "maxItems": 2}
    return its


_ANY: Final[Schema] = {"type": ["string", "number", "boolean"]}  # of an argument of a builder


def _list(one: Schema) -> Schema:
    return {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}


def _values(one: Schema) -> Schema:
    """A value or a list of them. A keyword is only for its type, so that one schema holds both."""
    if "enum" in one:
        return {"anyOf": [one, _list(one)]}
    return one | _list(one) | {"type": [*_types(one), "array"]}


def _searched(one: Schema) -> Schema:
    """A value, a list of them, or a range of numbers."""
    values = _values(one)
    if not {"integer", "number"} & {*_types(one)}:
        return values
    number = {"type": "number"} if one is _ANY else one
    grid = {"type": "array", "items": number}
    keys = dict(zip(RANGE_KEYS, (number, number, {"enum": list(SCALES)}, grid), strict=True))
    above = {"properties": {"low": {"minimum": 0, "exclusiveMinimum": True}}}
    linear = {"properties": {"scale": {"enum": [SCALES[0]]}}}
    range_ = _object(keys, RANGE_KEYS[:2]) | {"anyOf": [linear, above]}
    return values | range_ | {"type": [*_types(values), "object"]}


def _types(one: Schema) -> list[str]:
    found = one.get("type", [])
    return [found] if isinstance(found, str) else found


def _described(p: Hyperparameter) -> Schema:
    return {"description": f"{p.takes}; the reference setting has {json.dumps(p.default)}"}


def _object(
    keys: Mapping[str, Schema] | None = None,
    required: Iterable[str] = (),
    *,
    patterns: Mapping[str, Schema] | None = None,
    others: bool | Schema = False,
) -> Schema:
    its: Schema = {"type": "object", "additionalProperties": others}
    parts = {"properties": keys, "patternProperties": patterns, "required": list(required)}
    return its | {name: part for name, part in parts.items() if part}


def schema_text() -> str:
    """The file's text."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(str(SCHEMA)).write_text(schema_text(), encoding="utf-8")
