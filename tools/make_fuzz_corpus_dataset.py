"""Make the seeds of fuzz_dataset: small HDF5 files with one dataset each, one per way of storing it.

Each file has the dataset ``d`` (or two, where they belong together) and is small, so that a mutation is
likely to hit something that matters; it is the same whenever it is made by the same h5py.
The C tests of datasets, chunk indexes, reading and variable length read these files too and expect what
is written here: element number i of most is ``7 * i % 101``.

Usage: ``python tools/make_fuzz_corpus_dataset.py`` (h5py 3.16 on HDF5 2.0 made the files in the
repository)
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from numpy.typing import NDArray

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "dataset"
MAX_NBYTES = 24_000

EARLIEST = (h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
V110 = (h5f.LIBVER_V110, h5f.LIBVER_V110)
LATEST = (h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)

SHAPE, CHUNKS = (23, 31), (5, 7)  # no axis is a multiple of its chunk
EDGE_RAW = 2  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
FIRST_PAGED = 131_060  # first element of an extensible array that lies in a page


def values(n_items: int, dtype: str = "<i4") -> NDArray[Any]:
    """Return the elements that the C tests expect.

    Parameters
    ----------
    n_items : int
        How many.
    dtype : str
        Of NumPy.

    Returns
    -------
    numpy.ndarray, shape (n_items,)
    """
    return (np.arange(n_items) * 7 % 101).astype(dtype)


def grid(dtype: str = "<i4") -> NDArray[Any]:
    """Return ``values`` of the usual shape.

    Parameters
    ----------
    dtype : str
        Of NumPy.

    Returns
    -------
    numpy.ndarray, shape (23, 31)
    """
    return values(SHAPE[0] * SHAPE[1], dtype).reshape(SHAPE)


def make_file(
    name: str,
    bounds: tuple[int, int],
    fill: Callable[[h5py.File], None],
    *,
    sizes: tuple[int, int] = (8, 8),
    userblock: int = 0,
    chunk_k: int = 0,
) -> None:
    """Write one file of the corpus.

    Parameters
    ----------
    name : str
        Without its suffix.
    bounds : tuple of int
        Oldest and newest version of the library that shall read it.
    fill : callable
        Puts the content into the open file.
    sizes : tuple of int
        Bytes of an offset and of a length.
    userblock : int
        Bytes in front of the superblock.
    chunk_k : int
        Half the entries of a chunk B-tree's node; 0 is the library's choice.
    """
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    creation.set_sizes(*sizes)
    creation.set_userblock(userblock)
    if chunk_k != 0:
        call_hdf5("H5Pset_istore_k", creation.id, chunk_k)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*bounds)
    path = CORPUS / f"{name}.h5"
    with h5py.File(h5f.create(bytes(path), h5f.ACC_TRUNC, fcpl=creation, fapl=access)) as file:
        fill(file)
    if path.stat().st_size > MAX_NBYTES:
        message = f"{path.name} has {path.stat().st_size} bytes, more than {MAX_NBYTES}"
        raise ValueError(message)


def call_hdf5(function: str, properties: int, value: int) -> None:
    """Call a function that h5py does not offer in the library that it has loaded.

    Parameters
    ----------
    function : str
        Takes a property list and an unsigned.
    properties, value : int
        Its arguments.
    """
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    library = ctypes.CDLL(
        next(line.split()[-1] for line in lines if "libhdf5" in line and "_hl" not in line)
    )
    call = getattr(library, function)
    call.argtypes = [ctypes.c_int64, ctypes.c_uint]
    if call(properties, value) < 0:
        message = f"{function} failed"
        raise RuntimeError(message)


def put(data: NDArray[Any] | None = None, **options: Any) -> Callable[[h5py.File], None]:
    """Return what puts the dataset ``d`` into a file.

    Parameters
    ----------
    data : numpy.ndarray, optional
        Its elements.
    **options
        Of ``h5py.Group.create_dataset``.

    Returns
    -------
    callable
    """

    def fill(file: h5py.File) -> None:
        file.create_dataset("d", data=data, track_times=False, **options)

    return fill


def put_parts(
    shape: tuple[int, ...], parts: list[tuple[Any, Any]], **options: Any
) -> Callable[[h5py.File], None]:
    """Return what puts ``d`` into a file and writes only parts of it.

    Parameters
    ----------
    shape : tuple of int
        Of ``d``.
    parts : list of tuple
        Selection and value.
    **options
        Of ``h5py.Group.create_dataset``.

    Returns
    -------
    callable
    """

    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset("d", shape, track_times=False, **options)
        for selection, value in parts:
            dataset[selection] = value

    return fill


def put_low(
    data: NDArray[Any],
    maximum: tuple[int, ...],
    change: Callable[[h5p.PropDCID], None],
    *,
    is_written: bool = True,
) -> Callable[[h5py.File], None]:
    """Return what puts ``d`` into a file with properties that only the low level offers.

    Parameters
    ----------
    data : numpy.ndarray
        Its elements.
    maximum : tuple of int
        Of its shape.
    change : callable
        Sets the properties.
    is_written : bool
        Whether the elements are written.

    Returns
    -------
    callable
    """

    def fill(file: h5py.File) -> None:
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_obj_track_times(False)
        change(creation)
        space = h5s.create_simple(data.shape, maximum)
        dataset = h5d.create(file.id, b"d", h5t.py_create(data.dtype), space, creation)
        if is_written:
            dataset.write(h5s.ALL, h5s.ALL, data)

    return fill


def implicit(creation: h5p.PropDCID) -> None:
    """Ask for the implicit chunk index."""
    creation.set_chunk(CHUNKS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)


def edge_raw(creation: h5p.PropDCID) -> None:
    """Ask for filters on whole chunks only."""
    creation.set_chunk(CHUNKS)
    creation.set_deflate(1)
    call_hdf5("H5Pset_chunk_opts", creation.id, EDGE_RAW)


def compact(creation: h5p.PropDCID) -> None:
    """Ask for elements in the object header."""
    creation.set_layout(h5d.COMPACT)


def fill_masks(file: h5py.File) -> None:
    """Chunks that skipped both filters, the first, the second, none."""
    dataset = file.create_dataset(
        "d", (40,), "<i4", chunks=(10,), shuffle=True, compression="gzip", track_times=False
    )
    parts = values(40).reshape(4, 10)
    planes = parts[2].view("u1").reshape(10, 4).T.tobytes()
    dataset.id.write_direct_chunk((0,), parts[0].tobytes(), filter_mask=3)
    dataset.id.write_direct_chunk((10,), zlib.compress(parts[1].tobytes()), filter_mask=1)
    dataset.id.write_direct_chunk((20,), planes, filter_mask=2)
    dataset[30:] = parts[3]


def fill_indexes() -> None:
    """Write one file per chunk index and kind of element in it."""
    g1 = {"compression": 1}
    ones = {"chunks": (1,)}
    make_file("btree1", EARLIEST, put(grid(), chunks=CHUNKS, shuffle=True, **g1))
    holes = [(np.s_[30:40], 5), (np.s_[98:100], 1)]
    options: dict[str, Any] = {"dtype": "<i4", "chunks": (7,), "fillvalue": -3}
    make_file("btree1_holes", EARLIEST, put_parts((100,), holes, **options))
    make_file("btree1_levels", EARLIEST, put(values(60, "u1"), **ones), chunk_k=2)
    for name, bounds in (("v110", V110), ("latest", LATEST)):
        make_file(f"single_{name}", bounds, put(grid(), chunks=SHAPE, **g1))
        make_file(f"fixed_{name}", bounds, put(grid(), chunks=CHUNKS, maxshape=(30, 40), **g1))
        make_file(f"extensible_{name}", bounds, put(values(60, "u1"), maxshape=(None,), **ones))
        filtered = put(grid(), chunks=CHUNKS, maxshape=(23, None), **g1)
        make_file(f"extensible_filtered_{name}", bounds, filtered)
        both = (None, None)
        make_file(f"btree2_{name}", bounds, put(grid(), chunks=CHUNKS, maxshape=both, **g1))
    make_file("single_plain", LATEST, put(grid(), chunks=SHAPE))
    make_file("implicit", LATEST, put_low(grid(), SHAPE, implicit))
    make_file("implicit_larger", LATEST, put_low(grid(), (30, 40), implicit))
    paged = [(5, 1), (np.s_[1024:1030], 2)]
    make_file("fixed_paged", LATEST, put_parts((1030,), paged, dtype="u1", fillvalue=9, **ones))
    # the second page of the second data block below the first super block that has pages
    far = [(2, 1), (FIRST_PAGED + 3078, 2)]
    options = {"dtype": "u1", "fillvalue": 9, "maxshape": (None,), **ones}
    make_file("extensible_paged", LATEST, put_parts((FIRST_PAGED + 3100,), far, **options))
    cells = values(144, "u1").reshape(12, 12)
    make_file("btree2_deep", LATEST, put(cells, chunks=(1, 1), maxshape=(None, None)))
    for name, bounds in (("btree1", EARLIEST), ("btree2", LATEST)):
        few = [(np.s_[5:15, 5:15], 3), ((2**39, 7), 4)]
        options = {"dtype": "<i4", "chunks": (10, 10), "maxshape": (None, None), "fillvalue": 8}
        make_file(f"sparse_{name}", bounds, put_parts((2**40, 1024), few, **options))
    filters = {"shuffle": True, "fletcher32": True, **g1}
    four = {"sizes": (4, 4)}
    make_file("sizes4_btree1", EARLIEST, put(grid(), chunks=CHUNKS, **filters), **four)
    make_file("sizes4_fixed", V110, put(grid(), chunks=CHUNKS, maxshape=(30, 40)), **four)
    make_file("userblock", EARLIEST, put(grid(), chunks=CHUNKS, **g1), userblock=512)


def fill_layouts() -> None:
    """Write one file per layout, type of value and way to leave elements out."""
    make_file("contiguous", EARLIEST, put(grid()))
    make_file("contiguous_big", EARLIEST, put(grid(">i2")))
    make_file("contiguous_hole", EARLIEST, put(shape=SHAPE, dtype="<f8", fillvalue=2.5))
    make_file("compact", EARLIEST, put_low(values(20), (20,), compact))
    make_file("scalar", LATEST, put(np.float32(3.5)))
    make_file("empty", LATEST, put(np.zeros((0, 4), "<i4"), maxshape=(None, 4), chunks=(2, 4)))
    make_file("null", EARLIEST, put(h5py.Empty("<f4")))
    make_file("bool", EARLIEST, put(values(30) % 2 == 0, chunks=(8,)))
    make_file("big", EARLIEST, put(grid(">f8"), chunks=CHUNKS, compression=1, shuffle=True))
    make_file("line_big", EARLIEST, put(values(100, ">i4"), chunks=(10,), compression=1))
    make_file("line", EARLIEST, put(values(105), chunks=(10,), compression=1))
    many = put(values(260, "u1"), chunks=(1,), compression=1)
    make_file("line_many", EARLIEST, many)  # enough chunks to try both deflate decoders on
    make_file("line_plain", EARLIEST, put(values(105), chunks=(10,)))
    make_file("cube", EARLIEST, put(values(7 * 8 * 9).reshape(7, 8, 9), chunks=(2, 3, 4)))
    make_file("edge_raw", EARLIEST, put_low(grid(), SHAPE, edge_raw))
    make_file("masks", EARLIEST, fill_masks)
    make_file("lzf", EARLIEST, put(values(300), chunks=(100,), compression="lzf"))
    pairs = np.zeros(20, [("a", "<i4"), ("b", ">f8")])
    pairs["a"] = values(20)
    make_file("compound", EARLIEST, put(pairs, chunks=(6,), compression=1, shuffle=True))


def fill_vlen() -> None:
    """Write files with values of variable length."""
    text = h5py.string_dtype()
    strings = np.array([f"value {i}" * (i % 4) for i in range(20)], dtype=object)
    make_file("vlen", EARLIEST, put(strings, dtype=text))
    some = [(3, "x"), (np.s_[8:10], "yy")]
    make_file(
        "vlen_fill", LATEST, put_parts((20,), some, dtype=text, chunks=(5,), fillvalue="fill")
    )

    def fill_sequences(file: h5py.File) -> None:
        sequences = file.create_dataset("d", (6,), h5py.vlen_dtype("<i4"), track_times=False)
        for i in range(5):
            sequences[i] = values(i)

    make_file("vlen_sequences", EARLIEST, fill_sequences)
    pairs = np.array([(i, "s" * i) for i in range(6)], dtype=[("n", "<i4"), ("s", text)])
    make_file("vlen_compound", EARLIEST, put(pairs), sizes=(4, 4))


def main() -> None:
    """Write all files and say what they take."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    for path in CORPUS.glob("*.h5"):
        path.unlink()
    fill_indexes()
    fill_layouts()
    fill_vlen()
    files = sorted(CORPUS.glob("*.h5"))
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes")
    print(f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}")


if __name__ == "__main__":
    main()
