"""The tools that guard the tree, and the data that is shipped with the package."""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.resources
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from scio import datasets

ROOT = Path(__file__).resolve().parents[2]
PBMC3K_TOTAL, PBMC3K_ORDER = 6390631, 19540194008189
GENE_TABLE_SHA256 = "921025e6ca705afac9057a7dda25545b6dc712c73ca249f008aed9348f49d651"


def run(*command: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **env},
    )


# --- tools/check_layers.py


def check_layers(csrc: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "tools/check_layers.py", csrc)


def test_layers_of_this_tree_hold():
    done = check_layers(ROOT / "csrc")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("codec/a.c", '#include "load/plan.h"\n', 'a.c:1: codec/ may not include "load/plan.h"'),
        (
            "base/a.h",
            '\n#  include "codec/codec.h"\n',
            'a.h:2: base/ may not include "codec/codec.h"',
        ),
        ("sparse/a.c", '#include "csr.h"\n', '"csr.h" does not name its folder'),
        ("load/a.c", "#include <Python.h>\n", "Python.h may be included in py/, py_h5write/ only"),
        (
            "h5read/a.c",
            "#include <numpy/arrayobject.h>\n",
            "may be included in py/, py_h5write/ only",
        ),
        ("py/a.c", "#include <hdf5.h>\n", "hdf5.h may be included in h5write/ only"),
        ("load/a.c", '#include "h5write/w.h"\n', 'load/ may not include "h5write/w.h"'),
        ("load/a.c", "void *p = malloc (3);\n", "a.c:1: malloc is for base/mem.c only"),
        ("py/a.c", "/* a\nb */\n free(p);\n", "a.c:3: free is for base/mem.c only"),
        ("base/buf.c", "release(p, free);\n", "free is for base/mem.c only"),
        ("load/a.c", "pthread_create(&t, 0, f, 0);\n", "pthread_create is for base/pool.c only"),
        (
            "py/a.c",
            "Py_BEGIN_ALLOW_THREADS\nx = PyList_New(0);\nPy_END_ALLOW_THREADS\n",
            "a.c:2: PyList_New is used without the GIL, which line 1 released",
        ),
        ("py/a.c", "Py_BEGIN_ALLOW_THREADS\nf();\n", "a.c:1: Py_BEGIN_ALLOW_THREADS without"),
        ("py/a.c", "f();\nPy_END_ALLOW_THREADS\n", "a.c:2: Py_END_ALLOW_THREADS without"),
        ("misc/a.c", "", "misc is no folder of the table"),
    ],
)
def test_layers_reports_one_broken_rule(tmp_path, place, text, expected):
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text(text)
    done = check_layers(tmp_path)
    assert done.returncode == 1
    assert expected in done.stdout
    assert done.stdout.endswith("layers: 1 violations\n")


def test_layers_reports_a_name_that_occurs_twice(tmp_path):
    for folder in ("base", "codec"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.c").write_text("")
    assert "codec/same.c:1: the name is taken by base/same.c" in check_layers(tmp_path).stdout


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("base/mem.c", "void *p = malloc(3);\n"),
        ("base/pool.c", "pthread_create(&t, 0, f, 0);\n"),
        ("load/a.c", '/* malloc(3) */ // free(p)\nlog("free(p)"); x->free(y); scio_free(p);\n'),
        ("load/a.c", '#include "base/error.h"\n#include "h5read/file.h"\n#include "load/plan.h"\n'),
        (
            "py/a.c",
            "Py_BEGIN_ALLOW_THREADS\n/* no PyList */ f(py);\nPy_END_ALLOW_THREADS\nPyList_New(0);\n",
        ),
    ],
)
def test_layers_lets_pass_what_is_right(tmp_path, place, text):
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text(text)
    done = check_layers(tmp_path)
    assert done.returncode == 0, done.stdout


# --- tools/check_symbols.sh


def test_extensions_export_one_symbol_each_and_only_the_writer_needs_libhdf5():
    import scio._core
    import scio._h5write

    done = run("tools/check_symbols.sh", scio._core.__file__, scio._h5write.__file__)
    if not os.environ.get("SCIO_SANITIZE"):  # a sanitizer adds symbols of its own
        assert done.returncode == 0, done.stderr


def test_symbols_names_a_second_export(tmp_path):
    source = tmp_path / "two.c"
    source.write_text("int PyInit__core(void) { return 0; }\nint leaked(void) { return 1; }\n")
    library = tmp_path / "two.so"
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library], check=True)
    done = run("tools/check_symbols.sh", library)
    assert done.returncode == 1
    assert "leaked" in done.stderr


# --- tools/native.py and setup_system.sh


def test_native_names_the_package_of_a_required_library():
    done = run(sys.executable, "tools/native.py", "--make", PKG_CONFIG="false")
    assert done.returncode == 1
    assert "libdeflate-dev" in done.stderr


def test_native_names_the_package_of_the_writer(tmp_path):
    """A pkg-config that knows everything but libhdf5."""
    program = tmp_path / "pkg-config"
    program.write_text('#!/bin/sh\ncase "$2" in *hdf5*) exit 1 ;; esac\nexit 0\n')
    program.chmod(0o755)
    done = run(sys.executable, "tools/native.py", "--make", PKG_CONFIG=str(program))
    assert done.returncode == 1
    assert "libhdf5-dev" in done.stderr


def test_setup_names_missing_packages_where_apt_cannot_run(tmp_path):
    """A machine with coreutils and Python, without compiler, pkg-config and apt."""
    for name in ("bash", "id", "basename", "dirname", "find", "env"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (tmp_path / name).symlink_to(found.stdout.strip())
    done = run(
        tmp_path / "bash",
        "tools/setup_system.sh",
        "build",
        PATH=str(tmp_path),
        PYTHON=sys.executable,
    )
    assert done.returncode == 1
    for package in ("gcc", "pkg-config", "libdeflate-dev", "libblosc-dev", "libhdf5-dev"):
        assert package in done.stderr


# --- shipped data


def test_pbmc3k_is_the_file_that_was_measured():
    path = datasets.pbmc3k()
    with h5py.File(path) as file:
        x = file["X"]
        assert (x.attrs["encoding-type"], tuple(x.attrs["shape"])) == ("csr_matrix", (2700, 32738))
        data, indptr = x["data"][:], x["indptr"][:]
        assert data.dtype == np.float32
        assert len(data) == len(x["indices"]) == indptr[-1] == 2_286_884
        assert np.all(data == np.floor(data))
        assert data.min() == 1
        assert file["obs/_index"].asstr()[0] == "AAACATACAACCAC-1"
        assert file["var/_index"].asstr()[0] == "MIR1302-10"
        assert file["var/gene_ids"].asstr()[0] == "ENSG00000243485"
        # Counts of the original file, summed when it was taken over: total and a weighted sum that
        # knows the order of values and columns.
        weights = np.arange(1, len(data) + 1, dtype=np.int64) % 1009
        columns = x["indices"][:].astype(np.int64)
        assert int(data.astype(np.int64).sum()) == PBMC3K_TOTAL
        assert int((weights * (columns + data.astype(np.int64))).sum()) == PBMC3K_ORDER


def test_pbmc3k_licence_lies_beside_it():
    text = datasets.pbmc3k().with_name("pbmc3k.LICENSE.txt").read_text()
    assert "10x Genomics" in text
    assert "CC BY 4.0" in text


def test_pbmc3k_says_when_the_data_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.resources, "files", lambda _name: tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall"):
        datasets.pbmc3k()


def test_gene_table_has_every_protein_coding_gene_once():
    packed = importlib.resources.files("scio").joinpath("_data/human_protein_coding.tsv.gz")
    raw = packed.read_bytes()
    assert raw[4:8] == bytes(4), "a time in the gzip header: not reproducible"
    rows = list(csv.reader(gzip.decompress(raw).decode().splitlines(), delimiter="\t"))
    assert rows[0] == ["ensembl_id", "symbol"]
    genes = rows[1:]
    ids = [row[0] for row in genes]
    assert len(genes) == len(set(ids)) == 20_120
    assert ids == sorted(ids)
    assert all(i.startswith("ENSG") and len(i) == len("ENSG00000000003") for i in ids)
    assert len({symbol or i for i, symbol in genes}) == 20_092
    assert ["ENSG00000000003", "TSPAN6"] in genes
    digest = hashlib.sha256(gzip.decompress(raw)).hexdigest()
    assert digest == GENE_TABLE_SHA256
