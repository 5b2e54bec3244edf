"""PreprocessingPipeline: formulas against float64, arguments, files."""

from __future__ import annotations

import numpy as np
import pytest

import scio
from scio.data import CellDataset, PreprocessingPipeline
from scio.errors import IOFormatError, NotFittedError, ScioWarning

NAMES = ["a", "b", "c", "d"]
COUNTS = np.array([[10, 0, 30, 60], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=np.float32)


def plain(counts: np.ndarray, normalize: str | None, target: float, log: bool) -> np.ndarray:
    """The same in float64, as the formula reads."""
    out = counts.astype(np.float64)
    if normalize == "library_size":
        total = out.sum(axis=-1, keepdims=True)
        out = np.where(total == 0, out, out * (target / np.where(total == 0, 1, total)))
        out = out.astype(np.float32).astype(np.float64)
    return np.log1p(out) if log or normalize == "log1p" else out


@pytest.mark.parametrize("normalize", ["library_size", "log1p", None])
@pytest.mark.parametrize("log", [True, False])
def test_block_equals_the_formula(normalize, log):
    pipeline = PreprocessingPipeline(normalize, 1e4, log1p=log)
    before = COUNTS.copy()
    got, names = pipeline(COUNTS, NAMES)
    np.testing.assert_array_max_ulp(got, plain(COUNTS, normalize, 1e4, log).astype(np.float32), 1)
    assert got.dtype == np.float32
    assert names == NAMES
    np.testing.assert_array_equal(COUNTS, before)


def test_total_is_taken_before_any_restriction():
    got, _ = PreprocessingPipeline()(np.float32([10, 30]), ["a", "c"], total=100)
    np.testing.assert_allclose(got, [np.log1p(1000), np.log1p(3000)], rtol=1e-6)
    np.testing.assert_array_equal(got.round(2), np.float32([6.91, 8.01]))


def test_float64_stays_float64_and_integers_become_float32():
    assert PreprocessingPipeline()(COUNTS.astype(np.float64), NAMES)[0].dtype == np.float64
    assert PreprocessingPipeline()(COUNTS.astype(np.int32), NAMES)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"normalize": "cpm"}, "library_size"),
        ({"target_sum": 0}, "target_sum"),
        ({"target_sum": float("nan")}, "target_sum"),
        ({"hvg_selection": 0}, "hvg_selection"),
        ({"hvg_flavor": "seurat_v33"}, "seurat_v3"),
    ],
)
def test_wrong_arguments_are_value_errors_at_construction(arguments, text):
    with pytest.raises(ValueError, match=text):
        PreprocessingPipeline(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"hvg_selection": 5}, {"normalize": "scran"}, {"target_sum": None}]
)
def test_what_must_be_learned_raises_not_fitted_and_never_fits_by_itself(arguments, tiny_h5ad):
    pipeline = PreprocessingPipeline(**arguments)
    assert pipeline.needs_fit
    assert not pipeline.is_fitted
    with pytest.raises(NotFittedError, match="fit"):
        pipeline(COUNTS, NAMES)
    with pytest.raises(NotFittedError, match="fit"):
        CellDataset(tiny_h5ad, None, pipeline)


def test_names_and_columns_must_agree():
    with pytest.raises(ValueError, match="gene_names has 2"):
        PreprocessingPipeline()(COUNTS, ["a", "b"])


def test_json_round_trip_is_exact(tmp_path):
    pipeline = PreprocessingPipeline("library_size", 12345.678901234567, log1p=False)
    pipeline.save(tmp_path / "p.json")
    assert PreprocessingPipeline.load(tmp_path / "p.json") == pipeline
    (tmp_path / "bad.json").write_text('{"normalise": null}')
    with pytest.raises(IOFormatError, match="normalize"):
        PreprocessingPipeline.load(tmp_path / "bad.json")


@pytest.mark.parametrize("log", [True, False])
def test_float64_has_the_bits_of_scio_pp(log):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (50, 8)) * rng.random((50, 8))
    got, _ = PreprocessingPipeline(log1p=log)(counts, list("abcdefgh"))
    with pytest.warns(ScioWarning, match="no integers"):
        expected = scio.pp.normalize_total(counts, target_sum=1e4)
    expected = scio.pp.log1p(expected) if log else expected
    assert got.dtype == np.float64
    assert got.tobytes() == expected.tobytes()
    assert (
        got[7].tobytes()
        == PreprocessingPipeline(log1p=log)(counts[7], list("abcdefgh"))[0].tobytes()
    )


def test_a_dict_with_an_unknown_key_is_refused():
    with pytest.raises(ValueError, match="unknown key 'fited'"):
        PreprocessingPipeline.from_dict({"fited": None})
