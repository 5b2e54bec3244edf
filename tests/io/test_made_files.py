"""HDF5 cases that have no sample: made with h5py, read by both, compared value for value."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scio.errors import CorruptFileError, IOFormatError, UnsafeFileError, UnsupportedError
from scio.io import HDF5File
from tests.io.compare import Comparison

LIBVERS = ["earliest", ("v108", "v108"), ("v110", "v110"), ("v114", "v114"), "latest"]
RNG = np.random.default_rng(0)


def check(path: Path) -> Comparison:
    """Compare the whole file; nothing may be refused."""
    result = Comparison(path).run()
    assert result.differences == []
    assert result.refused == {}
    return result


@pytest.fixture(params=LIBVERS, ids=str)
def libver(request: pytest.FixtureRequest) -> object:
    return request.param


def test_dtypes(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"):
            for order in "<>":
                dtype = np.dtype(order + code)
                f[f"{order}{code}"] = np.arange(-3, 20).astype(np.int64).astype(dtype)
                f[f"{order}{code}"].attrs["one"] = np.array(7, dtype=dtype)
        f["bool"] = np.array([True, False, True])
        f["enum"] = np.array([0, 2, 1], dtype=h5py.enum_dtype({"a": 0, "b": 1, "c": 2}, "i2"))
        f["S5"] = np.array([b"ab", b"", b"hello"], dtype="S5")
        f["utf8 fixed"] = np.array(["é".encode(), b"xyz"], dtype=h5py.string_dtype("utf-8", 5))
        f["vlen str"] = np.array(["", "a", "grüße", "x" * 100_000], dtype=object)
        f.create_dataset("sequences", (3,), dtype=h5py.vlen_dtype("i4"))
        f["sequences"][0] = [1, 2, 3]
        f["sequences"][2] = np.arange(70)
        f["opaque"] = np.array([b"12345678"], dtype="V8")
        nested = np.dtype([("a", "<i4"), ("b", "<f8", (2, 3)), ("c", [("d", "S3"), ("e", ">u2")])])
        f["nested"] = np.zeros(4, dtype=nested)
        f["aligned"] = np.zeros(3, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
        f["table"] = np.array(
            [(1, "x"), (2, "yy")], dtype=[("n", "i4"), ("s", h5py.string_dtype())]
        )
        f["array"] = np.zeros(3, dtype=np.dtype(("i2", (4,))))
        f["scalar"], f["text"], f["empty"], f["zero"] = (
            5,
            "text",
            h5py.Empty("f4"),
            np.zeros((3, 0)),
        )
        f["named"] = np.dtype("<i4")
        f.create_dataset("of named", data=np.arange(4, dtype="i4"), dtype=f["named"])
        f.attrs.create("of named", np.arange(3, dtype="i4"), dtype=f["named"])
        f.attrs["nothing"] = h5py.Empty("i4")
        f.attrs["words"] = ["a", "b"]
    assert check(path).n_values > 60


def test_layouts_and_chunk_indexes(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        f["contiguous"] = RNG.random(1000)
        f.create_dataset("unwritten", (10, 3), dtype="f4", fillvalue=7)
        for filters in (
            {},
            {"compression": "gzip"},
            {"compression": "gzip", "shuffle": True, "fletcher32": True},
            {"compression": "lzf"},
        ):
            tag = "+".join(map(str, filters.values())) or "none"
            data = RNG.integers(0, 50, 1000).astype("i4")
            f.create_dataset(f"single {tag}", data=data, chunks=(1000,), **filters)
            f.create_dataset(f"fixed {tag}", data=data, chunks=(7,), **filters)
            f.create_dataset(
                f"extensible {tag}", data=data, chunks=(7,), maxshape=(None,), **filters
            )
            two = data.reshape(40, 25)
            f.create_dataset(
                f"btree2 {tag}", data=two, chunks=(7, 6), maxshape=(None, None), **filters
            )
            f.create_dataset(
                f"late {tag}", data=two, chunks=(7, 6), maxshape=(6 * 40, None), **filters
            )
            f.create_dataset(
                f"3d {tag}",
                data=data.reshape(10, 10, 10),
                chunks=(3, 4, 10),
                maxshape=(10, None, 10),
                **filters,
            )
            holes = f.create_dataset(
                f"holes {tag}",
                (3000,),
                "i2",
                chunks=(10,),
                maxshape=(None,),
                fillvalue=-1,
                **filters,
            )
            holes[15], holes[2999] = 5, 6
            resized = f.create_dataset(
                f"resized {tag}", data=data, chunks=(64,), maxshape=(None,), **filters
            )
            resized.resize((100,))
            resized.resize((900,))
            mask = f.create_dataset(f"mask {tag}", (30,), "i4", chunks=(10,), **filters)
            mask.id.write_direct_chunk(
                (10,), np.arange(10, dtype="i4").tobytes(), filter_mask=(1 << len(filters)) - 1
            )
    assert check(path).n_values > 30


def test_implicit_index_and_early_allocation(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as f:
        for name, maxshape in (("same", (50,)), ("larger", (90,))):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((7,))
            plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            space = h5py.h5s.create_simple((50,), maxshape)
            dataset = h5py.h5d.create(f.id, name.encode(), h5py.h5t.NATIVE_INT32, space, plist)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(50, dtype="i4"))
    result = check(path)
    assert result.ours.dataset("/same").index == "implicit"


@pytest.mark.parametrize("n_chunks", [1, 60, 1024, 1025, 2500, 5000])
def test_many_chunks_with_holes(tmp_path, libver, n_chunks):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        for name, maxshape in (("fixed", (n_chunks + 5,)), ("extensible", (None,))):
            d = f.create_dataset(
                name, (n_chunks,), "u1", chunks=(1,), maxshape=maxshape, fillvalue=9
            )
            d[: min(5, n_chunks)] = 1
            d[n_chunks - 1] = 3
    check(path)


def test_extensible_array_with_paged_blocks(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as f:
        d = f.create_dataset("x", (200_000,), "u1", chunks=(1,), maxshape=(None,), fillvalue=9)
        for start in (0, 100, 131_050, 150_000, 199_990):
            d[start : start + 10] = np.arange(10)
    check(path)


def test_partial_chunks_left_unfiltered(tmp_path):
    path = tmp_path / "x.h5"
    library = _libhdf5()
    with h5py.File(path, "w", libver="latest") as f:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((40,))
        plist.set_deflate(4)
        assert library.H5Pset_chunk_opts(ctypes.c_int64(plist.id), ctypes.c_uint(2)) >= 0
        space = h5py.h5s.create_simple((100,), (h5py.h5s.UNLIMITED,))
        dataset = h5py.h5d.create(f.id, b"x", h5py.h5t.NATIVE_INT32, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(100, dtype="i4"))
    result = check(path)
    assert result.ours.dataset("/x").units()[2, 3] == 1


def _libhdf5() -> ctypes.CDLL:
    """The libhdf5 that h5py has loaded; scio._h5write may have brought another one."""
    names = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    found = [name for name in names if re.search(r"/libhdf5(_serial)?[-.]", name)]
    for name in sorted(found, key=lambda name: "h5py" not in name):
        return ctypes.CDLL(name)
    message = "h5py's libhdf5 is not in the process"
    raise RuntimeError(message)


def test_compact_layout(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        dataset = h5py.h5d.create(
            f.id, b"x", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((5, 3)), plist
        )
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(15, dtype="i4").reshape(5, 3))
    assert check(path).ours.dataset("/x").layout == "compact"


@pytest.mark.parametrize("n_links", [0, 1, 7, 8, 9, 30, 300, 3000])
@pytest.mark.parametrize("track", [False, True])
def test_groups_of_any_size(tmp_path, libver, n_links, track):
    path = tmp_path / "x.h5"
    names = [f"link {i * 7919 % 10_007}" for i in range(n_links)]
    with h5py.File(path, "w", libver=libver) as f:
        g = f.create_group("g", track_order=track)
        target = f.create_dataset("target", data=1)
        for name in names:
            g[name] = target
    file = HDF5File(path)
    expected = names if track else sorted(names)
    assert [link[0] for link in file.core.links("/g")] == expected
    for name in names[::97]:
        assert file.core.address(f"/g/{name}") == file.core.address("/target")
    assert file.kind("/g/none") is None


def test_links_of_every_kind_and_long_names(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        f["a/b/c"] = 5
        f["soft"] = h5py.SoftLink("/a/b")
        f["dangling"] = h5py.SoftLink("/nothing")
        f["loop"] = h5py.SoftLink("/loop")
        f["away"] = h5py.ExternalLink("other.h5", "/x")
        f["a/again"] = f["/"]
        for length in (255, 256, 300, 5000):
            f["ü" * (length // 2)] = length
    result = check(path)
    assert result.ours.read("/soft/c") == 5
    assert result.ours.read("/a/again/a/b/c") == 5
    with pytest.raises(UnsafeFileError, match=r"other\.h5"):
        result.ours.read("/away")
    for name in ("/dangling", "/loop"):
        with pytest.raises((KeyError, IOFormatError)):
            result.ours.read(name)


@pytest.mark.parametrize("n_attributes", [1, 8, 9, 100, 1000])
def test_attributes_compact_dense_and_huge(tmp_path, libver, n_attributes):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        for i in range(n_attributes):
            f.attrs[f"attribute {i}"] = np.arange(i % 50)
        g = f.create_group("g", track_order=True)
        for size in (10, 3900, 4096, 5000, 70_000, 300_000):
            g.attrs[f"bytes {size}"] = np.zeros(size, dtype="u1") + size % 7
        for i in range(9):
            g.attrs[f"small {i}"] = f"value {i}"
    check(path)


def test_frames_of_6000_columns(tmp_path):
    path = tmp_path / "x.h5"
    names = [f"column {i}" for i in range(6000)]
    with h5py.File(path, "w") as f:
        g = f.create_group("obs", track_order=True)
        g.attrs["column-order"] = names
        g.attrs["_index"] = "_index"
    assert HDF5File(path).attr("/obs", "column-order").tolist() == names


def test_headers_that_grew(tmp_path, libver):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver) as f:
        f["x"] = 1
    for step in range(12):
        with h5py.File(path, "a", libver=libver) as f:
            f["x"].attrs[f"attribute {step}"] = np.arange(step * 5)
            if step > 4:
                del f["x"].attrs[f"attribute {step - 3}"]
            f.create_group(f"group {step}").attrs["n"] = step
    check(path)


@pytest.mark.parametrize("userblock", [512, 1024, 4096])
def test_user_blocks_moved_files_and_tails(tmp_path, libver, userblock):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as f:
        f.create_dataset("x", data=np.arange(5000), chunks=(100,), compression="gzip")
        f["s"] = ["a", "b"]
    check(path)
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w", libver=libver) as f:
        f.create_dataset("x", data=np.arange(5000), chunks=(100,), compression="gzip")
    moved = tmp_path / "moved.h5"
    moved.write_bytes(b"\0" * userblock + plain.read_bytes() + b"tail of another kind")
    np.testing.assert_array_equal(HDF5File(moved).read("/x"), np.arange(5000))
    short = tmp_path / "short.h5"
    short.write_bytes(plain.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="truncated"):
        HDF5File(short)


def test_other_sizes_of_offsets_and_btrees(tmp_path):
    for number, (offsets, lengths) in enumerate([(4, 8), (8, 4), (4, 4)]):
        path = tmp_path / f"{number}.h5"
        plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
        plist.set_sizes(offsets, lengths)
        with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, plist)) as f:
            f.create_dataset("x", data=np.arange(1000), chunks=(30,), compression="gzip")
            f["words"] = ["a", "bb"]
            f["g/h"] = 1.5
        check(path)
    path = tmp_path / "k.h5"
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    library = _libhdf5()
    assert library.H5Pset_istore_k(ctypes.c_int64(plist.id), ctypes.c_uint(64)) >= 0
    assert library.H5Pset_sym_k(ctypes.c_int64(plist.id), ctypes.c_uint(3), ctypes.c_uint(2)) >= 0
    with h5py.File(h5py.h5f.create(str(path).encode(), h5py.h5f.ACC_TRUNC, plist)) as f:
        f.create_dataset("x", data=np.arange(3000), chunks=(3,), maxshape=(None,))
        for i in range(300):
            f[f"g/{i * 17 % 300}"] = i
    check(path)


def test_superblock_extension(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", fs_strategy="page", fs_persist=True, fs_page_size=4096) as f:
        f["x"] = np.arange(100)
    check(path)


@pytest.mark.parametrize(
    "filters",
    [
        *[
            {"compression": hdf5plugin.Blosc(cname=c, shuffle=s)}
            for c in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
            for s in (0, 1, 2)
        ],
        *[
            {"compression": hdf5plugin.Bitshuffle(nelems=n, cname=c)}
            for n in (0, 64)
            for c in ("none", "lz4", "zstd")
        ],
        {"compression": hdf5plugin.LZ4(nbytes=1024)},
        {"compression": hdf5plugin.Zstd(3)},
    ],
    ids=lambda f: str(f["compression"].filter_id) + str(tuple(f["compression"].filter_options)),
)
def test_plugin_filters(tmp_path, filters):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as f:
        for code in ("u1", "u2", "f4", "i8"):
            for n in (1, 100, 3001):
                f.create_dataset(
                    f"small {code} {n}",
                    data=(np.arange(n) % 50).astype(code),
                    chunks=(min(n, 1000),),
                    **filters,
                )
                noise = RNG.integers(0, 255, n * 8, dtype="u1").view(f"<{code}")[:n]
                noise = np.nan_to_num(noise)
                f.create_dataset(f"noise {code} {n}", data=noise, chunks=(min(n, 1000),), **filters)
    assert check(path).n_values == 24


REFUSALS: dict[str, tuple[Callable[[h5py.File], object], type[Exception], str]] = {
    "virtual": (
        lambda f: f.create_virtual_dataset("x", _virtual()),
        IOFormatError,
        "virtual dataset",
    ),
    "external": (
        lambda f: f.create_dataset("x", (10,), "i4", external=[("raw.bin", 0, 40)]),
        IOFormatError,
        "external",
    ),
    "scaleoffset": (
        lambda f: f.create_dataset("x", data=np.arange(100), scaleoffset=0, chunks=(10,)),
        UnsupportedError,
        "6.*scale",
    ),
    "blosc2": (
        lambda f: f.create_dataset(
            "x", data=np.arange(100), chunks=(10,), compression=hdf5plugin.Blosc2()
        ),
        UnsupportedError,
        "32026",
    ),
    "long double": (lambda f: f.create_dataset("x", data=np.zeros(3, "g")), UnsupportedError, "16"),
}


def _virtual() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((10,), "i4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (10,))
    return layout


@pytest.mark.parametrize("name", list(REFUSALS))
def test_what_is_refused_is_named_and_listing_goes_on(tmp_path, name):
    make, error, text = REFUSALS[name]
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as f:
        make(f)
        f["sibling"] = 5
    file = HDF5File(path)
    assert file.keys("/") == ["sibling", "x"]
    assert file.read("/sibling") == 5
    with pytest.raises(error, match=text):
        file.read("/x")


def test_a_file_left_open_for_writing_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as f:
        f["x"] = 1
    from scio.io import HDF5File as Reader

    data = bytearray(path.read_bytes())
    assert data[8] == 3
    data[11] = 1
    import struct

    data[44:48] = struct.pack("<I", _lookup3(bytes(data[:44])))
    path.write_bytes(data)
    with pytest.raises(UnsupportedError, match="h5clear"):
        Reader(path)


def _lookup3(data: bytes) -> int:
    """Jenkins' lookup3 in plain Python: the oracle for the checksum."""
    mask = 0xFFFFFFFF

    def rot(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & mask

    words = [(0xDEADBEEF + len(data)) & mask] * 3
    while len(data) > 12:
        words = [
            (w + int.from_bytes(data[i : i + 4], "little")) & mask
            for w, i in zip(words, (0, 4, 8), strict=True)
        ]
        a, b, c = words
        for k in (4, 6, 8, 16, 19, 4):  # each step is the same with the names moved on by one
            a = ((a - c) & mask) ^ rot(c, k)
            c = (c + b) & mask
            a, b, c = b, c, a
        words = [a, b, c]
        data = data[12:]
    tail = data.ljust(12, b"\0")
    a, b, c = (
        (w + int.from_bytes(tail[i : i + 4], "little")) & mask
        for w, i in zip(words, (0, 4, 8), strict=True)
    )
    for k in (14, 11, 25, 16, 4, 14, 24):  # c by b, then a by c, then b by a, …
        c = ((c ^ b) - rot(b, k)) & mask
        a, b, c = b, c, a
    return b  # what was c in the last step


DTYPES = st.sampled_from(["<i4", ">i4", "u1", "<u2", "<i8", "<f4", ">f8", "<f2"])
FILTERS = st.sampled_from(
    [
        {},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf", "shuffle": True},
        {"fletcher32": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.data(),
    libver=st.sampled_from(LIBVERS),
    userblock=st.sampled_from([0, 512]),
    track=st.booleans(),
)
def test_any_combination(tmp_path, data, libver, userblock, track):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock, track_order=track) as f:
        for number in range(data.draw(st.integers(1, 3))):
            shape = tuple(data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=3)))
            chunked = data.draw(st.booleans())
            chunks = tuple(data.draw(st.integers(1, 12)) for _ in shape) if chunked else None
            maxshape = (
                tuple(data.draw(st.sampled_from([n, None, n + 3])) for n in shape)
                if chunked
                else None
            )
            if chunked and any(
                m is not None and c > m for c, m in zip(chunks, maxshape, strict=True)
            ):
                maxshape = tuple(None for _ in shape)
            filters = data.draw(FILTERS) if chunked else {}
            values = np.random.default_rng(number).integers(0, 100, shape).astype(data.draw(DTYPES))
            f.create_dataset(f"d{number}", data=values, chunks=chunks, maxshape=maxshape, **filters)
            f[f"d{number}"].attrs["a"] = values.reshape(-1)[:5]
    check(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_box_of_any_dataset(tmp_path, data):
    path = tmp_path / "box.h5"
    shape = tuple(data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=3)))
    chunks = data.draw(st.sampled_from([None, tuple(max(1, n // 3) for n in shape)]))
    values = np.arange(
        int(np.prod(shape)), dtype=data.draw(DTYPES)[-2:].replace("u1", "u2")
    ).reshape(shape)
    with h5py.File(path, "w") as f:
        f.create_dataset("x", data=values, chunks=chunks, compression="gzip" if chunks else None)
    start = [data.draw(st.integers(0, n)) for n in shape]
    count = [data.draw(st.integers(0, n - a)) for n, a in zip(shape, start, strict=True)]
    box = tuple(slice(a, a + c) for a, c in zip(start, count, strict=True))
    dataset = HDF5File(path).dataset("/x")
    for dtype in (None, "float64", "int64"):
        for threads in (0, 2):
            got = dataset.read(start, count, dtype=dtype, threads=threads)
            np.testing.assert_array_equal(got, values[box].astype(dtype or values.dtype))
