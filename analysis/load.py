"""Reads a run folder into validated tables with fixed dtypes.

A run folder lies on a disk (a path) or in a bucket (a URI such as s3://bucket/results/NAME).
Whatever is missing, torn or unexpected in it is named in one sentence that says what to do.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from study import schema

DTYPES: Final = MappingProxyType[schema.Kind, Literal["str", "Int64", "float64", "boolean"]](
    {"text": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
)

# The manifest's keys that the analysis reads; a dictionary asks for keys of that part.
MANIFEST_KEYS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "schema_version": (),
        "name": (),
        "status": (),
        "started_utc": (),
        "finished_utc": (),
        "wall_seconds": (),
        "command": (),
        "spec": ("preset",),
        "code": ("version", "git_commit", "git_dirty"),
        "versions": (),
        "hardware": ("cpu", "n_cpus", "memory_gib", "gpus"),
        "resources": ("cpus_per_trial", "gpus_per_trial", "max_concurrent"),
        "data": ("source",),
    }
)

COPY_AGAIN: Final = "copy the run folder again, or run the study again"
N_PIXELS: Final = 28 * 28


class RunFolderError(ValueError):
    """A run folder that cannot be read; the message names the file and the remedy."""


def load_run(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials and their epoch histories.

    Args:
        path: the run folder STORAGE/NAME, a local path or a URI.

    Returns:
        `trials`, a row a trial, and `epochs`, a row a trial and epoch, with the columns of
        `study.schema.TRIAL_COLUMNS` and `EPOCH_COLUMNS` in that order and the dtypes of `DTYPES`.
        What was not measured is missing.

    Raises:
        RunFolderError: if a table is absent, torn, or not what the schema says.
    """
    filesystem, folder = open_folder(path)
    tables = []
    for name, columns in (
        (schema.TRIALS_FILE, schema.TRIAL_COLUMNS),
        (schema.EPOCHS_FILE, schema.EPOCH_COLUMNS),
    ):
        table = _read_parquet(filesystem, folder, name, columns)
        tables.append(_with_dtypes(table, columns, f"{folder}/{name}"))
    trials, epochs = tables
    _check_trials(trials, f"{folder}/{schema.TRIALS_FILE}")
    _check_epochs(epochs, trials, f"{folder}/{schema.EPOCHS_FILE}")
    return trials, epochs


def load_manifest(path: str | Path) -> dict[str, Any]:
    """What was run: spec, code, versions, hardware, data and command line, from study.json.

    Raises:
        RunFolderError: if the file is absent or torn, or lacks one of `MANIFEST_KEYS`.
    """
    filesystem, folder = open_folder(path)
    name = f"{folder}/{schema.MANIFEST_FILE}"
    try:
        manifest = json.loads(_read_bytes(filesystem, folder, schema.MANIFEST_FILE))
    except ValueError as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{name} is not whole JSON ({error}); {COPY_AGAIN}.") from error
    if not isinstance(manifest, dict):
        raise RunFolderError(f"{name} does not hold a JSON object; {COPY_AGAIN}.")
    for key, parts in MANIFEST_KEYS.items():
        if key not in manifest:
            raise RunFolderError(f"{name} has no {key!r}; {COPY_AGAIN}.")
        for part in parts:
            if not isinstance(manifest[key], dict) or part not in manifest[key]:
                raise RunFolderError(f"{name} has no '{key}.{part}'; {COPY_AGAIN}.")
    if manifest["schema_version"] != schema.SCHEMA_VERSION:
        raise RunFolderError(
            f"{name} has schema version {manifest['schema_version']}, but this code reads"
            f" {schema.SCHEMA_VERSION}; use the version of the code that wrote the run."
        )
    return manifest


def load_reconstructions(path: str | Path) -> pd.DataFrame:
    """Test images beside their reconstructions, a row an image and trial.

    Returns:
        The columns of `study.schema.RECONSTRUCTION_COLUMNS`; `original` and `reconstruction` hold
        arrays of 28 · 28 pixels in 0..255. Empty if the run saved none.

    Raises:
        RunFolderError: if a file is torn, or its columns, choices or image sizes are unexpected.
    """
    filesystem, folder = open_folder(path)
    selector = fs.FileSelector(f"{folder}/{schema.RECONSTRUCTIONS_FOLDER}", allow_not_found=True)
    columns = schema.RECONSTRUCTION_COLUMNS
    frames = []
    for info in sorted(filesystem.get_file_info(selector), key=lambda info: str(info.path)):
        if info.extension != "parquet":
            continue
        name = f"{schema.RECONSTRUCTIONS_FOLDER}/{info.base_name}"
        frame = _read_parquet(filesystem, folder, name, columns).to_pandas()
        _check_known(frame["choice"], schema.CHOICES, "choice", info.path)
        for image in ("original", "reconstruction"):
            if not all(len(pixels) == N_PIXELS for pixels in frame[image]):
                raise RunFolderError(
                    f"{info.path} has {image} images that are not {N_PIXELS} pixels; {COPY_AGAIN}."
                )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))


def open_folder(path: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system that holds a folder, and the folder's path in it.

    Raises:
        RunFolderError: for a URI that pyarrow cannot open.
    """
    text = str(path)
    if "://" not in text:
        return fs.LocalFileSystem(), str(Path(text).expanduser().absolute())
    try:
        filesystem, folder = fs.FileSystem.from_uri(text)
    except (ValueError, OSError, ImportError) as error:
        raise RunFolderError(
            f"{text} cannot be opened ({error}); give a local path or an s3:// or gs:// URI."
        ) from error
    return filesystem, folder.rstrip("/")


def _read_bytes(filesystem: fs.FileSystem, folder: str, name: str) -> bytes:
    try:
        with filesystem.open_input_stream(f"{folder}/{name}") as stream:
            return bytes(stream.read())
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{folder}/{name} does not exist; give a run folder STORAGE/NAME that"
            " python -m study.run has written."
        ) from error
    except OSError as error:
        raise RunFolderError(
            f"{folder}/{name} cannot be read ({error}); check its permissions."
        ) from error


def _read_parquet(
    filesystem: fs.FileSystem, folder: str, name: str, columns: Iterable[str]
) -> pa.Table:
    content = _read_bytes(filesystem, folder, name)
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(
            f"{folder}/{name} is torn, not whole Parquet; {COPY_AGAIN}."
        ) from error
    for column, value in schema.LATER_COLUMNS.items():
        if column in columns and column not in table.column_names:
            table = table.append_column(column, pa.array([value] * len(table), pa.string()))
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise RunFolderError(
            f"{folder}/{name} lacks {_listed(missing)}; use the version of the code that wrote it."
        )
    return table.select(list(columns))


def _with_dtypes(table: pa.Table, columns: Mapping[str, schema.Kind], name: str) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    for column, kind in columns.items():
        try:
            frame[column] = frame[column].astype(DTYPES[kind])
        except (TypeError, ValueError) as error:
            raise RunFolderError(
                f"{name} has values in {column} that are not {kind}; {COPY_AGAIN}."
            ) from error
    return frame


def _check_trials(trials: pd.DataFrame, name: str) -> None:
    for column, known in (
        ("state", schema.STATES),
        ("group", schema.GROUPS),
        ("model", schema.MODELS),
    ):
        _check_known(trials[column], known, column, name)
    twice = trials.loc[trials["trial_id"].duplicated(), "trial_id"]
    if len(twice):
        raise RunFolderError(f"{name} has trial {twice.iloc[0]} more than once; {COPY_AGAIN}.")


def _check_epochs(epochs: pd.DataFrame, trials: pd.DataFrame, name: str) -> None:
    _check_known(epochs["trial_id"], trials["trial_id"], "trial_id", name)
    for trial_id, history in epochs.groupby("trial_id")["epoch"]:
        if set(history.dropna()) != set(range(1, len(history) + 1)):
            raise RunFolderError(
                f"{name} does not count the epochs of trial {trial_id} from 1 without gaps;"
                f" {COPY_AGAIN}."
            )


def _check_known(values: pd.Series, known: Iterable[str], column: str, name: str) -> None:
    unknown = sorted({str(value) for value in values} - set(known))
    if unknown:
        raise RunFolderError(
            f"{name} has an unknown {column}, {_listed(unknown)}; use the version of the code that"
            " wrote it."
        )


def _listed(names: Iterable[str]) -> str:
    first, rest = (every := list(names))[:5], every[5:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")
