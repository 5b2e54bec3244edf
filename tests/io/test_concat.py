"""concat_on_disk: what anndata.concat gives for the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import scio
from scio.errors import ScioWarning, UnsupportedError
from scio.io import _pieces, transpose
from scio.io.concat import concat_on_disk
from scio.testing import assert_equal
from tests.io.large import canonical, in_layout, small_adata

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*old version of AnnData",
    "ignore:.*without encoding metadata",
    "ignore:.*not unique",
    "ignore:The behavior of array concatenation",
    "ignore:The behavior of DataFrame concatenation",
)


def _assert_concat(files: dict[str, Path], tmp_path: Path, **options: Any) -> None:
    """Compare with anndata's, in memory."""
    wanted = anndata.concat(
        {key: anndata.read_h5ad(path) for key, path in files.items()}, **options
    )
    for frame in (
        wanted.obs,
        wanted.var,
    ):  # booleans with holes are objects there, which no file holds
        for name in frame.columns:
            if frame[name].dtype == object and pd.api.types.infer_dtype(frame[name]) == "boolean":
                frame[name] = frame[name].astype("boolean")
    concat_on_disk(files, tmp_path / "out.h5ad", **options)
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert getattr(found.X, "format", "dense") == getattr(wanted.X, "format", "dense")
    assert_equal(canonical(found, to="csr"), canonical(wanted, to="csr"))


def _write(adatas: list[anndata.AnnData], tmp_path: Path) -> dict[str, Path]:
    files = {}
    for i, adata in enumerate(adatas):
        files[f"k{i}"] = tmp_path / f"{i}.h5ad"
        adata.write_h5ad(files[f"k{i}"])
    return files


def _small_windows(patch: pytest.MonkeyPatch, most: int) -> None:
    patch.setattr(_pieces, "entries_within", lambda *_: most)
    patch.setattr(transpose, "entries_within", lambda *_: most)
    patch.setattr(_pieces, "_DENSE_COPIES", (256 << 20) // (100 * most))


_LAYOUTS = st.lists(st.sampled_from(["csr", "csc", "dense"]), min_size=1, max_size=3)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(
    layouts=_LAYOUTS,
    is_dense=st.booleans(),
    same_genes=st.booleans(),
    most=st.integers(1, 60),
    axis=st.sampled_from(["obs", "var", 0, 1]),
    join=st.sampled_from(["inner", "outer"]),
    merge=st.sampled_from([None, "same", "unique", "first", "only"]),
    pairwise=st.booleans(),
    names=st.sampled_from([{}, {"label": "batch", "index_unique": "-"}]),
)
def test_made_files_equal_anndata(
    tmp_path: Path,
    layouts: list[str],
    is_dense: bool,
    same_genes: bool,
    most: int,
    axis: Any,
    join: str,
    merge: str | None,
    pairwise: bool,
    names: dict[str, str],
) -> None:
    adatas = []
    for i, layout in enumerate("dense" if is_dense else each for each in layouts):
        order = np.random.default_rng(i).permutation(15)[: 9 + i]
        genes = [f"g{j}" for j in (range(12) if same_genes else order)]
        dtype = "float32" if i % 2 else "int32"
        adata = small_adata(i + 1, n_obs=20 + i, genes=genes, layout=layout, dtype=dtype)
        adata.layers["all"] = in_layout(small_adata(i + 1, n_obs=20 + i, genes=genes).X, layout)
        if i != 1:
            adata.layers["some"] = adata.layers["all"]
        if axis in ("var", 1):
            del adata.obsm["frame"]
            adata.obs_names = [f"c{j + i}" for j in range(adata.n_obs)]
        adatas.append(adata)
    with pytest.MonkeyPatch.context() as patch:
        _small_windows(patch, most)
        _assert_concat(
            _write(adatas, tmp_path),
            tmp_path,
            axis=axis,
            join=join,
            merge=merge,
            uns_merge=merge,
            pairwise=pairwise,
            **names,
        )


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_real_files_equal_anndata(shared_data: Path, tmp_path: Path, join: str) -> None:
    folder = shared_data / "h5ad_formats"
    files = {
        "raw": folder / "pbmc68k_reduced_enc02.h5ad",
        "layer": folder / "lamindb_pbmc68k_30x200_layer_raw.h5ad",
    }
    _assert_concat(files, tmp_path, join=join, label="batch", index_unique="-", merge="first")
    nullable = folder / "anndataR_example_nullable_50x100.h5ad"
    _assert_concat(
        {"a": nullable, "b": nullable}, tmp_path, join=join, index_unique="-", merge="same"
    )
    old = folder / "anndata_archive_v0.7.8.h5ad"
    _assert_concat({"a": old, "b": old}, tmp_path, join=join, index_unique="-")


@pytest.mark.parametrize("fill_value", [0, -1, 2.5])
@pytest.mark.parametrize("axis", ["obs", "var"])
def test_holes_of_dense_matrices_are_filled(tmp_path: Path, fill_value: float, axis: str) -> None:
    adatas = [
        small_adata(2, layout="dense", dtype="int32"),
        small_adata(4, layout="dense", dtype="int32", genes=["g3", "x", "g1"]),
    ]
    for adata in adatas:
        del adata.raw, adata.obsm["columns"]
        if axis == "var":
            del adata.obsm["frame"]
    _assert_concat(
        _write(adatas, tmp_path), tmp_path, axis=axis, join="outer", fill_value=fill_value
    )


def test_holes_of_sparse_matrices_take_no_value(tmp_path: Path) -> None:
    files = _write([small_adata(2), small_adata(4, genes=["g3", "x"])], tmp_path)
    with pytest.raises(UnsupportedError, match=r"X is sparse, and fill_value is -1"):
        concat_on_disk(files, tmp_path / "out.h5ad", join="outer", fill_value=-1)
    assert not (tmp_path / "out.h5ad").exists()


def test_categories_missing_columns_and_nullables_are_joined(tmp_path: Path) -> None:
    def made(**columns: Any) -> anndata.AnnData:
        n = len(next(iter(columns.values())))
        adata = small_adata(2, n_obs=n)
        adata.obs = pd.DataFrame(columns, index=[f"{n}{i}" for i in range(n)])
        del adata.obsm["frame"], adata.uns["ct_colors"]
        return adata

    levels = pd.CategoricalDtype(["low", "high"], ordered=True)
    first = made(
        c=pd.Categorical(["b", None, "a"]),
        o=pd.Series(["low", "high", None], dtype=levels).array,
        n=pd.array([1, None, 3], "Int64"),
        only=[1.0, 2.0, 3.0],
        flag=[True, False, True],
    )
    second = made(
        c=pd.Categorical(["z", "a"], categories=["z", "a", "unused"]),
        o=pd.Series(["low", "low"], dtype=levels).array,
        n=pd.array([None, 5], "Int64"),
    )
    for join in ("inner", "outer"):
        _assert_concat(_write([first, second], tmp_path), tmp_path, join=join)


def test_inputs_may_be_paths_handles_or_a_mapping(tmp_path: Path) -> None:
    files = _write([small_adata(2), small_adata(4)], tmp_path)
    outputs = [tmp_path / f"out{i}.h5ad" for i in range(3)]
    with scio.open(files["k1"]) as handle:
        scio.concat_on_disk([str(files["k0"]), handle], outputs[0], keys=["k0", "k1"], label="b")
        handle.X[:1]  # it is still open
    scio.concat_on_disk(files, outputs[1], label="b")
    scio.concat_on_disk(files.values(), outputs[2], keys=("k0", "k1"), label="b")
    assert len({path.read_bytes() for path in outputs}) == 1


def test_an_input_may_be_the_output(tmp_path: Path) -> None:
    files = _write([small_adata(2), small_adata(4)], tmp_path)
    concat_on_disk(files, files["k0"])
    assert anndata.read_h5ad(files["k0"]).n_obs == 40
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.h5ad", "1.h5ad"]


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_of_cells_that_differ_are_put_side_by_side(tmp_path: Path, join: str) -> None:
    adatas = [small_adata(2, layout="csr"), small_adata(4, layout="dense")]  # no cell in both
    for adata in adatas:
        del adata.obsm["frame"], adata.raw
        adata.var_names = [f"{adata.obs_names[0]}_{i}" for i in range(adata.n_vars)]
    with pytest.MonkeyPatch.context() as patch:
        _small_windows(patch, 7)  # windows in which a file has no cell at all
        _assert_concat(_write(adatas, tmp_path), tmp_path, axis="var", join=join)


def test_csc_leaves_no_temporary_file(tmp_path: Path) -> None:
    files = _write([small_adata(2, layout="csc"), small_adata(4)], tmp_path)
    concat_on_disk(files, tmp_path / "out.h5ad")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.h5ad", "1.h5ad", "out.h5ad"]


def test_wrong_requests_name_what_is_wrong(tmp_path: Path) -> None:
    files = _write([small_adata(2), small_adata(4)], tmp_path)
    out = tmp_path / "out.h5ad"
    with pytest.raises(ValueError, match="no files"):
        concat_on_disk([], out)
    with pytest.raises(TypeError, match="keys come twice"):
        concat_on_disk(files, out, keys=["a", "b"])
    with pytest.raises(ValueError, match="axis is 'obs'"):
        concat_on_disk(files, out, axis="cells")
    with pytest.raises(ValueError, match="join is 'inner' or 'outer', not 'left'"):
        concat_on_disk(files, out, join="left")
    with pytest.raises(ValueError, match="uns_merge is a function or one of"):
        concat_on_disk(files, out, uns_merge="last")
    adata = small_adata(6)
    del adata.raw
    adata.write_h5ad(files["k1"])
    with pytest.warns(ScioWarning, match=r"raw is left out.*1\.h5ad"):
        concat_on_disk(files, out)
    without = anndata.AnnData(obs=adata.obs, var=adata.var)
    without.write_h5ad(files["k1"])
    out.unlink()
    with (
        pytest.raises(
            UnsupportedError, match=r"only some files have X; it is missing in .*1\.h5ad"
        ),
        pytest.warns(ScioWarning),
    ):
        concat_on_disk(files, out)
    assert not out.exists()
