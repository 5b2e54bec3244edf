"""Tables: rich on a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NOTHING = "-"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    title : str
        Line above it.
    columns : tuple of str
        Heads; empty texts: no line of heads.
    rows : list of tuple of str
    notes : list of str
        Lines below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def is_right(self, i_column: int) -> bool:
        """Whether a column with a head holds numbers, which stand on the right."""
        if not any(self.columns):
            return False
        cells = [row[i_column] for row in self.rows if row[i_column] not in ("", NOTHING)]
        return bool(cells) and all(cell.lstrip("<~-")[:1].isdigit() for cell in cells)


def facts_table(title: str, facts: Iterable[tuple[str, str]]) -> Table:
    """Make a table of names and values, without heads."""
    return Table(title, ("", ""), [(name, value) for name, value in facts])


def show(tables: Sequence[Table]) -> None:
    """Print tables to stdout; with NO_COLOR in the environment, or to a file, without any markup."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        _show_rich(tables)
        return
    print("\n\n".join(plain(table) for table in tables))


def plain(table: Table) -> str:
    """Return a table as aligned lines without any markup."""
    lines = [table.title]
    heads = [table.columns] if any(table.columns) else []
    every = [*heads, *table.rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(table.columns))] if every else []
    for row in every:
        cells = [
            cell.rjust(width) if table.is_right(i) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    lines.extend(f"  {note}" for note in table.notes)
    return "\n".join(lines)


def _show_rich(tables: Sequence[Table]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console()
    for table in tables:
        shown = RichTable(
            title=Text(table.title, style="bold"),
            title_justify="left",
            show_header=any(table.columns),
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for i, head in enumerate(table.columns):
            shown.add_column(
                head, justify="right" if table.is_right(i) else "left", overflow="fold"
            )
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))
        console.print(shown)
        for note in table.notes:
            console.print(Text(note, style="dim"))
        console.print()


def nbytes_text(nbytes: float | None) -> str:
    """Return a size as people read it: ``"12.3 MiB"``."""
    if nbytes is None:
        return NOTHING
    value = float(nbytes)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def seconds_text(seconds: float | None) -> str:
    """Return a time: ``"12.3 ms"``, ``"4.56 s"``."""
    if seconds is None:
        return NOTHING
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def count_text(value: float | None) -> str:
    """Return a count or a rate with thousands set apart."""
    return NOTHING if value is None else f"{value:,.0f}"
