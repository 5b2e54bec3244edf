"""An AnnData from its planned elements; the places where old releases kept things."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio._optional import require
from scio.errors import CorruptFileError, IOFormatError, KeyNotFoundError
from scio.io._plan import Deferred, Rows
from scio.io.elements import Frame
from scio.io.h5ad import shape_of
from scio.matrix import row_index

if TYPE_CHECKING:
    from scio.io._encodings import ElementReader

_FRAMES_AND_MAPPINGS = ("obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns")
_MEMBERS = frozenset({*_FRAMES_AND_MAPPINGS, "X", "raw", "raw.X", "raw.var", "raw.varm"})
_GRAPHS = ("distances", "connectivities")


def plan_anndata(
    reader: ElementReader,
    base: str = "",
    *,
    obs: Any = None,
    var: Any = None,
    as_sparse: Sequence[str] = (),
) -> Deferred:
    """Plan an AnnData at the root or in a group.

    Parameters
    ----------
    reader : ElementReader
    base : str
        Path of its group, "" for the root.
    obs, var : selector
        Rows and columns that are wanted, None = all.
    as_sparse : sequence of str
        "X", "raw/X": dense matrices that become CSR while they are read.

    Returns
    -------
    callable
        Gives an ``anndata.AnnData``.
    """
    parts = _Parts(reader, base, obs, var, as_sparse)
    parts.plan()
    return parts.finish


class _Parts:
    """The planned parts of one AnnData."""

    def __init__(
        self, reader: ElementReader, base: str, obs: Any, var: Any, as_sparse: Sequence[str]
    ) -> None:
        self.reader = reader
        self.base = base
        self.names = reader.members(base or "/")
        self.as_sparse = as_sparse
        for axis in ("obs", "var"):
            if axis not in self.names:
                message = f"{reader.file.name} has no {base}/{axis}: it is HDF5, but no AnnData"
                raise IOFormatError(message)
        self.is_selected = obs is not None or var is not None
        self.obs_rows = self._rows("obs", obs)
        self.var_rows = self._rows("var", var)
        self.planned: dict[str, Deferred] = {}
        self.graphs: dict[str, Deferred] = {}
        self.is_legacy = reader.file.kind(f"{base}/obs") == "dataset"

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _has(self, name: str) -> bool:
        return name in self.names and self.reader.wanted.enters(self._path(name).strip("/"))

    # --- rows

    def _rows(self, axis: str, selector: Any) -> Rows:
        file, path = self.reader.file, self._path(axis)
        n_total = len(Frame(file, path, axis))
        names: Callable[[], NDArray[Any]] = lambda: Frame(file, path, axis).index  # noqa: E731
        return make_rows(selector, n_total, names, f"{file.name}: {axis}")

    # --- planning

    def plan(self) -> None:
        reader, obs, var = self.reader, self.obs_rows, self.var_rows
        for name in _FRAMES_AND_MAPPINGS:  # known, also where there is nothing in them
            reader.wanted.has(self._path(name).strip("/"))
        for axis, rows in (("obs", obs), ("var", var)):
            self.planned[axis] = reader.expected(self._path(axis), "frame", (rows,))
        axes = {"layers": (obs, var), "obsm": (obs,), "varm": (var,)}
        axes |= {"obsp": (obs, obs), "varp": (var, var)}
        if "X" in self.names and reader.wanted.has(self._path("X").strip("/")):
            self.planned["X"] = self._matrix("X", "X", (obs, var))
        for name, of in axes.items():
            if self._has(name):
                self.planned[name] = reader.expected(self._path(name), "mapping", of)
        if self._has("uns"):
            self._plan_graphs()
            self.planned["uns"] = reader.expected(self._path("uns"), "mapping")
        elif self.is_legacy and "uns" in self.names:
            self.planned["labels"] = self._plan_labels()
        self._plan_raw()
        for name in self.names:
            if name not in _MEMBERS and reader.wanted.enters(self._path(name).strip("/")):
                reader.skip(self._path(name), "no part of the AnnData format")

    def _is_null(self, name: str) -> bool:
        """Whether None was written."""
        file, path = self.reader.file, self._path(name)
        return file.kind(path) == "dataset" and file.dataset(path).shape is None

    def _matrix(self, name: str, key: str, axes: tuple[Rows, Rows]) -> Deferred:
        path = self._path(name)
        file = self.reader.file
        if self._is_null(name):  # 0.12.0 and 0.12.1 wrote None so
            return lambda: None
        if file.kind(path) == "dataset":
            shape = file.dataset(path).shape
            if shape is None or len(shape) != 2:
                message = f"{file.name}: {path} has shape {shape}, a matrix has two dimensions"
                raise CorruptFileError(message)
            if key in self.as_sparse:
                return self.reader.dense_as_sparse(path, axes)
        return self.reader.element(path, axes)

    def _plan_graphs(self) -> None:
        """Before 0.7 the graphs of neighbours lay in uns; anndata moves them to obsp."""
        reader = self.reader
        group = self._path("uns/neighbors")
        if reader.file.kind(self._path("uns")) != "group" or reader.file.kind(group) != "group":
            return
        members = reader.file.keys(group)
        shape = (self.obs_rows.n_total, self.obs_rows.n_total)
        for name in _GRAPHS:
            path = f"{group}/{name}"
            if name not in members or shape_of(reader.file, path) != shape:
                continue
            if reader.wanted.has(path.strip("/")):
                self.graphs[name] = reader.element(path, (self.obs_rows, self.obs_rows))
                reader.moved.add(path)

    def _plan_labels(self) -> Deferred:
        """Labels of categorical columns, which old frames keep in uns."""
        reader, uns = self.reader, self._path("uns")
        planned = {
            name: reader.element(f"{uns}/{name}")
            for name in reader.file.keys(uns)
            if name.endswith("_categories")
        }
        return lambda: {name: value() for name, value in planned.items()}

    def _plan_raw(self) -> None:
        reader, wanted = self.reader, self.reader.wanted
        new = "raw" in self.names and not self._is_null("raw")
        old = [name for name in self.names if name.startswith("raw.")]
        if (not new and not old) or not wanted.enters(self._path("raw").strip("/")):
            return
        wanted.has(self._path("raw").strip("/"))
        paths = {k: f"raw/{k}" if new else f"raw.{k}" for k in ("X", "var", "varm")}
        members = reader.members(self._path("raw")) if new else [n[4:] for n in old]
        if new and old:
            message = f"{reader.file.name} has both {self.base}/raw and {self._path(old[0])}"
            raise CorruptFileError(message)
        if "var" not in members:
            if members:
                message = f"{reader.file.name}: {self._path('raw')} has no var"
                raise CorruptFileError(message)
            return
        var = Rows(len(Frame(reader.file, self._path(paths["var"]), "raw.var")))
        self.planned["raw.var"] = reader.expected(self._path(paths["var"]), "frame", (var,))
        if "X" in members:
            wanted.has(self._path("raw/X").strip("/"))
            self.planned["raw.X"] = self._matrix(paths["X"], "raw/X", (self.obs_rows, var))
        if "varm" in members:
            self.planned["raw.varm"] = reader.expected(self._path(paths["varm"]), "mapping", (var,))

    # --- the object

    def finish(self) -> Any:
        anndata = require("anndata", "scio.read_h5ad")
        values = {name: value() for name, value in self.planned.items()}
        for axis in ("obs", "var"):
            values[axis].index = _as_text(values[axis].index)
        uns = values.get("uns") or {}
        if self.is_legacy:
            _apply_labels(values["obs"], values["var"], uns, values.pop("labels", None) or uns)
        if self.is_selected and getattr(anndata.settings, "remove_unused_categories", True):
            frames = [*(values.get("obsm") or {}).values(), *(values.get("varm") or {}).values()]
            for frame in (values["obs"], values["var"], *frames):
                if hasattr(frame, "columns"):
                    _drop_unused(
                        frame, uns if frame is values["obs"] or frame is values["var"] else {}
                    )
        obsp = values.get("obsp") or {}
        obsp |= {name: graph() for name, graph in self.graphs.items()}
        raw = None
        if "raw.var" in values:
            raw = {"var": values["raw.var"], "X": values.get("raw.X")}
            raw["var"].index = _as_text(raw["var"].index)
            raw["varm"] = values.get("raw.varm")
        mappings = {name: values.get(name) for name in ("layers", "obsm", "varm", "varp")}
        try:
            return anndata.AnnData(
                X=values.get("X"),
                obs=values["obs"],
                var=values["var"],
                uns=uns,
                obsp=obsp,
                raw=raw,
                **mappings,
            )
        except (
            ValueError
        ) as error:  # what only AnnData looks at, such as the index of a frame in obsm
            message = f"{self.reader.file.name}: {self.base or '/'} is no AnnData: {error}"
            raise CorruptFileError(message) from error


def make_rows(selector: Any, n_total: int, names: Callable[[], NDArray[Any]], what: str) -> Rows:
    """Turn a selector of one axis into positions.

    Parameters
    ----------
    selector : slice, mask, integers, int, str, sequence of str or None
        None = all.  A Series of booleans counts as its values.
    n_total : int
    names : callable
        Gives the names of the axis; called only when names are asked for.
    what : str
        File and axis, for messages.

    Raises
    ------
    KeyNotFoundError
        If a name does not exist.
    IndexError, TypeError
        As `scio.matrix.row_index`.
    """
    if selector is None or (isinstance(selector, slice) and selector == slice(None)):
        return Rows(n_total)
    if isinstance(selector, str):
        selector = [selector]
    if not isinstance(selector, slice):
        selector = np.asarray(selector)
        if selector.size and selector.dtype.kind in "OU" and isinstance(selector.flat[0], str):
            selector = _positions(selector.reshape(-1).tolist(), names(), what)
    return Rows(n_total, row_index(selector, n_total))


def _positions(wanted: list[str], names: NDArray[Any], what: str) -> NDArray[np.int64]:
    known: dict[str, int] = {}
    for i, name in enumerate(names.tolist()):
        if known.setdefault(name, i) != i:
            known[name] = -1 - abs(known[name])  # met twice
    out = np.empty(len(wanted), dtype=np.int64)
    for i, name in enumerate(wanted):
        if name not in known:
            message = f"{what} has no name {name!r}; {near_names(name, known)}"
            raise KeyNotFoundError(message)
        if known[name] < 0:
            message = f"{what} has the name {name!r} more than once: select by position"
            raise ValueError(message)
        out[i] = known[name]
    return out


def _as_text(index: Any) -> Any:
    """An index as AnnData wants it: strings."""
    is_text = index.dtype == "string" or (
        index.dtype == object and all(type(label) is str for label in index)
    )
    return index if is_text else index.astype(str)


def _apply_labels(obs: Any, var: Any, uns: dict[str, Any], labels: dict[str, Any]) -> None:
    """Labels of 0.6 and before: ``uns/<column>_categories`` for columns of codes in obs or var."""
    pandas = require("pandas", "scio.read_h5ad")
    for key in [k for k in labels if k.endswith("_categories")]:
        column = key.replace("_categories", "")
        names = labels[key]
        names = [names] if isinstance(names, (str, int)) else names
        for frame in (obs, var):
            if column not in frame or frame[column].dtype.kind not in "iu":
                continue
            codes = frame[column].to_numpy()
            if codes.size and (int(codes.max()) >= len(names) or int(codes.min()) < -1):
                continue  # of the other frame
            frame[column] = pandas.Categorical.from_codes(codes, names)
            uns.pop(key, None)


def _drop_unused(frame: Any, uns: dict[str, Any]) -> None:
    """What anndata does to a subset: unused categories and their colours go."""
    pandas = require("pandas", "scio.read_h5ad")
    for name in frame.columns:
        if not isinstance(frame[name].dtype, pandas.CategoricalDtype):
            continue
        before = frame[name].cat.categories
        frame[name] = frame[name].cat.remove_unused_categories()
        colors = uns.get(f"{name}_colors")
        if colors is None:
            continue
        if np.ndim(colors) == 0:
            uns[f"{name}_colors"] = np.array(colors)[None]
        elif len(colors) != len(before):
            del uns[f"{name}_colors"]
        else:
            uns[f"{name}_colors"] = np.array(colors)[np.isin(before, frame[name].cat.categories)]
