#!/usr/bin/env bash
# Makes .venv and installs scio editable with the extras that are named: tools/setup_env.sh [EXTRA...]
#
# A stamp per extra holds a hash of what decides the result; the same hash means nothing to do.
# Versions are those of tools/constraints.txt.  The extension itself is built by the Makefile.
set -euo pipefail

cd "$(dirname "$0")/.."
venv=.venv
python=$(tools/setup_system.sh --python)

# A .venv of another Python, or one that was moved with the repository, is of no use.
identity="$("$python" -c 'import sys; print(sys.base_prefix, sys.version)') $PWD"
if [ ! -x $venv/bin/python ] || [ "$(cat $venv/.scio-identity 2>/dev/null)" != "$identity" ]; then
    echo "scio: making $venv with $python"
    rm -rf $venv
    "$python" -m venv $venv
    printf '%s\n' "$identity" >$venv/.scio-identity
fi

want=$(cat pyproject.toml setup.py tools/constraints.txt tools/setup_env.sh | sha256sum | cut -d ' ' -f 1)
is_done() { [ "$(cat "$venv/.scio-$1" 2>/dev/null)" = "$want" ]; }
mark_done() { printf '%s\n' "$want" >"$venv/.scio-$1"; }
install() { $venv/bin/python -m pip install --disable-pip-version-check -q -c tools/constraints.txt "$@"; }
install_scio() { # install_scio '' or '[extra]'
    SCIO_NO_EXTENSION=1 install --no-build-isolation -e ".$1"
}

if ! is_done base; then
    echo "scio: installing what the build needs"
    install 'pip>=24' 'setuptools>=77' numpy
    [ $# -gt 0 ] || install_scio ''
    mark_done base
fi
for extra in "$@"; do
    if ! is_done "extra-$extra"; then
        echo "scio: installing the requirements of [$extra]"
        case $extra in
        # First and alone, so that nothing else chooses its version; it is large.
        demo | test | bench) install torch ;;
        esac
        install_scio "[$extra]"
        mark_done "extra-$extra"
    fi
done
