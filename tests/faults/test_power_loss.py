"""Power may fail after any system call: what is on the disk then is the old file or the new one.

The shim logs what one small write does.  Each prefix of the log is replayed the way disks behave:
what was synced is there; of the rest any part may be, in any order, block by block; a rename that
was not synced may have happened or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.faults.conftest import Faults, read_log

BLOCK = 512  # what a disk writes at once
N_ORDERS = 6  # random subsets of what was not synced, for each prefix


@dataclass
class File:
    """Bytes that are safe, and what came since: (offset, data) or a new length (n, None)."""

    safe: bytes = b""
    later: list[tuple[int, bytes | None]] = field(default_factory=list)

    def after(self, changes: list[tuple[int, bytes | None]]) -> bytes:
        image = bytearray(self.safe)
        for offset, data in changes:
            end = offset if data is None else offset + len(data)
            if len(image) < end:
                image.extend(bytes(end - len(image)))
            if data is None:
                del image[offset:]
            else:
                image[offset:end] = data
        return bytes(image)

    def blocks(self) -> list[tuple[int, bytes | None]]:
        """The same changes in pieces that are on the disk whole or not at all."""
        pieces: list[tuple[int, bytes | None]] = []
        for offset, data in self.later:
            if data is None:
                pieces.append((offset, None))
                continue
            at = 0
            while at < len(data):
                n = min(BLOCK - (offset + at) % BLOCK, len(data) - at)
                pieces.append((offset + at, data[at : at + n]))
                at += n
        return pieces


@dataclass
class Disk:
    """One folder: names that are safe, names as the system shows them."""

    files: list[File]
    safe: dict[str, int]
    shown: dict[str, int]

    def apply(self, op: str, path: str, path2: str, offset: int, data: bytes) -> None:
        if op == "c":
            if path not in self.shown:
                self.files.append(File())
                self.shown[path] = len(self.files) - 1
            elif offset:  # O_TRUNC
                self.files[self.shown[path]].later.append((0, None))
        elif op in "wt":
            change = (offset, data if op == "w" else None)
            self.files[self.shown[path]].later.append(change)
        elif op == "r":
            self.shown[path2] = self.shown.pop(path)
        elif op == "u":
            del self.shown[path]
        elif op == "s" and path in self.shown:
            file = self.files[self.shown[path]]
            file.safe, file.later = file.after(file.later), []
        elif op == "s":  # the folder
            self.safe = dict(self.shown)
        else:
            assert op in "ao", op  # space set aside, a file opened: no bytes change

    def after_power_loss(self, target: str, rng: np.random.Generator) -> Iterator[bytes | None]:
        """Contents that the target may have."""
        for names in (self.safe, self.shown):
            if target not in names:
                yield None
                continue
            file = self.files[names[target]]
            yield file.safe
            yield file.after(file.later)
            pieces = file.blocks()
            for _ in range(N_ORDERS if pieces else 0):
                order = rng.permutation(len(pieces))[: rng.integers(len(pieces) + 1)]
                yield file.after([pieces[i] for i in order])


def states(log: list, folder: Path, old: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    """(Number of calls before the power failed, what the target holds)."""
    target, rng = str(folder / "x.h5ad"), np.random.default_rng(0)
    names = {} if old is None else {target: 0}
    disk = Disk([] if old is None else [File(old)], dict(names), dict(names))
    for i, entry in enumerate(log):
        for content in disk.after_power_loss(target, rng):
            yield i, content
        disk.apply(*entry)
    for content in disk.after_power_loss(target, rng):
        yield len(log), content


@pytest.fixture(scope="module")
def logged(faults: Faults, tmp_path_factory: pytest.TempPathFactory):
    def run(writer: str) -> tuple[list, bytes]:
        path = tmp_path_factory.mktemp("log") / "log"
        faults.sweep(writer, "any", [0], log=str(path))
        return read_log(path), (faults.work / "x.h5ad").read_bytes()

    return run


@pytest.mark.parametrize("writer", ["write_h5ad", "write_subset", "fast layout"])
def test_every_prefix_is_the_old_file_or_the_new_one(faults, logged, writer):
    log, new = logged(writer)
    assert [entry[0] for entry in log].count("w") > 50
    assert new != b"old"
    seen = {"old": 0, "new": 0}
    for i, content in states(log, faults.work, b"old"):
        assert content in {b"old", new}, (i, log[i - 1][:2])
        seen["new" if content == new else "old"] += 1
    assert seen["old"] > 300
    assert seen["new"] >= 3
    final = [content for i, content in states(log, faults.work, b"old") if i == len(log)]
    assert set(final) == {new}  # what returned is safe


@pytest.mark.parametrize("lost", ["sync of the file", "sync of the folder"])
def test_the_replay_sees_a_sync_that_is_missing(faults, logged, lost):
    """The same log without one of the syncs is not safe, and this test tells."""
    log, new = logged("write_h5ad")
    is_folder = lost == "sync of the folder"
    kept = [e for e in log if e[0] != "s" or (e[1] == str(faults.work)) != is_folder]
    assert len(kept) < len(log)
    found = list(states(kept, faults.work, b"old"))
    if is_folder:
        assert b"old" in [content for i, content in found if i == len(kept)]
    else:
        assert any(content not in {b"old", new} for _, content in found)
