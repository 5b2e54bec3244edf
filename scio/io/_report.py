"""Findings about files, as values: what `scio.verify`, `scio.diff` and `scio.repair` return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("error", "warning", "note")
_N_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    path : str
        The element or HDF5 object.
    rule : str
        Which rule it is about, one word.
    level : {"error", "warning", "note"}
    found, expected : str
    """

    path: str
    rule: str
    level: str
    found: str
    expected: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the fields as a dict that JSON knows."""
        return {
            "path": self.path,
            "rule": self.rule,
            "level": self.level,
            "found": self.found,
            "expected": self.expected,
        }

    def __str__(self) -> str:
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{self.level}: {self.path}: {self.rule}: {self.found}{expected}"


@dataclass(slots=True)
class Report:
    """What was found in a file.

    Attributes
    ----------
    file : str
        Its name.
    findings : list of Finding
        In the order of the elements.
    is_readable : bool
        False: it could not be opened as what it claims to be.
    """

    file: str
    findings: list[Finding] = field(default_factory=list)
    is_readable: bool = True

    def add(
        self, path: str, rule: str, found: str, expected: str = "", *, level: str = "error"
    ) -> None:
        """Append a finding."""
        self.findings.append(Finding(path, rule, level, found, expected))

    def of(self, level: str) -> list[Finding]:
        """Return the findings of one level."""
        return [f for f in self.findings if f.level == level]

    @property
    def is_sound(self) -> bool:
        """Whether nothing of level "error" was found."""
        return self.is_readable and not self.of("error")

    @property
    def exit_code(self) -> int:
        """0 sound, 1 unsound, 2 unreadable: what the command line returns."""
        if not self.is_readable:
            return 2
        return 0 if self.is_sound else 1

    @property
    def verdict(self) -> str:
        """Return "sound", "unsound" or "unreadable"."""
        return ("sound", "unsound", "unreadable")[self.exit_code]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dict that JSON knows."""
        return {
            "file": self.file,
            "verdict": self.verdict,
            "is_sound": self.is_sound,
            "findings": [f.to_dict() for f in self.findings],
        }

    def _lines(self) -> Iterator[str]:
        counts = [(len(self.of(level)), level) for level in LEVELS]
        told = ", ".join(f"{n} {level}{'s' if n > 1 else ''}" for n, level in counts if n)
        yield f"{self.file}: {self.verdict}" + (f" ({told})" if told else "")
        for finding in self.findings:
            yield f"  {finding}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        lines = list(self._lines())
        more = len(lines) - 1 - _N_SHOWN
        return "\n".join(lines[: _N_SHOWN + 1] + ([f"  … {more} more"] if more > 0 else []))
