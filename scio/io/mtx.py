"""Reading folders with a MatrixMarket file and its lists of cells and genes."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scio._names import near_names
from scio._optional import require
from scio.errors import CorruptFileError, IOFormatError, UnsupportedError
from scio.io._foreign import make_adata, note, positions

_MATRICES = ("matrix.mtx", "count_matrix.mtx", "DGE.mtx")
_EXPRESSION = "Gene Expression"
# what SciPy and gzip raise over what the file holds
_BAD_CONTENT = (ValueError, OverflowError, EOFError, zlib.error, gzip.BadGzipFile)


def read_10x_mtx(
    path: str | os.PathLike[str],
    *,
    var_names: Literal["gene_symbols", "gene_ids"] = "gene_symbols",
    make_unique: bool = True,
    gex_only: bool = True,
    prefix: str | None = None,
    dtype: DTypeLike = "float32",
) -> Any:
    """Read a MatrixMarket folder of Cell Ranger (any version), STARsolo or Parse Biosciences.

    Parameters
    ----------
    path : str or Path
        The folder; or the matrix itself, when the folder holds several.
    var_names : {"gene_symbols", "gene_ids"}
        What names the genes; the other becomes a column of ``var``.
    make_unique : bool
        Make repeated symbols unique by "-1", "-2" …; ids are left as they are.
    gex_only : bool
        Keep the features of type "Gene Expression" only, where the folder says types.
    prefix : str, optional
        What stands before the names of the files, e.g. ``"patientA_"``.
    dtype : dtype
        Type of the values.

    Returns
    -------
    anndata.AnnData
        `X` CSR of shape (n_cells, n_features), genes ascending in each cell, repeated entries summed.

    Raises
    ------
    FileNotFoundError
        If a file of the folder is missing.
    IOFormatError
        If it is not clear which matrix is meant, or which of its sides are the cells.
    CorruptFileError
        If the matrix is malformed, or fits the lists neither way.
    MissingDependencyError
        If anndata or SciPy is not installed.

    Notes
    -----
    Files: ``matrix.mtx``, ``barcodes.tsv`` and ``genes.tsv`` or ``features.tsv``, each plain or
    ``.gz``.  Names, arguments and results are those of ``scanpy.read_10x_mtx`` (1.11), but X is CSR
    and a gene called "NA" keeps its name.  The matrix is genes x cells, or cells x genes when only
    that fits the lists.  Parse folders have ``all_genes.csv`` and may have ``cell_metadata.csv``;
    there the lengths of these lists decide, and a matrix that fits both ways is refused.

    Examples
    --------
    >>> import scio
    >>> adata = scio.read_10x_mtx("filtered_feature_bc_matrix/")  # doctest: +SKIP
    """
    if var_names not in ("gene_symbols", "gene_ids"):
        message = f"var_names is 'gene_symbols' or 'gene_ids', not {var_names!r}"
        raise ValueError(message)
    folder = _Folder(Path(path), prefix or "")
    genes = folder.genes()
    matrix = _read_matrix(folder.matrix, genes.n, folder.n_cells(), is_parse=genes.is_parse)
    obs_names, obs = folder.cells(matrix.shape[0])
    names, var = genes.named(var_names)
    if make_unique and var_names == "gene_symbols":
        names = _unique(names)
    keep: Any = slice(None)
    if gex_only and "feature_types" in var:
        keep = var["feature_types"] == _EXPRESSION
        matrix = matrix[:, np.flatnonzero(keep)] if not keep.all() else matrix
    return make_adata(
        matrix.astype(dtype, copy=False),
        obs_names=obs_names,
        var_names=names[keep],
        obs=obs,
        var={name: column[keep] for name, column in var.items()},
    )


def _unique(names: NDArray[Any]) -> NDArray[Any]:
    pandas = require("pandas", "read_10x_mtx")
    utils = require("anndata.utils", "read_10x_mtx")
    return np.asarray(utils.make_index_unique(pandas.Index(names)), dtype=object)


class _Folder:
    """The files that belong together."""

    def __init__(self, path: Path, prefix: str) -> None:
        is_file = path.is_file()
        self.folder = path.parent if is_file else path
        self.prefix = prefix
        if not self.folder.is_dir():
            message = f"{path} is no folder, nor a MatrixMarket file"
            raise FileNotFoundError(message)
        self.matrix = path if is_file else self._find_matrix()
        self.barcodes = self.find("barcodes.tsv")
        self.metadata = self.find("cell_metadata.csv")

    def find(self, name: str) -> Path | None:
        """The file of that name, plain or compressed."""
        for suffix in ("", ".gz"):
            candidate = self.folder / f"{self.prefix}{name}{suffix}"
            if candidate.is_file():
                return candidate
        return None

    def _missing(self, names: str) -> FileNotFoundError:
        listed = sorted(entry.name for entry in self.folder.iterdir())
        return FileNotFoundError(
            f"{self.folder} has no {names}, plain or .gz, with the prefix {self.prefix!r}; "
            f"{near_names(self.prefix + names.partition(' ')[0], listed)}"
        )

    def _find_matrix(self) -> Path:
        for name in _MATRICES:
            found = self.find(name)
            if found is not None:
                return found
        other = sorted(p for p in self.folder.glob(f"{self.prefix}*.mtx*") if p.is_file())
        if len(other) > 1:
            message = (
                f"{self.folder} holds several matrices ({', '.join(p.name for p in other)}): "
                "give the path of one of them"
            )
            raise IOFormatError(message)
        if not other:
            error = self._missing("matrix.mtx")
            raise error
        return other[0]

    def genes(self) -> _Genes:
        """Read the list of genes."""
        for name, is_legacy in (("genes.tsv", True), ("features.tsv", False)):
            path = self.find(name)
            if path is not None:
                return _Genes.from_tsv(path, is_legacy=is_legacy)
        path = self.find("all_genes.csv")
        if path is None:
            error = self._missing("features.tsv or genes.tsv or all_genes.csv")
            raise error
        return _Genes.from_csv(path)

    def n_cells(self) -> int | None:
        """How many cells the folder lists; None when it has no list."""
        if self.barcodes is not None:
            return len(_rows(self.barcodes, "\t"))
        return len(_rows(self.metadata, ",")) - 1 if self.metadata is not None else None

    def cells(self, n_cells: int) -> tuple[NDArray[Any], dict[str, Any]]:
        """Names and columns of the cells."""
        if self.barcodes is not None:
            return _objects([row[0] for row in _rows(self.barcodes, "\t")]), {}
        if self.metadata is None:
            note(f"{self.folder} has no list of cells (barcodes.tsv); positions name them")
            return positions(n_cells), {}
        pandas = require("pandas", "read_10x_mtx")
        frame = pandas.read_csv(self.metadata)
        columns = {str(name): frame[name].to_numpy() for name in frame.columns[1:]}
        return _objects(frame.iloc[:, 0].astype(str).tolist()), columns


class _Genes:
    """Columns of the list of genes, in scanpy's words."""

    def __init__(self, path: Path, columns: dict[str, NDArray[Any]], *, is_parse: bool) -> None:
        self.path = path
        self.columns = columns
        self.is_parse = is_parse

    @property
    def n(self) -> int:
        return len(self.columns["gene_ids"])

    @classmethod
    def from_tsv(cls, path: Path, *, is_legacy: bool) -> _Genes:
        names = ["gene_ids", "gene_symbols"] + ([] if is_legacy else ["feature_types"])
        return cls(path, _table(path, _rows(path, "\t"), names, n_least=2), is_parse=False)

    @classmethod
    def from_csv(cls, path: Path) -> _Genes:
        rows = _rows(path, ",")
        header = rows[0] if rows else []
        said = {"gene_id": "gene_ids", "gene_name": "gene_symbols"}
        names = [said.get(name, name) for name in header]
        if not {"gene_ids", "gene_symbols"} <= set(names):
            message = f"{path}: the first line names {', '.join(header) or 'nothing'}; expected gene_id and gene_name"
            raise CorruptFileError(message)
        return cls(path, _table(path, rows[1:], names, n_least=len(names)), is_parse=True)

    def named(self, var_names: str) -> tuple[NDArray[Any], dict[str, Any]]:
        columns = dict(self.columns)
        return columns.pop(var_names), columns


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    """The lines of a list, cut into fields; empty lines left out."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            return [row for row in csv.reader(file, delimiter=delimiter) if row]
    except (*_BAD_CONTENT, csv.Error) as error:
        message = f"{path} cannot be read: {error}"
        raise CorruptFileError(message) from error


def _table(
    path: Path, rows: list[list[str]], names: list[str], *, n_least: int
) -> dict[str, NDArray[Any]]:
    n_columns = min((len(row) for row in rows), default=len(names))
    if n_columns < n_least:
        line = next(i for i, row in enumerate(rows, 1) if len(row) < n_least)
        message = f"{path}: entry {line} has {len(rows[line - 1])} fields, expected {n_least}"
        raise CorruptFileError(message)
    used = enumerate(names[:n_columns])
    return {name: _objects([row[i] for row in rows]) for i, name in used}


def _objects(strings: list[str]) -> NDArray[Any]:
    out = np.empty(len(strings), dtype=object)
    out[:] = strings
    return out


# --- the matrix


def _read_matrix(path: Path, n_genes: int, n_cells: int | None, *, is_parse: bool) -> Any:
    """The matrix as CSR, cells x genes."""
    io = require("scipy.io", "read_10x_mtx")
    sparse = require("scipy.sparse", "read_10x_mtx")
    try:
        n_rows, n_cols, _, _, field, _ = io.mminfo(path)
        if field == "complex":
            message = f"{path} holds complex numbers, expected counts"
            raise UnsupportedError(message)
        is_cells_first = _is_cells_first(path, (n_rows, n_cols), n_genes, n_cells, is_parse)
        matrix = io.mmread(path)
    except IOFormatError:
        raise
    except _BAD_CONTENT as error:
        message = f"{path} is no sound MatrixMarket file: {error}"
        raise CorruptFileError(message) from error
    return sparse.csr_matrix(matrix if is_cells_first else matrix.T)


def _is_cells_first(
    path: Path, shape: tuple[int, int], n_genes: int, n_cells: int | None, is_parse: bool
) -> bool:
    """Whether rows are cells, by the lengths of the lists."""
    as_genes_first = shape[0] == n_genes and n_cells in (None, shape[1])
    as_cells_first = shape[1] == n_genes and n_cells in (None, shape[0])
    if not as_genes_first and not as_cells_first:
        cells = "no list of cells" if n_cells is None else f"{n_cells} cells"
        message = (
            f"{path} is {shape[0]} x {shape[1]}, but beside it lie {n_genes} genes and {cells}"
        )
        raise CorruptFileError(message)
    if as_genes_first and as_cells_first and is_parse:
        message = (
            f"{path} is {shape[0]} x {shape[1]}: as many genes as cells, so the lists do not tell "
            "which side is which"
        )
        raise IOFormatError(message)
    return not as_genes_first
