"""File: sources, objects, attributes, types, variable-length values."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from pathlib import Path

import h5py
import numpy as np
import pytest

from scio import _core
from scio.errors import IOFormatError


@pytest.fixture
def far(tmp_path):
    """An image whose last group is too far from the first to be read with it."""
    path = tmp_path / "far.h5"
    with h5py.File(path, "w") as file:
        file["near"] = np.zeros(1 << 20)
        for i in range(100):
            file[f"late/{i}"] = np.arange(10)
    return path.read_bytes()


# --- sources


def test_a_path_an_image_and_a_callable_read_alike(sample, no_leak):
    image = Path(sample).read_bytes()
    files = [
        _core.File(sample),
        _core.File(image),
        _core.File(bytearray(image), name="array"),
        _core.File(np.frombuffer(image, np.uint8)),
        _core.File(lambda at, n: image[at : at + n], nbytes=len(image), name="call"),
    ]
    names = [sample, f"<{len(image)} bytes in memory>", "array", files[1].name, "call"]
    assert [f.name for f in files] == names
    for file in files:
        assert file.nbytes == len(image)
        np.testing.assert_array_equal(file.dataset("int32").read(), np.arange(12).reshape(3, 4))
    del files, file


def test_an_image_is_kept_alive_and_not_copied(sample, no_leak):
    image = bytearray(Path(sample).read_bytes())
    before = _core.stats()["live_buf_nbytes"]
    file = _core.File(memoryview(image))
    assert _core.stats()["live_buf_nbytes"] - before == len(image)
    with pytest.raises(BufferError):
        image.append(0)  # exported: it cannot move
    dataset = file.dataset("int32")
    del file
    assert dataset.read().sum() == 66
    del dataset
    gc.collect()
    image.append(0)


def test_a_callable_is_called_from_threads_of_the_pool(tmp_path):
    path = tmp_path / "wide.h5"
    with h5py.File(path, "w") as made:
        made.create_dataset(
            "x", data=np.random.default_rng(0).random(400_000), chunks=(10_000,), compression=1
        )
    image = path.read_bytes()
    idents = set()

    def read(offset, nbytes):
        idents.add(threading.get_ident())
        return image[offset : offset + nbytes]

    file = _core.File(read, nbytes=len(image), name="call")
    idents.clear()
    threads = _core.get_threads()
    _core.set_threads(2)
    try:
        got = file.dataset("x").read()
    finally:
        _core.set_threads(threads)
    with h5py.File(path) as oracle:
        np.testing.assert_array_equal(got, oracle["x"][:])
    assert threading.get_ident() not in idents


@pytest.mark.parametrize("where", ["open", "metadata", "read"])
def test_an_exception_of_a_callable_becomes_an_oserror_with_its_text(far, where, no_leak):
    is_broken = where == "open"

    def read(offset, nbytes):
        if is_broken:
            raise LookupError("the remote is größer")
        return far[offset : offset + nbytes]

    def use():
        nonlocal is_broken
        file = _core.File(read, nbytes=len(far), name="distant")
        dataset = file.dataset("near")
        is_broken = True
        return file.kind("late/99") if where == "metadata" else dataset.read()

    with pytest.raises(
        OSError, match=r"distant: read\(.* raised LookupError: the remote is größer"
    ):
        use()


@pytest.mark.parametrize(
    ("result", "message"),
    [(b"short", r"gave 5 bytes"), ("text", "raised TypeError.*bytes-like"), (None, "TypeError")],
)
def test_what_is_not_the_bytes_asked_for_is_an_oserror(result, message):
    with pytest.raises(OSError, match=message):
        _core.File(lambda offset, nbytes: result, nbytes=4096, name="odd")


def test_a_keyboard_interrupt_in_a_callable_is_not_lost():
    def read(offset, nbytes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _core.File(read, nbytes=4096, name="call")


def test_a_cycle_through_a_callable_is_collected(sample):
    image = Path(sample).read_bytes()

    class Owner:
        def __init__(self):
            self.file = _core.File(self.read, nbytes=len(image), name="call")
            self.dataset = self.file.dataset("int32")
            self.matrix = _core.Matrix.open_dense(self.file, "int32")

        def read(self, offset, nbytes):
            return image[offset : offset + nbytes]

    before = _core.stats()["live_sources"]
    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None
    assert _core.stats()["live_sources"] == before


def test_a_dataset_keeps_the_callable_of_its_file(sample, no_leak):
    image = Path(sample).read_bytes()
    file = _core.File(lambda at, n: image[at : at + n], nbytes=len(image), name="call")
    dataset = file.dataset("chunked")
    file.close()
    del file
    gc.collect()
    assert dataset.read().sum() == 4950.0


# --- life


def test_close_twice_and_use_after_close(sample, no_leak):
    file = _core.File(sample)
    dataset = file.dataset("int32")
    file.close()
    file.close()
    for use in (
        lambda: file.kind("/"),
        lambda: file.dataset("int32"),
        lambda: file.attr("int32", "title"),
        lambda: file.path_of(0),
        lambda: file.nbytes,
        lambda: file.superblock,
        file.check_unchanged,
        lambda: _core.Matrix.open_dense(file, "int32"),
    ):
        with pytest.raises(ValueError, match=r"sample\.h5 is closed"):
            use()
    assert file.name == sample
    assert dataset.read()[2, 3] == 11  # what was opened before goes on


def test_close_while_another_thread_reads(far):
    is_in_read, may_go_on = threading.Event(), threading.Event()
    is_armed = False

    def read(offset, nbytes):
        if is_armed:
            is_in_read.set()
            assert may_go_on.wait(10)
        return far[offset : offset + nbytes]

    file = _core.File(read, nbytes=len(far), name="call")
    is_armed = True
    found = []
    thread = threading.Thread(target=lambda: found.append(file.kind("late/99")))
    thread.start()
    assert is_in_read.wait(10)
    file.close()
    may_go_on.set()
    thread.join(10)
    assert found == ["dataset"]


def test_identity_and_a_file_that_changes(sample):
    file = _core.File(sample)
    stat = Path(sample).stat()
    assert file.identity == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    assert file.check_unchanged() is None
    Path(sample).write_bytes(b"something else")
    with pytest.raises(IOFormatError, match="sample"):
        file.check_unchanged()
    assert _core.File(_core_image()).identity == (0, 0, 0)


def _core_image():
    import io

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file["x"] = 1
    return image.getvalue()


def test_the_superblock_is_described(open_file):
    block = open_file.superblock
    assert list(block) == [
        "version", "offset_nbytes", "length_nbytes", "base", "end", "root",
        "chunk_k", "group_leaf_k", "group_internal_k",
    ]  # fmt: skip
    assert (block["offset_nbytes"], block["length_nbytes"], block["base"]) == (8, 8, 0)
    assert block["end"] == open_file.nbytes
    assert block["root"] == open_file.address("/")


# --- objects


def test_kinds(open_file):
    kinds = {
        path: open_file.kind(path) for path in ("/", "int32", "group/inner", "committed", "soft")
    }
    assert kinds == {
        "/": "group", "int32": "dataset", "group/inner": "group", "committed": "type",
        "soft": "dataset",
    }  # fmt: skip


def test_links_say_where_they_lead(open_file):
    links = {link[0]: link[1:] for link in open_file.links("/")}
    assert links["soft"] == ("soft", None, "/int32", None)
    assert links["external"] == ("external", None, "/x", "other.h5")
    assert links["int32"] == ("hard", open_file.address("int32"), None, None)
    with pytest.raises(TypeError, match=r"sample.h5: int32: .*group"):
        open_file.links("int32")


def test_equal_addresses_are_one_object_and_paths_lead_back(sample):
    with h5py.File(sample, "a") as file:
        file["group/again"] = file["int32"]
        file["group/loop"] = file["group"]  # a cycle
    file = _core.File(sample)
    address = file.address("group/again")
    assert address == file.address("int32") == file.address("soft")
    assert file.path_of(address) == "/int32"  # the shortest
    assert file.path_of(file.address("group/inner/leaf")) == "/group/inner/leaf"
    assert file.path_of(file.address("/")) == "/"
    assert file.path_of(2**64 - 1) is None
    assert file.path_of(12345) is None


def test_an_object_reference_leads_to_its_path(open_file):
    info, shape, raw = open_file.attr("int32", "points_to")
    assert (info["class"], info["kind"], shape) == ("reference", 0, ())
    address = int(raw.view("<u8")[0, 0])
    assert open_file.path_of(address) == "/group/inner/leaf"


def test_attributes(open_file):
    assert open_file.attr_names("int32") == ["nothing", "numbers", "points_to", "title"]
    assert open_file.attr_names("group") == []
    info, shape, raw = open_file.attr("int32", "numbers")
    assert (info["dtype"], shape, raw.dtype, raw.shape) == ("int64", (3,), np.uint8, (3, 8))
    assert raw.view(np.int64).ravel().tolist() == [1, 2, 3]
    info, shape, raw = open_file.attr("int32", "nothing")
    assert (info["dtype"], shape, raw.shape) == ("int32", None, (0, 4))


# --- types


def describe(file, path):
    return file.dataset(path).type


def test_number_types(open_file):
    info = describe(open_file, "big")
    assert {k: v for k, v in info.items() if k != "_capsule"} == {
        "class": "float", "itemsize": 8, "dtype": "float64", "order": ">", "signed": info["signed"],
        "is_bool": False, "unsupported": "",
    }  # fmt: skip
    assert describe(open_file, "int32")["signed"] is True
    flag = describe(open_file, "bool")
    assert (flag["class"], flag["dtype"], flag["is_bool"]) == ("enum", "bool", True)


def test_string_types(open_file):
    text = describe(open_file, "text")
    assert (text["class"], text["vlen"], text["utf8"], text["dtype"]) == ("vlen", True, True, None)
    fixed = describe(open_file, "fixed")
    assert (fixed["class"], fixed["vlen"], fixed["itemsize"]) == ("string", False, 4)
    assert fixed["padding"] in (0, 1, 2)


def test_enum_values_have_their_sign(open_file):
    info = describe(open_file, "enum")
    assert dict(zip(info["names"], info["values"], strict=True)) == {"RED": -1, "GREEN": 7}
    assert info["base"]["dtype"] == "int8"


def test_committed_types(open_file):
    assert open_file.type("committed")["dtype"] == "uint16"
    with pytest.raises(ValueError, match="int32 is a dataset, expected a committed datatype"):
        open_file.type("int32")


def test_a_member_outlives_its_parent_and_resolves(sample, no_leak):
    file = _core.File(sample)
    members = {m[0]: (m[1], m[2]) for m in describe(file, "compound")["members"]}
    assert list(members) == ["n", "name", "grid"]
    assert members["grid"][1]["dims"] == (2, 3)
    assert members["grid"][1]["base"]["dtype"] == "float32"
    offset, name_type = members["name"]
    raw = file.dataset("compound").read_raw()
    del members
    gc.collect()
    records = np.ascontiguousarray(raw[:, offset : offset + name_type["itemsize"]])
    offsets, payload = file.vlen(name_type, records)
    assert payload.tobytes() == b"onetwo"
    assert offsets.tolist() == [0, 3, 6]


def test_variable_length_values(open_file, no_leak):
    text = open_file.dataset("text")
    offsets, payload = open_file.vlen(text.type, text.read_raw())
    data = payload.tobytes()
    parts = [data[a:b].decode() for a, b in itertools.pairwise(offsets)]
    assert parts == ["a", "", "große", "x" * 300]
    ragged = open_file.dataset("ragged")
    offsets, payload = open_file.vlen(ragged.type, ragged.read_raw())
    assert offsets.tolist() == [0, 0, 2, 6]
    assert payload.view("<i2").tolist() == [0, 0, 1]
    offsets, payload = open_file.vlen(text.type, np.empty((0, 16), np.uint8))
    assert (offsets.tolist(), payload.size) == ([0], 0)


def test_vlen_refuses_what_is_no_description(open_file):
    text = open_file.dataset("text")
    raw = text.read_raw()
    with pytest.raises(TypeError, match="type is str, expected the dict"):
        open_file.vlen("text", raw)
    for wrong in ({}, {"class": "vlen"}, {"_capsule": 3}, {"_capsule": np.zeros(1)}):
        with pytest.raises(ValueError, match="dict of another making"):
            open_file.vlen(wrong, raw)
    with pytest.raises(ValueError, match="not of variable length"):
        open_file.vlen(describe(open_file, "int32"), raw)
    with pytest.raises(ValueError, match="rows of 15 bytes, a record has 16"):
        open_file.vlen(text.type, np.zeros((2, 15), np.uint8))
    with pytest.raises(TypeError, match="records is int8, expected uint8"):
        open_file.vlen(text.type, raw.view(np.int8))


def test_broken_neighbours_do_not_hide_a_path(tmp_path):
    path = tmp_path / "broken.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = np.arange(3)
        file["b/c"] = np.arange(4)
        address = h5py.h5o.get_info(file["a"].id).addr
    raw = bytearray(path.read_bytes())
    raw[address : address + 4] = b"XXXX"
    broken = _core.File(bytes(raw))
    assert broken.path_of(broken.address("b/c")) == "/b/c"
