"""torchdata's StatefulDataLoader over scio, and Lightning over scio: states taken by them restore."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from scio.data import (
    BatchAwareSampler,
    CellDataLoader,
    CellDataset,
    DistributedShardSampler,
    WeightedCellSampler,
    collate_cells,
)
from tests.data.conftest import make_adata, rewrite

# torchdata calls it when a loader is made.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

Seen = list[list[int]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """101 cells, so that a batch of 8 is left over."""
    return rewrite(make_adata(101), tmp_path_factory.mktemp("stateful") / "x.h5ad")


def cells_of(batches: Any) -> Seen:
    return [batch["index"].tolist() for batch in batches]


def stream_loader(path: Path, workers: int, *, threads: int = 1, **options: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    loader = CellDataLoader(
        CellDataset(path, None), 8, threads, drop_last=False, block_bytes=500, seed=3
    )
    return StatefulDataLoader(loader.as_dataset(), batch_size=None, num_workers=workers, **options)


def plain_epochs(path: Path, n_epochs: int) -> list[Seen]:
    loader = CellDataLoader(CellDataset(path, None), 8, 1, drop_last=False, block_bytes=500, seed=3)
    return [cells_of(loader) for _ in range(n_epochs)]


OPTIONS: list[dict[str, Any]] = [
    {"workers": 0},
    {"workers": 1},
    {"workers": 1, "persistent_workers": True},
    {"workers": 1, "snapshot_every_n_steps": 3},
]
SPAWN = {"workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True}


@pytest.mark.parametrize("options", [*OPTIONS, SPAWN], ids=str)
def test_a_stream_of_batches_has_the_epochs_of_its_loader(path, options):
    expected = plain_epochs(path, 3)
    loader = stream_loader(path, **options)
    assert len(loader) == 13
    assert [cells_of(loader) for _ in range(3)] == expected
    loader.dataset.set_epoch(1)  # also reaches a worker that lives on
    assert [cells_of(loader) for _ in range(2)] == expected[1:]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stateful_loader_resumes_a_stream(path, options):
    expected = plain_epochs(path, 3)
    every = options == {"workers": 0}
    for epoch, steps in ((0, range(14) if every else (0, 1, 7, 13)), (1, (5, 13))):
        for step in steps:
            loader = stream_loader(path, **options)
            for _ in range(epoch):
                assert cells_of(loader) == expected[0]
            iterator = iter(loader)
            assert [next(iterator)["index"].tolist() for _ in range(step)] == expected[epoch][:step]
            state = json.loads(json.dumps(loader.state_dict()))
            assert cells_of(iterator) == expected[epoch][step:]
            del iterator, loader
            other = stream_loader(path, **options, threads=0)
            other.load_state_dict(state)
            assert cells_of(other) == expected[epoch][step:]
            assert cells_of(other) == expected[epoch + 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_state_after_an_epoch_begins_the_next(path, workers):
    expected = plain_epochs(path, 3)
    loader = stream_loader(path, workers)
    assert cells_of(loader) == expected[0]
    other = stream_loader(path, workers)
    other.load_state_dict(loader.state_dict())
    assert [cells_of(other) for _ in range(2)] == expected[1:]


def test_an_epoch_left_unfinished_begins_again(path):
    for workers in (0, 1):
        loader = stream_loader(path, workers)
        first = next(iter(loader))["index"].tolist()
        assert cells_of(loader)[0] == first


def test_a_stream_refuses_several_workers_and_a_foreign_state(path):
    with pytest.raises(ValueError, match="num_workers is 2, at most 1"):
        next(iter(DataLoader(stream_loader(path, 0).dataset, batch_size=None, num_workers=2)))
    other = CellDataLoader(CellDataset(path, None), 9).as_dataset()
    with pytest.raises(ValueError, match="batch_size was 8, is 9"):
        other.load_state_dict(stream_loader(path, 0).dataset.state_dict())


def test_a_stream_works_in_torchs_own_loader_and_pickles(path):
    expected = plain_epochs(path, 2)
    stream = stream_loader(path, 0).dataset
    loader = DataLoader(stream, batch_size=None, num_workers=1)
    assert [cells_of(loader) for _ in range(2)] == expected
    stream.set_epoch(1)
    assert cells_of(pickle.loads(pickle.dumps(stream))) == expected[1]


# --- map-style, with the samplers of scio


def mapped_loader(path: Path, workers: int, kind: str) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    cells = CellDataset(path, None)
    if kind == "balanced":
        chosen: dict[str, Any] = {"batch_sampler": BatchAwareSampler(cells, "batch", 8, seed=1)}
    elif kind == "shards":
        chosen = {"batch_size": 8, "sampler": DistributedShardSampler(cells, seed=1)}
    else:
        chosen = {"batch_size": 8, "sampler": WeightedCellSampler(cells, by="batch", seed=1)}
    return StatefulDataLoader(cells, collate_fn=collate_cells, num_workers=workers, **chosen)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["balanced", "shards", "weighted"])
def test_a_stateful_loader_resumes_cells_with_a_sampler(path, workers, kind):
    loader = mapped_loader(path, workers, kind)
    expected = [cells_of(loader) for _ in range(3)]
    assert expected[0] != expected[1]
    n_batches = len(expected[0])
    steps = range(n_batches + 1) if workers == 0 else (1, 6, n_batches)
    for epoch in (0, 1):
        for step in steps:
            loader = mapped_loader(path, workers, kind)
            for _ in range(epoch):
                cells_of(loader)
            iterator = iter(loader)
            for _ in range(step):
                next(iterator)
            state = loader.state_dict()
            del iterator, loader
            other = mapped_loader(path, workers, kind)
            other.load_state_dict(state)
            # To make a short last batch the sampler was asked to its end: its state is the next epoch.
            if step < n_batches or kind == "balanced":
                assert cells_of(other) == expected[epoch][step:]
            assert cells_of(other) == expected[epoch + 1]


# --- Lightning

LIGHTNINGS_OWN = [
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",  # its pytree under this torch
    "ignore:Checkpoint directory .* exists and is not empty",
]
N_TRAIN_BATCHES = 11  # of 81 cells


def lightning_run(
    parts: dict[str, CellDataset],
    folder: Path,
    *,
    with_module: bool,
    stop_at: str = "",
    resume: bool = False,
    one_cycle: bool = False,
    checkpoint: Any = None,
    n_epochs: int = 3,
) -> tuple[list[Any], list[Any], torch.Tensor]:
    """Train, or train on; what training and validation saw, and the weights.

    With `stop_at`, "step 7" or "epoch 1", a checkpoint is saved there and training breaks off.
    """
    import lightning as L

    from scio.data.lightning import CellDataModule

    saved = folder / "saved.ckpt"

    class Broken(Exception):
        pass

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.at(trainer, f"step {trainer.global_step}")

        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            self.at(trainer, f"epoch {trainer.current_epoch}")

        def at(self, trainer: Any, place: str) -> None:
            if place == stop_at:
                trainer.save_checkpoint(saved)
                raise Broken

    class Model(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(40, 4)
            self.seen: list[Any] = []
            self.validated: list[Any] = []

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.seen.append((self.current_epoch, batch["index"].tolist()))
            return torch.nn.functional.cross_entropy(
                self.layer(batch["expression"]), batch["codes"]["cell_type"]
            )

        def validation_step(self, batch: Any, _: int) -> None:
            self.validated.append((self.current_epoch, batch["index"].tolist()))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), 1e-2)
            if not one_cycle:
                return optimizer
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, 0.1, total_steps=int(self.trainer.estimated_stepping_batches)
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }

    torch.manual_seed(0)
    model = Model()
    options: dict[str, Any] = {"batch_size": 8, "num_workers": 1, "form": "dense", "seed": 2}
    options.update(drop_last=False, block_bytes=500, obs_codes=["cell_type"])
    if with_module:
        data: dict[str, Any] = {"datamodule": CellDataModule(parts, **options)}
    else:
        data = {
            "train_dataloaders": CellDataLoader(parts["train"], **options),
            "val_dataloaders": CellDataLoader(parts["val"], **{**options, "shuffle": False}),
        }
    trainer = L.Trainer(
        max_epochs=n_epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=checkpoint is not None,
        callbacks=[Stop()] if checkpoint is None else [checkpoint],
        default_root_dir=folder,
    )
    if resume:
        data["ckpt_path"] = saved
    if stop_at:
        with pytest.raises(Broken):
            trainer.fit(model, **data)
    else:
        trainer.fit(model, **data)
    return model.seen, model.validated, model.layer.weight.detach().clone()


@pytest.fixture(scope="module")
def parts(path: Path) -> dict[str, CellDataset]:
    return CellDataset(path, None).split({"train": 0.8, "val": 0.2}, seed=0)


@pytest.mark.filterwarnings(*LIGHTNINGS_OWN)
@pytest.mark.parametrize(
    ("with_module", "place"),
    [
        (False, "step 1"),
        (False, f"step {N_TRAIN_BATCHES}"),
        (False, f"step {N_TRAIN_BATCHES + 4}"),
        (False, "epoch 0"),
        (False, "epoch 1"),
        (True, f"step {2 * N_TRAIN_BATCHES - 1}"),
        (True, "epoch 0"),
    ],
)
def test_lightning_goes_on_where_it_was_broken_off(parts, tmp_path, with_module, place):
    whole_seen, whole_validated, weights = lightning_run(parts, tmp_path, with_module=with_module)
    assert len(whole_seen) == 3 * N_TRAIN_BATCHES
    cells = CellDataLoader(
        parts["train"], 8, 0, drop_last=False, block_bytes=500, seed=2, form="csr"
    )
    expected = [(epoch, ids) for epoch in range(3) for ids in cells_of(cells)]
    assert whole_seen == expected
    assert {i for _, ids in whole_validated for i in ids} == set(parts["val"].cells.tolist())
    seen, _, _ = lightning_run(parts, tmp_path, with_module=with_module, stop_at=place)
    rest, _, resumed = lightning_run(parts, tmp_path, with_module=with_module, resume=True)
    assert 0 < len(rest) < len(expected)
    assert seen + rest == expected
    assert torch.equal(resumed, weights)


@pytest.mark.filterwarnings(*LIGHTNINGS_OWN)
def test_the_module_resumes_although_the_steps_were_counted_before(parts, tmp_path):
    """OneCycleLR makes Lightning set up the loader before the checkpoint's loops are restored."""
    for place in ("step 5", f"step {N_TRAIN_BATCHES + 2}"):
        run = {"with_module": True, "one_cycle": True}
        expected, _, weights = lightning_run(parts, tmp_path, **run)
        seen, _, _ = lightning_run(parts, tmp_path, **run, stop_at=place)
        rest, _, resumed = lightning_run(parts, tmp_path, **run, resume=True)
        assert seen + rest == expected
        assert torch.equal(resumed, weights)


@pytest.mark.filterwarnings(*LIGHTNINGS_OWN)
def test_a_checkpoint_callback_of_lightning_holds_the_place(parts, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def checkpoint() -> Any:
        return ModelCheckpoint(
            dirpath=tmp_path, filename="{step}", every_n_train_steps=9, save_top_k=-1
        )

    expected, _, weights = lightning_run(parts, tmp_path, with_module=True, checkpoint=checkpoint())
    (tmp_path / "step=18.ckpt").rename(tmp_path / "saved.ckpt")
    rest, _, resumed = lightning_run(
        parts, tmp_path, with_module=True, checkpoint=checkpoint(), resume=True
    )
    assert rest == expected[18:]
    assert torch.equal(resumed, weights)


def test_the_module_names_wrong_parts(parts):
    from scio.data.lightning import CellDataModule

    with pytest.raises(ValueError, match=r"'train' and any of .*, not \['train', 'valid'\]"):
        CellDataModule({"train": parts["train"], "valid": parts["val"]})
    with pytest.raises(ValueError, match=r"not \['val'\]"):
        CellDataModule({"val": parts["val"]})
    assert CellDataModule({"train": parts["train"]}).val_dataloader() == []


def test_scio_data_does_not_import_lightning_or_torchdata():
    code = "import sys, scio.data; print({'lightning', 'torchdata'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
