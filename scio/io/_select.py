"""Which elements are wanted, and what could not be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from scio._names import near_names
from scio.errors import KeyNotFoundError, ScioWarning, UnsupportedError


class Wanted:
    """Patterns of element paths: ``"X"``, ``"obs/louvain"``, ``"layers/*"``.

    Parameters
    ----------
    patterns : iterable of str, str or None
        Each names an element with all that is below it; every part may be a shell pattern.
        None = everything.
    """

    def __init__(self, patterns: Iterable[str] | str | None) -> None:
        if isinstance(patterns, str):
            patterns = [patterns]
        self._patterns = None if patterns is None else [p.strip("/").split("/") for p in patterns]
        self._is_used = [False] * len(self._patterns or ())
        self._seen: list[str] = []

    @property
    def is_all(self) -> bool:
        """Whether nothing was left out."""
        return self._patterns is None

    def has(self, path: str) -> bool:
        """Tell whether the element, or something above it, was asked for."""
        if self._patterns is None:
            return True
        self._seen.append(path)
        parts = path.split("/")
        found = False
        for i, pattern in enumerate(self._patterns):
            if len(pattern) <= len(parts) and _fits(parts, pattern):
                self._is_used[i] = found = True
        return found

    def names(self, path: str) -> bool:
        """Tell whether the element itself was asked for by its own name, without wildcards."""
        return self._patterns is not None and path.split("/") in self._patterns

    def enters(self, path: str) -> bool:
        """Tell whether the element or something below it may be asked for."""
        if self._patterns is None:
            return True
        parts = path.split("/")
        return any(_fits(parts, pattern) for pattern in self._patterns)

    def check(self, name: str) -> None:
        """Raise KeyNotFoundError when a name led to nothing; what has wildcards may."""
        for pattern, is_used in zip(self._patterns or (), self._is_used, strict=True):
            text = "/".join(pattern)
            if not is_used and not set(text) & set("*?["):
                near = near_names(text, dict.fromkeys(self._seen))
                message = f"{name} has no element {text!r}: {near}"
                raise KeyNotFoundError(message)


def _fits(parts: list[str], pattern: list[str]) -> bool:
    return all(fnmatchcase(a, b) for a, b in zip(parts, pattern, strict=False))


@dataclass(frozen=True, slots=True)
class OpaqueElement:
    """Something in a file that scio does not read.

    Attributes
    ----------
    source : str
        The file.
    path : str
        Where it lies.
    kind : str
        "group", "dataset", "type", "soft link" or "unknown".
    reason : str
        Why it was not read.
    attributes : dict
        Its attributes, those that can be read.
    """

    source: str
    path: str
    kind: str
    reason: str
    attributes: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Notes:
    """What a reader has to say about one file, in the end, in one warning."""

    name: str
    opaque: list[OpaqueElement] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def tell(self, *, strict: bool) -> None:
        """Warn once about everything that was left unread; `strict` raises instead.

        Raises
        ------
        UnsupportedError
            If `strict` and something was left unread.
        """
        listed = [f"{o.path} ({o.kind}: {o.reason})" for o in self.opaque]
        if strict and listed:
            message = f"{self.name}: {'; '.join(listed)}"
            raise UnsupportedError(message)
        parts = []
        if listed:
            parts.append(f"not read, kept as references: {'; '.join(listed)}")
        parts += self.remarks
        if parts:
            # 1 = here, 2 = the reader, 3 = whoever called it
            warnings.warn(f"{self.name}: {'. '.join(parts)}", ScioWarning, stacklevel=3)
