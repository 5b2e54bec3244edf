"""Files are published whole: temporary name beside the target, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from scio.errors import IOWriteError, TargetExistsError


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
    final = Path(os.path.realpath(target))
    temporary = final.with_name(f".{final.name}.scio-{os.getpid()}-{secrets.token_hex(4)}")
    if not overwrite and final.exists():
        message = f"{final} exists already"
        raise TargetExistsError(message)
    try:
        yield temporary
        _publish(temporary, final, overwrite=overwrite)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _publish(temporary: Path, final: Path, *, overwrite: bool) -> None:
    try:
        _fsync(temporary)
        if final.exists():
            os.chmod(temporary, final.stat().st_mode & 0o7777)
        if overwrite:
            os.replace(temporary, final)
        else:
            os.link(temporary, final)
        _fsync(final.parent)
    except FileExistsError as error:
        message = f"{final} exists already"
        raise TargetExistsError(message) from error
    except OSError as error:
        raise IOWriteError(
            error.errno, f"{error.strerror}; the old file is unchanged", str(final)
        ) from error


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
        raise IOWriteError(
            error.errno, f"{error.strerror}; the old file is unchanged", str(path)
        ) from error
