"""What a CELLxGENE Census query asks for."""

from __future__ import annotations

import keyword
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["build_obs_value_filter"]


def build_obs_value_filter(filters: Mapping[str, Any] | None) -> str | None:
    """Turn a mapping of obs columns to wanted values into a SOMA value filter.

    Parameters
    ----------
    filters : mapping of str to str, bool, number or list of these
        A list asks for any of its values, the keys are joined by "and", in their order.

    Returns
    -------
    str or None
        None when nothing is asked for.

    Raises
    ------
    ValueError
        If a key is no identifier, a list is empty, or a number is not finite.
    TypeError
        If a value is none of these.

    Notes
    -----
    SOMA reads a filter with Python's own grammar, so text goes in as a Python literal: quotes,
    backslashes and line breaks in a value stay inside it.

    Examples
    --------
    >>> from scio.data import build_obs_value_filter
    >>> build_obs_value_filter({"tissue": ["lung", "liver"], "is_primary_data": True})
    "tissue in ['lung', 'liver'] and is_primary_data == True"
    """
    if not filters:
        return None
    return " and ".join(_clause(key, value) for key, value in filters.items())


def _clause(key: Any, value: Any) -> str:
    if not isinstance(key, str) or not key.isidentifier() or keyword.iskeyword(key):
        message = f"a filter names an obs column by an identifier, not {key!r}"
        raise ValueError(message)
    if not isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return f"{key} == {_literal(key, value)}"
    values = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
    if not values:
        message = f"the list of the filter {key!r} is empty, which no cell matches; leave it out"
        raise ValueError(message)
    return f"{key} in [{', '.join(_literal(key, item) for item in values)}]"


def _literal(key: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (str, bool, int, float)):
        message = (
            f"the filter {key!r} has a {type(value).__name__}; values are text, bool, numbers or a "
            "list of these"
        )
        raise TypeError(message)
    if isinstance(value, float) and not math.isfinite(value):
        message = f"the filter {key!r} asks for {value}, which equals nothing in a query"
        raise ValueError(message)
    return repr(str(value) if isinstance(value, str) else value)
