"""``scio bench``: real processes, all cells counted, figures that can be, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import scio
from scio.cli import bench
from scio.cli._text import plain
from scio.cli.app import app
from tests.cli.conftest import N_CELLS, Run, assert_refused, command, environment

QUICK = ("--runs", "1", "--epochs", "1", "--form", "csr")


def records_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def assert_spread(values: dict[str, float], n_runs: int) -> None:
    assert 0 < values["least"] <= values["median"] <= values["largest"]
    assert values["n_runs"] == n_runs


# --- figures


def test_json_of_a_made_file(scio_run: Run, made: Path) -> None:
    done = scio_run("bench", made, "--runs", 2, "--epochs", 3, "--key", "cell_type", "--json")
    assert done.returncode == 0, done.stderr
    records = records_of(done.stdout)
    kinds = [r["record"] for r in records]
    assert kinds == ["machine", "opening", "decode", "epochs", "epochs", "epochs", "mixing"]
    machine, opening, decode = records[:3]
    assert machine["file"]["shape"][0] == N_CELLS
    assert machine["settings"]["n_runs"] == 2
    assert machine["page_cache"] == "warm"
    assert machine["cores"] >= 1
    assert_spread(opening["open_seconds"], 2)
    assert_spread(opening["loader_seconds"], 2)
    assert_spread(decode["cells_per_second"], 2)
    assert decode["cells"] == N_CELLS
    nnz = machine["file"]["nnz"]
    assert decode["decoded_nbytes"] == nnz * 8  # float32 and int32
    assert [r["form"] for r in records if r["record"] == "epochs"] == ["csr", "dense", "tokens"]
    for record in records[3:6]:
        assert_epochs(record)
        assert record["first_epoch"]["of_decoding_alone"] > 0
    mixing = records[-1]
    for part in ("first_epoch", "later_epochs"):
        assert 0 < mixing[part]["entropy"] <= mixing[part]["perfect"] * 1.05
        assert mixing[part]["perfect"] == pytest.approx(2.0, abs=0.1)  # four types, log2


def assert_epochs(record: dict[str, Any]) -> None:
    assert record["system"] == "scio"
    assert_spread(record["first_batch_seconds"], 2)
    assert_spread(record["peak_rss_nbytes"], 2)
    assert record["peak_rss_nbytes"]["median"] >= record["base_rss_nbytes"]["median"] > 1 << 20
    for part in ("first_epoch", "later_epochs"):
        epoch = record[part]
        assert epoch["cells"] == N_CELLS
        assert epoch["is_whole"]
        assert_spread(epoch["cells_per_second"], 2)
        assert {"seconds", "seconds_wait", "seconds_decode"} <= set(epoch["stages"])
    first = record["first_epoch"]  # one epoch in each run: the quickest has the highest rate
    assert first["cells_per_second"]["largest"] * first["seconds"]["least"] == pytest.approx(
        N_CELLS
    )
    stats = first["stats"]
    assert stats["cells"] == N_CELLS
    assert stats["chunks_decoded"] == stats["chunks_total"] > 0


def test_text_of_a_real_file(scio_run: Run) -> None:
    done = scio_run("bench", scio.datasets.pbmc3k(), "--runs", 1, "--batch-size", 256)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no bar where there is no terminal
    assert "\x1b" not in done.stdout
    for word in (
        "2,700 x 32,738",
        "decoding alone",
        "CSR",
        "dense, all genes",
        "tokens, 2,048 genes",
        "later epochs",
        "peak RSS",
        "seconds by stage",
        "warm",
        f"scio {scio.__version__}",
        "batch 256",
    ):
        assert word in done.stdout, word


def test_peers_are_compared_in_their_form(made: Path) -> None:
    result = CliRunner().invoke(app, ["bench", str(made), *QUICK, "--compare", "--json"])
    assert result.exit_code == 0, result.output
    epochs = [r for r in records_of(result.stdout) if r["record"] == "epochs"]
    assert [r["system"] for r in epochs] == [
        "scio",
        "scDataset block 64 fetch 256",
        "scDataset block 1024 fetch 256",
        "SciPy X[idx] in memory",
    ]
    for record in epochs:
        assert "error" not in record, record
        assert record["version"]
        assert record["first_epoch"]["cells"] == N_CELLS
        assert record["first_epoch"]["cells_per_second"]["median"] > 0
        assert record["later_epochs"] is None


def test_an_epoch_that_is_cut_says_so(made: Path) -> None:
    settings = ["--seconds", "1e-9", "--runs", "1", "--form", "csr"]
    result = CliRunner().invoke(app, ["bench", str(made), *settings, "--json"])
    assert result.exit_code == 0, result.output
    records = records_of(result.stdout)
    epochs = records[-1]
    assert not epochs["first_epoch"]["is_whole"]
    assert 0 < epochs["first_epoch"]["cells"] < N_CELLS
    assert epochs["later_epochs"] is None
    assert "* cut off" in "\n".join(plain(table) for table in bench.tables(records))


def test_threads_and_cap_reach_the_loader(made: Path) -> None:
    arguments = ["bench", str(made), *QUICK, "--threads", "1", "--max-memory", "8MB", "--json"]
    records = records_of(CliRunner().invoke(app, arguments).stdout)
    assert records[2]["threads"] == 1
    stats = records[-1]["first_epoch"]["stats"]
    assert stats["cap_nbytes"] == 8_000_000
    assert 0 < stats["peak_nbytes"] <= 8_000_000


# --- what goes wrong


def test_no_such_file(scio_run: Run, tmp_path: Path) -> None:
    assert_refused(scio_run("bench", tmp_path / "none.h5ad"), 1, "none.h5ad")


def test_no_hdf5(scio_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "text.h5ad"
    path.write_text("no HDF5 at all\n" * 100)
    assert_refused(scio_run("bench", path), 1, "text.h5ad", "HDF5")


def test_truncated(scio_run: Run, tmp_path: Path, made: Path) -> None:
    path = tmp_path / "cut.h5ad"
    path.write_bytes(made.read_bytes()[:-5_000])
    assert_refused(scio_run("bench", path), 1, "cut.h5ad")


def test_a_wrong_key_offers_near_names(scio_run: Run, made: Path) -> None:
    assert_refused(scio_run("bench", made, "--key", "celltype"), 1, "celltype", "cell_type")


def test_a_corrupt_chunk_is_told_and_fails(tmp_path: Path, made: Path) -> None:
    import h5py

    image = bytearray(made.read_bytes())
    with h5py.File(made) as file:
        chunk = file["X/data"].id.get_chunk_info(2)
    for i in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        image[i] = 0xFF
    path = tmp_path / "corrupt.h5ad"
    path.write_bytes(image)
    result = CliRunner().invoke(app, ["bench", str(path), *QUICK, "--json"])
    assert result.exit_code == 1
    records = records_of(result.stdout)
    assert [r["record"] for r in records if "error" in r] == ["decode", "epochs"]
    assert "corrupt.h5ad" in records[-1]["error"]
    assert "X/data" in records[-1]["error"]
    assert "Traceback" not in result.output
    assert "X/data" in result.stderr
    assert "X/data" in "\n".join(plain(table) for table in bench.tables(records))


@pytest.mark.parametrize("cap", ["1000", "much"])
def test_a_cap_that_does_not_work(made: Path, cap: str) -> None:
    result = CliRunner().invoke(app, ["bench", str(made), *QUICK, "--max-memory", cap, "--json"])
    assert result.exit_code == 1
    assert "max_memory" in records_of(result.stdout)[-1]["error"]
    assert "max_memory" in result.stderr


# --- processes


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that still run."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(word) for word in listed.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(is_so: Any, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_child_outlives_the_command(made: Path, number: int, code: int) -> None:
    endless = ("--form", "csr", "--runs", 1, "--epochs", 10**9, "--json")
    process = subprocess.Popen(
        command("bench", made, *endless),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    started: list[int] = []
    try:
        kinds = [json.loads(process.stdout.readline())["record"] for _ in range(3)]
        assert kinds == ["machine", "opening", "decode"]  # what comes now does not end by itself
        assert wait_until(lambda: children(process.pid))
        started = children(process.pid)
        time.sleep(3.0)  # into its epochs
        os.kill(process.pid, number)
        begin = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - begin < 5
        assert process.returncode == code
        assert "Traceback" not in errors
        assert len(started) == 1
        assert wait_until(lambda: not is_running(started[0]), 5)
    finally:
        for pid in (*started, process.pid):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def test_a_child_that_is_ended_by_the_system_is_told(made: Path) -> None:
    request = {"work": "opening", "path": str(made), "n_runs": 10_000_000, "batch_size": 64}
    request |= {"threads": 1, "max_memory": None, "seed": 0}
    before = set(children(os.getpid()))
    killed: list[int] = []

    def kill() -> None:
        if wait_until(lambda: set(children(os.getpid())) - before):
            killed.extend(set(children(os.getpid())) - before)
            time.sleep(0.3)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    # The list of children is that of the main thread, so the child is started here.
    thread.start()
    try:
        with pytest.raises(bench.MeasurementError, match=r"SIGKILL.*memory"):
            bench.run_child(request)
    finally:
        thread.join()
    assert len(killed) == 1
    assert not is_running(killed[0])


def test_a_child_answers_errors_with_their_message() -> None:
    request = {"work": "opening", "path": "/no/such/file.h5ad", "n_runs": 1, "batch_size": 64}
    with pytest.raises(bench.MeasurementError, match=r"/no/such/file\.h5ad"):
        bench.run_child(request | {"threads": 1, "max_memory": None, "seed": 0})


def test_what_a_library_prints_is_not_in_the_answer(made: Path, tmp_path: Path) -> None:
    """A module prints when the interpreter starts."""
    (tmp_path / "sitecustomize.py").write_text("print('noise', flush=True)\n")
    done = subprocess.run(
        command("bench", made, *QUICK, "--json"),
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])),
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == "noise"  # that of the command itself
    assert len(records_of("\n".join(lines[1:]))) == 4


def test_median_and_spread() -> None:
    assert bench.spread([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "least": 1.0,
        "largest": 3.0,
        "n_runs": 3,
    }
