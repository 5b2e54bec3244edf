#!/usr/bin/env bash
# Each extension exports its PyInit and nothing else, only the writer needs libhdf5, and no function of
# ours is left for the loader to find: tools/check_symbols.sh [FILE.so ...]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- scio/_core*.so scio/_h5write*.so
status=0
for library in "$@"; do
    if [ ! -f "$library" ]; then
        echo "symbols: no $library; run make build first" >&2
        exit 1
    fi
    exported=$(nm -D --defined-only "$library" | awk '{print $3}' | sort | tr '\n' ' ')
    name=$(basename "$library")
    if ! [[ $exported =~ ^PyInit_[a-z0-9_]+\ $ ]]; then
        echo "$library exports: $exported" >&2
        echo "expected its PyInit only; is a function not static, or built without -fvisibility=hidden?" >&2
        status=1
    fi
    missing=$(nm -D --undefined-only "$library" | awk '$2 ~ /^(scio|py)_/ {print $2}' | tr '\n' ' ')
    if [ -n "$missing" ]; then
        echo "$library lacks: $missing; does setup.py name all its sources?" >&2
        status=1
    fi
    case $name in
    _h5write*) ;;
    *)
        if readelf -d "$library" | grep -q 'NEEDED.*libhdf5'; then
            echo "$library needs libhdf5, which is for _h5write only" >&2
            status=1
        fi
        ;;
    esac
done
[ $status -ne 0 ] || echo "symbols: PyInit only, libhdf5 for the writer only"
exit $status
