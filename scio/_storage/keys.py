"""One reversible escape for keys that cannot be the name of one member of an HDF5 group.

HDF5 takes ``/`` for a step into a group, and ``.`` for the group itself.  A key that holds them is
written with ``%2F`` and ``%2E``; a ``%`` stays as it is unless it would be taken for an escape, so
ordinary names such as ``pct%mito`` do not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MARK = "scio"  # attribute of the root: JSON of the writer
_SCHEME = "escaped_keys"

_AMBIGUOUS = re.compile(r"%(?=2F|2E|25)")
_ESCAPED = re.compile(r"%(2F|2E|25)")
_MEANING = {"2F": "/", "2E": ".", "25": "%"}


def escape_key(key: str) -> str:
    """Return the name of the member that holds `key`.

    Parameters
    ----------
    key : str
        Any text but the empty one.

    Returns
    -------
    str
        Without ``/``, and neither ``.`` nor ``..``; `key` itself wherever possible.

    Raises
    ------
    ValueError
        If the key is empty, which no escape can help.
    """
    if not key:
        message = "a key is empty text, which cannot name an element of a file"
        raise ValueError(message)
    escaped = _AMBIGUOUS.sub("%25", key).replace("/", "%2F")
    return escaped.replace(".", "%2E") if escaped in {".", ".."} else escaped


def unescape_key(name: str) -> str:
    """Return the key that `escape_key` turned into `name`."""
    return _ESCAPED.sub(lambda match: _MEANING[match.group(1)], name)


def marked(facts: dict[str, Any]) -> dict[str, Any]:
    """Add to what a writer says of itself that its keys are escaped."""
    return {**facts, _SCHEME: "%2F"}


def key_of_names(file: Any) -> Callable[[str], str]:
    """Return the function that gives the keys of a file's names: only our writers escape them.

    Parameters
    ----------
    file : HDF5File
    """
    mark = file.attr("/", MARK)
    is_escaped = isinstance(mark, str) and f'"{_SCHEME}"' in mark
    return unescape_key if is_escaped else str
