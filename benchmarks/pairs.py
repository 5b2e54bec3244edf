"""scio against a peer, work by work: fresh processes in turn, seconds, peak memory, ratios, verdicts.

A work names two functions of a benchmark script.  Each is called in a process of its own, prepares what
does not count (imports, input in memory, compiled code of the peer), and returns what `clocked` gives.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import data
import harness

PACKAGES = ("scanpy", "anndata", "h5py", "scikit-misc", "numba", "scipy", "numpy")


@dataclass(frozen=True)
class Work:
    """One line of the table.

    Attributes
    ----------
    name, file : str
    ours, peer : str
        Functions of the script.
    target : float or None
        scio is at least so many times as fast.
    memory : float or None
        scio's peak is at most this share of the peer's.
    arguments : dict
        Of both functions.
    """

    name: str
    file: str
    ours: str
    peer: str
    peer_name: str
    target: float | None
    arguments: dict[str, Any] = field(default_factory=dict)
    memory: float | None = None


def clocked(
    work: Callable[[], Any], *, repeat: int = 1, keep: Callable[[Any], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Run `work` `repeat` times; give the median of the seconds and the growth of peak memory, MiB.

    The peak is that of the work alone: the kernel's high-water mark is set back before it.
    """
    before = _reset_peak()
    seconds, facts = [], {}
    cpu = time.process_time()
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
        facts = keep(result) if keep else {}
        del result
    return {
        "seconds": statistics.median(seconds),
        "peak_mib": _status("VmHWM") - before,
        "cpu_seconds": (time.process_time() - cpu) / repeat,
        **facts,
    }


def _reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> float:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) / 1024


def measure(script: str, works: Sequence[Work], n_runs: int) -> list[dict[str, Any]]:
    """All rounds of all works, ours and the peer's in turn; one result per work."""
    found: list[dict[str, list[Any]]] = [{"ours": [], "peer": []} for _ in works]
    for number in range(n_runs):
        for work, both in zip(works, found, strict=True):
            sides = [("ours", work.ours), ("peer", work.peer)]
            # Whoever comes second finds the pages that the first one freed: they take turns.
            for side, function in sides if number % 2 == 0 else sides[::-1]:
                if both[side] and "error" in both[side][-1]:
                    continue
                both[side].append(harness.in_child(script, function, work.arguments))
            print(f"round {number + 1}  {work.file:8} {work.name:44} {_said(both)}", flush=True)
    return [_result(work, both) for work, both in zip(works, found, strict=True)]


def _said(both: dict[str, list[Any]]) -> str:
    texts = []
    for side in ("ours", "peer"):
        last = both[side][-1]
        texts.append(
            last.get("error")
            or f"{last['seconds']:.3f} s ({last['cpu_seconds']:.2f} CPU), {last['peak_mib']:.0f} MiB"
        )
    return "  |  ".join(texts)


def _result(work: Work, both: dict[str, list[Any]]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "work": work.name,
        "file": work.file,
        "peer": work.peer_name,
        "target": work.target,
        "memory_target": work.memory,
        "arguments": {k: v for k, v in work.arguments.items() if k != "path"},
    }
    errors = [r["error"] for side in both.values() for r in side if "error" in r]
    if errors:
        return {**line, "error": errors[0]}
    ratios = [p["seconds"] / o["seconds"] for o, p in zip(both["ours"], both["peer"], strict=True)]
    for side, results in both.items():
        line[f"{side}_seconds"] = [r["seconds"] for r in results]
        line[f"{side}_peak_mib"] = statistics.median(r["peak_mib"] for r in results)
        line[f"{side}_facts"] = {
            k: v for k, v in results[-1].items() if k not in ("seconds", "peak_mib")
        }
    line["ratio"] = statistics.median(ratios)
    line["ratio_spread"] = [min(ratios), max(ratios)]
    return line


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Rows of Markdown: medians, ratio with spread, target, verdict."""
    head = "| work | file | scio s | peer s | ratio | at least | peak scio / peer MiB | verdict |"
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        if "error" in line:
            rows.append(f"| {line['work']} | {line['file']} | {line['error']} ||||| not measured |")
            continue
        ours, peer = (statistics.median(line[f"{s}_seconds"]) for s in ("ours", "peer"))
        low, high = line["ratio_spread"]
        target = "" if line["target"] is None else f"{line['target']:g}"
        rows.append(
            f"| {line['work']} | {line['file']} | {ours:.3f} | {peer:.3f} ({line['peer']}) "
            f"| {line['ratio']:.1f} [{low:.1f} … {high:.1f}] | {target} "
            f"| {line['ours_peak_mib']:.0f} / {line['peer_peak_mib']:.0f} | {verdict(line)} |"
        )
    return "\n".join(rows)


def verdict(line: dict[str, Any]) -> str:
    """Say whether time and memory reach their targets."""
    said = []
    if line["target"] is not None:
        said.append("reached" if line["ratio"] >= line["target"] else "short")
    if line["memory_target"] is not None:
        share = line["ours_peak_mib"] / max(line["peer_peak_mib"], 1e-9)
        word = "reached" if share <= line["memory_target"] else "short"
        said.append(f"memory {share:.2f} of {line['memory_target']:g}: {word}")
    return ", ".join(said)


def run(script: str, doc: str | None, works_of: Callable[[argparse.Namespace], list[Work]]) -> None:
    """The command line of a benchmark script."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--cells", type=int, help="cells of each file; without it those of D1, D2")
    parser.add_argument("--data", type=Path, default=data.DIRECTORY, help="folder of the files")
    parser.add_argument("--only", default="", help="only works whose name or file contains this")
    parser.add_argument("--out", type=Path, help="where the lines go (JSON)")
    options = parser.parse_args()
    works = [w for w in works_of(options) if options.only in f"{w.name} {w.file}"]
    machine = harness.machine()
    machine["versions"].update({name: harness.version(name) for name in PACKAGES})
    print({**machine, "cores": len(os.sched_getaffinity(0))})
    lines = measure(script, works, options.runs)
    print(table(lines))
    out = options.out or harness.RESULTS / f"{Path(script).stem.removeprefix('bench_')}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w") as file:
        for line in ({"machine": machine, "runs": options.runs}, *lines):
            file.write(json.dumps(line) + "\n")
    print(f"wrote {out.name}")
