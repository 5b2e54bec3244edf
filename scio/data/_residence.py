"""Rows that need no decoding any more, and the plan that an epoch has because of them.

The rules (``docs/design/plan.md``): an epoch's plan follows from its number and the data alone.  With
``shuffle=True`` epoch 0 is a block shuffle; later epochs are one permutation of all cells when these
fit the cap in compact form or a fast-layout file of them can be written, else block shuffles again.
Where rows come from (windows, compact store, mapped file, memory) never changes the batches.
"""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scio import _core
from scio.errors import CorruptFileError, LoaderError, ScioWarning

if TYPE_CHECKING:
    from scio.data._cache import FastCache
    from scio.data.dataloader import CellDataLoader

_FILL_BATCH_SIZE = 2048
# Reading a cell alone decodes the chunks of some tens of others: from so few on all are decoded.
_GIVEN_SHARE = 32
_SUMMED = (
    "seconds",
    "seconds_wait",
    "seconds_decode",
    "seconds_gather",
    "nbytes_read",
    "chunks_decoded",
    "chunks_total",
)


@dataclass(slots=True)
class Run:
    """One epoch that is running.

    Attributes
    ----------
    core : _core.Loader
    plan : {"block", "exact", "none", "given"}
    rows : {"decoded", "compact", "mapped", "memory"}
        Where the rows come from.
    filled : dict
        Statistics of what was decoded before the first batch.
    """

    core: _core.Loader
    plan: str
    rows: str
    filled: dict[str, float] = field(default_factory=dict)

    def stats(self) -> dict[str, Any]:
        """Counters and times of the epoch, those of the decoding before it added."""
        stats: dict[str, Any] = dict(self.core.stats())
        for name, value in self.filled.items():
            stats[name] = max(stats[name], value) if name == "peak_nbytes" else stats[name] + value
        seconds = max(stats["seconds"], 1e-9)
        stats["seconds_consumer"] = max(0.0, stats["seconds"] - stats["seconds_wait"])
        stats["cells_per_second"] = stats["cells"] / seconds
        stats["plan"], stats["rows"] = self.plan, self.rows
        return stats


class Residence:
    """Keeps decoded rows for a loader, in memory or in a fast-layout file."""

    def __init__(self, loader: CellDataLoader) -> None:
        # no cycle: dropping a loader gives its rows back at once
        self._loader: CellDataLoader = weakref.proxy(loader)
        self._compact: _core.Compact | None = None
        self.fits: bool | None = None  # in compact form, once known
        self._cache: FastCache | None = None
        self._sink: _core.Sink | None = None
        self._guard: Any = None  # removes temporaries when an unfinished sink is dropped
        self._is_cache_lost = False
        self._filled: dict[str, float] = {}
        self._dealt: NDArray[np.int64] | None = None  # this rank's cells, once asked for
        store = loader.dataset.store
        matrices = store.core_matrices() + store.core_tracks()
        self._is_in_memory = not any(m.is_in_file for m in matrices)

    # --- which cells

    @property
    def keeps(self) -> bool:
        """Whether this rank has the same cells in every epoch, so that keeping them is of use."""
        loader = self._loader
        if self._is_in_memory:
            return False
        return loader.is_given or loader.world_size == 1 or loader.shuffle != "block"

    def _own_cells(self) -> NDArray[np.int64] | None:
        """Global ids of this rank's cells, ascending; None: all of them."""
        loader = self._loader
        if loader.world_size > 1 and not loader.is_given:
            if self._dealt is None:
                cells, _ = loader.make_core(0, loader.plain_plan, drop_last=False).plan()
                self._dealt = np.unique(cells)
            return self._dealt
        return None if loader.dataset.has_all_cells else loader.dataset.cells

    # --- an epoch

    def start(self, epoch: int, *, first_batch: int = 0, plan: str | None = None) -> Run:
        """Make the loader of an epoch, decoding before it what the plan needs to be resident.

        Files that have changed are refused here, because rows that are resident are not read again.
        """
        self._filled = {}
        for source in self._loader.dataset.store.sources:
            source.check_unchanged()
        if plan is None:
            plan = self._plan_of(epoch)
        elif plan == "exact":
            self._hold_or_refuse()
        arguments, rows = self._rows(epoch, plan)
        core = self._loader.make_core(epoch, plan, first_batch=first_batch, **arguments)
        if rows == "decoded" and plan != "given":
            core.attach(compact=self._compact_for(core), sink=self._sink_for(core))
        return Run(core, plan, rows, self._filled)

    def finish(self) -> None:
        """Note what the epoch has left behind: a store that is full, a file that is complete."""
        self._settle_compact()
        if self._sink is not None:
            self._fill_sink()

    def _plan_of(self, epoch: int) -> str:
        loader = self._loader
        if loader.is_given:
            self._hold_for_sampler(epoch)
            return "given"
        if loader.shuffle == "exact":
            self._hold_or_refuse()
            return "exact"
        if loader.shuffle is True:
            return "exact" if epoch > 0 and self._hold() else "block"
        return "block" if loader.shuffle == "block" else "none"

    def _rows(self, epoch: int, plan: str) -> tuple[dict[str, Any], str]:
        """Arguments that say where rows are resident, and a name for it."""
        loader = self._loader
        if self._is_in_memory:
            return {}, "memory"
        if not self.keeps or (plan == "block" and loader.world_size > 1 and epoch > 0):
            return {}, "decoded"
        if (cache := self._complete_cache()) is not None:
            mapped = [matrix for matrices in cache.matrices() for matrix in matrices]
            return {"mapped": mapped, "mapped_cells": self._own_cells()}, "mapped"
        if self._compact is not None and not len(self._compact.missing(self._own_cells())):
            return {"resident": self._compact}, "compact"
        return {}, "decoded"

    # --- holding all cells

    def _hold(self) -> bool:
        """Make all cells of this rank resident, if they can be."""
        if self._is_in_memory or self._complete_cache() is not None:
            return True
        if not self.keeps:
            return False
        return self._hold_compact() or self._hold_cache()

    def will_hold(self) -> bool:
        """Whether epochs from 1 on are exact, as far as that is known without decoding."""
        if self._is_in_memory or self.fits is True or self._cache_possible() is not None:
            return True
        loader = self._loader
        return self.keeps and self._surely_fits(loader.make_core(0, loader.plain_plan))

    def _hold_compact(self) -> bool:
        if self.fits is not False:
            loader = self._loader
            compact = self._compact_for(loader.make_core(0, loader.plain_plan))
            if compact is not None:
                self._fill(compact.missing(self._own_cells()), compact=compact)
            self._settle_compact()
        return self.fits is True

    def _hold_cache(self) -> bool:
        if self._cache_possible() is None:
            return False
        if self._sink is None:
            self._sink_for(None)
        self._fill_sink()
        return self._complete_cache() is not None

    def _hold_or_refuse(self) -> None:
        if self._hold():
            return
        loader = self._loader
        core = loader.make_core(0, loader.plain_plan)
        most = core.keep_most_nbytes
        ample = loader.max_memory + 2 * most
        spare = loader.make_core(0, loader.plain_plan, max_memory=ample).keep_nbytes - most
        message = (
            f"an exact shuffle keeps all cells in memory: about {core.keep_least_nbytes:,} to "
            f"{most:,} bytes of max_memory={loader.max_memory:,}, of which "
            f"{core.keep_nbytes:,} are left for them; max_memory={ample - spare:,} is enough, "
            "or give cache=, or use shuffle=True, which needs no more than it has"
        )
        raise ValueError(message)

    def _hold_for_sampler(self, epoch: int) -> None:
        n_given = self._loader.n_given_cells(epoch)
        if n_given * _GIVEN_SHARE >= len(self._loader.dataset):
            self._hold()

    # --- the compact store

    def _compact_for(self, core: _core.Loader) -> _core.Compact | None:
        if self._compact is None and self.keeps and self.fits is not False:
            if core.keep_nbytes == 0:
                self.fits = False
                return None
            store = self._loader.dataset.store
            self._compact = _core.Compact(len(store), 1 + len(store.track_paths), core.keep_nbytes)
        return self._compact

    def _settle_compact(self) -> None:
        if self._compact is None:
            return
        if self._compact.is_full:
            self._compact, self.fits = None, False
        elif not len(self._compact.missing(self._own_cells())):
            self.fits = True

    # --- the fast-layout file

    def _cache_possible(self) -> FastCache | None:
        directory = self._loader.cache
        if directory is None or self._is_cache_lost or not self.keeps:
            return None
        if self._cache is None:
            from scio.data._cache import FastCache

            cells = self._own_cells()
            self._cache = FastCache(Path(directory), self._loader.dataset.store, cells)
        return self._cache if self._cache.is_possible else None

    def _complete_cache(self) -> FastCache | None:
        cache = self._cache_possible()
        return cache if cache is not None and cache.is_complete() else None

    def _sink_for(self, core: _core.Loader | None) -> _core.Sink | None:
        """Start writing, unless all cells surely fit the memory."""
        cache = self._cache_possible()
        if cache is None or (core is not None and self._surely_fits(core)):
            return None
        if self._sink is None:
            try:
                self._sink = cache.start()
            except (OSError, LoaderError) as error:
                self._lose_cache(str(error))
                return None
            except CorruptFileError as error:
                if self._loader.on_error == "raise":
                    raise
                self._lose_cache(str(error))
                return None
            if self._sink is None:  # it has warned of the space that it lacks
                self._is_cache_lost = True
                return None
            self._guard = weakref.finalize(self, cache.discard, self._sink)
        return self._sink

    def _surely_fits(self, core: _core.Loader) -> bool:
        return self.fits is not False and 0 < core.keep_most_nbytes <= core.keep_nbytes

    def _fill_sink(self) -> None:
        """Write what is missing and publish the file; it is lost, with a warning, if that fails."""
        sink, cache = self._sink, self._cache
        if sink is None or cache is None:
            return
        if self.fits is True:  # what fits the memory needs no file
            self._sink = None
            self._guard()
            return
        if not sink.is_closed:
            self._fill(sink.missing(), sink=sink)
        self._sink = None
        try:
            if not sink.is_closed:
                cache.publish(sink)
                self._guard.detach()
                return
            reason = sink.failure or "it was closed"
        except (OSError, LoaderError) as error:
            reason = str(error)
        self._guard()
        self._lose_cache(reason)

    def _lose_cache(self, reason: str) -> None:
        self._is_cache_lost = True
        warnings.warn(
            f"no fast-layout file in {self._loader.cache}: {reason}; later epochs decode again",
            ScioWarning,
            stacklevel=2,
        )

    # --- decoding without batches

    def _fill(
        self,
        cells: NDArray[np.int64],
        *,
        compact: _core.Compact | None = None,
        sink: _core.Sink | None = None,
    ) -> None:
        """Decode cells in file order and put their rows away."""
        if not len(cells):
            return
        loader = self._loader
        core = loader.make_core(
            0,
            "none",
            # a list of all cells would take memory that the plan of the epoch has not counted
            cells=None if len(cells) == len(loader.dataset.store) else cells,
            fill=True,
            keep=False,
            # a compact store is there also while a sink alone is filled
            kept=self._compact.max_nbytes if self._compact is not None else 0,
            # windows hold a batch at least: no longer ones than those that the cap is known to allow
            batch_size=min(_FILL_BATCH_SIZE, loader.batch_size),
            drop_last=False,
            rank=0,
            world_size=1,
        )
        core.attach(compact=compact, sink=sink)
        try:
            while loader.take(core) is not None:
                if (compact is not None and compact.is_full) or (
                    sink is not None and sink.is_closed
                ):
                    break
        finally:
            core.close()
            stats = core.stats()
            for name in _SUMMED:
                self._filled[name] = self._filled.get(name, 0) + stats[name]
            peak = self._filled.get("peak_nbytes", 0)
            self._filled["peak_nbytes"] = max(peak, stats["peak_nbytes"])
