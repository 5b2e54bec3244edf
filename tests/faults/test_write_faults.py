"""Whatever call fails, at whichever k: the target is the old file or the whole new one.

Every case is a child process; its exit status is looked at, so that a crash of a C library's exit
handler is seen, too.  That the fault was reached is asserted for every k (`Faults.sweep`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import scio
from scio.testing import assert_equal
from tests.faults.conftest import Faults, sample
from tests.mounts import on_tmpfs

OLD = hashlib.sha256(b"old").hexdigest()
IO_WRITE_ERROR, MEMORY_ERROR, OTHER = 3, 4, 6  # exit statuses of server.py
WRITERS = ["write_h5ad", "write_subset", "fast layout"]
MORE_WRITERS = ["convert", "repair", "text"]


def assert_raised_or_whole(row: dict, new: str, number: int, n_others: int = 0) -> None:
    """Raised with errno and nothing changed, or all went well in spite of the fault."""
    assert len(row["others"]) <= n_others, row
    if row["status"] == 0:
        assert row["sha256"] == new, row
        return
    assert row["status"] == IO_WRITE_ERROR, row
    assert row["errno"] == number, row
    if "the new file is in place" in row["text"]:
        assert row["sha256"] == new, row
    else:
        assert row["sha256"] == OLD, row
        assert "unchanged" in row["text"], row


def must_fail(faults: Faults, writer: str, call: str, step: int = 1, **how: object) -> int:
    """Calls that data depend on, every `step`-th: none may end well.  Returns how many there were."""
    n_calls, new = faults.count(writer, call)
    number = errno.ENOSPC if how.get("once") else errno.EIO
    for row in faults.sweep(writer, call, range(1, n_calls + 1, step), errno=number, **how):
        assert_raised_or_whole(row, new, number)
        assert row["status"] == IO_WRITE_ERROR, row
    return n_calls


@pytest.mark.parametrize(
    ("writer", "call", "least"),
    [
        *((w, c, n) for w in WRITERS for c, n in (("pwrite64", 50), ("fsync", 2), ("rename", 1))),
        ("fast layout", "ftruncate64", 1),
    ],
)
def test_from_the_kth_call_on_the_disk_is_broken(faults, writer, call, least):
    assert must_fail(faults, writer, call) >= least


def test_no_hook_is_idle(faults, object_faults):
    """A call that nobody makes any more would be tested by nothing."""
    for call in ("posix_fallocate", "unlink", "openat"):
        assert faults.count("fast layout", call)[0] > 0, call
    for call in ("write", "mkdir"):
        assert faults.count("text", call)[0] > 0, call
    assert object_faults.count("AnnData", "pwrite64")[0] > 50


@pytest.mark.parametrize(("writer", "step"), [("write_h5ad", 1), ("fast layout", 3)])
def test_one_write_that_fails_is_not_forgotten(faults, writer, step):
    """ENOSPC once, and every later write succeeds: libhdf5 alone would end well."""
    assert must_fail(faults, writer, "pwrite64", step, once=True) >= 50


@pytest.mark.parametrize("writer", MORE_WRITERS)
def test_other_writers(faults, writer):
    n_calls, new = faults.count(writer, "any")
    step = 1 if writer == "text" else 7
    for row in faults.sweep(writer, "any", range(1, n_calls + 1, step), errno=errno.EIO):
        # nothing works any more: nor can the temporary be removed, which the next writer does
        assert_raised_or_whole(row, new, errno.EIO, n_others=1)
    assert faults.count(writer, "any")[1] == new


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("call", ["openat", "posix_fallocate", "unlink"])
def test_calls_that_may_fail_without_harm(faults, writer, call):
    n_calls, new = faults.count(writer, call)
    for number in (errno.EACCES, errno.EMFILE):
        for row in faults.sweep(writer, call, range(1, n_calls + 1), errno=number):
            assert_raised_or_whole(row, new, number, n_others=int(call == "unlink"))
    assert faults.count(writer, call)[1] == new


def test_folders_that_cannot_be_made(faults):
    shutil.rmtree(faults.work / "a", ignore_errors=True)
    (row,) = faults.sweep("text in new folders", "mkdir", [1], errno=errno.ENOSPC)
    assert (row["status"], row["errno"], row["others"]) == (IO_WRITE_ERROR, errno.ENOSPC, [])


@pytest.mark.parametrize(("writer", "step"), [("write_h5ad", 2), ("fast layout", 5)])
def test_half_a_write_is_completed(faults, writer, step):
    n_calls, new = faults.count(writer, "pwrite64")
    assert n_calls > 50
    ks = range(1, n_calls + 1, step)
    for row in faults.sweep(writer, "pwrite64", ks, mode="short", once=True):
        assert (row["status"], row["sha256"], row["others"]) == (0, new, []), row
    for row in faults.sweep(writer, "pwrite64", [1, n_calls], mode="short"):  # all of them
        assert (row["status"], row["sha256"]) == (0, new), row


@pytest.mark.parametrize(
    ("writer", "calls"),
    [
        ("write_h5ad", ["pwrite64", "fsync", "openat"]),
        ("fast layout", ["ftruncate64", "fsync", "openat", "posix_fallocate"]),
        ("text", ["write", "fsync", "openat"]),
    ],
)
def test_an_interrupted_call_is_made_again(faults, writer, calls):
    for call in calls:
        n_calls, new = faults.count(writer, call)
        assert n_calls > 0
        ks = range(1, n_calls + 1, 3 if call == "pwrite64" else 1)
        for row in faults.sweep(writer, call, ks, errno=errno.EINTR, once=True):
            assert (row["status"], row["sha256"], row["others"]) == (0, new, []), row


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_every_call(faults, writer):
    n_calls, new = faults.count(writer, "any")
    seen = set()
    for row in faults.sweep(writer, "any", range(1, n_calls + 1), mode="kill"):
        assert row["status"] == -9, row
        assert row["sha256"] in {OLD, new}, row
        assert len(row["others"]) <= 1, row  # the next writer sweeps what this one left
        seen.add((row["sha256"], len(row["others"])))
    assert {(OLD, 0), (OLD, 1), (new, 0)} <= seen
    assert faults.count(writer, "any")[1] == new  # and asserts that nothing is left


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("once", [True, False])
def test_memory_ends_at_the_kth_allocation_of_ours(faults, writer, once):
    """Of the extension modules; thousands in all, of which the first and a sample are tried."""
    how = {"path": "/scio/_", "errno": errno.ENOMEM, "once": once}
    n_calls, new = faults.count(writer, "alloc", path="/scio/_")
    assert n_calls > 100
    n_failed = 0
    for row in faults.sweep(
        writer, "alloc", [*range(1, 12), *range(12, n_calls, n_calls // 23)], **how
    ):
        assert row["status"] in {0, MEMORY_ERROR}, row
        assert row["sha256"] == (new if row["status"] == 0 else OLD), row
        assert row["others"] == [], row
        n_failed += row["status"] != 0
    assert n_failed > 10


def test_objects_in_memory(object_faults):
    for writer in ("AnnData", "AnnData, no compression"):
        n_calls, new = object_faults.count(writer, "any")
        for row in object_faults.sweep(writer, "any", range(1, n_calls + 1, 9), errno=errno.EIO):
            assert_raised_or_whole(row, new, errno.EIO, n_others=1)


def test_memory_ends_while_an_object_is_written(object_faults):
    n_calls, new = object_faults.count("AnnData", "alloc", path="/scio/_")
    how = {"path": "/scio/_", "errno": errno.ENOMEM}
    for row in object_faults.sweep("AnnData", "alloc", range(1, n_calls + 1), **how):
        # inside a callback of libhdf5's it is a failure to write, with that errno
        is_memory = row["status"] == MEMORY_ERROR or row["errno"] == errno.ENOMEM
        assert row["status"] == 0 or is_memory, row
        assert row["sha256"] == (new if row["status"] == 0 else OLD), row
        assert row["others"] == [], row


def test_the_new_file_is_the_one_meant(object_faults):
    """What the digests above stand for."""
    digest = object_faults.count("AnnData", "any")[1]
    path = object_faults.work / "x.h5ad"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert_equal(scio.read_h5ad(path), sample())


def test_two_writers_and_a_reader(faults):
    result = faults.ask(race=40)
    assert result["statuses"] == [0, 0]
    assert set(result["seen"]) <= {"(14, 100)", "(12, 100)", "(15, 100)"}
    assert sum(result["seen"].values()) > 20
    assert {"(12, 100)", "(15, 100)"} <= set(result["seen"])
    assert result["others"] == []


# --- whole processes, without the shim

DISK = """
    import os, sys
    sys.path.insert(0, sys.argv[3])
    from pathlib import Path
    import server
    folder, source = Path(sys.argv[1]), Path(sys.argv[2])
    write = server.writers(source)[sys.argv[4]]
    target = folder / "x.h5ad"
    target.write_bytes(b"old")
    n_failed = n_written = 0
    filler = folder / "filler"
    filler.write_bytes(b"")
    for n_free in range(0, 120_000, 4096):  # room for a page more each time
        facts = os.statvfs(folder)
        with open(filler, "r+b") as file:
            file.seek(0, 2)
            size = file.tell() + facts.f_bavail * facts.f_frsize - n_free
            os.posix_fallocate(file.fileno(), 0, size) if size > file.tell() else file.truncate(size)
        try:
            write(target)
            n_written += 1
            assert target.read_bytes() != b"old"
            target.write_bytes(b"old")
        except server.IOWriteError as error:
            n_failed += 1
            assert error.errno == 28, error
            assert target.read_bytes() == b"old"
        assert sorted(os.listdir(folder)) == ["filler", "x.h5ad"], os.listdir(folder)
    print(n_failed, n_written)
"""


def run(
    code: str, *arguments: object, command: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.h5ad"
    scio.write_h5ad(sample(), path)
    return path


@pytest.mark.parametrize("writer", WRITERS)
def test_disks_with_room_for_a_page_more_each_time(tmp_path, source, writer):
    folder = tmp_path / "disk"
    folder.mkdir()
    here = Path(__file__).parent
    done = run(DISK, folder, source, here, writer, command=on_tmpfs(folder, "1m"))
    assert done.returncode == 0, done.stderr
    n_failed, n_written = map(int, done.stdout.split())
    assert n_failed >= 5
    assert n_written >= 3


CLOSED = """
    import os, sys
    sys.path.insert(0, sys.argv[3])
    from pathlib import Path
    import server
    target = Path(sys.argv[1])
    for name, write in server.writers(Path(sys.argv[2])).items():
        try:
            write(target)
        except server.IOWriteError as error:
            print(name, error.errno, sep=":")
"""


def test_a_folder_where_the_user_may_not_write(tmp_path, source):
    folder = tmp_path / "closed"
    folder.mkdir()
    target = folder / "x.h5ad"
    target.write_bytes(b"old")
    folder.chmod(0o555)
    command: tuple[str, ...] = ()
    if os.getuid() == 0:  # whom modes do not stop
        command = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        for path in (source, target):
            path.chmod(0o644)
        for parent in folder.parents:
            if parent.stat().st_uid == os.getuid() and parent.stat().st_mode & 5 != 5:
                parent.chmod(parent.stat().st_mode | 5)
    done = run(CLOSED, target, source, Path(__file__).parent, command=command)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split()
    assert len(lines) >= 6
    assert all(line.endswith(f":{errno.EACCES}") for line in done.stdout.splitlines()), done.stdout
    assert target.read_bytes() == b"old"
    assert os.listdir(folder) == ["x.h5ad"]
