"""The batches of a `CellDataLoader` as a dataset of torch: for loaders that keep their own state."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scio._optional import require

if TYPE_CHECKING:
    from scio.data.dataloader import CellDataLoader

# A dataset for torch must be one of torch's; without torch the class stands on its own.
if TYPE_CHECKING or importlib.util.find_spec("torch") is None:
    _Base = object
else:
    from torch.utils.data import IterableDataset as _Base


class BatchStream(_Base):
    """An IterableDataset whose items are whole batches; made by `CellDataLoader.as_dataset`.

    The loader's threads do the work, in the process of the loader or in one worker.  The number of the
    next epoch lies in shared memory, because a worker is a copy that is thrown away after an epoch.
    """

    def __init__(self, loader: CellDataLoader) -> None:
        torch = require("torch", "CellDataLoader.as_dataset")
        self._loader = loader
        self._epoch = torch.full((1,), loader.state_dict()["epoch"]).share_memory_()

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter``, in whichever process that happens."""
        self._loader.set_epoch(epoch)
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Hand out the batches of the next epoch, or the rest of one that was resumed.

        Raises
        ------
        ValueError
            In one of several workers: each would give all the batches.
        """
        worker = require("torch.utils.data", "BatchStream").get_worker_info()
        if worker is not None:
            if worker.num_workers > 1:
                message = (
                    f"num_workers is {worker.num_workers}, at most 1 can give the batches of a "
                    "CellDataLoader; its own num_workers is the number of threads"
                )
                raise ValueError(message)
            self._loader.pin_memory = False  # CUDA does not survive a fork; the main process pins
        return self._batches()

    def _batches(self) -> Iterator[dict[str, Any]]:
        epoch = int(self._epoch)
        self._loader.set_epoch(epoch)
        yield from self._loader
        self._epoch[0] = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """`CellDataLoader.state_dict`, in the process that iterates."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """`CellDataLoader.load_state_dict`, in the process that will iterate."""
        self._loader.load_state_dict(state)
        self._epoch[0] = int(state["epoch"])
