"""Make the seeds of fuzz_h5file: small HDF5 files, one per family of structures.

Each file is below ``MAX_NBYTES``, so that a mutation is likely to hit something that matters, and is the
same whenever it is made by the same h5py: no times, no random numbers.
The C tests of the parser read these files too and expect what is written here.

Usage: ``python tools/make_fuzz_corpus_h5.py`` (h5py 3.16 on HDF5 2.0 made the files in the repository)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5p, h5s, h5t

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "h5file"
MAX_NBYTES = 10_000

EARLIEST = (h5f.LIBVER_EARLIEST, h5f.LIBVER_LATEST)
V18 = (h5f.LIBVER_V18, h5f.LIBVER_V18)
V110 = (h5f.LIBVER_V110, h5f.LIBVER_V110)
LATEST = (h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)


def make_file(
    name: str,
    bounds: tuple[int, int],
    fill: Callable[[h5py.File], None],
    *,
    sizes: tuple[int, int] = (8, 8),
    userblock: int = 0,
    prepare: Callable[[h5p.PropFCID], None] | None = None,
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
    prepare : callable, optional
        Sets more properties of the file.
    """
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    creation.set_sizes(*sizes)
    creation.set_userblock(userblock)
    if prepare is not None:
        prepare(creation)
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*bounds)
    path = CORPUS / f"{name}.h5"
    with h5py.File(h5f.create(bytes(path), h5f.ACC_TRUNC, fcpl=creation, fapl=access)) as file:
        fill(file)
    if path.stat().st_size > MAX_NBYTES:
        message = f"{path.name} has {path.stat().st_size} bytes, more than {MAX_NBYTES}"
        raise ValueError(message)


def find_hdf5() -> str:
    """Return the file of the HDF5 library that h5py has loaded."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return next(line.split()[-1] for line in lines if "libhdf5" in line and "_hl" not in line)


def make_group(parent: h5py.Group, name: str, *, is_tracked: bool = False) -> h5py.Group:
    """Make a group without times.

    Parameters
    ----------
    parent : h5py.Group
        Where.
    name : str
        Of the new group.
    is_tracked : bool
        Whether it keeps the order of its links and attributes.

    Returns
    -------
    h5py.Group
    """
    creation = h5p.create(h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    if is_tracked:
        order = h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED
        creation.set_link_creation_order(order)
        creation.set_attr_creation_order(order)
    return h5py.Group(h5g.create(parent.id, name.encode(), gcpl=creation))


def fill_frame(file: h5py.File) -> None:
    """A small AnnData-like frame: strings, a categorical, booleans."""
    obs = make_group(file, "obs")
    obs.attrs["encoding-type"] = "dataframe"
    obs.attrs["column-order"] = np.array(["kind", "is_good"], dtype=object)
    obs.create_dataset("kind", data=np.array([0, 1, -1], "i1"), track_times=False)
    obs.create_dataset("is_good", data=np.array([True, False, True]), track_times=False)
    names = np.array(["alpha", "beta", "gamma"], dtype=object)
    obs.create_dataset("index", data=names, dtype=h5py.string_dtype(), track_times=False)


def fill_matrix(file: h5py.File) -> None:
    """Chunks with filters, chunks that were never written, and data without chunks."""
    counts = (np.arange(60) % 7).astype("f4")
    options = {"chunks": (25,), "compression": 1, "shuffle": True, "track_times": False}
    file.create_dataset("counts", data=counts, **options)
    file.create_dataset("holes", (9,), ">i4", chunks=(2,), fillvalue=7, track_times=False)[4:6] = 1
    file.create_dataset("plain", data=counts, track_times=False)


def fill_links(file: h5py.File) -> None:
    """Hard links, a cycle, soft links (absolute, relative, dangling, to itself), an external one."""
    group = make_group(file, "group")
    make_group(group, "inner").create_dataset("x", data=np.int32(7), track_times=False)
    group["hard"] = group["inner/x"]
    group["cycle"] = file["/"]
    group["soft"] = h5py.SoftLink("/group/inner/x")
    group["relative"] = h5py.SoftLink("inner/x")
    group["dangling"] = h5py.SoftLink("/no/where")
    group["itself"] = h5py.SoftLink("itself")
    group["external"] = h5py.ExternalLink("other.h5", "/a")


def fill_many(file: h5py.File) -> None:
    """Twelve links and ten attributes: dense storage wherever the bounds allow it."""
    for i in range(12):
        file[f"link {i * 5 % 12}"] = h5py.SoftLink("/target")
    for i in range(10):
        file.attrs[f"attribute {i * 3 % 10}"] = np.arange(i, dtype="i2")


def fill_tracked(file: h5py.File) -> None:
    """Creation order in a file that is old otherwise, and an attribute too large for its heap."""
    group = make_group(file, "tracked", is_tracked=True)
    for name in ("zebra", "ant", "mole"):
        group[name] = h5py.SoftLink("/target")
    for i in range(9):
        group.attrs[f"a{i}"] = i
    group.attrs["column-order"] = np.arange(4200, dtype="u2").astype("u1")


def commit_untimed(file: h5py.File, name: str, datatype: h5t.TypeID) -> None:
    """Store a datatype as an object without times, which h5py has no way to say."""
    library = ctypes.CDLL(find_hdf5())
    number = ctypes.c_int64
    library.H5Pcreate.restype = number
    library.H5Pcreate.argtypes = (number,)
    library.H5Pset_obj_track_times.argtypes = (number, ctypes.c_bool)
    library.H5Tcommit2.argtypes = (number, ctypes.c_char_p, *[number] * 4)
    library.H5Pclose.argtypes = (number,)
    creation = library.H5Pcreate(number.in_dll(library, "H5P_CLS_DATATYPE_CREATE_ID_g"))
    untimed = library.H5Pset_obj_track_times(creation, False)
    stored = library.H5Tcommit2(file.id.id, name.encode(), datatype.id, 0, creation, 0)
    library.H5Pclose(creation)
    if untimed < 0 or stored < 0:
        message = f"the datatype {name} was not stored"
        raise RuntimeError(message)


def fill_types(file: h5py.File) -> None:
    """One dataset of every class of datatype, unsupported ones too; a committed type and its uses."""
    nested = np.dtype(
        [("a", "<i4"), ("b", [("x", ">f8", (2,)), ("s", "S3")]), ("c", "<u2", (2, 2))]
    )
    types = {
        "big": np.dtype(">u2"),
        "bool": np.dtype(bool),
        "enum": h5py.enum_dtype({"A": 1, "B": -2}, basetype="i2"),
        "fixed": h5py.string_dtype("utf-8", 5),
        "string": h5py.string_dtype(),
        "opaque": h5py.opaque_dtype("M8[s]"),
        "nested": nested,
        "vlen": h5py.vlen_dtype(np.dtype("i4")),
        "reference": h5py.ref_dtype,
        "region": h5py.regionref_dtype,
        "long": np.dtype("g"),
    }
    for name, dtype in types.items():
        file.create_dataset(name, (1,), dtype=dtype, track_times=False)
    array = h5t.array_create(h5t.STD_I32LE, (3, 2))
    h5d.create(file.id, b"array", array, h5s.create_simple((1,)), untimed())
    h5d.create(file.id, b"bits", h5t.STD_B16LE, h5s.create_simple((1,)), untimed())
    commit_untimed(file, "named", h5t.STD_I32LE.copy())
    h5d.create(file.id, b"of_named", file["named"].id, h5s.create_simple((1,)), untimed())
    file.attrs.create("of_named", np.int32(5), dtype=file["named"])
    file["reference"][0] = file["bool"].ref
    file["vlen"][0] = [1, 2, 3]
    file["string"][0] = "text"


def fill_spaces(file: h5py.File) -> None:
    """Scalars, null, empty and many-dimensional dataspaces, as dataset and as attribute."""
    file.create_dataset("scalar", data=np.int8(3), track_times=False)
    file.create_dataset("empty", (3, 0), "i2", track_times=False)
    file.create_dataset("rank32", (1,) * 32, "i1", track_times=False)
    file.create_dataset(
        "growing", (2, 3), "i1", maxshape=(None, 7), chunks=(2, 2), track_times=False
    )
    file.create_dataset("null", data=h5py.Empty("f4"), track_times=False)
    file.attrs["null"] = h5py.Empty("f4")
    file.attrs["empty"] = np.zeros(0, "i4")
    file.attrs["scalar"] = np.float32(1.5)


def untimed() -> h5p.PropDCID:
    """Return properties of a dataset without times."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_obj_track_times(False)
    return creation


def fill_indexes(file: h5py.File) -> None:
    """Datasets with each chunk index that the bounds allow, filtered where the index may be."""
    values = np.arange(24, dtype="i2")
    options = {"track_times": False}
    file.create_dataset("single", data=values, chunks=(24,), compression=1, **options)
    file.create_dataset("fixed", data=values, chunks=(5,), fletcher32=True, **options)
    file.create_dataset("growing", data=values, chunks=(5,), maxshape=(None,), **options)
    grid = values.reshape(4, 6)
    file.create_dataset("tree", data=grid, chunks=(2, 4), maxshape=(None, None), **options)
    file.create_dataset("fill", (9,), "f4", chunks=(2,), fillvalue=7, **options)
    implicit = untimed()
    implicit.set_chunk((4,))
    implicit.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    h5d.create(file.id, b"implicit", h5t.STD_I16LE, h5s.create_simple((10,)), implicit)
    compact = untimed()
    compact.set_layout(h5d.COMPACT)
    h5d.create(file.id, b"compact", h5t.STD_I16LE, h5s.create_simple((10,)), compact)


def fill_continued(file: h5py.File) -> None:
    """Attributes added and deleted in turn, so that headers get continuations and gaps."""
    group = make_group(file, "group")
    for turn in range(4):
        for i in range(3):
            group.attrs[f"turn {turn} number {i}"] = np.arange(turn * 3 + i)
        if turn > 0:
            del group.attrs[f"turn {turn - 1} number 1"]
        make_group(group, f"sub{turn}")


def set_small_k(creation: h5p.PropFCID) -> None:
    """Trees of two to four children, and chunk trees of another width: superblock 1."""
    library = ctypes.CDLL(find_hdf5())
    library.H5Pset_sym_k.argtypes = (ctypes.c_int64, ctypes.c_uint, ctypes.c_uint)
    library.H5Pset_istore_k.argtypes = (ctypes.c_int64, ctypes.c_uint)
    if library.H5Pset_sym_k(creation.id, 2, 1) < 0 or library.H5Pset_istore_k(creation.id, 3) < 0:
        message = "the sizes of the trees were refused"
        raise RuntimeError(message)


def fill_deep(file: h5py.File) -> None:
    """Enough links for two levels of the small tree, and a chunk tree."""
    for i in range(14):
        file[f"n{i * 5 % 14}"] = h5py.SoftLink("/x")
    file.create_dataset("x", data=np.arange(20, dtype="i1"), chunks=(1,), track_times=False)


def set_persistent_space(creation: h5p.PropFCID) -> None:
    """Free space that is kept in the file, other sizes of trees: a superblock extension."""
    set_small_k(creation)
    creation.set_file_space_strategy(h5f.FSPACE_STRATEGY_FSM_AGGR, True, 1)


def main() -> None:
    """Write the corpus anew."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    for old in CORPUS.iterdir():
        old.unlink()
    make_file("frame", EARLIEST, fill_frame)
    make_file("frame_v18", V18, fill_frame)
    make_file("frame_userblock", EARLIEST, fill_frame, userblock=512)
    make_file("matrix", EARLIEST, fill_matrix)
    make_file("links", EARLIEST, fill_links)
    make_file("many", V18, fill_many)
    make_file("many_o4_l8", LATEST, fill_many, sizes=(4, 8))
    make_file("tracked", EARLIEST, fill_tracked)
    make_file("types", EARLIEST, fill_types)
    make_file("types_latest", LATEST, fill_types)
    make_file("spaces", EARLIEST, fill_spaces, sizes=(4, 4))
    make_file("spaces_v18", V18, fill_spaces)
    make_file("indexes_v110", V110, fill_indexes)
    make_file("indexes_latest", LATEST, fill_indexes)
    make_file("continued", EARLIEST, fill_continued)
    make_file("continued_v18", V18, fill_continued)
    make_file("deep", EARLIEST, fill_deep, prepare=set_small_k)
    make_file("extension", EARLIEST, fill_links, prepare=set_persistent_space)
    sizes = sorted((path.stat().st_size, path.name) for path in CORPUS.iterdir())
    print(f"{len(sizes)} files, {sum(size for size, _ in sizes)} bytes, the largest {sizes[-1]}")


if __name__ == "__main__":
    main()
