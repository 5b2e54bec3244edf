#!/usr/bin/env bash
# Makes .venv-peers, where the benchmarks run annbatch, which needs a newer Python than scio does.
#
#   tools/setup_bench_peers.sh            the newest Python >= 3.12 on which it installs
#   PEERS_PYTHON=… tools/setup_bench_peers.sh   this one
#
# Versions are those of tools/constraints_peers.txt.  No torch: annbatch does not need it, and its
# batches are measured as the SciPy matrices that it makes.  Exit code 1, with a message, where no such
# Python is found; the benchmarks then leave annbatch out and say so.
set -euo pipefail

cd "$(dirname "$0")/.."
venv=.venv-peers
want=$(cat tools/constraints_peers.txt tools/setup_bench_peers.sh | sha256sum | cut -d ' ' -f 1)
if [ "$(cat $venv/.scio-peers 2>/dev/null)" = "$want" ] && $venv/bin/python -c 'import annbatch' 2>/dev/null; then
    exit 0
fi

is_new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; }

# Newest first: what is on PATH, then what pyenv has installed but not chosen.
candidates() {
    local minor place
    [ -z "${PEERS_PYTHON:-}" ] || { echo "$PEERS_PYTHON"; return; }
    for minor in 14 13 12; do
        echo "python3.$minor"
        for place in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
            [ ! -x "$place" ] || echo "$place"
        done
    done
    echo python3
}

while read -r python; do
    is_new_enough "$python" || continue
    echo "scio: making $venv with $("$python" --version) for annbatch"
    rm -rf $venv
    if "$python" -m venv $venv &&
        $venv/bin/python -m pip install --disable-pip-version-check -q \
            -c tools/constraints_peers.txt 'annbatch[zarrs]' h5py &&
        $venv/bin/python -W ignore -c 'import annbatch, zarrs'; then
        printf '%s\n' "$want" >$venv/.scio-peers
        exit 0
    fi
    echo "scio: annbatch does not install on $python" >&2
done < <(candidates)

rm -rf $venv
echo "scio: annbatch needs Python 3.12 or newer, and none is here on which it installs;" \
    "the benchmarks leave it out.  PEERS_PYTHON=/path/to/python names another one." >&2
exit 1
