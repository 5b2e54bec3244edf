"""Check the rules of csrc/ that a compiler does not know: who includes whom, who allocates, who threads.

- A folder includes itself and what ``MAY_INCLUDE`` allows; paths start at ``csrc/``.
- ``Python.h`` and NumPy are for ``py/`` and ``py_h5write/``, ``hdf5.h`` is for ``h5write/``.
- ``malloc`` and its relatives stand in ``base/mem.c``, ``pthread_create`` in ``base/pool.c``, nowhere else.
- Between ``Py_BEGIN_ALLOW_THREADS`` and ``Py_END_ALLOW_THREADS`` nothing is named ``Py...``.
- A file name occurs once, so that naming a file is enough to find it.

Prints one line ``file:line: what`` per violation; exit code 1 if there are any.

Usage: ``python tools/check_layers.py [folder]``, the folder being ``csrc`` unless given
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# The table of docs and csrc/README.md; each folder may also include itself.
MAY_INCLUDE = {
    "base": set(),
    "codec": {"base"},
    "sparse": {"base"},
    "kernels": {"base"},
    "h5read": {"base", "codec"},
    "h5write": {"base", "codec"},
    "preprocess": {"base", "sparse", "kernels"},
    "load": {"base", "codec", "sparse", "kernels", "h5read", "preprocess"},
}
MAY_INCLUDE["py"] = set(MAY_INCLUDE) - {"h5write"}
MAY_INCLUDE["py_h5write"] = {"base", "py", "h5write"}

BINDINGS = ("py", "py_h5write")
# header pattern -> the folders it is for
HEADER_OWNERS: dict[str, tuple[str, ...]] = {
    r"Python\.h|structmember\.h|numpy/.*": BINDINGS,
    r"hdf5.*\.h|H5.*\.h": ("h5write",),
}
# function pattern -> the file it is for; a callback counts as a call
FUNCTION_OWNERS = {
    "malloc|calloc|realloc|free|aligned_alloc|posix_memalign|strdup|strndup": "base/mem.c",
    "pthread_create": "base/pool.c",
}

_INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def without_noise(text: str) -> str:
    """Blank out comments and literals; the lines stay where they were."""
    return _NOISE.sub(lambda m: "\n" * m.group().count("\n") or " ", text)


def include_errors(folder: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Includes that the layer of a file does not allow."""
    for number, line in enumerate(lines, 1):
        found = _INCLUDE.match(line)
        if found is None:
            continue
        quote, header = found.groups()
        for pattern, owners in HEADER_OWNERS.items():
            if re.fullmatch(pattern, header) and folder not in owners:
                yield number, f"{header} may be included in {'/, '.join(owners)}/ only"
        if quote == "<":
            continue
        target, _, name = header.partition("/")
        if not name:
            yield number, f'"{header}" does not name its folder, as in "base/error.h"'
        elif target != folder and target not in MAY_INCLUDE[folder]:
            allowed = ", ".join(sorted(MAY_INCLUDE[folder])) or "nothing but itself"
            yield number, f'{folder}/ may not include "{header}"; it may include {allowed}'


def call_errors(place: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Calls (or callbacks) of functions that one file keeps for itself."""
    for names, owner in FUNCTION_OWNERS.items():
        if place == owner:
            continue
        used = re.compile(rf"(?<![\w.>])({names})\s*\(|[(,=]\s*({names})\s*[,);]")
        for number, line in enumerate(lines, 1):
            for found in used.finditer(line):
                yield number, f"{found.group(1) or found.group(2)} is for {owner} only"


def gil_errors(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Names of Python between the two ALLOW_THREADS lines, and halves of the pair."""
    begin = 0
    for number, line in enumerate(lines, 1):
        for name in re.findall(r"\bPy[A-Z_]\w*", line):
            if name == "Py_BEGIN_ALLOW_THREADS":
                if begin:
                    yield number, f"{name} again after line {begin}"
                begin = number
            elif name == "Py_END_ALLOW_THREADS":
                if not begin:
                    yield number, f"{name} without Py_BEGIN_ALLOW_THREADS"
                begin = 0
            elif begin:
                yield number, f"{name} is used without the GIL, which line {begin} released"
    if begin:
        yield begin, "Py_BEGIN_ALLOW_THREADS without Py_END_ALLOW_THREADS"


def check(csrc: Path) -> list[str]:
    """All violations below a folder, as ``file:line: what``, sorted by file."""
    errors: list[str] = []
    seen: dict[str, str] = {}
    for path in sorted(p for p in csrc.rglob("*") if p.suffix in {".c", ".h"}):
        place = path.relative_to(csrc).as_posix()
        folder = place.partition("/")[0]
        if folder not in MAY_INCLUDE:
            errors.append(f"{place}:1: {folder} is no folder of the table in tools/check_layers.py")
            continue
        if path.name in seen:
            errors.append(f"{place}:1: the name is taken by {seen[path.name]}")
        seen[path.name] = place
        text = path.read_text(encoding="utf-8")
        code = without_noise(text).split("\n")
        # Names of headers are literals, so includes are read from the text itself.
        found = [
            *include_errors(folder, text.split("\n")),
            *call_errors(place, code),
            *(gil_errors(code) if folder in BINDINGS else ()),
        ]
        errors += [f"{place}:{number}: {what}" for number, what in sorted(found)]
    return errors


def main() -> int:
    """Print the violations of one tree."""
    csrc = Path(sys.argv[1]) if len(sys.argv) > 1 else CSRC
    if not csrc.is_dir():
        print(f"{csrc} is no folder", file=sys.stderr)
        return 2
    errors = check(csrc)
    print("\n".join([*errors, f"layers: {len(errors)} violations"]))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
