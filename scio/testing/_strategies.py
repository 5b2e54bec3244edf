"""Hypothesis strategies for AnnData objects that a file can hold without loss.

Hypothesis chooses what shrinks well (sizes, kinds, dtypes, names); the many numbers of an array come
from one drawn seed, which keeps an example below a few milliseconds.  Arrays mix ordinary values
with the extremes of their dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from scio._optional import require

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    P = ParamSpec("P")

DTYPES: tuple[str, ...] = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_BIG_ENDIAN: tuple[str, ...] = (">i2", ">i4", ">u8", ">f4", ">f8")
_SPARSE_DTYPES = tuple(d for d in DTYPES if d != "float16")  # SciPy has no such matrices
_MAX_OBS, _MAX_VARS = 9, 7


def _composite(function: Callable[..., Any]) -> Callable[..., SearchStrategy[Any]]:
    """`hypothesis.strategies.composite`, imported when the strategy is made."""

    @functools.wraps(function)
    def made(*args: Any, **options: Any) -> SearchStrategy[Any]:
        st = require("hypothesis.strategies", f"scio.testing.{function.__name__}")

        def inner(draw: Callable[[Any], Any], *args: Any, **options: Any) -> Any:
            return function(draw, st, *args, **options)

        inner.__name__ = function.__name__
        strategy: SearchStrategy[Any] = st.composite(inner)(*args, **options)
        return strategy

    return made


# ---- values


def texts(*, min_size: int = 0, max_size: int = 12) -> SearchStrategy[str]:
    """Texts that an HDF5 file can hold: any Unicode but NUL and lone surrogates.

    Parameters
    ----------
    min_size, max_size : int
        Characters.

    Returns
    -------
    hypothesis strategy of str
    """
    st = require("hypothesis.strategies", "scio.testing.texts")
    alphabet = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
    strategy: SearchStrategy[str] = st.text(alphabet, min_size=min_size, max_size=max_size)
    return strategy


def _keys(max_size: int = 8) -> Any:
    """Names of elements: texts without what would be escaped, and not the reserved ones."""
    reserved = {".", "..", "_index", "__categories"}
    return texts(min_size=1, max_size=max_size).filter(
        lambda k: k not in reserved and "/" not in k and "%2" not in k
    )


def _extremes(dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        facts = np.iinfo(dtype)
        return np.array([facts.min, facts.max, 0, 1], dtype)
    parts = np.finfo(dtype)
    reals = [np.nan, np.inf, -np.inf, 0.0, -0.0, parts.max, parts.tiny, parts.smallest_subnormal]
    if dtype.kind == "c":
        return np.array([complex(a, b) for a in reals[:4] for b in reals[3:]], dtype)
    return np.array(reals, dtype)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Small numbers, one in eight an extreme of the type."""
    kind = np.dtype(dtype)
    values = rng.integers(0, 100, shape).astype(kind.newbyteorder("="))
    extremes = _extremes(kind.newbyteorder("="))
    chosen = extremes[rng.integers(0, len(extremes), shape)]
    mixed = np.where(rng.random(shape) < 1 / 8, chosen, values)
    return np.asarray(mixed).astype(kind)


def _rng(draw: Callable[[Any], Any], st: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@_composite
def dense_arrays(
    draw: Any, st: Any, shape: tuple[int, ...], *, dtypes: Sequence[str] = (*DTYPES, *_BIG_ENDIAN)
) -> NDArray[Any]:
    """Arrays of numbers, in C or Fortran order or as a strided view.

    Parameters
    ----------
    shape : tuple of int
    dtypes : sequence of str
        What is chosen from; by default all that files hold, in both byte orders.

    Returns
    -------
    hypothesis strategy of ndarray
    """
    array = _numbers(_rng(draw, st), shape, draw(st.sampled_from(tuple(dtypes))))
    layout = draw(st.sampled_from(["C", "F", "strided"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    return array


@_composite
def sparse_matrices(
    draw: Any,
    st: Any,
    shape: tuple[int, int],
    *,
    dtypes: Sequence[str] = _SPARSE_DTYPES,
    formats: Sequence[str] = ("csr", "csc"),
    is_canonical: bool | None = None,
) -> Any:
    """SciPy matrices: empty rows, full rows, explicit zeros.

    Parameters
    ----------
    shape : tuple of two int
    dtypes : sequence of str
        Of ``data``; SciPy has no float16.
    formats : sequence of {"csr", "csc"}
    is_canonical : bool, optional
        True: indices ascend within each row; False: they need not, and may repeat.  None: either.

    Returns
    -------
    hypothesis strategy of scipy.sparse.csr_matrix or csc_matrix
    """
    sparse = require("scipy.sparse", "scio.testing.sparse_matrices")
    form, dtype = draw(st.sampled_from(tuple(formats))), draw(st.sampled_from(tuple(dtypes)))
    sorts = is_canonical if is_canonical is not None else draw(st.booleans())
    rng, density = _rng(draw, st), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    n_major, n_minor = shape if form == "csr" else shape[::-1]
    lengths = rng.binomial(n_minor, density, n_major)
    lengths[rng.random(n_major) < 1 / 4] = 0
    picked = [rng.choice(n_minor, k, replace=not sorts) for k in lengths]
    indices = np.concatenate([np.sort(p) if sorts else p for p in picked] or [np.empty(0)])
    width = draw(st.sampled_from(["int32", "int64"]))
    matrix = getattr(sparse, f"{form}_matrix")(shape, dtype=dtype)
    matrix.indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(width)
    matrix.indices = indices.astype(width)
    matrix.data = _numbers(rng, (len(indices),), dtype)
    return matrix


# ---- columns and frames


@_composite
def columns(draw: Any, st: Any, n_rows: int) -> Any:
    """One column of a frame, of any kind that a file holds.

    Parameters
    ----------
    n_rows : int

    Returns
    -------
    hypothesis strategy
        ndarray of numbers or of str, ``pandas.Categorical`` (ordered or not, with unused, missing or
        no categories, of text or numbers), or nullable integers, booleans and strings of pandas.
    """
    pandas = require("pandas", "scio.testing.columns")
    kind = draw(st.sampled_from(["number", "text", "categorical", "integer", "boolean", "string"]))
    rng = _rng(draw, st)
    if kind == "number":
        real = tuple(d for d in DTYPES if not d.startswith("complex"))
        return _numbers(rng, (n_rows,), draw(st.sampled_from(real)))
    if kind == "categorical":
        return _categorical(draw, st, rng, n_rows)
    missing = rng.random(n_rows) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    if kind == "integer":
        dtype = draw(st.sampled_from([d for d in DTYPES if "int" in d]))
        return pandas.arrays.IntegerArray(_numbers(rng, (n_rows,), dtype), missing)
    if kind == "boolean":
        return pandas.arrays.BooleanArray(rng.random(n_rows) < 0.5, missing)
    labels = draw(st.lists(texts(), min_size=1, max_size=4))
    strings = np.array(labels, object)[rng.integers(0, len(labels), n_rows)]
    if kind == "string" and missing.any():  # without a gap they come back as plain strings
        strings[missing] = None
        return pandas.array(strings, dtype=pandas.StringDtype())
    return strings


def _categorical(draw: Any, st: Any, rng: np.random.Generator, n_rows: int) -> Any:
    pandas = require("pandas", "scio.testing.columns")
    labels: Any = draw(
        st.one_of(
            st.lists(texts(), max_size=5, unique=True).map(lambda t: np.array(t, object)),
            st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=4, unique=True).map(
                lambda t: np.array(t, np.int64)
            ),
        )
    )
    codes = rng.integers(-1, max(len(labels), 0), n_rows) if len(labels) else np.full(n_rows, -1)
    return pandas.Categorical.from_codes(codes, categories=labels, ordered=draw(st.booleans()))


@_composite
def frames(draw: Any, st: Any, n_rows: int, *, index: Any = None, max_columns: int = 4) -> Any:
    """Frames with columns of every kind.

    Parameters
    ----------
    n_rows : int
    index : sequence of str, optional
        Names of the rows; by default unique texts.
    max_columns : int

    Returns
    -------
    hypothesis strategy of pandas.DataFrame
    """
    pandas = require("pandas", "scio.testing.frames")
    names = draw(st.lists(_keys(), max_size=max_columns, unique=True))
    if index is None:
        index = draw(st.lists(texts(min_size=1), min_size=n_rows, max_size=n_rows, unique=True))
    made = {name: draw(columns(n_rows)) for name in names}
    index_name = draw(st.one_of(st.none(), _keys().filter(lambda k: k not in names)))
    return pandas.DataFrame(
        made, index=pandas.Index(list(index), dtype=object, name=index_name), columns=names
    )


# ---- whole objects


@_composite
def uns(draw: Any, st: Any, *, max_leaves: int = 6) -> dict[str, Any]:
    """Unstructured annotation: nested dicts of everything that has an encoding.

    Parameters
    ----------
    max_leaves : int
        Values in all, about.

    Returns
    -------
    hypothesis strategy of dict
    """
    numbers = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats())
    shapes = st.sampled_from([(0,), (1,), (3,), (2, 3), (0, 4), (2, 1, 2)])
    leaves = st.one_of(
        numbers,
        texts(),
        st.none(),
        shapes.flatmap(dense_arrays),
        st.lists(texts(), min_size=1, max_size=4).map(lambda t: np.array(t, object)),
        _records(),
        st.sampled_from([(0, 0), (2, 3), (3, 1)]).flatmap(sparse_matrices),
        st.integers(0, 3).flatmap(frames),
        st.integers(1, 4).flatmap(columns),
    )
    return dict(
        draw(
            st.dictionaries(
                _keys(),
                st.recursive(
                    leaves,
                    lambda below: st.dictionaries(_keys(), below, max_size=3),
                    max_leaves=max_leaves,
                ),
                max_size=5,
            )
        )
    )


@_composite
def _records(draw: Any, st: Any) -> NDArray[Any]:
    """Tables of one text, one float and one integer field, as rank_genes_groups leaves them."""
    n_rows = draw(st.integers(1, 3))
    made = np.zeros(n_rows, [("names", "O"), ("scores", "f4"), ("rank", "i8")])
    made["names"] = draw(st.lists(texts(), min_size=n_rows, max_size=n_rows))
    made["scores"] = _numbers(_rng(draw, st), (n_rows,), "float32")
    made["rank"] = np.arange(n_rows)
    return made


@_composite
def _matrices(draw: Any, st: Any, shape: tuple[int, int]) -> Any:
    return draw(st.one_of(sparse_matrices(shape), dense_arrays(shape)))


@_composite
def _maps(draw: Any, st: Any, n_rows: int, index: Any) -> dict[str, Any]:
    """Members of obsm or varm: arrays of two and three dimensions, sparse matrices, frames."""
    values = st.one_of(
        st.integers(0, 3).flatmap(lambda k: _matrices((n_rows, k))),
        dense_arrays((n_rows, 2, 2)),
        frames(n_rows, index=index),
    )
    return dict(draw(st.dictionaries(_keys(), values, max_size=2)))


@_composite
def anndatas(
    draw: Any,
    st: Any,
    *,
    max_obs: int = _MAX_OBS,
    max_vars: int = _MAX_VARS,
    has_x: bool | None = None,
) -> Any:
    """AnnData objects with any element in any form.

    Every object can be written and read back equal, with columns of strings left as they are
    (``convert_strings_to_categoricals=False``).

    Parameters
    ----------
    max_obs, max_vars : int
        Cells and genes at most; zero is among the cases.
    has_x : bool, optional
        None: X may be absent.

    Returns
    -------
    hypothesis strategy of anndata.AnnData

    Examples
    --------
    >>> import scio.testing
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=3, deadline=None)
    ... @given(scio.testing.anndatas())
    ... def test(adata):
    ...     assert adata.n_obs <= 9
    >>> test()
    """
    anndata = require("anndata", "scio.testing.anndatas")
    n_obs, n_vars = draw(st.integers(0, max_obs)), draw(st.integers(0, max_vars))
    obs, var = draw(frames(n_obs)), draw(frames(n_vars))
    wants_x = has_x if has_x is not None else draw(st.sampled_from([True, True, False]))
    adata = anndata.AnnData(
        draw(_matrices((n_obs, n_vars))) if wants_x else None, obs=obs, var=var, uns=draw(uns())
    )
    few = functools.partial(st.dictionaries, _keys(), max_size=2)
    for name, values in (
        ("layers", few(_matrices((n_obs, n_vars)))),
        ("obsm", _maps(n_obs, obs.index)),
        ("varm", _maps(n_vars, var.index)),
        ("obsp", few(_matrices((n_obs, n_obs)))),
        ("varp", few(_matrices((n_vars, n_vars)))),
    ):
        for key, value in draw(values).items():
            getattr(adata, name)[key] = value
    if draw(st.booleans()):
        n_raw = draw(st.integers(0, max_vars))
        raw = anndata.AnnData(draw(_matrices((n_obs, n_raw))), obs=obs[[]], var=draw(frames(n_raw)))
        adata.raw = raw
    return adata
