"""Equality of whole AnnData objects and of their parts: values, dtypes, classes, order of keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata
import awkward
import numpy as np
import pandas as pd
import scipy.sparse as sp

MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp")


def assert_equal(a: Any, b: Any, where: str = "") -> None:
    """Raise AssertionError, with the place, unless `a` is what `b` is, in native byte order."""
    if isinstance(b, anndata.AnnData):
        _assert_anndata(a, b, where)
    elif isinstance(b, Mapping):
        assert isinstance(a, Mapping), where
        assert list(a) == list(b), where
        for key, value in b.items():
            assert_equal(a[key], value, f"{where}/{key}")
    elif isinstance(b, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, obj=where or "frame")
    elif sp.issparse(b):
        assert type(a) is type(b), (where, type(a), type(b))
        assert a.shape == b.shape, where
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=where)
        assert a.dtype == b.dtype, where
    elif isinstance(b, awkward.Array):
        assert a.to_list() == b.to_list(), where
        assert a.type == b.type, where
    elif isinstance(b, pd.api.extensions.ExtensionArray):
        pd.testing.assert_extension_array_equal(a, b, obj=where or "array")
    elif isinstance(b, np.ndarray):
        assert isinstance(a, np.ndarray), (where, type(a))
        dtypes = a.dtype.newbyteorder("="), b.dtype.newbyteorder("=")
        assert dtypes[0] == dtypes[1], (where, dtypes)
        assert a.shape == b.shape, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert type(a) is type(b), (where, type(a), type(b))
        assert a == b or (a != a and b != b), (where, a, b)


def _assert_anndata(a: Any, b: Any, where: str) -> None:
    assert isinstance(a, anndata.AnnData), where
    for name in ("X", "obs", "var", "uns", *MAPPINGS):
        mine, wanted = getattr(a, name), getattr(b, name)
        if name in MAPPINGS:
            mine, wanted = dict(mine), dict(wanted)
        assert_equal(mine, wanted, f"{where}/{name}")
    assert (a.raw is None) == (b.raw is None), where
    if b.raw is not None:
        assert_equal(a.raw.X, b.raw.X, f"{where}/raw/X")
        assert_equal(a.raw.var, b.raw.var, f"{where}/raw/var")
        assert_equal(dict(a.raw.varm), dict(b.raw.varm), f"{where}/raw/varm")
