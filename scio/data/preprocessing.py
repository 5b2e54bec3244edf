"""What happens to the counts of a cell before a model sees them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._names import near_names
from scio._storage.atomic import write_text_atomic
from scio.errors import IOFormatError, NotFittedError

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


class PreprocessingPipeline:
    """Normalisation and log of counts, applied to cells or inside the loader.

    Parameters
    ----------
    normalize : {"library_size", "log1p", "scran", None}
        "library_size": x * target_sum / total of the cell; "log1p": ln(1 + x), once, whatever `log1p`
        says; None: nothing.
    target_sum : float or None
        Counts per cell after "library_size"; None: the median of the totals, learned by `fit`.
    hvg_selection : int or None
        Number of highly variable genes to keep, learned by `fit`.
    log1p : bool
        Natural logarithm of one plus the value, after normalising.
    hvg_flavor : str
        Flavour of the gene selection.
    batch_key : str or None
        obs column by which genes are selected per batch.
    clusters : str or None
        obs column of clusters for "scran".

    Attributes
    ----------
    needs_fit : bool
        Whether something must be learned first: `hvg_selection`, "scran" or ``target_sum=None``.
    is_fitted : bool

    Raises
    ------
    ValueError
        If an argument has a value that is not allowed.

    Notes
    -----
    The total of a cell is taken over all its stored genes, before any selection.  A cell with total 0
    stays as it is.
    Learning from data is not part of this release: what needs `fit` raises `NotFittedError`.

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

    # --- state

    @property
    def needs_fit(self) -> bool:
        """Whether something must be learned from data first."""
        learns_total = self.normalize == "library_size" and self.target_sum is None
        return self.hvg_selection is not None or self.normalize == "scran" or learns_total

    @property
    def is_fitted(self) -> bool:
        """Whether it can be applied: nothing needs to be learned."""
        return not self.needs_fit

    @property
    def selected_genes(self) -> list[str] | None:
        """Names of the selected genes in rank order; None when all are kept."""
        return None

    @property
    def takes_log(self) -> bool:
        """Whether ln(1 + x) is applied."""
        return self.log1p or self.normalize == "log1p"

    def fit(self, source: Any) -> PreprocessingPipeline:
        """Learn what must be learned; a pipeline that needs nothing returns itself.

        Raises
        ------
        NotFittedError
            If `needs_fit`: learning genes, size factors or the median total comes with the
            preprocessing release.
        """
        del source
        self.check_fitted()
        return self

    def check_fitted(self) -> None:
        """Raise NotFittedError when something would have to be learned first."""
        if not self.needs_fit:
            return
        wanted = []
        if self.hvg_selection is not None:
            wanted.append(f"hvg_selection={self.hvg_selection}")
        if self.normalize == "scran":
            wanted.append("normalize='scran'")
        if self.normalize == "library_size" and self.target_sum is None:
            wanted.append("target_sum=None")
        message = (
            f"the pipeline must learn {', '.join(wanted)} by fit() first, and this version of scio "
            "cannot learn yet; give target_sum as a number and select genes by the vocabulary"
        )
        raise NotFittedError(message)

    # --- application

    def __call__(
        self,
        expression: NDArray[Any],
        gene_names: list[str],
        *,
        total: float | NDArray[Any] | None = None,
        size_factor: float | None = None,
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
        size_factor : float, optional
            Needed by "scran".

        Returns
        -------
        processed : ndarray, same shape, float32 (float64 stays)
            New memory.
        names : list of str
            Names of its columns.

        Raises
        ------
        NotFittedError
            If `needs_fit`.
        ValueError
            If names and columns differ in number.
        """
        del size_factor
        self.check_fitted()
        values = np.asarray(expression)
        if values.ndim not in (1, 2) or values.shape[-1] != len(gene_names):
            message = f"expression has shape {values.shape}, gene_names has {len(gene_names)} names"
            raise ValueError(message)
        out_dtype = np.float64 if values.dtype == np.float64 else np.float32
        out = values.astype(out_dtype)
        if self.normalize == "library_size":
            out = _scale(values, self.target_sum or 0.0, total).astype(out_dtype)
        if self.takes_log:
            is_double = out_dtype == np.float64
            out = np.log1p(out) if is_double else _core.log1p(np.ascontiguousarray(out))
        return out, list(gene_names)

    # --- files

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as a dict that JSON keeps."""
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
            if key not in known:
                message = f"unknown key {key!r} of a pipeline; {near_names(key, known)}"
                raise ValueError(message)
        return cls(**content)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PreprocessingPipeline:
        """Read what `save` wrote.

        Raises
        ------
        IOFormatError
            If the file is no JSON object of a pipeline.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls.from_dict(content)
        except (ValueError, TypeError, AttributeError) as error:
            message = f"{path} is no saved pipeline: {error}"
            raise IOFormatError(message) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PreprocessingPipeline):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __repr__(self) -> str:
        parts = [f"{k}={v!r}" for k, v in self.to_dict().items()]
        return f"PreprocessingPipeline({', '.join(parts)})"


def _scale(
    values: NDArray[Any], target_sum: float, total: float | NDArray[Any] | None
) -> NDArray[np.float64]:
    """X * (target / total) in float64; cells of total 0 stay."""
    if total is None:
        kind = values.dtype.kind
        total = values.sum(axis=-1, dtype=np.float64 if kind == "f" else np.int64)
    totals = np.asarray(total, dtype=np.float64)
    factor = np.where(totals == 0, 1.0, target_sum / np.where(totals == 0, 1.0, totals))
    return values.astype(np.float64) * (factor[..., None] if values.ndim == 2 else factor)
