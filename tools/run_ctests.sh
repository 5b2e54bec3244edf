#!/usr/bin/env bash
# Runs the C tests of one build: tools/run_ctests.sh build/c/plain [WRAPPER...]
#
# Each program once as the machine is and once per lower level of SCIO_CPU; with a wrapper (valgrind ...)
# or SCIO_CPU already set, once.  Exit code 1 when any program fails, after all have run.
set -euo pipefail

build=$1
shift

levels=("${SCIO_CPU:-}")
if [ $# -eq 0 ] && [ -z "${SCIO_CPU:-}" ]; then
    grep -qw avx2 /proc/cpuinfo 2>/dev/null && levels+=(base)
    grep -qw avx512bw /proc/cpuinfo 2>/dev/null && levels+=(avx2)
fi

failed=()
for level in "${levels[@]}"; do
    if [ -n "$level" ]; then export SCIO_CPU=$level; else unset SCIO_CPU; fi
    echo "C tests of $build, SCIO_CPU=${level:-highest of this machine}"
    n_programs=0
    for program in "$build"/test_*; do
        [ -x "$program" ] || continue
        name=$(basename "$program")
        # A program whose source is gone is not a test any more.
        [ -f "tests/c/$name.c" ] || continue
        n_programs=$((n_programs + 1))
        if output=$("$@" "$program" 2>&1); then
            echo "  $name: $(tail -n 1 <<<"$output")"
        else
            echo "$output"
            echo "  FAILED $name (SCIO_CPU=${level:-unset})"
            failed+=("$name${level:+ at $level}")
        fi
    done
    if [ "$n_programs" -eq 0 ]; then
        echo "no test programs in $build" >&2
        exit 1
    fi
done

if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
