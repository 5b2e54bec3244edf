"""The storage of a file: links, headers, and every chunk decoded once, in bounded memory.

Whoever wants to look at values leaves a visitor, so that nothing is decoded twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio.errors import IOFormatError, KeyNotFoundError, UnsafeFileError, UnsupportedError
from scio.io import _values
from scio.io._streams import DIGEST

if TYPE_CHECKING:
    from scio import _core
    from scio.io._report import Report
    from scio.io.hdf5 import HDF5File

FAILURES = (IOFormatError, KeyNotFoundError, IndexError, TypeError, OverflowError, ValueError)
BLOCK_NBYTES = 32 << 20
_BLOCK_TEXTS = 1 << 18
_MAX_UNWRITTEN_NBYTES = 1 << 30
_MAX_DEPTH = 64

Visitor = Callable[[int, NDArray[Any]], None]  # first item, the items of the block


class StorageCheck:
    """Walks one file.

    Parameters
    ----------
    file : HDF5File
    report : Report
        Takes the findings.
    is_deep : bool
        Also decode the attributes that nobody asks for.

    Attributes
    ----------
    paths : dict
        Address of each object to the path that led there first.
    kinds : dict
        Path to "group", "dataset", "type" or "unknown".
    """

    def __init__(self, file: HDF5File, report: Report, *, is_deep: bool = False) -> None:
        self.file = file
        self.report = report
        self.is_deep = is_deep
        self.paths: dict[int, str] = {}
        self.kinds: dict[str, str] = {}
        self.n_datasets = 0
        self.nbytes = 0
        self._visitors: dict[str, list[Visitor]] = {}
        self._endings: dict[str, list[Callable[[], None]]] = {}
        self._bad: set[str] = set()

    # --- links and headers

    def walk(self) -> None:
        """Follow all hard links from the root; headers only."""
        self._object("/", [])

    def is_bad(self, path: str) -> bool:
        """Whether an error was found at this object."""
        return path in self._bad

    def fail(self, path: str, rule: str, found: str, expected: str = "") -> None:
        """Report an error and remember the object."""
        self._bad.add(path)
        self.report.add(path, rule, found, expected)

    def _message(self, error: BaseException, path: str) -> str:
        text = str(error)
        for prefix in (f"{self.file.name}: ", f"{path}: ", f"{path} "):
            text = text.removeprefix(prefix)
        return text

    def _object(self, path: str, above: list[int]) -> None:
        try:
            address = self.file.core.address(path)
            kind = self.file.core.kind(path)
        except FAILURES as error:
            self.fail(path, "header", self._message(error, path), "an object")
            return
        if address in above:
            self.fail(path, "cycle", f"is {self.paths[address]}, which it lies in", "no cycles")
            return
        if address in self.paths:  # a second name
            self.kinds[path] = kind
            return
        self.paths[address], self.kinds[path] = path, kind
        self._attributes(path)
        if kind == "group":
            self._group(path, [*above, address])
        elif kind == "dataset":
            self._dataset_header(path)

    def _attributes(self, path: str) -> None:
        try:
            names = self.file.attr_names(path)
        except FAILURES as error:
            self.fail(path, "attribute", self._message(error, path), "readable attributes")
            return
        for name in names if self.is_deep else ():
            try:
                self.file.attr(path, name)
            except UnsupportedError:
                continue
            except FAILURES as error:
                text = self._message(error, path)
                self.report.add(f"{path}@{name}", "attribute", text, "a readable attribute")

    def _group(self, path: str, above: list[int]) -> None:
        if len(above) > _MAX_DEPTH:
            self.fail(path, "depth", f"lies {len(above)} groups deep", f"at most {_MAX_DEPTH}")
            return
        try:
            links = self.file.core.links(path)
        except FAILURES as error:
            self.fail(path, "group", self._message(error, path), "a readable list of members")
            return
        for name, kind, _, target, target_file in links:
            member = f"{path.rstrip('/')}/{name}"
            if kind == "hard":
                self._object(member, above)
            elif kind == "soft":
                self.report.add(member, "link", f"soft link to {target}", "", level="note")
            else:
                found = f"{kind} link to {target_file}: {target}"
                self.fail(member, "link", found, "no link that leads out of the file")

    def _dataset_header(self, path: str) -> None:
        try:
            dataset = self.file.dataset(path)
            if dataset.shape is not None:
                dataset.units()
        except UnsafeFileError as error:
            self.fail(
                path, "safety", self._message(error, path), "data in this file, within limits"
            )
        except UnsupportedError as error:
            self._bad.add(path)
            text = self._message(error, path)
            self.report.add(path, "unsupported", text, "something that scio reads", level="warning")
        except FAILURES as error:
            self.fail(path, "storage", self._message(error, path), "a readable header and index")

    # --- values

    def visit(self, path: str, visitor: Visitor, finish: Callable[[], None] | None = None) -> None:
        """Show the blocks of a 1-D dataset to `visitor`, in order, once they are decoded."""
        self._visitors.setdefault(path, []).append(visitor)
        if finish is not None:
            self._endings.setdefault(path, []).append(finish)

    def decode(self) -> None:
        """Decode every dataset."""
        for path, kind in self.kinds.items():
            if kind == "dataset" and path not in self._bad and self._is_first(path):
                self.n_datasets += 1
                self._dataset(path, self.file.dataset(path))

    def _is_first(self, path: str) -> bool:
        return self.paths[self.file.core.address(path)] == path or path in self._visitors

    def _dataset(self, path: str, dataset: _core.Dataset) -> None:
        if dataset.shape is None or not self._filters_known(path, dataset):
            return
        info = dataset.type
        if info["unsupported"]:
            self.report.add(path, "unsupported", info["unsupported"], level="warning")
            return
        is_visited = path in self._visitors
        digest = self._digest(path, dataset)
        n_bad = 0
        first = ""
        skips_holes = not is_visited and digest is None
        if self._unwritten_nbytes(dataset) > _MAX_UNWRITTEN_NBYTES:
            self.report.add(
                path,
                "storage",
                f"{self._unwritten_nbytes(dataset):,} bytes were never written",
                level="warning",
            )
            skips_holes, digest, is_visited = True, None, False
        for start, count in boxes(dataset, skips_holes=skips_holes):
            try:
                block = self._block(dataset, start, count)
            except FAILURES as error:
                place, n_in_box = self._bad_chunks(dataset, start, count)
                first = first or f"{place}{self._message(error, path)}"
                n_bad += n_in_box
                continue
            if n_bad:
                continue
            if not self._are_texts_sound(path, dataset, start, block):
                break
            if digest is not None:
                digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
            for visitor in self._visitors.get(path, ()) if is_visited else ():
                visitor(start[0] if start else 0, block)
        if n_bad:
            rule = "checksum" if "fletcher32" in first else "storage"
            more = f" ({n_bad} chunks in all)" if n_bad > 1 else ""
            self.fail(path, rule, first + more, "chunks that decode to their length")
        elif path not in self._bad and is_visited:
            for finish in self._endings.get(path, ()):
                finish()
        if digest is not None and path not in self._bad:
            self._compare_digest(path, digest.hexdigest())

    def _filters_known(self, path: str, dataset: _core.Dataset) -> bool:
        from scio.io._plan import check_filters

        try:
            check_filters(dataset, path)
        except UnsupportedError as error:
            self._bad.add(path)
            self.report.add(path, "filter", self._message(error, path), "", level="warning")
            return False
        return True

    @staticmethod
    def _unwritten_nbytes(dataset: _core.Dataset) -> int:
        units = dataset.units()
        n_holes = int(np.count_nonzero(units[:, 0] < 0))
        if not n_holes or dataset.shape is None:
            return 0
        total = prod(dataset.shape) * int(dataset.type["itemsize"])
        return total * n_holes // len(units)

    @staticmethod
    def _block(
        dataset: _core.Dataset, start: tuple[int, ...], count: tuple[int, ...]
    ) -> NDArray[Any]:
        is_number = dataset.dtype is not None and (
            dataset.type["class"] != "enum" or dataset.type["is_bool"]
        )
        if not start:  # a scalar
            return dataset.read() if is_number else dataset.read_raw()
        return dataset.read(start, count) if is_number else dataset.read_raw(start, count)

    def _bad_chunks(
        self, dataset: _core.Dataset, start: tuple[int, ...], count: tuple[int, ...]
    ) -> tuple[str, int]:
        """Position of the first chunk of a box that does not decode, and how many do not."""
        chunks = dataset.chunks
        if chunks is None:
            return "", 1
        n_bad, place = 0, ""
        for at, size in _grid(start, count, chunks):
            try:
                self._block(dataset, at, size)
            except FAILURES:
                place = place or f"at {at if len(at) > 1 else at[0]}: "
                n_bad += 1
        return place, max(1, n_bad)

    def _are_texts_sound(
        self, path: str, dataset: _core.Dataset, start: tuple[int, ...], block: NDArray[Any]
    ) -> bool:
        info = dataset.type
        self.nbytes += block.nbytes
        if not _values.has_objects(info) or block.size == 0:
            return True
        try:
            _values.decode(self.file.core, info, block, path)
        except UnsupportedError:
            return True
        except FAILURES as error:
            place = f"from item {start[0]} on: " if start and start[0] else ""
            text = place + self._message(error, path)
            self.fail(path, "string", text, "UTF-8 without NUL, inside the heap")
            return False
        return True

    def _digest(self, path: str, dataset: _core.Dataset) -> Any:
        if not self._stored_digest(path) or dataset.dtype is None or dataset.shape is None:
            return None
        first = next(boxes(dataset), ((), dataset.shape))[1]
        if first[1:] != dataset.shape[1:]:  # pieces of rows, whose bytes do not follow one another
            self.report.add(path, "digest", "rows too long, not compared", level="note")
            return None
        return hashlib.sha256()

    def _stored_digest(self, path: str) -> str:
        if DIGEST not in self.file.attr_names(path):
            return ""
        return str(self.file.scalar_attr(path, DIGEST, default=""))

    def _compare_digest(self, path: str, found: str) -> None:
        stored = self._stored_digest(path)
        if found != stored:
            self.fail(path, "digest", f"SHA-256 {found[:16]}…", f"{stored[:16]}…, as {DIGEST} says")


def boxes(
    dataset: _core.Dataset, *, skips_holes: bool = False, nbytes: int = BLOCK_NBYTES
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut a dataset into boxes of whole chunks of about `nbytes`, in C order.

    Boxes are runs along the first axis wherever its rows fit, so that they follow one another.
    """
    shape = dataset.shape
    if shape is None:
        return
    if not shape:
        yield (), ()
        return
    itemsize = int(dataset.type["itemsize"])
    n_items = max(1, nbytes // max(1, itemsize))
    if _values.has_objects(dataset.type):
        n_items = min(n_items, _BLOCK_TEXTS)
    box = _box_shape(shape, dataset.chunks or (1,) * len(shape), n_items)
    is_written = _written(dataset) if skips_holes else None
    for start, count in _grid((0,) * len(shape), shape, box):
        if is_written is None or is_written(start, count):
            yield start, count


def _box_shape(shape: tuple[int, ...], chunks: tuple[int, ...], n_items: int) -> tuple[int, ...]:
    """As many chunks as fit, along the last axis first."""
    box = [min(c, max(1, n)) for c, n in zip(chunks, shape, strict=True)]
    for axis in reversed(range(len(shape))):
        room = n_items // max(1, prod(box))
        box[axis] = max(box[axis], min(shape[axis], box[axis] * max(1, room)))
        if box[axis] < shape[axis]:
            break
    return tuple(box)


def _grid(
    start: tuple[int, ...], count: tuple[int, ...], step: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    ranges = [range(s, s + n, k) for s, n, k in zip(start, count, step, strict=True)]
    for at in itertools.product(*ranges):
        ends = (min(a + k, s + n) for a, k, s, n in zip(at, step, start, count, strict=True))
        yield at, tuple(e - a for a, e in zip(at, ends, strict=True))


def _written(
    dataset: _core.Dataset,
) -> Callable[[tuple[int, ...], tuple[int, ...]], bool] | None:
    """Tell of a box whether any chunk of it was written; None when all were."""
    positions = dataset.units()[:, 0]
    if (positions >= 0).all():
        return None
    if dataset.chunks is None or dataset.shape is None:
        is_any = bool((positions >= 0).any())
        return lambda start, count: is_any
    chunks = dataset.chunks
    grid = [-(-n // c) for n, c in zip(dataset.shape, chunks, strict=True)]
    table = (positions >= 0).reshape(grid)

    def is_written(start: tuple[int, ...], count: tuple[int, ...]) -> bool:
        part = tuple(
            slice(s // c, -(-(s + n) // c)) for s, n, c in zip(start, count, chunks, strict=True)
        )
        return bool(table[part].any())

    return is_written
