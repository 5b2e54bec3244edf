"""Sound HDF5 that breaks one rule of an AnnData file is refused: element and rule are named."""

from __future__ import annotations

import re
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import scio
from scio.errors import CorruptFileError, IOFormatError
from scio.testing import RULES, BrokenFile, break_rule
from scio.testing._broken import _broken_file, _sound

LIMIT_S = 5
MAX_GROWTH_NBYTES = 512 << 20
SEEDS = (0, 1, 2)  # other elements, other places, both compressions


def refusal(
    read: Callable[[bytes], object], broken: BrokenFile, error: type[Exception]
) -> Exception:
    """What reading raised, in time and without memory to speak of."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is left out besides
        with pytest.raises(error) as caught:
            read(broken.image)
    assert time.perf_counter() - start < LIMIT_S
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
    assert grown < MAX_GROWTH_NBYTES
    return caught.value


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_alone_is_refused_by_name(rule):
    for seed in SEEDS:
        broken = _broken_file(rule, seed, None if seed % 2 else "gzip")
        text = str(refusal(scio.read_h5ad, broken, broken.rule.error))
        assert broken.element in text, (seed, text)
        assert re.search(broken.rule.says, text), (seed, text)


def read_through_handle(image: bytes) -> None:
    """As a loader does: headers, frames and blocks of rows, never the whole object."""
    with scio.open(image) as file:
        file.obs.to_pandas()
        file.var.to_pandas()
        for row in range(file.n_obs):
            file.X[row : row + 1]
        for name in file.layers:
            file.layers[name].read()


LAZY = [
    *(name for name in RULES if name.startswith(("ind", "shape", "data", "code", "categor"))),
    "column is too short", "column has two dimensions", "column-order names nothing",
    "_index names nothing", "string is not UTF-8", "checksum of a chunk is wrong",
    "link leads to another file", "array lies in another file", "array is virtual",
]  # fmt: skip


@pytest.mark.parametrize("rule", LAZY)
def test_the_lazy_handle_refuses_too(rule):
    n_tried = 0
    for seed in range(12):
        broken = _broken_file(rule, seed, None)
        if not f"{broken.element} ".startswith(
            ("/X", "/obs/", "/var/", "/layers/", "/obs ", "/var ")
        ):
            continue  # the walk above does not go there
        text = str(refusal(read_through_handle, broken, IOFormatError))
        assert broken.element.rpartition("/")[0] in text, (seed, text)
        n_tried += 1
        if n_tried == 2:
            return
    assert n_tried > 0


def test_a_sound_file_is_read(tmp_path):
    """What the rules are broken in breaks none by itself, and a warning would be an error here."""
    import numpy as np

    for seed in SEEDS:
        path = tmp_path / f"{seed}.h5ad"
        adata = _sound(np.random.default_rng(seed))
        scio.write_h5ad(adata, path)
        scio.testing.assert_equal(scio.read_h5ad(path), adata)
        with scio.open(path) as file:
            assert file.n_obs == adata.n_obs
        read_through_handle(path.read_bytes())


def test_files_of_other_writers_can_be_broken(tmp_path):
    path = tmp_path / "x.h5ad"
    path.write_bytes(Path(scio.datasets.pbmc3k()).read_bytes())
    element = break_rule(path, "index is n_minor", seed=3)
    with pytest.raises(CorruptFileError, match=rf"x\.h5ad.*{element}"):
        scio.read_h5ad(path)
    with pytest.raises(ValueError, match=r"no nullable-integer or .* that could be broken"):
        break_rule(path, "mask is too short")


NO_FILES = {
    "empty": (lambda _: b"", "empty"),
    "text": (lambda _: b"cell,gene\n1,2\n" * 100, "text"),
    "gzip": (lambda image: __import__("gzip").compress(image), "gzip"),
    "cut": (lambda image: image[: len(image) // 2], "truncated|cut|end of the file|bytes"),
    "zeros": (lambda image: bytes(len(image)), "zero|HDF5"),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_whole_file_says_what_it_looks_like(kind, tmp_path):
    import numpy as np

    edit, says = NO_FILES[kind]
    path = tmp_path / "x.h5ad"
    scio.write_h5ad(_sound(np.random.default_rng(0)), path)
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(scio.errors.IOFormatError, match=r"x\.h5ad") as caught:
        scio.read_h5ad(path)
    assert re.search(says, str(caught.value)), caught.value
