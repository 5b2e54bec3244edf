"""Make the seeds of fuzz_csr: small matrices, good ones and ones that break one rule each.

The bytes follow the description at the top of ``tests/fuzz/fuzz_csr.c``; they are the same whenever they
are made.

Usage: ``python tools/make_fuzz_corpus_csr.py``
"""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus" / "csr"

# scio_dtype -> the format that struct packs one item with; half floats are packed as such
DTYPES = {
    "bool": (1, "B"),
    "int8": (2, "b"),
    "int16": (3, "h"),
    "int32": (4, "i"),
    "int64": (5, "q"),
    "uint8": (6, "B"),
    "uint16": (7, "H"),
    "uint32": (8, "I"),
    "uint64": (9, "Q"),
    "float16": (10, "e"),
    "float32": (11, "f"),
    "float64": (12, "d"),
}
FLAG_WIDE = 7
N_COLS = 100


def matrix(
    index: str,
    data: str,
    *,
    indptr: list[int],
    indices: list[int],
    flags: int = 0,
    how: int = 0,
) -> bytes:
    """Return one input: the matrix with values 1, 2, 3 ... and the choices that follow it."""
    index_code, index_format = DTYPES[index]
    data_code, data_format = DTYPES[data]
    nnz = len(indices)
    values = [i % 2 if data == "bool" else i % 100 + 1 for i in range(nnz)]
    head = struct.pack(">BBBHBH", index_code, data_code - 1, len(indptr) - 1, N_COLS, flags, nnz)
    rows = bytes(1 + i % max(len(indptr) - 1, 1) for i in range(16))
    return b"".join(
        [
            head,
            struct.pack(f">{len(indptr)}h", *indptr),
            struct.pack(f"<{nnz}{index_format}", *indices),
            struct.pack(f"<{nnz}{data_format}", *values),
            rows,
            struct.pack(">H", how),
        ]
    )


def seeds() -> dict[str, bytes]:
    """Return the inputs by name."""
    rng = random.Random(0)
    indptr = [0, 12, 12, 52, 60]
    lengths = [b - a for a, b in itertools.pairwise(indptr)]
    in_order = [c for n in lengths for c in sorted(rng.sample(range(N_COLS), n))]
    shuffled = [c for n in lengths for c in rng.sample(range(N_COLS), n)]
    twice = [c for n in lengths for c in rng.choices(range(N_COLS), k=n)]
    out: dict[str, bytes] = {}
    for i, data in enumerate(DTYPES):
        index = [name for name in DTYPES if "int" in name][i % 8]
        out[f"good_{index}_{data}"] = matrix(
            index, data, indptr=indptr, indices=in_order, how=i * 137
        )
        out[f"shuffled_{data}"] = matrix(
            "int32", data, indptr=indptr, indices=shuffled, how=i * 311
        )
    out["duplicates"] = matrix("uint16", "float32", indptr=indptr, indices=twice, how=18)
    out["wide"] = matrix("int64", "float32", indptr=indptr, indices=shuffled, flags=FLAG_WIDE)
    out["no_rows"] = matrix("int32", "float32", indptr=[0], indices=[])
    out["all_rows_empty"] = matrix("int64", "uint8", indptr=[0] * 5, indices=[])
    out["first_is_not_0"] = matrix("int32", "int32", indptr=[1, 2], indices=[5, 6])
    out["decreases"] = matrix("int32", "int32", indptr=[0, 2, 1, 3], indices=[1, 2, 3])
    out["negative"] = matrix("int32", "int32", indptr=[0, -1, 3], indices=[1, 2, 3])
    out["ends_too_early"] = matrix("int32", "int32", indptr=[0, 1, 2], indices=[1, 2, 3])
    out["ends_too_late"] = matrix("int32", "int32", indptr=[0, 1, 9], indices=[1, 2, 3])
    out["index_too_large"] = matrix("uint8", "uint8", indptr=[0, 3], indices=[1, N_COLS, 3])
    out["index_negative"] = matrix("int64", "uint8", indptr=[0, 3], indices=[1, 2, -3])
    out["index_is_float"] = matrix("float32", "uint8", indptr=[0, 2], indices=[1, 2])
    return out


def main() -> None:
    """Write every seed to its file."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    for name, content in seeds().items():
        (CORPUS / name).write_bytes(content)


if __name__ == "__main__":
    main()
