"""Reading opens the file that was named and no other, whatever stands in it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import scio
from scio.testing import break_rule
from tests.faults.conftest import read_log, sample

CODE = """
    import ctypes, sys, warnings
    import scio
    from scio.errors import UnsafeFileError, UnsupportedError
    warnings.simplefilter("ignore")
    sound, log, *hostile = sys.argv[1:]
    scio.read_h5ad(sound)  # what is imported late is there now
    libfault = ctypes.CDLL(None)
    assert libfault.scio_fault_arm(b"openat", 0, 0, 0, 0, b"") == 0
    libfault.scio_fault_log(log.encode())
    for path in (sound, *hostile):
        for read in (scio.read_h5ad, lambda p: scio.open(p).obs.to_pandas(), lambda p: scio.open(p).X.read()):
            try:
                read(path)
            except (UnsafeFileError, UnsupportedError) as error:
                print(type(error).__name__)
"""


def test_no_other_file_is_opened(shim: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.h5ad"
    adata = sample()
    adata.obs["n"] = range(adata.n_obs)
    scio.write_h5ad(adata, sound)
    (tmp_path / "other.h5").write_bytes(sound.read_bytes())
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "libh5trap.so").write_bytes(b"never to be opened")
    hostile = []
    for i, rule in enumerate(
        [
            "link leads to another file",
            "array lies in another file",
            "array is virtual",
            "X has an unknown filter",
        ]
    ):
        path = tmp_path / f"{i}.h5ad"
        path.write_bytes(sound.read_bytes())
        break_rule(path, rule)
        hostile.append(path)
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE), *map(str, [sound, log, *hostile])],
        env={**os.environ, "LD_PRELOAD": str(shim), "HDF5_PLUGIN_PATH": str(plugins)},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count("UnsafeFileError") >= 3
    assert "UnsupportedError" in done.stdout
    opened = {entry[1] for entry in read_log(log) if entry[0] in "oc"}
    named = {str(path) for path in (sound, *hostile)}
    assert named <= opened  # the log sees them
    others = {p for p in opened - named if not p.startswith(("/proc/", "/sys/"))}
    assert others == set()
