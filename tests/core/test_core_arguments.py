"""Arguments are demanded as they must be; the message names the parameter and says what came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scio import _core
from scio.errors import CorruptFileError
from tests.core.helpers import (
    LOADER,
    SPEC,
    Counts,
    file_matrix,
    gene_map,
    memory_matrix,
    random_csr,
)

I64 = np.int64


def arrays(**change: Any) -> tuple[Any, Any, Any]:
    """A sound CSR matrix of 2 x 3, with one array changed."""
    good: dict[str, Any] = {
        "data": np.float32([1, 2, 3]),
        "indices": np.int32([0, 2, 1]),
        "indptr": np.array([0, 2, 3], I64),
    }
    good |= change
    return good["data"], good["indices"], good["indptr"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": [1.0, 2.0, 3.0]}, TypeError, r"data is list, expected a numpy\.ndarray"),
        ({"indptr": np.array([0, 2, 3], np.int32)}, TypeError, "indptr is int32, expected int64"),
        ({"data": np.array([1, 2, 3], complex)}, TypeError, "data is complex128, expected bool"),
        ({"data": np.array(["a", "b", "c"], object)}, TypeError, "data is object"),
        ({"data": np.zeros(3, np.longdouble)}, TypeError, r"data is float128"),
        ({"data": np.array([1, 2, 3], ">f4")}, TypeError, "data is >f4.* native byte order"),
        ({"data": np.float32([[1, 2, 3]])}, ValueError, "data has 2 dimensions, expected 1"),
        ({"data": np.zeros(6, np.float32)[::2]}, ValueError, "data is not C-contiguous"),
        (
            {"data": np.zeros(13, np.uint8)[1:].view(np.float32)},
            ValueError,
            "data is not aligned",
        ),
        ({"data": np.zeros(2, np.float32)}, CorruptFileError, "data has 2 entries, indices has 3"),
        (
            {"indptr": np.array([0, 3], I64)},
            CorruptFileError,
            "indptr has 2 entries, 2 rows need 3",
        ),
        ({"indptr": np.array([], I64)}, CorruptFileError, "indptr has 0 entries"),
    ],
)
def test_an_array_that_is_not_as_demanded_is_named(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _core.csr_validate(*arrays(**change), shape=(2, 3))


def test_every_width_of_the_same_integer_is_one_dtype() -> None:
    # long and long long are two types in NumPy and one in the core
    indptr = np.array([0, 2, 3], np.longlong)
    data, indices, _ = arrays()
    assert _core.csr_validate(data, indices, indptr, shape=(2, 3)) == (True, False)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: _core.csr_validate(*arrays()), TypeError, "lacks the argument shape"),
        (
            lambda: _core.csr_validate(*arrays(), shape=(2, 3), lvl="full"),
            TypeError,
            "no keyword argument lvl",
        ),
        (
            lambda: _core.csr_validate(*arrays(), (2, 3)),
            TypeError,
            "takes 3 positional arguments, 4 were given",
        ),
        (
            lambda: _core.csr_validate(*arrays(), shape=(2, 3), level="some"),
            ValueError,
            'level is "some", expected one of "shape", "structure", "full"',
        ),
        (
            lambda: _core.csr_validate(*arrays(), shape=(2,)),
            ValueError,
            "shape has 1 numbers, expected 2",
        ),
        (lambda: _core.csr_validate(*arrays(), shape=(2, -3)), ValueError, r"shape\[1\] is -3"),
        (
            lambda: _core.csr_validate(*arrays(), shape=6),
            TypeError,
            "shape is int, expected a sequence",
        ),
        (
            lambda: _core.csr_validate(*arrays(), shape=(2, 3.0)),
            TypeError,
            "shape is float, expected int",
        ),
        (
            lambda: _core.csr_validate(*arrays(), shape=(2, 2**70)),
            ValueError,
            "shape is out of range",
        ),
        (lambda: _core.set_threads(-1), ValueError, "n_threads is -1"),
        (lambda: _core.set_threads(True), TypeError, "n_threads is bool, expected int"),
        (lambda: _core.set_threads(10**6), ValueError, "1000000 threads"),
        (lambda: _core.philox_u64(-1, 0, 0), ValueError, "seed is out of range"),
        (lambda: _core.philox_u64(0, 0), TypeError, "lacks the argument index"),
        (lambda: _core.permutation(0, 0, -1), ValueError, "n_items is -1"),
        (lambda: _core.permutation(0, 0, 2**62), MemoryError, None),
        (lambda: _core.log1p(np.zeros(3)), TypeError, "x is float64, expected float32"),
    ],
)
def test_an_argument_that_is_wrong_is_named(
    call: Any, error: type[Exception], message: str | None
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_numpy_integers_count_as_int() -> None:
    assert _core.philox_u64(np.uint64(2**64 - 1), np.int8(1), np.int64(2)) == _core.philox_u64(
        2**64 - 1, 1, 2
    )


@pytest.mark.parametrize("source", [3, None, 1.5, ["a"]])
def test_a_source_of_another_kind_is_refused(source: Any) -> None:
    with pytest.raises(TypeError, match=f"source is {type(source).__name__}, expected a path"):
        _core.File(source)


def test_a_source_takes_only_the_keywords_that_belong_to_it(sample: str) -> None:
    with pytest.raises(ValueError, match="nbytes= belongs to a callable"):
        _core.File(sample, nbytes=3)
    with pytest.raises(ValueError, match="name= belongs to a source without a path"):
        _core.File(sample, name="x")
    with pytest.raises(ValueError, match="needs nbytes="):
        _core.File(lambda offset, n: b"", name="x")
    with pytest.raises(ValueError, match="needs name="):
        _core.File(lambda offset, n: b"", nbytes=10)
    with pytest.raises(ValueError, match="embedded null"):
        _core.File("a\0b")
    with pytest.raises(ValueError, match="not contiguous"):
        _core.File(memoryview(b"abcdef")[::2])


def test_a_path_in_the_file_is_text_without_nul(open_file: _core.File) -> None:
    with pytest.raises(TypeError, match="path is bytes, expected str"):
        open_file.kind(b"/x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path holds a NUL"):
        open_file.kind("int32\0x")


def test_a_box_is_checked_before_memory_is_asked_for(open_file: _core.File) -> None:
    dataset = open_file.dataset("int32")
    with pytest.raises(IndexError, match="axis 1, which has 4"):
        dataset.read((0, 0), (3, 10**15))
    with pytest.raises(IndexError, match="axis 0, which has 3"):
        dataset.read((4, 0))
    with pytest.raises(ValueError, match=r"start has 1 numbers, expected 2"):
        dataset.read([0])
    with pytest.raises(ValueError, match=r"count\[0\] is -1"):
        dataset.read((0, 0), (-1, 2))
    with pytest.raises(ValueError, match='dtype is "float31", expected one of "bool", "int8"'):
        dataset.read(dtype="float31")
    with pytest.raises(TypeError, match=r"dtype is numpy.*, expected str"):
        dataset.read(dtype=np.dtype("f4"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads is -2"):
        dataset.read(threads=-2)
    with pytest.raises(TypeError, match="got start twice"):
        dataset.read((0, 0), start=(0, 0))  # type: ignore[misc]


def test_a_matrix_names_what_is_wrong_with_rows(counts: Counts) -> None:
    matrix = file_matrix(counts)
    with pytest.raises(TypeError, match="rows is int32, expected int64"):
        matrix.take(np.arange(3, dtype=np.int32))  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="300"):
        matrix.take(np.array([0, 300]))
    with pytest.raises(IndexError, match=r"rows \[2, 1\) do not lie in \[0, 300\)"):
        matrix.read(2, 1)
    with pytest.raises(IndexError, match=r"rows \[0, 301\)"):
        matrix.read_dense(0, 301)
    with pytest.raises(TypeError, match=r"file is str, expected scio\._core\.File"):
        _core.Matrix.open_dense("x", "y")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_ids": 2**31}, ValueError, "n_ids is 2147483648"),
        ({"first_id": 99}, ValueError, "first_id is 99"),
        ({"max_genes": -1}, ValueError, "max_genes is -1"),
        (
            {"form": "ragged"},
            ValueError,
            'form is "ragged", expected one of "tokens", "dense", "csr"',
        ),
        ({"library_size": True, "target_sum": -1.0}, ValueError, "target_sum is -1"),
        ({"library_size": 1}, TypeError, "library_size is int, expected bool"),
        ({"target_sum": "x"}, TypeError, "target_sum is str, expected float"),
        (
            {"id_mask": np.ones(3, np.uint8)},
            ValueError,
            "id_mask has 3 entries, expected n_ids = 44",
        ),
        ({"id_mask": np.ones(44, bool)}, TypeError, "id_mask is bool, expected uint8"),
        ({"seed": 2**64}, ValueError, "seed is out of range"),
        ({"cell_scale": np.ones(40, np.float32)}, TypeError, "cell_scale is float32, expected"),
        (
            {"cell_scale": np.ones(400), "library_size": True},
            ValueError,
            "cell_scale and library_size exclude each other",
        ),
    ],
)
def test_a_batch_specification_is_checked(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    matrix = memory_matrix(random_csr(0))
    cells = np.arange(4, dtype=I64)
    with pytest.raises(error, match=message):
        _core.collate([matrix], [gene_map()], cells, **(SPEC | change))
    with pytest.raises(error, match=message):
        _core.Loader([matrix], [gene_map()], **(LOADER | change))


def test_every_keyword_without_a_default_is_needed() -> None:
    matrix = memory_matrix(random_csr(0))
    for name in LOADER:
        with pytest.raises(TypeError, match=f"lacks the argument {name}"):
            _core.Loader([matrix], [gene_map()], **{k: v for k, v in LOADER.items() if k != name})


@pytest.mark.parametrize(
    ("matrices", "maps", "error", "message"),
    [
        ([], [], ValueError, "0 matrices and 0 maps"),
        ([0], [], ValueError, "1 matrices and 0 maps"),
        ([0], [gene_map(39)], ValueError, r"maps\[0\] has 39 entries, the matrix 40 columns"),
        (
            [0],
            [gene_map() + 1],
            ValueError,
            r"maps\[0\]\[39\] is 44, expected -1 or an id in \[0, 44\)",
        ),
        ([0], [gene_map() - 6], ValueError, r"maps\[0\]\[0\] is -2"),
        ([0], [gene_map().astype(I64)], TypeError, r"maps\[0\] is int64, expected int32"),
        (["m"], [gene_map()], TypeError, r"matrices\[0\] is str, expected scio._core.Matrix"),
        (7, [gene_map()], TypeError, "matrices is int, expected a sequence"),
        ([0], "m", TypeError, "maps is str, expected a sequence"),
    ],
)
def test_matrices_and_maps_must_fit(
    matrices: Any, maps: Any, error: type[Exception], message: str
) -> None:
    if isinstance(matrices, list):
        matrices = [memory_matrix(random_csr(0)) if m == 0 else m for m in matrices]
    with pytest.raises(error, match=message):
        _core.collate(matrices, maps, np.arange(2), **SPEC)
    with pytest.raises(error, match=message):
        _core.Loader(matrices, maps, **LOADER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shuffle": "given"}, "given_cells and given_offsets belong"),
        ({"given_cells": np.arange(3)}, "given_cells and given_offsets belong"),
        (
            {"shuffle": "given", "given_cells": np.arange(3), "given_offsets": np.array([0, 2])},
            "given_offsets goes from 0 to the length of given_cells, 3",
        ),
        (
            {"shuffle": "given", "given_cells": np.arange(3), "given_offsets": np.array([0, 4, 3])},
            r"given_offsets\[2\] is 3, less",
        ),
        (
            {"shuffle": "given", "given_cells": np.arange(3), "given_offsets": np.array([], I64)},
            "given_offsets goes from 0",
        ),
    ],
)
def test_given_batches_are_checked(change: dict[str, Any], message: str) -> None:
    matrix = memory_matrix(random_csr(0))
    with pytest.raises(ValueError, match=message):
        _core.Loader([matrix], [gene_map()], **(LOADER | change))


def test_a_cell_out_of_range_is_named() -> None:
    matrix = memory_matrix(random_csr(0))
    with pytest.raises(IndexError, match=r"cells\[1\] is 600, the matrices have 600 cells"):
        _core.collate([matrix, matrix], [gene_map(), gene_map()], np.array([599, 600]), **SPEC)
