"""Checks a custom model's builder: `convae.custom_models` runs this in another process.

    python -m convae.custom_check read|count REQUEST ANSWER

Both are JSON files; an answer has what was found, or the fault that makes the builder unusable.
"""

import importlib
import inspect
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from convae.config import FIELD_KINDS, IMAGE_SHAPE, TrialConfig, as_arguments
from convae.custom_models import CustomModel, FolderModules
from convae.device import open_device
from convae.models import build_model, count_trainable
from convae.pinned import keras, tf, with_settings

MOST_LETTERS = 400  # of an error's message; Keras' may be a page
_SHAPE = f"images {IMAGE_SHAPE}"


class BuilderError(Exception):
    """What is wrong with a builder, and what to do about it."""


def read(name: str, file: str, function: str) -> CustomModel:
    """The builder with its files.

    Raises:
        BuilderError: it is no builder of such a model.
    """
    path = Path(file)
    _text_of(path)
    modules = FolderModules(path.parent, [path.stem])
    hides = f"; or call it otherwise: it hides the module {path.stem}"
    otherwise = hides if path.stem in sys.modules else ""
    with modules.present():
        what, remedy = f"{path.name} cannot be imported", f"mend it{otherwise}"
        with with_settings(), _told(what, remedy, path.parent):
            found = getattr(importlib.import_module(path.stem), function, None)
        if not callable(found):
            raise BuilderError(f"{path.name} has no function {function}; define it there")
        defaults = _defaults(found)
        remedy = f"it must build a model by its defaults{otherwise}"
        with with_settings(), _told("the builder fails", remedy, path.parent):
            found(**defaults)  # which may import more
    sources = {str(module.__file__) for module in modules.loaded.values()} - {file}
    texts = [
        (Path(source).relative_to(path.parent).as_posix(), _text_of(Path(source)))
        for source in (file, *sorted(sources))
    ]
    custom = CustomModel(
        name=name, function=function, files=tuple(texts), defaults=as_arguments(defaults)
    )
    # The copies, as other machines have them: a file beside them that is no module is missing.
    model = _built(custom, custom.defaults)
    check_model(model)
    _check_reload(model)
    other = _built(custom, custom.defaults, seed=1)
    drawn = [pair for pair in zip(_weights(model), _weights(other), strict=True) if np.ptp(pair[0])]
    return replace(custom, seeds_itself=any(np.array_equal(*pair) for pair in drawn))


def _text_of(path: Path) -> str:
    """The text that other machines will have as UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BuilderError(f"{path.name} is no UTF-8 ({error}); save it as UTF-8") from error


def count(custom: CustomModel, settings: Sequence[Mapping[str, Any]]) -> list[int]:
    """The trainable parameters at each setting.

    Raises:
        BuilderError: the model cannot be built at a setting.
    """
    counts = []
    for setting in settings:
        try:
            model = _built(custom, as_arguments(setting))
            check_model(model)
        except BuilderError as fault:
            words = ", ".join(f"{name} = {value!r}" for name, value in setting.items())
            raise BuilderError(f"with {words or 'its defaults'}, {fault}") from fault
        counts.append(count_trainable(model))
    return counts


def check_model(model: Any) -> None:
    """Whether it is a model of images to images that can be trained.

    Raises:
        BuilderError: it is not.
    """
    if not isinstance(model, keras.Model):
        raise BuilderError(
            f"the builder returns a {type(model).__name__}; it must return a keras.Model"
        )
    shapes = [tuple(x.shape) for x in getattr(model, "inputs", None) or ()]
    if shapes and (len(shapes) > 1 or not _takes_images(shapes[0])):
        told = " and ".join(map(str, shapes))
        raise BuilderError(
            f"the model takes {told}, but must take {_SHAPE}: {(None, *IMAGE_SHAPE)}"
        )
    for n in (2, 3):  # any number of them
        images = np.random.default_rng(0).random((n, *IMAGE_SHAPE), np.float32)
        with _told("the model fails", f"it must take {_SHAPE}, also in TensorFlow's graph"):
            tf.function(lambda x: model(x, training=True), autograph=False)(images)
            outputs = model(images, training=False)
        shape = getattr(outputs, "shape", type(outputs).__name__)
        if shape != images.shape:
            told = f"{shape} from {images.shape}"
            raise BuilderError(f"the model returns {told}; it must return images of the same shape")
        if not outputs.dtype.is_floating or not np.isfinite(tf.cast(outputs, tf.float32)).all():
            raise BuilderError("the model returns what is no finite number; mend its layers")
    if not count_trainable(model):
        raise BuilderError("the model has no trainable weights; give it some")


def _check_reload(model: keras.Model) -> None:
    """Whether a saved model can be loaded again where the builder's modules cannot be found."""
    images = np.random.default_rng(0).random((2, *IMAGE_SHAPE), np.float32)
    with tempfile.NamedTemporaryFile(suffix=".keras") as saved:
        with _told("the model cannot be saved", "give its layers a get_config"):
            model.save(saved.name)
        remedy = (
            "decorate each class of yours with @keras.saving.register_keras_serializable() and give"
            " it a get_config with its arguments"
        )
        with _told("the model cannot be loaded again once it is saved", remedy):
            # A Lambda layer is no safe file, but one that its owner can load.
            again = keras.models.load_model(saved.name, compile=False, safe_mode=False)
            first, second = (np.asarray(one(images, training=False)) for one in (model, again))
            if not np.allclose(first, second, atol=1e-4):
                raise BuilderError(f"the model computes something else once it is saved; {remedy}")


def _weights(model: keras.Model) -> list[Any]:
    return [np.asarray(variable) for variable in model.trainable_variables]


def _takes_images(shape: tuple[int | None, ...]) -> bool:
    given = (None, *IMAGE_SHAPE)
    return len(shape) == 4 and all(n in (None, of) for n, of in zip(shape, given, strict=True))


def _built(custom: CustomModel, arguments: str, seed: int = 0) -> keras.Model:
    with _told("the builder fails", "mend it (only Python modules go along with it)"):
        return build_model(TrialConfig(model=custom.name, arguments=arguments, seed=seed), [custom])


def _defaults(function: Any) -> dict[str, Any]:
    """The keyword arguments and their defaults."""
    defaults = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise BuilderError(
                f"the argument {name} cannot be given by name; take keyword arguments only"
            )
        value = parameter.default
        if value is parameter.empty:
            raise BuilderError(f"the argument {name} has no default; give it one")
        plain = isinstance(value, int | float | bool | str)
        if not plain or (isinstance(value, float) and not np.isfinite(value)):
            takes = "take numbers, texts, true and false"
            raise BuilderError(f"the argument {name} has the default {value!r}; {takes}")
        if name in FIELD_KINDS:
            raise BuilderError(f"the argument {name} is called like one of every trial; rename it")
        defaults[name] = value
    return defaults


@contextmanager
def _told(what: str, remedy: str, folder: Path | None = None) -> Iterator[None]:
    """Turns whatever is raised into a fault, with the line of the folder that it comes from."""
    try:
        yield
    except (BuilderError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a builder may call sys.exit
        text = "".join(traceback.format_exception_only(error))
        if isinstance(error, SyntaxError):
            text = f"{type(error).__name__}: {error}"
        text = " ".join(re.sub(r"\x1b\[\d*m", "", text).split()).rstrip(".")
        if len(text) > MOST_LETTERS:
            text = text[:MOST_LETTERS] + "…"
        frames = traceback.extract_tb(error.__traceback__)
        places = [frame for frame in frames if folder and Path(frame.filename).parent == folder]
        line = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
        raise BuilderError(f"{what}{line} ({text}); {remedy}") from error


def main(task: str, asked: str, answered: str) -> None:
    """Answers a request."""
    request = json.loads(Path(asked).read_text("utf-8"))
    # As in a worker, where TensorFlow has begun, so that its threads can no longer be set.
    open_device(gpu=False, n_threads=1)
    tf.zeros(1)
    answer: dict[str, Any]
    try:
        if task == "read":
            answer = {"found": read(**request).to_dict()}
        else:
            custom = CustomModel.from_dict(request["custom"])
            answer = {"found": count(custom, request["settings"])}
    except BuilderError as fault:
        answer = {"fault": str(fault)}
    Path(answered).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
