"""How many cells per second reach a model from a plain, unshuffled ``.h5ad``, and next to whom.

Measures scio and every peer that is installed on the files D1 and D2 (data.py), gzip and uncompressed, and
writes a JSON line per figure; report.py turns the lines into the tables.

Rules: each measurement is a process of its own, page cache warm, process warmed by half a second of the
same work.  Rounds: every case once, then every case again, so that a slow minute of a shared machine
hits all alike; the ratios of report.py are those of one round.  What a batch holds is said by `form`: csr
(raw values), dense-2000 (2,000 chosen genes), dense (all genes), tokens (2,048 genes at most).  A slow
peer is cut off after `--seconds`, which its line says; the slowest have `--slow-runs` rounds only.
Conversions of annbatch are counted apart, three of each at most.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data
import harness
import systems

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE.parent / ".venv-peers" / "bin" / "python"
ALL_MEMORY = "3GiB"  # where all cells, or batches of gigabytes, are meant to fit
CONVERSIONS = 3


@dataclass(frozen=True)
class Case:
    """One thing that is measured on one file."""

    what: str
    form: str
    batch_size: int
    function: str
    settings: dict[str, Any] = field(default_factory=dict)
    is_slow: bool = False


@dataclass
class File:
    """One benchmark file."""

    name: str  # d1-gzip, d1-none, d2-gzip, d2-none
    path: Path
    shape: data.Shape

    @property
    def is_gzip(self) -> bool:
        """Whether it is compressed."""
        return self.name.endswith("gzip")


# --- what is measured


def scio_cases(file: File, threads: int) -> list[Case]:
    """First epochs on every file; later ones, which read no file, on the uncompressed only."""

    def first(form: str, batch_size: int, **settings: Any) -> Case:
        settings = {"threads": threads, **settings}
        return Case("scio first epoch", form, batch_size, "scio_loader", settings)

    def later(form: str, batch_size: int) -> Case:
        settings = {"threads": threads, "n_epochs": 3, "max_memory": ALL_MEMORY}
        return Case("scio later epochs, compact store", form, batch_size, "scio_loader", settings)

    cases = [first("csr", size) for size in (64, 512, 4096)]
    if threads > 1:
        cases.append(first("csr", 64, threads=1))
    # A cap below the compact form of all cells: nothing is kept for later epochs.
    alone = {"threads": threads, "max_memory": "160MiB"}
    cases.append(Case("scio first epoch, nothing kept", "csr", 64, "scio_loader", alone))
    cases += [first("dense-2000", size) for size in (64, 4096)]
    cases += [first("dense", 64), first("dense", 4096, max_memory=ALL_MEMORY)]
    cases += [first("tokens", 64), first("tokens", 512)]
    if not file.is_gzip:
        cases += [later("csr", size) for size in (64, 512, 4096)]
        cases += [later("dense-2000", 64), later("dense", 64), later("dense", 4096)]
        cases += [later("tokens", 64), later("tokens", 512)]
    cache = {"threads": threads, "n_epochs": 3, "with_cache": True, "max_memory": small_cap(file)}
    # Large batches of a small file do not fit the cap that its small size asks for.
    sizes = (64, 4096) if file.shape.n_cells >= 50_000 and not file.is_gzip else (64,)
    cases += [Case("scio later epochs, fast layout", "csr", s, "scio_loader", cache) for s in sizes]
    return cases


def small_cap(file: File) -> int:
    """Bytes of a cap that the compact form (3 bytes a non-zero) of all cells exceeds."""
    return max(8 << 20, file.shape.n_cells * file.shape.nnz_per_cell * 2)


def limit_cases(file: File, threads: int) -> list[Case]:
    """The decode limit with one and with all threads, and H5Dread."""
    cases = [Case("H5Dread", "csr", 0, "decode_limit", {"threads": 1, "what": "H5Dread"})]
    if file.is_gzip:
        cases += [
            Case("decode limit", "csr", 0, "decode_limit", {"threads": n, "what": "libdeflate"})
            for n in sorted({1, threads})
        ]
    return cases


def peer_cases(file: File, seconds: float) -> list[Case]:
    """Every installed peer; those that work from memory on the uncompressed file only."""
    cases = []
    for peer in systems.peers().installed():
        is_memory = "memory" in peer.name
        if is_memory and file.is_gzip:
            continue
        is_row_by_row = peer.name.startswith(("AnnLoader", "h5py"))
        is_tokens = peer.form == "tokens"
        for size in (64,) if is_row_by_row or is_tokens else (64, 4096):
            settings = {"name": peer.name, "seconds": seconds}
            cases.append(
                Case(peer.name, peer.form, size, "peer_epoch", settings, is_slow=is_row_by_row)
            )
    return cases


def annbatch_cases(file: File) -> list[Case]:
    """The conversion from each file; epochs of the one collection of D1 and of D2."""
    cases = [Case("annbatch conversion", "csr", 0, "annbatch_convert")]
    if not file.is_gzip:
        cases += [
            Case(f"annbatch, own zarr, {name}", form, size, "annbatch_epochs", {"settings": name})
            for name in ("readme", "default")
            for form in ("csr", "dense")
            for size in (64, 512, 4096)
        ]
    return cases


def cases_of(file: File, options: argparse.Namespace) -> list[Case]:
    """All cases of a file that `--only` and the environment allow."""
    cases = [*limit_cases(file, options.threads), *scio_cases(file, options.threads)]
    if not options.scio_only:
        cases += peer_cases(file, options.seconds)
        if PEERS_PYTHON.exists():
            cases += annbatch_cases(file)
    return [c for c in cases if re.search(options.only, f"{c.what} {c.form} {c.batch_size}")]


# --- one measurement


def run_case(file: File, case: Case, seed: int) -> dict[str, Any]:
    """Measure in a child; what went wrong stands under "error"."""
    harness.warm(file.path)
    if case.function == "annbatch_convert":
        return _annbatch("convert", file, "--source", str(file.path))
    if case.function == "annbatch_epochs":
        size, name = str(case.batch_size), case.settings["settings"]
        return _annbatch(
            *("epochs", file, "--form", case.form, "--batch-size", size),
            *("--settings", name, "--seed", str(seed)),
        )
    common = {"path": str(file.path), "form": case.form, "batch_size": case.batch_size}
    arguments = {**common, "seed": seed, **case.settings}
    return harness.in_child(str(HERE / "systems.py"), case.function, arguments)


def _annbatch(action: str, file: File, *arguments: str) -> dict[str, Any]:
    store = file.path.with_name(file.path.name.replace("-gzip", "").replace("-none", ""))
    store = store.with_suffix(".zarr")
    if action == "epochs" and not store.exists():
        _annbatch("convert", file, "--source", str(file.path))
    script = str(HERE / "peer_annbatch.py")
    command = [str(PEERS_PYTHON), "-W", "ignore", script, action, "--store", str(store)]
    result = harness.from_command([*command, *arguments])
    if "epochs" in result:
        result["entropies"] = [result.pop("entropy")]
    return result


# --- from measurements to lines


def lines_of(
    file: File, case: Case, results: list[dict[str, Any]], machine: dict[str, Any]
) -> list[dict[str, Any]]:
    """Turn the results of a case's rounds into lines: one, or two where first and later epochs differ."""
    good = [r for r in results if "error" not in r]
    if not good:
        return [_line(file, case, case.what, [], machine, error=results[-1]["error"])]
    if case.function == "annbatch_convert":
        line = _line(file, case, case.what, [], machine)
        for key in ("seconds_convert", "disk_mib", "source_mib", "rss_peak"):
            line[key] = statistics.median(r[key] for r in good)
        line["runs"] = [r["seconds_convert"] for r in good]
        line["versions"] = {**line["versions"], **good[-1]["versions"]}
        return [line]
    n_epochs = len(good[0]["epochs"])
    if n_epochs == 1:
        return [_epoch_line(file, case, case.what, good, [0], machine)]
    kind = case.what.split(", ")[-1]
    lines = [
        _epoch_line(file, case, f"scio first epoch, making the {kind}", good, [0], machine),
        _epoch_line(file, case, case.what, good, list(range(1, n_epochs)), machine),
    ]
    if all("later_run" in r for r in good):
        again = [{**r, "epochs": [r["later_run"]], "entropies": [None]} for r in good]
        for r in again:
            r["seconds_first_batch"] = r["later_run"]["seconds_first"]
            r["seconds_epoch"] = None
        lines.append(_epoch_line(file, case, "scio later run, fast layout", again, [0], machine))
    return lines


def _epoch_line(
    file: File,
    case: Case,
    what: str,
    results: list[dict[str, Any]],
    numbers: list[int],
    machine: dict[str, Any],
) -> dict[str, Any]:
    chosen = [[r["epochs"][n] for n in numbers] for r in results]
    rates = [statistics.median(e["cells_per_s"] for e in epochs) for epochs in chosen]
    line = _line(file, case, what, rates, machine)
    line["rss_peak"] = max(e["rss_peak"] for epochs in chosen for e in epochs)
    if numbers[0] == 0:
        for key in ("seconds_first_batch", "seconds_epoch"):
            known = [r[key] for r in results if r.get(key) is not None]
            line[key] = statistics.median(known) if known else None
    entropies = [r["entropies"][n] for r in results for n in numbers]
    known = [e for e in entropies if e is not None]
    line["entropy"] = statistics.fmean(known) if known else None
    last = chosen[-1][-1]
    line["stats"] = {k: last[k] for k in (*systems.STATS, "cpu_seconds", "batches") if k in last}
    line["settings"]["whole_epoch"] = all(e["is_whole"] for epochs in chosen for e in epochs)
    if "versions" in results[-1]:
        line["versions"] = {**line["versions"], **results[-1]["versions"]}
    return line


def _line(
    file: File,
    case: Case,
    what: str,
    rates: list[float],
    machine: dict[str, Any],
    error: str | None = None,
) -> dict[str, Any]:
    settings = {k: v for k, v in case.settings.items() if k not in {"name", "what", "n_epochs"}}
    build = machine["scio"]
    line = {
        "what": what,
        "form": case.form,
        "file": file.name,
        "n_cells": file.shape.n_cells,
        "batch_size": case.batch_size,
        "cells_per_s": rates,
        "median": statistics.median(rates) if rates else None,
        "spread": [min(rates), max(rates)] if rates else None,
        "seconds_first_batch": None,
        "seconds_epoch": None,
        "rss_peak": None,
        "entropy": None,
        "settings": settings,
        "versions": {"python": machine["python"], **machine["versions"], "scio": build["version"]},
        "commit": machine["commit"],
        "cores": machine["cores"],
        "cpu": machine["cpu"],
        "isa": build["cpu_level"],
        "memory": machine["memory_gib"],
    }
    return {**line, "error": error} if error else line


# --- the run


def measure_all(files: list[File], options: argparse.Namespace) -> None:
    """All rounds; the lines are written anew after each, so that an interrupted run leaves some."""
    machine = harness.machine()
    plan = [(file, case) for file in files for case in cases_of(file, options)]
    results: list[list[dict[str, Any]]] = [[] for _ in plan]
    if not options.scio_only and not PEERS_PYTHON.exists():
        print("annbatch is left out: there is no .venv-peers (tools/setup_bench_peers.sh)")
    for number in range(options.runs):
        for (file, case), found in zip(plan, results, strict=True):
            if number >= _n_runs(case, options):
                continue
            if found and "error" in found[-1]:
                continue  # what failed once is not tried again
            result = run_case(file, case, seed=number)
            found.append(result)
            _say(number, file, case, result)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_suffix(".partial")
        with partial.open("w") as out:
            for (file, case), found in zip(plan, results, strict=True):
                for line in lines_of(file, case, found, machine):
                    out.write(json.dumps(line) + "\n")
        partial.replace(options.out)


def _n_runs(case: Case, options: argparse.Namespace) -> int:
    if case.function == "annbatch_convert":
        return min(options.runs, CONVERSIONS)
    return int(min(options.runs, options.slow_runs) if case.is_slow else options.runs)


def _say(number: int, file: File, case: Case, result: dict[str, Any]) -> None:
    if "error" in result:
        said = result["error"]
    elif "epochs" in result:
        said = "  ".join(f"{e['cells_per_s']:,.0f}" for e in result["epochs"]) + " cells/s"
    else:
        said = f"{result['seconds_convert']:.1f} s"
    what = f"{case.what}, {case.form} {case.batch_size or ''}".rstrip()
    if "threads" in case.settings:
        what += f", {case.settings['threads']} thr."
    print(f"round {number + 1}  {file.name}  {what:64s} {said}", flush=True)


def main() -> None:
    """Run and write the lines."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--slow-runs", type=int, default=2, help="rounds of the slowest peers")
    parser.add_argument("--seconds", type=float, default=10.0, help="cut a peer's epoch off here")
    parser.add_argument("--threads", type=int, default=cores, help="threads of scio")
    parser.add_argument("--cells", type=int, help="cells of each file; without it those of D1, D2")
    parser.add_argument("--files", nargs="*", default=["d1-gzip", "d1-none", "d2-gzip", "d2-none"])
    parser.add_argument("--data", type=Path, default=data.DIRECTORY, help="folder of the files")
    parser.add_argument("--out", type=Path, default=harness.RESULTS / "bench.jsonl")
    parser.add_argument("--only", default="", help="only cases that match this pattern")
    parser.add_argument("--scio-only", action="store_true", help="without the peers")
    options = parser.parse_args()
    files = []
    for shape in data.shapes(options.cells):
        for compression in ("gzip", None):
            name = f"{shape.name}-{compression or 'none'}"
            if name in options.files:
                files.append(File(name, data.make(shape, compression, options.data), shape))
    measure_all(files, options)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
