"""CellDataLoader under two real gloo ranks: shares, counts, resuming, training; and the example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scio.data import CellDataLoader, CellDataset
from tests.data.conftest import make_adata, rewrite

ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE = 8
SHUFFLES = (True, False, "block", "exact")
N_CELLS = 213  # 106.5 cells a rank, 13.3 batches

RANK_SCRIPT = """
import hashlib, json, sys
import torch
import torch.distributed as dist
from torch import nn
from scio.data import CellDataLoader, CellDataset

path, rank, meeting_point = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + meeting_point, rank=rank, world_size=2)
torch.set_num_threads(1)
cells = CellDataset(path, None, max_genes=5, selection="random_expressed")

def make(shuffle, drop_last, **options):
    return CellDataLoader(cells, 8, 1, shuffle, drop_last, block_bytes=500, seed=6, **options)

def facts(batch):
    genes = hashlib.sha256(batch["gene_indices"].numpy().tobytes()).hexdigest()
    padding = batch["is_padding"].tolist() if "is_padding" in batch else [False] * len(batch["index"])
    return [batch["index"].tolist(), padding, genes]

out = {}
for shuffle in (True, False, "block", "exact"):
    for drop_last in (True, False):
        loader = make(shuffle, drop_last)
        assert (loader.rank, loader.world_size) == (rank, 2)
        epochs, lengths, state = [], [], None
        for epoch in range(3):
            lengths.append(len(loader))
            seen = []
            for k, batch in enumerate(loader):
                total = torch.tensor([len(batch["index"])])
                dist.all_reduce(total)  # hangs, and so fails, where one rank has more batches
                assert total.item() == 2 * len(batch["index"])
                seen.append(facts(batch))
                if (epoch, k) == (1, 5):
                    states = [loader.state_dict()]
                    dist.broadcast_object_list(states, src=0)
            epochs.append(seen)
        other = make(shuffle, drop_last)
        other.load_state_dict(states[0])  # that of rank 0
        resumed = [[facts(batch) for batch in other] for _ in range(2)]
        out[f"{shuffle} {drop_last}"] = {"epochs": epochs, "lengths": lengths, "resumed": resumed}

# A last batch that is short, on both ranks: DistributedDataParallel must neither hang nor drift.
torch.manual_seed(rank)  # DDP makes the models equal
model = nn.parallel.DistributedDataParallel(nn.Linear(40, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
n_steps = 0
for _ in range(2):
    for batch in make(True, False, form="dense"):
        optimizer.zero_grad()
        real = ~batch["is_padding"] if "is_padding" in batch else torch.ones(len(batch["index"]), dtype=torch.bool)
        loss = (model(batch["expression"]).square().sum(dim=1) * real).sum() / real.sum().clamp(min=1)
        loss.backward()
        optimizer.step()
        n_steps += 1
weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
out["training"] = {"n_steps": n_steps, "weights": weights.tolist(), "finite": bool(weights.isfinite().all())}
with open(f"{meeting_point}.{rank}.json", "w") as file:
    json.dump(out, file)  # more than a pipe holds
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewrite(make_adata(N_CELLS), tmp_path_factory.mktemp("ddp") / "x.h5ad", chunk=31)


@pytest.fixture(scope="module")
def ranks(path: Path) -> list[dict[str, Any]]:
    """What two gloo processes saw."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_SCRIPT, str(path), str(rank), str(path.parent / "meet")],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, err = process.communicate(timeout=100)
            assert process.returncode == 0, err[-3000:]
        results = [json.loads((path.parent / f"meet.{r}.json").read_text()) for r in range(2)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return results


def real_cells(epoch: list[Any]) -> list[int]:
    return [
        cell
        for cells, padding, _ in epoch
        for cell, is_padding in zip(cells, padding, strict=True)
        if not is_padding
    ]


CASES = [(shuffle, drop_last) for shuffle in SHUFFLES for drop_last in (True, False)]


@pytest.mark.parametrize(("shuffle", "drop_last"), CASES)
def test_ranks_have_equal_batches_of_other_cells_and_together_all(ranks, shuffle, drop_last):
    runs = [rank[f"{shuffle} {drop_last}"] for rank in ranks]
    for epoch in range(3):
        sizes = [[len(cells) for cells, _, _ in run["epochs"][epoch]] for run in runs]
        assert sizes[0] == sizes[1]
        assert [run["lengths"][epoch] for run in runs] == [len(sizes[0])] * 2
        shares = [real_cells(run["epochs"][epoch]) for run in runs]
        assert len(shares[0] + shares[1]) == len({*shares[0], *shares[1]})  # nothing twice
        n_slots = sum(sizes[0]) * 2
        n_padding = n_slots - len(shares[0]) - len(shares[1])
        if drop_last:
            assert set(sizes[0]) == {BATCH_SIZE}
            assert n_padding == 0
            assert N_CELLS - n_slots < 4 * BATCH_SIZE  # what one rank has more than the other, too
        else:
            assert {*shares[0], *shares[1]} == set(range(N_CELLS))
            assert n_padding > 0  # an odd number of cells
    lengths = {len(epoch) for run in runs for epoch in run["epochs"]}
    assert len(lengths) == 1  # trainers ask for the length once


@pytest.mark.parametrize(("shuffle", "drop_last"), CASES)
def test_ranks_have_another_order_in_another_epoch(ranks, shuffle, drop_last):
    for rank in ranks:
        orders = [real_cells(epoch) for epoch in rank[f"{shuffle} {drop_last}"]["epochs"]]
        if shuffle is False:
            assert orders[0] == orders[1] == orders[2]
        else:
            assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize(("shuffle", "drop_last"), CASES)
def test_both_ranks_resume_from_the_state_of_rank_0(ranks, shuffle, drop_last):
    for rank in ranks:
        run = rank[f"{shuffle} {drop_last}"]
        assert run["resumed"] == [run["epochs"][1][6:], run["epochs"][2]]


@pytest.mark.parametrize(("shuffle", "drop_last"), CASES)
def test_genes_drawn_at_random_are_those_of_any_other_process(path, ranks, shuffle, drop_last):
    """The same loader here, without torch.distributed: cells, padding and genes."""
    dataset = CellDataset(path, None, max_genes=5, selection="random_expressed")
    for rank in range(2):
        loader = CellDataLoader(
            dataset,
            BATCH_SIZE,
            0,
            shuffle,
            drop_last,
            block_bytes=500,
            seed=6,
            rank=rank,
            world_size=2,
        )
        expected = ranks[rank][f"{shuffle} {drop_last}"]["epochs"]
        for epoch in range(2):
            here = [
                (b["index"].tolist(), sha256(b["gene_indices"].numpy()).hexdigest()) for b in loader
            ]
            assert here == [(cells, genes) for cells, _, genes in expected[epoch]]
        genes = [[g for _, _, g in epoch] for epoch in expected]
        assert not set(genes[0]) & set(genes[1])


def test_training_ends_on_both_ranks_with_the_same_weights(ranks):
    zero, one = (rank["training"] for rank in ranks)
    assert zero == one
    assert zero["finite"]
    assert zero["n_steps"] == 2 * len(ranks[0]["True False"]["epochs"][0])
    assert np.any(zero["weights"])


def test_the_example_ends_with_the_weights_of_an_uninterrupted_run(tmp_path):
    """Stopped, SIGTERM, SIGKILL of a rank; two gloo processes, pbmc3k."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "train_ddp.py"), "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        out, err = process.communicate(timeout=110)
    finally:
        process.terminate()  # it passes this on to its ranks
        process.communicate(timeout=20)
    assert process.returncode == 0, out + err[-3000:]
    lines = out.splitlines()
    for name in ("stopped", "SIGTERM", "SIGKILL"):
        assert f"{name}: weights bit-identical" in lines
    assert "stopped after batch 15" in out  # in the middle of the second epoch
    accuracies = [line for line in lines if "are classified right" in line]
    assert len(accuracies) == 4
    assert len(set(accuracies)) == 1
    numbers = [int(word) for word in accuracies[0].split() if word.isdigit()]
    assert numbers[0] > 1.3 * numbers[2]  # it has learned something
    assert list(tmp_path.iterdir()) == []
