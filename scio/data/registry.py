"""Names for data sources, so that a config says "atlas" and not where it lies."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scio._names import near_names
from scio.data.dataset import CellDataset
from scio.errors import KeyNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from scio.data.gene_vocab import GeneVocab

__all__ = ["DataRegistry"]

PathLike = str | os.PathLike[str]


class DataRegistry:
    """Names of data sets and the files behind them.

    Parameters
    ----------
    sources : mapping of str to (path, URL, glob or list of these), optional
        As `register` takes them.
    root : path, optional
        Relative paths and globs begin here; None: the working directory.

    Examples
    --------
    >>> import scio
    >>> from scio.data import DataRegistry
    >>> registry = DataRegistry({"pbmc": scio.datasets.pbmc3k()})
    >>> registry.names(), registry.resolve("pbmc")[0].name
    (['pbmc'], 'pbmc3k.h5ad')
    """

    def __init__(
        self,
        sources: Mapping[str, PathLike | Sequence[PathLike]] | None = None,
        *,
        root: PathLike | None = None,
    ) -> None:
        self.root = None if root is None else Path(root).expanduser()
        self._sources: dict[str, list[str]] = {}
        for name, source in (sources or {}).items():
            self.register(name, source)

    def register(self, name: str, source: PathLike | Sequence[PathLike]) -> None:
        """Give a name to a path, a URL, a glob, or a list of these.

        Nothing is looked up before `resolve`.

        Raises
        ------
        ValueError
            If the name is taken by something else, looks like a path, or the list is empty.
        TypeError
            If a source is no path.
        """
        if not isinstance(name, str) or not name or looks_like_path(name):
            message = f"a name is a word without '/', '.' and wildcards, not {name!r}"
            raise ValueError(message)
        things: list[Any] = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        if not things:
            message = f"{name!r} needs at least one path"
            raise ValueError(message)
        for thing in things:
            if not isinstance(thing, (str, os.PathLike)):
                message = f"{name!r} has a {type(thing).__name__}, expected a path, URL or glob"
                raise TypeError(message)
        entries = [os.fspath(thing) for thing in things]
        if self._sources.get(name, entries) != entries:
            message = f"{name!r} is registered already, for {', '.join(self._sources[name])}"
            raise ValueError(message)
        self._sources[name] = entries

    def names(self) -> list[str]:
        """Registered names, in the order in which they came."""
        return list(self._sources)

    def resolve(self, name_or_path: PathLike) -> list[Path | str]:
        """Return the files behind a name, a path or a glob.

        Returns
        -------
        list of Path or str
            Paths, globs expanded in sorted order; URLs stay text.

        Raises
        ------
        KeyError
            If it is neither registered nor a path; near names are offered.
        FileNotFoundError
            If a glob matches no file, or there is no such file.
        """
        text = os.fspath(name_or_path)
        if isinstance(name_or_path, str) and text in self._sources:
            return [path for entry in self._sources[text] for path in self._expand(entry)]
        is_word = isinstance(name_or_path, str) and not looks_like_path(text)
        if is_word and not self._absolute(text).exists():
            message = f"no data source is called {text!r}; {near_names(text, self._sources)}"
            raise KeyNotFoundError(message)
        return self._expand(text)

    def open(self, name: PathLike, gene_vocab: GeneVocab | None, **kwargs: Any) -> CellDataset:
        """Open the files behind a name, a path or a glob as one `CellDataset`.

        Parameters
        ----------
        name : str or path
            As `resolve` takes it.
        gene_vocab : GeneVocab or None
            None: the genes of the files.
        **kwargs
            Of `CellDataset`.
        """
        return CellDataset(local_files(self.resolve(name)), gene_vocab, **kwargs)

    def _absolute(self, text: str) -> Path:
        path = Path(text).expanduser()
        return path if self.root is None else self.root / path

    def _expand(self, entry: str) -> list[Path | str]:
        if is_url(entry):
            return [entry]
        path = self._absolute(entry)
        if path.exists():
            return [path]
        if not glob.has_magic(entry):
            message = f"there is no file {path}"
            raise FileNotFoundError(message)
        # The root is a place, not a pattern, even when its name has brackets.
        pattern = os.path.expanduser(entry)
        found = sorted(
            self._absolute(m) for m in glob.glob(pattern, root_dir=self.root, recursive=True)
        )
        files: list[Path | str] = [match for match in found if not match.is_dir()]
        if not files:
            message = f"no file matches {entry!r} in {(self.root or Path()).absolute()}"
            raise FileNotFoundError(message)
        return files

    def __repr__(self) -> str:
        return f"DataRegistry({self._sources!r}, root={self.root!r})"


def is_url(text: str) -> bool:
    """Whether a text is a URL and no path."""
    return "://" in text


def looks_like_path(text: str) -> bool:
    """Whether a text is a path, URL or glob rather than a registered name."""
    return (
        is_url(text)
        or glob.has_magic(text)
        or text.startswith("~")
        or os.sep in text
        or "." in text
    )


def local_files(paths: Sequence[Path | str]) -> list[Path]:
    """Return the paths, all of which must be local.

    Raises
    ------
    UnsupportedError
        If one is a URL.
    """
    for path in paths:
        if isinstance(path, str) and is_url(path):
            message = f"{path}: this version of scio opens local files only; download it first"
            raise UnsupportedError(message)
    return [Path(path) for path in paths]
