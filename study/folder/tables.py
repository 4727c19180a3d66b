"""The tables of trials and epochs, written and read here alone, and the journal beside them.

The tables are rewritten whole, so not at every change: what changed since lies in the journal, a
numbered file a change, each written before whatever rests on it. A table tells in its metadata up
to which number it holds the journal, so that a reader finds the same whenever a writer died.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from convae.config import IMAGE_SHAPE
from study.folder import schema
from study.folder.storage import RunFolder, RunFolderError, first_line

Row = dict[str, Any]

ARROW_TYPES: Final[Mapping[schema.Kind, pa.DataType]] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}
RESTORE: Final = "restore it from a copy, or run the study again"
ABSENT: Final = (
    "does not exist; give a run folder STORAGE/NAME that python -m study.run has written"
)
OTHER_VERSION: Final = "use the version of the code that wrote it"
N_PIXELS: Final = math.prod(IMAGE_SHAPE)
JOURNAL_KEY: Final = b"journal"  # of a table's metadata


@dataclass(frozen=True)
class Change:
    """What became of a trial."""

    trial: Row  # in the table of trials
    after: int | None = None  # of the epochs that it is known to have, so many stay; None: all do
    epochs: Sequence[Row] = ()  # the epochs after these, in order


def arrow_schema(columns: Mapping[str, schema.Kind]) -> pa.Schema:
    """The Arrow schema of one of `study.folder.schema`'s tables."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in columns.items()])


TRIALS: Final = arrow_schema(schema.TRIAL_COLUMNS)
EPOCHS: Final = arrow_schema(schema.EPOCH_COLUMNS)


class TableWriter:
    """Writes the tables of a run folder that exists, and is this process's alone.

    It raises a `RunFolderError` if storage fails; what was known before still is.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._names = folder.names(schema.JOURNAL_FOLDER)
        self._number = max(map(_number, self._names), default=0)
        tables = (folder.read(name) for name in (schema.TRIALS_FILE, schema.EPOCHS_FILE))
        self._number = max([self._number, *(_held(_parquet(t)) for t in tables if t)])

    def append(self, changes: Iterable[Change]) -> None:
        """Enters changes in the journal, or none of them. From here on a crash loses none."""
        entry = [vars(change) for change in changes]
        name = f"{schema.JOURNAL_FOLDER}/{self._number + 1:08d}.json"
        self._folder.write(name, json.dumps(entry).encode())
        self._number += 1
        self._names.append(name)

    def rewrite(self, trials: Sequence[Row], epochs: Sequence[Row]) -> None:
        """Writes both tables, as Parquet and as CSV, and clears the journal."""
        metadata = {JOURNAL_KEY: str(self._number)}
        write_parquet = partial(pq.write_table, write_page_checksum=True)
        # Trials first: a reader that reads them last finds the trial of every epoch.
        for rows, columns, parquet, csv in (
            (trials, TRIALS, schema.TRIALS_FILE, schema.TRIALS_CSV_FILE),
            (epochs, EPOCHS, schema.EPOCHS_FILE, schema.EPOCHS_CSV_FILE),
        ):
            table = pa.Table.from_pylist(rows, columns.with_metadata(metadata))
            for name, write in ((parquet, write_parquet), (csv, pa.csv.write_csv)):
                sink = pa.BufferOutputStream()
                write(table, sink)
                self._folder.write(name, sink.getvalue().to_pybytes())
        while self._names:
            self._folder.delete(self._names[0])
            del self._names[0]


def read_tables(folder: RunFolder) -> tuple[pa.Table, pa.Table]:
    """The trials and their epochs, the journal's included, of a study that runs or has ended.

    Returns:
        A row a trial and a row a trial and epoch, with the columns and types of `TRIALS` and
        `EPOCHS`.

    Raises:
        RunFolderError: a file is absent, torn, or not what the schema says.
    """
    # In this order, since a writer adds to the journal, writes trials, then epochs, and clears it.
    journal = _read_journal(folder)
    epochs = _read_table(folder, schema.EPOCHS_FILE, schema.EPOCHS_CSV_FILE, EPOCHS)
    trials = _read_table(folder, schema.TRIALS_FILE, schema.TRIALS_CSV_FILE, TRIALS)
    for table, name in ((trials, schema.TRIALS_FILE), (epochs, schema.EPOCHS_FILE)):
        if table is None:
            raise RunFolderError(f"{folder}/{name} {ABSENT}.")
    try:
        trials = _with_trials(trials, [c for n, cs in journal if n > _held(trials) for c in cs])
        epochs = _with_epochs(epochs, [c for n, cs in journal if n > _held(epochs) for c in cs])
    except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        what = f"holds what is no journal ({first_line(error)})"
        raise _damaged(folder, schema.JOURNAL_FOLDER, what) from error
    _check(folder, trials, epochs)
    return trials, epochs


def read_reconstructions(folder: RunFolder) -> pa.Table:
    """Test images beside their reconstructions, a row an image and trial.

    Returns:
        The columns of `study.folder.schema.RECONSTRUCTION_COLUMNS`. Empty if there are none.

    Raises:
        RunFolderError: a file is torn, or its columns, choices or image sizes are unexpected.
    """
    columns = list(schema.RECONSTRUCTION_COLUMNS)
    tables = []
    for name in folder.names(schema.RECONSTRUCTIONS_FOLDER):
        if not name.endswith(".parquet"):
            continue
        table = _parse(folder, name, folder.read(name) or b"")
        _check_columns(folder, name, table, columns)
        table = table.select(columns)
        _check_known(folder, name, table, "choice", schema.CHOICES)
        for image in ("original", "reconstruction"):
            if pc.any(pc.not_equal(pc.list_value_length(table[image]), N_PIXELS)).as_py():
                raise _damaged(folder, name, f"has {image} images that are not {N_PIXELS} pixels")
        tables.append(table)
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in columns})


def _number(name: str) -> int:
    return int(PurePosixPath(name).stem)


def _read_journal(folder: RunFolder) -> list[tuple[int, list[Change]]]:
    """Its changes by number, in order."""
    journal: list[tuple[int, list[Change]]] = []
    for name in folder.names(schema.JOURNAL_FOLDER):
        content = folder.read(name)
        if content is None:  # a writer has cleared it since, and written the tables before
            continue
        try:
            entry = json.loads(content)
            changes = [Change(**change) for change in entry]
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{folder}/{name} is torn; delete it, and its trials go on from what is known"
                " besides."
            ) from error
        journal.append((_number(name), changes))
    return journal


def _held(table: pa.Table | None) -> int:
    """The number up to which a table holds the journal."""
    metadata = (table.schema.metadata if table is not None else None) or {}
    return int(metadata.get(JOURNAL_KEY, 0))


def _with_trials(table: pa.Table, changes: Sequence[Change]) -> pa.Table:
    if not changes:
        return table
    rows = {row["trial_id"]: row for row in table.to_pylist()}
    rows |= {change.trial["trial_id"]: change.trial for change in changes}
    return pa.Table.from_pylist(list(rows.values()), TRIALS)


def _with_epochs(table: pa.Table, changes: Sequence[Change]) -> pa.Table:
    changes = [change for change in changes if change.after is not None]
    if not changes:
        return table
    changed = pc.is_in(table["trial_id"], pa.array({c.trial["trial_id"] for c in changes}))
    histories: dict[str, list[Row]] = {}
    for row in table.filter(changed).to_pylist():
        histories.setdefault(row["trial_id"], []).append(row)
    for history in histories.values():
        history.sort(key=lambda row: row["epoch"])
    for change in changes:
        histories.setdefault(change.trial["trial_id"], [])[change.after :] = change.epochs
    rows = [row for history in histories.values() for row in history]
    rest = table.filter(pc.invert(changed))
    return pa.concat_tables([rest.replace_schema_metadata(), pa.Table.from_pylist(rows, EPOCHS)])


def _read_table(folder: RunFolder, parquet: str, csv: str, columns: pa.Schema) -> pa.Table | None:
    """One table; from its CSV where that is all there is, as in folders kept in a repository."""
    name = parquet
    if (content := folder.read(parquet)) is not None:
        table = _parse(folder, parquet, content)
    elif (content := folder.read(csv)) is not None:
        name = csv
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(content),
                # An empty text is in quotes there, what is missing is not.
                convert_options=pa.csv.ConvertOptions(
                    column_types=columns, strings_can_be_null=True, quoted_strings_can_be_null=False
                ),
            )
        except pa.ArrowException as error:
            raise _damaged(folder, csv, f"is torn ({error})") from error
    else:
        return None
    _check_columns(folder, name, table, columns.names)
    metadata, table = table.schema.metadata, table.select(columns.names)
    for i, field in enumerate(columns):
        try:
            table = table.set_column(i, field, table[field.name].cast(field.type))
        except pa.ArrowException as error:
            what = f"has values in {field.name} that are not {field.type}"
            raise _damaged(folder, name, what) from error
    return table.replace_schema_metadata(metadata)


def _parse(folder: RunFolder, name: str, content: bytes) -> pa.Table:
    try:
        return _parquet(content)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(folder, name, "is torn, not whole Parquet") from error


def _parquet(content: bytes) -> pa.Table:
    source = pa.BufferReader(content)
    table = pq.ParquetFile(source, page_checksum_verification=True).read()
    table.validate(full=True)  # of a file without checksums: what is no text, say
    return table


def _check(folder: RunFolder, trials: pa.Table, epochs: pa.Table) -> None:
    name = schema.TRIALS_FILE
    custom_models = pc.unique(trials.filter(pc.is_valid(trials["arguments"]))["model"]).to_pylist()
    _check_known(folder, name, trials, "state", schema.STATES)
    _check_known(folder, name, trials, "group", schema.GROUPS)
    _check_known(folder, name, trials, "model", (*schema.MODELS, *custom_models))
    counts = pc.value_counts(trials["trial_id"]).to_pylist()
    for count in counts:
        if count["counts"] > 1:
            raise _damaged(folder, name, f"has trial {count['values']} more than once")
    name = schema.EPOCHS_FILE
    _check_known(folder, name, epochs, "trial_id", [count["values"] for count in counts])
    spans = epochs.group_by("trial_id").aggregate(
        [("epoch", "min"), ("epoch", "max"), ("epoch", "count_distinct"), ("trial_id", "count")]
    )
    for span in spans.to_pylist():
        n = span["trial_id_count"]
        if (span["epoch_min"], span["epoch_max"], span["epoch_count_distinct"]) != (1, n, n):
            what = f"does not count the epochs of trial {span['trial_id']} from 1 without gaps"
            raise _damaged(folder, name, what)


def _damaged(folder: RunFolder, name: str, what: str) -> RunFolderError:
    return RunFolderError(f"{folder}/{name} {what}; {RESTORE}.")


def _check_columns(folder: RunFolder, name: str, table: pa.Table, columns: Iterable[str]) -> None:
    if missing := [column for column in columns if column not in table.column_names]:
        raise RunFolderError(f"{folder}/{name} lacks {_listed(missing)}; {OTHER_VERSION}.")


def _check_known(
    folder: RunFolder, name: str, table: pa.Table, column: str, known: Iterable[str]
) -> None:
    found = {str(value) for value in pc.unique(table[column]).to_pylist()}
    if unknown := sorted(found - set(known)):
        raise RunFolderError(
            f"{folder}/{name} has an unknown {column}, {_listed(unknown)}; {OTHER_VERSION}."
        )


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
