#!/usr/bin/env bash
# The extension exports PyInit__core and nothing else: tools/check_symbols.sh [FILE.so ...]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- scio/_core*.so
status=0
for library in "$@"; do
    if [ ! -f "$library" ]; then
        echo "symbols: no $library; run make build first" >&2
        exit 1
    fi
    exported=$(nm -D --defined-only "$library" | awk '{print $3}' | sort | tr '\n' ' ')
    if [ "$exported" != "PyInit__core " ]; then
        echo "$library exports: $exported" >&2
        echo "expected PyInit__core only; is a function not static, or built without -fvisibility=hidden?" >&2
        status=1
    fi
done
[ $status -ne 0 ] || echo "symbols: PyInit__core only"
exit $status
