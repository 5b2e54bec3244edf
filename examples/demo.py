"""The main job on real data: the shipped pbmc3k counts become shuffled training batches.

`make demo` runs this.  It prints the file, the vocabulary, a few batches, cells per second against the
usual path (anndata + torch DataLoader) in the same run, and how well the batches are mixed.
"""

from __future__ import annotations

import itertools
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np

import scio
from scio.data import CellDataLoader, CellDataset, GeneVocab, PreprocessingPipeline

N_RUNS = 5
USUAL_BATCHES = 6  # the usual path is timed on so many batches a run, so that the demo stays short
BATCH_SIZE = 64


def heading(text: str) -> None:
    """Print a line above a part."""
    print(f"\n{text}\n{'-' * len(text)}")


def usual_path(path: str) -> Callable[[], int]:
    """Make one epoch of what people write today: anndata backed, one cell per __getitem__."""
    import anndata
    import torch

    class Cells(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.matrix = anndata.read_h5ad(path, backed="r").X  # once: indptr stays in memory

        def __len__(self) -> int:
            return int(self.matrix.shape[0])

        def __getitem__(self, i: int) -> torch.Tensor:
            x = self.matrix[i].toarray().ravel()
            return torch.log1p(torch.from_numpy(x * (1e4 / x.sum())))

    loader = torch.utils.data.DataLoader(Cells(), batch_size=BATCH_SIZE, shuffle=True)
    return lambda: sum(len(batch) for batch in itertools.islice(loader, USUAL_BATCHES))


def rate(epoch: Callable[[], int], n_runs: int) -> tuple[float, float, float]:
    """Median, least and largest cells per second."""
    rates = []
    for _ in range(n_runs):
        start = time.perf_counter()
        rates.append(epoch() / (time.perf_counter() - start))
    return statistics.median(rates), min(rates), max(rates)


def main() -> None:
    """Show the main job."""
    warnings.simplefilter("ignore")
    path = scio.datasets.pbmc3k()

    heading("The file: counts of 10x Genomics' pbmc3k, gzip, as anndata writes it")
    handle = scio.open(path)
    print(handle)

    heading("The vocabulary: GENCODE protein-coding genes")
    vocab = GeneVocab.human_protein_coding()
    cells = CellDataset(path, vocab, PreprocessingPipeline(), max_genes=2048)
    shared = int((cells.store.gene_maps[0] >= 0).sum())
    print(f"{vocab}\n{shared:,} of {handle.n_vars:,} genes of the file are in it")

    heading("Three batches")
    loader = CellDataLoader(cells, batch_size=BATCH_SIZE, num_workers=2, seed=0)
    print(loader)
    for number, batch in zip(range(3), loader, strict=False):
        parts = [f"{k} {tuple(v.shape)}" for k, v in batch.items() if hasattr(v, "shape")]
        print(f"batch {number}: {', '.join(parts)}; cells {batch['index'][:4].tolist()} …")

    heading("Cells per second, one epoch, normalised and log1p, same run")

    def fresh() -> CellDataLoader:
        return CellDataLoader(cells, batch_size=BATCH_SIZE, num_workers=2, seed=0)

    def n_cells(loader: CellDataLoader) -> int:
        return sum(len(batch["index"]) for batch in loader)

    ours = rate(lambda: n_cells(fresh()), N_RUNS)
    loader = fresh()
    n_cells(loader)
    first_epoch = loader.stats
    later = rate(lambda: n_cells(loader), N_RUNS)
    usual = rate(usual_path(str(path)), N_RUNS)
    for name, (median, least, largest) in (
        ("scio, first epoch", ours),
        ("scio, later epochs", later),
        ("anndata + DataLoader", usual),
    ):
        print(
            f"{name:22s} {median:10,.0f} cells/s   [{least:,.0f} … {largest:,.0f}], {N_RUNS} runs"
        )
    print(f"ratio {ours[0] / usual[0]:.1f}x on {scio.build_info()['cpu_count']} cores")
    numbers = {k: v if isinstance(v, str) else round(v, 4) for k, v in first_epoch.items()}
    print("stats of the first epoch:", {k: v for k, v in numbers.items() if v})

    heading("How well the batches are mixed")
    cells, offsets = loader.make_core(0, "block").plan()
    tenth = cells * 10 // len(handle.obs)
    batches = [tenth[a:b] for a, b in itertools.pairwise(offsets)]
    entropy = np.mean([_entropy(batch) for batch in batches])
    rng = np.random.default_rng(0)
    perfect = np.mean([_entropy(b) for b in np.array_split(rng.permutation(tenth), len(batches))])
    print("label: which tenth of the file a cell comes from (file order is the worst case)")
    print(f"entropy within a batch {entropy:.3f} bits, of a perfect shuffle {perfect:.3f}")
    print(
        f"each storage chunk decoded once an epoch: {first_epoch['chunks_decoded']} of "
        f"{first_epoch['chunks_total']}; peak memory {first_epoch['peak_nbytes'] / 2**20:.1f} MiB; "
        f"the last epoch's rows were {loader.stats['rows']}, its plan {loader.stats['plan']}"
    )


def _entropy(labels: np.ndarray) -> float:
    shares = np.bincount(labels) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


if __name__ == "__main__":
    main()
