"""How well batches mix a file that is sorted by a label: from the plan alone, and as it really is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.data import CellDataLoader, CellDataset
from scio.errors import ScioWarning
from tests.data.conftest import rewrite

N_LABELS = 8
NNZ = 100  # of a cell: 800 bytes decoded, 300 to 600 in compact form


def make_adata(n_cells: int, n_labels: int = N_LABELS, first: int = 0) -> anndata.AnnData:
    """Cells sorted by a label."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 900, n_cells)
    indices = (starts[:, None] + np.arange(NNZ)).astype(np.int32).reshape(-1)
    data = rng.integers(1, 9, n_cells * NNZ).astype(np.float32)
    indptr = np.arange(0, n_cells * NNZ + 1, NNZ)
    adata = anndata.AnnData(sp.csr_matrix((data, indices, indptr), shape=(n_cells, 1000)))
    adata.obs["plate"] = [f"plate{first + i * n_labels // n_cells}" for i in range(n_cells)]
    adata.obs["plate"] = adata.obs["plate"].astype("category")
    return adata


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths by number of cells and chunk length, made when they are asked for."""
    folder = tmp_path_factory.mktemp("mixing")
    made: dict[tuple[int, ...], Any] = {}

    def get(n_cells: int, chunk: int = 2000, n_labels: int = N_LABELS, first: int = 0):
        key = (n_cells, chunk, n_labels, first)
        if key not in made:
            path = folder / f"{'-'.join(map(str, key))}.h5ad"
            made[key] = rewrite(make_adata(n_cells, n_labels, first), path, chunk=chunk)
        return made[key]

    return get


def make(source, batch_size=64, **arguments) -> CellDataLoader:
    arguments = {"form": "csr", "to": "numpy", **arguments}
    cells = source if isinstance(source, CellDataset) else CellDataset(source, None)
    return CellDataLoader(cells, batch_size, 2, **arguments)


def entropy(labels: Iterable[Any]) -> float:
    """Bits; written without the loader's own code."""
    _, counts = np.unique(np.asarray(labels).astype(str), return_counts=True)
    return float(sum(-c / counts.sum() * np.log2(c / counts.sum()) for c in counts))


def of_batches(batches: list[list[Any]]) -> tuple[float, int]:
    """Mean entropy, and the longest stretch of batches without one of the frequent labels."""
    names = {label for batch in batches for label in batch}
    longest = 0
    for name in names:
        if sum(batch.count(name) for batch in batches) < len(batches):
            continue
        gap = 0
        for batch in batches:
            gap = 0 if name in batch else gap + 1
            longest = max(longest, gap)
    return float(np.mean([entropy(batch) for batch in batches])), longest


# --- as well as the cap allows


@pytest.mark.parametrize("batch_size", [64, 512])
@pytest.mark.parametrize(
    ("n_cells", "cap"), [(4000, 16), (20_000, 8), (20_000, 16), (20_000, 100), (40_000, 8)]
)
def test_a_sorted_file_is_mixed_at_095_where_the_cap_allows(files, n_cells, cap, batch_size):
    """Data of 3, 16 and 32 MB under caps from a quarter of that on."""
    loader = make(files(n_cells), batch_size, max_memory=f"{cap}MB")
    for epoch in range(3):
        loader.set_epoch(epoch)
        mixing = loader.mixing("plate")  # no warning, which would be an error
        assert mixing.ratio >= 0.95, epoch
        assert mixing.largest_gap < len(loader) / 4
        perfect = 3 - (N_LABELS - 1) / (2 * batch_size * np.log(2))  # bias of a sample, first order
        assert abs(mixing.perfect - perfect) < 0.04  # drop_last unbalances labels


def test_the_default_cap_mixes_two_files_that_share_no_label(files):
    paths = [str(files(20_000, 2000, 4, first)) for first in (0, 4)]
    assert make(paths).mixing("plate").ratio >= 0.95
    assert make(paths, max_memory="12MB").mixing("plate").ratio >= 0.95


def test_ranks_mix_as_well(files):
    for rank in range(2):
        loader = make(files(20_000), rank=rank, world_size=2, max_memory="16MB")
        assert loader.mixing("plate").ratio >= 0.95


@pytest.mark.parametrize("shuffle", [True, "block"])
def test_a_cap_that_does_not_allow_it_is_a_warning_that_says_what_to_do(files, shuffle):
    loader = make(files(20_000), max_memory="2.2MB", shuffle=shuffle)
    with pytest.warns(ScioWarning, match=r"'plate' at 0\.\d\d .*max_memory=2,200,000") as caught:
        mixing = loader.mixing("plate")
    assert mixing.ratio < 0.95
    assert mixing.largest_gap > 10
    assert f"{mixing.ratio:.2f}" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(files(20_000), shuffle=False).mixing("plate")  # who wants file order gets no warning


def test_a_larger_cap_mixes_better(files):
    ratios = []
    for cap in ("2.2MB", "4MB", "8MB", "50MB"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScioWarning)
            ratios.append(make(files(20_000), max_memory=cap).mixing("plate").ratio)
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.8
    assert ratios[-1] > 0.95


def test_file_order_does_not_mix_at_all(files):
    mixing = make(files(4000), shuffle=False).mixing("plate")
    assert mixing.entropy < 0.15
    assert mixing.largest_gap > 40


@pytest.mark.parametrize("shuffle", [True, "exact"])
def test_exact_epochs_mix_perfectly(files, shuffle):
    loader = make(files(20_000), shuffle=shuffle)
    loader.set_epoch(1)
    mixing = loader.mixing("plate")
    assert abs(mixing.ratio - 1) < 0.005
    assert mixing.largest_gap <= 1


# --- nothing is read


def test_it_comes_from_the_plan_and_the_column_alone(files):
    loader = make(files(4000), max_memory="8MB")
    loader.dataset.store.column("plate")
    before = scio.stats()
    for epoch in range(3):
        loader.set_epoch(epoch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScioWarning)
            loader.mixing("plate")
    after = scio.stats()
    assert after["chunks_decoded"] == before["chunks_decoded"]
    assert after["nbytes_read"] == before["nbytes_read"]
    assert loader.stats == {}
    with pytest.raises(KeyError, match=r"'plat'.*plate"):
        loader.mixing("plat")


# --- it is true


@pytest.mark.parametrize("batch_size", [10, 64, 333])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", [True, False, "block", "exact"])
def test_it_is_the_entropy_of_the_real_batches(files, batch_size, drop_last, shuffle):
    for source in (files(4000), make_adata(4000)):
        loader = make(
            source, batch_size, shuffle=shuffle, drop_last=drop_last, max_memory="20MB", seed=3
        )
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ScioWarning)
                mixing = loader.mixing("plate")
            got, gap = of_batches([batch["metadata"]["plate"] for batch in relabel(loader)])
            assert mixing.entropy == pytest.approx(got)
            assert mixing.largest_gap == gap


def relabel(loader: CellDataLoader):
    """Batches with the label as metadata, whatever the dataset's obs keys are."""
    labels = np.asarray(loader.dataset.store.obs("plate"), dtype=object)
    for batch in loader:
        yield {"metadata": {"plate": labels[batch["index"]].tolist()}}


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("drop_last", [True, False])
def test_it_is_that_of_the_rank(files, rank, drop_last):
    loader = make(files(4000), 50, rank=rank, world_size=3, drop_last=drop_last, max_memory="20MB")
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScioWarning)
            mixing = loader.mixing("plate")
        got, gap = of_batches([batch["metadata"]["plate"] for batch in relabel(loader)])
        assert (mixing.entropy, mixing.largest_gap) == (pytest.approx(got), gap)


def test_it_is_that_of_subsets_and_samplers(files):
    cells = CellDataset(files(4000), None, obs_query={"plate": ["plate1", "plate6"]})
    batches = [list(range(i, 4000, 500)) for i in range(200)]
    whole = CellDataset(files(4000), None)
    for loader in (
        make(cells, 32, max_memory="20MB"),
        make(whole, sampler=list(range(0, 4000, 3)), drop_last=False),
        make(whole, batch_sampler=batches),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScioWarning)
            mixing = loader.mixing("plate")
        got, gap = of_batches([batch["metadata"]["plate"] for batch in relabel(loader)])
        assert (mixing.entropy, mixing.largest_gap) == (pytest.approx(got), gap)
    assert mixing.entropy == 3  # each batch has one cell of each plate


def test_labels_with_missing_values_and_numbers(tmp_path):
    adata = make_adata(4000)
    adata.obs["plate"] = adata.obs["plate"].cat.remove_categories(["plate3"])
    adata.obs["depth"] = np.arange(4000) // 1000
    path = rewrite(adata, tmp_path / "x.h5ad", chunk=2000)
    loader = make(path, shuffle="exact")
    assert abs(loader.mixing("plate").ratio - 1) < 0.01  # missing is a value like others
    assert abs(loader.mixing("depth").perfect - 2) < 0.1
    one = CellDataset(path, None, obs_query={"plate": "plate1"})
    assert make(one).mixing("plate").ratio == 1.0
