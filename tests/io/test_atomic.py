"""A file is the old one or the whole new one, whatever stands in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import anndata
import numpy as np
import pytest

import scio
from scio._storage import atomic
from scio._storage.atomic import Temporary, atomic_path, atomic_temporary, check_space, sweep_stale
from scio.errors import IOWriteError, TargetExistsError
from tests.io.test_writer import run
from tests.mounts import on_tmpfs


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5ad"
    path.write_bytes(b"old")
    return path


def adata(n: int = 20) -> anndata.AnnData:
    return anndata.AnnData(np.arange(n * 3, dtype="f4").reshape(n, 3))


def assert_old(target: Path) -> None:
    assert target.read_bytes() == b"old"
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def assert_new(target: Path) -> None:
    assert anndata.read_h5ad(target).shape == (20, 3)
    assert not [p.name for p in target.parent.iterdir() if ".scio-" in p.name]


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


# --- failures


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), MemoryError()])
def test_an_exception_inside_leaves_the_old_file(target, error):
    def fail() -> None:
        with atomic_path(target) as path:
            path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert_old(target)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_the_last_steps_can_fail(target, monkeypatch, name):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(atomic.os, name, fail)
    with pytest.raises(IOWriteError, match=r"broken; the old file is unchanged.*x\.h5ad") as caught:
        scio.write_h5ad(adata(), target)
    assert caught.value.errno == errno.EIO
    assert_old(target)


def test_a_folder_that_cannot_be_synced_is_told_truly(target, monkeypatch):
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(IOWriteError, match="the new file is in place"):
        scio.write_h5ad(adata(), target)
    assert_new(target)


def test_a_folder_that_knows_no_sync_is_fine(target, monkeypatch):
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "unknown")
        fsync(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fail)
    scio.write_h5ad(adata(), target)
    assert_new(target)


WRITE = """
    import os, sys, anndata, numpy as np, scio
    if len(sys.argv) > 2:
        os.setgid(65534); os.setuid(65534)
    X = np.random.default_rng(0).normal(size=(1000, 300))
    try:
        scio.write_h5ad(anndata.AnnData(X), sys.argv[1])
    except scio.errors.IOWriteError as error:
        print(error.errno, error, error.filename)
        sys.exit(3)
"""


def test_a_folder_where_nobody_may_write(tmp_path, open_folder):
    if os.getuid() != 0 or not shutil.which("setpriv"):
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        command: tuple[str, ...] = ()
    else:
        folder = open_folder
        command = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    target = folder / "x.h5ad"
    if os.getuid() == 0:
        target.write_bytes(b"old")
    done = run(WRITE, target, command=command, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith(f"{errno.EACCES} ")
    assert str(target) in done.stdout
    if os.getuid() == 0:
        assert "the old file is unchanged" in done.stdout
        assert_old(target)


def test_a_folder_that_cannot_be_reached_is_an_error_of_writing(tmp_path):
    folder = tmp_path / "closed" / "x"
    folder.mkdir(parents=True)
    os.chmod(tmp_path / "closed", 0o700)
    command = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    done = run(WRITE, folder / "x.h5ad", command=command, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith(f"{errno.EACCES} ")


@pytest.fixture
def open_folder():
    """A folder that any user can reach and only root can change; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="scio-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_full_disk(tmp_path):
    """Refused before anything is written; and when the estimate knew nothing, at the write."""
    folder = tmp_path / "disk"
    folder.mkdir()
    code = """
        import os, sys, anndata, numpy as np, scio, scio.io.write
        X = np.random.default_rng(0).normal(size=(1000, 300))
        target = sys.argv[1] + "/x.h5ad"
        scio.write_h5ad(anndata.AnnData(X[:10]), target)  # this much fits
        old = open(target, "rb").read()
        for _ in range(2):
            try:
                scio.write_h5ad(anndata.AnnData(X), target)
            except scio.errors.IOWriteError as error:
                print(error.errno, "free" in str(error), "the old file is unchanged" in str(error))
            assert os.listdir(sys.argv[1]) == ["x.h5ad"]
            assert open(target, "rb").read() == old
            scio.io.write.check_space = lambda *_: None
    """
    done = run(code, folder, command=on_tmpfs(folder, "1m"))
    assert done.stdout.split("\n")[:2] == [
        f"{errno.ENOSPC} True True",
        f"{errno.ENOSPC} False True",
    ]


def test_space_is_compared_with_what_is_free(tmp_path, monkeypatch):
    check_space(tmp_path / "x", 1)
    facts = os.statvfs_result((4096, 4096, *[10] * 8))
    monkeypatch.setattr(atomic.os, "statvfs", lambda _: facts)
    text = r"needs about 9\.3 GiB, \d.* free\); nothing was written"
    with pytest.raises(IOWriteError, match=text):
        check_space(tmp_path / "x", 10**10)


# --- what the target may be


def test_a_target_that_is_a_folder(tmp_path):
    with pytest.raises(IOWriteError, match="is a folder, where a file shall be") as caught:
        scio.write_h5ad(adata(), tmp_path)
    assert caught.value.errno == errno.EISDIR
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(IOWriteError, match="there is no folder") as caught:
        scio.write_h5ad(adata(), tmp_path / "no" / "x.h5ad")
    assert caught.value.errno == errno.ENOENT


def test_a_symbolic_link_stays(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "data.h5ad", tmp_path / "x.h5ad"
    real.write_bytes(b"old")
    link.symlink_to(real)
    scio.write_h5ad(adata(), link)
    assert link.is_symlink()
    assert_new(real)
    real.unlink()
    scio.write_h5ad(adata(), link)  # a link to a file that is not there yet
    assert_new(real)


def test_symbolic_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(IOWriteError) as caught:
        scio.write_h5ad(adata(), tmp_path / "a")
    assert caught.value.errno == errno.ELOOP
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_with_two_names_is_refused_unless_asked(target):
    other = target.with_name("other.h5ad")
    os.link(target, other)
    with pytest.raises(
        IOWriteError, match=r"2 names \(hard links\).*break_hardlinks=True"
    ) as caught:
        scio.write_h5ad(adata(), target)
    assert caught.value.errno == errno.EMLINK
    assert target.read_bytes() == other.read_bytes() == b"old"
    scio.write_h5ad(adata(), target, break_hardlinks=True)
    assert_new(target)
    assert other.read_bytes() == b"old"


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        server.bind("socket")
        os.chdir(here)
        for name in ("pipe", "socket"):
            with pytest.raises(IOWriteError, match="no regular file"):
                scio.write_h5ad(adata(), tmp_path / name)


def test_names_as_long_as_they_can_be(tmp_path):
    for name in ("x" * 250 + ".h5ad", "é" * 125 + ".h5ad"):
        scio.write_h5ad(adata(), tmp_path / name)
        assert anndata.read_h5ad(tmp_path / name).shape == (20, 3)


# --- what is kept


def test_mode_owner_and_attributes_are_kept(target):
    os.chmod(target, 0o640)
    if os.getuid() == 0:
        os.chown(target, 1234, 4321)
    try:
        os.setxattr(target, "user.origin", b"lab 7")
        has_attributes = True
    except OSError:
        has_attributes = False  # this file system has none
    before = target.stat()
    scio.write_h5ad(adata(), target)
    after = target.stat()
    assert after.st_ino != before.st_ino
    for name in ("st_mode", "st_uid", "st_gid"):
        assert getattr(after, name) == getattr(before, name)
    assert not has_attributes or os.getxattr(target, "user.origin") == b"lab 7"
    assert_new(target)


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        scio.write_h5ad(adata(), tmp_path / "x.h5ad")
    finally:
        os.umask(old)
    assert (tmp_path / "x.h5ad").stat().st_mode & 0o777 == 0o640


def test_who_has_the_file_open_keeps_the_old_one(target):
    with target.open("rb") as file:
        scio.write_h5ad(adata(), target)
        assert file.read() == b"old"


# --- overwrite=False


def test_the_kernel_decides_whether_the_file_exists(tmp_path):
    """Both have looked and seen nothing; one of them comes first."""
    target = tmp_path / "x"

    def write() -> None:
        with atomic_path(target, overwrite=False) as path:
            path.write_bytes(b"second")
            with atomic_path(target, overwrite=False) as other:
                other.write_bytes(b"first")

    with pytest.raises(TargetExistsError) as caught:
        write()
    assert caught.value.errno == errno.EEXIST
    assert target.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("is_there", [True, False])
def test_without_renameat2_a_second_name_decides(tmp_path, monkeypatch, is_there):
    monkeypatch.setattr(atomic, "_renameat2", lambda: None)
    target = tmp_path / "x"
    temporary = Temporary(target)
    temporary.path.write_bytes(b"new")
    if is_there:
        target.write_bytes(b"old")
        with pytest.raises(TargetExistsError):
            temporary.publish(overwrite=False)
    else:
        temporary.publish(overwrite=False)
    temporary.remove()
    assert target.read_bytes() == (b"old" if is_there else b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert target.stat().st_nlink == 1


def test_one_of_many_writers_wins(tmp_path):
    target, wins, losses = tmp_path / "x", [], []

    def write(i: int) -> None:
        try:
            with atomic_path(target, overwrite=False) as path:
                path.write_text(str(i))
            wins.append(i)
        except TargetExistsError:
            losses.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert len(losses) == 7
    assert target.read_text() == str(wins[0])


# --- what killed writers leave


def test_the_next_writer_sweeps_what_the_dead_left(tmp_path):
    pid = dead_pid()
    stale = tmp_path / f".x.h5ad.scio-{pid}-0123abcd"
    stale.write_bytes(b"half")
    kept = {
        f".x.h5ad.scio-{os.getpid()}-0123abcd": "its process lives",
        f".x.h5ad.scio-{pid}-0123": "not our name",
        f"x.h5ad.scio-{pid}-0123abcd": "not hidden",
        f".locked.scio-{pid}-0123abcd": "somebody works on it, in another container",
    }
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    with (tmp_path / f".locked.scio-{pid}-0123abcd").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        scio.write_h5ad(adata(), tmp_path / "x.h5ad")
    assert not stale.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"x.h5ad", *kept}
    assert [p.name for p in sweep_stale(tmp_path)] == [f".locked.scio-{pid}-0123abcd"]


def test_a_writer_holds_a_lock_on_its_temporary(tmp_path, monkeypatch):
    with atomic_temporary(tmp_path / "x") as temporary:
        temporary.path.write_bytes(b"new")
        temporary.lock()
        monkeypatch.setattr(atomic, "_is_alive", lambda _: False)  # as another container sees it
        assert sweep_stale(tmp_path) == []
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_killed_writer_leaves_the_old_file(target):
    code = """
        import os, signal, sys, anndata, numpy as np, scio
        from scio.io import _streams
        _streams.ArrayStream.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        scio.write_h5ad(anndata.AnnData(np.ones((100, 30))), sys.argv[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(target)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    assert target.read_bytes() == b"old"
    assert len(list(target.parent.iterdir())) == 2  # the temporary is there
    scio.write_h5ad(adata(), target)
    assert [p.name for p in target.parent.iterdir()] == ["x.h5ad"]
