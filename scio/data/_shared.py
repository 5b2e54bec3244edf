"""Batches in a worker of torch's DataLoader travel through shared memory, which may be too small."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from scio.errors import LoaderError

SHARED_MEMORY = "/dev/shm"
_PAGE_NBYTES = 4096


def share(batch: dict[str, Any]) -> dict[str, Any]:
    """Move tensors to shared memory, if this is a worker process of torch's DataLoader.

    Torch does it later, in a thread whose errors no one sees; the parent would wait for ever, or the
    worker die of a bus error.

    Parameters
    ----------
    batch : dict
        Of tensors.

    Returns
    -------
    dict
        The same.

    Raises
    ------
    LoaderError
        If they do not fit; names the size and what to do.
    """
    torch = sys.modules["torch"]
    if torch.utils.data.get_worker_info() is None or not os.path.isdir(SHARED_MEMORY):
        return batch
    tensors = list(_tensors_of(batch))
    needed = sum(_whole_pages(tensor.numel() * tensor.element_size()) for tensor in tensors)
    # Looked at first, because torch may only find out by touching memory that is not there.
    if needed > _free_nbytes():
        raise LoaderError(_message(needed))
    try:
        for tensor in tensors:
            tensor.share_memory_()
    except RuntimeError as error:  # another worker was faster
        raise LoaderError(_message(needed)) from error
    return batch


def _tensors_of(batch: dict[str, Any]) -> Iterator[Any]:
    """The tensors, those of layers and obsm too."""
    for value in batch.values():
        if isinstance(value, dict):
            yield from _tensors_of(value)
        else:
            yield value


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // _PAGE_NBYTES) * _PAGE_NBYTES


def _free_nbytes() -> int:
    state = os.statvfs(SHARED_MEMORY)
    return state.f_bavail * state.f_frsize


def _message(needed: int) -> str:
    return (
        f"a worker needs {needed:,} bytes of shared memory for one batch, {SHARED_MEMORY} has "
        f"{_free_nbytes():,} free: enlarge it (docker run --shm-size=1g), use num_workers=0 or smaller "
        "batches, or CellDataLoader, whose threads need none"
    )
