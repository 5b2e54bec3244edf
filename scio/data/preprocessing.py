"""What happens to the counts of a cell before a model sees them."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._storage.atomic import write_text_atomic
from scio.data._fitted import Fitted
from scio.errors import IOFormatError, NotFittedError, ScioWarning

if TYPE_CHECKING:
    from scio.data.anndata_store import AnnDataStore

NORMALIZATIONS = ("library_size", "log1p", "scran")
HVG_FLAVORS = (
    "seurat",
    "cell_ranger",
    "seurat_v3",
    "seurat_v3_paper",
    "pearson_residuals",
    "poisson",
)

Normalize = Literal["library_size", "log1p", "scran"] | None

_FITTED = "fitted"
_N_NAMED = 5


class PreprocessingPipeline:
    """Normalisation, log and gene selection of counts, applied to cells or inside the loader.

    Parameters
    ----------
    normalize : {"library_size", "log1p", "scran", None}
        "library_size": x * target_sum / total of the cell; "log1p": ln(1 + x), once, whatever `log1p`
        says; "scran": x / size factor of the cell, learned by `fit`; None: nothing.
    target_sum : float or None
        Counts per cell after "library_size"; None: the median of the totals, learned by `fit`.
    hvg_selection : int or None
        Number of highly variable genes to keep, learned by `fit`.
    log1p : bool
        Natural logarithm of one plus the value, after normalising.
    hvg_flavor : str
        Flavour of the gene selection, as `scio.pp.highly_variable_genes`.  "seurat" and
        "cell_ranger" take counts normalised to `target_sum` (10,000 where there is none) and
        logged on the way; values as they are with ``normalize=None, log1p=False``.
    batch_key : str or None
        obs column by which genes are selected per batch.
    clusters : str or None
        obs column of clusters for "scran".

    Attributes
    ----------
    needs_fit : bool
        Whether something must be learned first: `hvg_selection`, "scran" or ``target_sum=None``.
    is_fitted : bool
    selected_genes : list of str or None
        The best first; None when all genes are kept.
    size_factors : ndarray, shape (n_cells,), float64, or None
        Of "scran", in the order of the cells that `fit` saw.
    total_target : float or None
        `target_sum`, or the median that was learned in its place.
    fit_info : dict
        What `fit` saw: sources, cells, genes, flavour, fingerprint, version, date; empty before.

    Raises
    ------
    ValueError
        If an argument has a value that is not allowed.

    Notes
    -----
    The total of a cell is taken over all its stored genes, before any selection.  A cell with total 0
    stays as it is.
    In the loader, `__call__` and a processed file the values have the bits of `scio.pp`
    (`normalize_total`, `log1p`); with "scran" they are fl32(double(x) * (1 / size factor)).

    Examples
    --------
    >>> import numpy as np
    >>> from scio.data import PreprocessingPipeline
    >>> pipeline = PreprocessingPipeline()
    >>> values, names = pipeline(np.float32([10, 0, 30]), ["a", "b", "c"], total=100)
    >>> values.round(2), names
    (array([6.91, 0.  , 8.01], dtype=float32), ['a', 'b', 'c'])
    """

    def __init__(
        self,
        normalize: Normalize = "library_size",
        target_sum: float | None = 1e4,
        hvg_selection: int | None = None,
        log1p: bool = True,
        *,
        hvg_flavor: str = "seurat_v3",
        batch_key: str | None = None,
        clusters: str | None = None,
    ) -> None:
        if normalize is not None and normalize not in NORMALIZATIONS:
            message = f"normalize is one of {NORMALIZATIONS} or None, not {normalize!r}"
            raise ValueError(message)
        if hvg_flavor not in HVG_FLAVORS:
            message = f"unknown hvg_flavor {hvg_flavor!r}; {near_names(hvg_flavor, HVG_FLAVORS)}"
            raise ValueError(message)
        if target_sum is not None and not (target_sum > 0 and np.isfinite(target_sum)):
            message = f"target_sum is a number above 0 or None, not {target_sum!r}"
            raise ValueError(message)
        if hvg_selection is not None and hvg_selection < 1:
            message = f"hvg_selection is at least 1 or None, not {hvg_selection!r}"
            raise ValueError(message)
        self.normalize: Normalize = normalize
        self.target_sum = None if target_sum is None else float(target_sum)
        self.hvg_selection = hvg_selection
        self.log1p = bool(log1p)
        self.hvg_flavor = hvg_flavor
        self.batch_key = batch_key
        self.clusters = clusters
        self._fitted: Fitted | None = None
        self._hash: str | None = None

    # --- state

    @property
    def needs_fit(self) -> bool:
        """Whether something must be learned from data first."""
        learns_total = self.normalize == "library_size" and self.target_sum is None
        return self.hvg_selection is not None or self.normalize == "scran" or learns_total

    @property
    def is_fitted(self) -> bool:
        """Whether it can be applied: nothing is left to learn."""
        return self._fitted is not None or not self.needs_fit

    @property
    def selected_genes(self) -> list[str] | None:
        """Names of the selected genes, the best first; None when all are kept."""
        genes = None if self._fitted is None else self._fitted.selected_genes
        return None if genes is None else list(genes)

    @property
    def size_factors(self) -> NDArray[np.float64] | None:
        """Size factors of the cells that `fit` saw, in their order; None without "scran"."""
        if self._fitted is None or not self._fitted.factors:
            return None
        return np.concatenate([part.values for part in self._fitted.factors])

    @property
    def total_target(self) -> float | None:
        """Counts per cell after "library_size": `target_sum` or the median learned."""
        return self.target_sum if self._fitted is None else self._fitted.target_sum

    @property
    def fit_info(self) -> dict[str, Any]:
        """What `fit` saw."""
        return {} if self._fitted is None else dict(self._fitted.info)

    @property
    def takes_log(self) -> bool:
        """Whether ln(1 + x) is applied."""
        return self.log1p or self.normalize == "log1p"

    @property
    def takes_scale_or_log(self) -> bool:
        """Whether values change at all."""
        return self.normalize is not None or self.log1p

    def fit(self, source: Any, *, factors_for: Any = None) -> PreprocessingPipeline:
        """Learn genes, size factors and the median total, as far as they are needed.

        Parameters
        ----------
        source : AnnData, CSR, SciPy matrix, ndarray, path, handle, AnnDataStore, CellDataset or list
            Counts; files are streamed, a list is taken as one matrix over the genes of all its
            members.  Of a `CellDataset` the chosen cells, and genes are selected among those of its
            vocabulary.
        factors_for : the same, optional
            Cells that get size factors with "scran", where they are more than `source`: all cells, of
            which `source` is the training part.  Genes are still selected on `source` alone.

        Returns
        -------
        PreprocessingPipeline
            Itself; what was learned before is forgotten.

        Raises
        ------
        ValueError, KeyError
            As `scio.pp.highly_variable_genes` and `scio.pp.pooled_size_factors`; with "scran" also if
            names of cells repeat within a file.

        Warns
        -----
        ScioWarning
            If there are fewer genes to choose from than `hvg_selection`, selected genes have the name
            of an earlier column, or values are no counts.

        Notes
        -----
        Where a vocabulary lacks genes of the sources, the selection sees the genes of the vocabulary
        only; totals and size factors are those of all genes.

        Examples
        --------
        >>> import scio
        >>> pipeline = PreprocessingPipeline(hvg_selection=3).fit(scio.datasets.pbmc3k())
        >>> pipeline.selected_genes
        ['PPBP', 'LYZ', 'S100A9']
        """
        if self.needs_fit:
            from scio.data._fit import learn  # imports scio.pp, which imports this package

            self._fitted = learn(self, source, factors_for)
            self._hash = None
        return self

    def check_fitted(self) -> None:
        """Raise NotFittedError when something must be learned first."""
        if self.is_fitted:
            return
        wanted = []
        if self.hvg_selection is not None:
            wanted.append(f"hvg_selection={self.hvg_selection}")
        if self.normalize == "scran":
            wanted.append("normalize='scran'")
        if self.normalize == "library_size" and self.target_sum is None:
            wanted.append("target_sum=None")
        message = (
            f"the pipeline must learn {', '.join(wanted)} first: call fit() with the training data"
        )
        raise NotFittedError(message)

    # --- inside a dataset

    def check_genes(self, store: AnnDataStore) -> None:
        """Say which selected genes a store does not have.

        Raises
        ------
        ValueError
            If it has none of them.

        Warns
        -----
        ScioWarning
            If it lacks some.
        """
        wanted = self.selected_genes or []
        stored = {str(gene) for source in store.sources for gene in source.genes()}
        missing = [g for g in wanted if g not in stored or g not in store.gene_vocab]
        if not missing:
            return
        named = ", ".join(missing[:_N_NAMED]) + (", …" if len(missing) > _N_NAMED else "")
        where = ", ".join(store.names[:2]) + (", …" if store.n_datasets > 2 else "")
        text = (
            f"{len(missing):,} of the {len(wanted):,} genes that the pipeline selected are not among "
            f"those of {where} and the vocabulary: {named}"
        )
        if len(missing) == len(wanted):
            have = ", ".join(store.gene_vocab.genes[:_N_NAMED])
            message = f"{text}; the pipeline was fitted on other genes (here are {have}, …)"
            raise ValueError(message)
        warnings.warn(ScioWarning(text), stacklevel=4)

    def cell_scale(
        self, store: AnnDataStore, cells: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """Return 1 / size factor of each cell of a store, NaN where not in `cells`; None if unused.

        Raises
        ------
        ValueError
            If the pipeline was fitted on other cells.
        """
        factors = self.size_factors_of(store, cells)
        return None if factors is None else 1.0 / factors

    def size_factors_of(
        self, store: AnnDataStore, cells: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """Return the size factor of each cell of a store; as `cell_scale`."""
        if self.normalize != "scran" or self._fitted is None:
            return None
        return self._fitted.factors_of(store, cells)

    # --- application

    def __call__(
        self,
        expression: NDArray[Any],
        gene_names: list[str],
        *,
        total: float | NDArray[Any] | None = None,
        size_factor: float | NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], list[str]]:
        """Process one cell or a block of cells.

        Parameters
        ----------
        expression : ndarray, shape (n_genes,) or (n_cells, n_genes), numeric
            Counts; not changed.
        gene_names : list of str
            Names of the columns.
        total : float or ndarray, shape (n_cells,), optional
            Library size, when `expression` holds only a part of the cell's genes.
        size_factor : float or ndarray, shape (n_cells,), optional
            Needed by "scran".

        Returns
        -------
        processed : ndarray, (n_genes,) or (n_cells, n_genes), float32 (float64 stays)
            New memory; of the selected genes when genes are selected.
        names : list of str
            Names of its columns, in the order in which they came.

        Raises
        ------
        NotFittedError
            If `needs_fit`.
        ValueError
            If names and columns differ in number, or a size factor is needed and none above 0.
        """
        self.check_fitted()
        values = np.asarray(expression)
        if values.ndim not in (1, 2) or values.shape[-1] != len(gene_names):
            message = f"expression has shape {values.shape}, gene_names has {len(gene_names)} names"
            raise ValueError(message)
        is_double = values.dtype == np.float64
        out_dtype = np.float64 if is_double else np.float32
        out: NDArray[Any] = values.astype(out_dtype)
        if self.normalize == "library_size":
            out = _times(
                values, _library_factor(values, self.total_target or 0.0, total), out_dtype
            )
        elif self.normalize == "scran":
            out = _times(values, _cell_factor(size_factor), out_dtype)
        names = list(gene_names)
        selected = self.selected_genes
        if selected is not None:
            chosen = set(selected)
            columns = [i for i, name in enumerate(names) if name in chosen]
            out, names = out[..., columns], [names[i] for i in columns]
        if self.takes_log:
            flat = np.ascontiguousarray(out)
            if is_double:
                block = np.atleast_2d(flat)
                flat = _core.normalize_log1p(block, None, None, 1.0, True).reshape(flat.shape)
            else:
                flat = _core.log1p(flat)
            out = flat
        return out, names

    # --- files

    def to_dict(self) -> dict[str, Any]:
        """Return arguments and what was learned as a dict that JSON keeps, every bit of it."""
        content = self._arguments()
        if self._fitted is not None:
            content[_FITTED] = self._fitted.to_dict()
        return content

    def _arguments(self) -> dict[str, Any]:
        return {
            "normalize": self.normalize,
            "target_sum": self.target_sum,
            "hvg_selection": self.hvg_selection,
            "log1p": self.log1p,
            "hvg_flavor": self.hvg_flavor,
            "batch_key": self.batch_key,
            "clusters": self.clusters,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> PreprocessingPipeline:
        """Rebuild a pipeline from `to_dict`.

        Raises
        ------
        ValueError
            If a key is unknown; the nearest is named.
        """
        known = cls().to_dict()
        for key in content:
            if key not in known and key != _FITTED:
                message = f"unknown key {key!r} of a pipeline; {near_names(key, known)}"
                raise ValueError(message)
        pipeline = cls(**{key: value for key, value in content.items() if key != _FITTED})
        if content.get(_FITTED) is not None:
            pipeline._fitted = _checked(pipeline, Fitted.from_dict(content[_FITTED]))
        return pipeline

    @property
    def content_hash(self) -> str:
        """SHA-256 of the arguments and of what was learned; not of where and when."""
        if self._hash is None:
            content = self.to_dict()
            if self._fitted is not None:
                content[_FITTED] = self._fitted.without_place()
            text = json.dumps(content, sort_keys=True)
            self._hash = hashlib.sha256(text.encode()).hexdigest()
        return self._hash

    def settings(self) -> dict[str, Any]:
        """Return the arguments, and a hash in place of what was learned; for states of loaders."""
        content = self._arguments()
        if self._fitted is not None:
            content[_FITTED] = self.content_hash
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PreprocessingPipeline:
        """Read what `save` wrote, or the pipeline of a file that `preprocess_and_cache` wrote.

        Raises
        ------
        IOFormatError
            If the file is neither.
        """
        try:
            content = json.loads(_text_of(Path(path)))
            return cls.from_dict(content)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            message = f"{path} is no saved pipeline: {error}"
            raise IOFormatError(message) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PreprocessingPipeline):
            return NotImplemented
        return self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __repr__(self) -> str:
        parts = [f"{k}={v!r}" for k, v in self._arguments().items()]
        if self.needs_fit and self._fitted is not None:
            parts.append(f"<fitted on {self.fit_info.get('n_cells', 0):,} cells>")
        return f"PreprocessingPipeline({', '.join(parts)})"


def preprocess_and_cache(
    adata: Any,
    output_path: str | os.PathLike[str] | None = None,
    pipeline: PreprocessingPipeline | None = None,
    *,
    overwrite: bool = False,
    compression: str | None = "gzip",
    obs_keys: str | Sequence[str] | None = "all",
    cache: str | os.PathLike[str] = "auto",
) -> Path:
    """Write what a pipeline makes of X to a new ``.h5ad``, in bounded memory.

    Parameters
    ----------
    adata : AnnData, path or handle of scio.open
        Counts in X.
    output_path : path, optional
        The file.  None: a file in the cache, under a name made of the content of `adata`, the
        pipeline and the other arguments; when it is there already, it is the result.
    pipeline : PreprocessingPipeline, optional
        None: `PreprocessingPipeline()`.  One that must learn first is fitted on `adata`; the argument
        itself is not changed, the fitted one is in the file (`PreprocessingPipeline.load`).
    overwrite : bool
        Replace an existing file.
    compression : "gzip" or None
    obs_keys : "all", None or list of str
        Columns of obs to keep; None is all.
    cache : "auto" or path
        Directory of the cache; "auto" is that of the user (needs platformdirs).

    Returns
    -------
    Path
        The file: X as CSR, float32 (float64 for float64), of the selected genes when genes are
        selected; obs with ``scio_total_counts`` and ``scio_size_factor``, var with
        ``highly_variable``; ``uns["scio"]["preprocessing"]``.  Layers, obsm, raw and the rest of uns
        are not in it.

    Raises
    ------
    TargetExistsError
        If `output_path` exists and `overwrite` is False.
    IOWriteError
        If writing fails; an old file is unchanged.
    ValueError
        If a value is NaN or infinite, or the pipeline was fitted on other data.
    KeyNotFoundError
        If there is no such column of obs.

    Notes
    -----
    The values are those of the loader with the same pipeline, to the bit.

    Examples
    --------
    >>> import scio
    >>> from scio.data import preprocess_and_cache
    >>> path = preprocess_and_cache(scio.datasets.pbmc3k(), "p.h5ad")  # doctest: +SKIP
    >>> scio.open(path).shape  # doctest: +SKIP
    (2700, 32738)
    """
    from scio.data._processed import write_processed

    return write_processed(
        adata,
        output_path,
        pipeline,
        overwrite=overwrite,
        compression=compression,
        obs_keys=obs_keys,
        cache=cache,
    )


_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
UNS_PATH = "/uns/scio/preprocessing"


def _text_of(path: Path) -> str:
    """JSON of a saved pipeline."""
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    if not is_hdf5:
        return path.read_text(encoding="utf-8")
    from scio.io import open as open_file

    with open_file(path) as stored:
        if f"{UNS_PATH}/json" not in stored.file:
            message = f"it has no {UNS_PATH}/json"
            raise ValueError(message)
        return str(stored.file.read(f"{UNS_PATH}/json"))


def _checked(pipeline: PreprocessingPipeline, fitted: Fitted) -> Fitted:
    """Refuse a file that lacks what its pipeline must have learned."""
    lacking = []
    if pipeline.hvg_selection is not None and not fitted.selected_genes:
        lacking.append("selected_genes")
    if pipeline.normalize == "scran" and not fitted.factors:
        lacking.append("size_factors")
    target = fitted.target_sum
    if pipeline.normalize == "library_size" and not (target and target > 0 and np.isfinite(target)):
        lacking.append("target_sum")
    if lacking:
        message = f"fitted lacks {', '.join(lacking)}, which the arguments need"
        raise ValueError(message)
    return fitted


def _library_factor(
    values: NDArray[Any], target_sum: float, total: float | NDArray[Any] | None
) -> NDArray[np.float64]:
    """Target over total of each cell, 1 for a total of 0."""
    if total is None:
        total = _totals(values)
    totals = np.asarray(total, dtype=np.float64)
    return np.where(totals == 0, 1.0, target_sum / np.where(totals == 0, 1.0, totals))


def _totals(values: NDArray[Any]) -> NDArray[Any]:
    """Totals as the loader takes them."""
    if values.dtype.kind != "f":
        sums: NDArray[Any] = values.sum(axis=-1, dtype=np.int64)
        return sums
    block = np.atleast_2d(values).astype(np.result_type(values.dtype, np.float32))
    totals, _, _ = _core.row_totals(np.ascontiguousarray(block), None, None, shape=block.shape)
    return totals.reshape(values.shape[:-1])


def _cell_factor(size_factor: float | NDArray[Any] | None) -> NDArray[np.float64]:
    if size_factor is None:
        message = "normalize='scran' needs size_factor=, the factor of the cell, outside a dataset"
        raise ValueError(message)
    factors = np.asarray(size_factor, dtype=np.float64)
    if not ((factors > 0) & np.isfinite(factors)).all():
        message = f"size_factor is {size_factor!r}, expected numbers above 0"
        raise ValueError(message)
    out: NDArray[np.float64] = 1.0 / factors
    return out


def _times(values: NDArray[Any], factor: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    """Product in double, rounded once."""
    if factor.ndim > 1 or (factor.ndim == 1 and factor.shape != values.shape[:-1]):
        message = f"{factor.shape} totals or size factors were given for expression {values.shape}"
        raise ValueError(message)
    return (values.astype(np.float64) * factor[..., None]).astype(dtype)
