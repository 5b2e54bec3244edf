"""The data section of YAML: loading, messages, and what is built from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import yaml

import scio
from scio.data import (
    CellDataset,
    DataConfig,
    DataPipeline,
    DataRegistry,
    PreprocessingPipeline,
    build,
    load_config,
)
from scio.errors import (
    IOFormatError,
    MissingDependencyError,
    UnsupportedError,
)
from tests.data.conftest import make_adata, rewrite

LOCAL = """\
data:
  source: local
  paths:
    - ./data/dataset1.h5ad
    - ./data/dataset2.h5ad
  gene_vocab: human_protein_coding  # or path to custom vocab file
  preprocessing:
    normalize: library_size
    target_sum: 10000
    hvg_selection: 2000
    log1p: true
  max_genes: 2048
  num_workers: 4
"""
CENSUS = """\
data:
  source: cellxgene_census
  organism: homo_sapiens
  filters:
    tissue: [lung, heart, liver]
    is_primary_data: true
    assay: ["10x 3' v3"]
  census_version: "2024-07-01"  # Pin version for reproducibility
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# --- the two blocks of the seed


def test_the_local_block_loads_as_it_stands(tmp_path):
    config = load_config(write(tmp_path / "train.yaml", LOCAL))
    assert config.paths == [str(tmp_path / f"data/dataset{i}.h5ad") for i in (1, 2)]
    assert config.gene_vocab == "human_protein_coding"
    assert config.preprocessing is not None
    assert config.preprocessing.model_dump(exclude_unset=True) == {
        "normalize": "library_size",
        "target_sum": 10000.0,
        "hvg_selection": 2000,
        "log1p": True,
    }
    assert (config.max_genes, config.num_workers) == (2048, 4)


def test_the_census_block_loads_as_it_stands(tmp_path):
    config = load_config(write(tmp_path / "census.yaml", CENSUS))
    assert config.model_dump(exclude_unset=True) == {
        "source": "cellxgene_census",
        "organism": "homo_sapiens",
        "filters": {
            "tissue": ["lung", "heart", "liver"],
            "is_primary_data": True,
            "assay": ["10x 3' v3"],
        },
        "census_version": "2024-07-01",
    }


def test_building_the_local_block_selects_genes_of_the_vocabulary(tmp_path):
    path = write(tmp_path / "train.yaml", LOCAL)
    (tmp_path / "data").mkdir()
    for i in (1, 2):
        os.symlink(scio.datasets.pbmc3k(), tmp_path / f"data/dataset{i}.h5ad")
    made = build(path)
    assert made.pipeline is not None
    assert len(made.pipeline.selected_genes) == 2000
    assert set(made.pipeline.selected_genes) <= set(made.vocab.genes)
    batch = next(iter(made.loader))
    assert tuple(batch["expression"].shape) == (64, 2048)
    selected = set(made.vocab.encode(made.pipeline.selected_genes).tolist())
    assert set(np.unique(batch["gene_indices"]).tolist()) <= selected | {0}


def test_the_local_block_without_gene_selection_builds_a_working_loader(tmp_path):
    text = LOCAL.replace("    hvg_selection: 2000\n", "")
    path = write(tmp_path / "train.yaml", text)
    (tmp_path / "data").mkdir()
    for i in (1, 2):
        os.symlink(scio.datasets.pbmc3k(), tmp_path / f"data/dataset{i}.h5ad")
    made = build(path)
    assert isinstance(made, DataPipeline)
    assert len(made.dataset) == 5400
    batch = next(iter(made.loader))
    assert tuple(batch["expression"].shape) == (64, 2048)
    assert len(made.vocab) == made.vocab.n_ids == 20_092 + 4
    assert made.pipeline is not None
    assert made.pipeline.to_dict()["target_sum"] == 10_000
    item = made.dataset[int(batch["index"][0])]
    n = item["n_genes"]
    assert int(batch["n_genes"][0]) == n
    assert np.array_equal(batch["expression"][0, :n], item["expression"])


def test_building_the_census_block_stops_at_the_missing_package_with_its_pip_line(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cellxgene_census", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match="pip install 'cellxgene_census'"):
        build(write(tmp_path / "census.yaml", CENSUS))


# --- loading


def test_paths_are_relative_to_the_file_and_names_globs_and_urls_stay_what_they_are(tmp_path):
    folder = tmp_path / "run [1]"
    path = write(
        folder / "c.yaml",
        """
        model: {anything: goes}
        data:
          paths: [a.h5ad, ../b.h5ad, /abs/c.h5ad, ./plain, "d/*.h5ad", kang, "s3://bucket/e.h5ad"]
          gene_vocab: vocab.json
          cache: cache
          cache_dir: ./copies
          multi_species: {ortholog_table: table.tsv}
        """,
    )
    config = load_config(path)
    assert config.paths == [
        f"{folder}/a.h5ad",
        f"{tmp_path}/b.h5ad",
        "/abs/c.h5ad",
        f"{folder}/plain",
        f"{tmp_path}/run [[]1]/d/*.h5ad",
        "kang",
        "s3://bucket/e.h5ad",
    ]
    assert config.gene_vocab == f"{folder}/vocab.json"
    assert (config.cache, config.cache_dir) == (f"{folder}/cache", f"{folder}/copies")
    assert config.multi_species is not None
    assert config.multi_species.ortholog_table == f"{folder}/table.tsv"
    auto = load_config(write(folder / "d.yaml", "data: {paths: [kang], cache: auto}"))
    assert auto.cache == "auto"
    (folder / "d").mkdir()
    (folder / "d" / "f.h5ad").touch()
    assert DataRegistry().resolve(config.paths[4]) == [folder / "d" / "f.h5ad"]


def test_a_mapping_is_the_file_or_its_section_and_is_left_alone():
    section = {"paths": [Path("a.h5ad"), "b.h5ad"], "seed": 3}
    for given in (section, {"data": section, "model": 1}):
        config = load_config(given)
        assert config.paths == ["a.h5ad", "b.h5ad"]
        assert config.model_fields_set == {"paths", "seed"}
    assert config == DataConfig(paths=["a.h5ad", "b.h5ad"], seed=3)


def test_a_config_is_frozen():
    config = load_config({"paths": ["a.h5ad"]})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


WRONG = {
    "unknown key": ({"max_gene": 3}, "data.max_gene: unknown key; did you mean 'max_genes'"),
    "unknown key below": (
        {"preprocessing": {"normalise": None}},
        "data.preprocessing.normalise: unknown key; did you mean 'normalize'",
    ),
    "unknown key of sampling": (
        {"batch_sampling": {"batchkey": "a"}},
        "data.batch_sampling.batchkey: unknown key; did you mean 'batch_key'",
    ),
    "unknown key of species": (
        {"multi_species": {"organism": ["human"]}},
        "data.multi_species.organism: unknown key; did you mean 'organisms'",
    ),
    "unknown key of perturbation": (
        {"perturbation": {"control": "x"}},
        "data.perturbation.control: unknown key; did you mean 'control_label'",
    ),
    "no text for a key": ({3: 4}, "data.3: unknown key; there are 'source'"),
    "one path, not a list": ({"paths": "a.h5ad"}, "data.paths: input should be a valid list"),
    "no path": ({"paths": []}, "data.paths: list should have at least 1 item"),
    "number for a path": (
        {"paths": ["a", 1]},
        "data.paths.1: input should be a valid string, not 1",
    ),
    "text for a number": (
        {"max_genes": "9"},
        "data.max_genes: input should be a valid integer, not '9'",
    ),
    "bool for a number": (
        {"num_workers": True},
        "data.num_workers: input should be a valid integer",
    ),
    "number for a bool": (
        {"drop_last": 1},
        "data.drop_last: input should be a valid boolean, not 1",
    ),
    "zero genes": ({"max_genes": 0}, "data.max_genes: input should be greater than or equal to 1"),
    "zero batch": (
        {"batch_size": 0},
        "data.batch_size: input should be greater than or equal to 1",
    ),
    "negative workers": ({"num_workers": -1}, "data.num_workers: input should be greater than"),
    "negative seed": ({"seed": -1}, "data.seed: input should be greater than"),
    "unknown source": ({"source": "lokal"}, "data.source: .*did you mean 'local'"),
    "unknown normalize": (
        {"preprocessing": {"normalize": "libsize"}},
        "data.preprocessing.normalize: input should be 'library_size', .* not 'libsize'; did you mean",
    ),
    "unknown flavor": ({"preprocessing": {"hvg_flavor": "v3"}}, "data.preprocessing.hvg_flavor: "),
    "no mapping": ({"preprocessing": "log1p"}, "data.preprocessing: input should be a valid dict"),
    "negative sum": (
        {"preprocessing": {"target_sum": -1}},
        "data.preprocessing.target_sum: input should be greater than 0, not -1",
    ),
    "text that YAML makes of 1e4": (
        {"preprocessing": {"target_sum": "1e4"}},
        "data.preprocessing.target_sum: '1e4' is text; YAML takes 1e4 for text too, write 10000",
    ),
    "unknown shuffle": (
        {"shuffle": "fast"},
        "data.shuffle: expected true, false, 'exact', 'block'",
    ),
    "obs keys": ({"obs_keys": "cell_type"}, "data.obs_keys: expected a list of texts, 'all', null"),
    "memory": ({"max_memory": "2 jars"}, "data.max_memory: .*'500MB' or '2GiB', not '2 jars'"),
    "memory as bool": ({"max_memory": True}, "data.max_memory: a number of bytes or a text"),
    "unknown form": ({"form": "token"}, "data.form: .*did you mean 'tokens'"),
    "unknown dtype": ({"dtype": "float64"}, "data.dtype: .*'float32' or 'float16'"),
    "unknown exhausted": (
        {"batch_sampling": {"exhausted": "end"}},
        "data.batch_sampling.exhausted: ",
    ),
    "a key of another source": (
        {"organism": "homo_sapiens"},
        "data.organism: is read with source cellxgene_census, not with local",
    ),
    "a filter of another source": ({"filters": {"a": 1}}, "data.filters: is read with source cell"),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_key_or_value_is_named_by_its_path(tmp_path, keys, message):
    section = {"paths": ["a.h5ad"], **keys}
    with pytest.raises(ValueError, match=f"^{message}"):
        load_config({"data": section})
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"data": section}))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
        load_config(path)
    key = message.partition(":")[0].rpartition(".")[2]
    if key != "3":
        with pytest.raises(ValueError, match=key):
            DataConfig(**section)  # pydantic's own message names the key too


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(ValueError, match=r"max_genes: .*\nbatch_size: .*\nform: "):
        load_config({"paths": ["a"], "max_genes": 0, "batch_size": 0, "form": 1})


CENSUS_WRONG = {
    "organism": ({"organism": "human"}, "organism: input should be 'homo_sapiens'"),
    "paths": ({"paths": ["a"]}, "paths: is read with source local or shards or streaming"),
    "filter key": (
        {"filters": {"a b": 1}},
        "filters: a filter names an obs column by an identifier",
    ),
    "filter value": ({"filters": {"a": None}}, "filters: the filter 'a' has a NoneType"),
    "empty filter": (
        {"filters": {"tissue": []}},
        "filters: the list of the filter 'tissue' is empty",
    ),
    "version": ({"census_version": 20240701}, "census_version: input should be a valid string"),
}


@pytest.mark.parametrize(("keys", "message"), CENSUS_WRONG.values(), ids=CENSUS_WRONG)
def test_wrong_keys_of_a_census_source(keys, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        load_config({"source": "cellxgene_census", **keys})


def test_a_census_version_without_quotes_is_a_date_and_still_text(tmp_path):
    path = write(tmp_path / "c.yaml", CENSUS.replace('"2024-07-01"', "2024-07-01"))
    assert load_config(path).census_version == "2024-07-01"


@pytest.mark.parametrize("source", ["local", "shards", "streaming"])
def test_missing_paths_are_named(source):
    with pytest.raises(ValueError, match=f"^data.paths: missing; source {source}"):
        load_config({"data": {"source": source}})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "has no key 'data' at the top; no keys"),
        ("dta: {paths: [a]}", ValueError, "no key 'data' at the top; did you mean 'dta'"),
        ("data:", ValueError, "data is a mapping of keys to values, not None"),
        ("data: [a]", ValueError, r"data is a mapping of keys to values, not \['a'\]"),
        ("data: {paths: [a", IOFormatError, r"is no YAML: .*\n(.*\n)*.*line 1"),
        ("data: !!python/object:os.system {}", IOFormatError, "is no YAML"),
    ],
)
def test_files_that_hold_no_section(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        load_config(write(tmp_path / "c.yaml", text))


def test_a_binary_file_is_no_yaml(tmp_path):
    with pytest.raises(IOFormatError, match="is no YAML"):
        load_config(scio.datasets.pbmc3k())
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "nothing.yaml")


def test_the_json_schema_knows_every_key():
    schema = json.loads(json.dumps(DataConfig.model_json_schema()))
    assert set(schema["properties"]) == set(DataConfig.model_fields)
    assert schema["additionalProperties"] is False
    assert "normalize" in schema["$defs"]["PreprocessingConfig"]["properties"]


def test_without_pydantic_or_yaml_the_pip_line_is_said(tmp_path):
    path = write(tmp_path / "c.yaml", LOCAL)
    code = """
        import sys
        sys.modules[sys.argv[1]] = None
        from scio.data import build, load_config
        try:
            load_config(sys.argv[2])
        except ImportError as error:
            print(type(error).__name__, error)
    """
    for module in ("pydantic", "yaml"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), module, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("MissingDependencyError")
        assert module in done.stdout
        assert "pip install 'scio[config]'" in done.stdout


def test_scio_data_itself_does_not_import_pydantic():
    code = "import sys, scio.data; print('pydantic' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- building


def test_build_equals_the_same_classes_made_by_hand(tiny_h5ad):
    made = build(
        {
            "paths": [tiny_h5ad, str(tiny_h5ad)],
            "preprocessing": {"target_sum": 100.0},
            "max_genes": 7,
            "obs_keys": ["depth"],
            "batch_size": 16,
            "num_workers": 1,
            "seed": 5,
            "max_memory": "64MB",
        }
    )
    from scio.data import CellDataLoader, PreprocessingPipeline

    cells = CellDataset(
        [tiny_h5ad, tiny_h5ad],
        None,
        PreprocessingPipeline(target_sum=100.0),
        7,
        obs_keys=["depth"],
        seed=5,
    )
    loader = CellDataLoader(cells, 16, 1, seed=5, max_memory="64MB")
    assert made.pipeline == cells.preprocessing
    assert made.vocab == cells.gene_vocab
    for got, expected in zip(made.loader, loader, strict=True):
        assert got.keys() == expected.keys()
        for key in ("expression", "gene_indices", "attention_mask", "n_genes", "index"):
            assert np.array_equal(got[key], expected[key])
        assert np.array_equal(got["metadata"]["depth"], expected["metadata"]["depth"])


def test_raw_values_without_a_preprocessing_section(tiny_h5ad, tiny_adata):
    made = build({"paths": [tiny_h5ad], "form": "dense", "shuffle": False, "drop_last": False})
    assert made.pipeline is None
    rows = np.concatenate([batch["expression"].numpy() for batch in made.loader])
    assert np.array_equal(rows, tiny_adata.X.toarray())


# A value for each key that this version builds, and where it must arrive.
READ: dict[str, tuple[Any, Any]] = {
    "gene_vocab": ("VOCAB", lambda made: len(made.vocab) == 3 + 4),
    "preprocessing": ({"log1p": False}, lambda made: made.pipeline.log1p is False),
    "max_genes": (5, lambda made: made.loader.max_genes == made.dataset.max_genes == 5),
    "obs_keys": (["depth"], lambda made: made.dataset.store.obs_keys == ["depth"]),
    "batch_size": (9, lambda made: made.loader.batch_size == 9),
    "num_workers": (0, lambda made: made.loader.num_workers == 0),
    "shuffle": (False, lambda made: made.loader.shuffle is False),
    "drop_last": (False, lambda made: made.loader.drop_last is False),
    "pin_memory": (False, lambda made: made.loader.pin_memory is False),
    "seed": (8, lambda made: made.loader.seed == made.dataset.seed == 8),
    "max_memory": ("9MB", lambda made: made.loader.max_memory == 9_000_000),
    "form": ("csr", lambda made: made.loader.form == "csr"),
    "batch_sampling": (
        {"batch_key": "cell_type", "exhausted": "stop"},
        lambda made: (
            (made.loader.batch_sampler.batch_key, made.loader.batch_sampler.exhausted)
            == ("cell_type", "stop")
        ),
    ),
}
# Keys that are passed on or refused; tests of their own below.
ELSEWHERE = {
    *("source", "paths", "organism", "filters", "census_version"),
    *("cache", "dtype", "perturbation", "multi_species", "storage_options", "cache_dir"),
}


@pytest.mark.parametrize("key", READ)
def test_every_key_is_read_by_somebody(key, tiny_h5ad, tmp_path):
    value, arrived = READ[key]
    if value == "VOCAB":
        value = str(tmp_path / "vocab.json")
        Path(value).write_text('["gene1", "gene2", "gene3"]')
    default = build({"paths": [tiny_h5ad], "preprocessing": {}})
    try:
        is_default = arrived(default)
    except AttributeError:  # no batch sampler
        is_default = False
    assert not is_default  # else the test would pass with a key that nobody reads
    assert arrived(build({"paths": [tiny_h5ad], "preprocessing": {}, key: value}))


def test_no_key_is_without_a_test():
    assert set(READ) | ELSEWHERE == set(DataConfig.model_fields)


@pytest.mark.parametrize(("key", "value"), [("cache", "auto"), ("dtype", "float16")])
def test_cache_and_dtype_reach_the_loader_as_they_are(key, value, tiny_h5ad, monkeypatch):
    seen = {}

    class Loader(scio.data.CellDataLoader):
        def __init__(self, dataset: CellDataset, **arguments: Any) -> None:
            seen.update(arguments)

    monkeypatch.setattr("scio.data.config.CellDataLoader", Loader)
    build({"paths": [tiny_h5ad], key: value})
    assert seen == {key: value}  # nothing that the config does not say


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("perturbation", {}),
        ("multi_species", {}),
        ("storage_options", {"anon": True}),
        ("cache_dir", "copies"),
    ],
)
def test_what_this_version_cannot_build_says_so(key, value, tiny_h5ad):
    config = load_config({"paths": [str(tiny_h5ad)], key: value})
    with pytest.raises(UnsupportedError, match=f"^{key} loads as a config, but this version"):
        build(config)


@pytest.mark.parametrize("source", ["shards", "streaming"])
def test_other_sources_load_and_say_that_they_cannot_be_built(source):
    with pytest.raises(UnsupportedError, match=f"^source {source} loads as a config, but"):
        build({"source": source, "paths": ["a"]})


def test_batch_sampling_gives_balanced_batches(tiny_h5ad):
    section = {
        "paths": [tiny_h5ad],
        "batch_size": 8,
        "seed": 3,
        "batch_sampling": {"batch_key": "cell_type"},
    }
    made = build(section)
    labels = [batch["metadata"]["cell_type"] for batch in made.loader]
    assert len(labels) == len(made.loader)
    assert all(sorted(set(names)) == [f"type{i}" for i in range(4)] for names in labels)
    assert all(names.count(name) == 2 for names in labels for name in names)


def test_split_gives_a_pipeline_for_each_part(tiny_h5ad):
    section = {
        "paths": [tiny_h5ad],
        "batch_size": 8,
        "seed": 3,
        "batch_sampling": {"batch_key": "cell_type"},
    }
    shares = {"test": 0.25, "train": 0.75}
    parts = build(section, split=shares)
    expected = CellDataset(tiny_h5ad, None).split(shares, seed=3)
    assert list(parts) == ["test", "train"]
    for name, part in parts.items():
        assert np.array_equal(part.dataset.cells, expected[name].cells)
        assert part.vocab == parts["train"].vocab
    assert parts["train"].loader.batch_sampler is not None
    test = parts["test"].loader
    assert (test.batch_sampler, test.shuffle, test.drop_last) == (None, False, False)
    seen = np.concatenate([batch["index"] for batch in test])
    assert np.array_equal(seen, expected["test"].cells)  # whole and in order


def test_split_by_groups_keeps_them_whole(tiny_h5ad):
    parts = build({"paths": [tiny_h5ad]}, split={"a": 0.5, "b": 0.5}, by="batch")
    groups = [
        set(part.dataset.store.column("batch").take(part.dataset.cells)) for part in parts.values()
    ]
    assert not groups[0] & groups[1]
    with pytest.raises(ValueError, match="by= belongs to split="):
        build({"paths": [tiny_h5ad]}, by="batch")


@pytest.mark.parametrize(
    "keys", [{"hvg_selection": 10}, {"target_sum": None}], ids=lambda keys: next(iter(keys))
)
def test_what_must_be_learned_is_learned_from_the_training_part(keys, full_h5ad):
    section = {"paths": [full_h5ad], "preprocessing": keys, "batch_size": 20}
    shares = {"other": 0.5, "train": 0.5}
    made = build(section, split=shares)
    training = CellDataset(full_h5ad, None).split(shares, seed=0)["train"]
    expected = PreprocessingPipeline(**keys).fit(training)
    assert made["train"].pipeline == made["other"].pipeline == expected
    assert expected != PreprocessingPipeline(**keys).fit(full_h5ad)
    assert build(section).pipeline == PreprocessingPipeline(**keys).fit(full_h5ad)
    for part in made.values():
        assert sum(len(batch["index"]) for batch in part.loader) > 0


def test_size_factors_are_those_of_all_cells_and_serve_every_part(full_h5ad):
    section = {"paths": [full_h5ad], "preprocessing": {"normalize": "scran"}, "drop_last": False}
    made = build(section, split={"train": 0.5, "other": 0.5})
    expected = PreprocessingPipeline("scran").fit(full_h5ad)
    assert made["train"].pipeline == made["other"].pipeline == expected
    assert sum(len(b["index"]) for part in made.values() for b in part.loader) == 200


def test_a_fitted_pipeline_is_kept_in_the_cache_and_fitted_anew_for_other_data(
    tmp_path, monkeypatch, full_adata
):
    honest, fits = PreprocessingPipeline.fit, []

    def fit(self: PreprocessingPipeline, source: Any, **options: Any) -> PreprocessingPipeline:
        fits.append(source)
        return honest(self, source, **options)

    monkeypatch.setattr(PreprocessingPipeline, "fit", fit)
    path = rewrite(full_adata, tmp_path / "a.h5ad")
    section = {
        "paths": [str(path)],
        "preprocessing": {"hvg_selection": 7},
        "cache": str(tmp_path / "c"),
    }
    first = build(section)
    again = build(section)
    assert len(fits) == 1
    assert again.pipeline == first.pipeline
    (kept,) = (tmp_path / "c" / "pipelines").iterdir()
    kept.write_text("{")  # broken: made anew
    assert build(section).pipeline == first.pipeline
    assert len(fits) == 2
    build({**section, "preprocessing": {"hvg_selection": 8}})
    build(section, split={"train": 0.5, "other": 0.5})
    assert len(fits) == 4
    rewrite(full_adata[:150].copy(), path)
    other = build(section)
    assert len(fits) == 5
    assert other.pipeline != first.pipeline


def test_names_globs_and_files_of_a_config_are_resolved(tmp_path, tiny_h5ad):
    for i in range(2):
        make_adata(n_cells=20 + i).write_h5ad(tmp_path / f"x{i}.h5ad")
    path = write(tmp_path / "c.yaml", 'data: {paths: [tiny, "x*.h5ad", x1.h5ad]}')
    made = build(path, registry=DataRegistry({"tiny": tiny_h5ad}))
    assert [len(made.dataset), made.dataset.store.n_datasets] == [211 + 20 + 21 + 21, 4]
    with pytest.raises(KeyError, match="no data source is called 'tiny'; did you mean 'tony'"):
        build(path, registry=DataRegistry({"tony": tiny_h5ad}))
    with pytest.raises(FileNotFoundError, match="no file matches"):
        build(write(tmp_path / "d.yaml", 'data: {paths: ["y*.h5ad"]}'))
    with pytest.raises(UnsupportedError, match="local files only"):
        build({"paths": ["s3://bucket/x.h5ad"]})


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")  # of anndata, the oracle
def test_real_files_of_other_formats_build(shared_data):
    folder = shared_data / "h5ad_formats"
    names = ["pbmc68k_reduced_enc02.h5ad", "anndata_archive_v0.7.8.h5ad"]
    for name in names:
        adata = anndata.read_h5ad(folder / name)
        made = build(
            {"paths": [folder / name], "obs_keys": [], "drop_last": False, "shuffle": False}
        )
        index = np.concatenate([batch["index"] for batch in made.loader])
        assert np.array_equal(index, np.arange(adata.n_obs))
        assert made.vocab.genes == [str(g) for g in adata.var_names]
