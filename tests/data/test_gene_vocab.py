"""GeneVocab: numbering, files, errors."""

from __future__ import annotations

import gzip
import json

import anndata
import numpy as np
import pandas as pd
import pytest

import scio
from scio.data import GeneVocab
from scio.errors import IOFormatError, ScioWarning

GENES = ["TP53", "CD3D", "MS4A1"]


@pytest.fixture
def vocab() -> GeneVocab:
    return GeneVocab.from_genes(GENES)


def test_special_tokens_stand_at_0_to_3(vocab):
    assert vocab.encode(["<pad>", "<unk>", "<mask>", "<cls>"]).tolist() == [0, 1, 2, 3]
    assert vocab.decode([0, 1, 2, 3]) == ["<pad>", "<unk>", "<mask>", "<cls>"]
    assert "<pad>" not in vocab
    assert len(vocab) == len(GENES) + 4


def test_encode_and_decode_are_inverse_and_unknown_is_unk(vocab):
    ids = vocab.encode([*GENES, "nothing"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [4, 5, 6, 1]
    assert vocab.decode(ids) == [*GENES, "<unk>"]
    assert vocab.decode([999]) == ["<unk>"]


def test_encode_refuses_one_str(vocab):
    with pytest.raises(TypeError, match=r"encode\(\['TP53'\]\)"):
        vocab.encode("TP53")


def test_getitem_offers_near_names(vocab):
    assert vocab["CD3D"] == 5
    with pytest.raises(KeyError, match="CD3D"):
        vocab["CD3d"]


def test_repeated_genes_keep_the_first_and_are_counted():
    with pytest.warns(ScioWarning, match="2 of 5"):
        vocab = GeneVocab.from_genes(["A", "B", "A", "C", "B"])
    assert vocab.genes == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"A": 3}, "start at 4"),
        ({"A": -1}, "start at 4"),
        ({"A": 4, "B": 4}, "belongs to 'A' and to 'B'"),
        ({"<pad>": 4}, "special token"),
    ],
)
def test_wrong_ids_are_value_errors(mapping, text):
    with pytest.raises(ValueError, match=text):
        GeneVocab(mapping)


def test_alignment_pairs_shared_genes_in_source_order(vocab):
    source, ids = vocab.get_alignment_indices(["X", "MS4A1", "TP53"])
    assert source.tolist() == [1, 2]
    assert ids.tolist() == [6, 4]
    assert source.dtype == ids.dtype == np.int64


def test_alignment_takes_the_first_of_duplicates_and_warns(vocab):
    with pytest.warns(ScioWarning, match="1 genes"):
        source, _ = vocab.get_alignment_indices(["CD3D", "CD3D", "TP53"])
    assert source.tolist() == [0, 2]


@pytest.mark.parametrize("suffix", ["json", "tsv"])
def test_save_and_from_file_round_trip(vocab, tmp_path, suffix):
    path = tmp_path / "deep" / f"vocab.{suffix}"
    vocab.save(path)
    again = GeneVocab.from_file(path)
    assert again == vocab
    assert again.hash_hex == vocab.hash_hex
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_save_refuses_other_suffixes(vocab, tmp_path):
    with pytest.raises(ValueError, match=r"\.json or \.tsv"):
        vocab.save(tmp_path / "vocab.csv")


def test_from_file_reads_list_lines_and_gzip(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(GENES))
    (tmp_path / "lines.tsv").write_text("TP53\n\nCD3D\nMS4A1\n")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(json.dumps(GENES).encode()))
    for name in ("list.json", "lines.tsv", "packed.gz"):
        assert GeneVocab.from_file(tmp_path / name).genes == GENES


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"\xff\xfe\x00binary", "no text file"),
        (b"abc\0def", "NUL"),
        (b"[1, 2]", "gene names are strings"),
        (b'{"A": 2}', "start at 4"),
        (b"gene\tindex\nA\tx\n", "line 2"),
        (b"gene\tindex\nA\t4\nA\t5\n", "line 3"),
        (b"gene\tindex\nA\t3\n", "start at 4"),
        (b'{"A": ', "vocab"),
    ],
)
def test_from_file_names_line_or_key(tmp_path, content, text):
    path = tmp_path / "vocab"
    path.write_bytes(content)
    with pytest.raises(IOFormatError, match=text):
        GeneVocab.from_file(path)


def test_from_file_missing():
    with pytest.raises(FileNotFoundError):
        GeneVocab.from_file("no such file")


def test_from_adata_takes_objects_paths_and_handles(tmp_path):
    var = pd.DataFrame({"symbol": ["a", "b"]}, index=["ENSG1", "ENSG2"])
    adata = anndata.AnnData(np.ones((3, 2), dtype=np.float32), var=var)
    path = tmp_path / "x.h5ad"
    adata.write_h5ad(path)
    for source in (adata, path, scio.open(path)):
        assert GeneVocab.from_adata(source).genes == ["ENSG1", "ENSG2"]
        assert GeneVocab.from_adata(source, key="symbol").genes == ["a", "b"]
        with pytest.raises(KeyError, match="symbol"):
            GeneVocab.from_adata(source, key="symbols")


def test_human_protein_coding_has_the_published_counts():
    symbols = GeneVocab.human_protein_coding()
    ensembl = GeneVocab.human_protein_coding(id="ensembl")
    assert len(symbols.genes) == 20_092
    assert len(ensembl.genes) == 20_120
    assert ensembl.genes == sorted(ensembl.genes)
    assert {"TP53", "CD3D", "MS4A1"} <= set(symbols.genes)
    assert "GENCODE v48" in symbols.source
    assert "MIT" in symbols.source


def test_equality_and_hash_follow_genes_and_ids(vocab):
    assert vocab == GeneVocab.from_genes(GENES)
    assert vocab != GeneVocab.from_genes(GENES[::-1])
    assert vocab.hash_hex != GeneVocab.from_genes(GENES[::-1]).hash_hex
    assert list(vocab) == GENES
