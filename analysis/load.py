"""A run folder as pandas tables with fixed dtypes, for the analysis and for anybody else.

A run folder lies on a disk (a path) or in a bucket (a URI such as s3://bucket/results/NAME).
`study.folder` reads it, and names in one sentence whatever is missing, torn or unexpected in it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd
import pyarrow as pa

from analysis.settings import Estimate, Setting, models_of, ratio, settings_of
from study.folder import manifest, schema, tables
from study.folder.paper import Paper
from study.folder.storage import RunFolder

DTYPES: Final = MappingProxyType[schema.Kind, Literal["str", "Int64", "float64", "boolean"]](
    {"text": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
)


@dataclass(frozen=True)
class Reading:
    """A reading of what a paper leaves open: the study's, from the manifest."""

    levels: Mapping[str, Any]  # the values by name
    settings: Mapping[str, str]  # the label under it of each setting, by its label in the study
    default: bool  # whether the reference trials have it


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder that has been read."""

    folder: str  # its path or URI, as given
    manifest: Mapping[str, Any]  # of `load_manifest`
    trials: pd.DataFrame  # of `load_run`, as `epochs`
    epochs: pd.DataFrame
    reconstructions: pd.DataFrame  # of `load_reconstructions`
    label: str = ""  # a letter that stands for it among others

    @cached_property
    def settings(self) -> list[Setting]:
        """Of `analysis.settings.settings_of`: the rows of the run's frame."""
        return settings_of(self.trials)

    def of(self, group: str, model: str | None = None) -> list[Setting]:
        """The settings of a group, of one model if it is given."""
        return [s for s in self.settings if s.group == group and model in (None, s.model)]

    @cached_property
    def reference(self) -> list[Setting]:
        """The reference settings that were trained for the longest and tested."""
        full = [s for s in self.of(schema.REFERENCE) if s.split == schema.FULL_SPLIT]
        tested = [s for s in full if len(s.by_seed())]
        return [s for s in tested if s.epochs == max(other.epochs for other in tested)]

    @cached_property
    def reference_trials(self) -> pd.DataFrame:
        """The completed trials of `reference`."""
        none = self.trials.iloc[:0]
        return pd.concat([s.completed for s in self.reference] or [none], ignore_index=True)

    @cached_property
    def searched(self) -> pd.DataFrame:
        """The trials of its searches."""
        return self.trials[self.trials["group"] == schema.SEARCH]

    @cached_property
    def completed_search(self) -> pd.DataFrame:
        """Those that have an objective, each model's best first, with their `rank`."""
        done = self.searched[self.searched["state"] == schema.COMPLETED]
        done = done.dropna(subset=schema.OBJECTIVE)
        rank = done.groupby("model")[schema.OBJECTIVE].rank(method="min").astype(int)
        return done.assign(rank=rank).sort_values(["model", schema.OBJECTIVE], kind="stable")

    @property
    def samplers(self) -> list[str]:
        """What proposed them."""
        spec = self.manifest["spec"]
        return spec["samplers"] or [spec["sampler"]]

    @cached_property
    def named(self) -> dict[str, Setting]:
        """The `reference` settings by label: "conv", "dense-512", "unet"."""
        return {s.label: s for s in self.reference}

    @cached_property
    def paper(self) -> Paper | None:
        """The paper whose claims the study tests."""
        fields = self.manifest["spec"].get("paper")
        return Paper.from_dict(fields) if fields else None

    @cached_property
    def readings(self) -> list[Reading]:
        """Every reading of what the paper leaves open, of one that leaves nothing open one."""
        return [Reading(**fields) for fields in self.manifest.get("readings", [])]

    @cached_property
    def pair(self) -> tuple[str, str]:
        """The names of the two reference settings whose ratio is shown; empty for none.

        They are those of the paper's headline, or else a setting beside that of another model.
        """
        if self.paper is not None:
            return self.paper.headline.pair if self.paper.headline else ("", "")
        found = [s for s in self.reference if s.base and s.base.model != s.model]
        return (found[0].label, found[0].value("base")) if found else ("", "")

    @property
    def ratio_name(self) -> str:
        """The ratio of `pair` in words: "conv ÷ dense-512"."""
        return " ÷ ".join(filter(None, self.pair))

    def two(self, named: Mapping[str, Setting]) -> tuple[Setting | None, Setting | None]:
        """The settings of `pair` among settings by name; None for one that is not there."""
        top, bottom = map(named.get, self.pair)
        return top, bottom

    def pair_ratio(self, metric: str = schema.TEST_MSE) -> Estimate | None:
        """The ratio of the reference settings of `pair`, paired by seed."""
        return ratio(*self.two(self.named), metric)

    @cached_property
    def models(self) -> list[str]:
        """conv, dense, then the custom models, of all trials."""
        return models_of(self.trials)


def read_run(path: str | os.PathLike[str], label: str = "") -> Run:
    """All of a run folder; RunFolderError for one that is not whole."""
    manifest, tables = load_manifest(path), load_run(path)
    return Run(os.fspath(path), manifest, *tables, load_reconstructions(path), label)


def load_run(path: str | os.PathLike[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials, and their epochs, of the run folder STORAGE/NAME, a path or a URI.

    Returns:
        A row a trial, and a row a trial and epoch, with the columns of
        `study.folder.schema.TRIAL_COLUMNS` and `EPOCH_COLUMNS` in that order and the dtypes of
        `DTYPES`. What was not measured is missing.

    Raises:
        RunFolderError: a table is absent, torn, or not what the schema says.
    """
    columns = schema.TRIAL_COLUMNS, schema.EPOCH_COLUMNS
    trials, epochs = map(_frame, tables.read_tables(RunFolder(path)), columns)
    return trials, epochs


def load_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What was run, from study.json: spec, code, versions, hardware, data and command line.

    Raises:
        RunFolderError: it is absent or torn, or lacks one of `study.folder.manifest.KEYS`.
    """
    return manifest.read_manifest(RunFolder(path))


def load_reconstructions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Test images beside their reconstructions, a row an image and trial.

    Returns:
        The columns of `study.folder.schema.RECONSTRUCTION_COLUMNS`; `original` and
        `reconstruction` hold arrays of 28 · 28 pixels in 0..255. Empty if the run saved none.

    Raises:
        RunFolderError: a file is torn, or its columns, choices or image sizes are unexpected.
    """
    frame: pd.DataFrame = tables.read_reconstructions(RunFolder(path)).to_pandas()
    return frame


def _frame(table: pa.Table, columns: Mapping[str, schema.Kind]) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=_NULLABLE.get)
    return frame.astype({column: DTYPES[kind] for column, kind in columns.items()})


# Whole numbers and truth values keep their gaps on the way, instead of turning to floats.
_NULLABLE: Final = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
