"""What scio raises.  Every error is a `ScioError` and the builtin that a caller would expect.

::

    ScioError
    ├── IOFormatError (ValueError)          the file is not what it claims to be
    │   ├── CorruptFileError                a rule is broken: element, rule, found, expected
    │   ├── UnsupportedError (NotImplementedError)   sound, but nothing that scio reads
    │   └── UnsafeFileError                 leads out of the file, or exceeds a limit
    ├── IOWriteError (OSError)              errno and filename are kept; the old file is intact
    │   └── TargetExistsError (FileExistsError)      there is a file already, overwrite=False
    ├── IOPasswordError                     an encrypted container
    ├── TrustError                          loading could run code; needs trust=True
    ├── KeyNotFoundError (KeyError)         no such object, column, gene or key
    ├── LoaderError (RuntimeError)
    │   ├── LoaderCancelled                 stopped by `cancel`, `close` or Ctrl-C
    │   └── WorkerDiedError                 a worker process is gone
    ├── MissingDependencyError (ImportError)    an extra is not installed; says the pip line
    └── NotFittedError (RuntimeError)       a transform that was not fitted

    ScioWarning (UserWarning)               the result stands, but look at this

The core raises by one table of status codes (``csrc/py/pyerror.c``).  Besides these it raises plain
`ValueError`, `TypeError` and `IndexError` for wrong arguments, `MemoryError`, and the `OSError`
family (`FileNotFoundError`, `PermissionError` …) for what the operating system reports.
"""

from __future__ import annotations

__all__ = [
    "CorruptFileError",
    "IOFormatError",
    "IOPasswordError",
    "IOWriteError",
    "KeyNotFoundError",
    "LoaderCancelled",
    "LoaderError",
    "MissingDependencyError",
    "NotFittedError",
    "ScioError",
    "ScioWarning",
    "TargetExistsError",
    "TrustError",
    "UnsafeFileError",
    "UnsupportedError",
    "WorkerDiedError",
]


class ScioError(Exception):
    """Base of everything that scio raises on its own account."""


class IOFormatError(ScioError, ValueError):
    """The file is not what it claims to be."""


class CorruptFileError(IOFormatError):
    """A rule of the format is broken; the message names element, rule, found and expected."""


class UnsupportedError(IOFormatError, NotImplementedError):
    """Sound, but of a version, an encoding or a filter that scio does not read."""


class UnsafeFileError(IOFormatError):
    """External links or storage, virtual datasets, or a limit that was exceeded."""


class IOWriteError(ScioError, OSError):
    """Writing failed; ``errno`` and ``filename`` are kept, the old file is intact."""


class TargetExistsError(IOWriteError, FileExistsError):
    """The target exists and must not be overwritten."""


class IOPasswordError(ScioError):
    """The file is an encrypted container."""


class TrustError(ScioError):
    """The artifact could run code; pass ``trust=True`` if you know where it comes from."""


class KeyNotFoundError(ScioError, KeyError):
    """A name does not exist."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which turns a sentence into a quoted string.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class LoaderError(ScioError, RuntimeError):
    """A loader could not go on."""


class LoaderCancelled(LoaderError):
    """The loader, or a long call, was stopped from outside."""


class WorkerDiedError(LoaderError):
    """A worker process ended before its work did."""


class MissingDependencyError(ScioError, ImportError):
    """An optional library is not installed; the message holds the pip line."""


class NotFittedError(ScioError, RuntimeError):
    """A transform was used before it was fitted."""


class ScioWarning(UserWarning):
    """The result stands, but something about the input deserves a look."""
