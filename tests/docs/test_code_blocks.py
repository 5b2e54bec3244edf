"""Every Python block of README and docs runs, in order, page by page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[int, str]]:
    """Line number and text of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start(1)].count("\n") + 1, m.group(1)) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p)], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_code_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, text in blocks(page):
        padded = "\n" * (line - 1) + text
        exec(compile(padded, str(page), "exec"), names)


def test_there_are_blocks_to_run() -> None:
    assert sum(len(blocks(page)) for page in PAGES) >= 6


def test_docs_name_files_that_exist() -> None:
    missing = []
    for page in PAGES:
        for name in re.findall(
            r"`((?:csrc|scio|tests|benchmarks|tools|examples)/[\w/.-]+)`", page.read_text()
        ):
            if not (ROOT / name).exists() and not list(ROOT.glob(name + ".*")):
                missing.append(f"{page.name}: {name}")
    assert missing == []
