#!/usr/bin/env bash
# The Python tests that reach the C core, on an extension built with AddressSanitizer and UBSan:
#   tools/run_asan_pytest.sh PYTHON [PYTEST_ARG...]
# The package is built into build/asan, away from the ordinary extension, and found before it.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$PWD/$1
shift
package=$PWD/build/asan

# Tests may ask for it: a limit on address space, for one, does not go with ASan.
export SCIO_SANITIZE=address
"$python" setup.py -q build --build-base build/asan-base --build-lib "$package"

tests=()
for folder in tests/io tests/core tests/data tests/fuzz; do
    [ -n "$(find $folder -name 'test_*.py' -print -quit 2>/dev/null)" ] && tests+=("$folder")
done

# Memory through malloc, so that ASan sees Python's too; leaks are Python's own, valgrind and the C tests
# look for ours.  An error ends the process at once.
export LD_PRELOAD PYTHONMALLOC=malloc
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:halt_on_error=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
# The current folder must not come first: it holds the ordinary extension.
export PYTHONSAFEPATH=1 PYTHONPATH=$package

"$python" - "$package" <<'END'
import sys
import scio._core
if not scio._core.__file__.startswith(sys.argv[1]):
    sys.exit(f"the sanitized extension is not the one in use: {scio._core.__file__}")
END
# ASan is slow, so the time limit of a test is longer.
exec "$python" -m pytest --import-mode=append -p no:cacheprovider -o timeout=600 "${tests[@]}" "$@"
