"""The one place where an optional library is imported."""

from __future__ import annotations

import importlib
from typing import Any

from scio.errors import MissingDependencyError

_PIP_NAMES = {
    "anndata": "scio[anndata]",
    "dask": "scio[dask]",
    "distributed": "scio[dask]",
    "fsspec": "scio[remote]",
    "matplotlib": "scio[plot]",
    "mudata": "scio[mudata]",
    "pandas": "scio[anndata]",
    "platformdirs": "scio[cache]",
    "pydantic": "scio[config]",
    "rich": "scio[cli]",
    "scipy": "scio[anndata]",
    "torch": "scio[torch]",
    "typer": "scio[cli]",
    "yaml": "scio[config]",
}


def require(module: str, purpose: str) -> Any:
    """Import `module`, or raise the pip line that installs it.

    Parameters
    ----------
    module : str
        Dotted name, e.g. ``"scipy.sparse"``.
    purpose : str
        What needs it, e.g. ``"CSR.to_scipy"``; the message begins with it.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        line = _PIP_NAMES.get(top, top)
        message = f"{purpose} needs {top}, which is not installed: pip install '{line}'"
        raise MissingDependencyError(message) from error
