"""``scio info``: what it says is what h5py finds, and no chunk of a matrix is read for it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import scio
from scio.cli.app import app
from scio.cli.info import describe, tables
from scio.data import CellDataLoader, CellDataset
from tests.cli.conftest import CHUNK, N_CELLS, N_GENES, Run, assert_refused, command, environment

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def rich_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One element of each kind."""
    rng = np.random.default_rng(0)
    n_cells, n_genes = 60, 30
    x = sp.random(n_cells, n_genes, 0.3, "csr", np.float32, rng)
    obs = pd.DataFrame(
        {
            "type": pd.Categorical(rng.choice(list("abc"), n_cells), ordered=True),
            "name": [f"n{i % 7}" for i in range(n_cells)],
            "depth": rng.random(n_cells),
            "count": pd.array([None, *range(n_cells - 1)], dtype="Int64"),
            "is_dead": pd.array([None, *[True] * (n_cells - 1)], dtype="boolean"),
            "is_good": rng.random(n_cells) < 0.5,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    adata = anndata.AnnData(X=x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))
    adata.raw = adata.copy()
    adata.layers["counts"] = sp.csc_matrix(x)
    adata.layers["dense"] = x.toarray().astype(np.float64)
    adata.obsm["X_pca"] = rng.random((n_cells, 5))
    adata.obsm["frame"] = pd.DataFrame({"p": np.arange(n_cells)}, index=obs.index)
    adata.obsp["distances"] = sp.csr_matrix(np.eye(n_cells))
    adata.varm["loadings"] = rng.random((n_genes, 2))
    adata.uns["colors"] = ["red"]
    path = tmp_path_factory.mktemp("rich") / "rich.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        values = file["layers/dense"][()]
        attributes = dict(file["layers/dense"].attrs)
        del file["layers/dense"]
        filters = {"compression": "lzf", "shuffle": True, "fletcher32": True}
        dense = file["layers"].create_dataset("dense", data=values, chunks=(16, 30), **filters)
        dense.attrs.update(attributes)
    return path


def description(path: Any) -> dict[str, Any]:
    with scio.open(path) as handle:
        facts = describe(handle)
    assert json.loads(json.dumps(facts)) == facts
    assert tables(facts)
    return facts


def element(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in facts["elements"] if e["name"] == name)


# --- the figures


def test_json_of_a_real_file_against_h5py(scio_run: Run) -> None:
    path = scio.datasets.pbmc3k()
    done = scio_run("info", path, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["shape"] == [2700, 32738]
    assert facts["nnz"] == 2_286_884
    assert facts["file"]["nbytes"] == path.stat().st_size
    assert facts["file"]["superblock"]["version"] == 0
    assert facts["file"]["encoding_type"] == "anndata"
    x = element(facts, "X")
    assert (x["kind"], x["dtype"], x["index_dtype"]) == ("csr", "float32", "int32")
    assert (x["encoding_type"], x["encoding_version"]) == ("csr_matrix", "0.1.0")
    with h5py.File(path) as file:
        for array in x["arrays"]:
            dataset = file[array["path"]]
            assert array["shape"] == list(dataset.shape)
            assert array["chunk"] == list(dataset.chunks)
            assert array["n_chunks"] == dataset.id.get_num_chunks()
            assert array["stored_nbytes"] == dataset.id.get_storage_size()
            assert array["decoded_nbytes"] == dataset.size * dataset.dtype.itemsize
            assert array["filters"] == [{"name": "deflate", "level": dataset.compression_opts}]
    data = x["arrays"][0]
    assert data["cells_per_chunk"] == round(8934 / (2_286_884 / 2700), 1)
    assert data["ratio"] == round(data["decoded_nbytes"] / data["stored_nbytes"], 2)
    assert facts["var"]["columns"] == [{"name": "gene_ids", "kind": "string"}]
    assert facts["loader"]["path"] == "inflate"


def test_every_kind_of_element(rich_file: Path) -> None:
    facts = description(rich_file)
    kinds = {e["name"]: e["kind"] for e in facts["elements"]}
    assert kinds == {
        "X": "csr",
        "layers/counts": "csc",
        "layers/dense": "dense",
        "obsm/X_pca": "dense",
        "obsm/frame": "dataframe",
        "obsp/distances": "csr",
        "varm/loadings": "dense",
        "raw/X": "csr",
    }
    dense = element(facts, "layers/dense")
    assert dense["dtype"] == "float64"
    assert dense["shape"] == [60, 30]
    assert dense["arrays"][0]["cells_per_chunk"] == 16
    assert [f["name"] for f in dense["arrays"][0]["filters"]] == ["shuffle", "lzf", "fletcher32"]
    assert element(facts, "X")["arrays"][0]["filters"] == []
    assert facts["uns"] == ["colors"]


def test_columns_with_their_kinds(rich_file: Path) -> None:
    columns = {c.pop("name"): c for c in description(rich_file)["obs"]["columns"]}
    assert columns == {
        "type": {"kind": "categorical", "n_categories": 3, "ordered": True},
        "name": {"kind": "categorical", "n_categories": 7, "ordered": False},
        "depth": {"kind": "float64"},
        "count": {"kind": "nullable-integer"},
        "is_dead": {"kind": "nullable-boolean"},
        "is_good": {"kind": "bool"},
    }


def test_the_least_memory_is_the_least(made: Path) -> None:
    loader = description(made)["loader"]
    least = loader["least_max_memory"]
    cells = CellDataset(made, None, obs_keys=[])

    def make(cap: int) -> CellDataLoader:
        return CellDataLoader(
            cells, 64, form="csr", to="numpy", drop_last=False, max_memory=cap, num_workers=4
        )

    assert sum(len(b["index"]) for b in make(least)) == N_CELLS
    with pytest.raises(ValueError, match="too small"):
        make(least // 2)
    assert loader["advised_max_memory"] >= loader["resident_nbytes"]["as_stored"] + least


def test_the_paths_of_the_loader(tmp_path: Path, rich_file: Path) -> None:
    dense = np.arange(600, dtype=np.float32).reshape(30, 20)
    names = {"index": [str(i) for i in range(30)]}

    def made(name: str, x: Any, **options: Any) -> dict[str, Any]:
        path = tmp_path / f"{name}.h5ad"
        adata = anndata.AnnData(x, obs=pd.DataFrame(index=names["index"]))
        adata.write_h5ad(path)
        if options:
            with h5py.File(path, "r+") as file:
                attributes = dict(file["X"].attrs)
                del file["X"]
                file.create_dataset("X", data=x, **options).attrs.update(attributes)
        return description(path)["loader"]

    assert made("contiguous", dense)["path"] == "plain, contiguous"
    assert made("chunked", dense, chunks=(7, 20))["path"] == "plain, chunked"
    assert made("inflate", dense, chunks=(7, 20), compression="gzip")["path"] == "inflate"
    shuffled = {"chunks": (7, 20), "compression": "gzip", "shuffle": True}
    assert made("pipeline", dense, **shuffled)["path"] == "pipeline"
    csc = made("csc", sp.csc_matrix(dense))
    assert csc["path"] == "converted"
    assert csc["least_max_memory"] is None
    integers = dense.astype(np.int32)
    packed = made("packed", integers, chunks=(7, 20), scaleoffset=0)
    assert packed["path"] == "cannot be decoded"
    assert "scaleoffset" in packed["why"]


def test_a_file_without_x(tmp_path: Path) -> None:
    path = tmp_path / "no_x.h5ad"
    anndata.AnnData(obs=pd.DataFrame(index=["a", "b"])).write_h5ad(path)
    facts = description(path)
    assert facts["shape"] == [2, 0]
    assert facts["nnz"] is None
    assert facts["loader"] is None


def test_every_shared_file_is_described(shared_data: Path) -> None:
    paths = sorted(
        p for d in ("h5ad_formats", "h5ad_filters") for p in (shared_data / d).glob("*.h5ad")
    )
    assert len(paths) > 20
    for path in paths:
        facts = description(path)
        with h5py.File(path) as file:
            found = {e["name"]: e for e in facts["elements"]}
            if isinstance(file.get("X"), h5py.Dataset) and file["X"].shape is not None:
                assert tuple(found["X"]["shape"]) == file["X"].shape, path
                assert found["X"]["stored_nbytes"] == file["X"].id.get_storage_size(), path
            elif isinstance(file.get("X"), h5py.Group):
                assert found["X"]["nnz"] == file["X/data"].shape[0], path


# --- what is read


class Counting(io.BytesIO):
    """A file object that remembers what was asked of it."""

    def __init__(self, image: bytes) -> None:
        super().__init__(image)
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        out = super().read(size)
        self.ranges.append((start, start + len(out)))
        return out


def test_no_chunk_of_a_matrix_is_read(tmp_path: Path) -> None:
    n_cells, n_genes = 4_000, 2_000
    rng = np.random.default_rng(0)
    x = sp.random(n_cells, n_genes, 0.25, "csr", np.float32, rng)
    path = tmp_path / "large.h5ad"
    anndata.AnnData(x, layers={"twice": x}).write_h5ad(path)
    units: list[tuple[int, int]] = []
    with h5py.File(
        path, "r+"
    ) as file:  # incompressible chunks of a MiB: larger than any read-ahead
        for group in ("X", "layers/twice"):
            for name in ("data", "indices"):
                values = file[f"{group}/{name}"][()]
                del file[f"{group}/{name}"]
                options = {"chunks": (1 << 18,), "compression": "gzip", "maxshape": (None,)}
                file[group].create_dataset(name, data=values, **options)
    with h5py.File(path) as file:
        for group in ("X", "layers/twice"):
            for name in ("data", "indices"):
                dataset = file[f"{group}/{name}"].id
                infos = (dataset.get_chunk_info(i) for i in range(dataset.get_num_chunks()))
                units += [(i.byte_offset, i.byte_offset + i.size) for i in infos]
    source = Counting(path.read_bytes())
    facts = description(source)
    assert facts["nnz"] == x.nnz
    assert facts["loader"]["least_max_memory"] > 0
    read = np.zeros(path.stat().st_size, dtype=bool)
    for start, stop in source.ranges:
        read[start:stop] = True
    assert len(units) == 4 * -(-x.nnz // (1 << 18))
    # A cache of blocks may read the edge of a chunk; whole it is read only for its data.
    assert [unit for unit in units if read[slice(*unit)].all()] == []
    assert sum(read[slice(*unit)].sum() for unit in units) < 0.2 * sum(b - a for a, b in units)

    source.ranges.clear()  # the test can fail: one row reads a chunk of each array whole
    with scio.open(source) as handle:
        handle.X[[0]]
    for start, stop in source.ranges:
        read[start:stop] = True
    assert sum(bool(read[slice(*unit)].all()) for unit in units) >= 2


def test_from_a_path_only_headers_and_indptr_are_decoded(made: Path) -> None:
    before = scio.stats()
    facts = description(made)
    after = scio.stats()
    n_indptr = element(facts, "X")["arrays"][2]["n_chunks"]
    names = 2  # obs and var: their columns of names are one chunk each at most
    assert after["chunks_decoded"] - before["chunks_decoded"] <= n_indptr + names
    assert element(facts, "X")["arrays"][0]["n_chunks"] > n_indptr + names


# --- the command


def test_without_a_file_it_describes_the_installation(scio_run: Run) -> None:
    done = scio_run("info", "--json")
    assert done.returncode == 0, done.stderr
    machine = json.loads(done.stdout)
    build = scio.build_info()
    assert machine["build"]["compiler"] == build["compiler"]
    assert machine["build"]["filters"] == build["filters"]
    assert machine["build"]["threads"] >= 1
    assert machine["versions"]["numpy"] == np.__version__
    text = scio_run("info").stdout
    for word in (build["compiler"], build["cpu_level"], "deflate", "typer", "threads"):
        assert word in text


def test_text_has_no_markup_when_it_goes_to_a_file(scio_run: Run) -> None:
    done = scio_run("info", scio.datasets.pbmc3k())
    assert done.returncode == 0, done.stderr
    assert ESCAPE not in done.stdout
    for word in (
        "2,700 x 32,738",
        "2,286,884",
        "deflate 4",
        "8,934",
        "gene_ids",
        "least max_memory",
    ):
        assert word in done.stdout


def on_a_terminal(path: Path, **env: str) -> str:
    """What ``scio info`` writes when stdout is a terminal."""
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            command("info", path),
            stdout=child,
            env=environment(TERM="xterm-256color", COLUMNS="100", **env),
        )
        os.close(child)
        pieces = []
        while True:
            try:
                piece = os.read(parent, 65_536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            pieces.append(piece)
        assert process.wait(60) == 0
        return b"".join(pieces).decode()
    finally:
        os.close(parent)


def test_a_terminal_gets_tables_and_no_color_none(made: Path) -> None:
    coloured = on_a_terminal(made)
    assert ESCAPE in coloured
    assert f"{N_CELLS:,} x {N_GENES}" in coloured
    bare = on_a_terminal(made, NO_COLOR="1")
    assert ESCAPE not in bare
    assert f"{CHUNK:,}" in bare


# --- files that are none


def test_there_is_no_file(scio_run: Run, tmp_path: Path) -> None:
    assert_refused(scio_run("info", tmp_path / "none.h5ad"), 1, "none.h5ad")


def test_a_directory(scio_run: Run, tmp_path: Path) -> None:
    assert_refused(scio_run("info", tmp_path), 1, str(tmp_path))


def test_no_hdf5(scio_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n" * 1000)
    assert_refused(scio_run("info", path), 1, "table.csv", "HDF5")


def test_hdf5_but_no_anndata(scio_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3)
    assert_refused(scio_run("info", path), 1, "other.h5", "no AnnData")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, made: Path, share: float) -> None:
    image = made.read_bytes()
    path = tmp_path / "cut.h5ad"
    path.write_bytes(image[: int(len(image) * share)])
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert "cut.h5ad" in result.output
    assert "Traceback" not in result.output


def test_damaged_files_end_with_a_message(tmp_path: Path, rich_file: Path) -> None:
    """Flipped bits in the metadata: described or refused, never an exception of ours."""
    image = rich_file.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.h5ad"
    codes = []
    for _ in range(150):
        data = bytearray(image)
        for place in rng.integers(0, min(len(data), 60_000), 3):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        result = CliRunner().invoke(app, ["info", str(path)])
        assert result.exit_code in (0, 1)
        assert isinstance(result.exception, SystemExit | None), repr(result.exception)
        codes.append(result.exit_code)
    assert 0 in codes
    assert 1 in codes


def test_a_group_of_another_kind_is_refused(tmp_path: Path, made: Path) -> None:
    """What flipped bits make of a group: the TypeError of the core came out as a traceback."""
    path = tmp_path / "kind.h5ad"
    path.write_bytes(made.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["var"]
        file["var"] = np.dtype("int32")  # a committed datatype
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "/var" in result.output


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    def broken(_handle: Any) -> dict[str, Any]:
        raise TypeError("unsupported operand")

    monkeypatch.setattr("scio.cli.info.describe", broken)
    result = CliRunner().invoke(app, ["info", str(made)])
    assert isinstance(result.exception, TypeError)
