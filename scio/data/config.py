"""The ``data:`` section of a YAML file: checked when it is loaded, built when it is needed.

Needs pydantic 2 and, for files, PyYAML (``pip install 'scio[config]'``); importing this module without
pydantic says so.
"""

from __future__ import annotations

import datetime
import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast, overload

from scio._names import near_names
from scio._optional import require
from scio.data.census import build_obs_value_filter
from scio.data.dataloader import CellDataLoader, _nbytes
from scio.data.dataset import CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.data.preprocessing import PreprocessingPipeline
from scio.data.registry import DataRegistry, is_url, local_files, looks_like_path
from scio.data.samplers import BatchAwareSampler
from scio.errors import IOFormatError, UnsupportedError

if not TYPE_CHECKING:
    require("pydantic", "scio.data.config")

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

__all__ = ["DataConfig", "DataPipeline", "build", "load_config"]

_UNKNOWN_KEY = "unknown_key"


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
    _nbytes("max_memory", value)
    return value


def _checked_filters(value: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        build_obs_value_filter(value)
    except TypeError as error:  # pydantic reports ValueError only
        raise ValueError(str(error)) from error
    return value


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
                    raise PydanticCustomError(
                        _UNKNOWN_KEY,
                        "unknown key {key!r}; {near}",
                        {"key": str(key), "near": near_names(str(key), cls.model_fields)},
                    )
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
                message = (
                    f"{key} is read with source {' or '.join(sources)}, not with {self.source}"
                )
                raise ValueError(message)
        if self.paths is None and self.source in _KEYS_OF_SOURCE["paths"]:
            message = f"paths is missing: source {self.source} reads the files that it lists"
            raise ValueError(message)
        return self


@dataclass(frozen=True, slots=True)
class DataPipeline:
    """What a config builds.

    Attributes
    ----------
    vocab : GeneVocab
    pipeline : PreprocessingPipeline or None
        None: raw values.
    dataset : CellDataset
    loader : CellDataLoader
    """

    vocab: GeneVocab
    pipeline: PreprocessingPipeline | None
    dataset: CellDataset
    loader: CellDataLoader


# --- loading


def load_config(path_or_dict: str | os.PathLike[str] | Mapping[str, Any]) -> DataConfig:
    """Read the ``data:`` section of a YAML file, or of a mapping.

    Parameters
    ----------
    path_or_dict : path or mapping
        A file must have the key ``data``; other keys belong to other programs and are not looked at.
        A mapping has it too, or is the section itself.

    Returns
    -------
    DataConfig
        From a file: relative paths and globs are made absolute, they begin at the folder of the file.
        URLs and words (names of a `DataRegistry`) stay as they are.

    Raises
    ------
    ValueError
        For an unknown key, a wrong type or value, or missing ``paths``; the message has the dotted path
        of the key and the nearest name.  `IOFormatError`, a ValueError, if the file is no YAML.
    MissingDependencyError
        If PyYAML is not installed.

    Examples
    --------
    >>> from scio.data import load_config
    >>> load_config({"source": "local", "paths": ["a.h5ad"], "max_genes": 2048}).max_genes
    2048
    """
    if isinstance(path_or_dict, Mapping):
        is_whole = "data" in path_or_dict
        section = path_or_dict["data"] if is_whole else path_or_dict
        return _validated(section, prefix=("data",) if is_whole else ())
    path = Path(path_or_dict)
    config = _validated(_read_section(path), prefix=("data",), name=str(path))
    return _with_absolute_paths(config, path.absolute().parent)


def _read_section(path: Path) -> Any:
    yaml = require("yaml", "load_config")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"{path} is no YAML: {error}"
        raise IOFormatError(message) from error
    if not isinstance(content, Mapping) or "data" not in content:
        found = near_names("data", map(str, content)) if isinstance(content, Mapping) else "no keys"
        message = f"{path} has no key 'data' at the top; {found}"
        raise ValueError(message)
    return content["data"]


def _validated(section: Any, *, prefix: tuple[str, ...], name: str = "") -> DataConfig:
    if not isinstance(section, Mapping):
        where = ".".join(prefix) or "the config"
        message = f"{where} is a mapping of keys to values, not {section!r}"
        raise ValueError(message)
    try:
        return DataConfig.model_validate(dict(section))
    except ValidationError as error:
        lines = [_line(detail, prefix) for detail in error.errors(include_url=False)]
    message = "\n".join(dict.fromkeys(lines))
    raise ValueError(f"{name}: {message}" if name else message)


def _line(detail: Any, prefix: tuple[str, ...]) -> str:
    """One error as "dotted path: what is wrong"."""
    place = [*prefix, *map(str, detail["loc"])]
    context = detail.get("ctx", {})
    text = str(context["error"]) if "error" in context else detail["msg"]
    if detail["type"] == _UNKNOWN_KEY:
        return f"{'.'.join([*place, context['key']])}: unknown key; {context['near']}"
    if "error" not in context:
        text = f"{text[0].lower()}{text[1:]}, not {detail['input']!r}"
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        text += f"; {near_names(detail['input'], _quoted(context['expected']))}"
    return f"{'.'.join(place)}: {text}" if place else text


def _quoted(expected: str) -> list[str]:
    """Names in pydantic's "'a', 'b' or 'c'"."""
    return expected.split("'")[1::2]


def _with_absolute_paths(config: DataConfig, folder: Path) -> DataConfig:
    changed: dict[str, Any] = {}
    if config.paths is not None:
        changed["paths"] = [_absolute(p, folder) for p in config.paths]
    if config.gene_vocab not in _VOCABS:
        changed["gene_vocab"] = _absolute(config.gene_vocab, folder, is_file=True)
    if config.cache is not None and config.cache != "auto":
        changed["cache"] = _absolute(config.cache, folder, is_file=True)
    if config.cache_dir is not None:
        changed["cache_dir"] = _absolute(config.cache_dir, folder, is_file=True)
    species = config.multi_species
    if species is not None and species.ortholog_table is not None:
        table = _absolute(species.ortholog_table, folder, is_file=True)
        changed["multi_species"] = species.model_copy(update={"ortholog_table": table})
    return config.model_copy(update=changed)


def _absolute(text: str, folder: Path, *, is_file: bool = False) -> str:
    if is_url(text) or not (is_file or looks_like_path(text)):
        return text
    path = os.path.expanduser(text)
    if not is_file and glob.has_magic(path) and not (folder / path).exists():
        return os.path.join(glob.escape(str(folder)), path)  # the folder is no pattern
    return os.path.normpath(folder / path)


# --- building

_VOCABS = ("human_protein_coding", "from_data")
_LOADER_KEYS = (
    "batch_size",
    "num_workers",
    "shuffle",
    "drop_last",
    "pin_memory",
    "seed",
    "max_memory",
    "cache",
    "form",
    "dtype",
)
_LATER_KEYS = ("perturbation", "multi_species", "storage_options", "cache_dir")


@overload
def build(
    config: DataConfig | str | os.PathLike[str] | Mapping[str, Any],
    *,
    split: None = None,
    by: str | None = None,
    registry: DataRegistry | None = None,
) -> DataPipeline: ...
@overload
def build(
    config: DataConfig | str | os.PathLike[str] | Mapping[str, Any],
    *,
    split: Mapping[str, float],
    by: str | None = None,
    registry: DataRegistry | None = None,
) -> dict[str, DataPipeline]: ...
def build(
    config: DataConfig | str | os.PathLike[str] | Mapping[str, Any],
    *,
    split: Mapping[str, float] | None = None,
    by: str | None = None,
    registry: DataRegistry | None = None,
) -> DataPipeline | dict[str, DataPipeline]:
    """Open the files of a config and make vocabulary, pipeline, dataset and loader.

    Parameters
    ----------
    config : DataConfig, path or mapping
        What `load_config` returns or takes.
    split : mapping of str to float, optional
        Shares of parts, as `CellDataset.split` takes them, with the seed of the config.
    by : str, optional
        With `split`: obs column whose groups stay whole.
    registry : DataRegistry, optional
        Knows the names in ``paths``.

    Returns
    -------
    DataPipeline
        With `split` a dict of them, one for each part, over the same open files.  The part "train", or
        the first, follows the config; the others come whole and in order, without ``shuffle``,
        ``drop_last`` and ``batch_sampling``.

    Raises
    ------
    MissingDependencyError
        If the kind of source needs a package that is not installed; it has the pip line.
    NotFittedError
        If the preprocessing must learn from data (``hvg_selection``, "scran", ``target_sum: null``):
        it would be fitted on the training part, and this version of scio cannot learn yet.
    UnsupportedError
        If the config is sound but asks for something that this version of scio cannot build.
    FileNotFoundError, KeyError, ValueError
        For files, names and columns that do not exist.

    Examples
    --------
    >>> import scio
    >>> from scio.data import build
    >>> made = build({"paths": [scio.datasets.pbmc3k()], "max_genes": 512, "batch_size": 100})
    >>> len(made.dataset), len(made.loader)
    (2700, 27)
    """
    if not isinstance(config, DataConfig):
        config = load_config(config)
    if by is not None and split is None:
        message = "by= belongs to split=: give the shares of the parts too"
        raise ValueError(message)
    _check_buildable(config)
    files = _files(config, registry or DataRegistry())
    vocab = _vocab(config.gene_vocab)
    pipeline = None
    if config.preprocessing is not None:
        pipeline = PreprocessingPipeline(
            **config.preprocessing.explicit(PreprocessingConfig.model_fields)
        )
        if pipeline.needs_fit:
            training = _training_name(split) if split else None
            parts = _parts(_dataset(config, files, vocab, None), config.seed, split, by)
            pipeline.fit(parts[training])
    parts = _parts(_dataset(config, files, vocab, pipeline), config.seed, split, by)
    if split is None:
        return _finished(config, pipeline, parts[None], is_training=True)
    training = _training_name(split)
    return {
        cast("str", name): _finished(config, pipeline, part, is_training=name == training)
        for name, part in parts.items()
    }


def _check_buildable(config: DataConfig) -> None:
    """Stop at what cannot be built, before anything is opened."""
    if config.source == "cellxgene_census":
        require("cellxgene_census", "source: cellxgene_census")
    if config.source != "local":
        message = (
            f"source {config.source} loads as a config, but this version of scio cannot build it"
        )
        raise UnsupportedError(message)
    for key in _LATER_KEYS:
        if getattr(config, key) is not None:
            message = f"{key} loads as a config, but this version of scio cannot build it"
            raise UnsupportedError(message)


def _files(config: DataConfig, registry: DataRegistry) -> list[Path]:
    paths = config.paths or []
    return local_files([file for path in paths for file in registry.resolve(path)])


def _vocab(text: str) -> GeneVocab | None:
    if text == "from_data":
        return None
    return GeneVocab.human_protein_coding() if text == _VOCABS[0] else GeneVocab.from_file(text)


def _dataset(
    config: DataConfig,
    files: Sequence[Path],
    vocab: GeneVocab | None,
    pipeline: PreprocessingPipeline | None,
) -> CellDataset:
    return CellDataset(
        list(files), vocab, pipeline, **config.explicit(("max_genes", "obs_keys", "seed"))
    )


def _training_name(split: Mapping[str, float]) -> str:
    return "train" if "train" in split else next(iter(split))


def _parts(
    dataset: CellDataset, seed: int, split: Mapping[str, float] | None, by: str | None
) -> dict[str | None, CellDataset]:
    """Parts by name; the whole under None when there is no split."""
    if split is None:
        return {None: dataset}
    return dict(dataset.split(split, seed=seed, by=by).items())


def _finished(
    config: DataConfig,
    pipeline: PreprocessingPipeline | None,
    dataset: CellDataset,
    *,
    is_training: bool,
) -> DataPipeline:
    arguments = config.explicit(_LOADER_KEYS)
    sampling = config.batch_sampling
    if not is_training:
        arguments.update(shuffle=False, drop_last=False)
    elif sampling is not None:
        arguments["batch_sampler"] = BatchAwareSampler(
            dataset,
            sampling.batch_key,
            config.batch_size,
            shuffle=bool(config.shuffle),
            seed=config.seed,
            drop_last=config.drop_last,
            exhausted=sampling.exhausted,
        )
    loader = CellDataLoader(dataset, **arguments)
    return DataPipeline(dataset.gene_vocab, pipeline, dataset, loader)
