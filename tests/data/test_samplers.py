"""Samplers: balance, coverage, ranks, epochs, states; in torch's DataLoader and under real gloo ranks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scio.data import (
    BatchAwareSampler,
    CellDataLoader,
    CellDataset,
    DistributedShardSampler,
    WeightedCellSampler,
    collate_cells,
)
from scio.errors import ScioWarning
from tests.data.conftest import make_adata
from tests.data.helpers import max_label_deviation


def labelled(labels: Any, **columns: Any) -> CellDataset:
    """A dataset in memory whose obs has the column "batch"."""
    n = len(labels)
    x = sp.csr_matrix(
        (np.ones(n, dtype=np.float32), np.zeros(n, dtype=np.int32), np.arange(n + 1)), shape=(n, 2)
    )
    obs = pd.DataFrame({"batch": labels, **columns}, index=[str(i) for i in range(n)])
    return CellDataset(anndata.AnnData(X=x, obs=obs), None, obs_keys=[])


def of_counts(*counts: int) -> CellDataset:
    """Labels "0", "1" … with so many cells each, interleaved as a seeded shuffle does."""
    labels = np.repeat([f"label{i}" for i in range(len(counts))], counts)
    return labelled(pd.Categorical(np.random.default_rng(3).permutation(labels)))


def codes_of(cells: CellDataset, key: str = "batch") -> np.ndarray:
    return cells.store.column(key).codes()[cells.cells]


def spread(codes: np.ndarray, batch: list[int], n_labels: int) -> int:
    counts = np.bincount(codes[batch], minlength=n_labels)
    return int(counts.max() - counts.min())


# --- BatchAwareSampler


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    batch_size=st.integers(1, 40),
    exhausted=st.sampled_from(["cycle", "stop"]),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    world=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_counts_of_labels_differ_by_at_most_one(
    counts, batch_size, exhausted, shuffle, drop_last, world, epoch
):
    cells = of_counts(*counts)
    codes, n_labels = codes_of(cells), len(counts)
    made = dict(
        batch_size=batch_size, exhausted=exhausted, shuffle=shuffle, drop_last=drop_last, seed=7
    )
    if exhausted == "stop" and min(counts) // world * n_labels < (batch_size if drop_last else 1):
        with pytest.raises(ValueError, match="gives no batch"):
            BatchAwareSampler(cells, num_replicas=world, rank=0, **made)
        return
    samplers = [
        BatchAwareSampler(cells, num_replicas=world, rank=rank, **made) for rank in range(world)
    ]
    drawn: list[list[int]] = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == len(samplers[0])
        assert all(spread(codes, batch, n_labels) <= 1 for batch in batches)
        whole = [position for batch in batches for position in batch]
        assert spread(codes, whole, n_labels) <= 1  # also over an epoch, where labels take turns
        short = batches[:-1] if exhausted == "stop" and not drop_last else batches
        assert all(len(batch) == batch_size for batch in short)
        assert all(batches)
        drawn.append(whole)
    together = Counter(position for whole in drawn for position in whole)
    if exhausted == "cycle":
        assert set(together) == set(range(len(cells)))  # every cell was seen
    else:
        assert max(together.values()) == 1  # nothing twice, on no two ranks
        least = min(counts) // world * world * n_labels
        assert sum(together.values()) >= least - world * (batch_size - 1 if drop_last else 0)


@pytest.mark.parametrize("chunk", [1, 64, 1 << 18])
def test_the_order_does_not_depend_on_how_much_is_planned_at_once(monkeypatch, chunk):
    cells = of_counts(5, 90, 31)
    expected = list(BatchAwareSampler(cells, batch_size=8, seed=1))
    monkeypatch.setattr("scio.data.samplers._LEAST_CHUNK", chunk)
    assert list(BatchAwareSampler(cells, batch_size=8, seed=1)) == expected


def test_cycle_draws_a_small_label_in_another_order_each_time():
    cells = of_counts(8, 80)
    codes = codes_of(cells)
    positions = [p for batch in BatchAwareSampler(cells, batch_size=16) for p in batch]
    small = [p for p in positions if codes[p] == 0]
    rounds = [small[a : a + 8] for a in range(0, len(small), 8)]
    assert len(rounds) == 10
    assert all(sorted(r) == sorted(rounds[0]) for r in rounds)  # each round is every cell once
    assert len({tuple(r) for r in rounds}) == 10


def test_more_labels_than_batch_size_take_turns():
    cells = of_counts(*[10] * 7)
    codes = codes_of(cells)
    sampler = BatchAwareSampler(cells, batch_size=3)
    batches = list(sampler)
    assert all(len(set(codes[batch])) == 3 for batch in batches)
    appears = Counter(int(c) for batch in batches for c in codes[batch])
    assert max(appears.values()) - min(appears.values()) <= 1


def test_shuffle_false_keeps_the_order_of_the_dataset():
    cells = labelled(["a", "b", "a", "b", "a", "b"])
    sampler = BatchAwareSampler(cells, batch_size=2, shuffle=False)
    assert list(sampler) == [[0, 1], [2, 3], [4, 5]]
    assert list(sampler) == [[0, 1], [2, 3], [4, 5]]


def test_the_order_follows_from_seed_and_epoch_and_not_from_global_generators():
    cells = of_counts(30, 40)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    one = BatchAwareSampler(cells, batch_size=8, seed=5)
    first, second = list(one), list(one)
    np.random.seed(99)
    again = BatchAwareSampler(cells, batch_size=8, seed=5)
    assert [list(again), list(again)] == [first, second]
    assert first != second
    assert list(BatchAwareSampler(cells, batch_size=8, seed=6)) != first
    again.set_epoch(0)
    assert list(again) == first
    np.random.seed(0)
    assert np.array_equal(before, np.random.get_state()[1])


def test_the_orders_are_those_of_the_first_release():
    cells = labelled(list("aaabbbbcc"))
    assert [b for b in BatchAwareSampler(cells, batch_size=4, seed=1)] == FIRST_ORDERS["balanced"]
    shards = DistributedShardSampler([3, 5, 2], 2, 0, seed=1)
    assert list(shards) == FIRST_ORDERS["shards"]
    drawn = WeightedCellSampler(cells, by="batch", seed=1)
    assert list(drawn) == FIRST_ORDERS["weighted"]


FIRST_ORDERS = {
    "balanced": [[6, 1, 7, 3], [0, 8, 5, 2], [7, 4, 2, 8]],
    "shards": [4, 6, 7, 3, 5],
    "weighted": [0, 0, 4, 7, 0, 0, 5, 7, 6],
}


def test_missing_labels_are_a_group_of_their_own_with_one_warning():
    cells = labelled(pd.Categorical(["a", None, "a", "b", None, "b"]))
    with pytest.warns(ScioWarning, match="2 of 6 cells have no 'batch'") as caught:
        sampler = BatchAwareSampler(cells, batch_size=3)
    assert len(caught) == 1
    assert sampler.n_labels == 3
    assert all({1, 4} & set(batch) for batch in sampler)


def test_nan_in_a_column_of_numbers_is_a_missing_label():
    cells = labelled(np.array([0.0, np.nan, 1.0, 1.0, np.nan, 0.0]))
    with pytest.warns(ScioWarning, match="2 of 6 cells"):
        assert BatchAwareSampler(cells, batch_size=3).n_labels == 3


def test_one_label_only_is_a_warning():
    with pytest.warns(ScioWarning, match="nothing to balance"):
        sampler = BatchAwareSampler(labelled(["a"] * 10), batch_size=4)
    assert sorted({p for batch in sampler for p in batch}) == list(range(10))


def test_a_missing_key_is_a_key_error_with_the_near_names():
    with pytest.raises(KeyError, match="did you mean 'batch'"):
        BatchAwareSampler(of_counts(3, 3), "bacth")


def test_the_column_need_not_be_among_the_obs_keys(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None, obs_keys=[])
    batch = next(iter(BatchAwareSampler(cells, "cell_type", 8)))
    assert spread(codes_of(cells, "cell_type"), batch, 4) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"exhausted": "loop"}, r"exhausted is one of \('cycle', 'stop'\), not 'loop'"),
        ({"num_replicas": 2}, "together"),
        ({"num_replicas": 2, "rank": 2}, "rank lies in"),
        ({"exhausted": "stop"}, "smallest of 2 labels of 'batch' has 3 cells, batch_size is 64"),
    ],
)
def test_wrong_arguments_of_the_batch_aware_sampler(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchAwareSampler(of_counts(3, 30), **arguments)


def test_a_list_in_place_of_a_dataset_is_a_type_error():
    with pytest.raises(TypeError, match="takes a CellDataset, not a list"):
        BatchAwareSampler(["a", "b"])  # type: ignore[arg-type]


def test_a_selection_gives_positions_of_the_selection(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None, indices=np.arange(100, 160))
    seen = {p for batch in BatchAwareSampler(cells, batch_size=9) for p in batch}
    assert seen == set(range(60))


def test_a_million_cells_are_balanced_in_every_batch():
    cells = labelled(np.random.default_rng(0).integers(0, 10, 1_000_000))
    sampler = BatchAwareSampler(cells, batch_size=64)
    positions, offsets = sampler.batches(0)
    assert len(offsets) - 1 == len(sampler)
    assert max_label_deviation(codes_of(cells)[positions], offsets) == 1


def test_batches_at_once_are_those_of_the_iterator():
    for exhausted in ("cycle", "stop"):
        sampler = BatchAwareSampler(
            of_counts(20, 33), batch_size=6, exhausted=exhausted, drop_last=False
        )
        positions, offsets = sampler.batches(1)
        sampler.set_epoch(1)
        cuts = itertools.pairwise(offsets)
        assert [positions[a:b].tolist() for a, b in cuts] == list(sampler)


def test_the_largest_deviation_counts_labels_that_a_batch_lacks():
    codes = np.array([0, 0, 0, 1, 2, 2])
    assert max_label_deviation(codes, np.array([0, 3, 6])) == 3
    assert max_label_deviation(codes, np.array([3, 6])) == 2
    assert max_label_deviation(codes[:0], np.array([0])) == 0


# --- in loaders


def test_it_is_a_batch_sampler_of_the_cell_data_loader(tiny_h5ad):
    cells = CellDataset(tiny_h5ad, None)
    sampler = BatchAwareSampler(cells, "cell_type", 8, seed=2)
    loader = CellDataLoader(cells, batch_sampler=sampler, form="csr", to="numpy")
    assert len(loader) == len(sampler)
    expected = BatchAwareSampler(cells, "cell_type", 8, seed=2)
    n_batches = 0
    for batch, positions in zip(loader, expected, strict=True):
        assert batch["index"].tolist() == positions
        counts = Counter(batch["metadata"]["cell_type"])
        assert set(counts.values()) == {2}
        n_batches += 1
    assert n_batches == len(sampler)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_a_batch_sampler_of_torchs_data_loader(tiny_h5ad, workers):
    cells = CellDataset(tiny_h5ad, None)
    sampler = BatchAwareSampler(cells, "cell_type", 8, seed=2)
    loader = DataLoader(cells, batch_sampler=sampler, collate_fn=collate_cells, num_workers=workers)
    expected = BatchAwareSampler(cells, "cell_type", 8, seed=2)
    for _ in range(2):  # torch makes iterators it does not use; they are no epochs
        assert [batch["index"].tolist() for batch in loader] == list(expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["shards", "weighted"])
def test_samplers_of_positions_work_in_both_loaders(tiny_h5ad, kind, workers):
    cells = CellDataset([tiny_h5ad, tiny_h5ad], None)

    def make() -> Any:
        if kind == "shards":
            return DistributedShardSampler(cells.store, 2, 1, seed=4)
        return WeightedCellSampler(cells, by="cell_type", seed=4)

    loader = DataLoader(
        cells, sampler=make(), batch_size=16, collate_fn=collate_cells, num_workers=workers
    )
    expected = list(make())
    assert [i for batch in loader for i in batch["index"].tolist()] == expected
    own = CellDataLoader(cells, 16, sampler=make(), drop_last=False, form="csr", to="numpy")
    assert [i for batch in own for i in batch["index"].tolist()] == expected


# --- DistributedShardSampler


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    world=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 2),
)
@settings(max_examples=150, deadline=None)
def test_whole_shards_no_cell_twice_none_lost_equal_counts(sizes, world, shuffle, drop_last, epoch):
    if sum(size > 0 for size in sizes) < world:
        with pytest.raises(ValueError, match="cannot be dealt whole"):
            DistributedShardSampler(sizes, world, 0)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScioWarning)  # uneven shards, which this test wants
        samplers = [
            DistributedShardSampler(sizes, world, rank, shuffle, 5, drop_last)
            for rank in range(world)
        ]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert sorted(s for sampler in samplers for s in sampler.shards) == [
        i for i, size in enumerate(sizes) if size
    ]
    real: list[int] = []
    for sampler in samplers:
        sampler.set_epoch(epoch)
        positions = np.array(list(sampler))
        assert len(positions) == len(sampler) == len(samplers[0])
        assert set(owner[positions]) <= set(sampler.shards)
        padding = sampler.is_padding(np.arange(len(positions)))
        assert padding.sum() == sampler.n_padding
        real += positions[~padding].tolist()
        if not shuffle:
            assert positions[~padding].tolist() == sorted(positions[~padding])
    assert len(set(real)) == len(real)  # no cell twice
    if drop_last:
        assert all(sampler.n_padding == 0 for sampler in samplers)
        assert any(len(sampler) == sum(sizes[s] for s in sampler.shards) for sampler in samplers)
    else:
        assert sorted(real) == list(range(sum(sizes)))  # none lost


def test_shards_are_balanced_by_cells():
    loads = []
    for rank in range(3):
        sampler = DistributedShardSampler([90, 10, 40, 30, 50, 50, 20], 3, rank)
        loads.append(sum([90, 10, 40, 30, 50, 50, 20][s] for s in sampler.shards))
    assert max(loads) - min(loads) <= 10


def test_another_order_of_the_same_shards_every_epoch():
    sampler = DistributedShardSampler([50, 60], 2, 0)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sorted(set(first)) == sorted(set(second))


def test_a_cell_dataset_is_sharded_by_its_sources_and_its_selection(tiny_h5ad):
    cells = CellDataset([tiny_h5ad, tiny_h5ad], None, indices=np.r_[0:10, 211:220])
    samplers = [DistributedShardSampler(cells, 2, rank, shuffle=False) for rank in range(2)]
    assert list(samplers[0]) == list(range(10))
    assert list(samplers[1]) == [*range(10, 19), 10]
    assert [samplers[1].is_padding(i) for i in (8, 9)] == [False, True]


def test_uneven_shards_warn_with_the_number_of_cells():
    with pytest.warns(ScioWarning, match="90 cells come twice in every epoch of 110"):
        DistributedShardSampler([100, 10], 2, 0)
    with pytest.warns(ScioWarning, match="90 cells are left out"):
        DistributedShardSampler([100, 10], 2, 0, drop_last=True)


@pytest.mark.parametrize("wrong", [[], [-1, 3], [1.5], "ab", [[1]]])
def test_wrong_shard_sizes(wrong):
    with pytest.raises(ValueError, match="the shards come as"):
        DistributedShardSampler(wrong, 1, 0)


# --- WeightedCellSampler


def within_binomial(counts: np.ndarray, n: int, p: np.ndarray) -> bool:
    """Five standard deviations: one failure in a few million for honest draws."""
    return bool((np.abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9).all())


def test_frequencies_follow_the_weights():
    weights = np.array([1.0, 0.0, 2.0, 5.0, 0.5])
    sampler = WeightedCellSampler(of_counts(2, 3), weights, 200_000, seed=11)
    counts = np.bincount(list(sampler), minlength=5)
    assert counts[1] == 0
    assert within_binomial(counts, 200_000, weights / weights.sum())


def test_class_weights_draw_every_label_equally_often():
    cells = of_counts(900, 90, 10)
    drawn = np.array(list(WeightedCellSampler(cells, n_samples=60_000, by="batch")))
    counts = np.bincount(codes_of(cells)[drawn], minlength=3)
    assert within_binomial(counts, 60_000, np.full(3, 1 / 3))


def test_without_replacement_no_cell_comes_twice_and_weight_zero_never():
    weights = np.arange(50) % 7
    sampler = WeightedCellSampler(of_counts(20, 30), weights, replacement=False)
    drawn = list(sampler)
    assert sorted(drawn) == np.flatnonzero(weights).tolist()
    assert list(sampler) != drawn  # the next epoch


def test_without_replacement_the_first_draw_follows_the_weights():
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    sampler = WeightedCellSampler(of_counts(2, 2), weights, 1, replacement=False)
    firsts = np.bincount([next(iter(sampler)) for _ in range(4000)], minlength=4)
    assert within_binomial(firsts, 4000, weights / 10)


@pytest.mark.parametrize("replacement", [True, False])
def test_ranks_share_the_draws_of_one_sequence(replacement):
    cells = of_counts(40, 61)
    weights = 1.0 + np.arange(101)
    made = dict(replacement=replacement, seed=3)
    alone = WeightedCellSampler(cells, weights, 99, **made)
    ranks = [
        WeightedCellSampler(cells, weights, 101, num_replicas=3, rank=rank, **made)
        for rank in range(3)
    ]
    assert [len(r) for r in ranks] == [33, 33, 33]
    drawn = [list(r) for r in ranks]
    whole = list(alone)
    assert drawn == [whole[0::3], whole[1::3], whole[2::3]]
    if not replacement:
        assert len({p for d in drawn for p in d}) == 99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either weights or by"),
        ({"weights": [1, 1, 1, 1], "by": "batch"}, "either weights or by"),
        ({"weights": [1, 1, 1]}, r"shape \(3,\), the dataset has 4 cells"),
        ({"weights": [1, -1, 1, np.nan]}, r"weight 1 is -1.0; .* \(2 are not\)"),
        ({"weights": [1, 1, np.inf, 1]}, "weight 2 is inf"),
        ({"weights": [0, 0, 0, 0]}, "all weights are 0"),
        ({"by": "batch", "n_samples": 0}, "n_samples is at least 1"),
        ({"by": "batch", "n_samples": 5, "replacement": False}, "only 4 cells have a weight"),
    ],
)
def test_wrong_arguments_of_the_weighted_sampler(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightedCellSampler(of_counts(2, 2), **arguments)


# --- epochs and states, all samplers

MAKERS = {
    "cycle": lambda **k: BatchAwareSampler(of_counts(9, 30), batch_size=4, **k),
    "stop": lambda **k: BatchAwareSampler(
        of_counts(20, 30), batch_size=7, exhausted="stop", drop_last=False, **k
    ),
    "shards": lambda **k: DistributedShardSampler([20, 21], 2, 0, **k),
    "weighted": lambda **k: WeightedCellSampler(of_counts(9, 20), by="batch", **k),
    "keys": lambda **k: WeightedCellSampler(of_counts(9, 20), by="batch", replacement=False, **k),
}
every_sampler = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_sampler
def test_a_state_at_every_place_restores_the_identical_rest(make):
    sampler = make()
    list(sampler)  # epoch 0
    expected = list(make().__class__.__iter__(_at_epoch(make(), 1)))
    keys = None
    iterator = iter(sampler)
    for place in range(len(sampler) + 1):
        state = json.loads(json.dumps(sampler.state_dict()))  # plain values only
        shape = (set(state), set(state["settings"]), {k: type(v) for k, v in state.items()})
        keys = keys or shape
        assert shape == keys
        other = make()
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert list(other) == expected[place:]
        assert list(other) == list(_at_epoch(make(), 2))  # and the epoch after it
        if place < len(sampler):
            assert next(iterator) == expected[place]
    assert next(iterator, None) is None
    assert (sampler.state_dict()["epoch"], sampler.state_dict()["place"]) == (2, 0)


def _at_epoch(sampler: Any, epoch: int) -> Any:
    sampler.set_epoch(epoch)
    return sampler


@every_sampler
def test_each_iterator_is_the_next_epoch_and_unused_ones_do_not_count(make):
    sampler = make()
    iter(sampler)
    first = list(sampler)
    assert first == list(_at_epoch(make(), 0))
    assert list(sampler) == list(_at_epoch(make(), 1)) != first
    next(iter(sampler))  # an epoch that is broken off
    assert list(sampler) == list(_at_epoch(make(), 3))
    assert len(first) == len(sampler)


@every_sampler
def test_set_epoch_keeps_the_place_of_a_loaded_state_of_that_epoch(make):
    sampler = _at_epoch(make(), 4)
    iterator = iter(sampler)
    next(iterator)
    other = make()
    other.load_state_dict(sampler.state_dict())
    other.set_epoch(4)
    assert list(other) == list(iterator)
    other.load_state_dict(sampler.state_dict())
    other.set_epoch(5)
    assert list(other) == list(_at_epoch(make(), 5))


@every_sampler
def test_a_foreign_state_is_refused_and_the_difference_named(make):
    state = make().state_dict()
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        make(seed=1).load_state_dict(state)
    wrong = {**state, "sampler": "RandomSampler"}
    with pytest.raises(ValueError, match="sampler was 'RandomSampler', is"):
        make().load_state_dict(wrong)
    for broken in ({}, 3, {**state, "more": 1}):
        with pytest.raises(ValueError, match="has the keys"):
            make().load_state_dict(broken)
    for place in (-1, len(make()) + 1):
        with pytest.raises(ValueError, match=f"place {place}"):
            make().load_state_dict({**state, "place": place})
    with pytest.raises(ValueError, match="epoch is at least 0"):
        make().set_epoch(-1)


def test_states_of_other_data_and_other_rank_counts_are_refused():
    state = BatchAwareSampler(of_counts(4, 6), batch_size=4).state_dict()
    with pytest.raises(ValueError, match=r"labels was '\w+', is '\w+'$"):
        BatchAwareSampler(of_counts(5, 5), batch_size=4).load_state_dict(state)
    with pytest.raises(ValueError, match=r"num_replicas was 1, is 2$"):
        BatchAwareSampler(of_counts(4, 6), batch_size=4, num_replicas=2, rank=0).load_state_dict(
            state
        )
    shards = DistributedShardSampler([3, 3], 1, 0).state_dict()
    with pytest.raises(ValueError, match="shards was"):
        DistributedShardSampler([2, 4], 1, 0).load_state_dict(shards)
    weighted = WeightedCellSampler(of_counts(2, 2), [1, 2, 3, 4]).state_dict()
    with pytest.raises(ValueError, match="weights was"):
        WeightedCellSampler(of_counts(2, 2), [1, 2, 3, 5]).load_state_dict(weighted)


def test_the_state_of_one_rank_serves_the_others():
    made = dict(batch_size=4, num_replicas=2)
    zero = BatchAwareSampler(of_counts(20, 30), rank=0, **made)
    iterator = iter(zero)
    next(iterator)
    one = BatchAwareSampler(of_counts(20, 30), rank=1, **made)
    one.load_state_dict(zero.state_dict())
    assert list(one) == list(BatchAwareSampler(of_counts(20, 30), rank=1, **made))[1:]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_resumes_in_the_middle_of_an_epoch(tiny_h5ad, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    cells = CellDataset(tiny_h5ad, None)

    def make() -> Any:
        sampler = BatchAwareSampler(cells, "cell_type", 8, seed=2)
        return StatefulDataLoader(
            cells, batch_sampler=sampler, collate_fn=collate_cells, num_workers=workers
        )

    loader = make()
    list(loader)  # epoch 0
    iterator = iter(loader)
    for _ in range(5):
        next(iterator)
    state = loader.state_dict()
    rest = [batch["index"].tolist() for batch in iterator]
    sampler = BatchAwareSampler(cells, "cell_type", 8, seed=2)
    assert rest == list(_at_epoch(sampler, 1))[5:]
    other = make()
    other.load_state_dict(state)
    assert [batch["index"].tolist() for batch in other] == rest


# --- real ranks

RANK_SCRIPT = """
import json, sys, warnings
import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from scio.data import (BatchAwareSampler, CellDataset, DistributedShardSampler,
                       WeightedCellSampler, collate_cells)

paths, rank, world = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method="file://" + sys.argv[4], rank=rank, world_size=world)
cells = CellDataset(paths, None)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the files are uneven on purpose
    makers = {
        "balanced": lambda: BatchAwareSampler(cells, "cell_type", 8, exhausted="stop"),
        "shards": lambda: DistributedShardSampler(cells),
        "trimmed": lambda: DistributedShardSampler(cells, drop_last=True),
        "weighted": lambda: WeightedCellSampler(cells, by="cell_type", replacement=False),
    }
    out = {}
    for name, make in makers.items():
        sampler = make()
        assert (sampler.rank, sampler.num_replicas) == (rank, world)  # from torch.distributed
        kind = "batch_sampler" if name == "balanced" else "sampler"
        more = {} if name == "balanced" else {"batch_size": 8}
        loader = DataLoader(cells, collate_fn=collate_cells, **{kind: sampler}, **more)
        epochs = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            seen = []
            for batch in loader:
                # Every step is a collective, as in DDP: unequal counts would hang here.
                total = torch.tensor([len(batch["index"])])
                dist.all_reduce(total)
                seen.append(batch["index"].tolist())
            epochs.append(seen)
        out[name] = {"epochs": epochs, "n_padding": getattr(sampler, "n_padding", 0)}
    print(json.dumps(out))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two gloo processes saw of three files of 50, 31 and 90 cells."""
    folder = tmp_path_factory.mktemp("ranks")
    paths = []
    for n_cells in (50, 31, 90):
        paths.append(str(folder / f"{n_cells}.h5ad"))
        make_adata(n_cells=n_cells).write_h5ad(paths[-1])
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(RANK_SCRIPT),
                json.dumps(paths),
                str(rank),
                "2",
                str(folder / "meet"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
        )
        for rank in range(2)
    ]
    results = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=100)
            assert process.returncode == 0, err[-3000:]
            results.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    return results


@pytest.mark.parametrize("name", ["balanced", "shards", "trimmed", "weighted"])
def test_two_gloo_ranks_get_equal_counts_of_other_cells_in_another_order_each_epoch(
    two_ranks, name
):
    for epoch in range(2):
        sizes = [[len(b) for b in rank[name]["epochs"][epoch]] for rank in two_ranks]
        assert sizes[0] == sizes[1]
        seen = [{i for b in rank[name]["epochs"][epoch] for i in b} for rank in two_ranks]
        assert not seen[0] & seen[1]
        if name in ("shards", "weighted"):
            assert len(seen[0] | seen[1]) == (171 if name == "shards" else 170)
    for rank in two_ranks:
        first, second = rank[name]["epochs"]
        assert first != second


def test_two_gloo_ranks_have_whole_files(two_ranks):
    of_file = np.repeat([0, 1, 2], [50, 31, 90])
    files = [{of_file[i] for b in r["shards"]["epochs"][0] for i in b} for r in two_ranks]
    assert files == [{2}, {0, 1}]
    assert [r["shards"]["n_padding"] for r in two_ranks] == [0, 9]


def test_rank_and_number_of_ranks_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    sampler = DistributedShardSampler([4, 4], shuffle=False)
    assert list(sampler) == [4, 5, 6, 7]
