"""One status code, one exception class; messages that say where."""

from __future__ import annotations

import errno
import inspect
import io
import pickle
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from scio import _core, errors
from tests.core.helpers import LOADER, Counts, gene_map, memory_matrix, random_csr

BUILTIN = {
    "IOFormatError": ValueError,
    "UnsupportedError": NotImplementedError,
    "IOWriteError": OSError,
    "TargetExistsError": FileExistsError,
    "KeyNotFoundError": KeyError,
    "LoaderError": RuntimeError,
    "MissingDependencyError": ImportError,
    "NotFittedError": RuntimeError,
    "ScioWarning": UserWarning,
}


def test_all_is_sorted_and_complete() -> None:
    defined = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == "scio.errors"
    ]
    assert errors.__all__ == sorted(defined)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_scio_error_and_the_builtin_that_one_expects(name: str) -> None:
    cls = getattr(errors, name)
    assert name == "ScioWarning" or issubclass(cls, errors.ScioError)
    assert issubclass(cls, BUILTIN.get(name, Exception))
    assert cls.__doc__


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        text = line.strip().lstrip("│ ").strip()
        if "── " not in line and not text.startswith("ScioError"):
            continue
        depth = 0 if text.startswith("ScioError") else line.index("──") // 4
        name = text.removeprefix("├── ").removeprefix("└── ").split()[0]
        del stack[depth:]
        if stack:
            assert issubclass(getattr(errors, name), getattr(errors, stack[-1])), name
        stack.append(name)
    assert all(name in (errors.__doc__ or "") for name in errors.__all__)


def test_a_missing_key_reads_as_a_sentence() -> None:
    assert str(errors.KeyNotFoundError("there is no 'x'")) == "there is no 'x'"
    assert str(errors.KeyNotFoundError()) == ""
    assert pickle.loads(pickle.dumps(errors.KeyNotFoundError("a"))).args == ("a",)


def test_write_errors_keep_errno_and_filename() -> None:
    error = errors.TargetExistsError(errno.EEXIST, "exists", "/a/b")
    assert (error.errno, error.filename) == (errno.EEXIST, "/a/b")
    assert isinstance(error, errors.IOWriteError)


# --- each code of the core, provoked.  EWRITE has no caller in the core yet; EBUG would be one.


def test_enoent_of_the_system_is_file_not_found(tmp_path: Path) -> None:
    path = str(tmp_path / "größe.h5")
    with pytest.raises(FileNotFoundError) as info:
        _core.File(path)
    assert (info.value.errno, info.value.filename) == (errno.ENOENT, path)


def test_a_directory_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as info:
        _core.File(str(tmp_path))
    assert info.value.filename == str(tmp_path)


def test_a_file_as_a_directory_is_not_one(sample: str) -> None:
    with pytest.raises(NotADirectoryError):
        _core.File(sample + "/inner")


def test_what_is_no_hdf5_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("just text\n" * 100)
    with pytest.raises(errors.IOFormatError, match=r"a\.h5") as info:
        _core.File(str(path))
    assert not isinstance(info.value, errors.CorruptFileError)


def test_a_truncated_file_is_corrupt(sample: str) -> None:
    data = Path(sample).read_bytes()
    with pytest.raises(errors.CorruptFileError, match="half"):
        _core.File(data[: len(data) // 2], name="half")


def test_a_missing_object_is_a_missing_key(open_file: _core.File, sample: str) -> None:
    for call in (open_file.kind, open_file.dataset, open_file.links, open_file.attr_names):
        with pytest.raises(errors.KeyNotFoundError, match="nowhere") as info:
            call("group/nowhere")
        assert sample in str(info.value)
    with pytest.raises(errors.KeyNotFoundError, match="no_such"):
        open_file.attr("int32", "no_such")


def test_an_external_link_is_unsafe(open_file: _core.File) -> None:
    with pytest.raises(errors.UnsafeFileError, match="external"):
        open_file.kind("external")


def test_an_unknown_filter_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "bzip2.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(1000), chunks=(100,), **hdf5plugin.BZip2())
    dataset = _core.File(str(path)).dataset("x")
    with pytest.raises(errors.UnsupportedError, match="307") as info:
        dataset.read()
    assert "bzip2.h5" in str(info.value)
    assert isinstance(info.value, NotImplementedError)


def test_a_broken_chunk_names_file_dataset_and_chunk(counts: Counts) -> None:
    with h5py.File(counts.path) as file:
        chunk = file["X/data"].id.get_chunk_info(2)
    with Path(counts.path).open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\xff" * 8)
    with pytest.raises(errors.CorruptFileError) as info:
        _core.File(counts.path).dataset("X/data").read()
    for word in ("counts.h5ad", "X/data", "chunk (2,)"):
        assert word in str(info.value)
    matrix = _core.Matrix.open_sparse(_core.File(counts.path), "X", shape=counts.csr.shape)
    with pytest.raises(errors.CorruptFileError, match=r"counts\.h5ad.*X/data.*chunk \(2,\)"):
        matrix.read(0, 300)


def test_a_value_that_does_not_fit_the_dtype_is_a_range_error():
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file["x"] = np.array([1, 99, 300])
    with pytest.raises(IndexError, match=r"x: the int64 value 300 at position 2 .* int8"):
        _core.File(image.getvalue()).dataset("x").read(dtype="int8")


def test_a_cancelled_loader_says_so() -> None:
    loader = _core.Loader([memory_matrix(random_csr(0))], [gene_map()], **LOADER)
    loader.cancel()
    with pytest.raises(errors.LoaderCancelled, match="cancelled"):
        list(iter(loader.next, None))


def test_memory_that_cannot_be_had_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        _core.permutation(0, 0, 2**58)
    indptr = np.zeros(2**20 + 1, np.int64)
    empty = np.empty(0, np.int32)
    with pytest.raises(MemoryError):
        _core.csr_to_dense(empty, empty, indptr, shape=(2**20, 2**43))
