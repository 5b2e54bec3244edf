"""Each peer's adapter gives all cells with their values; a comparison with a wrong one is worthless."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

from scio.cli import _machine
from scio.cli.peers import MAX_GENES, N_SPECIAL, PEERS, TARGET_SUM, Peer, installed
from tests.data.conftest import make_adata, rewrite

N_CELLS, N_GENES = 500, 60
FORMS = {"csr", "dense", "tokens"}
# torch itself, of its sparse and DataLoader parts; anndata, of what it plans to remove
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=["csr", "dense"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 cells, stored sparse with gzip, or dense."""
    adata = make_adata(N_CELLS, N_GENES)
    if request.param == "dense":
        adata = anndata.AnnData(X=adata.X.toarray(), obs=adata.obs, var=adata.var)
    return rewrite(adata, tmp_path_factory.mktemp("peers") / f"{request.param}.h5ad")


@pytest.fixture(scope="module")
def expected(file: Path) -> np.ndarray:
    x = anndata.read_h5ad(file).X
    return x.toarray() if sp.issparse(x) else np.asarray(x)


def normalised(dense: np.ndarray) -> np.ndarray:
    total = dense.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.log1p(dense * (TARGET_SUM / np.where(total > 0, total, 1)))


def rows_of(peer: Peer, batch: Any) -> np.ndarray:
    """The batch as a dense array, from the form that the peer declares."""
    if peer.form == "csr":
        assert sp.issparse(batch)
        assert batch.format == "csr"
        return batch.toarray()
    if peer.form == "dense":
        assert batch.shape[1] == N_GENES
        return np.asarray(batch)
    out = np.zeros((len(batch["expression"]), N_GENES), dtype=np.float32)
    for row, mask in enumerate(batch["attention_mask"].astype(bool)):
        ids = batch["gene_indices"][row][mask] - N_SPECIAL
        assert len(set(ids.tolist())) == len(ids) <= MAX_GENES
        assert not batch["expression"][row][~mask].any()
        assert not batch["gene_indices"][row][~mask].any()
        out[row, ids] = batch["expression"][row][mask]
    return out


def bag(dense: np.ndarray) -> Counter[bytes]:
    """The rows, whatever their order; to four digits, so that ways to round do not matter."""
    return Counter(np.round(row.astype(np.float64), 4).tobytes() for row in dense + 0.0)


def test_names_are_unique_and_the_forms_known() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    assert {peer.form for peer in PEERS} == FORMS


def test_all_peers_are_installed_for_the_tests() -> None:
    assert installed() == list(PEERS)
    for form in FORMS:
        assert installed(form) == [p for p in PEERS if p.form == form] != []
    for peer in PEERS:
        assert _machine.version_of(peer.distribution) is not None


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
def test_an_epoch_has_every_cell_once_with_its_values(
    peer: Peer, file: Path, expected: np.ndarray
) -> None:
    assert peer.is_epoch
    batches = peer.open(file, 64, 0)
    is_log = peer.form == "tokens" or "log1p" in peer.name
    wanted = bag((normalised(expected) if is_log else expected).astype(np.float32))
    orders = []
    for _ in range(2):  # the second iter is the next epoch
        parts, sizes = [], []
        for batch in batches:
            part = rows_of(peer, batch)
            assert peer.count(batch) == len(part)
            parts.append(part)
            sizes.append(len(part))
        assert sum(sizes) == N_CELLS
        assert max(sizes) == 64
        rows = np.concatenate(parts)
        assert bag(rows) == wanted
        orders.append(rows)
    if "block 1024" not in peer.name:  # one block holds all of these cells
        assert not np.array_equal(orders[0], expected)  # shuffled
    assert not np.array_equal(orders[0], orders[1])


def test_tokens_beyond_the_limit_are_the_largest(tmp_path: Path) -> None:
    n_genes = MAX_GENES + 500
    values = np.random.default_rng(0).permutation(n_genes).astype(np.float32) + 1
    path = tmp_path / "wide.h5ad"
    anndata.AnnData(sp.csr_matrix(np.stack([values, values[::-1]]))).write_h5ad(path)
    (peer,) = installed("tokens")
    (batch,) = peer.open(path, 2, 0)
    assert batch["expression"].shape == (2, MAX_GENES)
    lowest = np.log1p((n_genes - MAX_GENES + 1) * TARGET_SUM / values.sum(dtype=np.float64))
    assert batch["expression"].min() == pytest.approx(lowest, rel=1e-5)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "scdataset" else real(name)
    )
    names = [peer.name for peer in installed()]
    assert names == [p.name for p in PEERS if "scDataset" not in p.name]
    assert len(names) == len(PEERS) - 3
