"""``scio ls FILE``: the tree, from headers; what is opaque is marked."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from scio.cli.ls import tree
from scio.io import HDF5File
from tests.cli.conftest import Run, assert_refused
from tests.io.broken import RULES, write_sound


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_sound(tmp_path_factory.mktemp("ls") / "f.h5ad", compression="gzip")
    with h5py.File(path, "r+") as handle:
        RULES["unknown encoding in uns"][0](handle)
        RULES["soft link"][0](handle)
        RULES["external link"][0](handle)
        RULES["cycle"][0](handle)
        RULES["virtual dataset"][0](handle)
    return path


def test_the_tree(file: Path) -> None:
    rows = {row["path"]: row for row in tree(HDF5File(file), "/")}
    x = rows["/X"]
    assert (x["kind"], x["shape"], x["dtype"], x["encoding"]) == (
        "csr_matrix", [60, 25], "float32", "csr_matrix 0.1.0",
    )  # fmt: skip
    assert "/X/data" not in rows
    assert rows["/obs/kind"]["kind"] == "categorical"
    assert rows["/layers/dense"]["filters"] == [{"name": "deflate", "level": 4}]
    with h5py.File(file) as handle:
        parts = [handle[f"X/{n}"] for n in ("data", "indices", "indptr")]
        assert x["raw_nbytes"] == sum(p.size * p.dtype.itemsize for p in parts)
        assert x["stored_nbytes"] == sum(p.id.get_storage_size() for p in parts)
    assert rows["/"]["stored_nbytes"] >= x["stored_nbytes"]


def test_what_is_opaque_is_marked(file: Path) -> None:
    opaque = {row["path"]: row["opaque"] for row in tree(HDF5File(file), "/") if row["opaque"]}
    assert set(opaque) == {
        "/uns/seed",
        "/uns/soft",
        "/uns/other",
        "/uns/deep/again",
        "/uns/virtual",
    }
    assert "ragged" in opaque["/uns/seed"]
    assert "other.h5" in opaque["/uns/other"]
    assert "virtual" in opaque["/uns/virtual"]


def test_the_command(scio_run: Run, file: Path) -> None:
    done = scio_run("ls", file)
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:2] == ["X", "csr_matrix"] for line in done.stdout.splitlines())
    long = scio_run("ls", "-l", file, "/X")
    assert "deflate 4" in long.stdout
    assert "indptr" in long.stdout
    assert "obs" not in long.stdout
    rows = json.loads(scio_run("ls", file, "obs", "--json").stdout)["elements"]
    assert {"/obs", "/obs/kind", "/obs/kind/codes"} <= {row["path"] for row in rows}
    assert_refused(scio_run("ls", file, "/obss"), 2, "obs")
    assert_refused(scio_run("ls", file.with_name("absent")), 2, "absent")


def test_values_are_not_read(file: Path) -> None:
    """Chunks that cannot be decoded do not matter."""
    content = bytearray(file.read_bytes())
    with h5py.File(file) as handle:
        info = handle["layers/dense"].id.get_chunk_info(0)
    content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    broken = list(tree(HDF5File(bytes(content)), "/"))
    assert [r["stored_nbytes"] for r in broken] == [
        r["stored_nbytes"] for r in tree(HDF5File(file), "/")
    ]
