"""Near names for messages about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_N_SHOWN = 5


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names look like `name`.

    Parameters
    ----------
    name : str
        The name that was asked for.
    known : iterable of str
        The names that exist.

    Returns
    -------
    str
        ``"did you mean 'cell_type'? (12 in all)"``, or the first few names when none is near.
    """
    names = list(known)
    if not names:
        return "there are none"
    lowered = {n.lower(): n for n in reversed(names)}
    close = [lowered[n] for n in difflib.get_close_matches(name.lower(), lowered, n=_N_SHOWN)]
    if close:
        listed = " or ".join(repr(n) for n in close)
        return f"did you mean {listed}? ({len(names)} in all)"
    listed = ", ".join(repr(n) for n in names[:_N_SHOWN])
    more = f", … ({len(names)} in all)" if len(names) > _N_SHOWN else ""
    return f"there are {listed}{more}"
