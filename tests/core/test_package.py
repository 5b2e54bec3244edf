"""The package as a whole: what importing costs, what is public, what the extension exports."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap

import pytest

import scio

FORBIDDEN = ("torch", "pandas", "polars", "scipy", "h5py", "anndata", "pyarrow", "matplotlib")
PUBLIC = ("scio", "scio.data", "scio.io")


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_import_scio_loads_nothing_heavy():
    loaded = _run("import sys, scio; print(' '.join(sys.modules))").split()
    assert "scio._core" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(FORBIDDEN)


def test_opening_a_file_needs_numpy_only():
    loaded = _run(
        """
        import sys, scio
        f = scio.open(scio.datasets.pbmc3k())
        f.X[:10].toarray(); f.var_names; repr(f)
        print(' '.join(sys.modules))
        """
    ).split()
    assert not {name.partition(".")[0] for name in loaded} & set(FORBIDDEN)


def test_import_takes_less_than_100_ms_beyond_numpy():
    code = """
        import time, numpy
        start = time.perf_counter()
        import scio
        print(time.perf_counter() - start)
    """
    best = min(float(_run(code)) for _ in range(3))
    assert best < 0.1


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_sorted_complete_and_importable(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None
        assert public in dir(module)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        scio.nothing  # noqa: B018


def test_a_missing_extra_names_the_pip_line():
    out = _run(
        """
        import sys
        sys.modules["scipy"] = sys.modules["scipy.sparse"] = None
        import numpy as np, scio
        try:
            scio.CSR(np.ones(1, "f4"), np.zeros(1, "i4"), np.array([0, 1]), shape=(1, 1)).to_scipy()
        except scio.errors.MissingDependencyError as error:
            print(error)
        """
    )
    assert "pip install" in out
    assert "scipy" in out


def test_wrong_environment_variables_are_errors_that_list_the_legal_values():
    for name, value, text in (
        ("SCIO_CPU", "sse9", "avx2"),
        ("SCIO_THREADS", "many", "SCIO_THREADS"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", "import scio; scio.get_threads(); scio.build_info()"],
            capture_output=True,
            text=True,
            check=False,
            env={name: value, "PATH": "/usr/bin"},
        )
        assert done.returncode != 0
        assert text in done.stderr
