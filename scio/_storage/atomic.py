"""Files are published whole: temporary name beside the target, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from scio.errors import IOWriteError, TargetExistsError

_TEMPORARY = re.compile(r"\..+\.scio-(\d+)-[0-9a-f]{8}")


class Temporary:
    """A file in the making, beside the place where it will be published.

    Parameters
    ----------
    target : str or Path
        Where the file shall be; a symlink is followed.

    Notes
    -----
    The file itself is made by whoever writes it.  `lock` tells other processes that it is being
    worked on: `sweep_stale` leaves it alone then, whatever host or container they are on.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self.target = Path(os.path.realpath(target))
        name = f".{self.target.name}.scio-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = self.target.with_name(name)
        self._lock = -1

    def lock(self) -> None:
        """Hold a lock on the file, which must exist, until it is published or removed."""
        self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks: the pid is asked alone
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def publish(self, *, overwrite: bool = True) -> None:
        """Sync the file, give it the target's name, sync the folder.

        Raises
        ------
        TargetExistsError
            If `overwrite` is False and the target exists, decided by the kernel.
        IOWriteError
            If syncing or renaming fails; the old file is then unchanged.
        """
        final = self.target
        try:
            _fsync(self.path)
            if final.exists():
                os.chmod(self.path, final.stat().st_mode & 0o7777)
            if overwrite:
                os.replace(self.path, final)
            else:
                os.link(self.path, final)
            _fsync(final.parent)
        except FileExistsError as error:
            message = f"{final} exists already"
            raise TargetExistsError(message) from error
        except OSError as error:
            raise _unchanged(error, final) from error

    def remove(self) -> None:
        """Remove what is left of the file and let go of the lock; right after `publish`, too."""
        with contextlib.suppress(OSError):  # the failure that led here is the one to tell
            self.path.unlink()
        self._unlock()


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path; publish it as `target` when the block ends without an exception.

    Parameters
    ----------
    target : str or Path
        Where the file shall be; a symlink is followed.
    overwrite : bool
        False: an existing target is an error, decided by the kernel at publishing time.

    Yields
    ------
    Path
        A path in the target's directory; the block creates the file there.

    Raises
    ------
    TargetExistsError
        If `overwrite` is False and the target exists.
    IOWriteError
        If syncing or renaming fails; the old file is then unchanged.
    """
    temporary = Temporary(target)
    check_target(temporary.target, overwrite=overwrite)
    try:
        yield temporary.path
        temporary.publish(overwrite=overwrite)
    finally:
        temporary.remove()


def check_target(target: Path, *, overwrite: bool) -> None:
    """Say early that a target exists, before work is done for nothing."""
    if not overwrite and target.exists():
        message = f"{target} exists already"
        raise TargetExistsError(message)


def sweep_stale(directory: Path) -> list[Path]:
    """Remove temporaries that nobody works on any more: their process is gone, their lock is free.

    Returns
    -------
    list of Path
        What was removed.
    """
    swept = []
    for path in directory.glob(".*.scio-*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or _is_alive(int(found.group(1))) or _is_locked(path):
            continue
        with contextlib.suppress(OSError):
            path.unlink()
            swept.append(path)
    return swept


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _unchanged(error: OSError, path: Path) -> IOWriteError:
    return IOWriteError(error.errno, f"{error.strerror}; the old file is unchanged", str(path))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; parents are created.

    Raises
    ------
    IOWriteError
        If writing fails; an old file is then unchanged.
    """
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except IOWriteError:
        raise
    except OSError as error:
        raise _unchanged(error, path) from error
