"""Processed files: what a pipeline makes of a file, written once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._progress import Progress
from scio._storage.atomic import check_target
from scio.data._arguments import cache_directory
from scio.data.anndata_store import AnnDataStore
from scio.data.preprocessing import PreprocessingPipeline
from scio.errors import KeyNotFoundError
from scio.io import AnnDataFile, _coding
from scio.io import open as open_file
from scio.io._plain import Members, Table
from scio.io._profiles import Profile, WriteReport
from scio.io.writer import (
    Context,
    SparseStream,
    StorageOptions,
    index_dtype_for,
    published_file,
    write_element,
)
from scio.pp._matrix import Rows
from scio.pp._source import Block, Source, is_anndata, open_source

TOTALS, FACTORS, MARK = "scio_total_counts", "scio_size_factor", "highly_variable"
_FOLDER = "processed"


def write_processed(
    adata: Any,
    output_path: str | os.PathLike[str] | None,
    pipeline: PreprocessingPipeline | None,
    *,
    overwrite: bool,
    compression: str | None,
    obs_keys: str | Sequence[str] | None,
    cache: str | os.PathLike[str],
) -> Path:
    """Do what `scio.data.preprocess_and_cache` says."""
    options = StorageOptions(compression)
    given = PreprocessingPipeline() if pipeline is None else pipeline
    if isinstance(adata, (str, os.PathLike)):
        with open_file(adata) as file:
            return write_processed(
                file, output_path, pipeline, overwrite=overwrite, compression=compression,
                obs_keys=obs_keys, cache=cache,
            )  # fmt: skip
    if not isinstance(adata, AnnDataFile) and not is_anndata(adata):
        message = f"data come as an AnnData, a path or a handle, not as {type(adata).__name__}"
        raise TypeError(message)
    names = _checked_keys(adata, obs_keys)
    if output_path is None:
        folder = cache_directory(cache)
        assert folder is not None
        settings = {"compression": compression, "obs_keys": names}
        target = folder / _FOLDER / f"{_key(adata, given, settings)}.h5ad"
        if target.exists() and not overwrite:
            return target  # whole, since files appear whole
        target.parent.mkdir(parents=True, exist_ok=True)
        overwrite = True
    else:
        target = Path(output_path)
        check_target(target, overwrite=overwrite)
    if given.needs_fit and not given.is_fitted:
        given = PreprocessingPipeline.from_dict(given.to_dict()).fit(adata)
        scale = _own_factors(given)
    else:
        scale = _checked_factors(given, adata)
    _Work(adata, given, names, scale).write(target, options, overwrite=overwrite)
    return target


def _own_factors(pipeline: PreprocessingPipeline) -> NDArray[np.float64] | None:
    return pipeline.size_factors if pipeline.normalize == "scran" else None


def _checked_factors(pipeline: PreprocessingPipeline, adata: Any) -> NDArray[np.float64] | None:
    """Size factors of the cells; refuses data that the pipeline was not fitted for."""
    if not pipeline.needs_fit:
        return None
    store = AnnDataStore(adata, obs_keys=[])
    if pipeline.selected_genes is not None:
        pipeline.check_genes(store)
    return pipeline.size_factors_of(store, np.arange(len(store), dtype=np.int64))


def _checked_keys(adata: Any, obs_keys: str | Sequence[str] | None) -> list[str]:
    """Names of the columns of obs that are written."""
    have = [str(name) for name in adata.obs.columns]
    if obs_keys is None or (isinstance(obs_keys, str) and obs_keys == "all"):
        return have
    if isinstance(obs_keys, str):
        message = f"obs_keys is 'all' or a list of keys, such as [{obs_keys!r}], not {obs_keys!r}"
        raise TypeError(message)
    for key in obs_keys:
        if key not in have:
            message = f"obs has no column {key!r}; {near_names(str(key), have)}"
            raise KeyNotFoundError(message)
    return [str(key) for key in obs_keys]


class _Work:
    """One file in the making."""

    def __init__(
        self,
        adata: Any,
        pipeline: PreprocessingPipeline,
        obs_names: list[str],
        factors: NDArray[np.float64] | None,
    ) -> None:
        self._adata, self._pipeline, self._obs_names = adata, pipeline, obs_names
        self._factors = factors
        self._source: Source = open_source(adata)
        self._dtype = "float64" if self._source.dtype == np.float64 else "float32"
        self._columns = _columns_of(pipeline, self._source.var_names)
        self._place = np.full(self._source.n_vars, -1, dtype=np.int32)
        self._place[self._columns] = np.arange(len(self._columns), dtype=np.int32)
        self._totals: list[NDArray[np.float64]] = []

    def write(self, target: Path, options: StorageOptions, *, overwrite: bool) -> None:
        """Write it, whole or not at all."""
        source = self._source
        context = Context(options, Profile(None), WriteReport(str(target)), _coding.to_plain)
        shape = (source.n_obs, len(self._columns))
        with published_file(target, overwrite=overwrite) as writer:
            stream = SparseStream(
                writer,
                "/X",
                shape=shape,
                data_dtype=self._dtype,
                index_dtype=index_dtype_for(shape[1]),
                options=options,
            )
            with Progress(source.n_obs, unit="cells", what="preprocess") as bar:
                for block in source.blocks(check=True):
                    stream.append(*self._processed(block))
                    bar.update(block.n_rows)
            stream.finish()
            write_element(writer, "/", self._members(), context)
            if isinstance(self._adata, AnnDataFile):
                self._adata.file.core.check_unchanged()

    def _processed(self, block: Block) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int64]]:
        """data, indices and entries of each row of the next rows."""
        indices = block.indices
        if indices.dtype not in (np.int32, np.int64):
            indices = indices.astype(np.int64)
        shape = (block.n_rows, self._source.n_vars)
        rows = Rows(None, "", block.data, indices, block.indptr, shape)
        totals, _, facts = _core.row_totals(*rows.arrays, shape=shape)
        if facts["first_infinite"] >= 0:
            row, gene = rows.place(facts["first_infinite"])
            message = (
                f"{self._source.name} holds {rows.data[facts['first_infinite']]} in cell "
                f"{str(self._source.obs_names[block.start + row])!r} ({block.start + row}), gene "
                f"{str(self._source.var_names[gene])!r} ({gene}); expected finite numbers"
            )
            raise ValueError(message)
        self._totals.append(totals)
        if facts["has_duplicates"]:
            rows = rows.summed()
        assert rows.indices is not None
        assert rows.indptr is not None
        data, indices, indptr = rows.data, rows.indices, rows.indptr
        if len(self._columns) < self._source.n_vars:
            data, indices, indptr = _core.csr_subset(
                data, indices, indptr, None, self._place, len(self._columns), shape=shape
            )
        divisors, target = self._scaling(block, totals)
        if divisors is None and not self._pipeline.takes_log:
            values = data.astype(self._dtype, copy=False)
        else:
            values = _core.normalize_log1p(
                data, indptr, divisors, target, self._pipeline.takes_log, dtype=self._dtype
            )
        return values, indices.astype(np.int32, copy=False), np.diff(indptr)

    def _scaling(
        self, block: Block, totals: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64] | None, float]:
        """Every value becomes x * (target / divisor of its cell)."""
        if self._pipeline.normalize == "library_size":
            target = self._pipeline.total_target
            assert target is not None
            return totals, target
        if self._factors is not None:
            return np.ascontiguousarray(self._factors[block.start : block.stop]), 1.0
        return None, 1.0

    def _members(self) -> Members:
        """Everything but the matrix."""
        obs = _table(self._adata.obs, "/obs", None)
        obs.columns.update(self._obs_columns(obs))
        for name in set(obs.columns).difference(self._obs_names, (TOTALS, FACTORS)):
            del obs.columns[name]
        var = _table(self._adata.var, "/var", self._columns)
        if self._pipeline.selected_genes is not None:
            var.columns[MARK] = np.ones(len(self._columns), dtype=np.bool_)
        uns: dict[str, Any] = {"scio": {"preprocessing": _record(self._pipeline), **self._state()}}
        if self._pipeline.takes_log:
            uns["log1p"] = {"base": None}
        parts: dict[str, Any] = {"obs": obs, "var": var, "uns": uns}
        parts |= {name: {} for name in ("obsm", "varm", "obsp", "varp", "layers")}
        return Members("anndata", parts)

    def _obs_columns(self, obs: Table) -> dict[str, Any]:
        totals = np.concatenate(self._totals) if self._totals else np.zeros(0)
        columns: dict[str, Any] = {TOTALS: totals}
        if self._factors is not None:
            columns[FACTORS] = self._factors
        else:
            obs.columns.pop(FACTORS, None)
        return columns

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        if self._pipeline.normalize == "library_size":
            state["target_sum"] = self._pipeline.total_target
        if self._pipeline.takes_log:
            state["log1p"] = True
        return {"state": {"X": state}} if state else {}


def _columns_of(pipeline: PreprocessingPipeline, names: Iterable[Any]) -> NDArray[np.int64]:
    """Columns that stay: of each selected name the first."""
    genes = [str(name) for name in names]
    selected = pipeline.selected_genes
    if selected is None:
        return np.arange(len(genes), dtype=np.int64)
    wanted, kept = set(selected), []
    for column, gene in enumerate(genes):
        if gene in wanted:
            wanted.discard(gene)
            kept.append(column)
    return np.array(kept, dtype=np.int64)


def _table(frame: Any, path: str, rows: NDArray[np.int64] | None) -> Table:
    if hasattr(frame, "iloc"):
        part = frame if rows is None else frame.iloc[rows]
        return _coding.table_of(part, path, convert_strings=True, is_axis=True)
    return Table.lazy(frame, rows)


def _record(pipeline: PreprocessingPipeline) -> dict[str, Any]:
    """``uns["scio"]["preprocessing"]``: for people, and as JSON from which it is rebuilt."""
    arguments = ("normalize", "target_sum", "hvg_selection", "hvg_flavor", "log1p", "batch_key")
    values = {name: getattr(pipeline, name) for name in arguments}
    record: dict[str, Any] = {k: "none" if v is None else v for k, v in values.items()}
    if pipeline.selected_genes is not None:
        record["selected_genes"] = np.array(pipeline.selected_genes, dtype=object)
    record["fit_info"] = json.dumps(pipeline.fit_info)
    record["json"] = json.dumps(pipeline.to_dict())
    return record


# --- key of the cache


def _key(adata: Any, pipeline: PreprocessingPipeline, settings: dict[str, Any]) -> str:
    """Hash of the content, the pipeline and the settings of the file."""
    sha = hashlib.sha256(_core.__version__.encode())
    sha.update(json.dumps([pipeline.content_hash, settings], sort_keys=True).encode())
    if isinstance(adata, AnnDataFile) and os.path.exists(adata.name):
        with open(adata.name, "rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
        return sha.hexdigest()[:40]
    source = open_source(adata)
    sha.update(f"{source.shape} {source.dtype}".encode())
    for block in source.blocks():
        for array in (block.data, block.indices, block.indptr):
            sha.update(np.ascontiguousarray(array).data)
    for names in (source.obs_names, source.var_names):
        sha.update(json.dumps([str(name) for name in names]).encode())
    for frame in (adata.obs, adata.var):
        for column in frame.columns:
            values = frame[column]
            sha.update(
                json.dumps([str(column), str(values.dtype), [str(v) for v in values]]).encode()
            )
    return sha.hexdigest()[:40]
