"""Reading the HDF5 files of Cell Ranger and of the tools that write like it.

The matrix of such a file is genes x cells in compressed columns, which is cells x genes in compressed
rows: the three arrays are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scio import _core
from scio._names import near_names
from scio.errors import CorruptFileError, IOFormatError, UnsupportedError
from scio.io._foreign import (
    as_text,
    csr_matrix,
    keep_columns,
    make_adata,
    note,
    positions,
    read_text,
)
from scio.io.hdf5 import HDF5File
from scio.matrix import CSR

_ARRAYS = ("data", "indices", "indptr", "shape")
_EXPRESSION = "Gene Expression"
_NOT_COLUMNS = frozenset({"name", "feature_type", "id", "gene_id", "_all_tag_keys"})


def read_10x_h5(
    filename: Any,
    *,
    genome: str | None = None,
    gex_only: bool = True,
    dtype: DTypeLike | None = None,
    threads: int = -1,
) -> Any:
    """Read a 10x Genomics ``.h5``: Cell Ranger 2 and 3 to 9, probe matrices, CellBender.

    Parameters
    ----------
    filename : str, Path, URL, bytes-like or binary file object
        The file.
    genome : str, optional
        Keep the genes of this genome only; needed when a file of Cell Ranger 2 holds several.
    gex_only : bool
        Keep the features of type "Gene Expression" only.  Files that do not say types are kept whole.
    dtype : dtype, optional
        Type of the values.  By default int32 becomes float32 and other types stay as stored, which
        is what scanpy gives; ``dtype="int32"`` keeps counts.
    threads : int
        Threads that decode; -1 is all of the pool.

    Returns
    -------
    anndata.AnnData
        `X` CSR of shape (n_cells, n_features), entries in stored order.  ``var`` has `gene_ids`,
        `feature_types` and what else the file says of its features; ``obs`` has `filtered_barcodes`
        where stored.  Names are as stored: they may repeat, which anndata warns of.

    Raises
    ------
    IOFormatError
        If the file is HDF5 but none of 10x.
    CorruptFileError
        If members are missing or lengths do not agree, or an index is out of range.
    ValueError
        If `genome` is not in the file, or is needed; the message lists those that are.
    MissingDependencyError
        If anndata is not installed.

    Notes
    -----
    Names, arguments and results are those of ``scanpy.read_10x_h5`` (1.11).  Besides: members other
    than the matrix may be missing (positions become names, with a warning), a scalar stands for all
    features, ``features/target_sets`` goes to ``uns["target_sets"]`` (positions among the features
    that are kept), and what CellBender adds goes to `obs`, `obsm`, `var` and ``uns["cellbender"]``.

    Examples
    --------
    >>> import scio
    >>> adata = scio.read_10x_h5("filtered_feature_bc_matrix.h5")  # doctest: +SKIP
    """
    file = HDF5File(filename)
    try:
        is_v3 = file.kind("/matrix") == "group"
        group = "/matrix" if is_v3 else _legacy_group(file, genome)
        reader = _Reader(file, group, is_v3=is_v3)
        return reader.read(genome if is_v3 else None, gex_only, dtype, threads)
    finally:
        file.close()


def _legacy_group(file: HDF5File, genome: str | None) -> str:
    """The group of one genome of a file of Cell Ranger 2."""
    groups = [name for name in file.keys("/") if file.kind(f"/{name}") == "group"]
    genomes = [
        name for name in groups if {"data", "indices", "indptr"} & set(file.keys(f"/{name}"))
    ]
    if not genomes:
        message = (
            f"{file.name} is HDF5 but no 10x file: it has no group matrix, nor a genome with data, "
            f"indices and indptr; at its root lie {', '.join(file.keys('/')) or 'no objects'}"
        )
        raise IOFormatError(message)
    if genome is None and len(genomes) > 1:
        message = f"{file.name} holds several genomes; choose one by genome=: {', '.join(genomes)}"
        raise ValueError(message)
    if genome is not None and genome not in genomes:
        message = f"{file.name} has no genome {genome!r}; {near_names(genome, genomes)}"
        raise ValueError(message)
    return f"/{genomes[0] if genome is None else genome}"


class _Reader:
    """One matrix of one file, with what is said of its cells and features."""

    def __init__(self, file: HDF5File, group: str, *, is_v3: bool) -> None:
        self.file = file
        self.group = group
        self.is_v3 = is_v3
        self.members = set(file.keys(group))
        missing = [name for name in _ARRAYS if name not in self.members]
        if missing:
            message = (
                f"{file.name}: {group} lacks {', '.join(missing)}; "
                "a 10x matrix has data, indices, indptr and shape"
            )
            raise CorruptFileError(message)
        self.n_features, self.n_cells = self._shape()

    def _shape(self) -> tuple[int, int]:
        values = np.asarray(self.file.read(f"{self.group}/shape"))
        if values.shape != (2,) or values.dtype.kind not in "iu" or min(values.tolist()) < 0:
            message = (
                f"{self.file.name}: {self.group}/shape is {values.dtype} of shape {values.shape}: "
                f"{values.tolist()!r:.60}; expected two sizes, (features, cells)"
            )
            raise CorruptFileError(message)
        return int(values[0]), int(values[1])

    def read(
        self, genome: str | None, gex_only: bool, dtype: DTypeLike | None, threads: int
    ) -> Any:
        matrix = self._matrix(dtype, threads)
        var_names, var = self._features()
        obs_names, obs = self._barcodes()
        members: dict[str, Any] = {"obsm": {}, "uns": {}}
        mask = self._mask(var, genome, gex_only)
        self._target_sets(members["uns"], mask)
        _CellBender(self, obs, var, members).collect()
        if not mask.all():
            matrix = keep_columns(matrix, mask)
            var_names, var = var_names[mask], {name: v[mask] for name, v in var.items()}
        return make_adata(
            csr_matrix(matrix),
            obs_names=obs_names,
            var_names=var_names,
            obs=obs,
            var=var,
            **members,
        )

    def _matrix(self, dtype: DTypeLike | None, threads: int) -> CSR:
        shape = (self.n_cells, self.n_features)
        core = _core.Matrix.open_sparse(self.file.core, self.group, shape=shape)
        wanted = None if dtype is None else np.dtype(dtype).name
        if wanted is None and core.dtype == "int32":
            wanted = "float32"
        return CSR._wrap(core.read(0, self.n_cells, dtype=wanted, threads=threads), shape)

    # --- names

    def _rule(self, what: str, n: int) -> str:
        return f"one per {what}: {self.group}/shape says {n}"

    def _barcodes(self) -> tuple[NDArray[Any], dict[str, Any]]:
        rule = self._rule("cell", self.n_cells)
        obs: dict[str, Any] = {}
        if "barcodes" in self.members:
            names = read_text(self.file, f"{self.group}/barcodes", self.n_cells, rule)
        else:
            note(f"{self.file.name}: {self.group} has no barcodes; positions name the cells")
            names = positions(self.n_cells)
        if self.is_v3 and "filtered_barcodes" in self.members:
            obs["filtered_barcodes"] = self._column("filtered_barcodes", self.n_cells, rule)
        return names, obs

    def _features(self) -> tuple[NDArray[Any], dict[str, Any]]:
        rule = self._rule("feature", self.n_features)
        if not self.is_v3:
            names = {"gene_names": "gene_names", "gene_ids": "genes"}
            found = {
                name: read_text(self.file, f"{self.group}/{member}", self.n_features, rule)
                for name, member in names.items()
                if member in self.members
            }
            return self._names(found.pop("gene_names", None), found), found
        if "features" not in self.members:
            message = (
                f"{self.file.name}: {self.group} has no features: neither names nor ids of genes"
            )
            raise CorruptFileError(message)
        return self._feature_columns(rule)

    def _feature_columns(self, rule: str) -> tuple[NDArray[Any], dict[str, Any]]:
        path = f"{self.group}/features"
        stored = {
            name: self._column(f"features/{name}", self.n_features, rule)
            for name in self.file.keys(path)
            if name != "_all_tag_keys" and self.file.kind(f"{path}/{name}") == "dataset"
        }
        is_probe = "gene_id" in stored
        named = {"gene_ids": "gene_id" if is_probe else "id", "feature_types": "feature_type"}
        if is_probe:
            named = {"gene_ids": "gene_id", "probe_ids": "id", "feature_types": "feature_type"}
        var = {name: stored[member] for name, member in named.items() if member in stored}
        var.update({name: v for name, v in stored.items() if name not in _NOT_COLUMNS})
        return self._names(stored.get("name"), var), var

    def _names(self, names: NDArray[Any] | None, var: dict[str, Any]) -> NDArray[Any]:
        if names is not None:
            return names
        if "gene_ids" in var:
            return np.asarray(var["gene_ids"])
        note(f"{self.file.name}: {self.group} has no names of features; positions name them")
        return positions(self.n_features)

    def _column(self, member: str, n: int, rule: str) -> NDArray[Any]:
        """Bools as they are, all else as text; one value stands for all."""
        path = f"{self.group}/{member}"
        values = np.asarray(self.file.read(path))
        if values.ndim == 0:
            values = np.full(n, values[()])
        if values.shape != (n,):
            message = f"{self.file.name}: {path} has shape {values.shape}, expected ({n},), {rule}"
            raise CorruptFileError(message)
        if member == "filtered_barcodes":
            return values.astype(np.bool_, copy=False)
        return values if values.dtype == np.bool_ else as_text(values)

    # --- which features

    def _mask(self, var: dict[str, Any], genome: str | None, gex_only: bool) -> NDArray[np.bool_]:
        mask = np.ones(self.n_features, dtype=np.bool_)
        if genome is not None:
            genomes = var.get("genome", np.empty(0, dtype=object))
            known = sorted(set(genomes.tolist()))
            if genome not in known:
                message = f"{self.file.name} has no genome {genome!r}; {near_names(genome, known)}"
                raise ValueError(message)
            mask &= genomes == genome
        if gex_only and "feature_types" in var:
            mask &= var["feature_types"] == _EXPRESSION
        return mask

    def _target_sets(self, uns: dict[str, Any], mask: NDArray[np.bool_]) -> None:
        """Positions of the features of each set, counted among the features that are kept."""
        path = f"{self.group}/features/target_sets"
        if self.file.kind(path) != "group":
            return
        new_position = np.cumsum(mask) - 1
        sets = {}
        for name in self.file.keys(path):
            at = np.asarray(self.file.read(f"{path}/{name}"))
            if at.dtype.kind not in "iu" or at.ndim != 1:
                message = f"{self.file.name}: {path}/{name} is {at.dtype} of rank {at.ndim}, expected a list of integers"
                raise CorruptFileError(message)
            if at.size and (int(at.min()) < 0 or int(at.max()) >= self.n_features):
                message = (
                    f"{self.file.name}: {path}/{name} names feature {int(at.max())}; "
                    f"features lie in [0, {self.n_features})"
                )
                raise CorruptFileError(message)
            sets[name] = new_position[at[mask[at]]].astype(at.dtype)
        uns["target_sets"] = sets


class _CellBender:
    """What CellBender adds to a 10x file, put where its length fits.

    Version 2 lays it into the matrix's group (``latent_*`` are of cells), version 3 into groups at
    the root.
    """

    _CELL_GROUP = "droplet_latents"
    _GROUPS = ("global_latents", "metadata")

    def __init__(
        self, reader: _Reader, obs: dict[str, Any], var: dict[str, Any], members: dict[str, Any]
    ) -> None:
        self.reader = reader
        self.file = reader.file
        self.obs, self.var = obs, var
        self.obsm: dict[str, Any] = members["obsm"]
        self.uns: dict[str, Any] = members["uns"]
        self.skipped: list[str] = []

    def collect(self) -> None:
        reader = self.reader
        standard = {*_ARRAYS, "barcodes", "features", "filtered_barcodes", "genes", "gene_names"}
        extra = sorted(reader.members - standard)
        is_v2 = any(name.startswith("latent_") for name in extra)
        is_v3 = self.file.kind(f"/{self._CELL_GROUP}") == "group"
        if is_v2:
            for name in extra:
                place = self._cell if name.startswith("latent_") else self._other
                self._each(f"{reader.group}/{name}", name, self.uns, place)
        if is_v2 or is_v3:
            self._group(self._CELL_GROUP, self._cell)
            for group in self._GROUPS:
                self._group(group, self._other)
        if self.skipped:
            note(
                f"{self.file.name}: left out, since they have not one entry per cell "
                f"({reader.n_cells}): {', '.join(self.skipped)}"
            )

    def _group(self, group: str, place: Callable[..., None]) -> None:
        if self.file.kind(f"/{group}") != "group":
            return
        target: dict[str, Any] = {}
        for name in self.file.keys(f"/{group}"):
            self._each(f"/{group}/{name}", name, target, place)
        if target:
            self.uns.setdefault("cellbender", {})[group] = target

    def _each(
        self, path: str, name: str, target: dict[str, Any], place: Callable[..., None]
    ) -> None:
        if self.file.kind(path) != "dataset":
            return
        try:
            value = self.file.read(path)
        except UnsupportedError:
            self.skipped.append(path)
            return
        if value is not None:
            place(path, name, value, target)

    def _cell(self, path: str, name: str, value: Any, _target: dict[str, Any]) -> None:
        values = np.asarray(value)
        if values.ndim == 0 or values.shape[0] != self.reader.n_cells:
            self.skipped.append(path)
        elif values.ndim == 1:
            self.obs[name] = values
        else:
            self.obsm[name] = values

    def _other(self, path: str, name: str, value: Any, target: dict[str, Any]) -> None:
        if np.shape(value) == (self.reader.n_features,):
            self.var[name] = np.asarray(value)
        elif target is self.uns:
            self.uns.setdefault("cellbender", {})[name] = value
        else:
            target[name] = value
