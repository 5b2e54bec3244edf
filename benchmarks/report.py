"""The tables of the benchmarks, from the lines that bench_loader.py wrote; nothing is measured here.

First the targets: what was promised, what scio and the other side reached, their ratio and whether it is
enough.  A ratio is that of the medians, in brackets the least and largest of the ratios of single rounds.
Then every system with its rate on each file, and mixing, memory and times beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "bench.jsonl"
FILES = ("d1-gzip", "d1-none", "d2-gzip", "d2-none")
FIRST = "scio first epoch"
COMPACT = "scio later epochs, compact store"
FAST = "scio later epochs, fast layout"
SCDATASET = "scDataset block 64 fetch 256"
SCIPY = "SciPy X[idx] in memory"
SCIPY_LOG = "SciPy X[idx].toarray() in memory, norm + log1p in torch"
NUMPY_TOKENS = "NumPy token collate in memory"
ANNBATCH = "annbatch, own zarr"
CONVERSION = "annbatch conversion"
LIMIT = "decode limit"
FULL_SIZES = {"d1": 100_000, "d2": 50_000}
MB_PER_MIB = 1.048576
Line = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table of targets."""

    work: str
    where: str
    target: str
    ours: str = ""
    other: str = ""
    reached: str = ""
    verdict: str = "not measured"

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the row, in the order of `TARGET_HEAD`."""
        return (
            self.work,
            self.where,
            self.target,
            self.ours,
            self.other,
            self.reached,
            self.verdict,
        )


TARGET_HEAD = ("work", "file, batch", "at least", "scio", "other side", "reached", "verdict")


class Lines:
    """The lines of one run, to be asked for."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        good = [line for line in self.lines if line["median"] is not None]
        self.threads = max((_threads(line) for line in good if _threads(line)), default=1)

    def find(
        self, what: str, form: str, file: str, batch_size: int, *, threads: int | None = None
    ) -> Line | None:
        """The line whose `what` begins so; of several settings the fastest, as is fair to a peer."""
        found = [
            line
            for line in self.lines
            if _is_what(line["what"], what)
            and (line["form"], line["file"], line["batch_size"]) == (form, file, batch_size)
            and line["median"] is not None
            and _threads(line) in {0, threads or self.threads}
        ]
        return max(found, key=lambda line: line["median"], default=None)

    def conversion(self, file: str) -> float | None:
        """Seconds that annbatch's conversion of a file took."""
        found = [ln for ln in self.lines if ln["what"] == CONVERSION and ln["file"] == file]
        return found[0].get("seconds_convert") if found else None


def _is_what(name: str, wanted: str) -> bool:
    return name == wanted or (wanted == ANNBATCH and name.startswith(ANNBATCH))


def _threads(line: Line) -> int:
    """Threads that the line was measured with; 0 where that is no setting, as for H5Dread."""
    return 0 if line["what"] == "H5Dread" else int(line["settings"].get("threads", 0))


# --- targets


def ratio_row(work: str, where: str, least: float, ours: Line | None, other: Line | None) -> Row:
    """Our rate over that of the other side."""
    row = Row(work, where, f"{least:g}x")
    if ours is None or other is None:
        return Row(work, where, row.target, _rate(ours), _rate(other))
    ratio = ours["median"] / other["median"]
    rounds = [a / b for a, b in zip(ours["cells_per_s"], other["cells_per_s"], strict=False)]
    reached = f"{ratio:.2f}x [{min(rounds):.2f} … {max(rounds):.2f}]"
    verdict = _verdict(ratio >= least, ours)
    return Row(work, where, row.target, _rate(ours), _rate(other), reached, verdict)


def _verdict(is_enough: bool, ours: Line) -> str:
    """Pass or short; a later epoch that still decodes is no later epoch."""
    again = ours.get("stats", {}).get("chunks_decoded", 0)
    if ours["what"] == FAST and not ours.get("stats", {}).get("cache_mib"):
        return "short: no fast-layout file was made"
    if ours["what"] in {COMPACT, FAST} and again:
        return f"short: decoded {int(again):,} chunks again"
    return "pass" if is_enough else "short"


def least_row(work: str, where: str, least: float, ours: Line | None) -> Row:
    """Our rate against a number."""
    target = f"{least:,.0f} cells/s"
    if ours is None:
        return Row(work, where, target)
    verdict = _verdict(ours["median"] >= least, ours)
    return Row(work, where, target, _rate(ours), "", f"{ours['median'] / least:.2f}x", verdict)


def most_row(
    work: str, where: str, most: float, unit: str, value: float | None, *, digits: int = 2
) -> Row:
    """A number of ours that must stay below another."""
    target = f"under {most:g} {unit}"
    if value is None:
        return Row(work, where, target)
    text = f"{value:,.{digits}f} {unit}"
    return Row(work, where, target, text, "", text, "pass" if value < most else "short")


def sooner_row(work: str, where: str, least: float, ours: float | None, other: float | None) -> Row:
    """Seconds of the other side over ours."""
    texts = [f"{s:.2f} s" if s is not None else "" for s in (ours, other)]
    if ours is None or other is None:
        return Row(work, where, f"{least:g}x", *texts)
    ratio = other / ours
    verdict = "pass" if ratio >= least else "short"
    return Row(work, where, f"{least:g}x", *texts, f"{ratio:.1f}x", verdict)


def _rate(line: Line | None) -> str:
    return f"{line['median']:,.0f}" if line else ""


def target_rows(lines: Lines) -> list[Row]:
    """All targets, in the order in which they were promised."""
    rows: list[Row] = []
    for make in (_decoding, _from_memory, _dense, _times, _memory, _thread_scaling):
        rows += make(lines)
    return rows


def _decoding(lines: Lines) -> list[Row]:
    rows = []
    versus: list[tuple[str, str, float, str]] = [
        ("gzip", LIMIT, 0.85, "decode limit"),
        ("gzip", SCDATASET, 6.0, SCDATASET),
        ("none", ANNBATCH, 2.0, "annbatch on its own zarr"),
        ("none", SCDATASET, 8.0, SCDATASET),
    ]
    for kind, peer, least, name in versus:
        for file in (f"d1-{kind}", f"d2-{kind}"):
            for size in (64, 4096):
                ours = lines.find(FIRST, "csr", file, size)
                other_file = file if peer != ANNBATCH else _plain(file)
                other = lines.find(peer, "csr", other_file, 0 if peer == LIMIT else size)
                work = f"first epoch, CSR, {kind}, over {name}"
                rows.append(ratio_row(work, f"{file}, {size}", least, ours, other))
    return rows


def _from_memory(lines: Lines) -> list[Row]:
    rows = []
    for what in (COMPACT, FAST):
        for peer, least in ((SCIPY, 1.5), (ANNBATCH, 4.0)):
            for file in ("d1-none", "d2-none"):
                for size in (64, 4096):
                    ours = lines.find(what, "csr", file, size)
                    other = lines.find(peer, "csr", file, size)
                    work = f"{what.removeprefix('scio ')}, CSR, over {peer}"
                    rows.append(ratio_row(work, f"{file}, {size}", least, ours, other))
    for file in ("d1-none", "d2-none"):
        ours = lines.find(COMPACT, "tokens", file, 64)
        other = lines.find(NUMPY_TOKENS, "tokens", file, 64)
        rows.append(ratio_row("tokens, from memory, over NumPy", f"{file}, 64", 20.0, ours, other))
    for what, file in ((COMPACT, "d2-none"), (FIRST, "d2-gzip")):
        for size in (64, 512):
            ours = lines.find(what, "tokens", file, size)
            work = f"tokens of 2,200-gene cells, {what.removeprefix('scio ')}"
            rows.append(least_row(work, f"{file}, {size}", 50_000, ours))
    return rows


def _dense(lines: Lines) -> list[Row]:
    rows = []
    for file in ("d1-none", "d2-none"):
        for size in (64, 4096):
            ours = lines.find(COMPACT, "dense", file, size)
            other = lines.find(SCIPY_LOG, "dense", file, size)
            work = "dense, all genes, normalised, log1p, from memory, over SciPy + torch"
            rows.append(ratio_row(work, f"{file}, {size}", 3.0, ours, other))
    for file in FILES:
        for size in (64, 4096):
            ours = lines.find(FIRST, "dense-2000", file, size)
            other = lines.find(FIRST, "csr", file, size)
            work = "dense, 2,000 chosen genes, over our own CSR"
            rows.append(ratio_row(work, f"{file}, {size}", 0.9, ours, other))
    return rows


def _times(lines: Lines) -> list[Row]:
    rows = []
    for file in ("d1-gzip", "d1-none"):
        ours = lines.find(FIRST, "csr", file, 64)
        seconds = ours["seconds_first_batch"] if ours else None
        rows.append(most_row("first batch, 100,000 cells", f"{file}, 64", 0.5, "s", seconds))
    for key, name in (("seconds_first_batch", "first batch"), ("seconds_epoch", "first epoch")):
        for file in FILES:
            mine = lines.find(FIRST, "csr", file, 64)
            theirs = lines.find(ANNBATCH, "csr", _plain(file), 64)
            converted = lines.conversion(file)
            other = theirs[key] if theirs else None
            if converted is None or other is None:
                other = None
            else:
                other += converted
            work = f"from nothing to the {'end of the ' if 'epoch' in key else ''}{name}, before annbatch with its conversion"
            rows.append(sooner_row(work, f"{file}, 64", 5.0, mine[key] if mine else None, other))
    return rows


def _memory(lines: Lines) -> list[Row]:
    rows = []
    for file in ("d1-gzip", "d1-none"):
        ours = lines.find(FIRST, "csr", file, 64)
        mb = ours["rss_peak"] * MB_PER_MIB if ours else None
        rows.append(
            most_row("resident memory, 100,000 cells", f"{file}, 64", 500, "MB", mb, digits=0)
        )
    shares = [
        line["stats"]["peak_nbytes"] / line["stats"]["cap_nbytes"]
        for line in lines.lines
        if line.get("stats", {}).get("cap_nbytes")
    ]
    rows.append(
        most_row(
            "accounted memory against the cap, the largest of all runs",
            f"{len(shares)} settings",
            1.0 + 1e-12,
            "of the cap",
            max(shares, default=None),
        )
    )
    return rows


def _thread_scaling(lines: Lines) -> list[Row]:
    rows = []
    for file in ("d1-gzip", "d2-gzip"):
        two = lines.find(FIRST, "csr", file, 64)
        one = lines.find(FIRST, "csr", file, 64, threads=1)
        two = None if lines.threads == 1 else two
        work = f"threads, 1 to {lines.threads}, CSR, gzip"
        rows.append(ratio_row(work, f"{file}, 64", 1.9, two, one))
    return rows


def _plain(file: str) -> str:
    return file.replace("gzip", "none")


# --- all systems


def ours_for(lines: Lines, line: Line) -> Line | None:
    """The line of ours that a peer's line is to be set beside: same form, file and batch."""
    if line["what"] in {LIMIT, "H5Dread"}:
        return lines.find(FIRST, "csr", line["file"], 64, threads=_threads(line) or None)
    what = COMPACT if "memory" in line["what"] else FIRST
    return lines.find(what, line["form"], line["file"], line["batch_size"])


def system_rows(lines: Lines) -> list[tuple[str, ...]]:
    """Every system: its rate on each file and, for peers, how many times that is ours."""
    keys: dict[tuple[Any, ...], dict[str, Line]] = {}
    for line in lines.lines:
        if line["median"] is None:
            continue
        key = (line["what"], line["form"], line["batch_size"], _threads(line))
        keys.setdefault(key, {})[line["file"]] = line
    rows = []
    for (what, form, size, threads), found in keys.items():
        name = what if threads in {0, lines.threads} else f"{what}, {threads} thread"
        texts = []
        for file in FILES:
            line = found.get(file)
            text = _rate(line)
            if line and not what.startswith("scio"):
                ours = ours_for(lines, line)
                text += f" ({_times_text(ours['median'] / line['median'])})" if ours else ""
            texts.append(text)
        rows.append((name, form, str(size or ""), *texts))
    return rows


def _times_text(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:,.0f}x"


SYSTEM_HEAD = ("path", "form", "batch", *FILES)
BESIDE_HEAD = (
    "path",
    "form",
    "batch",
    "file",
    "entropy, bits",
    "peak RSS, MB",
    "first batch, s",
    "end of first epoch, s",
    "CPU s",
    "cut off",
)


def beside_rows(lines: Lines) -> list[tuple[str, ...]]:
    """What stands beside a rate: mixing, memory, times."""
    rows = []
    for line in lines.lines:
        if line["median"] is None or line["batch_size"] != 64:
            continue
        whole = line["settings"].get("whole_epoch", True)
        rows.append(
            (
                line["what"] + ("" if _threads(line) != 1 else ", 1 thread"),
                line["form"],
                str(line["batch_size"]),
                line["file"],
                _number(line["entropy"], 3),
                _number((line["rss_peak"] or 0) * MB_PER_MIB, 0),
                _number(line["seconds_first_batch"], 2),
                _number(line["seconds_epoch"], 2),
                _number(line.get("stats", {}).get("cpu_seconds"), 2),
                "" if whole else f"after {line.get('stats', {}).get('batches', '?')} batches",
            )
        )
    return rows


def conversion_rows(lines: Lines) -> list[tuple[str, ...]]:
    """What annbatch's conversion costs, apart from its epochs."""
    return [
        (
            line["file"],
            _number(line["seconds_convert"], 1),
            _number(line["source_mib"] * MB_PER_MIB, 0),
            _number(line["disk_mib"] * MB_PER_MIB, 0),
            _number(line["rss_peak"] * MB_PER_MIB, 0),
            str(len(line["runs"])),
        )
        for line in lines.lines
        if line["what"] == CONVERSION and "seconds_convert" in line
    ]


CONVERSION_HEAD = ("file", "seconds", "file, MB", "zarr, MB", "peak RSS, MB", "runs")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


# --- text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(row) + " |" for row in rows])


def text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal; columns of numbers to the right."""
    table = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    is_number = [
        all(not row[i] or row[i][0].isdigit() for row in rows) and any(row[i] for row in rows)
        for i in range(len(head))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in table
    )


def machine_text(lines: Sequence[Line]) -> str:
    """Where and with what it was measured."""
    first = lines[0]
    versions = {name: v for line in reversed(lines) for name, v in line["versions"].items() if v}
    versions.update({name: v for name, v in first["versions"].items() if v})
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    rounds = max((len(line["cells_per_s"]) for line in lines), default=0)
    sizes: dict[str, int] = {}
    for line in lines:
        name = line["file"][:2]
        sizes[name] = min(line["n_cells"], sizes.get(name, line["n_cells"]))
    files = ", ".join(f"{name}: {n:,} cells" for name, n in sorted(sizes.items()))
    is_small = any(n < FULL_SIZES.get(name, 0) for name, n in sizes.items())
    small = " (small files: not the promised figures)" if is_small else ""
    return (
        f"{first['cpu']}, {first['cores']} cores, {first['isa']}, {first['memory']} GiB; {names}; "
        f"scio at {first['commit']}; {rounds} rounds; {files}{small}"
    )


def report(lines: Sequence[Line], table: Callable[..., str]) -> str:
    """All tables."""
    asked = Lines(lines)
    targets = target_rows(asked)
    counts = {
        word: sum(row.verdict.startswith(word) for row in targets)
        for word in ("pass", "short", "not measured")
    }
    parts = [
        "Targets: " + ", ".join(f"{n} {word}" for word, n in counts.items()),
        table(TARGET_HEAD, [row.cells for row in targets]),
        "Cells per second, medians; in brackets, how many times that scio gives (first epoch; from "
        "memory: compact store):",
        table(SYSTEM_HEAD, system_rows(asked)),
        "Batches of 64, beside the rate:",
        table(BESIDE_HEAD, beside_rows(asked)),
    ]
    if conversions := conversion_rows(asked):
        parts += ["annbatch's conversion:", table(CONVERSION_HEAD, conversions)]
    failed = [line for line in lines if "error" in line]
    if failed:
        rows = [(ln["what"], ln["form"], ln["file"], ln["error"]) for ln in failed]
        parts += ["Not measured:", table(("what", "form", "file", "why"), rows)]
    return "\n\n".join([machine_text(lines), *parts])


def read(path: Path) -> list[Line]:
    """Read the lines of a run."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="to paste into README and docs")
    options = parser.parse_args()
    print(report(read(options.results), markdown if options.markdown else text))


if __name__ == "__main__":
    main()
