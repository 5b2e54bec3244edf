"""Run one writer many times, each time in a forked child in which another call fails.

Started by `conftest.Faults` with libfault preloaded:  python server.py FOLDER [objects].  A line of JSON on
stdin asks for a sweep, a line on stdout answers with one row for each k.  Everything is imported
once, and never used in this process, so that a child has no threads of it and starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import scio
import scio._h5write
import scio.io.convert
import scio.io.fast
import scio.io.repair
import scio.io.subset
import scio.io.write
from scio._storage.atomic import write_text_atomic
from scio.errors import IOWriteError

FAULT = ctypes.CDLL(None)  # the functions of the preloaded library
LIBC = ctypes.CDLL(None)
MODES = {"fail": 0, "short": 1, "kill": 2}
RAISED = {IOWriteError: 3, MemoryError: 4, OSError: 5}
OTHER = 6


def writers(source: Path) -> dict[str, Callable[[Path], object]]:
    """What writes files, each as a function of the target."""
    return {
        "write_h5ad": lambda target: scio.write_h5ad(source, target),
        "write_subset": lambda target: scio.write_subset(source, target, obs=slice(3, 17)),
        "convert": lambda target: scio.io.convert.convert(
            source, target, layout="csc", overwrite=True
        ),
        "repair": lambda target: scio.repair(source, target, overwrite=True),
        "fast layout": lambda target: scio.io.fast.convert(
            source, target, overwrite=True, progress=False
        ),
        "text": lambda target: write_text_atomic(target, "new text\n"),
        "text in new folders": lambda target: write_text_atomic(
            target.parent / "a" / "b" / target.name, "new text\n"
        ),
    }


def writers_of_objects(source: Path) -> dict[str, Callable[[Path], object]]:
    """The same for what is in memory, which needs anndata and makes each child slower."""
    adata = __import__("anndata").read_h5ad(source)
    return {
        "AnnData": lambda target: scio.write_h5ad(adata, target),
        "AnnData, no compression": lambda target: scio.write_h5ad(adata, target, compression=None),
    }


class Server:
    def __init__(self, folder: Path, wants_objects: bool) -> None:
        self.target = folder / "work" / "x.h5ad"
        self.target.parent.mkdir()
        make = writers_of_objects if wants_objects else writers
        self.writers = make(folder / "source.h5ad")

    def sweep(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """One row for each k: exit status, what was raised, what is in the folder."""
        write = self.writers[request["writer"]]
        rows = []
        for k in request["ks"]:
            if not self.target.exists() or self.target.read_bytes() != b"old":
                self.target.write_bytes(b"old")

            def arm(k: int = k) -> None:
                found = FAULT.scio_fault_arm(
                    request["call"].encode(), ctypes.c_long(k), request.get("errno", errno.EIO),
                    int(request.get("once", False)), MODES[request.get("mode", "fail")],
                    request.get("path", str(self.target.parent)).encode(),
                )  # fmt: skip
                assert found > 0 if request["call"] == "alloc" else found == 0
                if "log" in request:
                    FAULT.scio_fault_log(request["log"].encode())

            rows.append({"k": k, **self._child(lambda: write(self.target), arm), **self._seen()})
        return rows

    def race(self, n_files: int) -> dict[str, Any]:
        """Two writers of other content and a reader on one path; what the reader saw."""
        self._child(lambda: self.writers["write_subset"](self.target), lambda: None)
        pids = []
        for rows in (slice(0, 12), slice(5, 20)):
            pids.append(os.fork())
            if pids[-1] == 0:
                for _ in range(n_files):
                    scio.write_subset(
                        self.target.parent.parent / "source.h5ad", self.target, obs=rows
                    )
                LIBC.exit(0)
        seen: dict[str, int] = {}
        statuses: list[int] = []
        while pids:
            with scio.open(self.target) as file:
                shape = file.X.read().shape
            seen[str(shape)] = seen.get(str(shape), 0) + 1
            done, status = os.waitpid(pids[0], os.WNOHANG)
            if done:
                statuses.append(os.waitstatus_to_exitcode(status))
                del pids[0]
        return {"seen": seen, "statuses": statuses, **self._seen()}

    def _seen(self) -> dict[str, Any]:
        names = sorted(p.name for p in self.target.parent.iterdir())
        content = self.target.read_bytes() if self.target.exists() else b""
        others = [name for name in names if name != self.target.name]
        return {"sha256": hashlib.sha256(content).hexdigest(), "others": others}

    def _child(self, work: Callable[[], object], arm: Callable[[], None]) -> dict[str, Any]:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            told = os.dup2(write_end, 200)
            code, text, number = 0, "", 0
            arm()
            try:
                work()
            except tuple(RAISED) as error:
                code = next(RAISED[t] for t in RAISED if isinstance(error, t))
                text, number = str(error), getattr(error, "errno", None) or 0
            except BaseException as error:
                code, text = OTHER, f"{type(error).__name__}: {error}"
            FAULT.scio_fault_disarm()
            counts = FAULT.scio_fault_n_calls(), FAULT.scio_fault_n_hits()
            os.write(told, json.dumps([text, number, *counts]).encode())
            LIBC.exit(code)  # with the handlers that C libraries left, which may crash
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text, number, n_calls, n_hits = json.loads(said) if said else ("", 0, 0, 0)
        return {
            "status": status, "text": text, "errno": number, "n_calls": n_calls, "n_hits": n_hits,
        }  # fmt: skip


def main() -> None:
    """Answer until stdin ends."""
    warnings.simplefilter("ignore")
    for name in ("scio_fault_n_calls", "scio_fault_n_hits"):
        getattr(FAULT, name).restype = ctypes.c_long
    gc.collect()
    gc.freeze()
    server = Server(Path(sys.argv[1]), sys.argv[2:] == ["objects"])
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = server.race(request["race"]) if "race" in request else server.sweep(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
