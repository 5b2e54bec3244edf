"""Resuming (F19): a state at every batch gives the identical rest, in any process, with any threads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import scio
from scio.data import (
    BatchAwareSampler,
    CellDataLoader,
    CellDataset,
    DistributedShardSampler,
    GeneVocab,
    PreprocessingPipeline,
    WeightedCellSampler,
)
from scio.data._state import settings_of
from tests.data.conftest import make_adata, rewrite

ROOT = Path(__file__).resolve().parents[2]
N_BATCHES, BATCH_SIZE = 37, 8
THREADS = (0, 1, 3)
SHUFFLES = (True, False, "block", "exact", "sampler")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By drop_last: a file of 37 batches, the last one short or some cells too many."""
    folder = tmp_path_factory.mktemp("resume")
    paths = {}
    for drop_last, n_cells in ((True, 299), (False, 293)):
        adata = make_adata(n_cells)
        adata.layers["twice"] = adata.X * 2
        adata.obsm["X_pca"] = np.arange(n_cells * 3, dtype=np.float32).reshape(n_cells, 3)
        paths[drop_last] = rewrite(adata, folder / f"{n_cells}.h5ad")
    return paths


def make_loader(path: Any, threads: int, *, shuffle: Any, **settings: Any) -> CellDataLoader:
    """A loader whose batches hold everything, chosen by a selection that changes with the epoch."""
    cells = CellDataset(
        path,
        None,
        PreprocessingPipeline(),
        max_genes=6,
        selection="random_expressed",
        layers=["twice"],
        obsm=["X_pca"],
    )
    sampler = WeightedCellSampler(cells, by="batch", seed=4) if shuffle == "sampler" else None
    return CellDataLoader(
        cells,
        BATCH_SIZE,
        threads,
        shuffle if sampler is None else False,
        sampler=sampler,
        seed=5,
        to="numpy",
        block_bytes=500,
        obs_codes=["cell_type"],
        **settings,
    )


def pin(batch: dict[str, Any]) -> str:
    """A hash of everything in a batch: names, dtypes, shapes, bytes, labels."""
    sha = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{name}/{key}", item)
        elif isinstance(value, np.ndarray):
            sha.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        else:
            sha.update(f"{name} {value!r}".encode())

    add("", batch)
    return sha.hexdigest()


def epoch_of(loader: CellDataLoader) -> list[str]:
    return [pin(batch) for batch in loader]


def epoch_and_states(loader: CellDataLoader) -> tuple[list[str], list[dict[str, Any]]]:
    """Pins of an epoch; states before it, after each batch, and after the loop."""
    states, pins = [loader.state_dict()], []
    for batch in loader:
        pins.append(pin(batch))
        states.append(loader.state_dict())
    return pins, [*states, loader.state_dict()]


def shape_of(value: Any) -> Any:
    """Keys and types of a state, what must not change from step to step."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    return type(value).__name__


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_a_state_at_every_batch_gives_the_identical_rest_and_next_epoch(files, shuffle, drop_last):
    runs = []
    for threads in THREADS:
        loader = make_loader(files[drop_last], threads, shuffle=shuffle, drop_last=drop_last)
        runs.append([epoch_and_states(loader) for _ in range(2)] + [epoch_of(loader)])
    assert runs[0] == runs[1] == runs[2]  # pins and states do not know the threads
    (pins0, states0), (pins1, states1), pins2 = runs[0]
    assert len(pins0) == len(pins1) == N_BATCHES
    assert len({*pins0, *pins1}) == 2 * N_BATCHES  # other genes in another epoch, at the least
    for epoch, pins, states, following in ((0, pins0, states0, pins1), (1, pins1, states1, pins2)):
        assert [(s["epoch"], s["batch"]) for s in states] == [
            *((epoch, k) for k in range(N_BATCHES + 1)),
            (epoch + 1, 0),
        ]
        for k, state in enumerate(states):
            text = json.dumps(state)
            # "fits" begins as None: it is not known before the end of the first epoch.
            assert shape_of({**state, "fits": None}) == shape_of({**states0[0], "fits": None})
            for threads in THREADS:
                other = make_loader(files[drop_last], threads, shuffle=shuffle, drop_last=drop_last)
                other.load_state_dict(json.loads(text))
                assert other.state_dict() == state  # a state that was loaded can be saved again
                if k <= N_BATCHES:  # after the last batch an empty rest
                    assert epoch_of(other) == pins[k:]
                assert epoch_of(other) == following


CHILD = """
import json, sys
from tests.data.test_resume import epoch_of, make_loader
jobs = json.load(sys.stdin)
out = []
for job in jobs:
    loader = make_loader(job["path"], job["threads"], **job["settings"])
    loader.load_state_dict(job["state"])
    out.append([epoch_of(loader), epoch_of(loader)])
print(json.dumps(out))
"""


def in_a_new_process(jobs: list[dict[str, Any]]) -> list[list[list[str]]]:
    process = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


def test_a_state_restores_in_a_new_process(files):
    jobs, expected = [], []
    for shuffle in SHUFFLES:
        settings = {"shuffle": shuffle, "drop_last": False}
        loader = make_loader(files[False], 0, **settings)
        pins0, states0 = epoch_and_states(loader)
        pins1, states1 = epoch_and_states(loader)
        pins2 = epoch_of(loader)
        for pins, states, following, k in (
            (pins0, states0, pins1, 1),
            (pins0, states0, pins1, N_BATCHES),
            (pins1, states1, pins2, 20),
        ):
            jobs.append(
                {
                    "path": str(files[False]),
                    "threads": 1 + k % 3,
                    "settings": settings,
                    "state": states[k],
                }
            )
            expected.append([pins[k:], following])
    assert in_a_new_process(jobs) == expected


# --- memory and cache


def wide_loader(path: Path, threads: int, max_memory: int, **settings: Any) -> CellDataLoader:
    cells = CellDataset(path, None)
    return CellDataLoader(
        cells, 41, threads, form="csr", to="numpy", max_memory=max_memory, **settings
    )


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,520 cells with 300 fractions each: 37 batches, 6 bytes a non-zero in compact form."""
    x = sp.random(1520, 1000, density=0.3, format="csr", dtype=np.float32, random_state=0)
    return rewrite(anndata.AnnData(X=x), tmp_path_factory.mktemp("wide") / "x.h5ad", chunk=5000)


def cap_of(path: Path, kind: str) -> int:
    """A max_memory for which nothing can be kept, all is hoped for in vain, or all fits."""
    nnz = scio.open(path).X.nnz
    for max_memory in range(2_000_000, 30_000_000, 100_000):
        try:
            core = wide_loader(path, 0, max_memory).make_core(0, "block")
        except ValueError:
            continue
        if {
            "nothing": core.keep_nbytes == 0,
            "in vain": 0 < core.keep_nbytes < 5 * nnz,
            "fits": core.keep_nbytes > 7 * nnz,
        }[kind]:
            return max_memory
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "plan"), [("nothing", "block"), ("in vain", "block"), ("fits", "exact")]
)
def test_the_plan_of_later_epochs_is_part_of_the_rest(wide, kind, plan):
    max_memory = cap_of(wide, kind)
    loader = wide_loader(wide, 2, max_memory)
    epochs, plans = [], []
    for _ in range(3):
        epochs.append(epoch_and_states(loader))
        plans.append(loader.stats["plan"])
    assert plans == ["block", plan, plan]
    assert epochs[1][1][5]["fits"] is (kind == "fits")
    for epoch, k in ((0, 0), (0, 11), (0, 37), (0, 38), (1, 0), (1, 1), (1, 36), (1, 37)):
        pins, states = epochs[epoch]
        other = wide_loader(wide, (k + 1) % 3, max_memory)
        other.load_state_dict(json.loads(json.dumps(states[k])))
        if k < 38:
            assert epoch_of(other) == pins[k:]
        assert epoch_of(other) == epochs[epoch + 1][0]
        assert other.stats["plan"] == plan


def test_the_rest_is_the_same_from_a_cache_there_or_not(wide, tmp_path):
    max_memory = cap_of(wide, "nothing")
    loader = wide_loader(wide, 2, max_memory, cache=tmp_path / "a")
    epochs = [epoch_and_states(loader) for _ in range(3)]
    assert loader.stats["plan"] == "exact"
    assert loader.stats["rows"] == "mapped"
    for epoch, k, folder in ((0, 20, "a"), (0, 20, "b"), (1, 5, "a"), (1, 5, "c"), (1, 37, "d")):
        pins, states = epochs[epoch]
        other = wide_loader(wide, k % 3, max_memory, cache=tmp_path / folder)
        other.load_state_dict(states[k])
        assert epoch_of(other) == pins[k:]
        assert epoch_of(other) == epochs[epoch + 1][0]
        assert other.stats["rows"] == "mapped"


# --- states that do not belong here


def of_settings(path: Path, **changes: Any) -> CellDataLoader:
    dataset = {
        name: changes.pop(name)
        for name in ("selection", "matrix", "layers", "preprocessing", "indices", "gene_vocab")
        if name in changes
    }
    cells = CellDataset(path, dataset.pop("gene_vocab", None), **dataset)
    if changes.get("shuffle") == "given":
        changes.update(shuffle=False, sampler=WeightedCellSampler(cells, by="batch"))
    options = {"form": "tokens", "max_genes": 6, "to": "numpy", "rank": 0, "world_size": 1}
    return CellDataLoader(cells, **{**options, **changes})


def changes_of(path: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """By the name in a state: one change of that setting."""
    genes = CellDataset(path, None).gene_vocab
    return {
        "batch_size": {"batch_size": 65},
        "drop_last": {"drop_last": False},
        "shuffle": {"shuffle": "given"},
        "seed": {"seed": 1},
        "form": {"form": "csr"},
        "max_genes": {"max_genes": 7},
        "selection": {"selection": "first"},
        "dtype": {"dtype": "float16"},
        "index_dtype": {"index_dtype": "int32"},
        "pad_value": {"pad_value": -1.0},
        "max_memory": {"max_memory": "64MB"},
        "block_bytes": {"block_bytes": 1000},
        "cache": {"cache": folder},
        "on_error": {"on_error": "skip"},
        "world_size": {"world_size": 2},
        "matrix": {"matrix": "layers/twice"},
        "layers and obsm": {"layers": ["twice"]},
        "preprocessing": {"preprocessing": PreprocessingPipeline()},
        "vocabulary": {"gene_vocab": GeneVocab.from_genes(genes.genes[::-1])},
        "cells": {"indices": np.arange(100)},
    }


def test_every_setting_that_differs_is_named(files, tmp_path):
    path = files[True]
    state = of_settings(path).state_dict()
    of_settings(path, num_workers=0, pin_memory=False, timeout=9.0).load_state_dict(state)
    changes = changes_of(path, tmp_path)
    assert set(changes) == set(settings_of(of_settings(path)))  # a new setting needs its line here
    for name, change in changes.items():
        other = of_settings(path, **change)
        with pytest.raises(ValueError, match="does not belong to this loader") as caught:
            other.load_state_dict(state)
        named = str(caught.value)
        assert f"{name} was {state['settings'][name]!r}, is {settings_of(other)[name]!r}" in named
        differing = {k for k, v in settings_of(other).items() if v != state["settings"][k]}
        assert differing == {name}
        with pytest.raises(ValueError, match=f"{name} was "):  # and the other way round
            of_settings(path).load_state_dict(other.state_dict())
    several = of_settings(path, seed=1, batch_size=9)
    with pytest.raises(ValueError, match=r"batch_size was 64, is 9; seed was 0, is 1"):
        several.load_state_dict(state)


def test_a_state_of_another_file_is_refused_one_of_a_moved_file_accepted(files, tmp_path):
    loader = make_loader(files[True], 0, shuffle=True)
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()
    rest = [pin(batch) for batch in iterator]
    other = make_loader(files[False], 1, shuffle=True)
    with pytest.raises(ValueError, match=r"source 0 \(.*n_cells was 299, is 293"):
        other.load_state_dict(state)
    two = CellDataLoader(CellDataset([files[True], files[False]], None), to="numpy")
    with pytest.raises(ValueError, match="there were 1 sources, are 2"):
        two.load_state_dict(state)
    copied = shutil.copy(files[True], tmp_path / "copied.h5ad")
    moved = Path(shutil.copy(files[True], tmp_path / "x.h5ad")).rename(tmp_path / "moved.h5ad")
    for path in (copied, moved):
        again = make_loader(path, 1, shuffle=True)
        again.load_state_dict(state)
        assert epoch_of(again) == rest


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({}, TypeError, "no state of a CellDataLoader"),
        (7, TypeError, "int"),
        ({"model": 1}, TypeError, "'model'"),
    ],
)
def test_what_is_no_state_is_refused(files, state, error, message):
    with pytest.raises(error, match=message):
        make_loader(files[True], 0, shuffle=True).load_state_dict(state)


def test_a_state_of_another_version_or_beyond_the_epoch_is_refused(files):
    loader = make_loader(files[True], 0, shuffle=True)
    state = loader.state_dict()
    with pytest.raises(ValueError, match="version 99"):
        loader.load_state_dict({**state, "version": 99})
    with pytest.raises(ValueError, match="batch 38 of an epoch of 37"):
        loader.load_state_dict({**state, "batch": 38})
    assert len(epoch_of(loader)) == N_BATCHES  # a refused state changes nothing
    assert loader.state_dict()["epoch"] == 1


def test_a_sampler_that_is_not_reproducible_is_noticed(files):
    class Random:
        def __iter__(self) -> Iterator[int]:
            return iter(np.random.default_rng().permutation(299).tolist())

        def __len__(self) -> int:
            return 299

    def make() -> CellDataLoader:
        cells = CellDataset(files[True], None)
        return CellDataLoader(cells, BATCH_SIZE, sampler=Random(), to="numpy")

    loader = make()
    next(iter(loader))
    with pytest.raises(ValueError, match="reproducible by set_epoch"):
        make().load_state_dict(loader.state_dict())


# --- ranks, epochs


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_the_state_of_rank_0_serves_rank_1(files, shuffle):
    def make(rank: int) -> CellDataLoader:
        return make_loader(files[True], 1, shuffle=shuffle, rank=rank, world_size=2)

    zero, one = make(0), make(1)
    (_, states0), (pins0, _) = epoch_and_states(zero), epoch_and_states(one)
    (_, states1), (pins1, _) = epoch_and_states(zero), epoch_and_states(one)
    for pins, states, k in ((pins0, states0, 0), (pins0, states0, 7), (pins1, states1, 9)):
        other = make(1)
        other.load_state_dict(states[k])
        assert epoch_of(other) == pins[k:]


def test_the_plan_of_rank_0_is_not_imposed_on_a_rank_whose_cells_fit(wide):
    def run(rank: int, max_memory: int) -> tuple[CellDataLoader, list[Any]]:
        loader = wide_loader(wide, 0, max_memory, rank=rank, world_size=2, drop_last=False)
        return loader, [epoch_and_states(loader) for _ in range(2)]

    def least_that_fits(rank: int) -> int:
        low, high = cap_of(wide, "nothing"), cap_of(wide, "fits")
        while high - low > 1000:
            middle = (low + high) // 2
            if run(rank, middle)[0].stats["plan"] == "exact":
                high = middle
            else:
                low = middle
        return high

    least = [least_that_fits(rank) for rank in range(2)]
    assert abs(least[0] - least[1]) > 2000  # ranks have cells of different size
    max_memory = sum(least) // 2
    runs = [run(rank, max_memory) for rank in range(2)]
    assert {loader.stats["plan"] for loader, _ in runs} == {"block", "exact"}
    for rank, (_, epochs) in enumerate(runs):
        pins, _ = epochs[1]
        _, states = runs[1 - rank][1][1]
        other = wide_loader(wide, 1, max_memory, rank=rank, world_size=2, drop_last=False)
        other.load_state_dict(states[5])  # of the rank with the other plan
        assert epoch_of(other) == pins[5:]


def test_samplers_of_ranks_give_other_cells_and_yet_share_a_state(files):
    def make(kind: str, rank: int) -> CellDataLoader:
        cells = CellDataset([files[True], files[False]], None)
        placed = {"num_replicas": 2, "rank": rank}
        if kind == "sampler":
            chosen: dict[str, Any] = {"sampler": DistributedShardSampler(cells, **placed)}
        else:
            sampler = BatchAwareSampler(cells, "cell_type", BATCH_SIZE, **placed)
            chosen = {"batch_sampler": sampler}
        return CellDataLoader(cells, BATCH_SIZE, to="numpy", rank=rank, world_size=2, **chosen)

    for kind in ("sampler", "batch_sampler"):
        zero, one = make(kind, 0), make(kind, 1)
        (pins0, states), (pins1, _) = epoch_and_states(zero), epoch_and_states(one)
        assert not set(pins0) & set(pins1)
        other = make(kind, 1)
        other.load_state_dict(states[10])
        assert epoch_of(other) == pins1[10:]


def test_set_epoch_keeps_the_place_of_a_loaded_state_and_forgets_it_for_another(files):
    loader = make_loader(files[True], 1, shuffle=True)
    pins0, states0 = epoch_and_states(loader)
    pins1, _ = epoch_and_states(loader)
    for set_epoch in ("set_epoch", "sampler"):
        other = make_loader(files[True], 0, shuffle=True)
        other.load_state_dict(states0[30])
        (other if set_epoch == "set_epoch" else other.sampler).set_epoch(0)
        assert other.state_dict() == states0[30]
        assert epoch_of(other) == pins0[30:]
        other.load_state_dict(states0[30])
        (other if set_epoch == "set_epoch" else other.sampler).set_epoch(1)
        assert epoch_of(other) == pins1


def test_a_state_after_break_and_over_an_older_run_is_that_of_the_loop(files):
    loader = make_loader(files[True], 1, shuffle=True)
    pins0, states0 = epoch_and_states(loader)
    pins1, states1 = epoch_and_states(loader)
    loader.load_state_dict(states0[4])  # the loader has run epoch 1 and knows that all cells fit
    assert loader.state_dict() == {**states0[4], "fits": True}
    for batch in loader:
        assert pin(batch) == pins0[4]
        break
    assert loader.state_dict()["batch"] == 5
    assert epoch_of(loader) == pins1  # after a break comes the next epoch
    loader.load_state_dict(states1[9])
    assert epoch_of(loader) == pins1[9:]
