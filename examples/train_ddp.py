"""Train on two processes, interrupt it any way you like, go on, and end with the same weights.

    python examples/train_ddp.py --checkpoint run.pt                  # trains; Ctrl-C or SIGTERM saves and stops
    python examples/train_ddp.py --checkpoint run.pt --stop-after 20  # stops by itself after 20 batches
    python examples/train_ddp.py --checkpoint run.pt --resume         # goes on with the very next batch
    python examples/train_ddp.py --check                              # proves it: stopped, SIGTERM, SIGKILL
    torchrun --nproc-per-node 2 examples/train_ddp.py --checkpoint run.pt

The data are the 2,700 blood cells that come with scio.  They have no labels, so a label is made of the
counts of five marker genes, which the model then does not see: it has to tell the type of a cell from
its other genes.  It sums embeddings of at most 256 genes, chosen anew in every epoch, weighted by their
expression, and has a hidden layer.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # Adam imports it: once here, not again in every rank that is forked
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import scio
from scio.data import CellDataLoader, CellDataset, GeneVocab, PreprocessingPipeline

MARKERS = {"CD3D": "T", "MS4A1": "B", "NKG7": "NK", "LYZ": "monocyte", "PPBP": "platelet"}
N_RANKS, BATCH_SIZE = 2, 64


@dataclass
class Options:
    """What a run is told; see ``--help``."""

    checkpoint: str
    resume: bool = False
    epochs: int = 3
    stop_after: int = 0
    save_every: int = 5
    pause: float = 0.0  # seconds after each batch, so that --check can interrupt in time


def marker_labels() -> np.ndarray:
    """Return the marker with most of its counts, by cell; the last class has none of them."""
    cells = CellDataset(scio.datasets.pbmc3k(), GeneVocab.from_genes(list(MARKERS)))
    loader = CellDataLoader(
        cells, 512, 0, False, False, form="dense", to="numpy", rank=0, world_size=1
    )
    counts = np.concatenate([batch["expression"] for batch in loader])
    share = counts / counts.sum(axis=0)  # LYZ has many more counts than CD3D
    return np.where(counts.any(axis=1), share.argmax(axis=1), len(MARKERS)).astype(np.int64)


class Classifier(nn.Module):
    """Embeddings of genes, summed with their expression as weights; one hidden layer."""

    def __init__(self, n_ids: int) -> None:
        super().__init__()
        self.genes = nn.EmbeddingBag(n_ids, 16, mode="sum")
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(16, len(MARKERS) + 1))

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """Score each class, (B, 6); padding has expression 0 and so no weight."""
        weights = batch["expression"] / batch["n_genes"].clamp(min=1)[:, None]
        logits: torch.Tensor = self.head(
            self.genes(batch["gene_indices"], per_sample_weights=weights)
        )
        return logits


def make_parts() -> dict[str, CellDataset]:
    """Training and test cells, without the marker genes."""
    path = scio.datasets.pbmc3k()
    genes = [gene for gene in GeneVocab.from_adata(path).genes if gene not in MARKERS]
    cells = CellDataset(
        path,
        GeneVocab.from_genes(genes),
        PreprocessingPipeline(),
        max_genes=256,
        selection="random_expressed",
    )
    return cells.split({"train": 0.8, "test": 0.2}, seed=0)


def save(options: Options, **parts: Any) -> None:
    """Write a checkpoint whole or not at all."""
    new = Path(options.checkpoint + ".new")
    torch.save({name: part.state_dict() for name, part in parts.items()}, new)
    new.replace(options.checkpoint)


def train(rank: int, options: Options, meeting_point: str) -> None:
    """Work of one rank, from the beginning or from the checkpoint."""
    is_told_to_stop = False

    def stop(*_: Any) -> None:
        nonlocal is_told_to_stop
        is_told_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=N_RANKS)
    torch.manual_seed(0)
    labels = torch.from_numpy(marker_labels())
    parts = make_parts()
    # The loader asks torch.distributed which rank it is; every rank has its own cells.
    loader = CellDataLoader(parts["train"], BATCH_SIZE, 1, seed=1)
    model = Classifier(parts["train"].gene_vocab.n_ids)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    if options.resume:
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])  # that of rank 0 serves all ranks
    parallel = nn.parallel.DistributedDataParallel(model)
    n_done, is_stopped = 0, False
    for epoch in range(loader.state_dict()["epoch"], options.epochs):
        losses = []
        for batch in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(parallel(batch), labels[batch["index"]])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            n_done += 1
            time.sleep(options.pause)
            # Ranks stop at the same batch, whichever of them was told to.
            wish = torch.tensor(is_told_to_stop or n_done == options.stop_after, dtype=torch.uint8)
            dist.all_reduce(wish, op=dist.ReduceOp.MAX)
            is_stopped = bool(wish)
            if rank == 0 and (is_stopped or n_done % options.save_every == 0):
                save(options, model=model, optimizer=optimizer, loader=loader)
            if is_stopped:
                break
        if rank == 0 and losses:
            where = loader.state_dict()
            print(
                f"epoch {epoch}: {len(losses)} batches, mean loss {np.mean(losses):.3f}"
                + (f"; stopped after batch {where['batch']}" if is_stopped else ""),
                flush=True,
            )
        if is_stopped:
            break
    if rank == 0 and not is_stopped:
        save(options, model=model, optimizer=optimizer, loader=loader)
        print(evaluate(model, parts["test"], labels), flush=True)
    dist.barrier()
    dist.destroy_process_group()


@torch.no_grad()
def evaluate(model: nn.Module, cells: CellDataset, labels: torch.Tensor) -> str:
    """Accuracy on the test cells, all of them in this process."""
    loader = CellDataLoader(cells, BATCH_SIZE, 1, False, False, rank=0, world_size=1)
    n_right = 0
    for batch in loader:
        n_right += int((model(batch).argmax(dim=1) == labels[batch["index"]]).sum())
    largest = int(torch.bincount(labels[torch.from_numpy(cells.cells)]).max())
    return (
        f"{n_right} of {len(cells)} test cells are classified right; "
        f"{largest} would be by always naming the most frequent class"
    )


# --- processes


def start(options: Options) -> mp.ProcessContext:
    """Start the ranks; they find each other by a file."""
    meeting_point = Path(options.checkpoint + ".meet").absolute()
    meeting_point.unlink(missing_ok=True)  # of a run that was killed
    context = mp.start_processes(
        train, (options, f"file://{meeting_point}"), nprocs=N_RANKS, join=False, start_method="fork"
    )
    assert context is not None
    return context


def finish(context: mp.ProcessContext) -> None:
    """Wait for the ranks; what this process is told to stop by, they are told too."""

    def pass_on(number: int, _: Any) -> None:
        for pid in context.pids():
            os.kill(pid, number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not context.join(grace_period=10):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(checkpoint: str, seconds: float = 60.0) -> None:
    """Return when the first checkpoint is there."""
    end = time.monotonic() + seconds
    while not Path(checkpoint).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"no {checkpoint} after {seconds} seconds")
        time.sleep(0.01)


def check() -> int:
    """Compare the weights of an uninterrupted run with those of three that were interrupted."""
    with tempfile.TemporaryDirectory(prefix="scio-") as folder:
        paths = {name: f"{folder}/{name}.pt" for name in ("whole", "stopped", "SIGTERM", "SIGKILL")}
        print("--- uninterrupted", flush=True)
        finish(start(Options(paths["whole"])))
        print("--- stopped after 31 batches", flush=True)
        finish(start(Options(paths["stopped"], stop_after=31)))
        print("--- SIGTERM", flush=True)
        arguments = ["--checkpoint", paths["SIGTERM"], "--pause", "0.05"]
        with subprocess.Popen([sys.executable, __file__, *arguments]) as process:
            try:
                wait_for(paths["SIGTERM"])
            finally:
                process.terminate()
            assert process.wait(timeout=60) == 0
        print("--- SIGKILL of a rank", flush=True)
        context = start(Options(paths["SIGKILL"], pause=0.05))
        wait_for(paths["SIGKILL"])
        os.kill(context.pids()[1], signal.SIGKILL)
        try:
            finish(context)
        except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
            print(f"the run died: {str(error).strip().splitlines()[-1]}", flush=True)
        else:
            raise AssertionError("the run survived the death of a rank")
        for name in ("stopped", "SIGTERM", "SIGKILL"):
            print(f"--- {name}: resumed", flush=True)
            finish(start(Options(paths[name], resume=True)))
        return compare(paths)


def compare(paths: dict[str, str]) -> int:
    """Print which runs ended as the first did; 0 if all."""
    ends = {name: torch.load(path, weights_only=True) for name, path in paths.items()}
    whole = ends.pop("whole")
    n_different = 0
    for name, end in ends.items():
        is_same = end["loader"]["epoch"] == whole["loader"]["epoch"] and all(
            torch.equal(weights, end["model"][key]) for key, weights in whole["model"].items()
        )
        n_different += not is_same
        print(f"{name}: weights {'bit-identical' if is_same else 'DIFFERENT'}")
    return int(n_different > 0)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = asdict(Options("train_ddp.pt"))
    parser.add_argument(
        "--check", action="store_true", help="compare interrupted runs with a whole one"
    )
    parser.add_argument("--checkpoint", help="file of model, optimizer and loader")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the checkpoint was saved"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--stop-after", type=int, help="stop after so many batches of this run")
    parser.add_argument("--save-every", type=int, help="batches between checkpoints")
    parser.add_argument("--pause", type=float, help="seconds after each batch")
    parser.set_defaults(**defaults)
    arguments = vars(parser.parse_args())
    if arguments.pop("check"):
        return check()
    options = Options(**arguments)
    if "RANK" in os.environ:  # torchrun has started the ranks
        train(int(os.environ["RANK"]), options, "env://")
    else:
        finish(start(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
