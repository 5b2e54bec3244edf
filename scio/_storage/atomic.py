"""Files are published whole: temporary name beside the target, fsync, rename, fsync of the folder.

What is promised, and by which line, for every file that is written through this module:

- the target is the old file or the whole new one, whatever happens between (`Temporary.publish`);
- a failure is raised, never swallowed, and the temporary is gone then (`Temporary.remove`);
- owner, mode and extended attributes of the old file are kept where the system lets us;
- a symbolic link stays, the file that it leads to is replaced;
- a file with several names (hard links) is not replaced unless asked, since the other names would
  silently keep the old content;
- what a killed process left behind is removed by the next writer in that folder (`sweep_stale`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scio.errors import IOWriteError, TargetExistsError

_TEMPORARY = re.compile(r"\..*\.scio-(\d+)-[0-9a-f]{8}")
_MAX_NAME_NBYTES = 255
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


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
        self.target = Path(os.path.realpath(os.fsdecode(target)))
        suffix = f".scio-{os.getpid()}-{secrets.token_hex(4)}"
        room = _MAX_NAME_NBYTES - 1 - len(suffix)
        name = os.fsencode(self.target.name)[:room].decode("utf-8", "ignore")
        self.path = self.target.with_name(f".{name}{suffix}")
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
            If syncing or renaming fails; the message says whether the old file is still there.
        """
        final = self.target
        try:
            _keep_facts(final, self.path)
            _fsync(self.path)
            if overwrite:
                os.replace(self.path, final)
            else:
                _rename_to_new(self.path, final)
        except FileExistsError as error:
            raise _exists(final) from error
        except OSError as error:
            raise _unchanged(error, final) from error
        try:
            _fsync_folder(final.parent)
        except OSError as error:
            text = f"{error.strerror}; the new file is in place, but may not outlive a power loss"
            raise IOWriteError(error.errno, text, str(final)) from error

    def remove(self) -> None:
        """Remove what is left of the file and let go of the lock; right after `publish`, too."""
        with contextlib.suppress(OSError):  # the failure that led here is the one to tell
            self.path.unlink()
        self._unlock()


@contextlib.contextmanager
def atomic_path(
    target: str | os.PathLike[str], *, overwrite: bool = True, break_hardlinks: bool = False
) -> Iterator[Path]:
    """Give the path of an `atomic_temporary`, for blocks that need no lock."""
    with atomic_temporary(
        target, overwrite=overwrite, break_hardlinks=break_hardlinks
    ) as temporary:
        yield temporary.path


@contextlib.contextmanager
def atomic_temporary(
    target: str | os.PathLike[str], *, overwrite: bool = True, break_hardlinks: bool = False
) -> Iterator[Temporary]:
    """Give a temporary; publish it as `target` when the block ends without an exception.

    Parameters
    ----------
    target : str or Path
        Where the file shall be; a symlink is followed.
    overwrite : bool
        False: an existing target is an error, decided by the kernel at publishing time.
    break_hardlinks : bool
        Replace a file that has other names, too; those keep the old content.

    Yields
    ------
    Temporary
        Its ``path`` lies in the target's directory; the block creates the file there, and calls
        ``lock`` if it works on it for long.

    Raises
    ------
    TargetExistsError
        If `overwrite` is False and the target exists.
    IOWriteError
        If the target cannot be replaced (`check_target`), or writing, syncing or renaming fails;
        the old file is then unchanged.
    """
    temporary = Temporary(target)
    sweep_stale(temporary.target.parent)
    check_target(temporary.target, overwrite=overwrite, break_hardlinks=break_hardlinks)
    try:
        with told_of_the_target(temporary):
            yield temporary
        temporary.publish(overwrite=overwrite)
    finally:
        temporary.remove()


@contextlib.contextmanager
def told_of_the_target(temporary: Temporary) -> Iterator[None]:
    """Failures to write speak of the target, which the caller knows, not of the temporary."""
    try:
        yield
    except OSError as error:
        shown = os.fspath(error.filename) if isinstance(error.filename, (str, os.PathLike)) else ""
        if not isinstance(error, IOWriteError) and shown != str(temporary.path):
            raise  # not ours: the block read another file
        text = (error.strerror or str(error)).replace(str(temporary.path), str(temporary.target))
        kept = "the old file is unchanged" if temporary.target.exists() else "nothing was written"
        code = error.errno if error.errno is not None else errno.EIO
        raise IOWriteError(code, f"{text}; {kept}", str(temporary.target)) from error


def check_target(target: Path, *, overwrite: bool, break_hardlinks: bool = False) -> None:
    """Say early what stands in the way of a target, before work is done for nothing.

    Parameters
    ----------
    target : Path
        Without symbolic links, as `Temporary.target`.
    overwrite : bool
        Whether a file may be there already.
    break_hardlinks : bool
        Whether that file may have other names.

    Raises
    ------
    TargetExistsError
        If something is there and `overwrite` is False.
    IOWriteError
        If it is no regular file, or has several names, or its folder does not exist.
    """
    try:
        facts = os.lstat(target)
    except FileNotFoundError:
        if not target.parent.is_dir():
            text = f"there is no folder {target.parent}; nothing was written"
            raise IOWriteError(errno.ENOENT, text, str(target)) from None
        return
    except OSError as error:
        raise IOWriteError(error.errno, error.strerror, str(target)) from error
    if stat.S_ISDIR(facts.st_mode):
        text = "is a folder, where a file shall be written; name a file in it"
        raise IOWriteError(errno.EISDIR, text, str(target))
    if stat.S_ISLNK(facts.st_mode):
        text = "is a symbolic link that leads in a circle"
        raise IOWriteError(errno.ELOOP, text, str(target))
    if not stat.S_ISREG(facts.st_mode):
        text = "is no regular file (a device, pipe or socket), so it cannot be replaced"
        raise IOWriteError(errno.EINVAL, text, str(target))
    if not overwrite:
        raise _exists(target)
    if facts.st_nlink > 1 and not break_hardlinks:
        text = (
            f"the file has {facts.st_nlink} names (hard links), and the others would keep the old "
            "content; pass break_hardlinks=True to replace this one, or remove it first; "
            "the old file is unchanged"
        )
        raise IOWriteError(errno.EMLINK, text, str(target))


def check_space(target: Path, needed_nbytes: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Parameters
    ----------
    target : Path
        The file that will be written.
    needed_nbytes : int
        A lower bound of its size.

    Raises
    ------
    IOWriteError
        With ENOSPC if fewer bytes are free.
    """
    try:
        facts = os.statvfs(target.parent)
    except OSError:
        return  # no answer is no obstacle: every write is checked again
    free = facts.f_bavail * facts.f_frsize
    if needed_nbytes > free and facts.f_blocks > 0:  # some file systems have no numbers to tell
        kept = "the old file is unchanged" if target.exists() else "nothing was written"
        text = (
            f"{os.strerror(errno.ENOSPC)} (needs about {_amount(needed_nbytes)}, "
            f"{_amount(free)} free); {kept}"
        )
        raise IOWriteError(errno.ENOSPC, text, str(target))


def _amount(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"


def sweep_stale(directory: Path) -> list[Path]:
    """Remove temporaries that nobody works on any more: their process is gone, their lock is free.

    Returns
    -------
    list of Path
        What was removed.
    """
    swept = []
    try:
        found_paths = sorted(directory.glob(".*.scio-*"))
    except OSError:  # what nobody may list needs no sweeping; writing there will say what is wrong
        return []
    for path in found_paths:
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
    except (OSError, OverflowError):  # it is somebody else's, or no process has such a number
        return True
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _keep_facts(old: Path, new: Path) -> None:
    """Give the new file the owner, mode and extended attributes of the old one, where permitted."""
    try:
        facts = os.stat(old)
    except FileNotFoundError:
        return
    mode = facts.st_mode & 0o777
    if (facts.st_uid, facts.st_gid) != _owner(new):
        with contextlib.suppress(OSError):
            os.chown(new, -1, facts.st_gid)
        with contextlib.suppress(OSError):
            os.chown(new, facts.st_uid, -1)
    if (facts.st_uid, facts.st_gid) == _owner(new):
        mode = facts.st_mode & 0o7777  # the set-id bits belong to the owner only
    with contextlib.suppress(OSError):  # file systems without modes
        os.chmod(new, mode)
    with contextlib.suppress(OSError):
        for name in os.listxattr(old):
            with contextlib.suppress(OSError):  # trusted.* and security.* are not ours to set
                os.setxattr(new, name, os.getxattr(old, name))


def _owner(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_uid, facts.st_gid


@functools.cache
def _renameat2() -> Any:
    """The C library's function, None where it has none."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None


def _rename_to_new(path: Path, final: Path) -> None:
    """Rename unless the target exists, in one step of the kernel's.

    Raises
    ------
    FileExistsError
        If it does.
    OSError
        If the file system can do it neither by renaming nor by linking.
    """
    function = _renameat2()
    if function is not None:
        names = os.fsencode(path), os.fsencode(final)
        if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in {errno.EINVAL, errno.ENOSYS}:  # an old file system: by a second name
            raise OSError(code, os.strerror(code), str(final))
    os.link(path, final)
    path.unlink()


def _exists(path: Path) -> TargetExistsError:
    return TargetExistsError(errno.EEXIST, "exists already, and overwrite is False", str(path))


def _unchanged(error: OSError, path: Path) -> IOWriteError:
    return IOWriteError(error.errno, f"{error.strerror}; the old file is unchanged", str(path))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(path: Path) -> None:
    try:
        _fsync(path)
    except OSError as error:
        # file systems that cannot sync a folder say so; what they do not lose, they keep by themselves
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise


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
