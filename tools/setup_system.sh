#!/usr/bin/env bash
# Sees to the programs and libraries that scio needs from the system.
#
#   tools/setup_system.sh GROUP...   install what is missing of the groups: build test lint fuzz valgrind r
#   tools/setup_system.sh --python   print the Python to use (3.11 or newer; $PYTHON before all others)
#
# What is there is found by looking for the thing itself, so it may come from anywhere; what is missing
# is named as Debian's package.  apt runs as root or through sudo; where it cannot, the packages to
# install are named and the exit code is 1.
set -euo pipefail

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

has_program() { command -v "$1" >/dev/null 2>&1; }
has_module() { has_program pkg-config && pkg-config --exists "$1"; }
has_libhdf5() { has_module hdf5-serial || has_module hdf5; }
has_python_file() { # a header of the Python that will be used
    local python
    python=$(find_python) &&
        "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(
            os.path.join(sysconfig.get_path("include"), "Python.h")))'
}
has_python_module() {
    local python
    python=$(find_python) && "$python" -c "import $1" 2>/dev/null
}
can_compile() { # a program with the C library's headers
    has_program gcc && printf '#include <stdio.h>\n' | gcc -E -x c - >/dev/null 2>&1
}
has_r_package() {
    has_program Rscript &&
        Rscript -e "quit(status = !requireNamespace('$1', quietly = TRUE))" >/dev/null 2>&1
}
can_fuzz() {
    has_program clang-14 &&
        [ -n "$(find "$(clang-14 -print-resource-dir)/" -name 'libclang_rt.fuzzer-x86_64.a' -o \
            -name 'libclang_rt.fuzzer-aarch64.a' 2>/dev/null)" ]
}

missing=()
need() { # need PACKAGES CHECK...: the packages, unless the check succeeds
    local packages=$1
    shift
    # Words on purpose: one check may stand for several packages.
    # shellcheck disable=SC2206
    "$@" || missing+=($packages)
}

check_group() {
    case $1 in
    build)
        need "python3" find_python >/dev/null
        need "$(headers_package)" has_python_file
        need "$(venv_package)" has_python_module ensurepip
        need "gcc libc6-dev" can_compile
        need pkg-config has_program pkg-config
        need libdeflate-dev has_module libdeflate
        need libzstd-dev has_module libzstd
        need liblz4-dev has_module liblz4
        need libblosc-dev has_module blosc
        need libisal-dev has_module libisal
        need libhdf5-dev has_libhdf5
        ;;
    test) need hdf5-tools has_program h5dump ;;
    lint)
        need clang-format-14 has_program clang-format-14
        need binutils has_program nm
        ;;
    fuzz) need "clang-14 libclang-rt-14-dev" can_fuzz ;;
    valgrind) need valgrind has_program valgrind ;;
    r)
        need r-base-core has_program Rscript
        need r-bioc-scuttle has_r_package scuttle
        need r-bioc-rhdf5 has_r_package rhdf5
        ;;
    *)
        echo "scio: unknown group '$1', expected build, test, lint, fuzz, valgrind or r" >&2
        exit 2
        ;;
    esac
}

# Debian names the headers and venv of a Python that is not its default by its version.
python_package() {
    local python
    python=$(find_python) || { echo python3; return; }
    case $(basename "$python") in
    python3.*) basename "$python" ;;
    *) echo python3 ;;
    esac
}
headers_package() { echo "$(python_package)-dev"; }
venv_package() { echo "$(python_package)-venv"; }

check_groups() {
    missing=()
    local group
    for group in "$@"; do
        check_group "$group"
    done
}

as_root=()
can_install() {
    has_program apt-get || return 1
    if [ "$(id -u)" -ne 0 ]; then
        has_program sudo || return 1
        # Without a terminal nobody can type a password.
        if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
        "${as_root[@]}" true 2>/dev/null || return 1
    fi
}

give_up() {
    echo "scio: these Debian packages are needed, and $1:" >&2
    echo "    apt-get install ${missing[*]}" >&2
    exit 1
}

if [ "${1:-}" = --python ]; then
    find_python && exit 0
    echo "scio: needs Python 3.11 or newer; found $(python3 --version 2>&1 || true)." \
        "Debian 12: apt-get install python3 python3-dev python3-venv" >&2
    exit 1
fi

check_groups "$@"
[ ${#missing[@]} -eq 0 ] && exit 0
can_install || give_up "apt cannot be used here (no apt-get, or neither root nor sudo)"

echo "scio: installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq || give_up "apt-get update failed"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" || give_up "apt-get install failed"

check_groups "$@"
[ ${#missing[@]} -eq 0 ] || give_up "they are still not found after apt-get install"
