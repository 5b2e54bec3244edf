"""Files that are sound HDF5 and break exactly one rule of an AnnData file.

Each rule says how a sound file is made to break it, which element the refusal must name, and which
words of the rule it must hold.  Which of several elements is broken, and where, a seed decides.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scio._optional import require
from scio.errors import CorruptFileError, IOFormatError, UnsafeFileError, UnsupportedError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_SPARSE = ("csr_matrix", "csc_matrix")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One way in which a file can be wrong.

    Attributes
    ----------
    name : str
    error : type
        What reading raises: an `IOFormatError`, or MemoryError for what is too large.
    says : str
        Regular expression that the message matches: the rule, not the place.
    """

    name: str
    error: type[Exception]
    says: str
    breaks: Callable[[_Editor], str] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class BrokenFile:
    """A file that breaks one rule.

    Attributes
    ----------
    image : bytes
        The file.
    rule : Rule
        What is broken.
    element : str
        Path of the element where it is broken; the refusal names it.
    """

    image: bytes = dataclasses.field(repr=False)
    rule: Rule
    element: str


class _Editor:
    """An open file and the choices of one seed."""

    def __init__(self, file: Any, rng: np.random.Generator) -> None:
        self.file, self.rng = file, rng
        self.patches: list[tuple[int, bytes]] = []  # for what h5py cannot write

    def pick(self, items: Sequence[Any], what: str) -> Any:
        if not items:
            message = f"the file has no {what} that could be broken"
            raise ValueError(message)
        return items[int(self.rng.integers(len(items)))]

    def one(self, *encodings: str, below: str = "/", suits: Any = None) -> str:
        """Choose an element of one of the encodings; `suits` looks at the h5py object."""
        found: list[str] = []

        def visit(name: str, item: Any) -> None:
            is_asked = item.attrs.get("encoding-type") in encodings
            if is_asked and f"/{name}".startswith(below) and (suits is None or suits(item)):
                found.append(f"/{name}")

        self.file.visititems(visit)
        return str(self.pick(sorted(found), " or ".join(encodings)))

    def replace(self, path: str, values: Any, **options: Any) -> None:
        """Put another dataset in the place of one, with its attributes."""
        attributes = dict(self.file[path].attrs)
        del self.file[path]
        made = self.file.create_dataset(path, data=values, **options)
        made.attrs.update(attributes)

    def sparse(self, *, has_fixed_shape: bool = False) -> str:
        """Choose a sparse matrix with stored values; has_fixed_shape: both sizes are those of the file."""
        is_free = "/obsm/", "/varm/", "/uns/"
        return self.one(
            *_SPARSE,
            suits=lambda g: (
                g["data"].size > 1
                and g["indptr"].size > 2
                and not (has_fixed_shape and g.name.startswith(is_free))
            ),
        )

    def categorical(self) -> str:
        return self.one(
            "categorical", suits=lambda g: g["codes"].size > 0 and g["categories"].size > 1
        )

    def column(self, below: str = "/obs") -> str:
        """A plain column of numbers of obs or var."""
        return self.one(
            "array",
            below=f"{below}/",
            suits=lambda d: d.ndim == 1 and d.size > 1 and d.name.count("/") == 2,
        )

    def frame(self) -> str:
        return str(self.pick(["/obs", "/var"], "frame"))


# ---- sparse matrices


def _indptr(edit: Callable[[Any, np.random.Generator], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        path = f"{e.sparse()}/indptr"
        e.replace(path, edit(e.file[path][()], e.rng))
        return path

    return breaks


def _decrease(ptr: Any, rng: np.random.Generator) -> Any:
    i = int(rng.integers(1, len(ptr) - 1))
    ptr[i] = ptr[-1] + 1  # so the next one is smaller, wherever this is
    return ptr


def _with(index: int, change: Callable[[Any], Any]) -> Callable[[Any, np.random.Generator], Any]:
    def edit(ptr: Any, _: np.random.Generator) -> Any:
        ptr[index] = change(ptr[index])
        return ptr

    return edit


def _indices(
    value: Callable[[int, int], int], dtype: str | None = None
) -> Callable[[_Editor], str]:
    """One index becomes value(old, n_minor)."""

    def breaks(e: _Editor) -> str:
        matrix = e.sparse()
        group, path = e.file[matrix], f"{matrix}/indices"
        n_minor = group.attrs["shape"][1 if group.attrs["encoding-type"] == _SPARSE[0] else 0]
        indices = e.file[path][()]
        indices = indices if dtype is None else indices.astype(dtype)
        i = int(e.rng.integers(len(indices)))
        indices[i] = value(int(indices[i]), int(n_minor))
        e.replace(path, indices)
        return path

    return breaks


def _member(name: str, edit: Callable[[Any], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        path = f"{e.sparse()}/{name}"
        e.replace(path, edit(e.file[path][()]))
        return path

    return breaks


def _few_data(e: _Editor) -> str:
    path = e.sparse()
    e.replace(f"{path}/data", e.file[path]["data"][:-1])
    return path  # `indices` or `data`, nobody knows which is wrong


def _no_member(e: _Editor) -> str:
    path = e.sparse()
    del e.file[path][str(e.pick(["data", "indices", "indptr"], "member"))]
    return path


def _data_of_text(e: _Editor) -> str:
    path = f"{e.sparse()}/data"
    e.replace(path, np.array([b"x"] * e.file[path].size))
    return path


def _shape(edit: Callable[[Any], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        path = e.sparse(has_fixed_shape=True)
        shape = np.asarray(edit(e.file[path].attrs["shape"].astype("i8")), "i8")
        e.file[path].attrs["shape"] = shape
        return path

    return breaks


def _short_dense(e: _Editor) -> str:
    path = e.one("array", below="/layers/", suits=lambda d: d.ndim == 2)
    e.replace(path, e.file[path][:-1])
    return path


# ---- encodings


def _encoding(value: Any, choose: Callable[[_Editor], str]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        path = choose(e)
        e.file[path].attrs["encoding-type"] = value
        return path

    return breaks


# ---- frames


def _frame_attribute(name: str, value: Callable[[Any], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        path = e.frame()
        e.file[path].attrs[name] = value(e.file[path].attrs[name])
        return path

    return breaks


def _no_index(e: _Editor) -> str:
    path = e.frame()
    del e.file[path][e.file[path].attrs["_index"]]
    return path


def _no_column(e: _Editor) -> str:
    path = e.column()
    del e.file[path]
    return path


def _short_column(e: _Editor) -> str:
    path = e.column()
    e.replace(path, e.file[path][:-1])
    return path


def _flat_column(e: _Editor) -> str:
    path = e.column()
    e.replace(path, np.stack([e.file[path][()]] * 2, axis=1))
    return path


# ---- categoricals, nullable columns, strings


def _codes(edit: Callable[[Any, int], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        group = e.categorical()
        path, n_categories = f"{group}/codes", e.file[group]["categories"].size
        e.replace(path, edit(e.file[path][()], int(n_categories)))
        return path

    return breaks


def _one_code(value: Callable[[int], int]) -> Callable[[_Editor], str]:
    def edit(codes: Any, n: int) -> Any:
        codes[len(codes) // 2] = value(n)
        return codes

    return _codes(edit)


def _no_categories(e: _Editor) -> str:
    path = e.categorical()
    del e.file[path]["categories"]
    return path


def _equal_categories(e: _Editor) -> str:
    path = f"{e.categorical()}/categories"
    values = e.file[path][()]
    values[1] = values[0]
    e.replace(path, values)
    return path


def _own_categories(e: _Editor) -> str:
    path = e.categorical()
    del e.file[path]["categories"]
    e.file[path]["categories"] = e.file[path]
    return f"{path}/categories"


def _mask(edit: Callable[[Any], Any]) -> Callable[[_Editor], str]:
    def breaks(e: _Editor) -> str:
        found = e.one("nullable-integer", "nullable-boolean", "nullable-string-array")
        path = f"{found}/mask"
        e.replace(path, edit(e.file[path][()]))
        return path

    return breaks


def _fixed_not_utf8(e: _Editor) -> str:
    h5py = require("h5py", "scio.testing.break_rule")
    path = f"{e.frame()}/_index"
    values = [b"ok"] * (e.file[path].size - 1) + [b"b\xffd"]
    e.replace(path, np.array(values, h5py.string_dtype("utf-8", 3)))
    return path


def _heap_reference(position: int, value: bytes) -> Callable[[_Editor], str]:
    """Change (length, address of the heap, index in it) of one string of an index."""

    def breaks(e: _Editor) -> str:
        path = f"{e.frame()}/_index"
        values = e.file[path][()]
        e.replace(path, values)  # contiguous
        start, i = e.file[path].id.get_offset(), int(e.rng.integers(len(values)))
        e.patches.append((start + 16 * i + position, value))
        return path

    return breaks


def _heap_not_utf8(e: _Editor) -> str:
    path = f"{e.frame()}/_index"
    h5py = require("h5py", "scio.testing.break_rule")
    values = e.file[path][()]
    values[int(e.rng.integers(len(values)))] = b"caf\xe9"
    e.replace(path, values.astype(h5py.string_dtype("utf-8")))
    return path


# ---- groups, links, other files


def _no_frame(e: _Editor) -> str:
    path = e.frame()
    del e.file[path]
    return path


def _dangling(e: _Editor) -> str:
    h5py = require("h5py", "scio.testing.break_rule")
    path = e.column()
    del e.file[path]
    e.file[path] = h5py.SoftLink("/nowhere")
    return path


def _cycle(e: _Editor) -> str:
    group = e.file.require_group("uns").create_group("loop")
    group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    group["again"] = group
    return "/uns/loop/again"


def _frame_in_itself(e: _Editor) -> str:
    path = e.column()
    del e.file[path]
    e.file[path] = e.file[path.rpartition("/")[0]]
    return path


def _too_deep(e: _Editor) -> str:
    group = e.file.require_group("uns")
    for _ in range(200):
        group = group.create_group("d")
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    return "/uns/d/d/d"


def _external_link(e: _Editor) -> str:
    h5py = require("h5py", "scio.testing.break_rule")
    path = e.column()
    del e.file[path]
    e.file[path] = h5py.ExternalLink("other.h5", "/X")
    return path


def _external_storage(e: _Editor) -> str:
    path = e.column()
    old = e.file[path]
    attributes, shape, dtype = dict(old.attrs), old.shape, old.dtype
    del e.file[path]
    place = [("/etc/hostname", 0, int(np.prod(shape)) * dtype.itemsize)]
    e.file.create_dataset(path, shape, dtype, external=place).attrs.update(attributes)
    return path


def _virtual(e: _Editor) -> str:
    h5py = require("h5py", "scio.testing.break_rule")
    path = e.column()
    old = e.file[path]
    attributes, shape, dtype = dict(old.attrs), old.shape, old.dtype
    del e.file[path]
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("other.h5", "X", shape)
    e.file.create_virtual_dataset(path, layout).attrs.update(attributes)
    return path


# ---- sizes and filters


def _huge(n_cols: int) -> Callable[[_Editor], str]:
    """An array of 2**30 rows of which no chunk was ever written."""

    def breaks(e: _Editor) -> str:
        group = e.file.require_group("uns")
        made = group.create_dataset("huge", (2**30, n_cols), "f8", chunks=(1024, 1024))
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return "/uns/huge"

    return breaks


def _huge_contiguous(e: _Editor) -> str:
    """One element is stored; the header is made to declare 2**40 of them."""
    made = e.file.require_group("uns").create_dataset("huge", data=np.zeros(0x0123456789 % 977))
    made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    made.id.get_offset()
    e.file.flush()
    n_items = struct.pack("<Q", made.size)
    image = Path(e.file.filename).read_bytes()
    header = struct.pack("<BBBB", 1, 1, 1, 0) + bytes(4) + n_items  # dataspace, rank 1, with maxima
    start = image.rindex(header)
    e.patches.append((start + 8, struct.pack("<Q", 2**40)))
    e.patches.append((start + 16, struct.pack("<Q", 2**40)))
    return "/uns/huge"


def _chunk(change: Callable[[bytes], bytes], **options: Any) -> Callable[[_Editor], str]:
    """The stored bytes of a chunk of a column become others."""

    def breaks(e: _Editor) -> str:
        path = e.column()
        values = e.file[path][()]
        e.replace(path, values, chunks=values.shape, **options)
        chunk = e.file[path].id.read_direct_chunk((0,))[1]
        e.file[path].id.write_direct_chunk((0,), change(bytes(chunk)))
        return path

    return breaks


def _flipped(chunk: bytes) -> bytes:
    return bytes([chunk[0] ^ 1]) + chunk[1:]


def _shorter(chunk: bytes) -> bytes:
    import zlib

    return zlib.compress(zlib.decompress(chunk)[:-1])


def _unknown_filter(e: _Editor) -> str:
    """X/data is compressed by a filter that nobody has."""
    path = "/X/data"
    values = e.file[path][()]
    e.replace(path, values, chunks=values.shape, compression="gzip", compression_opts=7)
    e.file.flush()
    image = Path(e.file.filename).read_bytes()
    name = b"deflate\0"  # behind id, length of the name, flags (1: may be left out), n_values
    found = image.rindex(struct.pack("<HHHH", 1, len(name), 1, 1) + name + b"\7\0\0\0")
    e.patches.append((found, struct.pack("<HHH", 31999, len(name), 0)))
    return path


def _rules() -> Iterator[Rule]:
    corrupt, unsafe, unsupported = CorruptFileError, UnsafeFileError, UnsupportedError
    for name, says, breaks in (
        ("indptr does not start at 0", r"\[0\] is 1, expected 0", _indptr(_with(0, lambda _: 1))),
        ("indptr decreases", r"must not decrease", _indptr(_decrease)),
        ("indptr ends behind the values", r"expected the number of stored values", _indptr(_with(-1, lambda v: v + 1))),
        ("indptr ends before the values", r"expected the number of stored values", _indptr(_with(-1, lambda v: v - 1))),
        ("indptr ends at 2**40", r"is 1099511627776", _indptr(lambda p, _: np.r_[p[:-1].astype("i8"), 2**40])),
        ("indptr is negative", "must not decrease", _indptr(_with(1, lambda _: -1))),
        ("indptr is too short", r"has shape \(\d+,\), expected \(\d+,\)", _indptr(lambda p, _: p[:-1])),
        ("indptr is too long", r"has shape \(\d+,\), expected", _indptr(lambda p, _: np.r_[p, p[-1]])),
        ("indptr has two dimensions", r"has shape \(1, \d+\), expected", _indptr(lambda p, _: p[None])),
        ("indptr holds floats", "holds float, expected integers", _indptr(lambda p, _: p.astype("f8"))),
        ("index is n_minor", r"is \d+, not in \[0, \d+\)", _indices(lambda _, n: n)),
        ("index is negative", r"is -1, not in \[0, \d+\)", _indices(lambda *_: -1)),
        ("index wraps around in 32 bits", r"4294967\d+ at position \d+ does not fit", _indices(lambda i, _: i + 2**32, "i8")),
        ("index wraps around in 64 bits", r"18446744073709551615 at position \d+ does not fit", _indices(lambda *_: 2**64 - 1, "u8")),
        ("indices hold floats", "holds float, expected integers", _member("indices", lambda v: v.astype("f4"))),
        ("indices are too few", r"has shape \(\d+,\), expected", _member("indices", lambda v: v[:-1])),
        ("data are too few", r"has shape \(\d+,\), expected", _few_data),
        ("data have two dimensions", r"has shape .*one dimension", _member("data", lambda v: v[:, None])),
        ("data are text", "holds string, expected numbers", _data_of_text),
        ("member of a sparse matrix is missing", "lacks (data|indices|indptr)", _no_member),
        ("shape has three sizes", "expected two sizes", _shape(lambda s: [*s, 1])),
        ("shape is negative", "expected two sizes", _shape(lambda s: [-1, s[1]])),
        ("shape overflows", r"has shape \(.*\), expected", _shape(lambda _: [2**62, 2**62])),
        ("shape has more rows", r"has shape \(.*\), expected", _shape(lambda s: [s[0] + 1, s[1]])),
        ("shape has more columns", r"has shape \(.*\), expected", _shape(lambda s: [s[0], s[1] + 1])),
        ("layer has fewer rows than obs", r"has shape \(.*\), expected", _short_dense),
        ("encoding is a number", "encoding-type 3, expected a string", _encoding(3, _Editor.sparse)),
        ("array claims to be a categorical", "expected a group", _encoding("categorical", _Editor.column)),
        ("sparse matrix claims to be an array", "expected a dataset", _encoding("array", _Editor.sparse)),
        ("index of a frame is missing", "does not exist", _no_index),
        ("_index names nothing", "nowhere does not exist", _frame_attribute("_index", lambda _: "nowhere")),
        ("_index leads out of the frame", "does not exist", _frame_attribute("_index", lambda _: "../var/_index")),
        ("column-order names nothing", "nowhere.*does not exist", _frame_attribute("column-order", lambda c: [*c, "nowhere"])),
        ("column is missing", "does not exist", _no_column),
        ("column is too short", r"has shape \(\d+,\), expected", _short_column),
        ("column has two dimensions", r"has shape \(\d+, 2\)", _flat_column),
        ("code is n_categories", r"has code \d+ in row", _one_code(lambda n: n)),
        ("code is below -1", r"has code -2 in row", _one_code(lambda _: -2)),
        ("codes hold floats", "codes are integers", _codes(lambda c, _: c.astype("f8"))),
        ("codes are too few", r"has shape \(\d+,\), expected", _codes(lambda c, _: c[:-1])),
        ("categories are missing", "lacks categories", _no_categories),
        ("categories repeat", "must be unique", _equal_categories),
        ("mask is too short", r"has shape \(\d+,\), expected|entries, values has", _mask(lambda m: m[:-1])),
        ("mask holds floats", "true and false", _mask(lambda m: m.astype("f8"))),
        ("fixed string is not UTF-8", r"is not UTF-8: b'b\\xffd'", _fixed_not_utf8),
        ("string is not UTF-8", r"is not UTF-8: b'caf\\xe9'", _heap_not_utf8),
        ("string is longer than its heap object", r"268435455 bytes in object \d+ of the global heap", _heap_reference(0, b"\xff\xff\xff\x0f")),
        ("string lies behind the end of the file", "beyond the end of the file", _heap_reference(4, b"\xf0\xff\xff\xff")),
        ("string names no object of its heap", "has no object 65518", _heap_reference(12, b"\xee\xff\0\0")),
        ("group contains itself", "contains itself", _cycle),
        ("column is its frame", "contains itself", _frame_in_itself),
        ("categories are their categorical", "contains itself|expected", _own_categories),
        ("link leads nowhere", "does not exist|leads nowhere", _dangling),
        ("checksum of a chunk is wrong", "chunk.*checksum", _chunk(_flipped, fletcher32=True)),
        ("chunk is no deflate stream", "chunk.*deflate", _chunk(_flipped, compression="gzip")),
        ("chunk decodes to too few bytes", r"chunk.*\d+ bytes came out of the filters, expected \d+", _chunk(_shorter, compression="gzip")),
    ):  # fmt: skip
        yield Rule(name, corrupt, says, breaks)
    yield Rule("required frame is missing", IOFormatError, "no /(obs|var)", _no_frame)
    yield Rule(
        "X has an unknown encoding",
        unsupported,
        "encoding 'quantum'",
        _encoding("quantum", lambda _: "/X"),
    )
    yield Rule("X has an unknown filter", unsupported, "id 31999 .*unknown", _unknown_filter)
    yield Rule("link leads to another file", unsafe, r"other\.h5", _external_link)
    yield Rule("array lies in another file", unsafe, "external", _external_storage)
    yield Rule("array is virtual", unsafe, "virtual", _virtual)
    yield Rule("groups are nested too deeply", unsafe, "groups deep, the limit depth", _too_deep)
    yield Rule("size of an array overflows", corrupt, "the size overflows", _huge(2**30))
    yield Rule(
        "array of 2**61 bytes has no storage",
        MemoryError,
        "needs about 2147483648.0 GiB",
        _huge(2**28),
    )
    yield Rule(
        "array declares more than the file holds",
        corrupt,
        "bytes, shape and type need",
        _huge_contiguous,
    )


RULES: dict[str, Rule] = {rule.name: rule for rule in _rules()}


def break_rule(path: str | os.PathLike[str], rule: str | Rule, *, seed: int = 0) -> str:
    """Edit a sound AnnData file so that it breaks one rule and no other.

    Parameters
    ----------
    path : str or Path
        An ``.h5ad`` as `scio.write_h5ad` or anndata (0.8 or later) writes it; changed in place.
    rule : str or Rule
        One of `RULES`.
    seed : int
        Which element is broken, and where, when there are several.

    Returns
    -------
    str
        Path of the element that a refusal must name.

    Raises
    ------
    ValueError
        If the file has no element that the rule speaks of; it is unchanged.

    Examples
    --------
    >>> import shutil, scio, scio.testing
    >>> path = shutil.copy(scio.datasets.pbmc3k(), getfixture("tmp_path"))  # doctest: +SKIP
    >>> scio.testing.break_rule(path, "index is n_minor")  # doctest: +SKIP
    '/X/indices'
    """
    h5py = require("h5py", "scio.testing.break_rule")
    found = RULES[rule] if isinstance(rule, str) else rule
    with h5py.File(path, "r+") as file:
        editor = _Editor(file, np.random.default_rng(seed))
        element = found.breaks(editor)
    with open(path, "r+b") as raw:
        for offset, patch in editor.patches:
            raw.seek(offset)
            raw.write(patch)
    return element


def broken_files(rules: Sequence[str] | None = None) -> SearchStrategy[BrokenFile]:
    """Images of small files that break one rule each.

    Parameters
    ----------
    rules : sequence of str, optional
        Of `RULES`; all by default.

    Returns
    -------
    hypothesis strategy of BrokenFile

    Examples
    --------
    >>> import pytest, scio, scio.testing
    >>> from hypothesis import given, settings
    >>> @settings(max_examples=3, deadline=None)
    ... @given(scio.testing.broken_files(["index is n_minor"]))
    ... def test(broken):
    ...     with pytest.raises(broken.rule.error, match=broken.element):
    ...         scio.read_h5ad(broken.image)
    >>> test()
    """
    st = require("hypothesis.strategies", "scio.testing.broken_files")
    names = sorted(RULES if rules is None else rules)
    strategy: SearchStrategy[BrokenFile] = st.builds(
        _broken_file,
        st.sampled_from(names),
        st.integers(0, 2**32 - 1),
        st.sampled_from(["gzip", None]),
    )
    return strategy


def _broken_file(name: str, seed: int, compression: str | None) -> BrokenFile:
    import tempfile

    from scio.io.write import write_h5ad

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.h5ad")
        write_h5ad(_sound(np.random.default_rng(seed)), path, compression=compression)
        element = break_rule(path, name, seed=seed)
        return BrokenFile(path.read_bytes(), RULES[name], element)


def _sound(rng: np.random.Generator) -> Any:
    """A small AnnData with every element that a rule speaks of."""
    anndata = require("anndata", "scio.testing.broken_files")
    pandas = require("pandas", "scio.testing.broken_files")
    sparse = require("scipy.sparse", "scio.testing.broken_files")
    n_obs, n_vars = int(rng.integers(3, 12)), int(rng.integers(3, 9))

    def matrix(n_rows: int, n_cols: int, form: str) -> Any:
        dense = rng.poisson(0.7, (n_rows, n_cols)).astype(np.float32)
        dense[:2, 0] = 1  # so that there are values
        return getattr(sparse, f"{form}_matrix")(dense)

    def frame(n_rows: int, prefix: str) -> Any:
        return pandas.DataFrame(
            {
                "kind": pandas.Categorical.from_codes(
                    rng.integers(-1, 3, n_rows), ["T", "B", "größe"]
                ),
                "depth": rng.random(n_rows),
                "n": rng.integers(0, 99, n_rows),
                "maybe": pandas.arrays.IntegerArray(np.arange(n_rows), rng.random(n_rows) < 0.5),
                "whether": pandas.arrays.BooleanArray(
                    rng.random(n_rows) < 0.5, np.arange(n_rows) < 1
                ),
            },
            index=[f"{prefix}{i}" for i in range(n_rows)],
        )

    adata = anndata.AnnData(
        matrix(n_obs, n_vars, "csr"), obs=frame(n_obs, "cell"), var=frame(n_vars, "gene")
    )
    adata.raw = adata
    adata.layers["csc"] = matrix(n_obs, n_vars, "csc")
    adata.layers["dense"] = rng.random((n_obs, n_vars))
    adata.obsm["sparse"] = matrix(n_obs, 4, "csr")
    adata.varp["graph"] = matrix(n_vars, n_vars, "csr")
    adata.uns["nested"] = {"a": {"b": np.arange(3)}}
    return adata
