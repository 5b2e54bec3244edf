"""A sound file with nearly every element, and ways to break one rule of it at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

N_OBS, N_VARS = 60, 25


def write_sound(path: Path, **options: Any) -> Path:
    """Write 60 cells x 25 genes: CSR X, layers, raw, graphs, frames with columns of every kind."""
    rng = np.random.default_rng(1)
    dense = rng.poisson(0.7, (N_OBS, N_VARS)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical([f"k{i % 3}" for i in range(N_OBS)], ordered=True),
            "name": [f"näme{i}" for i in range(N_OBS)],
            "depth": np.arange(N_OBS) * 0.5,
            "count": pd.array([None if i % 7 == 0 else i for i in range(N_OBS)], dtype="Int64"),
            "flag": pd.array([None if i % 9 == 0 else i % 2 == 0 for i in range(N_OBS)], "boolean"),
        },
        index=[f"cell{i}" for i in range(N_OBS)],
    )
    var = pd.DataFrame({"length": range(N_VARS)}, index=[f"gene{i}" for i in range(N_VARS)])
    adata = anndata.AnnData(sp.csr_matrix(dense), obs=obs, var=var)
    adata.raw = adata.copy()
    adata.layers["dense"] = dense * 2
    adata.layers["csc"] = sp.csc_matrix(dense)
    adata.obsm["pca"] = rng.normal(size=(N_OBS, 4))
    adata.varm["loadings"] = rng.normal(size=(N_VARS, 4))
    graph = sp.random(N_OBS, N_OBS, 0.1, format="csr", random_state=1)
    adata.obsp["graph"] = graph
    adata.uns = {
        "seed": 3,
        "title": "a text",
        "colors": np.array(["red", "blue"]),
        "deep": {"x": 1.5},
    }
    adata.strings_to_categoricals = lambda *_: None  # `name` stays a column of strings
    adata.write_h5ad(path, **options)
    return path


Break = Callable[[h5py.File], None]


def replaced(path: str, change: Callable[[Any], Any], **options: Any) -> Break:
    """Store changed values under the same name, with the same attributes."""

    def apply(file: h5py.File) -> None:
        values, attributes = file[path][()], dict(file[path].attrs)
        del file[path]
        new = file.create_dataset(path, data=change(values), **options)
        new.attrs.update(attributes)

    return apply


def at(index: int, value: Any) -> Callable[[Any], Any]:
    """Change one value."""

    def change(values: Any) -> Any:
        values = values.copy()
        values[index] = value
        return values

    return change


def attribute(path: str, name: str, value: Any) -> Break:
    """Set an attribute."""
    return lambda file: file[path].attrs.__setitem__(name, value)


def no_attribute(path: str, name: str) -> Break:
    """Delete an attribute."""
    return lambda file: file[path].attrs.__delitem__(name)


def removed(path: str) -> Break:
    """Delete an object."""
    return lambda file: file.__delitem__(path)


def resized(path: str, n: int) -> Break:
    """Cut an array along its first axis."""
    return replaced(path, lambda values: values[:n])


def external(file: h5py.File) -> None:
    file["uns/other"] = h5py.ExternalLink("other.h5", "/x")


def cycle(file: h5py.File) -> None:
    file["uns/deep/again"] = file["uns"]


def bytes_in_text(file: h5py.File) -> None:
    del file["obs/name"]
    new = file.create_dataset(
        "obs/name", data=np.array([b"ok"] * (N_OBS - 1) + [b"\xff\xfe"], "S4")
    )
    new.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def doubled_in_row(file: h5py.File) -> None:
    indptr, indices = file["X/indptr"][()], file["X/indices"]
    row = int(np.flatnonzero(np.diff(indptr) >= 2)[0])
    indices[indptr[row] + 1] = indices[indptr[row]]


def swapped_in_row(file: h5py.File) -> None:
    indptr, indices = file["X/indptr"][()], file["X/indices"]
    row = int(np.flatnonzero(np.diff(indptr) >= 2)[0])
    pair = indices[indptr[row] : indptr[row] + 2]
    indices[indptr[row] : indptr[row] + 2] = pair[::-1]


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(2,), dtype="i4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(2,))
    file.create_virtual_dataset("uns/virtual", layout)


# name -> (how, the findings that are no notes: path, rule)
RULES: dict[str, tuple[Break, set[tuple[str, str]]]] = {
    # sparse matrices
    "indptr begins late": (replaced("X/indptr", at(0, 1)), {("/X/indptr", "indptr")}),
    "indptr falls": (replaced("X/indptr", at(5, 10_000)), {("/X/indptr", "indptr")}),
    "indptr negative": (replaced("X/indptr", at(5, -3)), {("/X/indptr", "indptr")}),
    "indptr ends early": (
        replaced("X/indptr", lambda v: np.minimum(v, v[-1] - 1)),
        {("/X/indptr", "indptr")},
    ),
    "indptr short": (resized("X/indptr", N_OBS), {("/X/indptr", "shape")}),
    "indptr of floats": (replaced("X/indptr", lambda v: v.astype("f8")), {("/X/indptr", "type")}),
    "indptr of rank 2": (replaced("X/indptr", lambda v: v[:, None]), {("/X/indptr", "shape")}),
    "index too large": (replaced("X/indices", at(17, N_VARS)), {("/X/indices", "indices")}),
    "index negative": (replaced("X/indices", at(17, -1)), {("/X/indices", "indices")}),
    "index wraps when narrowed": (
        replaced("X/indices", lambda v: at(17, (1 << 32) + 1)(v.astype("i8"))),
        {("/X/indices", "indices")},
    ),
    "index in csc": (
        replaced("layers/csc/indices", at(3, N_OBS)),
        {("/layers/csc/indices", "indices")},
    ),
    "fewer indices than data": (resized("X/indices", 100), {("/X/indices", "shape")}),
    "index twice": (doubled_in_row, {("/X", "duplicates")}),
    "data of text": (replaced("X/data", lambda v: v.astype("S4")), {("/X/data", "type")}),
    "indices missing": (removed("X/indices"), {("/X", "members")}),
    "shape missing": (no_attribute("obsp/graph", "shape"), set()),  # the frames say it: a note
    "shape missing in uns": (
        lambda f: (f.copy("X", "uns/m"), f["uns/m"].attrs.__delitem__("shape")),
        {("/uns/m", "shape")},
    ),
    "shape negative": (attribute("X", "shape", [N_OBS, -1]), {("/X", "shape")}),
    "shape of three": (attribute("X", "shape", [N_OBS, N_VARS, 1]), {("/X", "shape")}),
    "shape is not that of the frames": (
        attribute("X", "shape", [N_OBS, N_VARS + 1]),
        {("/X", "shape")},
    ),
    # shapes of others
    "layer too short": (resized("layers/dense", 59), {("/layers/dense", "shape")}),
    "obsm too short": (resized("obsm/pca", 59), {("/obsm/pca", "shape")}),
    "varm too long": (
        replaced("varm/loadings", lambda v: np.vstack([v, v])),
        {("/varm/loadings", "shape")},
    ),
    "obsp not square": (attribute("obsp/graph", "shape", [N_OBS, 77]), {("/obsp/graph", "shape")}),
    "X of rank 3": (
        lambda f: (f.__delitem__("X"), f.create_dataset("X", data=np.zeros((N_OBS, N_VARS, 2)))),
        {("/X", "shape")},
    ),
    # encodings
    "unknown encoding of X": (attribute("X", "encoding-type", "ragged"), {("/X", "encoding")}),
    "no encoding of X": (no_attribute("X", "encoding-type"), {("/X", "encoding")}),
    "unknown encoding in uns": (attribute("uns/seed", "encoding-type", "ragged"), set()),  # a note
    "encoding of another kind": (
        attribute("obsm/pca", "encoding-type", "csr_matrix"),
        {("/obsm/pca", "encoding")},
    ),
    "encoding is a number": (
        attribute("obsm/pca", "encoding-type", 3),
        {("/obsm/pca", "encoding")},
    ),
    "newer minor version": (attribute("X", "encoding-version", "0.9.0"), {("/X", "version")}),
    "newer major version": (attribute("X", "encoding-version", "1.0.0"), {("/X", "version")}),
    "strings that are numbers": (
        attribute("obs/depth", "encoding-type", "string-array"),
        {("/obs/depth", "type")},
    ),
    "number that is an array": (
        attribute("uns/colors", "encoding-type", "numeric-scalar"),
        {("/uns/colors", "type")},
    ),
    # frames
    "no _index": (no_attribute("obs", "_index"), {("/obs", "frame")}),
    "_index names nothing": (attribute("obs", "_index", "nothing"), {("/obs", "frame")}),
    "no column-order": (no_attribute("obs", "column-order"), {("/obs", "frame")}),
    "column-order names nothing": (
        attribute("var", "column-order", ["length", "gone"]),
        {("/var", "frame")},
    ),
    "column-order names twice": (
        attribute("var", "column-order", ["length", "length"]),
        {("/var", "frame")},
    ),
    "column too short": (resized("obs/depth", 59), {("/obs/depth", "shape")}),
    "column of rank 2": (replaced("obs/depth", lambda v: v[:, None]), {("/obs/depth", "shape")}),
    "obs missing": (removed("obs"), {("/obs", "kind")}),
    "var is a number": (
        lambda f: (f.__delitem__("var"), f.create_dataset("var", data=1)),
        {("/var", "kind")},
    ),
    "labels repeat": (
        replaced("obs/_index", at(3, "cell2"), dtype=h5py.string_dtype()),
        {("/obs/_index", "labels")},
    ),
    # columns
    "code too large": (replaced("obs/kind/codes", at(7, 3)), {("/obs/kind/codes", "codes")}),
    "code below -1": (replaced("obs/kind/codes", at(7, -2)), {("/obs/kind/codes", "codes")}),
    "codes too short": (resized("obs/kind/codes", 59), {("/obs/kind/codes", "shape")}),
    "codes of floats": (
        replaced("obs/kind/codes", lambda v: v.astype("f4")),
        {("/obs/kind/codes", "type")},
    ),
    "categories missing": (removed("obs/kind/categories"), {("/obs/kind", "members")}),
    "categories repeat": (
        replaced("obs/kind/categories", at(1, "k0"), dtype=h5py.string_dtype()),
        {("/obs/kind/categories", "categories")},
    ),
    "mask too short": (resized("obs/count/mask", 59), {("/obs/count/mask", "mask")}),
    "mask of floats": (
        replaced("obs/count/mask", lambda v: v.astype("f4")),
        {("/obs/count/mask", "mask")},
    ),
    "values missing": (removed("obs/flag/values"), {("/obs/flag", "members")}),
    "text is no UTF-8": (bytes_in_text, {("/obs/name", "string")}),
    # links, other files
    "external link": (external, {("/uns/other", "link")}),
    "virtual dataset": (virtual, {("/uns/virtual", "safety")}),
    "external storage": (
        lambda f: f.create_dataset("uns/raw", (4,), "i4", external=[("outside.bin", 0, 16)]),
        {("/uns/raw", "safety")},
    ),
    "cycle": (cycle, {("/uns/deep/again", "cycle")}),
    # notes only
    "unsorted row": (swapped_in_row, set()),
    "group at the root": (lambda f: f.create_group("mine"), set()),
    "soft link": (lambda f: f.__setitem__("uns/soft", h5py.SoftLink("/X")), set()),
    "NaN in X": (replaced("X/data", at(0, np.nan)), set()),
    "member not in column-order": (
        lambda f: f.create_dataset("obs/extra", data=np.zeros(N_OBS)),
        set(),
    ),
}

NOTES = {
    "shape missing": ("/obsp/graph", "shape"),
    "unknown encoding in uns": ("/uns/seed", "unknown"),
    "unsorted row": ("/X", "order"),
    "group at the root": ("/mine", "unknown"),
    "soft link": ("/uns/soft", "link"),
    "NaN in X": ("/X", "values"),
    "member not in column-order": ("/obs/extra", "unknown"),
}
WARNINGS = {"index twice", "newer minor version", "labels repeat"}


def write_broken(sound: Path, path: Path, name: str) -> Path:
    """Copy a sound file and break one rule of the copy."""
    path.write_bytes(sound.read_bytes())
    with h5py.File(path, "r+") as file:
        RULES[name][0](file)
    return path
