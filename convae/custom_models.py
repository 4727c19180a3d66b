"""Custom models: a user's builder in a Python file, which is shipped as its text.

A builder is a function whose keyword arguments are the model's hyperparameters, and which returns
a Keras model of images of `IMAGE_SHAPE` in [0, 1] to the same. Another process checks it
(`convae.custom_check`): so the study's driver needs no TensorFlow, and a builder that prints, hangs
or kills its process does no harm. The text is in `study.json`: `--resume` needs no file of the
user's, on whatever machine.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from convae.config import is_custom_name
from convae.errors import UserError
from convae.processes import process_folder

# Starting TensorFlow takes ten of them on a busy machine; a setting less than one.
CHECK_SECONDS = 300.0
SECONDS_A_SETTING = 5.0
TELL_SECONDS = 15.0  # after which a check says that it is at work
_IMPORTING = threading.RLock()  # sys.path and sys.modules are the whole process's


class CustomModelError(UserError):
    """A builder that cannot be used; the message names it and says what it must be."""

    @classmethod
    def of(cls, name: str, build: str, what: str) -> "CustomModelError":
        """Says what is wrong with a builder, and what to do about it."""
        return cls(f'[model.{name}] build = "{build}": {what}.')


@dataclass(frozen=True, kw_only=True)
class CustomModel:
    """A builder, with all that it needs to be run on another machine."""

    name: str  # of the model, as `TrialConfig.model` has it
    function: str  # the builder's name in the first of the files
    # Path and text of the Python files that it imports from its folder, relative to that.
    files: tuple[tuple[str, str], ...]
    defaults: str  # of its keyword arguments, as `TrialConfig.arguments` has them
    seeds_itself: bool = False  # so that initial weights, some or all, are the same with every seed

    @property
    def build(self) -> str:
        """The builder as a study file names it, but relative to its folder."""
        return f"{self.files[0][0]}:{self.function}"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, in types that JSON holds."""
        return {**asdict(self), "files": dict(self.files)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CustomModel":
        """The inverse of `to_dict`, also after a trip through JSON."""
        return cls(**{**values, "files": tuple(values["files"].items())})


def read_custom_model(
    name: str, build: str, folder: Path, seconds: float = CHECK_SECONDS
) -> CustomModel:
    """Reads a builder with the files that it needs, and has it checked at its defaults.

    Args:
        name: of the model.
        build: "file.py:function".
        folder: to which the file is relative.
        seconds: after which the check is given up.

    Raises:
        CustomModelError: it is missing, or is no builder of such a model.
    """
    path, _, function = build.rpartition(":")
    file = folder / path
    takes = "a name is a letter, then at most 39 letters, digits and _, and none built in"
    further = f"Python cannot import {file.name}; give it a name without a further point"
    for right, what in (
        (is_custom_name(name), f"{takes}; call it otherwise"),
        (path.endswith(".py") and function.isidentifier(), 'build takes "file.py:function"'),
        ("." not in file.stem, further),
        (file.is_file(), f"there is no file {file}; name one relative to {folder}"),
    ):
        if not right:
            raise CustomModelError.of(name, build, what)
    request = {"name": name, "file": str(file.resolve()), "function": function}
    return CustomModel.from_dict(_ask("read", request, name, build, seconds))


def count_parameters(custom: CustomModel, settings: Sequence[Mapping[str, Any]]) -> list[int]:
    """The trainable parameters that a model has at each setting, which checks the setting.

    Settings are keyword arguments of the builder; its defaults stand for those left out.

    Raises:
        CustomModelError: it cannot be built at a setting, which is named.
    """
    if not settings:
        return []
    request = {"custom": custom.to_dict(), "settings": [dict(setting) for setting in settings]}
    seconds = CHECK_SECONDS + SECONDS_A_SETTING * len(settings)
    counts: list[int] = _ask("count", request, custom.name, custom.build, seconds)
    return counts


@cache
def load_builder(custom: CustomModel) -> Callable[..., Any]:
    """The builder, imported from copies of its files.

    It builds one model at a time, and finds its modules whatever others have the same names. The
    global settings of Keras that its files change hold while it builds, and for no other model.
    """
    from convae.pinned import settings, with_settings

    folder = process_folder("convae-custom-")
    for path, text in custom.files:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    tops = {Path(path).parts[0].removesuffix(".py") for path, _ in custom.files}
    modules = FolderModules(folder, tops)
    with modules.present(), with_settings():
        module = importlib.import_module(Path(custom.files[0][0]).stem)
        function = getattr(module, custom.function)
        its_settings = settings()

    def build(**keywords: Any) -> Any:
        with modules.present(), with_settings(its_settings):  # it may import more of them
            return function(**keywords)

    return build


class FolderModules:
    """The modules of a folder, which can be imported and found only in a block of `present`.

    So two folders may have modules of the same names, and they hide no installed ones.
    """

    def __init__(self, folder: Path, tops: Collection[str]) -> None:
        self._folder = folder
        self._tops = tops  # its top-level names, which hide others' in such a block
        self.loaded: dict[str, ModuleType] = {}  # those imported so far, by name

    @contextmanager
    def present(self) -> Iterator[None]:
        """While the block runs, the modules are found as by a script in the folder."""
        with _IMPORTING:
            hidden = [name for name in sys.modules if name.partition(".")[0] in self._tops]
            displaced = {name: sys.modules.pop(name) for name in hidden}
            others = {name.partition(".")[0] for name in sys.modules}
            sys.modules.update(self.loaded)
            sys.path.insert(0, str(self._folder))
            importlib.invalidate_caches()  # the folder may be a moment old
            try:
                yield
            finally:
                sys.path.remove(str(self._folder))
                for name, module in list(sys.modules.items()):
                    if name.partition(".")[0] not in others and self._has(name, module):
                        self.loaded[name] = sys.modules.pop(name)
                sys.modules.update(displaced)

    def _has(self, name: str, module: ModuleType) -> bool:
        base = self._folder.joinpath(*name.split("."))
        return getattr(module, "__file__", None) in (f"{base}.py", f"{base}/__init__.py")


def _ask(task: str, request: Mapping[str, Any], name: str, build: str, seconds: float) -> Any:
    """Has another process do a task of `convae.custom_check`."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as temporary:
        asked, answered, said = (Path(temporary, part) for part in ("asked", "answered", "said"))
        asked.write_text(json.dumps(request), "utf-8")
        command = [sys.executable, "-m", "convae.custom_check", task, str(asked), str(answered)]
        line = f"[model.{name}] is being checked, for {seconds:.0f} s at most"
        telling = threading.Timer(TELL_SECONDS, print, [line], {"file": sys.stderr, "flush": True})
        with said.open("wb") as output:
            try:
                telling.start()
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=seconds,
                ).returncode
            except subprocess.TimeoutExpired as error:
                what = f"it was not done after {seconds:.0f} s; let it only build a model"
                raise CustomModelError.of(name, build, what) from error
            finally:
                telling.cancel()
        if not answered.is_file():
            lines = re.sub(r"\x1b\[\d*m", "", said.read_text("utf-8", "replace")).split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
            what = f"its process ended with code {code} ({last}); let it return a model"
            raise CustomModelError.of(name, build, what)
        answer = json.loads(answered.read_text("utf-8"))
    if "fault" in answer:
        raise CustomModelError.of(name, build, answer["fault"])
    return answer["found"]
