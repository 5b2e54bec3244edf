"""Make tests/c/data/codec_*.bin: chunks as real HDF5 writers store them.

Each file holds cases of one family.  A case is the stored bytes of one chunk, the filters that made
them and a recipe for the raw bytes, which the C tests make again (``codec_testing.h`` has the same
formula) and compare with what the decoders give.  The output depends only on this script and on the
versions of h5py, HDF5 and hdf5plugin, which are printed.

Layout, all numbers little-endian::

    file    8 bytes "SCIOCASE", u32 n_cases, cases back to back
    case    40 bytes name (NUL padded), u32 pattern, u32 itemsize, u32 n_items, u32 seed,
            u64 FNV-1a of the raw bytes, u32 filter_mask, u32 n_filters,
            per filter: u32 id, u32 flags, u32 n_client, n_client * u32
            u32 stored_nbytes, the stored bytes

Usage: ``python tools/make_codec_fixtures.py [directory]``
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

ZEROS, COUNTS, SORTED, NOISE, HALF, FAR = range(6)
PATTERNS = {"zeros": ZEROS, "counts": COUNTS, "sorted": SORTED, "noise": NOISE, "half": HALF}
FAR_PERIOD = 8400  # elements after which FAR repeats: beyond the 8191 bytes of a near match
FAR_N_NOISE = 300  # elements of noise at the start of each period
RARE, N_RESIDUES = 7, 97  # so many of so many counts are large
SMALL = 403  # elements of an ordinary case: odd, so that every kind of tail occurs
SHUFFLE = {"shuffle": True}


@dataclass(frozen=True)
class Case:
    """One chunk to be made.

    Parameters
    ----------
    name : str
        At most 39 ASCII characters, unique in its file.
    pattern : int
        Which formula makes the raw bytes; one of ``ZEROS`` to ``FAR``.
    itemsize, n_items : int
        Bytes of an element; elements of the chunk.
    options : dict
        Keyword arguments of ``h5py.Group.create_dataset``.
    """

    name: str
    pattern: int
    itemsize: int
    n_items: int
    options: dict[str, Any]


def splitmix64(seed: int, n_items: int) -> NDArray[np.uint64]:
    """Return the first outputs of the SplitMix64 generator.

    Parameters
    ----------
    seed : int
        Its start state.
    n_items : int
        How many outputs.

    Returns
    -------
    numpy.ndarray, shape (n_items,), uint64

    Notes
    -----
    Source: G. L. Steele, D. Lea, C. H. Flood, doi:10.1145/2660193.2660195.
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    x = np.uint64(seed) + np.arange(1, n_items + 1, dtype=np.uint64) * step
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def make_raw(pattern: int, itemsize: int, n_items: int, seed: int) -> bytes:
    """Return the raw bytes of a case.

    Parameters
    ----------
    pattern : int
        One of ``ZEROS`` to ``FAR``.
    itemsize, n_items, seed : int
        As stored in the case.

    Returns
    -------
    bytes, itemsize * n_items of them
        Byte j of an element is byte j % 8 of its 64-bit value, lowest first.
    """
    x = splitmix64(seed, n_items)
    if pattern == FAR:
        x = np.resize(x[:FAR_PERIOD], n_items)
    i = np.arange(n_items, dtype=np.uint64)
    value = {
        ZEROS: x & np.uint64(0),
        COUNTS: np.where(
            x % np.uint64(N_RESIDUES) < N_RESIDUES - RARE, x % np.uint64(4), x % np.uint64(200)
        ),
        SORTED: (i * np.uint64(37) + x % np.uint64(31)) % np.uint64(30000),
        NOISE: x,
        FAR: np.where(i % np.uint64(FAR_PERIOD) < FAR_N_NOISE, x, np.uint64(0)),
        HALF: (i >> np.uint64(6)) << np.uint64(8) | x & np.uint64(255),
    }[pattern]
    eight = value.astype("<u8").view(np.uint8).reshape(n_items, 8)
    return eight[:, np.arange(itemsize) % 8].tobytes()


def fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash of `data`.

    Parameters
    ----------
    data : bytes
        What to hash.

    Returns
    -------
    int
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def encode(case: Case, seed: int) -> bytes:
    """Return the record of one case, its chunk made by the HDF5 library.

    Parameters
    ----------
    case : Case
        What to make.
    seed : int
        Seed of its raw bytes.

    Returns
    -------
    bytes
    """
    raw = make_raw(case.pattern, case.itemsize, case.n_items, seed)
    dtype = np.dtype(f"<u{case.itemsize}" if case.itemsize in (1, 2, 4, 8) else f"V{case.itemsize}")
    with h5py.File("x.h5", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "x", (case.n_items,), dtype, chunks=(case.n_items,), **case.options
        )
        dataset[...] = np.frombuffer(raw, dtype)
        file.flush()
        mask, stored = dataset.id.read_direct_chunk((0,))
        plist = dataset.id.get_create_plist()
        filters = b""
        for k in range(plist.get_nfilters()):
            code, flags, client, _ = plist.get_filter(k)
            filters += struct.pack(f"<III{len(client)}I", code, flags, len(client), *client)
        n_filters = plist.get_nfilters()
    numbers = (case.pattern, case.itemsize, case.n_items, seed, fnv1a(raw), mask, n_filters)
    head = case.name.encode("ascii").ljust(40, b"\0")
    head += struct.pack("<IIIIQII", *numbers) + filters + struct.pack("<I", len(stored))
    return head + bytes(stored)


def deflate_cases() -> Iterator[Case]:
    """Yield the cases of gzip alone."""
    for level in (1, 4, 9):
        for pattern in ("counts", "sorted", "half"):
            yield Case(
                f"gzip{level} {pattern}", PATTERNS[pattern], 4, SMALL, {"compression": level}
            )
    yield Case("gzip4 noise", NOISE, 8, 211, {"compression": 4})
    yield Case("gzip0 stored blocks", COUNTS, 2, SMALL, {"compression": 0})
    yield Case("gzip9 zeros", ZEROS, 4, 50000, {"compression": 9})


def lzf_cases() -> Iterator[Case]:
    """Yield the cases of LZF alone; the noise comes out masked, as it does not shrink."""
    for pattern, code in PATTERNS.items():
        for itemsize in (1, 4):
            yield Case(f"lzf {pattern} {itemsize}", code, itemsize, SMALL, {"compression": "lzf"})
    yield Case("lzf long matches", ZEROS, 1, 100000, {"compression": "lzf"})


def lz4_cases() -> Iterator[Case]:
    """Yield the cases of the LZ4 container."""
    for block_nbytes in (0, 1024):
        for pattern, code in PATTERNS.items():
            options = dict(hdf5plugin.LZ4(nbytes=block_nbytes))
            yield Case(f"lz4 block {block_nbytes} {pattern}", code, 4, SMALL, options)
    yield Case("lz4 whole blocks only", SORTED, 4, 1024, dict(hdf5plugin.LZ4(nbytes=1024)))
    yield Case("lz4 one element", COUNTS, 8, 1, dict(hdf5plugin.LZ4(nbytes=1024)))


def zstd_cases() -> Iterator[Case]:
    """Yield the cases of Zstandard alone."""
    for level in (1, 3, 19):
        for pattern, code in PATTERNS.items():
            options = dict(hdf5plugin.Zstd(clevel=level))
            yield Case(f"zstd{level} {pattern}", code, 4, SMALL, options)
    yield Case("zstd3 long", ZEROS, 4, 50000, dict(hdf5plugin.Zstd(clevel=3)))


def blosc_cases() -> Iterator[Case]:
    """Yield the cases of Blosc: codecs x shuffles x element sizes, then special shapes."""
    for cname in ("blosclz", "lz4", "lz4hc", "zlib", "zstd"):
        for shuffle in (0, 1, 2):
            options = dict(hdf5plugin.Blosc(cname=cname, clevel=5, shuffle=shuffle))
            for itemsize in (1, 2, 4, 8):
                name = f"blosc {cname} shuffle {shuffle} size {itemsize}"
                yield Case(name, COUNTS, itemsize, SMALL, options)
            yield Case(f"blosc {cname} shuffle {shuffle} whole 8", SORTED, 4, 512, options)
            yield Case(f"blosc {cname} shuffle {shuffle} raw stream", HALF, 4, 512, options)
        options = dict(hdf5plugin.Blosc(cname=cname, clevel=1, shuffle=1))
        yield Case(f"blosc {cname} many blocks", ZEROS, 4, 60001, options)
        yield Case(f"blosc {cname} short last block", HALF, 8, 4100, options)
    for itemsize in (3, 12, 16, 17, 24):
        for shuffle in (1, 2):
            options = dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=shuffle))
            yield Case(f"blosc size {itemsize} shuffle {shuffle}", COUNTS, itemsize, 333, options)
    options = dict(hdf5plugin.Blosc(cname="blosclz", clevel=9, shuffle=0))
    yield Case("blosc blosclz far matches", FAR, 1, 17001, options)
    yield Case("blosc noise is masked", NOISE, 4, 100, options)
    options = dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=1))
    for n_items in (127, 128, 129):  # from 128 elements on a block is split
        yield Case(f"blosc {n_items} elements", COUNTS, 4, n_items, options)


def bitshuffle_cases() -> Iterator[Case]:
    """Yield the cases of bitshuffle: codecs x element sizes x counts around multiples of 8."""
    for cname in ("none", "lz4", "zstd"):
        for itemsize in (1, 2, 4, 8):
            for n_items in (64, 130, SMALL):
                options = dict(hdf5plugin.Bitshuffle(nelems=64, cname=cname))
                name = f"bitshuffle {cname} size {itemsize} n {n_items}"
                yield Case(name, COUNTS, itemsize, n_items, options)
        options = dict(hdf5plugin.Bitshuffle(nelems=0, cname=cname))
        n_default = 5003 if cname != "none" else 2500  # the second one is not compressed
        yield Case(f"bitshuffle {cname} default block", SORTED, 2, n_default, options)
        yield Case(f"bitshuffle {cname} size 12", COUNTS, 12, 690, options)
        yield Case(f"bitshuffle {cname} noise", NOISE, 4, 99, options)
        yield Case(f"bitshuffle {cname} under 8", COUNTS, 4, 7, options)


def pipeline_cases() -> Iterator[Case]:
    """Yield chains of several filters, as single-cell files have them and stranger ones."""
    for itemsize in (1, 2, 4, 8, 12):
        options = {"compression": 4, **SHUFFLE}
        yield Case(f"shuffle gzip {itemsize}", COUNTS, itemsize, SMALL, options)
        options = {"compression": 4, **SHUFFLE, "fletcher32": True}
        yield Case(f"shuffle gzip fletcher32 {itemsize}", SORTED, itemsize, SMALL, options)
    yield Case("none", COUNTS, 4, 100, {})
    yield Case("shuffle", COUNTS, 4, 101, SHUFFLE)
    yield Case("fletcher32 even", COUNTS, 4, 101, {"fletcher32": True})
    yield Case("fletcher32 odd", NOISE, 1, 101, {"fletcher32": True})
    yield Case("fletcher32 long", NOISE, 1, 3001, {"fletcher32": True})
    yield Case("shuffle lzf", SORTED, 4, SMALL, {"compression": "lzf", **SHUFFLE})
    yield Case("shuffle lzf noise masked", NOISE, 4, 100, {"compression": "lzf", **SHUFFLE})
    yield Case("gzip fletcher32", HALF, 2, SMALL, {"compression": 4, "fletcher32": True})
    yield Case("shuffle one element", COUNTS, 8, 1, {"compression": 4, **SHUFFLE})
    for name, plugin in (
        ("zstd", hdf5plugin.Zstd(clevel=3)),
        ("lz4", hdf5plugin.LZ4(nbytes=1024)),
        ("blosc", hdf5plugin.Blosc(cname="zstd", clevel=5, shuffle=1)),
        ("bitshuffle", hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
    ):
        options = {**plugin, **SHUFFLE, "fletcher32": True}
        yield Case(f"shuffle {name} fletcher32", COUNTS, 4, SMALL, options)


FAMILIES = {
    "deflate": deflate_cases,
    "lzf": lzf_cases,
    "lz4": lz4_cases,
    "zstd": zstd_cases,
    "blosc": blosc_cases,
    "bitshuffle": bitshuffle_cases,
    "pipeline": pipeline_cases,
}


def main(directory: Path) -> None:
    """Write one file per family into `directory`.

    Parameters
    ----------
    directory : pathlib.Path
        Made when absent.
    """
    directory.mkdir(parents=True, exist_ok=True)
    print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}, {hdf5plugin.version=}")
    for family, make_cases in FAMILIES.items():
        records = [encode(case, seed) for seed, case in enumerate(make_cases(), start=1)]
        path = directory / f"codec_{family}.bin"
        path.write_bytes(b"SCIOCASE" + struct.pack("<I", len(records)) + b"".join(records))
        print(f"{path.name}: {len(records)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent / "tests" / "c" / "data"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here)
