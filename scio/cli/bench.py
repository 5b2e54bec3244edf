"""``scio bench``: how fast a user's own file becomes batches, each measurement in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import scio
from scio.cli import _machine, peers
from scio.cli._text import NOTHING, Table, count_text, facts_table, nbytes_text, seconds_text
from scio.errors import ScioError

FORMS = ("csr", "dense", "tokens")
FORM_TEXT = {
    "csr": "CSR",
    "dense": "dense, all genes",
    "dense_log1p": "dense, all genes, norm + log1p",
    "tokens": "tokens, 2,048 genes, norm + log1p",
}
_DECODE_NOTE = (
    "decoding alone: every chunk of X read from the page cache and decoded once by all threads into "
    "memory used again, no rows, no checks, no batches"
)
_READ_NBYTES = 8 << 20
_SECONDS_TO_END = 2.0

Record = dict[str, Any]


class MeasurementError(ScioError):
    """A process that measured failed."""


@dataclass(frozen=True)
class Settings:
    """What ``scio bench`` was asked for."""

    path: str
    batch_size: int = 64
    forms: tuple[str, ...] = FORMS
    threads: int = 1
    max_memory: str | None = None
    n_runs: int = 5
    n_epochs: int = 2
    key: str | None = None
    is_compared: bool = False
    limit_seconds: float = 60.0


# --- children


def run_child(request: Record) -> Record:
    """Answer a request in a fresh process; the process is gone when this returns or raises.

    Raises
    ------
    MeasurementError
        If it failed; the message is that of the error there.
    """
    package = str(Path(scio.__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-P", "-W", "ignore", "-m", "scio.cli._measure"]
    with tempfile.TemporaryFile() as said:  # by libraries, whatever the stream
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as answers:
            try:
                child = subprocess.Popen(
                    [*command, str(write_end)],
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=said,
                    pass_fds=(write_end,),
                    env={**os.environ, "PYTHONPATH": search},
                )
            finally:
                os.close(write_end)  # the end of the child is then the end of its answer
            assert child.stdin is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # it died; its end says more
                    child.stdin.write(json.dumps(request).encode() + b"\n")
                    child.stdin.flush()
                answer = answers.read()
                child.wait()
            finally:
                _end(child)
        if child.returncode != 0 or not answer:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise MeasurementError(_how_it_ended(child.returncode, lines))
    result: Record = json.loads(answer)
    if "error" in result:
        raise MeasurementError(result["message"] or result["error"])
    return result


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


def _how_it_ended(code: int, lines: list[str]) -> str:
    last = f": {lines[-1]}" if lines else ""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (the system ends what takes too much memory)" if -code == signal.SIGKILL else ""
        return f"the measuring process was ended by {name}{hint}{last}"
    return f"the measuring process ended with code {code}{last}"


# --- records


def spread(values: list[float]) -> Record:
    """Median, least and largest of the runs."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "largest": max(values),
        "n_runs": len(values),
    }


def measure(settings: Settings, tell: Callable[[str, int, int], None]) -> Iterator[Record]:
    """Measure, one record after the other.

    Parameters
    ----------
    settings : Settings
    tell : callable
        ``(what, done, total)``, called before each child process.

    Yields
    ------
    dict
        What JSON knows; ``record`` says which: ``machine``, ``opening``, ``decode``, ``epochs``,
        ``mixing``.  A record with ``error`` has no figures.

    Raises
    ------
    IOFormatError, OSError
        If the file cannot be opened.
    """
    with scio.open(settings.path) as handle:
        facts = _file_facts(handle)
        if settings.key is not None:
            handle.obs[settings.key]  # a wrong name ends it here, with near names
    cases = list(_cases(settings))
    n_children = 2 + (settings.key is not None) + settings.n_runs * len(cases)
    n_done = 0

    def child(what: str, request: Record) -> Record:
        nonlocal n_done
        tell(what, n_done, n_children)
        n_done += 1
        return run_child({**_request(settings), **request})

    is_warm = _warm(settings.path)
    yield {
        "record": "machine",
        **_machine.describe(),
        "file": facts,
        "settings": asdict(settings),
        "page_cache": "warm" if is_warm else "not warm: the file is larger than free memory",
    }
    yield _opening_record(lambda: child("opening", {"work": "opening"}))
    decode = _decode_record(lambda: child("decoding", {"work": "decode"}), settings.threads)
    yield decode
    limit = decode.get("cells_per_second", {}).get("median")
    for case in cases:
        runs: list[Record] = []
        error = None
        for run in range(settings.n_runs):
            try:
                runs.append(child(case["what"], {**case["request"], "seed": run}))
            except MeasurementError as failure:
                error = str(failure)
                n_done += settings.n_runs - run - 1
                break
        yield _epochs_record(case, runs, error, limit)
    if settings.key is not None:
        yield _mixing_record(settings.key, lambda: child("mixing", {"work": "mixing"}))
    tell("done", n_children, n_children)


def _request(settings: Settings) -> Record:
    return {
        "path": os.path.abspath(settings.path),
        "batch_size": settings.batch_size,
        "threads": settings.threads,
        "max_memory": settings.max_memory,
        "n_runs": settings.n_runs,
        "n_epochs": settings.n_epochs,
        "limit_seconds": settings.limit_seconds,
        "key": settings.key,
        "seed": 0,
    }


def _file_facts(handle: scio.io.AnnDataFile) -> Record:
    x = handle.X
    return {
        "name": handle.name,
        "nbytes": handle.file.core.nbytes,
        "shape": list(handle.shape),
        "nnz": x.nnz,
        "format": x.format,
        "dtype": str(x.dtype),
        "chunk": None if x.chunks is None else list(x.chunks),
        "filters": list(x.filters),
    }


def _warm(path: str) -> bool:
    """Read the file once, so that all find it in the page cache; False: too large for that."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if os.path.getsize(path) > max(free, _machine.memory_nbytes() // 2):
        return False
    buffer = bytearray(_READ_NBYTES)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return True


def _cases(settings: Settings) -> Iterator[Record]:
    """One per system and form."""
    for form in settings.forms:
        shapes = [form]
        if form == "dense" and settings.is_compared:
            shapes.append("dense_log1p")  # as one of the peers gives it
        for shape in shapes:
            yield {
                "what": f"scio, {FORM_TEXT[shape]}",
                "system": "scio",
                "version": scio.__version__,
                "form": shape,
                "request": {"work": "scio", "form": shape, "key": None},
            }
        for peer in peers.installed(form) if settings.is_compared else ():
            yield {
                "what": peer.name,
                "system": peer.name,
                "version": _machine.version_of(peer.distribution),
                "form": form,
                "request": {"work": "peer", "peer": peer.name},
            }


def _opening_record(work: Callable[[], Record]) -> Record:
    try:
        result = work()
    except MeasurementError as failure:
        return {"record": "opening", "error": str(failure)}
    seconds = {k: spread(result[k]) for k in ("open_seconds", "loader_seconds")}
    return {"record": "opening", **seconds}


def _decode_record(work: Callable[[], Record], threads: int) -> Record:
    head = {"record": "decode", "what": _DECODE_NOTE, "threads": threads}
    try:
        result = work()
    except MeasurementError as failure:
        return {**head, "error": str(failure)}
    sizes = {k: result[k] for k in ("cells", "stored_nbytes", "decoded_nbytes")}
    rates = {
        "cells_per_second": spread([result["cells"] / s for s in result["seconds"]]),
        "decoded_nbytes_per_second": spread(
            [result["decoded_nbytes"] / s for s in result["seconds"]]
        ),
    }
    return {**head, **sizes, "seconds": spread(result["seconds"]), **rates}


def _epochs_record(
    case: Record, runs: list[Record], error: str | None, limit: float | None
) -> Record:
    head = {"record": "epochs", **{k: case[k] for k in ("system", "version", "form")}}
    if error is not None:
        return {**head, "error": error}
    firsts = [run["epochs"][0] for run in runs]
    out = {
        **head,
        "open_seconds": spread([run["open_seconds"] for run in runs]),
        "first_batch_seconds": spread(
            [
                run["open_seconds"] + (e["first_batch_seconds"] or 0.0)
                for run, e in zip(runs, firsts, strict=True)
            ]
        ),
        "first_epoch": _rate([[first] for first in firsts]),
        "later_epochs": None,
    }
    later = [run["epochs"][1:] for run in runs]
    if all(later):
        out["later_epochs"] = _rate(later)
    if limit:
        out["first_epoch"]["of_decoding_alone"] = (
            out["first_epoch"]["cells_per_second"]["median"] / limit
        )
    for key in ("base_rss_nbytes", "peak_rss_nbytes"):
        out[key] = spread([run[key] for run in runs])
    return out


def _rate(runs: list[list[Record]]) -> Record:
    """Cells a second and seconds by stage: median over the epochs of a run, spread over the runs."""
    out: Record = {
        "cells": runs[0][0]["cells"],
        "is_whole": all(epoch["is_whole"] for run in runs for epoch in run),
        "cells_per_second": spread(
            [statistics.median(e["cells"] / e["seconds"] for e in run) for run in runs]
        ),
        "seconds": spread([statistics.median(e["seconds"] for e in run) for run in runs]),
    }
    if all("stats" in epoch for run in runs for epoch in run):
        names = [n for n in runs[0][0]["stats"] if n.startswith("seconds")]
        out["stages"] = {
            n: statistics.median(e["stats"].get(n, 0.0) for run in runs for e in run) for n in names
        }
        out["stats"] = runs[-1][-1]["stats"]
    return out


def _mixing_record(key: str, work: Callable[[], Record]) -> Record:
    try:
        return {"record": "mixing", "key": key, **work()}
    except MeasurementError as failure:
        return {"record": "mixing", "key": key, "error": str(failure)}


# --- text


def tables(records: list[Record]) -> list[Table]:
    """Lay the records out as tables."""
    machine = next(r for r in records if r["record"] == "machine")
    epochs = [r for r in records if r["record"] == "epochs"]
    out = [_head_table(machine), _file_table(records)]
    for form in FORMS:
        records_of = [r for r in epochs if r["form"].startswith(form)]  # dense: and dense_log1p
        if records_of:
            out.append(_form_table(form, records_of))
    stages = _stage_table(epochs)
    if stages.rows:
        out.append(stages)
    out += [_mixing_table(r) for r in records if r["record"] == "mixing"]
    return out


def _head_table(machine: Record) -> Table:
    file, settings = machine["file"], machine["settings"]
    names = {"scio": scio.__version__, "python": machine["python"], **machine["versions"]}
    versions = ", ".join(f"{k} {v}" for k, v in names.items() if v)
    n_obs, n_vars = file["shape"]
    chunk = (
        "contiguous" if file["chunk"] is None else f"chunk {' x '.join(map(str, file['chunk']))}"
    )
    cap = settings["max_memory"] or "that of CellDataLoader"
    rows = [
        (
            "file",
            f"{n_obs:,} x {n_vars:,}, {file['nnz']:,} stored values, {nbytes_text(file['nbytes'])}",
        ),
        (
            "X",
            f"{file['format']} {file['dtype']}, {chunk}, {'+'.join(file['filters']) or 'not compressed'}",
        ),
        (
            "machine",
            f"{machine['cpu']}, {machine['cores']} cores, {nbytes_text(machine['memory_nbytes'])}",
        ),
        ("CPU level", machine["build"]["cpu_level"]),
        ("versions", versions),
        (
            "settings",
            f"batch {settings['batch_size']}, {settings['threads']} threads, max_memory {cap}",
        ),
        ("runs", f"{settings['n_runs']} runs of {settings['n_epochs']} epochs, each run a process"),
        ("load", _load_text(machine)),
        ("page cache", machine["page_cache"]),
        ("first batch", "from nothing open, imports not counted"),
        ("RSS", "resident size of the process; before: once all is imported"),
    ]
    return facts_table(file["name"], rows)


def _load_text(machine: Record) -> str:
    """The load when it began; OpenMP of the peers waits spinning, so a busy machine slows them most."""
    load, cores = machine["load_average"], machine["cores"]
    busy = "; busy, so the figures are too low" if load > cores / 4 else ""
    return f"{load:.1f} on {cores} cores when it began{busy}"


def _spread_text(values: Record, text: Callable[[float], str]) -> str:
    return f"{text(values['median'])} [{text(values['least'])} … {text(values['largest'])}]"


def _file_table(records: list[Record]) -> Table:
    table = Table("the file", ("", "median [least … largest]"))
    for record in records:
        if record["record"] == "opening":
            if "error" in record:
                table.rows.append(("opening", record["error"]))
                continue
            table.rows.append(("scio.open", _spread_text(record["open_seconds"], seconds_text)))
            planned = _spread_text(record["loader_seconds"], seconds_text)
            table.rows.append(("dataset and loader", planned))
        elif record["record"] == "decode":
            if "error" in record:
                table.rows.append(("decoding alone", record["error"]))
                continue
            cells = _spread_text(record["cells_per_second"], count_text)
            nbytes = nbytes_text(record["decoded_nbytes_per_second"]["median"])
            table.rows.append(("decoding alone", f"{cells} cells/s, {nbytes}/s"))
            table.notes.append(record["what"])
    return table


def _form_table(form: str, records: list[Record]) -> Table:
    heads = ("system", "version", "first batch", "first epoch, cells/s", "later epochs, cells/s")
    table = Table(FORM_TEXT[form], (*heads, "peak RSS", "RSS before"))
    is_cut = False
    for record in records:
        version = record["version"] or NOTHING
        name = record["system"]
        if record["form"] == "dense_log1p":
            name += ", norm + log1p"
        if "error" in record:
            table.rows.append((name, version, *([NOTHING] * 5)))
            table.notes.append(f"{name}: {record['error']}")
            continue
        first, later = record["first_epoch"], record["later_epochs"]
        text = _spread_text(first["cells_per_second"], count_text)
        is_cut = is_cut or not first["is_whole"]
        table.rows.append(
            (
                name,
                version,
                seconds_text(record["first_batch_seconds"]["median"]),
                text + ("" if first["is_whole"] else " *"),
                NOTHING if later is None else _spread_text(later["cells_per_second"], count_text),
                nbytes_text(record["peak_rss_nbytes"]["median"]),
                nbytes_text(record["base_rss_nbytes"]["median"]),
            )
        )
        if record["system"] == "scio" and "of_decoding_alone" in first:
            table.notes.append(
                f"first epoch of {name}: {first['of_decoding_alone']:.2f} of decoding alone"
            )
    if is_cut:
        table.notes.append("* cut off after the limit of --seconds")
    return table


def _stage_table(epochs: list[Record]) -> Table:
    """Where the seconds of scio went."""
    shown: list[tuple[str, Record]] = []
    for record in epochs:
        if record["system"] == "scio" and "error" not in record:
            for name in ("first_epoch", "later_epochs"):
                part = record[name]
                if part is not None and part.get("stages"):
                    label = f"{FORM_TEXT[record['form']]}, {name.replace('_', ' ')}"
                    shown.append((label, part["stages"]))
    names = list(dict.fromkeys(n for _, stages in shown for n in stages))
    table = Table("seconds by stage of scio", ("", *(n.removeprefix("seconds_") for n in names)))
    for label, stages in shown:
        cells = (f"{stages[n]:.3f}" if n in stages else NOTHING for n in names)
        table.rows.append((label, *cells))
    table.notes.append("wait: the consumer waited; decode, collate …: summed over the threads")
    return table


def _mixing_table(record: Record) -> Table:
    table = Table(f"mixing of obs[{record['key']!r}]", ("", "entropy, bits", "perfect", "ratio"))
    if "error" in record:
        table.notes.append(record["error"])
        return table
    for name in ("first_epoch", "later_epochs"):
        if name in record:
            m = record[name]
            cells = (f"{m['entropy']:.3f}", f"{m['perfect']:.3f}", f"{m['ratio']:.3f}")
            table.rows.append((name.replace("_", " "), *cells))
    return table


# --- progress


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give the `tell` of `measure`: a bar on stderr when that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell
