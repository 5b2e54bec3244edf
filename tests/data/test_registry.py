"""Names for data sources: paths, globs, URLs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import scio
from scio.data import DataRegistry, GeneVocab
from scio.errors import UnsupportedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.h5ad", "a.h5ad", "deep/c.h5ad", "other.txt"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def test_a_name_stands_for_one_or_several_paths(folder):
    registry = DataRegistry({"one": "data/a.h5ad"}, root=folder)
    registry.register("two", [folder / "data/b.h5ad", "data/a.h5ad"])
    assert registry.names() == ["one", "two"]
    assert registry.resolve("one") == [folder / "data/a.h5ad"]
    assert registry.resolve("two") == [folder / "data/b.h5ad", folder / "data/a.h5ad"]


def test_globs_are_sorted_and_match_files_only(folder):
    registry = DataRegistry({"all": "data/**"}, root=folder)
    assert registry.resolve("data/*.h5ad") == [folder / "data/a.h5ad", folder / "data/b.h5ad"]
    assert len(registry.resolve("data/**/*.h5ad")) == 3
    assert {p.name for p in registry.resolve("all")} == {"a.h5ad", "b.h5ad", "c.h5ad", "other.txt"}


def test_brackets_in_the_root_or_in_a_file_name_are_no_pattern(tmp_path):
    root = tmp_path / "run[1]"
    root.mkdir()
    (root / "x[2].h5ad").touch()
    registry = DataRegistry(root=root)
    assert registry.resolve("x[2].h5ad") == [root / "x[2].h5ad"]
    assert registry.resolve("*.h5ad") == [root / "x[2].h5ad"]


def test_paths_are_relative_to_the_working_directory_without_a_root(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert DataRegistry().resolve("data/a.h5ad") == [Path("data/a.h5ad")]
    assert DataRegistry().resolve("data/?.h5ad") == [Path("data/a.h5ad"), Path("data/b.h5ad")]


def test_urls_stay_text():
    registry = DataRegistry({"far": "s3://bucket/x*.h5ad"})
    assert registry.resolve("far") == ["s3://bucket/x*.h5ad"]
    assert registry.resolve("https://host/a.h5ad") == ["https://host/a.h5ad"]


def test_an_unknown_name_is_a_key_error_with_the_near_names():
    registry = DataRegistry({"kang": "a.h5ad", "pbmc": "b.h5ad"})
    with pytest.raises(KeyError, match="no data source is called 'kagn'; did you mean 'kang'"):
        registry.resolve("kagn")


def test_an_empty_glob_is_file_not_found_with_the_pattern(folder):
    with pytest.raises(FileNotFoundError, match=r"no file matches 'data/\*\.h5mu' in /"):
        DataRegistry(root=folder).resolve("data/*.h5mu")


def test_a_missing_file_is_file_not_found(folder):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*z\.h5ad"):
        DataRegistry({"z": "data/z.h5ad"}, root=folder).resolve("z")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        DataRegistry().resolve(folder / "nothing")


@pytest.mark.parametrize("name", ["", "a/b", "a.h5ad", "s3://x", "a*", "~a", 3])
def test_a_name_that_looks_like_a_path_is_refused(name):
    with pytest.raises(ValueError, match="a name is a word"):
        DataRegistry().register(name, "a.h5ad")


def test_a_name_is_not_given_twice():
    registry = DataRegistry({"kang": "a.h5ad"})
    registry.register("kang", "a.h5ad")  # the same again is no contradiction
    with pytest.raises(ValueError, match=r"'kang' is registered already, for a\.h5ad"):
        registry.register("kang", "b.h5ad")
    assert repr(registry) == "DataRegistry({'kang': ['a.h5ad']}, root=None)"


def test_sources_are_paths():
    with pytest.raises(TypeError, match="'x' has a int"):
        DataRegistry({"x": [3]})  # type: ignore[list-item]
    with pytest.raises(ValueError, match="'x' needs at least one path"):
        DataRegistry({"x": []})


def test_open_gives_a_dataset_over_all_files_of_a_name(tiny_h5ad):
    registry = DataRegistry({"tiny": [tiny_h5ad, tiny_h5ad], "pbmc": scio.datasets.pbmc3k()})
    cells = registry.open("tiny", None, max_genes=3, obs_keys=["depth"])
    assert (len(cells), cells.store.n_datasets, cells.max_genes) == (422, 2, 3)
    assert cells[0]["metadata"] == {"depth": 0.0}
    some = GeneVocab.from_genes(["CD3D", "LYZ"])
    pbmc = registry.open("pbmc", some, indices=np.arange(10))
    assert (len(pbmc), pbmc.gene_vocab) == (10, some)


def test_opening_a_url_says_that_it_cannot_yet():
    with pytest.raises(UnsupportedError, match="local files only"):
        DataRegistry().open("s3://bucket/x.h5ad", None)
