"""The keys of the ``data:`` section as pydantic models; imported when a config is first made."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from scio._names import near_names
from scio._optional import require
from scio.data._arguments import nbytes
from scio.data.census import build_obs_value_filter

if not TYPE_CHECKING:
    require("pydantic", "DataConfig")

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

AT_KEY = "at_key"  # type of the errors that name a key of their section


def _path_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _date_text(value: Any) -> Any:
    # YAML reads 2024-07-01 without quotes as a date.
    return value.isoformat() if isinstance(value, datetime.date) else value


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        message = f"{value!r} is text; YAML takes 1e4 for text too, write {number:.12g}"
        raise ValueError(message)
    return value


def _checked_memory(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, str))):
        message = f"a number of bytes or a text like '2GB', not {value!r}"
        raise ValueError(message)
    nbytes("max_memory", value)
    return value


def _checked_filters(value: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        build_obs_value_filter(value)
    except TypeError as error:  # pydantic reports ValueError only
        raise ValueError(str(error)) from error
    return value


def _at_key(key: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError(AT_KEY, "{key}: {reason}", {"key": key, "reason": reason})


def _one_of(*allowed: Any) -> WrapValidator:
    """Say what is allowed where several types are, instead of one complaint per type."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            wanted = ", ".join(str(a) for a in allowed)
            message = f"expected {wanted}, not {value!r}"
            raise ValueError(message) from error

    return WrapValidator(check)


_Path = Annotated[str, BeforeValidator(_path_text)]
_Normalize = Literal["library_size", "log1p", "scran"]
_Flavor = Literal[
    "seurat",
    "cell_ranger",
    "seurat_v3",
    "seurat_v3_paper",
    "pearson_residuals",
    "poisson",
]
_Organism = Literal["homo_sapiens", "Homo sapiens", "mus_musculus", "Mus musculus"]
_Shuffle = Annotated[
    bool | Literal["exact", "block"], _one_of("true", "false", "'exact'", "'block'")
]
_ObsKeys = Annotated[list[str] | Literal["all"] | None, _one_of("a list of texts", "'all'", "null")]


class _Section(BaseModel):
    """A mapping in which every key is known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, content: Any) -> Any:
        if isinstance(content, Mapping):
            for key in content:
                if key not in cls.model_fields:
                    near = near_names(str(key), cls.model_fields)
                    raise _at_key(str(key), f"unknown key; {near}")
        return content

    def explicit(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the keys that were given, so that all others keep the defaults of what is built."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


class PreprocessingConfig(_Section):
    """Arguments of `PreprocessingPipeline`."""

    normalize: _Normalize | None = Field("library_size", description="Normalisation of counts")
    target_sum: Annotated[float | None, BeforeValidator(_number)] = Field(
        1e4, gt=0, allow_inf_nan=False, description="Counts per cell; null: the median, by fit"
    )
    hvg_selection: int | None = Field(None, ge=1, description="Highly variable genes to keep")
    log1p: bool = Field(True, description="ln(1 + x) after normalising")
    hvg_flavor: _Flavor = Field("seurat_v3", description="Flavour of the gene selection")
    batch_key: str | None = Field(None, description="obs column: genes are selected per batch")


class BatchSamplingConfig(_Section):
    """Arguments of `BatchAwareSampler`."""

    batch_key: str = Field("batch", description="obs column of the labels")
    exhausted: Literal["cycle", "stop"] = Field(
        "cycle", description="When a label has no cells left"
    )


class PerturbationConfig(_Section):
    """Columns that describe perturbations."""

    perturbation_key: str | None = None
    control_label: str = "control"
    dose_key: str | None = None
    dose_unit: str | None = None


class MultiSpeciesConfig(_Section):
    """One vocabulary over organisms."""

    organisms: list[str] = Field(default_factory=lambda: ["human", "mouse"], min_length=1)
    include_one2many: bool = False
    ortholog_table: _Path | None = None


# Keys that one kind of source reads and the others do not.
_KEYS_OF_SOURCE = {
    "paths": ("local", "shards", "streaming"),
    "organism": ("cellxgene_census",),
    "filters": ("cellxgene_census",),
    "census_version": ("cellxgene_census",),
}


class DataConfig(_Section):
    """The ``data:`` section; made by `load_config`, or from keywords.

    Every key is checked, at any depth; what is not given keeps the default of the class it goes to.
    ``DataConfig.model_json_schema()`` is its JSON schema, for editors.
    """

    source: Literal["local", "cellxgene_census", "shards", "streaming"] = Field(
        "local", description="Kind of source"
    )
    paths: list[_Path] | None = Field(
        None, min_length=1, description="Files: paths, globs, URLs or names of a DataRegistry"
    )
    gene_vocab: _Path = Field(
        "from_data", description="human_protein_coding, from_data or the path of a vocabulary file"
    )
    preprocessing: PreprocessingConfig | None = Field(None, description="null: raw values")
    max_genes: int | None = Field(None, ge=1, description="Most genes per cell")
    obs_keys: _ObsKeys = Field(
        None, description="obs columns in the metadata; null: the usual ones"
    )
    batch_size: int = Field(64, ge=1, description="Cells per batch")
    num_workers: int = Field(4, ge=0, description="Threads of the core")
    shuffle: _Shuffle = Field(True, description="Order of the cells")
    drop_last: bool = Field(True, description="Full batches only")
    pin_memory: bool = Field(True, description="Pinned batches where CUDA is present")
    seed: int = Field(0, ge=0, description="Of shuffle, splits and random choices")
    max_memory: Annotated[int | str | None, BeforeValidator(_checked_memory)] = Field(
        None, description="Hard cap of the loader, bytes or a text like 2GB"
    )
    cache: _Path | None = Field(None, description="Folder of fast copies, auto, or null for none")
    form: Literal["tokens", "dense", "csr"] = Field("tokens", description="What a batch holds")
    dtype: Literal["float32", "float16"] = Field("float32", description="Of the values of a batch")
    batch_sampling: BatchSamplingConfig | None = Field(
        None, description="Batches balanced by label"
    )
    organism: _Organism | None = Field(None, description="Census: organism")
    filters: Annotated[dict[str, Any] | None, AfterValidator(_checked_filters)] = Field(
        None, description="Census: obs column to the values wanted"
    )
    census_version: Annotated[str | None, BeforeValidator(_date_text)] = Field(
        None, description="Census: a date, stable or latest"
    )
    perturbation: PerturbationConfig | None = Field(None, description="Columns of perturbations")
    multi_species: MultiSpeciesConfig | None = Field(None, description="Several organisms")
    storage_options: dict[str, Any] | None = Field(None, description="Remote files: for fsspec")
    cache_dir: _Path | None = Field(None, description="Remote files: local copies")

    @model_validator(mode="after")
    def _keys_fit_the_source(self) -> Self:
        for key, sources in _KEYS_OF_SOURCE.items():
            if getattr(self, key) is not None and self.source not in sources:
                reason = f"is read with source {' or '.join(sources)}, not with {self.source}"
                raise _at_key(key, reason)
        key = "paths"
        if self.paths is None and self.source in _KEYS_OF_SOURCE[key]:
            raise _at_key(key, f"missing; source {self.source} reads the files that it lists")
        return self
