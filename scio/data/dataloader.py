"""Batches in order from the core's pipeline, and the same collation for a list of items."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio._optional import require
from scio.data._arguments import (
    cache_directory,
    check_choice,
    check_least,
    nbytes,
    rank_and_world,
)
from scio.data._mixing import GOOD_MIXING, Mixing, measure_mixing
from scio.data._residence import Residence, Run
from scio.data._shared import share
from scio.data._state import VERSION, Fingerprint, check_state, digest, settings_of
from scio.data.dataset import FIRST_GENE_ID, CellDataset
from scio.data.gene_vocab import GeneVocab
from scio.errors import ScioWarning, WorkerDiedError

if TYPE_CHECKING:
    from scio.data._stream import BatchStream

FORMS = ("tokens", "dense", "csr")
_ARRAYS = {
    "tokens": ("expression", "gene_indices", "attention_mask", "n_genes", "index"),
    "dense": ("expression", "index"),
    "csr": ("data", "indices", "indptr", "index"),
}
_SHUFFLES = (True, False, "block", "exact")
DEFAULT_MAX_NBYTES = 512 << 20

Form = Literal["tokens", "dense", "csr"]


class SamplerHandle:
    """What trainers look for in a loader: ``loader.sampler.set_epoch`` chooses the loader's epoch.

    Everything else is that of the sampler the loader was given; without one there is nothing else.
    """

    def __init__(self, loader: CellDataLoader, sampler: Any) -> None:
        self._loader, self._sampler = loader, sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the loader's next iteration, see `CellDataLoader.set_epoch`."""
        self._loader.set_epoch(epoch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle look for these before there is a sampler
            raise AttributeError(name)
        return getattr(self._sampler, name)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


class CellDataLoader:
    """Iterate over a `CellDataset` in batches, decoded and collated by the core's threads.

    Parameters
    ----------
    dataset : CellDataset
    batch_size : int
        Cells per batch.
    num_workers : int
        Threads of the core that may work for this loader, at most the CPUs of the process; 0 does the
        work in the thread that iterates.  The batches never depend on it.
    shuffle : bool, "block" or "exact"
        True: epoch 0 as "block", decoded while you train; from epoch 1 on as "exact" where all cells
        fit `max_memory` in compact form (about 3 bytes a non-zero) or `cache` holds them, else as
        "block" again.  "block": blocks of chunks in random order, cells permuted within windows.
        "exact": one permutation of all cells, which are decoded before the first batch.  False: file
        order.
    drop_last : bool
        Full batches only.
    pin_memory : bool
        Copy batches to pinned memory; only with CUDA present, silently without effect elsewhere.
    seed : int
        Of the shuffle and of "random_expressed".
    max_genes : int, optional
        Width of the token batches; None: that of the dataset, else the longest cell of each batch.
    form : {"tokens", "dense", "csr"}
        What a batch holds, see Notes.
    sampler, batch_sampler : iterable, optional
        Positions in the dataset, or lists of them; take the place of `shuffle` (the second also of
        `batch_size` and `drop_last`).
    rank, world_size : int, optional
        None: from torch.distributed if initialised, then from RANK and WORLD_SIZE, else 0 and 1.
    max_memory : int or str, optional
        Hard cap of the loader's memory, bytes or "2GB"; None: 512 MiB.  A larger one mixes better.
    block_bytes : int, optional
        Decoded bytes of a block; None: chosen from the cap.
    on_error : {"raise", "skip"}
        "skip" leaves the cells of a broken chunk out and counts them.
    to : {"torch", "numpy"}
        Tensors or arrays.
    pad_value : float
        Fills ``expression`` and layers behind the last gene of a cell.
    cache : path or "auto", optional
        Directory for fast-layout copies of what does not fit `max_memory`: an uncompressed ``.h5ad``
        of narrow dtypes, written while the first epoch runs, published whole, mapped by later epochs
        and later runs, and bound to the identity of its source.  "auto": the user's cache directory
        (needs platformdirs).
    dtype : {"float32", "float16"}
        Of values in the batches; float16 is the nearest to the float32 value.
    index_dtype : {"int64", "int32"}
        Of ``gene_indices`` and ``attention_mask``.
    obs_codes : sequence of str
        Label columns of obs that come as integers too: ``batch["codes"][key]`` (B,) int64, -1 where
        missing; `CellDataset.categories` names them.
    timeout : float, optional
        Seconds to wait for one batch before `WorkerDiedError` is raised; None: without limit.  Reads
        that hang are left behind, and the process goes on without them.  With `num_workers` 0 nobody
        is there to notice.

    Raises
    ------
    ValueError
        For wrong arguments; a cap too small names the least that works.

    Notes
    -----
    "tokens": ``expression`` (B, L) float32, ``gene_indices`` (B, L) int64, ``attention_mask`` (B, L)
    int64 (1 real, 0 pad), ``n_genes`` (B,) int64.  "dense": ``expression`` (B, n_genes of the
    vocabulary) float32.  "csr": ``data`` float32, ``indices`` int32, ``indptr`` int64, ``shape``; its
    columns and those of "dense" are ``gene_vocab.genes``, without special tokens (column j is id j + 4).  All with ``index``
    (B,) int64, the global cell id, and ``metadata``: key to a list of labels or an array of numbers.
    Layers and obsm of the dataset come as ``layers`` and ``obsm``, key to values: "dense" (B, n_genes),
    "csr" a dict of ``data``, ``indices``, ``indptr``, "tokens" (B, L) at the genes of
    ``gene_indices``; obsm (B, width).

    Each ``iter`` is the next epoch unless `set_epoch` said which; the batches follow from files,
    settings, seed and epoch alone, whatever the threads.

    Examples
    --------
    >>> import scio
    >>> from scio.data import CellDataLoader, CellDataset
    >>> cells = CellDataset(scio.datasets.pbmc3k(), None)
    >>> loader = CellDataLoader(cells, batch_size=100, form="csr", to="numpy")
    >>> len(loader), next(iter(loader))["shape"]
    (27, (100, 32643))
    """

    def __init__(
        self,
        dataset: CellDataset,
        batch_size: int = 64,
        num_workers: int = 4,
        shuffle: bool | Literal["block", "exact"] = True,
        drop_last: bool = True,
        pin_memory: bool = True,
        *,
        seed: int = 0,
        max_genes: int | None = None,
        form: Form = "tokens",
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        max_memory: int | str | None = None,
        block_bytes: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        to: Literal["torch", "numpy"] = "torch",
        pad_value: float = 0.0,
        cache: str | os.PathLike[str] | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        index_dtype: Literal["int64", "int32"] = "int64",
        obs_codes: Sequence[str] = (),
        timeout: float | None = None,
    ) -> None:
        check_choice("form", form, FORMS)
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("to", to, ("torch", "numpy"))
        check_choice("dtype", dtype, ("float32", "float16"))
        check_choice("index_dtype", index_dtype, ("int64", "int32"))
        if isinstance(obs_codes, str):
            message = f"obs_codes is a list of keys, such as [{obs_codes!r}], not a text"
            raise TypeError(message)
        if timeout is not None and not timeout > 0:
            message = f"timeout is a number of seconds above 0, or None, not {timeout!r}"
            raise ValueError(message)
        if shuffle not in _SHUFFLES:
            message = f"shuffle is True, False, 'block' or 'exact', not {shuffle!r}"
            raise ValueError(message)
        if sampler is not None and batch_sampler is not None:
            message = "give sampler or batch_sampler, not both"
            raise ValueError(message)
        check_least("batch_size", batch_size, 1)
        check_least("num_workers", num_workers, 0)
        if max_genes is not None:
            check_least("max_genes", max_genes, 1)
        if len(dataset) == 0:
            message = "the dataset has no cells"
            raise ValueError(message)
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.num_workers = min(int(num_workers), _core.cpu_count())
        self.shuffle = shuffle
        self.drop_last = bool(drop_last)
        self.pin_memory = bool(pin_memory)
        self.seed = int(seed)
        self.max_genes = max_genes if max_genes is not None else dataset.max_genes
        self.form = form
        self._sampler = sampler
        self.batch_sampler = batch_sampler
        self.rank, self.world_size = rank_and_world(rank, world_size)
        self.max_memory = nbytes("max_memory", max_memory) or DEFAULT_MAX_NBYTES
        self.block_bytes = nbytes("block_bytes", block_bytes)
        self.on_error = on_error
        self.to = to
        self.pad_value = float(pad_value)
        self.dtype = dtype
        self.index_dtype = index_dtype
        self.cache = cache_directory(cache)
        self.timeout = None if timeout is None else float(timeout)
        self.obs_codes = list(obs_codes)
        for key in self.obs_codes:
            dataset.categories(key)  # a wrong key is reported here
        self._next = (0, 0)  # epoch and batch at which the next iteration begins
        self._at = (0, 0)  # where the iteration stands
        self._at_plan = ""  # plan of the epoch in whose middle it stands
        self._resumed_plan: str | None = None
        self._run: Run | None = None
        self._given: tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]]] | None = None
        self._given_hash: tuple[int, str] | None = None
        self._lengths: dict[int, int] = {}
        self._residence = Residence(self)
        if not self.is_given:
            self.make_core(0, self.plain_plan)  # a cap that is too small is reported here

    @property
    def is_given(self) -> bool:
        """Whether a sampler says which cells come."""
        return self._sampler is not None or self.batch_sampler is not None

    @property
    def sampler(self) -> SamplerHandle:
        """The sampler that was given, if any; its `set_epoch`, which trainers call, is the loader's."""
        return SamplerHandle(self, self._sampler)

    @property
    def plain_plan(self) -> Literal["block", "none", "given"]:
        """The plan of an epoch for which nothing is resident."""
        if self.is_given:
            return "given"
        return "none" if self.shuffle is False else "block"

    # --- epochs

    @property
    def stats(self) -> dict[str, Any]:
        """Counters and times of the epoch that runs or ran last; empty before the first.

        ``cells``, ``batches``, ``skipped_cells``; ``seconds`` and ``cells_per_second``;
        ``seconds_wait`` (you waited for the loader), ``seconds_consumer`` (the loader could wait for
        you); ``seconds_decode``, ``seconds_gather``, ``seconds_collate``, summed over threads;
        ``nbytes_read``, ``chunks_decoded``, ``chunks_total``, ``n_windows``, ``n_blocks``;
        ``peak_nbytes`` of ``cap_nbytes``; ``plan``: "block", "exact", "none" or "given"; ``rows``:
        "decoded", "compact", "mapped" or "memory", where the rows came from.
        """
        return {} if self._run is None else self._run.stats()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next ``iter``; the one after it is ``epoch + 1``.

        The epoch of a state that was just loaded goes on where it stopped.
        """
        check_least("epoch", epoch, 0)
        if int(epoch) != self._next[0]:
            self._next = (int(epoch), 0)
            self._resumed_plan = None
        self._at, self._at_plan = self._next, self._resumed_plan or ""

    def __len__(self) -> int:
        """Number of batches of this rank in the next epoch."""
        epoch = self._next[0]
        if self.is_given:
            return self._n_given_batches(epoch)
        if epoch not in self._lengths:
            self._lengths = {epoch: self.make_core(epoch, self.plain_plan).n_batches}
        return self._lengths[epoch]

    def make_core(self, epoch: int, plan: str, **overrides: Any) -> _core.Loader:
        """Make the core's loader for an epoch: its plan, nothing is read yet.

        For the modules of `scio.data`; `overrides` are arguments of ``_core.Loader``.
        """
        store = self.dataset.store
        arguments = self.dataset.collate_arguments()
        arguments.update(
            seed=self.seed,
            epoch=epoch,
            max_genes=self.max_genes or 0,
            dtype=self.dtype,
            index_dtype=self.index_dtype,
            cells=None if self.dataset.has_all_cells else self.dataset.cells,
            form=self.form,
            first_id=FIRST_GENE_ID,
            pad_value=self.pad_value,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            shuffle=plan,
            rank=self.rank,
            world_size=self.world_size,
            max_memory=self.max_memory,
            block_bytes=self.block_bytes,
            threads=self.num_workers,
            prefetch=0,
            skip_errors=self.on_error == "skip",
            first_batch=0,
            keep=self._residence.keeps,
        )
        if plan == "given":
            cells, offsets = self._given_batches(epoch)
            arguments.update(given_cells=cells, given_offsets=offsets)
        arguments.update(store.track_arguments())
        arguments.update(overrides)
        return _core.Loader(store.core_matrices(), store.gene_maps, **arguments)

    def take(self, core: _core.Loader) -> dict[str, Any] | None:
        """Take the next batch of a core's loader, None at the end.

        Raises
        ------
        WorkerDiedError
            If none comes within `timeout`.
        """
        try:
            return core.next(timeout=self.timeout)
        except TimeoutError:
            core.cancel()
            message = (
                f"no batch came within timeout={self.timeout} seconds: the storage of "
                f"{', '.join(self.dataset.store.names[:3])} hangs, or one batch takes that long"
            )
            raise WorkerDiedError(message) from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Hand out the batches of the next epoch, or the rest of one that was resumed."""
        (epoch, first), plan = self._next, self._resumed_plan
        self._next, self._resumed_plan = (epoch + 1, 0), None
        self._at, self._at_plan = (epoch, first), plan or ""
        self._run = run = self._residence.start(epoch, first_batch=first, plan=plan)
        n_given = first
        try:
            while (batch := self.take(run.core)) is not None:
                n_given += 1
                self._at, self._at_plan = (epoch, n_given), run.plan
                yield self._finish(batch)
            self._residence.finish()
            self._at, self._at_plan = (epoch + 1, 0), ""
            self._warn_of_skipped(run)
        finally:
            run.core.close()

    def _warn_of_skipped(self, run: Run) -> None:
        n_skipped = int(run.stats()["skipped_cells"])
        if n_skipped:
            warnings.warn(
                f"{n_skipped} cells of broken chunks were skipped", ScioWarning, stacklevel=3
            )

    # --- samplers

    def n_given_cells(self, epoch: int) -> int:
        """Cells that the sampler asks for in an epoch."""
        return len(self._given_batches(epoch)[0])

    def _n_given_batches(self, epoch: int) -> int:
        sized: Any = self.batch_sampler if self.batch_sampler is not None else self._sampler
        if not hasattr(sized, "__len__"):
            return len(self._given_batches(epoch)[1]) - 1
        if self.batch_sampler is not None:
            return len(sized)
        whole, rest = divmod(len(sized), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def _given_batches(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells and offsets of the batches that a sampler asks for; asked once an epoch."""
        if self._given is not None and self._given[0] == epoch:
            return self._given[1]
        positions, offsets = self._sampled(epoch)
        self._check_positions(positions)
        n_cells = len(positions)
        if offsets is None:
            if self.drop_last:
                n_cells -= n_cells % self.batch_size
            offsets = np.append(np.arange(0, n_cells, self.batch_size, dtype=np.int64), n_cells)
        cells = np.ascontiguousarray(self.dataset.cells[positions[:n_cells]])
        self._given = (epoch, (cells, offsets))
        return cells, offsets

    def _given_digest(self, epoch: int) -> str:
        if self._given_hash is None or self._given_hash[0] != epoch:
            self._given_hash = (epoch, digest(*self._given_batches(epoch)))
        return self._given_hash[1]

    def _sampled(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Positions that the sampler gives in an epoch; offsets when it gives batches.

        Samplers of `scio.data` are asked for a whole epoch at once, which moves nothing in them.
        """
        sampler: Any = self.batch_sampler if self.batch_sampler is not None else self._sampler
        if self.batch_sampler is not None and hasattr(sampler, "batches"):
            batched: tuple[NDArray[np.int64], NDArray[np.int64]] = sampler.batches(epoch)
            return batched
        if self.batch_sampler is None and hasattr(sampler, "positions"):
            return sampler.positions(epoch), None
        inner = getattr(sampler, "sampler", None)  # torch's BatchSampler holds one
        for seeded in (sampler, inner):
            if seeded is not None and hasattr(seeded, "set_epoch"):
                seeded.set_epoch(epoch)
        if self.batch_sampler is None:
            return np.fromiter(sampler, dtype=np.int64), None
        batches = [np.asarray(list(b), dtype=np.int64) for b in sampler]
        offsets = np.cumsum([0] + [len(b) for b in batches], dtype=np.int64)
        return np.concatenate(batches) if batches else np.empty(0, dtype=np.int64), offsets

    def _check_positions(self, positions: NDArray[np.int64]) -> None:
        n_cells = len(self.dataset)
        if len(positions) and not 0 <= positions.min() <= positions.max() < n_cells:
            wrong = positions.min() if positions.min() < 0 else positions.max()
            message = f"a sampler gave position {wrong}: the dataset has {n_cells} cells"
            raise IndexError(message)

    # --- resuming

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Hashes of files, cells and vocabulary; made once, they cost more than a batch."""
        return Fingerprint.of(self.dataset)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration stands, as numbers, texts and lists (JSON keeps it).

        Inside the loop over an epoch: how many batches were handed out.  After it: the beginning of
        the next.  All ranks are at the same place, so the state of one rank serves all.

        Returns
        -------
        dict
            Always of the same keys.
        """
        epoch, batch = self._at
        return {
            "version": VERSION,
            "epoch": epoch,
            "batch": batch,
            "plan": self._at_plan,
            "fits": self._residence.fits,
            "rank": self.rank,
            "given": self._given_digest(epoch) if self.is_given and batch > 0 else "",
            "settings": settings_of(self),
            "sources": [dict(source) for source in self.fingerprint.sources],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called: the next ``iter`` gives the rest of that epoch.

        Parameters
        ----------
        state : mapping
            What `state_dict` of a loader over the same files with the same settings returned; number
            of threads, `to` and `pin_memory` may differ, and the files may have moved.

        Raises
        ------
        TypeError
            If it is no state of a loader.
        ValueError
            If it belongs to other files or settings; what differs is named.
        """
        check_state(state, self)
        epoch, batch = int(state["epoch"]), int(state["batch"])
        is_own = state["rank"] == self.rank  # another rank has other cells, from its own sampler
        if is_own and self.is_given and state["given"] not in ("", self._given_digest(epoch)):
            message = (
                f"the state does not belong to this loader: in epoch {epoch} the sampler gave "
                "other batches when it was saved (a sampler must be reproducible by set_epoch)"
            )
            raise ValueError(message)
        n_batches = self.make_core(epoch, self.plain_plan).n_batches
        if not 0 <= batch <= n_batches:
            message = f"the state stands at batch {batch} of an epoch of {n_batches} batches"
            raise ValueError(message)
        self._next = self._at = (epoch, batch)
        self._resumed_plan, self._at_plan = None, ""
        if is_own:
            if state["fits"] is not None:
                self._residence.fits = bool(state["fits"])
            self._at_plan = str(state["plan"])
            self._resumed_plan = self._at_plan or None

    def as_dataset(self) -> BatchStream:
        """Return a torch IterableDataset of these batches, for loaders that keep their own state.

        Returns
        -------
        BatchStream
            With ``state_dict``, ``load_state_dict``, ``set_epoch`` and a length.  Give it to
            ``StatefulDataLoader(stream, batch_size=None)`` of torchdata or to torch's DataLoader, with
            0 workers or 1.  An epoch left unfinished begins again with the next ``iter``.

        Raises
        ------
        MissingDependencyError
            Without torch.
        """
        from scio.data._stream import BatchStream

        return BatchStream(self)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle settings and position; what is decoded stays behind."""
        return {**self.__dict__, "_run": None, "_residence": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._residence = Residence(self)

    # --- batches

    def _finish(self, batch: dict[str, Any]) -> dict[str, Any]:
        out = {name: batch[name] for name in _ARRAYS[self.form]}
        if batch.get("is_padding") is not None:
            out["is_padding"] = batch["is_padding"]
        cells = batch["index"]
        store = self.dataset.store
        if self.obs_codes:
            out["codes"] = {key: store.column(key).codes()[cells] for key in self.obs_codes}
        out.update(store.by_key(batch.get("extras", ())))
        if self.to == "torch":
            out = _tensors(out, pin=self.pin_memory)
        if self.form == "csr":
            out["shape"] = batch["shape"]
        out["metadata"] = {key: store.column(key).take(cells) for key in store.obs_keys}
        return out

    def mixing(self, key: str) -> Mixing:
        """Measure from the plan alone how well the batches mix a label.

        Parameters
        ----------
        key : str
            obs column; nothing else is read.

        Returns
        -------
        Mixing
            Of the next epoch; of a block shuffle where only epoch 0 will tell whether all cells fit.

        Warns
        -----
        ScioWarning
            If a shuffled epoch mixes the label at less than 0.95 of a perfect shuffle.
        """
        epoch = self._next[0]
        plan: str = self.plain_plan
        if self.shuffle == "exact" or (
            self.shuffle is True and epoch > 0 and self._residence.will_hold()
        ):
            plan = "exact"
        cells, offsets = self.make_core(epoch, plan).plan()
        labels = self.dataset.store.column(key).codes()[cells]
        mixing = measure_mixing(labels, offsets, seed=self.seed)
        if self.shuffle is not False and not self.is_given and mixing.ratio < GOOD_MIXING:
            warnings.warn(
                f"batches mix {key!r} at {mixing.ratio:.2f} of a perfect shuffle with max_memory="
                f"{self.max_memory:,} bytes: raise it, or give cache= for later epochs",
                ScioWarning,
                stacklevel=2,
            )
        return mixing

    def __repr__(self) -> str:
        return (
            f"CellDataLoader({len(self):,} batches of {self.batch_size} {self.form} from "
            f"{len(self.dataset):,} cells, {self.num_workers} threads, shuffle={self.shuffle!r})"
        )


def _tensors(arrays: dict[str, Any], *, pin: bool) -> dict[str, Any]:
    """Arrays as tensors over the same memory; dicts of arrays likewise."""
    torch = require("torch", "CellDataLoader(to='torch')")
    is_pinned = pin and torch.cuda.is_available()

    def tensor(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensor(item) for key, item in value.items()}
        out = torch.from_numpy(value)
        return out.pin_memory() if is_pinned else out

    return {name: tensor(array) for name, array in arrays.items()}


def collate_cells(
    batch: Sequence[dict[str, Any]], pad_value: float = 0.0, *, max_genes: int | None = None
) -> dict[str, Any]:
    """Put items of a `CellDataset` together: the ``collate_fn`` of torch's own DataLoader.

    Parameters
    ----------
    batch : list of dict
        Items.
    pad_value : float
        Fills ``expression`` and layers behind the last gene of a cell.
    max_genes : int, optional
        Width; None: the longest item.

    Returns
    -------
    dict
        A token batch as `CellDataLoader` gives it, ``layers`` and ``obsm`` included: tensors when torch
        is installed, else arrays.

    Raises
    ------
    ValueError
        If the list is empty, or an item is longer than `max_genes`.
    LoaderError
        In a worker of torch's DataLoader: if the batch does not fit the shared memory that carries it
        to the parent.
    """
    if not batch:
        message = "there is no item to collate"
        raise ValueError(message)
    lengths = np.array([item["n_genes"] for item in batch], dtype=np.int64)
    longest = int(lengths.max())
    width = longest if max_genes is None else int(max_genes)
    if longest > width:
        message = (
            f"an item has {longest} genes, max_genes is {width}: give max_genes to the dataset"
        )
        raise ValueError(message)
    shape = (len(batch), width)
    expression = np.full(shape, pad_value, dtype=np.float32)
    gene_indices = np.full(shape, GeneVocab.pad_token_id, dtype=np.int64)
    for row, item in enumerate(batch):
        expression[row, : item["n_genes"]] = item["expression"]
        gene_indices[row, : item["n_genes"]] = item["gene_indices"]
    arrays: dict[str, Any] = {
        "expression": expression,
        "gene_indices": gene_indices,
        "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
        "n_genes": lengths,
        "index": np.array([item["index"] for item in batch], dtype=np.int64),
    }
    for key in batch[0].get("layers", ()):
        values = np.full(shape, pad_value, dtype=np.float32)
        for row, item in enumerate(batch):
            values[row, : item["n_genes"]] = item["layers"][key]
        arrays.setdefault("layers", {})[key] = values
    for key in batch[0].get("obsm", ()):
        values = np.stack([np.asarray(item["obsm"][key]) for item in batch])
        arrays.setdefault("obsm", {})[key] = values
    is_torch = type(batch[0]["expression"]).__module__.startswith("torch")
    out: dict[str, Any] = share(_tensors(arrays, pin=False)) if is_torch else dict(arrays)
    keys = batch[0]["metadata"].keys()
    out["metadata"] = {key: _column([item["metadata"][key] for item in batch]) for key in keys}
    return out


def _column(values: list[Any]) -> Any:
    is_number = all(isinstance(v, (int, float)) for v in values)
    return np.array(values) if is_number else values
