"""Which reader understands which encoding, and the report of what was written.

The table is measured: `docs/reference/formats.md` has it with its sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

RELEASES = ("0.8", "0.9", "0.11", "0.12")  # of anndata; those that brought an encoding
COMPATS = ("0.8", "0.11", "0.12")
_SINCE = {"awkward-array": "0.9", "nullable-string-array": "0.11", "null": "0.12"}


def since(encoding: str) -> str:
    """Return the first release of anndata that reads an encoding; "0.8" for all older ones."""
    return _SINCE.get(encoding, "0.8")


@dataclass(frozen=True, slots=True)
class Profile:
    """The ceiling of encodings.

    Attributes
    ----------
    compat : str or None
        A release of anndata that shall read the file; None: each element gets the oldest encoding
        that loses nothing, whatever release that takes.
    """

    compat: str | None = None

    def __post_init__(self) -> None:
        if self.compat is not None and self.compat not in COMPATS:
            message = (
                f"compat is None or one of {', '.join(map(repr, COMPATS))}, not {self.compat!r}"
            )
            raise ValueError(message)

    def allows(self, encoding: str) -> bool:
        """Say whether the readers meant understand an encoding."""
        if self.compat is None:
            return True
        return RELEASES.index(since(encoding)) <= RELEASES.index(self.compat)


@dataclass(frozen=True, slots=True)
class Written:
    """One element of a file that was written.

    Attributes
    ----------
    element : str
        Its path in the file.
    encoding : str
        Its ``encoding-type``; ``""`` when it was left out.
    since : str
        First release of anndata that reads it.
    loss : str
        What the file lacks of the caller's object; ``""`` when nothing.
    note : str
        What is written in another form than the caller's object has, losing nothing.
    """

    element: str
    encoding: str
    since: str
    loss: str = ""
    note: str = ""


@dataclass(slots=True)
class WriteReport:
    """What `scio.write_h5ad` wrote.

    Attributes
    ----------
    path : str
        The file.
    compat : str or None
        The profile that was asked for.
    nbytes : int
        Size of the file.
    elements : list of Written
        One row per element, in the order of writing.
    """

    path: str
    compat: str | None = None
    nbytes: int = 0
    elements: list[Written] = field(default_factory=list)

    def add(self, element: str, encoding: str, *, loss: str = "", note: str = "") -> None:
        """Append the row of one element."""
        self.elements.append(Written(element, encoding, since(encoding), loss, note))

    @property
    def losses(self) -> list[Written]:
        """The elements that lost something."""
        return [row for row in self.elements if row.loss]

    @property
    def oldest_reader(self) -> str:
        """The oldest release of anndata, from 0.8 on, that reads the whole file."""
        return max((row.since for row in self.elements), key=RELEASES.index, default="0.8")

    def _lines(self) -> Iterator[str]:
        yield f"{self.path}: {self.nbytes:,} bytes, read by anndata {self.oldest_reader} and later"
        for row in self.elements:
            if row.loss:
                yield f"  lost: {row.element}: {row.loss}"
            if row.note:
                yield f"  note: {row.element}: {row.note}"
            if row.since != "0.8" and row.encoding:
                yield f"  {row.element}: {row.encoding}, since anndata {row.since}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        return f"<{next(self._lines())}; {len(self.losses)} losses>"
