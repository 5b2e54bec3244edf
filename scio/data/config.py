"""The ``data:`` section of a YAML file: checked when it is loaded, built when it is needed.

Needs pydantic 2 and, for files, PyYAML (``pip install 'scio[config]'``), imported on use.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from scio._names import near_names
from scio._optional import require
from scio.data._arguments import cache_directory
from scio.data._fit_cache import fit_cached
from scio.data.dataloader import CellDataLoader
from scio.data.dataset import CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.data.preprocessing import PreprocessingPipeline
from scio.data.registry import DataRegistry, is_url, local_files, looks_like_path
from scio.data.samplers import BatchAwareSampler
from scio.errors import IOFormatError, UnsupportedError

if TYPE_CHECKING:
    from scio.data._config_model import DataConfig

__all__ = ["DataConfig", "DataPipeline", "build", "load_config"]


def __getattr__(name: str) -> Any:
    if name == "DataConfig":
        from scio.data._config_model import DataConfig

        return DataConfig
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


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
    from scio.data._config_model import DataConfig  # raises the pip line without pydantic

    validation_error = require("pydantic", "DataConfig").ValidationError
    try:
        return DataConfig.model_validate(dict(section))
    except validation_error as error:
        lines = [_line(detail, prefix) for detail in error.errors(include_url=False)]
    message = "\n".join(dict.fromkeys(lines))
    raise ValueError(f"{name}: {message}" if name else message)


def _line(detail: Any, prefix: tuple[str, ...]) -> str:
    """One error as "dotted path: what is wrong"."""
    from scio.data._config_model import AT_KEY

    place = [*prefix, *map(str, detail["loc"])]
    context = detail.get("ctx", {})
    if detail["type"] == AT_KEY:
        place.append(context["key"])
        text = context["reason"]
    elif "error" in context:  # raised by a validator of ours
        text = str(context["error"])
    else:
        text = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r}"
        if detail["type"] == "literal_error" and isinstance(detail["input"], str):
            text += f"; {near_names(detail['input'], _quoted(context['expected']))}"
    return f"{'.'.join(place)}: {text}"


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
    UnsupportedError
        If the config is sound but asks for something that this version of scio cannot build.
    FileNotFoundError, KeyError, ValueError
        For files, names and columns that do not exist.

    Notes
    -----
    What the preprocessing must learn (``hvg_selection``, ``target_sum: null``) is learned from the
    training part alone; size factors (``normalize: scran``) are computed for all cells, each by its
    own counts.  With ``cache`` the fitted pipeline is kept there and used again for the same cells of
    the same files.

    Examples
    --------
    >>> import scio
    >>> from scio.data import build
    >>> made = build({"paths": [scio.datasets.pbmc3k()], "max_genes": 512, "batch_size": 100})
    >>> len(made.dataset), len(made.loader)
    (2700, 27)
    """
    if isinstance(config, (str, os.PathLike, Mapping)):
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
            **config.preprocessing.explicit(type(config.preprocessing).model_fields)
        )
        if pipeline.needs_fit:
            training = _training_name(split) if split else None
            whole = _dataset(config, files, vocab, None)
            parts = _parts(whole, config.seed, split, by)
            cache = cache_directory(config.cache)
            pipeline = fit_cached(pipeline, parts[training], whole, files, cache)
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
