"""What scio writes: anndata and h5py read it equal, failures are errors and leave the old file alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scio
from scio.errors import IOWriteError, ScioWarning, TargetExistsError
from scio.io import Categorical, fast
from scio.io.writer import NullableStrings, Table, new_file, write_element, write_tables
from scio.matrix import CSR
from tests.io.compare import Comparison
from tests.mounts import on_tmpfs

EMPTY = Table(np.array([], dtype=object), {})


def names(n: int, prefix: str = "n") -> np.ndarray:
    return np.array([f"{prefix}{i}" for i in range(n)], dtype=object)


def run(code: str, *args: object, command: tuple[str, ...] = (), check: bool = True, **options):
    """Run `code` in a child; the return code is looked at, since a crash at exit is one, too."""
    done = subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, timeout=100, check=False, **options,
    )  # fmt: skip
    assert done.returncode >= 0, (done.returncode, done.stderr)
    assert not check or done.returncode == 0, done.stderr
    return done


def odd_obs() -> pd.DataFrame:
    """Columns of every encoding that a frame has, with what goes wrong in them."""
    return pd.DataFrame(
        {
            "text": ["a", "", "größe", "日本", "x" * 300],
            "labels": pd.Categorical(["b", None, "a", "b", "b"], categories=["b", "a", "unused"]),
            "ordered": pd.Categorical([1, 2, 2, 1, 3], ordered=True),
            "bools": pd.Categorical([True, False, True, True, False]),
            "all missing": pd.Categorical([None] * 5, categories=["x"]),
            "int8": np.arange(5, dtype=np.int8),
            "uint64": np.array([0, 1, 2, 3, 2**64 - 1], dtype=np.uint64),
            "float16": np.array([0, 1.5, np.nan, np.inf, -1], dtype=np.float16),
            "double": [0.1, np.nan, -np.inf, 5e-324, 1e308],
            "truth": [True, False, True, True, False],
            "maybe int": pd.array([1, None, 3, 4, 2**62], dtype="Int64"),
            "maybe small": pd.array([1, None, 3, 4, 5], dtype="UInt8"),
            "maybe bool": pd.array([True, None, False, True, None], dtype="boolean"),
        },
        index=pd.Index([f"cell {i}" for i in range(5)], name="barcode"),
    )


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A file with odd frames, an empty frame of columns in var, and an index with a name."""
    path = tmp_path / "odd.h5ad"
    X = sp.csr_matrix(np.array([[0, 1, 2], [0, 0, 0], [3, 0, 70000], [0, 0, 1], [5, 5, 5]], "f4"))
    anndata.AnnData(X=X, obs=odd_obs(), var=pd.DataFrame(index=["g1", "g2", "g3"])).write_h5ad(path)
    return path


def assert_same(mine: Path, theirs: Path) -> None:
    """Equal as anndata reads them: values of X, frames with their dtypes, names of the indices."""
    a, b = anndata.read_h5ad(mine), anndata.read_h5ad(theirs)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    assert a.obs.index.name == b.obs.index.name
    assert a.var.index.name == b.var.index.name
    mine_X, theirs_X = (x.toarray() if sp.issparse(x) else x for x in (a.X, b.X))
    np.testing.assert_array_equal(mine_X, theirs_X)


def copy(src: Path, dst: Path) -> None:
    with scio.open(src) as file:
        obs, var = Table.read(file.obs), Table.read(file.var)
        assert obs.unread == var.unread == {}
        write_tables(dst, obs=obs, var=var, X=file.X.read())


# --- elements


def test_odd_columns_come_back_equal(odd, tmp_path):
    copy(odd, tmp_path / "mine.h5ad")
    assert_same(tmp_path / "mine.h5ad", odd)


def test_pbmc3k_comes_back_equal(tmp_path):
    copy(scio.datasets.pbmc3k(), tmp_path / "mine.h5ad")
    assert_same(tmp_path / "mine.h5ad", scio.datasets.pbmc3k())
    assert Comparison(tmp_path / "mine.h5ad").run().differences == []


def test_nullable_strings_stay_nullable(tmp_path):
    path = tmp_path / "strings.h5ad"
    obs = pd.DataFrame(
        {"s": pd.array(["a", None, ""], dtype="string"), "t": pd.array(["b"] * 3, dtype="string")},
        index=["x", "y", "z"],
    )
    with anndata.settings.override(allow_write_nullable_strings=True):
        anndata.AnnData(obs=obs).write_h5ad(path, convert_strings_to_categoricals=False)
    with scio.open(path) as file:
        read, var = Table.read(file.obs), Table.read(file.var)
        assert isinstance(read.columns["t"], NullableStrings)
        write_tables(tmp_path / "mine.h5ad", obs=read, var=var)
    mine, theirs = anndata.read_h5ad(tmp_path / "mine.h5ad"), anndata.read_h5ad(path)
    pd.testing.assert_frame_equal(mine.obs, theirs.obs)


@pytest.mark.parametrize("n_columns", [0, 1, 4000, 4500])
def test_frames_of_any_width(tmp_path, n_columns):
    columns = {f"a column with a name of some length {i}": np.arange(2) for i in range(n_columns)}
    path = tmp_path / "wide.h5ad"
    write_tables(path, obs=Table(names(2), columns), var=EMPTY)
    read = anndata.read_h5ad(path)
    assert list(read.obs.columns) == list(columns)
    with scio.open(path) as file:
        assert file.obs.columns == list(columns)
        assert n_columns == 0 or file.obs[file.obs.columns[-1]].tolist() == [0, 1]


def test_every_kind_of_member(tmp_path):
    path = tmp_path / "all.h5ad"
    dense = np.arange(6, dtype=">f8").reshape(3, 2)
    uns = {
        "text": "größe", "number": 3, "real": 0.5, "truth": True, "none": None, "empty": {},
        "words": np.array(["a", "b"]), "cube": np.arange(8, dtype=np.uint16).reshape(2, 2, 2),
        "scalar": np.float32(2.5), "nothing": np.zeros((0, 4), np.int8),
    }  # fmt: skip
    csr = CSR.from_dense(np.array([[1, 0], [0, 0], [2, 3]], np.uint16))
    write_tables(
        path, obs=Table(names(3), {}), var=Table(names(2), {}), X=csr,
        layers={"dense": dense}, obsm={"pca": dense[:, ::-1]}, uns=uns,
    )  # fmt: skip
    read = anndata.read_h5ad(path)
    assert read.X.dtype == np.uint16
    np.testing.assert_array_equal(read.X.toarray(), csr.toarray())
    np.testing.assert_array_equal(read.layers["dense"], dense)
    np.testing.assert_array_equal(read.obsm["pca"], dense[:, ::-1])
    assert set(read.uns) == set(uns)
    assert read.uns["none"] is None
    assert read.uns["text"] == "größe"
    assert read.uns["truth"] == np.True_
    assert read.uns["words"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(read.uns["cube"], uns["cube"])
    assert read.uns["nothing"].shape == (0, 4)
    with h5py.File(path) as file:
        assert file["uns/truth"].dtype == np.bool_
        assert file.id.get_create_plist().get_version()[0] == 0  # the superblock of 1.8 and before


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (np.array(["a", 3, "b"], object), "int in row 1"),
        (np.array(["2020-01-01"], "datetime64[D]"), r"datetime64\[D\]"),
        (object(), "object"),
        (np.ma.MaskedArray([1.5], mask=[True]), "masked array of float64"),
    ],
)
def test_what_has_no_encoding_is_named(tmp_path, column, text):
    with (
        pytest.raises(TypeError, match=f"/obs/bad.*{text}"),
        new_file(tmp_path / "x.h5") as writer,
    ):
        write_element(writer, "/obs/bad", column)


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_strings_that_the_file_cannot_hold_are_refused(tmp_path, bad):
    with (
        pytest.raises(ValueError, match="item 1") as caught,
        new_file(tmp_path / "x.h5") as writer,
    ):
        write_element(writer, "/obs/bad", np.array(["fine", bad], object))
    assert "/obs/bad" in caught.value.__notes__[0]


def test_codes_are_as_narrow_as_pandas_makes_them(tmp_path):
    with new_file(tmp_path / "x.h5") as writer:
        for n in (1, 127, 128, 32767, 32768):
            codes = np.array([-1, n - 1], dtype=np.int64)
            write_element(writer, f"/c{n}", Categorical(codes, names(n)))
    with h5py.File(tmp_path / "x.h5") as file:
        for n, dtype in ((1, "i1"), (127, "i1"), (128, "i2"), (32767, "i2"), (32768, "i4")):
            assert file[f"c{n}/codes"].dtype == dtype
            assert file[f"c{n}/codes"][:].tolist() == [-1, n - 1]


def test_legacy_files_are_written_in_the_modern_form(shared_data, tmp_path):
    """Compound frames, reference categories, hdf5r, BPCells: what anndata reads, it reads again."""
    n_same = 0
    for path in sorted((shared_data / "h5ad_formats").glob("*.h5ad")):
        target = tmp_path / path.name
        with scio.open(path) as file:
            obs, var = Table.read(file.obs), Table.read(file.var)
            write_tables(target, obs=obs, var=var, X=file.X.read() if file.has_x else None)
            assert obs.unread == var.unread == {}
        mine = anndata.read_h5ad(target)
        assert mine.obs_names.is_unique or "nullable" in path.name
        with scio.open(target) as file:
            assert file.obs.columns == list(obs.columns)
            assert file.obs.index.tolist() == list(getattr(obs.index, "values", obs.index))
            for name, column in obs.columns.items():
                again = file.obs[name]
                assert type(again) is type(column) or isinstance(column, NullableStrings)
                if isinstance(column, Categorical):
                    assert again.labels().tolist() == column.labels().tolist()
        n_same += 1
    assert n_same > 15


# --- the process


def test_reading_never_loads_libhdf5():
    code = """
        import scio, scio.data, scio.io
        with scio.open(scio.datasets.pbmc3k()) as f:
            f.X[:10]; f.obs_names
        path = scio.datasets.pbmc3k()
        with scio.open(path) as f:
            vocab = scio.data.GeneVocab.from_genes(dict.fromkeys(f.var_names))
        dataset = scio.data.CellDataset(path, vocab)
        n_cells = sum(len(b["index"]) for b in scio.data.CellDataLoader(dataset, drop_last=False))
        assert n_cells == 2700
        maps = open("/proc/self/maps").read()
        assert "_core" in maps
        assert "hdf5" not in maps
        from scio import _h5write
        assert "hdf5" in open("/proc/self/maps").read()  # the test can fail
    """
    run(code)


def test_h5py_works_beside_the_writer(tmp_path):
    """Its libhdf5 is another one; errors of ours stay out of its way, both orders of loading."""
    for first, second in (("h5py", "scio._h5write"), ("scio._h5write", "h5py")):
        code = f"""
            import sys, {first}, {second}
            import h5py, numpy as np
            from scio.io.writer import new_file
            from scio.errors import IOWriteError
            path = sys.argv[1]
            with new_file(path) as w, h5py.File(path + ".theirs", "w") as f:
                w.dataset("/x", np.arange(5)); f["x"] = np.arange(6)
                try:
                    w.dataset("/x", np.arange(5))
                except IOWriteError as error:
                    print(error)
                try:
                    f["x"] = 3
                except (RuntimeError, OSError, ValueError):
                    pass
                else:
                    raise AssertionError
                raise SystemExit(0)
        """
        done = run(code, tmp_path / first)
        assert "libhdf5 says" in done.stdout
        assert "HDF5-DIAG" not in done.stderr


def test_many_threads_write_files_of_their_own(tmp_path):
    import threading

    def work(i: int) -> None:
        for j in range(5):
            copy(scio.datasets.pbmc3k(), tmp_path / f"{i}-{j}.h5ad")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [path.read_bytes() for path in tmp_path.glob("*.h5ad")]
    assert len(files) == 20
    assert all(file == files[0] for file in files)


def test_a_fork_while_another_thread_writes_leaves_the_lock_free(tmp_path):
    code = """
        import os, sys, threading
        import numpy as np
        import scio._h5write  # a fork amid its first import hangs at Python's own import lock
        from scio.io.writer import new_file
        def work(name, n):
            for i in range(n):
                with new_file(f"{sys.argv[1]}/{name}{i}") as w:
                    w.dataset("/x", np.arange(1000))
        thread = threading.Thread(target=work, args=("parent", 100))
        thread.start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                work(f"child{os.getpid()}-", 1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        thread.join()
    """
    run(code, tmp_path)


def test_a_writer_is_used_by_one_thread_and_refuses_pickling(tmp_path):
    import pickle

    from scio import _h5write

    writer = _h5write.Writer(tmp_path / "x.h5")
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(writer)
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.group("/x")
    writer.discard()
    writer.discard()


# --- failures

WRITE = """
    import resource, signal, sys
    import numpy as np
    from scio.io.writer import Table, write_tables
    from scio.errors import IOWriteError
    from scio.matrix import CSR
    path, limit = sys.argv[1], int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    names = np.array([f"n{i}" for i in range(500)], object)
    csr = CSR.from_dense(np.ones((500, 500), np.float32))
    try:
        write_tables(path, obs=Table(names, {"a": names, "b": np.arange(500)}),
                   var=Table(names, {}), X=csr, overwrite=True)
    except IOWriteError as error:
        print(error.errno, error)
        sys.exit(3)
"""


def test_a_write_that_fails_anywhere_leaves_the_old_file(tmp_path):
    target = tmp_path / "out.h5ad"
    run(WRITE, target, 0)
    whole = target.stat().st_size
    target.write_bytes(b"old")
    codes = []
    for limit in (1, 600, 3000, 40_000, 700_000, whole - 1, whole):
        done = run(WRITE, target, limit, check=False)
        codes.append(done.returncode)
        assert sorted(os.listdir(tmp_path)) == ["out.h5ad"]
        if done.returncode == 3:
            assert done.stdout.startswith("27 ")  # EFBIG
            assert target.read_bytes() == b"old"
    assert codes == [3] * 6 + [0]
    assert target.stat().st_size == whole


def test_a_full_disk_is_an_ordinary_error(tmp_path):
    """Before the driver of our own: OSError, and then SIGSEGV at the exit of the process."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = run(WRITE, folder / "out.h5ad", 0, command=on_tmpfs(folder, "1m"), check=False)
    assert done.returncode == 3
    assert done.stdout.startswith("28 ")  # ENOSPC
    done = run(WRITE, folder / "out.h5ad", 0, command=on_tmpfs(folder, "64m"))


def test_a_read_only_folder_is_an_ordinary_error(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = on_tmpfs(folder, "1m", is_read_only=True)
    done = run(WRITE, folder / "out.h5ad", 0, command=command, check=False)
    assert done.returncode == 3
    assert done.stdout.startswith("30 ")  # EROFS


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    target = tmp_path / "x.h5ad"
    target.write_bytes(b"old")
    with pytest.raises(TargetExistsError):
        write_tables(target, obs=EMPTY, var=EMPTY)
    assert target.read_bytes() == b"old"
    write_tables(target, obs=EMPTY, var=EMPTY, overwrite=True)
    assert anndata.read_h5ad(target).shape == (0, 0)


def test_the_same_content_gives_the_same_bytes(odd, tmp_path):
    copy(odd, tmp_path / "a.h5ad")
    copy(odd, tmp_path / "b.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


# --- the fast layout by hand


def test_convert_pbmc3k(tmp_path):
    target = tmp_path / "fast.h5ad"
    fast.convert(scio.datasets.pbmc3k(), target, progress=False)
    assert_same(target, scio.datasets.pbmc3k())
    with h5py.File(target) as file:
        for name in ("data", "indices"):
            assert file["X"][name].chunks is None
            assert file["X"][name].dtype == np.uint16
            assert file["X"][name].id.get_offset() % 64 == 0
    assert os.listdir(tmp_path) == ["fast.h5ad"]
    with pytest.raises(TargetExistsError):
        fast.convert(scio.datasets.pbmc3k(), target)


def test_convert_odd_columns_and_a_late_large_value(odd, tmp_path, monkeypatch):
    """The value 70,000 stands behind the rows that are looked at first."""
    monkeypatch.setattr(fast, "N_SAMPLED_ROWS", 2)
    monkeypatch.setattr(fast, "_BLOCK_ITEMS", 3)
    fast.convert(odd, tmp_path / "fast.h5ad")
    assert_same(tmp_path / "fast.h5ad", odd)
    with h5py.File(tmp_path / "fast.h5ad") as file:
        assert file["X/data"].dtype == np.float32


@pytest.mark.parametrize("kind", ["csc", "dense", "layer", "raw", "empty"])
def test_convert_other_matrices(tmp_path, kind):
    dense = np.random.default_rng(0).poisson(0.5, (60, 30)).astype(np.int64)
    dense = dense[:0] if kind == "empty" else dense
    adata = anndata.AnnData(X=sp.csr_matrix(dense))
    if kind == "csc":
        adata.X = sp.csc_matrix(dense)
    if kind == "dense":
        adata.X = dense.astype(np.float64)
    adata.layers["counts"] = sp.csr_matrix(dense * 2)
    adata.raw = adata
    adata.write_h5ad(tmp_path / "src.h5ad")
    matrix = {"layer": "layers/counts", "raw": "raw/X"}.get(kind, "X")
    fast.convert(tmp_path / "src.h5ad", tmp_path / "fast.h5ad", matrix=matrix)
    read = anndata.read_h5ad(tmp_path / "fast.h5ad").X
    read = read.toarray() if sp.issparse(read) else read
    np.testing.assert_array_equal(read, dense * 2 if kind == "layer" else dense)
    assert read.dtype == np.uint16 or kind == "empty"


def test_convert_keeps_wide_indices_for_many_genes(tmp_path):
    csr = sp.csr_matrix((np.ones(3, "f4"), [0, 65535, 65536], [0, 1, 3]), shape=(2, 65537))
    anndata.AnnData(X=csr).write_h5ad(tmp_path / "src.h5ad")
    fast.convert(tmp_path / "src.h5ad", tmp_path / "fast.h5ad", progress=False)
    assert_same(tmp_path / "fast.h5ad", tmp_path / "src.h5ad")
    with h5py.File(tmp_path / "fast.h5ad") as file:
        assert file["X/indices"].dtype == np.int32


def test_convert_names_the_columns_it_cannot_read(tmp_path):
    path = tmp_path / "src.h5ad"
    anndata.AnnData(
        X=np.ones((2, 2), "f4"), obs=pd.DataFrame({"a": [1, 2]}, index=["x", "y"])
    ).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["obs/a"].attrs["encoding-type"] = "from the future"
        file["obs/square"] = np.ones((2, 2))
        file["obs/fine"] = np.array([1, 2])
        file["obs"].attrs["column-order"] = ["a", "square", "fine"]
    with pytest.warns(ScioWarning, match=r"(?s)from the future.*obs/square has shape"):
        fast.convert(path, tmp_path / "fast.h5ad", progress=False)
    assert list(anndata.read_h5ad(tmp_path / "fast.h5ad").obs.columns) == ["fine"]


def test_convert_on_a_full_disk_says_what_is_needed(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    code = """
        import os, sys, scio
        from scio.io import fast
        try:
            fast.convert(scio.datasets.pbmc3k(), sys.argv[1] + "/x.h5ad", progress=False)
        except scio.errors.IOWriteError as error:
            print(error, os.listdir(sys.argv[1]))
            sys.exit(3)
    """
    done = run(code, folder, command=on_tmpfs(folder, "1m"), check=False)
    assert done.returncode == 3
    assert "are needed" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_writing_needs_a_folder(tmp_path):
    with pytest.raises(IOWriteError):
        write_tables(tmp_path / "no such folder" / "x.h5ad", obs=EMPTY, var=EMPTY)
