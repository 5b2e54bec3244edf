"""Passes over many files on the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from scio._optional import require

Each = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]


@contextlib.contextmanager
def cluster(dask: Any) -> Iterator[Each]:
    """Give a function that calls another one with each of many arguments, on a cluster.

    Parameters
    ----------
    dask : str or distributed.Client
        Address of a scheduler (``"tcp://host:8786"``), to which a client is made and closed again,
        or a client.

    Yields
    ------
    function
        Takes a function and the arguments of each call; returns the results in the order of the
        calls, whatever the order in which workers end.

    Raises
    ------
    MissingDependencyError
        If Dask is not installed.
    TypeError
        If `dask` is something else.
    OSError
        If no scheduler answers.
    """
    distributed = require("distributed", "dask=")
    if not isinstance(dask, (str, distributed.Client)):
        message = f"dask is a {type(dask).__name__}, expected an address or a distributed.Client"
        raise TypeError(message)
    is_ours = isinstance(dask, str)
    client: Any = distributed.Client(dask, set_as_default=False) if is_ours else dask

    def each(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        # pure=False: a file may have changed since a result was kept
        futures = [client.submit(function, *call, pure=False) for call in calls]
        try:
            results: list[Any] = client.gather(futures)
        finally:
            client.cancel(futures)  # those that still run after a failure or Ctrl-C
        return results

    try:
        yield each
    finally:
        if is_ours:
            client.close()
