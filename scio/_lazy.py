"""Packages whose public names are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(
    package: str, objects: Mapping[str, str], modules: frozenset[str] = frozenset()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    objects : mapping
        Public name to the module that has it.
    modules : frozenset of str
        Submodules that are public names themselves.
    """

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name in objects:
            value = getattr(importlib.import_module(objects[name]), name)
            setattr(sys.modules[package], name, value)  # the next look-up does not come here
            return value
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *objects, *modules})

    return get, names
