"""A study as a TOML file: read with a sentence for each mistake, and printed whole.

Its keys are the command line's options without dashes; what only a file has are `question`, `data`,
the tables `[[trial]]`, `[search.MODEL]` and `[model.NAME]`, and those of `study.plan.papers`. The
presets are such files, and so are the papers of `study/papers/`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import tomlkit

from convae.config import MODELS, as_arguments
from convae.custom_models import CustomModel, count_parameters, read_custom_model
from convae.errors import UserError
from study.folder.paper import Paper
from study.plan.errors import (
    TEXT,
    SpecError,
    check_keys,
    check_value,
    listed,
    tables_by_model,
    tables_in_order,
)
from study.plan.labels import model_of
from study.plan.papers import paper_from, to_tables
from study.plan.space import built_in, space_from
from study.plan.spec import StudySpec, hyperparameters, spec_options
from study.plan.trial_tables import trial_table_from
from study.plan.trials import named_settings, reference_config, tables_of

PRESET_NAMES: Final = ("quick", "reference", "standard", "audit", "tuning", "full")
TEXTS: Final = ("question", "data")  # keys of a file that are no options of the spec
TABLES: Final = ("trial", "search", "model", "paper", "claim", "open")
PAPERS: Final = files("study") / "papers"
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
    text = _text_of(path, "a study")
    name = re.sub(r"[^\w.+-]", "_", path.stem)  # a part of a run folder's name
    return parse_study(text, str(path), name, path.parent)


def _text_of(path: Path | Traversable, what: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # some editors begin with a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no UTF-8; save it as UTF-8"
        raise SpecError(f"{path} cannot be read as {what}: {reason}.") from error


def parse_study(text: str, where: str, name: str, folder: Path) -> StudyFile:
    """A study of this name from a file's TOML, whose paths are relative to a folder.

    `where` is what messages call the file.

    Raises:
        SpecError: it cannot be run; the message names the key or table.
    """
    table = _toml(text, where)
    try:
        return _study(table, name, folder)
    except UserError as error:
        raise SpecError(f"{where}: {_in_keys(str(error))}") from error


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, or a number of thousands of digits
        hint = " (a number begins with a digit, as in 0.5)" if _BARE_POINT.search(text) else ""
        raise SpecError(f"{where} is no TOML: {error}{hint}.") from error


def _study(table: Mapping[str, Any], name: str, folder: Path) -> StudyFile:
    options = {key_of(option): option for option in spec_options()}
    check_keys("the file", table, (*options, *TEXTS, *TABLES))
    for key in TEXTS:
        check_value(key, table.get(key, ""), TEXT)
    given = {option.name: (key, option) for key, option in options.items() if key in table}
    values = {name: _value(key, table[key], option) for name, (key, option) in given.items()}
    builders = tables_by_model("model", table.get("model", {}))
    custom = {name: _custom_model(name, part, folder) for name, part in builders.items()}
    models = (*MODELS, *custom)
    known_of = partial(hyperparameters, custom_models=[*custom.values()])
    spaces = []
    for model, part in tables_by_model("search", table.get("search", {}), models).items():
        count = partial(count_parameters, custom[model]) if model in custom else None
        space = space_from(model, part, known_of(model), count)
        if space != built_in(model):  # spelled out, it is the same study
            spaces.append(space)
    trials = tables_in_order("trial", table.get("trial", []))
    parts: dict[str, Any] = {
        "preset": name,
        "question": table.get("question", ""),
        "models": models,
        "custom_models": (*custom.values(),),
        "trial_tables": tuple(trial_table_from(*item, models, known_of) for item in trials.items()),
        "spaces": tuple(spaces),
    }
    plain = StudySpec(**parts | values | {"readings": False})
    named = table.get("paper")
    paper = _named_paper(named, folder) if isinstance(named, str) else None
    labels = {label: config.model for label, config in named_settings(plain).items()}

    def its_model(label: str) -> str | None:
        return labels.get(label) or model_of(label, models)

    paper = paper_from(paper, table, models, known_of, its_model)
    data = table.get("data")
    if data is not None and "://" not in data:
        data = str(folder / os.path.expanduser(data))  # noqa: PTH111 (raises for no such user)
    return StudyFile(StudySpec(**parts | values, paper=paper), data)


def _named_paper(name: str, folder: Path) -> Paper:
    """The paper of this name: of the package, or of a file, relative to a study file's folder."""
    known = {path.name.removesuffix(".toml"): path for path in PAPERS.iterdir()}
    path = folder / os.path.expanduser(name)  # noqa: PTH111 (raises for no such user)
    if name not in known and path.suffix != ".toml":
        raise SpecError(
            f"paper is {name!r}, but takes {listed(known)}, the path of a file.toml, or a table."
        )
    text = _text_of(known.get(name, path), "a paper")
    if isinstance(other := _toml(text, name).get("paper"), str):
        raise SpecError(f"{name} names a paper itself, {other}; name that one.")
    if (paper := parse_study(text, name, "paper", path.parent).spec.paper) is None:
        raise SpecError(
            f"paper is {name!r}, a file that has no [paper], [[claim]] or [open] table."
        )
    return paper


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
    # For editors: this version's schema, on this machine. Elsewhere it is a comment like any other.
    lines = [
        f"#:schema {Path(str(SCHEMA)).as_uri()}",
        f"# The study {spec.preset}, whole: a file to change and to run.",
        *_dumped({"question": spec.question or None, "data": data}),
    ]
    for option in spec_options():
        key, value, help_ = key_of(option), getattr(spec, option.name), option.metadata["help"]
        known = _dumped({key: list(value) if isinstance(value, tuple) else value})
        lines += [f"{line} # {help_}" for line in known] or [f"# {key}: {help_}"]
    lines += [
        "# What hidden and readings stand for. A custom table takes the place of those of its"
        " group\n# and model.",
    ]
    for table in tables_of(spec):
        if table not in spec.trial_tables:
            lines += ["# [[trial]]", *(f"# {line}" for line in _dumped(table.to_table()))]
    tables: dict[str, Any] = dict.fromkeys(("paper", "trial", "claim", "open"))
    tables |= to_tables(spec.paper) if spec.paper else {}
    tables |= {
        "trial": [table.to_table() for table in spec.trial_tables],
        "model": {model.name: {"build": model.build} for model in spec.custom_models},
        "search": {name: spec.space_of(name).to_table() for name in spec.models},
    }
    for of_model in tables["search"].values():
        of_model.update({k: _inline(v) for k, v in of_model.items() if isinstance(v, dict)})
    return "\n".join([*lines, "", *_dumped({k: v for k, v in tables.items() if v}), ""])


def _dumped(values: Mapping[str, Any]) -> list[str]:
    """The lines of a TOML document, without what is None."""
    return tomlkit.dumps({k: v for k, v in values.items() if v is not None}).split("\n")[:-1]


def _inline(values: Mapping[str, Any]) -> Any:
    table = tomlkit.inline_table()
    table.update(values)
    return table


def key_of(option: Field[Any]) -> str:
    """The key of an option in a study file."""
    return str(option.metadata["flag"])[2:].replace("-", "_")


def _value(key: str, value: Any, option: Field[Any]) -> Any:
    """A value as the spec has it; the spec checks what it says."""
    takes_list = isinstance(option.default, tuple)
    if isinstance(value, list) != takes_list:
        takes = "a list" if takes_list else "one value"
        raise SpecError(f"{key} is {value!r}, but takes {takes}.")
    return tuple(value) if takes_list else value


def _custom_model(name: str, part: Mapping[str, Any], folder: Path) -> CustomModel:
    where = f"[model.{name}]"
    check_keys(where, part, ("build",))
    if not isinstance(build := part.get("build"), str):
        raise SpecError(f'{where} has no build; give build = "file.py:function".')
    return read_custom_model(name, build, folder)


def _in_keys(message: str) -> str:
    keys = {option.metadata["flag"]: key_of(option) for option in spec_options()}
    return re.sub(r"--[\w-]+", lambda flag: keys.get(flag[0], flag[0]), message)


def _preset(name: str) -> StudySpec:
    text = (files("study") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_study(text, f"{name}.toml", name, Path()).spec


PRESETS: Final = MappingProxyType({name: _preset(name) for name in PRESET_NAMES})
