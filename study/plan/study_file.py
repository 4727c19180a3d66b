"""A study as a TOML file: read with a sentence for each mistake, and printed whole.

Its keys are the command line's options without dashes; what only a file has are `question`, `data`,
the tables `[[trial]]`, `[search.MODEL]` and `[model.NAME]`, and those of `study.plan.papers`. The
presets are such files, and so are the papers of `study/papers/`.
"""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import tomlkit

from convae.config import MODELS, as_arguments, is_custom_name
from convae.custom_models import CustomModel, count_parameters, read_custom_model
from convae.errors import UserError
from study.folder.paper import Paper
from study.plan.errors import SpecError, check_keys
from study.plan.labels import model_of
from study.plan.papers import named_paper, paper_from, to_tables
from study.plan.space import built_in, space_from
from study.plan.spec import StudySpec, hyperparameters, spec_options
from study.plan.trial_tables import trial_table_from
from study.plan.trials import named_settings, reference_config, tables_of

PRESET_NAMES: Final = ("quick", "reference", "standard", "audit", "full")
TEXTS: Final = ("question", "data")  # keys of a file that are no options of the spec
TABLES: Final = ("trial", "search", "model", "paper", "claim", "open")
SCHEMA: Final = files("study") / "study.schema.json"  # for editors; of `study.plan.study_schema`

_BARE_POINT: Final = re.compile(r"[=\[,]\s*[+-]?\.\d")  # a number such as .5


@dataclass(frozen=True)
class StudyFile:
    """What a study file says."""

    spec: StudySpec
    data: str | None = None  # where its images are; None for MNIST from wherever it is


def read_study(path: Path) -> StudyFile:
    """A study from a file; paths in it are relative to its folder.

    Raises:
        SpecError: it cannot be read, or run; the message names the file, and the key or table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no UTF-8; save it as UTF-8"
        raise SpecError(f"{path} cannot be read as a study: {reason}.") from error
    name = re.sub(r"[^\w.+-]", "_", path.stem)  # a part of a run folder's name
    return parse_study(text, str(path), name, path.parent)


def parse_study(text: str, where: str, name: str, folder: Path) -> StudyFile:
    """A study of this name from a file's TOML, whose paths are relative to a folder.

    `where` is what messages call the file.

    Raises:
        SpecError: it cannot be run; the message names the key or table.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        hint = " (a number begins with a digit, as in 0.5)" if _BARE_POINT.search(text) else ""
        raise SpecError(f"{where} is no TOML: {error}{hint}.") from error
    try:
        return _study(table, name, folder)
    except UserError as error:
        raise SpecError(f"{where}: {_in_keys(str(error))}") from error


def _study(table: Mapping[str, Any], name: str, folder: Path) -> StudyFile:
    options = {key_of(option): option for option in spec_options()}
    check_keys("the file", table, (*options, *TEXTS, *TABLES))
    values: dict[str, Any] = {"preset": name}
    for key, option in options.items():
        if key in table:
            values[option.name] = _value(key, table[key], option)
    for key in TEXTS:
        if not isinstance(table.get(key, ""), str):
            raise SpecError(f"{key} is {table[key]!r}, but takes a text.")
    values["question"] = table.get("question", "")
    custom = tuple(_custom_model(*item, folder) for item in _tables(table, "model").items())
    models = (*MODELS, *(model.name for model in custom))
    values.setdefault("models", models)
    trials = table.get("trial", [])
    if not isinstance(trials, list):
        raise SpecError("[trial] is one table, but takes several: write [[trial]].")
    known_of = partial(hyperparameters, custom_models=custom)
    tables = tuple(
        trial_table_from(f"[[trial]] {i}", part, models, known_of)
        for i, part in enumerate(trials, 1)
    )
    spaces = []
    for model, part in _tables(table, "search").items():
        if model not in models:
            raise SpecError(
                f"[search.{model}] is of no model that there is; it takes {', '.join(models)}."
            )
        builder = next((builder for builder in custom if builder.name == model), None)
        count = None if builder is None else partial(count_parameters, builder)
        space = space_from(model, part, hyperparameters(model, custom), count)
        if space != built_in(model):  # spelled out, it is the same study
            spaces.append(space)
    parts: dict[str, Any] = {
        "custom_models": custom,
        "trial_tables": tables,
        "spaces": tuple(spaces),
    }
    plain = StudySpec(**values | {"readings": False}, **parts)
    named = table.get("paper")
    paper = named_paper(named, folder, _paper_of) if isinstance(named, str) else None
    labels = {label: config.model for label, config in named_settings(plain).items()}

    def its_model(label: str) -> str | None:
        return labels.get(label) or model_of(label, models)

    paper = paper_from(paper, table, models, known_of, its_model)
    spec = StudySpec(**values, **parts, paper=paper)
    data = table.get("data")
    if data is not None and "://" not in data:
        data = str(folder / os.path.expanduser(data))  # noqa: PTH111 (raises for no such user)
    return StudyFile(spec, data)


def _paper_of(text: str, where: str, folder: Path) -> Paper | None:
    """The paper that a file spells out."""
    if "paper" in (table := tomllib.loads(text)) and isinstance(table["paper"], str):
        raise SpecError(f"{where} names a paper itself, {table['paper']}; name that one.")
    return parse_study(text, where, "paper", folder).spec.paper


def check_builders(spec: StudySpec) -> None:
    """Builds custom models with all values of their arguments that are known beforehand.

    Raises:
        UserError: a builder does not take one of them.
    """
    for custom in spec.custom_models:
        names = {p.name: p.default for p in spec.hyperparameters(custom.name) if p.of_architecture}
        settings = [
            config.keywords
            for table in spec.trial_tables
            if table.model == custom.name
            for config in table.configs(reference_config(custom.name, spec))
        ]
        space = spec.space_of(custom.name)
        if not space.sizes:  # else all were built, to be counted
            others = {**names, **{n: value for n, value in space.fixed if n in names}}
            settings += [{**others, name: value} for name in names for value in space.ends_of(name)]
        different = {as_arguments(setting): setting for setting in settings}
        built = dict(space.sizes)
        count_parameters(
            custom, [s for arguments, s in different.items() if arguments not in built]
        )


def to_toml(spec: StudySpec, data: str | None = None) -> str:
    """A study as the text of a file, whole: with every key, and each model's space spelled out."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"The study {spec.preset}, whole: a file to change and to run."))
    if spec.question:
        document.add("question", tomlkit.item(spec.question))
    if data is not None:
        document.add("data", tomlkit.item(data))
    for option in spec_options():
        value, help_ = getattr(spec, option.name), option.metadata["help"]
        if value is None:
            document.add(tomlkit.comment(f"{key_of(option)}: {help_}"))
            continue
        item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
        document.add(key_of(option), item.comment(help_))
    lines = [
        "What hidden and readings stand for. A custom table takes the place of those of its group",
        "and model.",
    ]
    for table in tables_of(spec):
        if table not in spec.trial_tables:
            lines += ["[[trial]]", *tomlkit.dumps(_table(table.to_table())).splitlines()]
    for line in lines:
        document.add(tomlkit.comment(line))
    paper = to_tables(spec.paper) if spec.paper else {"paper": {}, "claim": [], "open": {}}
    arrays = {"trial": [table.to_table() for table in spec.trial_tables], "claim": paper["claim"]}
    if paper["paper"]:
        document.add("paper", _table(paper["paper"]))
    for key, tables in arrays.items():
        if tables:
            document.add(key, _array(tables))
    parts = [("open", *item) for item in paper["open"].items()]
    parts += [("model", model.name, {"build": model.build}) for model in spec.custom_models]
    parts += [("search", name, spec.space_of(name).to_table()) for name in spec.models]
    for key, name, values in parts:
        document.setdefault(key, tomlkit.table(is_super_table=True))[name] = _table(values)
    # For editors: this version's schema, on this machine. Elsewhere it is a comment like any other.
    return f"#:schema {Path(str(SCHEMA)).as_uri()}\n{tomlkit.dumps(document)}"


def key_of(option: Field[Any]) -> str:
    """The key of an option in a study file."""
    return str(option.metadata["flag"])[2:].replace("-", "_")


def _table(values: Mapping[str, Any]) -> Any:
    table = tomlkit.table()
    for key, value in values.items():
        tables = isinstance(value, list) and value and isinstance(value[0], dict)
        item = _array(value) if tables else tomlkit.item(value)
        if isinstance(value, dict):
            item = tomlkit.inline_table()
            item.update(value)
        table.add(key, item)
    return table


def _array(tables: Sequence[Mapping[str, Any]]) -> Any:
    array = tomlkit.aot()
    for values in tables:
        array.append(_table(values))
    return array


def _tables(table: Mapping[str, Any], key: str) -> Mapping[str, Mapping[str, Any]]:
    tables = table.get(key, {})
    if not isinstance(tables, dict) or any(not isinstance(t, dict) for t in tables.values()):
        raise SpecError(f"{key} takes tables by model: write [{key}.NAME].")
    return tables


def _value(key: str, value: Any, option: Field[Any]) -> Any:
    """A value as the spec has it; the spec checks what it says."""
    texts = [one for one in (value if isinstance(value, list) else [value]) if type(one) is str]
    if texts and option.metadata["low"] is not None:
        raise SpecError(
            f"{key} has the text {texts[0]!r}, but takes numbers; leave the quotes out."
        )
    if isinstance(option.default, tuple):
        if not isinstance(value, list) or any(isinstance(item, list | dict) for item in value):
            raise SpecError(f"{key} is {value!r}, but takes a list.")
        return tuple(value)
    if isinstance(value, list | dict):
        raise SpecError(f"{key} is {value!r}, but takes one value.")
    return value


def _custom_model(name: str, part: Mapping[str, Any], folder: Path) -> CustomModel:
    where = f"[model.{name}]"
    check_keys(where, part, ("build",))
    if not is_custom_name(name):
        raise SpecError(
            f"{where} is no name for a model; give one of letters, digits and _, at most 40, that"
            f" is not {' or '.join(MODELS)}."
        )
    if not isinstance(build := part.get("build"), str):
        raise SpecError(f'{where} has no build; give build = "file.py:function".')
    return read_custom_model(name, build, folder)


def _in_keys(message: str) -> str:
    """A sentence about options as one about keys."""
    for option in sorted(spec_options(), key=lambda option: -len(option.metadata["flag"])):
        message = re.sub(rf"{option.metadata['flag']}(?![\w-])", key_of(option), message)
    return message


def _preset(name: str) -> StudySpec:
    text = (files("study") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_study(text, f"{name}.toml", name, Path()).spec


PRESETS: Final = MappingProxyType({name: _preset(name) for name in PRESET_NAMES})
