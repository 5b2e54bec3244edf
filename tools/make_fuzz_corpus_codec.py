"""Make the seeds of fuzz_codec and fuzz_pipeline from the codec fixtures.

Reads ``tests/c/data/codec_*.bin`` (made by ``make_codec_fixtures.py``) and writes small cases in
the input formats that the head comments of ``tests/fuzz/fuzz_codec.c`` and ``fuzz_pipeline.c``
describe.
Only cases of at most ``MAX_NBYTES`` stored bytes are taken, a few of each kind.

Usage: ``python tools/make_fuzz_corpus_codec.py``
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
MAX_NBYTES = 620
MAX_PER_FAMILY = 9

# Numbers of the decoders in fuzz_codec.c and of the filters in fuzz_pipeline.c.
DECODERS = {1: 0, 3: 3, 32000: 4, 32015: 5, 32004: 6, 32001: 7, 32008: 8}
DECODER_ISAL, DECODER_UNSHUFFLE, DECODER_BITSHUFFLE, DECODER_BLOSCLZ = 1, 2, 8, 9
FILTERS = {1: 0, 2: 1, 3: 2, 32000: 3, 32015: 4, 32004: 5, 32001: 6, 32008: 7}
SHUFFLE = 2
DEFLATE = 1
BITSHUFFLE = 32008


@dataclass(frozen=True)
class Case:
    """One chunk of a fixture file.

    Parameters
    ----------
    name : str
        As stored.
    raw_nbytes : int
        Size of the chunk.
    mask : int
        Filter mask of the chunk.
    filters : list of (int, tuple of int)
        Id and client values, in writing order.
    stored : bytes
        The chunk as it lies in the file.
    """

    name: str
    raw_nbytes: int
    mask: int
    filters: list[tuple[int, tuple[int, ...]]]
    stored: bytes


def read_cases(path: Path) -> Iterator[Case]:
    """Yield the cases of one fixture file.

    Parameters
    ----------
    path : pathlib.Path
        A file of ``make_codec_fixtures.py``, whose docstring has the layout.

    Yields
    ------
    Case
    """
    data = path.read_bytes()
    (n_cases,) = struct.unpack_from("<I", data, 8)
    at = 12
    for _ in range(n_cases):
        name = data[at : at + 40].rstrip(b"\0").decode("ascii")
        numbers = struct.unpack_from("<IIIIQII", data, at + 40)
        _, itemsize, n_items, _, _, mask, n_filters = numbers
        at += 40 + struct.calcsize("<IIIIQII")
        filters = []
        for _ in range(n_filters):
            code, _, n_client = struct.unpack_from("<III", data, at)
            client = struct.unpack_from(f"<{n_client}I", data, at + 12)
            filters.append((code, client))
            at += 12 + 4 * n_client
        (nbytes,) = struct.unpack_from("<I", data, at)
        yield Case(name, itemsize * n_items, mask, filters, data[at + 4 : at + 4 + nbytes])
        at += 4 + nbytes


def codec_seed(case: Case) -> bytes:
    """Return the input of fuzz_codec for a case with one filter.

    Parameters
    ----------
    case : Case
        Its filter is one of ``DECODERS`` or the shuffle.

    Returns
    -------
    bytes
    """
    code, client = case.filters[0]
    number = DECODER_UNSHUFFLE if code == SHUFFLE else DECODERS[code]
    head = struct.pack(">BH", number, min(case.raw_nbytes, 65535))
    if code == BITSHUFFLE:
        head += struct.pack(">BHHB", 5, client[2], client[3], client[4])
    elif code == SHUFFLE:
        head += struct.pack(">H", client[0])
    return head + case.stored


def pipeline_seed(case: Case) -> bytes:
    """Return the input of fuzz_pipeline for a case.

    Parameters
    ----------
    case : Case
        At most 4 filters.

    Returns
    -------
    bytes
    """
    engine = len(case.name) % 2
    head = struct.pack(">BBHB", len(case.filters), case.mask, min(case.raw_nbytes, 65535), engine)
    for code, client in case.filters:
        head += struct.pack(">BB", FILTERS[code], len(client))
        head += struct.pack(f">{len(client)}H", *(value & 0xFFFF for value in client))
    return head + case.stored


def write(directory: Path, name: str, seed: bytes) -> None:
    """Write one seed under a name without special characters.

    Parameters
    ----------
    directory : pathlib.Path
        The target's corpus.
    name : str
        Of the case.
    seed : bytes
        The fuzzer's input.
    """
    (directory / re.sub("[^a-z0-9]+", "_", name.lower())).write_bytes(seed)


def main() -> None:
    """Write both corpora anew."""
    for target in ("codec", "pipeline"):
        directory = TESTS / "fuzz" / "corpus" / target
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.iterdir():
            old.unlink()
    codec, pipeline = (TESTS / "fuzz" / "corpus" / name for name in ("codec", "pipeline"))
    for path in sorted((TESTS / "c" / "data").glob("codec_*.bin")):
        cases = [case for case in read_cases(path) if len(case.stored) <= MAX_NBYTES]
        for case in cases[:: max(1, len(cases) // MAX_PER_FAMILY)]:
            write(pipeline, case.name, pipeline_seed(case))
            if len(case.filters) == 1 and case.mask == 0:
                write(codec, case.name, codec_seed(case))
                if case.filters[0][0] == DEFLATE:
                    seed = codec_seed(case)
                    write(codec, f"isal {case.name}", bytes([DECODER_ISAL]) + seed[1:])
    write(codec, "blosclz", struct.pack(">BH", DECODER_BLOSCLZ, 300) + b"\x03abcd\xe0\xff\x05\x03")
    for corpus in (codec, pipeline):
        sizes = [seed_path.stat().st_size for seed_path in corpus.iterdir()]
        print(f"{corpus.name}: {len(sizes)} seeds, {sum(sizes)} bytes")


if __name__ == "__main__":
    main()
