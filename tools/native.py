"""Flags and libraries of the C core: the one place that knows them.

``setup.py`` imports this file for the extension and ``tools/c.mk`` reads what ``--make`` prints for the
library, the C tests and the fuzzers, so that all of them are built alike.

Environment
-----------
SCIO_WERROR or CI
    Not empty and not ``0``: a warning is an error.
PKG_CONFIG
    The program that knows where libraries are; ``pkg-config`` unless set.

Usage: ``python tools/native.py --make``
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

# module of pkg-config -> macro that says it is there, package of Debian
REQUIRED = {"libdeflate": ("", "libdeflate-dev")}
OPTIONAL = {
    "libzstd": ("SCIO_HAVE_ZSTD", "libzstd-dev"),
    "liblz4": ("SCIO_HAVE_LZ4", "liblz4-dev"),
    "blosc": ("SCIO_HAVE_BLOSC", "libblosc-dev"),
    "libisal": ("SCIO_HAVE_ISAL", "libisal-dev"),
}

# What writes, and only that: names of libhdf5's module by preference, Debian's first.
WRITER_MODULES = ("hdf5-serial", "hdf5")
WRITER_PACKAGE = "libhdf5-dev"

# -fno-math-errno: sqrt is an instruction, also of vectors; nobody reads errno after it.
LANGUAGE = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
]
# -Wunused-result again, because Python's own flags turn it off and scio_status relies on it.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-Wunused-result",
]
SYSTEM_LIBS = ["-lpthread", "-lm"]


class MissingLibraryError(RuntimeError):
    """A library without which the core cannot be built is not installed."""


def is_set(name: str) -> bool:
    """Say whether an environment variable holds something other than nothing or ``0``."""
    return os.environ.get(name, "") not in ("", "0")


def warnings() -> list[str]:
    """Warning flags, as errors where the environment asks for it."""
    return WARNINGS + (["-Werror"] if is_set("SCIO_WERROR") or is_set("CI") else [])


def _pkg_config(*args: str) -> list[str] | None:
    """Flags that pkg-config prints, or None when it does not know the module (or is not there)."""
    program = os.environ.get("PKG_CONFIG", "pkg-config")
    try:
        done = subprocess.run([program, *args], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return shlex.split(done.stdout) if done.returncode == 0 else None


def libraries() -> tuple[list[str], list[str], list[str]]:
    """Flags of the libraries that are installed, and the names of the optional ones that are not.

    Returns
    -------
    cflags, libs, absent : list of str
        Compiler flags with one ``-DSCIO_HAVE_...=1`` per optional library; linker flags; Debian
        packages of the optional libraries that were not found.

    Raises
    ------
    MissingLibraryError
        If a required library is absent; the message names the Debian package.
    """
    cflags: list[str] = []
    libs: list[str] = []
    absent: list[str] = []
    for module, (macro, package) in {**REQUIRED, **OPTIONAL}.items():
        module_libs = _pkg_config("--libs", module)
        if module_libs is None:
            if module in REQUIRED:
                message = (
                    f"pkg-config does not find {module}, which scio needs: "
                    f"apt-get install pkg-config {package}"
                )
                raise MissingLibraryError(message)
            absent.append(package)
            continue
        cflags += _pkg_config("--cflags", module) or []
        cflags += [f"-D{macro}=1"] if macro else []
        libs += module_libs
    return cflags, libs + SYSTEM_LIBS, absent


def writer_libraries() -> tuple[list[str], list[str]]:
    """Flags of libhdf5, which the extension ``scio._h5write`` and its C tests link, nothing else.

    Returns
    -------
    cflags, libs : list of str
        Its headers count as the system's: warnings are for our code.

    Raises
    ------
    MissingLibraryError
        If it is absent; the message names the Debian package.
    """
    for module in WRITER_MODULES:
        libs = _pkg_config("--libs", module)
        if libs is not None:
            folders = [
                flag.removeprefix("-I")
                for flag in _pkg_config("--cflags", module) or []
                if flag.startswith("-I")
            ]
            return [part for folder in folders for part in ("-isystem", folder)], libs
    message = (
        f"pkg-config finds neither {' nor '.join(WRITER_MODULES)}, which scio writes HDF5 with: "
        f"apt-get install pkg-config {WRITER_PACKAGE}"
    )
    raise MissingLibraryError(message)


def main() -> int:
    """Print the flags as Makefile variables."""
    if sys.argv[1:] != ["--make"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        cflags, libs, absent = libraries()
        writer_cflags, writer_libs = writer_libraries()
    except MissingLibraryError as error:
        print(f"scio: {error}", file=sys.stderr)
        return 1
    print(f"LANGUAGE := {shlex.join(LANGUAGE)}")
    print(f"WARNINGS := {shlex.join(warnings())}")
    print(f"LIB_CFLAGS := {shlex.join(cflags)}")
    print(f"LIBS := {shlex.join(libs)}")
    print(f"WRITER_CFLAGS := {shlex.join(writer_cflags)}")
    print(f"WRITER_LIBS := {shlex.join(writer_libs)}")
    if absent:
        print(f"scio: built without {', '.join(absent)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
