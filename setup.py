"""Build of the extensions ``scio._core`` and ``scio._h5write``; everything else about the package is in pyproject.toml.

The sources are globs of ``csrc/``; ``_h5write`` is a module of its own, so that a process that does not
write HDF5 never loads libhdf5.  Flags and libraries come from ``tools/native.py``.
Objects lie in ``build/ext-<mode>-<abi>`` and are compiled again only when a file they were made from,
or the command, has changed; as many at a time as there are CPUs.

Environment
-----------
SCIO_SANITIZE
    ``address`` (with undefined behaviour) or ``thread``.
SCIO_DEBUG, SCIO_COVERAGE
    ``1``: no optimisation and assertions on; the same with gcov counters.
SCIO_WERROR
    ``1``: a warning of the compiler is an error.
SCIO_NO_EXTENSION
    ``1``: install the package without compiling; for ``tools/setup_env.sh``.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

import native  # noqa: E402 - lies in tools/, which is no package

SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}


def _mode() -> tuple[str, list[str]]:
    """Name and flags of the kind of build that the environment asks for."""
    sanitize = os.environ.get("SCIO_SANITIZE", "")
    if sanitize and sanitize not in SANITIZERS:
        sys.exit(f"scio: SCIO_SANITIZE is {sanitize!r}, expected {' or '.join(SANITIZERS)}")
    # Debian's Python brings -D_FORTIFY_SOURCE, which needs optimisation, and -DNDEBUG.
    debug = ["-g", "-UNDEBUG", "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer"]
    if sanitize:
        # A sanitizer's own code makes gcc guess wrongly about uninitialised variables.
        return sanitize, [*debug, "-O1", "-Wno-maybe-uninitialized", *SANITIZERS[sanitize]]
    if native.is_set("SCIO_COVERAGE"):
        return "coverage", [*debug, "-O0", "--coverage"]
    if native.is_set("SCIO_DEBUG"):
        return "debug", [*debug, "-O0"]
    # -g0: Python's own flags may ask for debug information, which would triple the file.
    return "release", ["-O3", "-g0"]


def _version() -> str:
    """Version of the package, which stands in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version: str = tomllib.load(file)["project"]["version"]
    return version


def _sources(*patterns: str) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for q in patterns for p in (ROOT / "csrc").glob(q))


# What of the core the writer's module needs again: it shares no symbols with `_core`.
_SHARED = [
    "base/*.c",
    *(f"codec/{name}.c" for name in ("encoder", "fletcher32", "shuffle")),
    "sparse/csr.c",
    *(f"py/{name}.c" for name in ("pyargs", "pyarray", "pycall", "pyerror")),
]
_WRITER_FOLDERS = ("csrc/h5write/", "csrc/py_h5write/")


def _extensions(mode_flags: list[str]) -> list[Extension]:
    try:
        lib_cflags, libs, absent = native.libraries()
        writer_cflags, writer_libs = native.writer_libraries()
    except native.MissingLibraryError as error:
        sys.exit(f"scio: {error}")
    if absent:
        print(f"scio: built without {', '.join(absent)}", file=sys.stderr)
    # -isystem: warnings are for our code, not for the headers of Python and NumPy.
    headers = [sysconfig.get_path("include"), np.get_include()]
    # One command for both, so that they share their objects.
    compile_args = [
        *[flag for header in headers for flag in ("-isystem", header)],
        *native.LANGUAGE,
        *native.warnings(),
        *lib_cflags,
        *writer_cflags,
        *mode_flags,
        f'-DSCIO_VERSION="{_version()}"',
        f'-DSCIO_NUMPY_VERSION="{np.__version__}"',
    ]
    mode_libs = [f for f in mode_flags if f.startswith(("-fsan", "--cov"))]
    return [
        Extension(
            "scio._core",
            sources=[s for s in _sources("**/*.c") if not s.startswith(_WRITER_FOLDERS)],
            include_dirs=["csrc"],
            extra_compile_args=compile_args,
            extra_link_args=[*libs, *mode_libs],
        ),
        Extension(
            "scio._h5write",
            sources=_sources("h5write/*.c", "py_h5write/*.c", *_SHARED),
            include_dirs=["csrc"],
            extra_compile_args=compile_args,
            extra_link_args=[*writer_libs, "-Wl,--as-needed", *libs, *mode_libs],
        ),
    ]


def _is_current(built: Path, command: str) -> bool:
    """Say whether an object was made by this command from files older than itself."""
    notes, made_by = built.with_suffix(".d"), built.with_suffix(".cmd")
    if not (built.exists() and notes.exists() and made_by.exists()):
        return False
    if made_by.read_text() != command:
        return False
    made = built.stat().st_mtime
    sources = notes.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return all(Path(s).exists() and Path(s).stat().st_mtime <= made for s in sources)


class IncrementalBuildExt(build_ext):
    """Compile what has changed, several files at a time."""

    def finalize_options(self) -> None:
        super().finalize_options()
        abi = sysconfig.get_config_var("SOABI")
        # Fixed, so that `pip install -e .` and `setup.py build_ext --inplace` share their objects.
        self.build_temp = str(Path("build") / f"ext-{_mode()[0]}-{abi}")

    def build_extension(self, ext: Extension) -> None:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            built = list(pool.map(lambda source: self._compile(source, ext), ext.sources))
        target = Path(self.get_ext_fullpath(ext.name))
        objects = [path for path, _ in built]
        if not any(is_new for _, is_new in built) and self._is_linked(target, objects, ext):
            return
        self.compiler.link_shared_object(
            objects, str(target), extra_postargs=ext.extra_link_args, build_temp=self.build_temp
        )
        self._link_note(target).write_text(self._link_command(objects, ext))

    def _compile(self, source: str, ext: Extension) -> tuple[str, bool]:
        """Object of one source, and whether it was made just now."""
        built = Path(self.compiler.object_filenames([source], output_dir=self.build_temp)[0])
        command = shlex.join([*self.compiler.compiler_so, *ext.extra_compile_args])
        if _is_current(built, command):
            return str(built), False
        self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            include_dirs=ext.include_dirs,
            extra_postargs=[*ext.extra_compile_args, "-MMD", "-MF", str(built.with_suffix(".d"))],
        )
        built.with_suffix(".cmd").write_text(command)
        return str(built), True

    def _link_note(self, target: Path) -> Path:
        return Path(self.build_temp) / f"{target.name}.link"

    def _link_command(self, objects: list[str], ext: Extension) -> str:
        return shlex.join([*self.compiler.linker_so, *objects, *ext.extra_link_args])

    def _is_linked(self, target: Path, objects: list[str], ext: Extension) -> bool:
        note = self._link_note(target)
        if not (target.exists() and note.exists()):
            return False
        if note.read_text() != self._link_command(objects, ext):
            return False
        return target.stat().st_mtime >= max(Path(o).stat().st_mtime for o in objects)


os.chdir(ROOT)
setup(
    ext_modules=[] if native.is_set("SCIO_NO_EXTENSION") else _extensions(_mode()[1]),
    cmdclass={"build_ext": IncrementalBuildExt},
)
