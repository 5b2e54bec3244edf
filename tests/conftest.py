"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _find_shared_data() -> Path | None:
    """The folder that SCIO_SHARED_DATA names, else one beside the repository."""
    named = os.environ.get("SCIO_SHARED_DATA")
    if named:
        return Path(named) if Path(named).is_dir() else None
    places = (ROOT.parent / "shared" / "data", ROOT.parent.parent / "shared" / "data")
    return next((place for place in places if place.is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared real files, which are too large for the repository.

    Without it the test is skipped; with SCIO_REQUIRE_SHARED_DATA=1 it fails.
    """
    found = _find_shared_data()
    if found is not None:
        return found
    reason = (
        f"no shared data: SCIO_SHARED_DATA is {os.environ.get('SCIO_SHARED_DATA')!r} "
        "and there is no ../shared/data or ../../shared/data beside the repository"
    )
    if os.environ.get("SCIO_REQUIRE_SHARED_DATA", "") not in {"", "0"}:
        pytest.fail(f"{reason}, but SCIO_REQUIRE_SHARED_DATA is set")
    pytest.skip(reason)
