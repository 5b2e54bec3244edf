"""Dataset: description, boxes, chunk table, arrays over buffers."""

from __future__ import annotations

import gc
import itertools

import h5py
import numpy as np
import pytest

from scio import _core

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip


def test_the_description(open_file, sample):
    chunked = open_file.dataset("chunked")
    assert chunked.path == "chunked"
    assert (chunked.shape, chunked.maxshape, chunked.chunks) == ((100,), (None,), (30,))
    assert (chunked.dtype, chunked.layout, chunked.n_units) == ("float64", "chunked", 4)
    assert [(f[0], f[1]) for f in chunked.filters] == [(2, "shuffle"), (1, "deflate")]
    assert chunked.filters[0][3] == (8,)
    assert np.frombuffer(chunked.fill, "f8") == -1.0
    with h5py.File(sample) as oracle:
        assert chunked.stored_nbytes == oracle["chunked"].id.get_storage_size()
    plain = open_file.dataset("int32")
    assert (plain.layout, plain.chunks, plain.filters) == ("contiguous", None, [])
    assert plain.maxshape == (3, 4)
    assert open_file.dataset("scalar").shape == ()
    null = open_file.dataset("null")
    assert (null.shape, null.maxshape) == (None, None)
    assert open_file.dataset("text").dtype is None


def test_the_chunk_table_is_that_of_hdf5(open_file, sample):
    table = open_file.dataset("chunked").units()
    assert (table.dtype, table.shape) == (np.int64, (4, 4))
    with h5py.File(sample) as oracle:
        chunks = [oracle["chunked"].id.get_chunk_info(i) for i in range(4)]
    assert table[:, 0].tolist() == [c.byte_offset for c in chunks]
    assert table[:, 1].tolist() == [c.size for c in chunks]
    assert not table[:, 2:].any()


def test_a_chunk_never_written_has_no_position(tmp_path):
    with h5py.File(tmp_path / "holes.h5", "w") as file:
        dataset = file.create_dataset("x", (100,), "i4", chunks=(10,), fillvalue=7)
        dataset[25] = 1
    holes = _core.File(str(tmp_path / "holes.h5")).dataset("x")
    assert (holes.units()[:, 0] >= 0).tolist() == [i == 2 for i in range(10)]
    assert holes.stored_nbytes == 40
    assert holes.read().sum() == 99 * 7 + 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_dtype_comes_native(tmp_path, dtype, order):
    values = np.arange(40).reshape(8, 5).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "x", data=values.astype(values.dtype.newbyteorder(order)), chunks=(3, 2)
        )
    got = _core.File(str(tmp_path / "x.h5")).dataset("x").read()
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("target", ["float32", "float64", "int64", "uint8"])
def test_a_cast_is_done_while_reading(open_file, target):
    got = open_file.dataset("chunked").read(dtype=target)
    assert got.dtype == np.dtype(target)
    np.testing.assert_array_equal(got, np.arange(100).astype(target))


@pytest.mark.parametrize("threads", [-1, 0, 1, 7])
def test_boxes_are_slices(tmp_path, threads):
    values = np.random.default_rng(0).integers(0, 1000, (7, 11, 5)).astype(np.int16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(2, 4, 3), compression="gzip")
    dataset = _core.File(str(tmp_path / "x.h5")).dataset("x")
    for start in itertools.product((0, 3, 7), (0, 5), (0, 4)):
        box = dataset.read(start, threads=threads)
        np.testing.assert_array_equal(box, values[start[0] :, start[1] :, start[2] :])
    box = dataset.read([1, 2, 0], count=np.array([3, 5, 2]), threads=threads)
    np.testing.assert_array_equal(box, values[1:4, 2:7, 0:2])
    assert dataset.read(start=(2, 2, 2), count=(0, 3, 3)).shape == (0, 3, 3)


def test_a_scalar_is_an_array_without_axes(open_file):
    got = open_file.dataset("scalar").read()
    assert (got.shape, got[()]) == ((), 1.5)
    assert open_file.dataset("scalar").read((), ()).shape == ()


def test_raw_bytes_keep_the_order_of_the_file(open_file):
    raw = open_file.dataset("big").read_raw((1,), (3,))
    assert (raw.dtype, raw.shape) == (np.uint8, (3, 8))
    assert raw.view(">f8").ravel().tolist() == [1.0, 2.0, 3.0]
    assert open_file.dataset("text").read_raw().shape == (4, 16)


def test_what_holds_no_numbers_is_refused(open_file):
    with pytest.raises(TypeError, match="text does not hold numbers: read_raw"):
        open_file.dataset("text").read()
    with pytest.raises(ValueError, match="null dataspace"):
        open_file.dataset("null").read()


def test_an_array_owns_one_buffer_and_outlives_all(sample, no_leak):
    file = _core.File(sample)
    before = _core.stats()["live_bufs"]
    array = file.dataset("chunked").read()
    file.close()
    del file
    gc.collect()
    assert _core.stats()["live_bufs"] == before + 1
    view = array[10:20].reshape(2, 5)
    assert (array.flags.writeable, array.flags.aligned, array.flags.c_contiguous) == (True,) * 3
    assert not array.flags.owndata
    del array
    gc.collect()
    assert _core.stats()["live_bufs"] == before + 1
    view += 1
    assert view.sum() == 155.0
    del view


def test_reading_again_and_again_leaves_nothing(open_file, no_leak):
    dataset = open_file.dataset("chunked")
    for _ in range(200):
        dataset.read()
        with pytest.raises(IndexError):
            dataset.read((101,))
        dataset.type  # noqa: B018
        dataset.units()


def test_the_types_are_closed():
    for cls in (_core.File, _core.Dataset, _core.Matrix, _core.Loader):
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (cls,), {})
        with pytest.raises(TypeError, match="immutable"):
            cls.extra = 1
    for cls in (_core.Dataset, _core.Matrix):
        with pytest.raises(TypeError, match="cannot create"):
            cls()
