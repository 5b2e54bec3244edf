"""The benchmarks: what they time, what they make of it, and that the driver works on a small file."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def load(name):
    """A module of benchmarks/ under a name that collides with no package."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


report = load("report")
timing = load("timing")


# --- timing


def test_epoch_counts_cells_and_stops_when_time_is_up():
    def slow():
        while True:
            time.sleep(0.01)
            yield 7

    one = timing.epoch(slow(), lambda n: n, 0.1)
    assert one["cells"] == 7 * one["batches"]
    assert 1 <= one["batches"] <= 10
    assert not one["is_whole"]
    assert one["seconds"] >= 0.1
    assert one["cells_per_s"] == pytest.approx(one["cells"] / one["seconds"])
    whole = timing.epoch([3, 4], lambda n: n)
    assert (whole["cells"], whole["batches"], whole["is_whole"]) == (7, 2, True)


def test_measure_opens_twice_and_times_each_epoch():
    opened = []

    class Loader:
        n_epochs = 0

        def __iter__(self):
            self.n_epochs += 1
            yield from [1, 1]

    def make():
        time.sleep(0.02)
        opened.append(Loader())
        return opened[-1]

    result = timing.measure(
        make, lambda n: n, n_epochs=3, describe=lambda loader: {"said": loader.n_epochs}
    )
    assert [loader.n_epochs for loader in opened] == [1, 3]
    assert [e["said"] for e in result["epochs"]] == [1, 2, 3]
    assert result["seconds_first_batch"] >= 0.02  # opening is part of it
    assert result["seconds_epoch"] >= 0.02
    assert result["epochs"][0]["rss_peak"] >= result["rss_before"] > 1


def test_entropy_of_batches():
    batches = [np.array([0, 0, 1, 1]), np.array([2, 2, 2, 2])]
    assert timing.mean_entropy(batches) == pytest.approx(0.5)
    assert timing.mean_entropy([np.arange(8)]) == pytest.approx(3.0)
    assert timing.mean_entropy([]) is None


def test_marker_tells_the_labels_of_any_raw_batch():
    import scipy.sparse as sp
    import torch

    dense = np.array([[0, 5, 1], [2, 0, 8]], dtype=np.float32)
    for batch in (
        dense,
        torch.from_numpy(dense),
        sp.csr_matrix(dense),
        sp.csr_array(dense),
        {"X": sp.csr_matrix(dense), "obs": None},
    ):
        assert timing.marker_labels(batch).tolist() == [0, 7]
    assert timing.marker_labels(np.log1p(dense)) is None
    assert timing.marker_labels({"expression": dense}) is None


# --- report


def line(what, form, file, batch_size, rates, **more):
    """A line as bench_loader writes it."""
    settings = more.pop("settings", {"threads": 2} if what.startswith("scio") else {})
    middle = sorted(rates)[len(rates) // 2]
    return {
        "what": what,
        "form": form,
        "file": file,
        "n_cells": 100_000,
        "batch_size": batch_size,
        "cells_per_s": rates,
        "median": middle,
        "spread": [min(rates), max(rates)],
        "seconds_first_batch": None,
        "seconds_epoch": None,
        "rss_peak": 100.0,
        "entropy": None,
        "settings": settings,
        "versions": {"python": "3.11", "torch": None},
        "commit": "abc",
        "cores": 2,
        "cpu": "a processor",
        "isa": "avx2",
        "memory": 8.0,
        **more,
    }


def row_of(lines, work, where):
    rows = [
        row
        for row in report.target_rows(report.Lines(lines))
        if row.work.startswith(work) and row.where == where
    ]
    assert len(rows) == 1, rows
    return rows[0]


def test_ratio_is_of_medians_and_its_range_of_rounds():
    lines = [
        line("scio first epoch", "csr", "d1-gzip", 64, [80.0, 90.0, 100.0]),
        line("decode limit", "csr", "d1-gzip", 0, [100.0, 100.0, 200.0], settings={"threads": 2}),
        line("decode limit", "csr", "d1-gzip", 0, [999.0], settings={"threads": 1}),
    ]
    row = row_of(lines, "first epoch, CSR, gzip, over decode limit", "d1-gzip, 64")
    assert (row.ours, row.other) == ("90", "100")
    assert row.reached == "0.90x [0.50 … 0.90]"
    assert row.verdict == "pass"
    lines[0] = line("scio first epoch", "csr", "d1-gzip", 64, [84.0])
    short = row_of(lines, "first epoch, CSR, gzip, over decode limit", "d1-gzip, 64")
    assert (short.reached, short.verdict) == ("0.84x [0.84 … 0.84]", "short")


def test_a_peer_with_several_settings_counts_with_its_best():
    lines = [
        line("scio first epoch", "csr", "d2-none", 64, [300.0]),
        line("annbatch, own zarr, readme", "csr", "d2-none", 64, [100.0], settings={}),
        line("annbatch, own zarr, default", "csr", "d2-none", 64, [200.0], settings={}),
        line("annbatch conversion", "csr", "d2-none", 0, [900.0], settings={}),
    ]
    row = row_of(lines, "first epoch, CSR, none, over annbatch", "d2-none, 64")
    assert (row.other, row.reached[:5], row.verdict) == ("200", "1.50x", "short")


def test_a_later_epoch_that_decodes_is_short_whatever_its_rate():
    peer = line("SciPy X[idx] in memory", "csr", "d1-none", 64, [100.0])
    ours = line(
        "scio later epochs, compact store",
        *("csr", "d1-none", 64, [900.0]),
        stats={"chunks_decoded": 12},
    )
    where = ("later epochs, compact store, CSR, over SciPy", "d1-none, 64")
    assert row_of([peer, ours], *where).verdict == "short: decoded 12 chunks again"
    ours["stats"]["chunks_decoded"] = 0
    assert row_of([peer, ours], *where).verdict == "pass"


def test_fast_layout_must_have_made_a_file():
    peer = line("SciPy X[idx] in memory", "csr", "d1-none", 64, [100.0])
    name = "scio later epochs, fast layout"
    ours = line(name, "csr", "d1-none", 64, [900.0], stats={"chunks_decoded": 0, "cache_mib": 0.0})
    where = ("later epochs, fast layout, CSR, over SciPy", "d1-none, 64")
    assert row_of([peer, ours], *where).verdict == "short: no fast-layout file was made"
    ours["stats"]["cache_mib"] = 1.5
    assert row_of([peer, ours], *where).verdict == "pass"


def test_times_count_the_conversion_of_the_same_file():
    lines = [
        line(
            *("scio first epoch", "csr", "d1-gzip", 64, [1.0]),
            seconds_first_batch=0.5,
            seconds_epoch=1.0,
        ),
        line(
            *("annbatch, own zarr, readme", "csr", "d1-none", 64, [1.0]),
            seconds_first_batch=0.25,
            seconds_epoch=0.5,
        ),
        {
            **line("annbatch conversion", "csr", "d1-gzip", 0, [1.0]),
            "median": None,
            "seconds_convert": 4.0,
        },
    ]
    first = row_of(lines, "from nothing to the first batch", "d1-gzip, 64")
    assert (first.ours, first.other, first.reached) == ("0.50 s", "4.25 s", "8.5x")
    epoch = row_of(lines, "from nothing to the end of the first epoch", "d1-gzip, 64")
    assert (epoch.other, epoch.reached, epoch.verdict) == ("4.50 s", "4.5x", "short")
    assert row_of(lines, "first batch, 100,000", "d1-gzip, 64").verdict == "short"  # not below 0.5
    without = row_of(lines, "from nothing to the first batch", "d2-gzip, 64")
    assert without.verdict == "not measured"


def test_memory_in_megabytes_and_the_cap():
    lines = [
        line(
            *("scio first epoch", "csr", "d1-gzip", 64, [1.0]),
            rss_peak=480.0,
            stats={"peak_nbytes": 11, "cap_nbytes": 10},
        )
    ]
    resident = row_of(lines, "resident memory", "d1-gzip, 64")
    assert (resident.reached, resident.verdict) == ("503 MB", "short")  # 480 MiB
    cap = row_of(lines, "accounted memory", "1 settings")
    assert (cap.reached, cap.verdict) == ("1.10 of the cap", "short")


def test_threads_compare_one_with_all():
    lines = [
        line("scio first epoch", "csr", "d1-gzip", 64, [190.0]),
        line("scio first epoch", "csr", "d1-gzip", 64, [100.0], settings={"threads": 1}),
    ]
    row = row_of(lines, "threads, 1 to 2", "d1-gzip, 64")
    assert (row.ours, row.other, row.verdict) == ("190", "100", "pass")
    assert row_of(lines[1:], "threads", "d1-gzip, 64").verdict == "not measured"


def test_peers_are_set_beside_the_same_form_and_batch():
    lines = report.Lines(
        [
            line("scio first epoch", "dense", "d1-gzip", 64, [1000.0]),
            line("scio first epoch", "csr", "d1-gzip", 64, [5000.0]),
            line("AnnLoader (backed)", "dense", "d1-gzip", 64, [10.0]),
            line("h5py row by row", "dense", "d1-gzip", 4096, [10.0]),
        ]
    )
    rows = {row[0]: row for row in report.system_rows(lines)}
    assert rows["AnnLoader (backed)"] == (
        *("AnnLoader (backed)", "dense", "64"),
        *("10 (100x)", "", "", ""),
    )
    assert rows["h5py row by row"][3] == "10"  # no figure of ours for batches of 4096


def test_report_of_one_line_names_the_machine_and_what_is_missing(tmp_path):
    failed = {
        **line("scDataset block 64 fetch 256", "csr", "d1-none", 64, [1.0]),
        "cells_per_s": [],
        "median": None,
        "error": "ImportError: no",
    }
    path = tmp_path / "lines.jsonl"
    good = line("scio first epoch", "csr", "d1-none", 64, [10.0], n_cells=500)
    path.write_text("".join(json.dumps(one) + "\n" for one in (good, failed)))
    script = [sys.executable, str(BENCHMARKS / "report.py"), str(path)]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert "a processor, 2 cores, avx2, 8.0 GiB" in text
    assert "small files: not the promised figures" in text
    assert "ImportError: no" in text
    table = subprocess.run(
        [*script, "--markdown"], capture_output=True, text=True, check=True
    ).stdout
    tables = [part for part in table.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for one in tables:
        widths = {row.count("|") for row in one.splitlines()}
        assert len(widths) == 1, one


# --- the driver


@pytest.mark.slow
def test_driver_measures_a_small_file(tmp_path):
    pytest.importorskip("anndata")
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "bench_loader.py")]
    arguments = ["--cells", "500", "--files", "d1-gzip", "--runs", "2", "--threads", "2"]
    arguments += ["--only", "limit|H5D|first epoch csr 64", "--scio-only"]
    done = subprocess.run(
        [*command, *arguments, "--data", str(tmp_path), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(one) for one in out.read_text().splitlines()]
    assert [one.get("error") for one in lines] == [None] * 5, done.stdout
    found = {(one["what"], one["settings"]["threads"]): one for one in lines}
    assert set(found) == {
        ("H5Dread", 1),
        *(("decode limit", n) for n in (1, 2)),
        *(("scio first epoch", n) for n in (1, 2)),
    }
    for one in lines:
        assert len(one["cells_per_s"]) == 2
        assert one["spread"][0] <= one["median"] <= one["spread"][1]
    ours = found["scio first epoch", 2]
    assert 0 < ours["seconds_first_batch"] < 60
    assert ours["seconds_epoch"] > 500 / ours["spread"][1]
    # 500 cells are one window: batches as of an exact shuffle, whose entropy is 2.92 bits.
    assert math.isclose(ours["entropy"], 2.92, abs_tol=0.1)
    assert ours["stats"]["chunks_decoded"] == ours["stats"]["chunks_total"]
    assert ours["stats"]["peak_nbytes"] <= ours["stats"]["cap_nbytes"]
    row = row_of(lines, "first epoch, CSR, gzip, over decode limit", "d1-gzip, 64")
    assert row.verdict in {"pass", "short"}


@pytest.mark.slow
def test_a_child_that_fails_gives_its_error(tmp_path):
    harness = load("harness")
    arguments = {"path": str(tmp_path / "none.h5ad"), "form": "csr", "batch_size": 64}
    result = harness.in_child(
        str(BENCHMARKS / "systems.py"), "scio_loader", {**arguments, "seed": 0, "threads": 1}
    )
    assert "none.h5ad" in result["error"]


# --- pairs


def test_pairs_run_both_sides_in_processes_of_their_own_and_tell_what_is_short(tmp_path):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        pairs = load("pairs")
    finally:
        sys.path.remove(str(BENCHMARKS))
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys, time
sys.path.insert(0, {str(BENCHMARKS)!r})
from pairs import clocked
def fast(n): return clocked(lambda: bytearray(n << 20), keep=lambda b: {{"nbytes": len(b)}})
def slow(n): return clocked(lambda: (time.sleep(0.3), bytearray(4 * n << 20)))
def broken(n): raise ValueError("of the peer")
"""
    )
    works = [
        pairs.Work("good", "x", "fast", "slow", "sleep", 2.0, {"n": 40}, memory=0.5),
        pairs.Work("short", "x", "slow", "fast", "none", 2.0, {"n": 1}),
        pairs.Work("fails", "x", "fast", "broken", "broken", 2.0, {"n": 1}),
    ]
    good, short, fails = pairs.measure(str(script), works, 2)
    assert good["ratio"] > 2
    assert len(good["ours_seconds"]) == 2
    assert good["ours_facts"]["nbytes"] == 40 << 20
    assert 30 < good["ours_peak_mib"] < 60
    assert 150 < good["peer_peak_mib"] < 200
    assert pairs.verdict(good).startswith("reached, memory 0.")
    assert pairs.verdict(good).endswith("reached")
    assert pairs.verdict(short) == "short"
    assert "of the peer" in fails["error"]
    table = pairs.table([good, short, fails])
    assert "ValueError: of the peer" in table
    assert table.count("reached") == 2
